//! What a node sends. The first byte says how many of the next are cuts; the rest is the stream.
//!
//! Holds: no panic; any split gives the same ends and the same error, with walked bytes dropped at
//! once; the framer and the value parser agree on every reply; what was read is written back to
//! something that reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{Protocol, ReplyError, ReplyFramer, Value};

fn frame(stream: &[u8], ends: &[usize]) -> (Vec<usize>, Result<bool, ReplyError>) {
    let mut framer = ReplyFramer::new();
    let mut found = Vec::new();
    let mut walked = 0;
    for &end in ends {
        loop {
            match framer.advance(&stream[walked..end]) {
                Ok(walk) => {
                    walked += walk.consumed;
                    assert!(walked <= end && framer.wanted() >= 1);
                    if !walk.done {
                        break;
                    }
                    assert!(walk.consumed > 0 && framer.is_between_replies());
                    found.push(walked);
                }
                Err(error) => return (found, Err(error)),
            }
        }
    }
    (found, Ok(framer.is_between_replies()))
}

fn agree(stream: &[u8], (ends, last): &(Vec<usize>, Result<bool, ReplyError>)) {
    let mut start = 0;
    for &end in ends {
        let (value, len) = Value::parse(&stream[start..]).expect("the framer saw a reply");
        assert_eq!(start + len, end);
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let written = value.to_vec(protocol);
            let (again, len) = Value::parse(&written).expect("what is written is legal");
            assert_eq!(len, written.len());
            assert_eq!(again.to_vec(protocol), written);
        }
        start = end;
    }
    match (Value::parse(&stream[start..]), last) {
        (Err(ReplyError::Incomplete), Ok(_)) => {}
        (Err(parsed), Err(framed)) => assert_eq!(parsed, *framed),
        (parsed, framed) => panic!("{parsed:?} but {framed:?}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let (cuts, stream) = rest.split_at(rest.len().min(usize::from(choice & 7)));
    let mut ends: Vec<usize> = cuts
        .iter()
        .map(|&cut| usize::from(cut).min(stream.len()))
        .collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let whole = frame(stream, &[stream.len()]);
    assert_eq!(frame(stream, &ends), whole);
    if stream.len() < 300 {
        let one_by_one: Vec<usize> = (1..=stream.len()).collect();
        assert_eq!(frame(stream, &one_by_one), whole);
    }
    agree(stream, &whole);
});
