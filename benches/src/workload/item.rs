//! Reads the items of one whole reply, in place.
//!
//! The reply's end was found by `resp`'s framer, so nothing is missing here; a frame that is not
//! what a checked command answers ends as [`Item::Other`] and becomes a mismatch.

use resp::Protocol;

/// One item of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Bulk(&'a [u8]),
    /// The null of the protocol that the connection speaks.
    Null,
    Array(usize),
    /// Any other type, the other protocol's null, or nonsense.
    Other,
}

/// Takes the first item off `bytes`; an array's elements stay there.
#[inline]
pub(super) fn take<'a>(bytes: &mut &'a [u8], protocol: Protocol) -> Item<'a> {
    next(bytes, protocol).unwrap_or(Item::Other)
}

fn next<'a>(bytes: &mut &'a [u8], protocol: Protocol) -> Option<Item<'a>> {
    let (kind, rest) = bytes.split_first()?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let (line, rest) = rest.split_at_checked(end)?;
    let rest = rest.strip_prefix(b"\r\n")?;
    *bytes = rest;
    Some(match kind {
        b'+' => Item::Simple(line),
        b'-' => Item::Error(line),
        b':' => Item::Integer(number(line)?),
        b'_' if protocol == Protocol::Resp3 => Item::Null,
        b'$' if line == b"-1" && protocol == Protocol::Resp2 => Item::Null,
        b'$' | b'!' => {
            let len = usize::try_from(number(line)?).ok()?;
            let (body, rest) = rest.split_at_checked(len)?;
            *bytes = rest.strip_prefix(b"\r\n")?;
            if *kind == b'$' {
                Item::Bulk(body)
            } else {
                Item::Error(body)
            }
        }
        b'*' => Item::Array(usize::try_from(number(line)?).ok()?),
        _ => Item::Other,
    })
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}
