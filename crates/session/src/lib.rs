//! One client connection, without IO.
//!
//! Owns the protocol state of a connection ([`Session`]: user, protocol, name, flags), the order
//! of its replies and what is still owed ([`Order`]), the barriers that keep commands on one key
//! in the order sent, and the commands that the proxy answers by itself ([`local`]).
//!
//! Never here: nodes, connections to them (a route is an opaque number), topology changes, time
//! (`now` is an argument).

pub mod local;
mod order;
mod output;
mod state;
mod transaction;

pub use order::{
    Completed, Conflict, Form, Held, Op, OpState, Order, Place, Route, Sharing, Target, Until,
};
pub use output::{Output, Spare};
pub use state::{ReplyMode, Session, User};
pub use transaction::{Block, Blocks, Share, Transaction, TransactionError};
