use proptest::prelude::*;

use super::*;
use crate::limits::{BULK_BYTES_MAX, REPLY_LINE_BYTES_MAX};
use crate::{Protocol, Value};

/// Where each reply of a stream ends, and the error behind the last one.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    ends: Vec<usize>,
    error: Option<ReplyError>,
    between: bool,
}

/// Feeds `bytes` cut at `cuts`, dropping walked bytes at once.
fn feed(bytes: &[u8], cuts: &[usize]) -> Seen {
    let mut framer = ReplyFramer::new();
    let mut seen = Seen::default();
    let mut walked = 0;
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    for end in cuts {
        loop {
            let walk = match framer.advance(&bytes[walked..end]) {
                Ok(walk) => walk,
                Err(error) => {
                    seen.error = Some(error);
                    return seen;
                }
            };
            walked += walk.consumed;
            assert!(walked <= end && framer.wanted() >= 1);
            if !walk.done {
                break;
            }
            assert!(walk.consumed > 0 && framer.is_between_replies());
            seen.ends.push(walked);
        }
    }
    seen.between = framer.is_between_replies();
    seen
}

fn whole(bytes: &[u8]) -> Seen {
    feed(bytes, &[])
}

fn one_by_one(bytes: &[u8]) -> Seen {
    feed(bytes, &(0..bytes.len()).collect::<Vec<_>>())
}

#[test]
fn every_type_has_its_end() {
    for text in [
        "+OK\r\n",
        "-ERR no\r\n",
        "+\r\n",
        ":0\r\n",
        ":-9223372036854775808\r\n",
        "$0\r\n\r\n",
        "$5\r\nhello\r\n",
        "$2\r\n\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "_\r\n",
        "#t\r\n",
        "#f\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        ",-inf\r\n",
        ",nan\r\n",
        ",1e+300\r\n",
        "(123456789012345678901234567890\r\n",
        "(-1\r\n",
        "!5\r\nERR x\r\n",
        "=8\r\ntxt:abcd\r\n",
        "=4\r\ntxt:\r\n",
        "~2\r\n:1\r\n:2\r\n",
        "%1\r\n+a\r\n:1\r\n",
        "%0\r\n",
        ">2\r\n+a\r\n+b\r\n",
        "|1\r\n+ttl\r\n:9\r\n$1\r\na\r\n",
        "|0\r\n:1\r\n",
        "|0\r\n|1\r\n+a\r\n+b\r\n*0\r\n",
        "*2\r\n>3\r\n$9\r\nsubscribe\r\n$2\r\nmm\r\n:1\r\n+PONG\r\n",
        "*3\r\n|1\r\n+a\r\n*1\r\n:1\r\n:1\r\n*2\r\n*0\r\n$-1\r\n%1\r\n+k\r\n*1\r\n_\r\n",
    ] {
        let ends = vec![text.len(), text.len() + 3];
        let expected = Seen {
            ends,
            error: None,
            between: true,
        };
        let stream = [text.as_bytes(), b"_\r\n"].concat();
        assert_eq!(whole(&stream), expected, "{text:?}");
        assert_eq!(one_by_one(&stream), expected, "{text:?}");
        let cut = whole(&text.as_bytes()[..text.len() - 1]);
        assert_eq!(
            cut,
            Seen {
                ends: vec![],
                error: None,
                between: false
            },
            "{text:?}"
        );
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    use ReplyError::*;
    for (text, error) in [
        ("OK\r\n", UnknownType(b'O')),
        ("\r\n", UnknownType(b'\r')),
        ("$?\r\n", InvalidLength),
        ("*?\r\n", InvalidLength),
        (".\r\n", UnknownType(b'.')),
        ("$+5\r\n", InvalidLength),
        ("$05\r\n", InvalidLength),
        ("$-2\r\n", InvalidLength),
        ("$-1x", InvalidLength),
        ("$\r\n", InvalidLength),
        ("$536870913\r\n", InvalidLength),
        ("$18446744073709551616\r\n", InvalidLength),
        ("*2147483648\r\n", InvalidLength),
        ("*-2\r\n", InvalidLength),
        ("%-1\r\n", InvalidLength),
        ("~-1\r\n", InvalidLength),
        ("=3\r\n", InvalidLength),
        ("=5\r\ntxt-", InvalidScalar(b'=')),
        ("!-1\r\n", InvalidLength),
        (":+1\r\n", InvalidScalar(b':')),
        (":01\r\n", InvalidScalar(b':')),
        (":9223372036854775808\r\n", InvalidScalar(b':')),
        (":\r\n", InvalidScalar(b':')),
        ("#x\r\n", InvalidScalar(b'#')),
        ("_x\r\n", InvalidScalar(b'_')),
        (",x\r\n", InvalidScalar(b',')),
        ("(1a\r\n", InvalidScalar(b'(')),
        ("+a\nb\r\n", InvalidCrlf),
        ("+a\rb\r\n", InvalidCrlf),
        ("$1\r\nabc", InvalidCrlf),
        ("$1\r\na\rb", InvalidCrlf),
        ("$1\rx", InvalidLength),
        ("*1\r\nx", UnknownType(b'x')),
        ("*2\r\n:1\r\n:x\r\n", InvalidScalar(b':')),
    ] {
        let refused = Seen {
            ends: vec![],
            error: Some(error),
            between: false,
        };
        assert_eq!(whole(text.as_bytes()), refused, "{text:?}");
        assert_eq!(one_by_one(text.as_bytes()), refused, "{text:?}");
        assert_eq!(Value::parse(text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn a_half_line_is_forgotten_once_it_is_whole() {
    let bytes = b":123456\r\n+\r\n_\r\n";
    assert_eq!(feed(bytes, &[6]).ends, whole(bytes).ends);
    assert_eq!(whole(bytes).ends, [9, 12, 15]);
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    assert_eq!(whole(&nested(128)).ends, [128 * 4 + 4]);
    assert!(Value::parse(&nested(128)).is_ok());
    assert_eq!(whole(&nested(129)).error, Some(ReplyError::TooDeep));
    assert_eq!(Value::parse(&nested(129)), Err(ReplyError::TooDeep));
    for kind in ["*1\r\n", "%1\r\n+k\r\n", "|1\r\n+k\r\n", ">1\r\n", "~1\r\n"] {
        let bytes = kind.repeat(100_000);
        assert_eq!(whole(bytes.as_bytes()).error, Some(ReplyError::TooDeep));
        assert_eq!(Value::parse(bytes.as_bytes()), Err(ReplyError::TooDeep));
    }
}

#[test]
fn announced_sizes_allocate_nothing() {
    let announced = ["*2147483647\r\n", "%2147483647\r\n", "$536870912\r\nx"];
    for text in announced {
        let mut framer = ReplyFramer::new();
        assert!(!framer.advance(text.as_bytes()).unwrap().done);
        assert!(!framer.open.spilled());
        assert!(framer.wanted() > BULK_BYTES_MAX);
        assert_eq!(Value::parse(text.as_bytes()), Err(ReplyError::Incomplete));
    }
}

#[test]
fn a_deep_reply_leaves_no_memory_behind() {
    let mut framer = ReplyFramer::new();
    let bytes = [b"*1\r\n".repeat(100), b":1\r\n".to_vec()].concat();
    assert!(framer.advance(&bytes).unwrap().done);
    assert!(!framer.open.spilled());
}

#[test]
fn a_huge_bulk_streams_through_a_small_window() {
    let mut framer = ReplyFramer::new();
    assert_eq!(
        framer.advance(b"*2\r\n$536870912\r\n").unwrap().consumed,
        16
    );
    let window = vec![b'x'; 1 << 20];
    for _ in 0..512 {
        let walk = framer.advance(&window).unwrap();
        assert_eq!(
            walk,
            Walk {
                consumed: window.len(),
                done: false
            }
        );
    }
    assert_eq!(framer.wanted(), 2);
    let walk = framer.advance(b"\r\n:1\r\n+next").unwrap();
    assert_eq!(
        walk,
        Walk {
            consumed: 6,
            done: true
        }
    );
}

#[test]
fn lines_are_bounded() {
    let line = |len: usize| [b"-", vec![b'x'; len].as_slice(), b"\r\n"].concat();
    assert_eq!(whole(&line(REPLY_LINE_BYTES_MAX)).ends.len(), 1);
    assert_eq!(
        whole(&line(REPLY_LINE_BYTES_MAX + 1)).error,
        Some(ReplyError::LineTooLong)
    );
    let endless = vec![b'+'; REPLY_LINE_BYTES_MAX + 2];
    assert_eq!(whole(&endless).error, Some(ReplyError::LineTooLong));
    assert_eq!(one_by_one(&endless).error, Some(ReplyError::LineTooLong));
}

fn text() -> impl Strategy<Value = bytes::Bytes> {
    "[ -~]{0,12}".prop_map(bytes::Bytes::from)
}

fn blob() -> impl Strategy<Value = bytes::Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(bytes::Bytes::from)
}

/// Any reply RESP3 can express.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::Simple),
        text().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        blob().prop_map(Value::Bulk),
        blob().prop_map(Value::BulkError),
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        any::<f64>()
            .prop_filter("equal to itself", |f| !f.is_nan())
            .prop_map(Value::Double),
        "-?[0-9]{1,40}".prop_map(|digits| Value::BigNumber(digits.into())),
        blob().prop_map(|text| Value::Verbatim {
            format: *b"txt",
            text
        }),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6);
        let pairs = prop::collection::vec((inner.clone(), inner), 0..4);
        prop_oneof![
            list.clone().prop_map(Value::Array),
            list.clone().prop_map(Value::Set),
            list.prop_map(Value::Push),
            pairs.clone().prop_map(Value::Map),
            (pairs, blob()).prop_map(|(attributes, bytes)| Value::Attributed {
                attributes,
                value: Box::new(Value::Bulk(bytes)),
            }),
        ]
    })
}

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let alphabet = &b"+-:$*%~>|=!_#,(0123456789\r\n\r\n\r\n\r\ntxt:a"[..];
    prop::collection::vec(prop::sample::select(alphabet), 0..60)
}

proptest! {
    #[test]
    fn replies_read_back_and_end_where_they_were_written_to_end(
        values in prop::collection::vec(value(), 1..5),
    ) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for value in &values {
            value.encode(Protocol::Resp3, &mut bytes);
            ends.push(bytes.len());
        }
        prop_assert_eq!(&whole(&bytes).ends, &ends);
        let mut at = 0;
        for (value, end) in values.iter().zip(ends) {
            let (read, len) = Value::parse(&bytes[at..]).unwrap();
            prop_assert_eq!(&read, value);
            at += len;
            prop_assert_eq!(at, end);
        }
    }

    #[test]
    fn resp2_says_what_it_can(value in value()) {
        let bytes = value.to_vec(Protocol::Resp2);
        prop_assert_eq!(whole(&bytes).ends, vec![bytes.len()]);
        let (read, _) = Value::parse(&bytes).unwrap();
        prop_assert_eq!(read.to_vec(Protocol::Resp2), bytes);
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_ends(
        values in prop::collection::vec(value(), 0..4),
        tail in garbage(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        for value in values {
            value.encode(Protocol::Resp3, &mut bytes);
        }
        bytes.extend(tail);
        let expected = whole(&bytes);
        prop_assert_eq!(&feed(&bytes, &cuts), &expected);
        prop_assert_eq!(&one_by_one(&bytes), &expected);
    }

    /// The framer and the parser take the same bytes for a reply and refuse the same.
    #[test]
    fn the_framer_agrees_with_the_parser(bytes in garbage()) {
        let mut framer = ReplyFramer::new();
        match (framer.advance(&bytes), Value::parse(&bytes)) {
            (Ok(walk), Ok((_, len))) => prop_assert_eq!(walk, Walk { consumed: len, done: true }),
            (Ok(walk), Err(ReplyError::Incomplete)) => prop_assert!(!walk.done),
            (Err(framed), Err(parsed)) => prop_assert_eq!(framed, parsed),
            (framed, parsed) => prop_assert!(false, "{:?} but {:?}", framed, parsed),
        }
    }
}
