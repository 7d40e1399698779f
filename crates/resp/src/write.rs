//! Writes replies and requests, into any buffer that can take bytes.

use bytes::BytesMut;
use smallvec::{Array, SmallVec};

use crate::{Protocol, double};

/// A buffer that bytes can be appended to.
pub trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<A: Array<Item = u8>> Sink for SmallVec<A> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// `+text`. CR and LF become spaces.
pub fn simple(out: &mut impl Sink, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// `-text`; the text begins with its code, such as `ERR`. CR and LF become spaces.
pub fn error(out: &mut impl Sink, text: impl AsRef<[u8]>) {
    line(out, b'-', text.as_ref());
}

/// `:value`.
pub fn integer(out: &mut impl Sink, value: i64) {
    out.put(b":");
    out.put(itoa::Buffer::new().format(value).as_bytes());
    out.put(b"\r\n");
}

/// `$length` and the bytes.
pub fn bulk(out: &mut impl Sink, bytes: impl AsRef<[u8]>) {
    body(out, b'$', bytes.as_ref());
}

/// The null of a missing value: `$-1`, or `_`.
pub fn null(out: &mut impl Sink, protocol: Protocol) {
    out.put(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The null of a missing list: `*-1`, or `_`.
pub fn null_array(out: &mut impl Sink, protocol: Protocol) {
    out.put(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Opens an array: `len` values have to follow.
pub fn array(out: &mut impl Sink, len: usize) {
    header(out, b'*', len);
}

/// Opens a map: `pairs` keys, each with its value, have to follow. RESP2: a flat array.
pub fn map(out: &mut impl Sink, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs.saturating_mul(2)),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// Opens a set: `len` values have to follow. RESP2: an array.
pub fn set(out: &mut impl Sink, protocol: Protocol, len: usize) {
    header(
        out,
        if protocol == Protocol::Resp3 {
            b'~'
        } else {
            b'*'
        },
        len,
    );
}

/// Opens a push: `len` values have to follow. RESP2: an array.
pub fn push(out: &mut impl Sink, protocol: Protocol, len: usize) {
    header(
        out,
        if protocol == Protocol::Resp3 {
            b'>'
        } else {
            b'*'
        },
        len,
    );
}

/// A double in the server's spelling. RESP2: a bulk string.
pub fn double(out: &mut impl Sink, protocol: Protocol, value: f64) {
    let text = double::text(value);
    match protocol {
        Protocol::Resp2 => bulk(out, &text),
        Protocol::Resp3 => line(out, b',', &text),
    }
}

/// `#t` or `#f`. RESP2: the integers 1 and 0.
pub fn boolean(out: &mut impl Sink, protocol: Protocol, value: bool) {
    out.put(match (protocol, value) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// Text for people, `=txt:`; `format` is `b"txt"` or `b"mkd"`. RESP2: a bulk string.
pub fn verbatim(
    out: &mut impl Sink,
    protocol: Protocol,
    format: &[u8; 3],
    bytes: impl AsRef<[u8]>,
) {
    let bytes = bytes.as_ref();
    match protocol {
        Protocol::Resp2 => bulk(out, bytes),
        Protocol::Resp3 => {
            header(out, b'=', bytes.len().saturating_add(4));
            out.put(format);
            out.put(b":");
            out.put(bytes);
            out.put(b"\r\n");
        }
    }
}

/// A request in canonical multibulk form; `args` begins with the command's name.
pub fn request<A: AsRef<[u8]>>(out: &mut impl Sink, args: &[A]) {
    header(out, b'*', args.len());
    for arg in args {
        body(out, b'$', arg.as_ref());
    }
}

/// A type byte and a length line.
#[inline]
pub(crate) fn header(out: &mut impl Sink, kind: u8, len: usize) {
    out.put(&[kind]);
    out.put(itoa::Buffer::new().format(len).as_bytes());
    out.put(b"\r\n");
}

/// A length line of this type, and the bytes.
pub(crate) fn body(out: &mut impl Sink, kind: u8, bytes: &[u8]) {
    header(out, kind, bytes.len());
    out.put(bytes);
    out.put(b"\r\n");
}

/// A type byte and a line; CR and LF in it become spaces, as the server does it.
pub(crate) fn line(out: &mut impl Sink, kind: u8, text: &[u8]) {
    out.put(&[kind]);
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let (before, after) = rest.split_at(at);
        out.put(before);
        out.put(b" ");
        rest = after.get(1..).unwrap_or_default();
    }
    out.put(rest);
    out.put(b"\r\n");
}

#[cfg(test)]
mod tests;
