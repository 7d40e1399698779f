//! One connection to one Valkey node, without IO.
//!
//! Owns what was written to a node and in which order ([`Pipeline`]), how a connection is set up
//! before the first command may use it ([`Handshake`]), both joined ([`Connection`]), and how long
//! to wait between attempts ([`Backoff`]). It knows nothing of clients, slots or routing: a
//! pipeline is generic over the ticket that comes back with each reply.
//!
//! Never here: sockets, clocks (`now` is an argument), randomness (seeds are arguments), the
//! meaning of a command, the decision whether something may be sent again.

mod backoff;
mod connection;
mod handshake;
mod outbox;
mod pipeline;
#[cfg(test)]
mod testing;

pub use backoff::Backoff;
pub use connection::{CloseReason, Connection, Phase, Timeouts};
pub use handshake::{Credentials, Greeting, Handshake, HandshakeError, Setup};
pub use outbox::{Retained, SLICES_MAX};
pub use pipeline::{
    Abandoned, CUT_BYTES_MIN, Pipeline, Poison, Replies, SENTINEL_INTERVAL, Ticket,
};
