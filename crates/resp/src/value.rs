//! A whole reply as a tree: for the control path (topology, handshakes) and tests, never for the
//! replies that pass through.

mod encode;
mod parse;

use bytes::Bytes;

/// A reply of RESP2 or RESP3, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`: a status line.
    Simple(Bytes),
    /// `-`: an error line, with its code.
    Error(Bytes),
    /// `:`.
    Integer(i64),
    /// `$`: a string of bytes.
    Bulk(Bytes),
    /// `$-1` of RESP2.
    NullBulk,
    /// `*-1` of RESP2.
    NullArray,
    /// `_` of RESP3.
    Null,
    /// `*`.
    Array(Vec<Value>),
    /// `%`: in the order sent, keys not checked for uniqueness.
    Map(Vec<(Value, Value)>),
    /// `~`: in the order sent, not checked for uniqueness.
    Set(Vec<Value>),
    /// `>`: out of band.
    Push(Vec<Value>),
    /// `,`.
    Double(f64),
    /// `#`.
    Boolean(bool),
    /// `(`: decimal digits, perhaps behind a minus.
    BigNumber(Bytes),
    /// `!`: an error that may hold any bytes.
    BulkError(Bytes),
    /// `=`: text for people.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text, without format and colon.
        text: Bytes,
    },
    /// `|`: a value with attributes, those of several `|` in a row joined.
    Attributed {
        /// What was said about the value.
        attributes: Vec<(Value, Value)>,
        /// The value itself, never `Attributed` again.
        value: Box<Value>,
    },
}

impl Value {
    /// A bulk string with a copy of `bytes`.
    #[must_use]
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// The value without its attributes.
    #[must_use]
    pub fn plain(&self) -> &Self {
        match self {
            Self::Attributed { value, .. } => value,
            other => other,
        }
    }

    /// The bytes of a string of any kind: bulk, simple, verbatim, big number. Errors are none.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self.plain() {
            Self::Simple(bytes) | Self::Bulk(bytes) | Self::BigNumber(bytes) => Some(bytes),
            Self::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// [`Self::as_bytes`] when it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes()
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// An integer, or a string that is a canonical one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self.plain() {
            Self::Integer(value) => Some(*value),
            other => other.as_bytes().and_then(crate::number::canonical),
        }
    }

    /// The elements of an array, a set or a push.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self.plain() {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The text of an error of either kind.
    #[must_use]
    pub fn as_error(&self) -> Option<&[u8]> {
        match self.plain() {
            Self::Error(text) | Self::BulkError(text) => Some(text),
            _ => None,
        }
    }

    /// One of the three nulls.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.plain(), Self::NullBulk | Self::NullArray | Self::Null)
    }

    /// The value of the first key with these bytes, in a map or in RESP2's flat array of keys and
    /// values.
    #[must_use]
    pub fn map_get(&self, key: impl AsRef<[u8]>) -> Option<&Value> {
        let key = Some(key.as_ref());
        match self.plain() {
            Self::Map(pairs) => pairs
                .iter()
                .find(|(k, _)| k.as_bytes() == key)
                .map(|(_, v)| v),
            Self::Array(items) => items.chunks_exact(2).find_map(|pair| match pair {
                [k, v] if k.as_bytes() == key => Some(v),
                _ => None,
            }),
            _ => None,
        }
    }
}
