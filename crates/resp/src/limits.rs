//! The named bounds of the wire, both directions.

/// Longest bulk string either way: the server's default `proto-max-bulk-len`, 512 MiB.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Aggregates of a reply may be nested this deep. The server's deepest replies (`COMMAND DOCS`)
/// stay under 16, scripts may build deeper ones; 128 keeps a recursive reader's stack small.
pub const REPLY_DEPTH_MAX: usize = 128;

/// Longest simple line of a reply (`+`, `-`, `:`, `,`, `(`), without type byte and CRLF.
pub const REPLY_LINE_BYTES_MAX: usize = 64 * 1024;

/// Most elements (or pairs) one aggregate of a reply may announce.
pub const REPLY_COUNT_MAX: u64 = (1 << 31) - 1;

/// A length line of a request that shows no end after this many bytes is refused, as the server
/// does (`PROTO_INLINE_MAX_SIZE`).
pub(crate) const LENGTH_LINE_BYTES_MAX: usize = 64 * 1024;

/// Most arguments the server itself can count; beyond it a length is malformed, not just too big.
pub(crate) const ARGS_COUNTABLE: i64 = i32::MAX as i64;

/// What one client may ask for in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most arguments, the command's name included.
    pub args_max: usize,
    /// Longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Longest inline request, in bytes without its line end.
    pub inline_bytes_max: usize,
    /// Longest whole request, in bytes. Values above 4 GiB - 1 mean 4 GiB - 1.
    pub request_bytes_max: usize,
    /// Chooses the words: what is over a limit before authentication is refused as the server
    /// refuses an unauthenticated client.
    pub authenticated: bool,
}

impl RequestLimits {
    /// Before authentication: the server's 10 arguments of 16 KiB, in 256 KiB altogether.
    pub const UNAUTHENTICATED: Self = Self {
        args_max: 10,
        bulk_bytes_max: 16 * 1024,
        inline_bytes_max: 64 * 1024,
        request_bytes_max: 256 * 1024,
        authenticated: false,
    };

    /// After authentication: 2^20 arguments of 512 MiB, in 1 GiB altogether (the server's default
    /// `client-query-buffer-limit`). The server itself counts up to 2^31 - 1 arguments.
    pub const AUTHENTICATED: Self = Self {
        args_max: 1024 * 1024,
        bulk_bytes_max: BULK_BYTES_MAX,
        inline_bytes_max: 64 * 1024,
        request_bytes_max: 1024 * 1024 * 1024,
        authenticated: true,
    };
}
