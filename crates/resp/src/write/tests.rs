use bytes::BytesMut;

use super::*;
use crate::Value;

fn written(write: impl Fn(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn each_protocol_has_its_words() {
    use Protocol::{Resp2, Resp3};
    let both = |write: &dyn Fn(&mut Vec<u8>, Protocol)| {
        (
            written(|out| write(out, Resp2)),
            written(|out| write(out, Resp3)),
        )
    };
    let pair = |two: &str, three: &str| (two.to_owned(), three.to_owned());
    assert_eq!(both(&|out, p| null(out, p)), pair("$-1\r\n", "_\r\n"));
    assert_eq!(both(&|out, p| null_array(out, p)), pair("*-1\r\n", "_\r\n"));
    assert_eq!(both(&|out, p| map(out, p, 2)), pair("*4\r\n", "%2\r\n"));
    assert_eq!(both(&|out, p| set(out, p, 2)), pair("*2\r\n", "~2\r\n"));
    assert_eq!(both(&|out, p| push(out, p, 2)), pair("*2\r\n", ">2\r\n"));
    assert_eq!(
        both(&|out, p| boolean(out, p, true)),
        pair(":1\r\n", "#t\r\n")
    );
    assert_eq!(
        both(&|out, p| boolean(out, p, false)),
        pair(":0\r\n", "#f\r\n")
    );
    assert_eq!(
        both(&|out, p| double(out, p, 0.1)),
        pair("$3\r\n0.1\r\n", ",0.1\r\n")
    );
    let text = both(&|out, p| verbatim(out, p, b"txt", b"ab"));
    assert_eq!(text, pair("$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"));
}

#[test]
fn lines_stay_one_line() {
    assert_eq!(written(|out| error(out, "ERR a\r\nb\n")), "-ERR a  b \r\n");
    assert_eq!(written(|out| simple(out, "a\rb")), "+a b\r\n");
}

#[test]
fn both_buffers_take_the_same_bytes() {
    let mut vec = Vec::new();
    let mut bytes = BytesMut::new();
    request(&mut vec, &["GET", "a b"]);
    request(&mut bytes, &[&b"GET"[..], b"a b"]);
    assert_eq!(vec, b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n");
    assert_eq!(bytes, vec);
}

#[test]
fn values_answer_what_they_are_asked() {
    let read = |text: &str| Value::parse(text.as_bytes()).unwrap().0;
    let map = read("%2\r\n+a\r\n:1\r\n$1\r\nb\r\n*1\r\n=5\r\ntxt:x\r\n");
    let flat = read("*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*1\r\n$1\r\nx\r\n");
    for value in [&map, &flat] {
        assert_eq!(value.map_get(b"a").and_then(Value::as_int), Some(1));
        let list = value.map_get("b").and_then(Value::as_array).unwrap();
        assert_eq!(list[0].as_str(), Some("x"));
        assert_eq!(value.map_get("c"), None);
    }
    let attributed = read("|1\r\n+ttl\r\n:9\r\n$2\r\n42\r\n");
    assert_eq!(attributed.as_int(), Some(42));
    assert_eq!(read("-ERR x\r\n").as_error(), Some(&b"ERR x"[..]));
    assert_eq!(read("-ERR x\r\n").as_bytes(), None);
    for null in ["$-1\r\n", "*-1\r\n", "_\r\n"] {
        assert!(read(null).is_null());
    }
}
