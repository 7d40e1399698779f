//! What was wrong with the bytes, and what to tell the one who sent them.

use std::borrow::Cow;

use thiserror::Error;

/// A client broke the protocol. Its connection ends after [`ProtocolError::reply`]; a retry is
/// pointless, the same bytes fail again. Nothing of the broken request was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// `*` was followed by no canonical count, or by one beyond the limit.
    #[error("invalid multibulk length")]
    InvalidMultibulkLength,
    /// More arguments than a client may send before it authenticated.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// The line of the argument count has no end.
    #[error("too big mbulk count string")]
    TooBigCountLine,
    /// `$` was followed by no canonical length, or by one beyond the limit.
    #[error("invalid bulk length")]
    InvalidBulkLength,
    /// A longer argument than a client may send before it authenticated.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// The line of an argument's length has no end.
    #[error("too big bulk count string")]
    TooBigLengthLine,
    /// An argument began with this byte instead of `$`.
    #[error("expected '$', got '{}'", shown(*.0))]
    ExpectedDollar(u8),
    /// A line or an argument did not end in CR LF.
    #[error("invalid CRLF in request")]
    InvalidCrlf,
    /// An inline request is longer than its limit.
    #[error("too big inline request")]
    TooBigInline,
    /// An inline request has an unfinished quote.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The whole request is longer than its limit. (The server closes without a word here.)
    #[error("too big request")]
    TooBigRequest,
    /// `POST` or `Host:`: a browser was tricked into talking to us. Closed without a reply.
    #[error("HTTP where the Valkey protocol was expected")]
    CrossProtocol,
    /// Bytes given as one whole request ended before it did. Never from a decoder.
    #[error("incomplete request")]
    Incomplete,
    /// Bytes given as one whole request held more than one. Never from a decoder.
    #[error("bytes behind the request")]
    Trailing,
}

impl ProtocolError {
    /// The error line to send before closing, without its `-` and CRLF; `None`: close in silence.
    #[must_use]
    pub fn reply(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::CrossProtocol => None,
            other => Some(Cow::Owned(format!("ERR Protocol error: {other}"))),
        }
    }
}

/// A byte as it may stand in an error line and in a log: printable, or escaped. (The server puts
/// the bare byte.)
fn shown(byte: u8) -> String {
    match byte {
        b' '..=b'~' => char::from(byte).to_string(),
        other => other.escape_ascii().to_string(),
    }
}

/// A node's bytes are no reply. The connection can not be trusted any further: everything in
/// flight on it gets an outcome, and it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// No reply begins with this byte.
    #[error("unknown reply type 0x{0:02x}")]
    UnknownType(u8),
    /// A length or count that is not canonical, negative without being a null, or over its limit.
    #[error("invalid length in a reply")]
    InvalidLength,
    /// A scalar whose text does not fit its type.
    #[error("invalid value of reply type '{}'", char::from(*.0))]
    InvalidScalar(u8),
    /// A line longer than [`REPLY_LINE_BYTES_MAX`](crate::REPLY_LINE_BYTES_MAX).
    #[error("reply line too long")]
    LineTooLong,
    /// A line or a bulk that does not end in CR LF where it has to.
    #[error("invalid CRLF in a reply")]
    InvalidCrlf,
    /// Nested deeper than [`REPLY_DEPTH_MAX`](crate::REPLY_DEPTH_MAX).
    #[error("reply nested too deep")]
    TooDeep,
    /// The bytes end inside the reply. Only [`Value::parse`](crate::Value::parse) says so.
    #[error("incomplete reply")]
    Incomplete,
}
