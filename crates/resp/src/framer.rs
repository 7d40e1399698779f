//! Finds where a node's reply ends, without building it.

use smallvec::SmallVec;

use crate::error::ReplyError;
use crate::header::{Body, Header, header};
use crate::limits::{BULK_BYTES_MAX, REPLY_DEPTH_MAX};
use crate::number::{Digits, digits};

/// How far [`ReplyFramer::advance`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Bytes walked; the caller may forward and drop them.
    pub consumed: usize,
    /// The reply ended at `consumed`; the next call starts a new one.
    pub done: bool,
}

impl Walk {
    fn partly(consumed: usize) -> Self {
        Self {
            consumed,
            done: false,
        }
    }

    fn whole(consumed: usize) -> Self {
        Self {
            consumed,
            done: true,
        }
    }
}

/// Walks over replies in bytes that arrive in any pieces. Walked bytes may be dropped at once, so
/// a reply of any size streams through in a small buffer; only an unfinished line stays behind.
///
/// Iterative, and without allocation for replies nested less than nine deep. An attribute (`|`)
/// belongs to the reply that follows it; a push (`>`) at the top is a frame of its own, which the
/// caller tells by its first byte.
#[derive(Debug, Default)]
pub struct ReplyFramer {
    /// Elements still to come in each open aggregate, the innermost last. An attribute is opened
    /// without being counted in the one around it: its value is still to come.
    open: SmallVec<[u64; 8]>,
    /// The reply's own value is still to come (only attributes were seen so far).
    owed: bool,
    /// Bytes of the current bulk still to come, without its CRLF.
    body_left: usize,
    /// Bytes of that bulk's CRLF still to come: 0 when in no bulk.
    crlf_left: u8,
    /// Bytes of an unfinished line already searched.
    scanned: usize,
}

impl ReplyFramer {
    /// A framer between replies.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Walks `buf`, which starts where the last call's `consumed` ended. Never walks past the end
    /// of the current reply.
    ///
    /// # Errors
    /// These bytes are no reply; the connection is lost.
    #[inline]
    pub fn advance(&mut self, buf: &[u8]) -> Result<Walk, ReplyError> {
        let mut consumed = 0;
        if self.crlf_left > 0 {
            consumed = self.bulk(buf)?;
            if self.crlf_left > 0 {
                return Ok(Walk::partly(consumed));
            }
            if self.close() {
                return Ok(Walk::whole(consumed));
            }
        }
        loop {
            let rest = buf.get(consumed..).unwrap_or_default();
            if let Some(size) = flat_reply_size(rest) {
                consumed += size;
                self.scanned = 0;
                self.count();
                if self.close() {
                    return Ok(Walk::whole(consumed));
                }
                continue;
            }
            if self.is_between_replies() {
                if rest.is_empty() {
                    return Ok(Walk::partly(consumed));
                }
                self.owed = true;
            }
            let Some(header) = header(rest, &mut self.scanned)? else {
                return Ok(Walk::partly(consumed));
            };
            consumed += header.size;
            self.enter(header)?;
            if self.crlf_left > 0 {
                consumed += self.bulk(buf.get(consumed..).unwrap_or_default())?;
                if self.crlf_left > 0 {
                    return Ok(Walk::partly(consumed));
                }
            }
            if self.close() {
                return Ok(Walk::whole(consumed));
            }
        }
    }

    /// No reply is begun: an end of the connection here loses nothing of one.
    #[must_use]
    pub fn is_between_replies(&self) -> bool {
        !self.owed && self.open.is_empty() && self.crlf_left == 0
    }

    /// At least this many bytes are missing (>= 1): the rest of a bulk, or of the elements
    /// announced at three bytes each. A hint: it may be huge, and must not be reserved unbounded.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let elements = self.open.iter().fold(usize::from(self.owed), |sum, &left| {
            sum.saturating_add(usize::try_from(left).unwrap_or(usize::MAX))
        });
        let bulk = self.body_left.saturating_add(usize::from(self.crlf_left));
        // The first missing element may have arrived in part.
        bulk.saturating_add(elements.saturating_sub(1).saturating_mul(3))
            .max(1)
    }

    /// Counts an element and opens what it holds.
    fn enter(&mut self, header: Header) -> Result<(), ReplyError> {
        if header.kind != b'|' {
            self.count();
        }
        match header.body {
            Body::Line | Body::Null => {}
            Body::Bytes(len) => {
                self.body_left = len;
                self.crlf_left = 2;
            }
            Body::Elements(_) if self.open.len() >= REPLY_DEPTH_MAX => {
                return Err(ReplyError::TooDeep);
            }
            Body::Elements(0) => {}
            Body::Elements(count) => self.open.push(count),
        }
        Ok(())
    }

    /// One more element is on its way; attributes do not count.
    #[inline]
    fn count(&mut self) {
        match self.open.last_mut() {
            Some(left) => *left -= 1,
            None => self.owed = false,
        }
    }

    /// Walks over a bulk's bytes and its CRLF, as far as they are there.
    #[inline]
    fn bulk(&mut self, buf: &[u8]) -> Result<usize, ReplyError> {
        let mut consumed = self.body_left.min(buf.len());
        self.body_left -= consumed;
        if self.body_left > 0 {
            return Ok(consumed);
        }
        while let (1.., Some(&byte)) = (self.crlf_left, buf.get(consumed)) {
            let expected = if self.crlf_left == 2 { b'\r' } else { b'\n' };
            if byte != expected {
                return Err(ReplyError::InvalidCrlf);
            }
            consumed += 1;
            self.crlf_left -= 1;
        }
        Ok(consumed)
    }

    /// Closes every aggregate that is full; true when the whole reply is.
    #[inline]
    fn close(&mut self) -> bool {
        while let Some(0) = self.open.last() {
            self.open.pop();
        }
        if !self.open.is_empty() || self.owed {
            return false;
        }
        if self.open.spilled() {
            self.open = SmallVec::new();
        }
        true
    }
}

/// The size of a bulk, a small integer or `+OK` that is all there: nearly every reply, without the
/// detour through a header. `None` says nothing.
#[inline]
#[must_use]
pub fn flat_reply_size(buf: &[u8]) -> Option<usize> {
    match buf.split_first()? {
        (b'$', line) => match digits(line) {
            Digits::Number { value, size } => {
                let len = usize::try_from(value)
                    .ok()
                    .filter(|&len| len <= BULK_BYTES_MAX)?;
                let end = 1 + size + len;
                (buf.get(end..end + 2)? == b"\r\n").then_some(end + 2)
            }
            _ => None,
        },
        (b':', line) => match digits(line) {
            Digits::Number { size, .. } => Some(1 + size),
            _ => None,
        },
        (b'+', line) => line.starts_with(b"OK\r\n").then_some(5),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
