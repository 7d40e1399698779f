use proptest::prelude::*;

use super::*;
use crate::write;

/// What a client sees: the requests as argument lists, then the error's reply if there is one.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    requests: Vec<Vec<Vec<u8>>>,
    frames: Vec<Vec<u8>>,
    error: Option<ProtocolError>,
    left: usize,
}

/// Feeds `bytes` cut at `cuts`, as a connection would.
fn feed(limits: RequestLimits, bytes: &[u8], cuts: &[usize]) -> Seen {
    let mut decoder = RequestDecoder::new(limits);
    let mut seen = Seen::default();
    let mut buf = Vec::new();
    let mut start = 0;
    let ends = cuts
        .iter()
        .map(|cut| cut % (bytes.len() + 1))
        .chain([bytes.len()]);
    let mut ends: Vec<usize> = ends.collect();
    ends.sort_unstable();
    for end in ends {
        buf.extend_from_slice(&bytes[start..end]);
        start = end;
        loop {
            match decoder.decode(&buf) {
                Ok(None) => {
                    assert!(decoder.wanted() >= 1);
                    assert_eq!(decoder.is_idle(), buf.is_empty());
                    break;
                }
                Ok(Some(len)) => {
                    assert!(len > 0 && len <= buf.len());
                    if !decoder.is_empty() {
                        let request = decoder.request(&buf[..len]);
                        seen.requests
                            .push(request.args().map(<[u8]>::to_vec).collect());
                        seen.frames.push(request.bytes().to_vec());
                    }
                    buf.drain(..len);
                    decoder.next();
                    assert!(decoder.is_idle());
                }
                Err(error) => {
                    seen.error = Some(error);
                    return seen;
                }
            }
        }
    }
    seen.left = buf.len();
    seen
}

fn whole(limits: RequestLimits, bytes: &[u8]) -> Seen {
    feed(limits, bytes, &[])
}

fn names(seen: &Seen) -> Vec<String> {
    let text = |args: &Vec<Vec<u8>>| {
        args.iter()
            .map(|arg| arg.escape_ascii().to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    seen.requests.iter().map(text).collect()
}

/// The rows of "proto errors (authenticated)" as observed on 9.1.2: what was sent, the commands it
/// ran, the error line after which it closed ("" = stayed open, "-" = closed without a word).
const AUTHENTICATED: &[(&[u8], &[&str], &str)] = &[
    (b"*1\r\n+PING\r\n", &[], "expected '$', got '+'"),
    (b"*1\r\n$-1\r\n", &[], "invalid bulk length"),
    (b"*1\r\n$abc\r\n", &[], "invalid bulk length"),
    (b"*1\r\n$536870913\r\n", &[], "invalid bulk length"),
    (b"*abc\r\n", &[], "invalid multibulk length"),
    (b"*-5\r\nPING\r\n", &["PING"], ""),
    (b"*0\r\nPING\r\n", &["PING"], ""),
    (b"*1048576\r\n", &[], ""),
    (b"*2147483648\r\n", &[], "invalid multibulk length"),
    (b"PING\r\n", &["PING"], ""),
    (b"PING\n", &["PING"], ""),
    (b"  ping  \r\n", &["ping"], ""),
    (b"ECHO \"a b\"\r\n", &["ECHO a b"], ""),
    (b"ECHO 'a\\x41'\r\n", &["ECHO a\\\\x41"], ""),
    (b"ECHO \"a\\x41\\n\"\r\n", &["ECHO aA\\n"], ""),
    (b"ECHO \"unbal\r\n", &[], "unbalanced quotes in request"),
    (b"\r\n\r\nPING\r\n", &["PING"], ""),
    (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", &[], "-"),
    // The server closes before GET's own error is written; it is the session that answers here.
    (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &["GET / HTTP/1.1"],
        "-",
    ),
    (b"*1\r\n$4\r\nPINGxx", &[], "invalid CRLF in request"),
    (
        b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
        &[],
        "invalid CRLF in request",
    ),
    (b"*1\r\n$0\r\n\r\n", &[""], ""),
    (b"$4\r\nPING\r\n", &["$4", "PING"], ""),
    (b"\x16\x03\x01\x02\x00\x01\x00\r\n", &[], ""),
    (
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$04\r\nabcd\r\n",
        &[],
        "invalid bulk length",
    ),
    (b"*1\r\n$+4\r\nPING\r\n", &[], "invalid bulk length"),
    (b"*+1\r\n$4\r\nPING\r\n", &[], "invalid multibulk length"),
    (b"*1\n$4\nPING\n", &[], ""),
    (b"*01\r\n$4\r\nPING\r\n", &[], "invalid multibulk length"),
    (b"*1\r\n$ 4\r\nPING\r\n", &[], "invalid bulk length"),
    (b"*4\r\n$4\r\nECHO\r\n", &[], ""),
    // More of the same server, observed for this table.
    (b"*1\rX$4\r\nPING\r\n", &[], "invalid CRLF in request"),
    (b"*1\r\n$4\rXPING\r\n", &[], "invalid CRLF in request"),
    (b"*-0\r\nPING\r\n", &[], "invalid multibulk length"),
    (b"*\r\nPING\r\n", &[], "invalid multibulk length"),
    (b"*1\r\n$\r\n", &[], "invalid bulk length"),
    (b"*1\r\n$-0\r\n\r\n", &[], "invalid bulk length"),
    (b"*9223372036854775808\r\n", &[], "invalid multibulk length"),
    (
        b"*-9223372036854775809\r\n",
        &[],
        "invalid multibulk length",
    ),
    (b"*-2147483649\r\nPING\r\n", &["PING"], ""),
    (b"*1\r\n$4\r\nPOST\r\n", &[], "-"),
    (b"*1\r\n$5\r\nhost:\r\n", &[], "-"),
    (b"\"POST\" x\r\n", &[], "-"),
    (b"PING\r\nHost: x\r\n", &["PING"], "-"),
    (b"POST", &[], ""),
    (b"FOO\0BAR\r\n", &[], ""),
    (b"PING\r\r\n", &["PING"], ""),
    (b"\r\r\nPING\r\n", &["PING"], ""),
    (b" \r\nPING\r\n", &["PING"], ""),
    (b"\"\"\r\n", &[""], ""),
    (b"*1\r\n$4\r\nPING\rx", &[], "invalid CRLF in request"),
];

const UNAUTHENTICATED: &[(&[u8], &[&str], &str)] = &[
    (b"*11\r\n", &[], "unauthenticated multibulk length"),
    (b"*10\r\n", &[], ""),
    (
        b"*2\r\n$4\r\nECHO\r\n$16385\r\n",
        &[],
        "unauthenticated bulk length",
    ),
    (b"*2\r\n$4\r\nECHO\r\n$16384\r\n", &[], ""),
    (b"*1\r\n$536870913\r\n", &[], "invalid bulk length"),
    (b"PING\r\n", &["PING"], ""),
    (b"*1048577\r\n", &[], "unauthenticated multibulk length"),
    (b"*2147483648\r\n", &[], "invalid multibulk length"),
];

fn check(limits: RequestLimits, rows: &[(&[u8], &[&str], &str)]) {
    for (sent, commands, error) in rows {
        let shown = sent.escape_ascii();
        let one_by_one: Vec<usize> = (0..sent.len()).collect();
        for seen in [whole(limits, sent), feed(limits, sent, &one_by_one)] {
            assert_eq!(names(&seen), *commands, "{shown}");
            let reply = seen.error.map(|error| error.reply());
            let expected = match *error {
                "" => None,
                "-" => Some(None),
                text => Some(Some(format!("ERR Protocol error: {text}").into())),
            };
            assert_eq!(reply, expected, "{shown}");
        }
    }
}

#[test]
fn an_authenticated_client_is_answered_as_by_the_server() {
    check(RequestLimits::AUTHENTICATED, AUTHENTICATED);
}

#[test]
fn an_unauthenticated_client_is_held_tighter() {
    check(RequestLimits::UNAUTHENTICATED, UNAUTHENTICATED);
}

#[test]
fn lines_without_an_end_are_refused_at_64_kib() {
    let long = |start: &str, len: usize| {
        let mut bytes = start.as_bytes().to_vec();
        bytes.resize(len, b'1');
        bytes
    };
    let limits = RequestLimits::AUTHENTICATED;
    let error = |bytes: &[u8]| whole(limits, bytes).error;
    assert_eq!(error(&long("A", 65536)), None);
    assert_eq!(error(&long("A", 65537)), Some(ProtocolError::TooBigInline));
    assert_eq!(error(&long("*", 65537)), None);
    assert_eq!(
        error(&long("*", 65538)),
        Some(ProtocolError::TooBigCountLine)
    );
    assert_eq!(
        error(&long("*1\r\n$", 70000)),
        Some(ProtocolError::TooBigLengthLine)
    );
    // An end that comes too late is no better than none, in however many pieces it came.
    let late = [long("*", 70000), b"\r\n".to_vec()].concat();
    assert_eq!(error(&late), Some(ProtocolError::TooBigCountLine));
    let complete = [long("ECHO ", 65536), b"\n".to_vec()].concat();
    assert_eq!(whole(limits, &complete).requests.len(), 1);
    let complete = [long("ECHO ", 65537), b"\n".to_vec()].concat();
    assert_eq!(error(&complete), Some(ProtocolError::TooBigInline));
    let hidden = [b"\0\n".to_vec(), long("", 65536)].concat();
    assert_eq!(error(&hidden), Some(ProtocolError::TooBigInline));
}

#[test]
fn a_long_unfinished_line_is_not_searched_again_and_again() {
    // Quadratic work would be 2^31 steps here; only the test's own patience fails.
    for start in [b'A', b'*'] {
        let bytes = [vec![start], vec![b'1'; 65_530]].concat();
        let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
        for end in 1..=bytes.len() {
            assert_eq!(decoder.decode(&bytes[..end]), Ok(None));
            assert!(decoder.scanned + 16 >= end);
        }
    }
}

#[test]
fn announced_sizes_allocate_nothing() {
    for bytes in [
        &b"*1048576\r\n"[..],
        b"*1\r\n$536870912\r\nx",
        b"*1048576\r\n$1\r\na\r\n",
    ] {
        let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
        assert_eq!(decoder.decode(bytes), Ok(None));
        assert!(!decoder.spans.spilled());
        assert_eq!(decoder.rewritten.capacity(), 0);
        assert!(decoder.wanted() <= 64 * 1024);
        assert!(!decoder.is_idle());
    }
}

#[test]
fn wanted_is_exact_for_a_small_argument() {
    let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
    assert_eq!(decoder.decode(b"*2\r\n$3\r\nGET\r\n$10\r\nabc"), Ok(None));
    assert_eq!(decoder.wanted(), 9);
}

#[test]
fn memory_goes_back_between_requests() {
    let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
    let mut frame = Vec::new();
    write::request(&mut frame, &vec![b"a"; 10_000]);
    assert_eq!(decoder.decode(&frame), Ok(Some(frame.len())));
    assert!(!decoder.is_idle());
    decoder.next();
    assert!(decoder.is_idle() && !decoder.spans.spilled());
    let line = b"PING hello\r\n";
    assert_eq!(decoder.decode(line), Ok(Some(line.len())));
    decoder.next();
    assert!(decoder.is_idle() && decoder.rewritten.capacity() == 0);
}

#[test]
fn a_request_longer_than_its_limit_is_refused_before_it_arrives() {
    let limits = RequestLimits {
        request_bytes_max: 100,
        ..RequestLimits::AUTHENTICATED
    };
    let seen = whole(limits, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\n");
    assert_eq!(seen.error, Some(ProtocolError::TooBigRequest));
    let unauthenticated = RequestLimits::UNAUTHENTICATED;
    assert!(10 * (unauthenticated.bulk_bytes_max + 16) < unauthenticated.request_bytes_max);
}

#[test]
fn limits_change_in_the_middle_of_a_stream() {
    let mut decoder = RequestDecoder::new(RequestLimits::UNAUTHENTICATED);
    assert_eq!(decoder.decode(b"AUTH x\r\n*11\r\n"), Ok(Some(8)));
    decoder.next();
    decoder.set_limits(RequestLimits::AUTHENTICATED);
    assert_eq!(decoder.decode(b"*11\r\n"), Ok(None));
    // Inline words count like arguments.
    let line = b"a b c d e f g h i j k\r\n";
    let seen = whole(RequestLimits::UNAUTHENTICATED, line);
    assert_eq!(
        seen.error,
        Some(ProtocolError::UnauthenticatedMultibulkLength)
    );
}

#[test]
fn errors_stay() {
    let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
    let bytes = b"*1\r\n$4\r\nPINGxx";
    let error = decoder.decode(bytes);
    assert!(error.is_err());
    assert_eq!(decoder.decode(bytes), error);
}

#[test]
fn a_strange_first_byte_is_shown_without_harm() {
    for (byte, shown) in [
        (b'\n', "\\n"),
        (0, "\\x00"),
        (0xff, "\\xff"),
        (b'\'', "'"),
        (27, "\\x1b"),
    ] {
        let reply = ProtocolError::ExpectedDollar(byte).reply().unwrap();
        assert_eq!(
            reply,
            format!("ERR Protocol error: expected '$', got '{shown}'")
        );
    }
}

#[test]
fn one_hundred_thousand_nested_arrays_are_refused_at_the_second() {
    let seen = whole(RequestLimits::AUTHENTICATED, &b"*1\r\n".repeat(100_000));
    assert_eq!(seen.error, Some(ProtocolError::ExpectedDollar(b'*')));
}

fn arg() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(prop::sample::select(&b"\r\n$*:0123456789ab"[..]), 0..12),
        prop::collection::vec(any::<u8>(), 200..300),
    ]
}

/// Mostly well-formed streams: multibulk, inline, empty lines, and now and then garbage.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let multibulk = prop::collection::vec(arg(), 1..12).prop_map(|args| {
        let mut out = Vec::new();
        write::request(&mut out, &args);
        out
    });
    let line = "[ -~\t]{0,30}\r?\n".prop_map(String::into_bytes);
    let odd = prop::sample::select(vec![
        &b"*0\r\n"[..],
        b"*-7\r\n",
        b"\r\n",
        b"*2\r\n$3\r\nGET\r\n",
    ]);
    let garbage = prop::collection::vec(prop::sample::select(&b"*$\r\n019-+aP\0"[..]), 0..12);
    let piece = prop_oneof![
        8 => multibulk,
        4 => line,
        2 => odd.prop_map(<[u8]>::to_vec),
        1 => garbage,
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn limits() -> impl Strategy<Value = RequestLimits> {
    let small = RequestLimits {
        args_max: 5,
        bulk_bytes_max: 250,
        inline_bytes_max: 20,
        request_bytes_max: 500,
        authenticated: true,
    };
    prop::sample::select(vec![
        RequestLimits::AUTHENTICATED,
        RequestLimits::UNAUTHENTICATED,
        small,
        RequestLimits {
            authenticated: false,
            ..small
        },
    ])
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_requests(
        bytes in stream(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
        limits in limits(),
    ) {
        let expected = whole(limits, &bytes);
        prop_assert_eq!(&feed(limits, &bytes, &cuts), &expected);
        let one_by_one: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&feed(limits, &bytes, &one_by_one), &expected);
    }

    #[test]
    fn what_is_written_is_read_and_forwarded_unchanged(
        requests in prop::collection::vec(prop::collection::vec(arg(), 1..12), 1..5),
    ) {
        let mut bytes = Vec::new();
        for args in &requests {
            write::request(&mut bytes, args);
        }
        let seen = whole(RequestLimits::AUTHENTICATED, &bytes);
        prop_assert_eq!(&seen.requests, &requests);
        prop_assert_eq!(seen.frames.concat(), bytes);
    }

    /// Whatever came in, what goes out is what this crate would have written (no smuggling).
    #[test]
    fn only_canonical_bytes_leave(bytes in stream()) {
        let seen = whole(RequestLimits::AUTHENTICATED, &bytes);
        for (args, frame) in seen.requests.iter().zip(&seen.frames) {
            let mut canonical = Vec::new();
            write::request(&mut canonical, args);
            prop_assert_eq!(frame, &canonical);
            let owned = OwnedRequest::parse(frame.clone()).unwrap();
            prop_assert_eq!(owned.bytes(), frame);
            prop_assert_eq!(&OwnedRequest::from_args(args), &owned);
            let request = owned.as_request();
            prop_assert_eq!(request.argc(), args.len());
            for (index, arg) in (1..).zip(&args[1..]) {
                let mut framed = Vec::new();
                write::bulk(&mut framed, arg);
                prop_assert_eq!(request.framed(index, 1), Some(&framed[..]));
                if let Some(next) = args.get(index + 1) {
                    write::bulk(&mut framed, next);
                }
                let both = (index + 1 < args.len()).then_some(&framed[..]);
                prop_assert_eq!(request.framed(index, 2), both);
            }
            prop_assert_eq!(request.framed(0, 1), None);
        }
    }
}
