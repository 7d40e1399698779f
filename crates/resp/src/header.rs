//! The first line of a reply element, shared by the framer and the value parser.

use memchr::memchr2;

use crate::double;
use crate::error::ReplyError;
use crate::limits::{BULK_BYTES_MAX, REPLY_COUNT_MAX, REPLY_LINE_BYTES_MAX};
use crate::number::{Digits, canonical, digits};

/// What follows a header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing: the line is the value.
    Line,
    /// Nothing: `$-1` or `*-1`.
    Null,
    /// This many bytes and CRLF.
    Bytes(usize),
    /// This many elements (a map's pairs count twice).
    Elements(u64),
}

/// A header line, read and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The type byte.
    pub(crate) kind: u8,
    /// Bytes of the line, with type byte and CRLF.
    pub(crate) size: usize,
    /// What comes next.
    pub(crate) body: Body,
}

/// Reads the header at the start of `buf`; `None` when it is not all there. `scanned` counts
/// bytes of an unfinished line already searched: hand in 0 at first, then what the last call on
/// the same (now longer) bytes left.
#[inline]
pub(crate) fn header(buf: &[u8], scanned: &mut usize) -> Result<Option<Header>, ReplyError> {
    let Some((&kind, line)) = buf.split_first() else {
        return Ok(None);
    };
    match kind {
        b'$' | b'*' | b'=' | b'!' | b'%' | b'~' | b'>' | b'|' => sized(kind, line),
        b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => text(kind, line, scanned),
        other => Err(ReplyError::UnknownType(other)),
    }
}

/// A header with a length or a count.
#[inline]
fn sized(kind: u8, line: &[u8]) -> Result<Option<Header>, ReplyError> {
    let (value, size) = match digits(line) {
        Digits::More => return Ok(None),
        Digits::Number { value, size } => (value, 1 + size),
        Digits::Other => return null(kind, line),
    };
    let body = match kind {
        b'$' | b'=' | b'!' => match usize::try_from(value) {
            Ok(len) if len <= BULK_BYTES_MAX => Body::Bytes(len),
            _ => return Err(ReplyError::InvalidLength),
        },
        _ if value > REPLY_COUNT_MAX => return Err(ReplyError::InvalidLength),
        b'%' | b'|' => Body::Elements(value * 2),
        _ => Body::Elements(value),
    };
    if kind == b'=' {
        // Three letters of format and a colon lead a verbatim string.
        if value < 4 {
            return Err(ReplyError::InvalidLength);
        }
        match line.get(size + 2) {
            None => return Ok(None),
            Some(b':') => {}
            Some(_) => return Err(ReplyError::InvalidScalar(kind)),
        }
    }
    Ok(Some(Header { kind, size, body }))
}

/// The RESP2 nulls are the only negative lengths.
#[cold]
fn null(kind: u8, line: &[u8]) -> Result<Option<Header>, ReplyError> {
    const NULL: &[u8] = b"-1\r\n";
    let nullable = matches!(kind, b'$' | b'*');
    if nullable && line.starts_with(NULL) {
        Ok(Some(Header {
            kind,
            size: 1 + NULL.len(),
            body: Body::Null,
        }))
    } else if nullable && NULL.starts_with(line) {
        Ok(None)
    } else {
        Err(ReplyError::InvalidLength)
    }
}

/// A line that is the value itself.
#[inline]
fn text(kind: u8, line: &[u8], scanned: &mut usize) -> Result<Option<Header>, ReplyError> {
    let unseen = line.get(*scanned..).unwrap_or_default();
    let Some(end) = memchr2(b'\r', b'\n', unseen).map(|at| *scanned + at) else {
        *scanned = line.len();
        let too_long = line.len() > REPLY_LINE_BYTES_MAX;
        return if too_long {
            Err(ReplyError::LineTooLong)
        } else {
            Ok(None)
        };
    };
    if end > REPLY_LINE_BYTES_MAX {
        return Err(ReplyError::LineTooLong);
    }
    match line.get(end..) {
        Some([b'\r', b'\n', ..]) => {}
        Some([b'\r']) => {
            *scanned = end;
            return Ok(None);
        }
        _ => return Err(ReplyError::InvalidCrlf),
    }
    let value = line.get(..end).unwrap_or_default();
    let legal = match kind {
        b':' => canonical(value).is_some(),
        b',' => double::parse(value).is_some(),
        b'#' => matches!(value, b"t" | b"f"),
        b'_' => value.is_empty(),
        b'(' => is_big_number(value),
        _ => true,
    };
    if legal {
        *scanned = 0;
        Ok(Some(Header {
            kind,
            size: end + 3,
            body: Body::Line,
        }))
    } else {
        Err(ReplyError::InvalidScalar(kind))
    }
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
