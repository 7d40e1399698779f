//! The wire format of Valkey (RESP2 and RESP3), both directions, as pure functions over bytes.
//!
//! Owns: cutting bytes into requests ([`RequestDecoder`]), finding where a reply ends
//! ([`ReplyFramer`]), reading a whole reply into a tree ([`Value`]), and writing both
//! ([`write`](mod@write)). Holds the limits of both directions and the server's own words for what
//! it refuses.
//!
//! Will never contain: sockets, buffers that outlive a frame, or any knowledge of what a command
//! means. Parsing is strict: a request that leaves the decoder is canonical multibulk, byte for
//! byte what this crate would write itself, so a node can never read it differently than we did.
//!
//! The behaviour copied is that of Valkey 9.1.2, as observed on the server.

mod decoder;
mod double;
mod error;
mod framer;
mod header;
mod inline;
mod limits;
mod number;
mod request;
mod value;
pub mod write;

pub use decoder::RequestDecoder;
pub use error::{ProtocolError, ReplyError};
pub use framer::{ReplyFramer, Walk, flat_reply_size};
pub use limits::{
    BULK_BYTES_MAX, REPLY_COUNT_MAX, REPLY_DEPTH_MAX, REPLY_LINE_BYTES_MAX, RequestLimits,
};
pub use request::{OwnedRequest, Request};
pub use value::Value;

/// The version of the protocol a connection speaks; chosen by `HELLO`, RESP2 until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Five types, nulls as negative lengths, maps as flat arrays.
    #[default]
    Resp2,
    /// Maps, sets, doubles, booleans, one null, pushes.
    Resp3,
}
