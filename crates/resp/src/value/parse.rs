//! Reading a reply into a [`Value`].

use bytes::Bytes;

use super::Value;
use crate::error::ReplyError;
use crate::header::{Body, Header, header};
use crate::limits::REPLY_DEPTH_MAX;
use crate::{double, number};

/// Room made for an aggregate before its elements came, whatever count it announced.
const PREALLOCATED_MAX: usize = 64;

impl Value {
    /// Reads one reply from the start of `bytes`; returns it and how many bytes it took.
    ///
    /// Recursive, at most [`REPLY_DEPTH_MAX`] deep. Memory grows with the bytes at hand, not with
    /// the counts they announce.
    ///
    /// # Errors
    /// [`ReplyError::Incomplete`] when the bytes end inside the reply; otherwise they are none.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), ReplyError> {
        let mut reader = Reader { bytes, pos: 0 };
        let value = reader.value(0)?;
        Ok((value, reader.pos))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, ReplyError> {
        let mut attributes = Vec::new();
        let mut attributed = false;
        loop {
            let (head, line) = self.header()?;
            if head.kind != b'|' {
                let value = self.rest_of(head, line, depth)?;
                return Ok(if attributed {
                    Value::Attributed {
                        attributes,
                        value: Box::new(value),
                    }
                } else {
                    value
                });
            }
            attributed = true;
            attributes.extend(pairs(self.elements(head, depth)?));
        }
    }

    /// The header at `pos`, and the text of its line.
    fn header(&mut self) -> Result<(Header, Bytes), ReplyError> {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        let head = header(rest, &mut 0)?.ok_or(ReplyError::Incomplete)?;
        let line = match head.body {
            Body::Line => rest.get(1..head.size - 2).unwrap_or_default(),
            _ => b"",
        };
        self.pos += head.size;
        Ok((head, Bytes::copy_from_slice(line)))
    }

    fn rest_of(&mut self, head: Header, line: Bytes, depth: usize) -> Result<Value, ReplyError> {
        let invalid = ReplyError::InvalidScalar(head.kind);
        Ok(match (head.kind, head.body) {
            (b'$', Body::Null) => Value::NullBulk,
            (b'*', Body::Null) => Value::NullArray,
            (b'+', _) => Value::Simple(line),
            (b'-', _) => Value::Error(line),
            (b':', _) => Value::Integer(number::canonical(&line).ok_or(invalid)?),
            (b',', _) => Value::Double(double::parse(&line).ok_or(invalid)?),
            (b'#', _) => Value::Boolean(line.as_ref() == b"t"),
            (b'(', _) => Value::BigNumber(line),
            (b'_', _) => Value::Null,
            (b'$', Body::Bytes(len)) => Value::Bulk(self.bulk(len)?),
            (b'!', Body::Bytes(len)) => Value::BulkError(self.bulk(len)?),
            (b'=', Body::Bytes(len)) => verbatim(self.bulk(len)?)?,
            (b'*', _) => Value::Array(self.elements(head, depth)?),
            (b'~', _) => Value::Set(self.elements(head, depth)?),
            (b'>', _) => Value::Push(self.elements(head, depth)?),
            (b'%', _) => Value::Map(pairs(self.elements(head, depth)?)),
            (other, _) => return Err(ReplyError::UnknownType(other)),
        })
    }

    fn bulk(&mut self, len: usize) -> Result<Bytes, ReplyError> {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        match rest.get(len..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Err(ReplyError::Incomplete),
            _ => return Err(ReplyError::InvalidCrlf),
        }
        self.pos += len + 2;
        Ok(Bytes::copy_from_slice(rest.get(..len).unwrap_or_default()))
    }

    fn elements(&mut self, head: Header, depth: usize) -> Result<Vec<Value>, ReplyError> {
        if depth >= REPLY_DEPTH_MAX {
            return Err(ReplyError::TooDeep);
        }
        let Body::Elements(count) = head.body else {
            return Err(ReplyError::InvalidLength);
        };
        let expected = usize::try_from(count).unwrap_or(usize::MAX);
        let mut items = Vec::with_capacity(expected.min(PREALLOCATED_MAX));
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(items)
    }
}

fn verbatim(bytes: Bytes) -> Result<Value, ReplyError> {
    match bytes.first_chunk::<4>() {
        Some(&[a, b, c, b':']) => Ok(Value::Verbatim {
            format: [a, b, c],
            text: bytes.slice(4..),
        }),
        _ => Err(ReplyError::InvalidScalar(b'=')),
    }
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}
