//! What a client sends. The first byte chooses the limits, the next (up to seven) say where the
//! stream is cut; the rest is the stream.
//!
//! Holds: no panic; any split gives the same requests and the same error; every frame that leaves
//! is canonical and reads back to the same arguments.

#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{OwnedRequest, ProtocolError, RequestDecoder, RequestLimits, write};

type Args = Vec<Vec<u8>>;

fn decode(
    limits: RequestLimits,
    stream: &[u8],
    ends: &[usize],
) -> (Vec<Args>, Result<usize, ProtocolError>) {
    let mut decoder = RequestDecoder::new(limits);
    let mut requests = Vec::new();
    let mut start = 0;
    for &end in ends {
        loop {
            let buf = &stream[start..end];
            match decoder.decode(buf) {
                Ok(None) => {
                    assert!((1..=buf.len().max(64 * 1024)).contains(&decoder.wanted()));
                    break;
                }
                Ok(Some(len)) => {
                    assert!(len > 0);
                    if !decoder.is_empty() {
                        requests.push(check(decoder.request(&buf[..len])));
                    }
                    start += len;
                    decoder.next();
                    assert!(decoder.is_idle());
                }
                Err(error) => return (requests, Err(error)),
            }
        }
    }
    (requests, Ok(start))
}

fn check(request: resp::Request<'_>) -> Args {
    let args: Args = request.args().map(<[u8]>::to_vec).collect();
    let mut canonical = Vec::new();
    write::request(&mut canonical, &args);
    assert_eq!(request.bytes(), canonical);
    let again = OwnedRequest::parse(canonical).expect("what left is legal");
    assert!(again.as_request().args().eq(request.args()));
    args
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let small = RequestLimits {
        args_max: 4,
        bulk_bytes_max: 20,
        inline_bytes_max: 30,
        request_bytes_max: 60,
        authenticated: choice & 4 == 0,
    };
    let limits = match choice & 3 {
        0 => RequestLimits::UNAUTHENTICATED,
        1 => RequestLimits::AUTHENTICATED,
        _ => small,
    };
    let (cuts, stream) = rest.split_at(rest.len().min(usize::from(choice >> 5)));
    let mut ends: Vec<usize> = cuts
        .iter()
        .map(|&cut| usize::from(cut).min(stream.len()))
        .collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let whole = decode(limits, stream, &[stream.len()]);
    assert_eq!(decode(limits, stream, &ends), whole);
    if stream.len() < 300 {
        let one_by_one: Vec<usize> = (1..=stream.len()).collect();
        assert_eq!(decode(limits, stream, &one_by_one), whole);
    }
});
