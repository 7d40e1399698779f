//! Where everything is: slots, shards, nodes, zones, as immutable snapshots.
//!
//! Owns: what a cluster answers to `CLUSTER SHARDS` and `CLUSTER SLOTS` ([`parse_shards`],
//! [`parse_slots`]), which of these answers to believe ([`accept`]), what changed ([`diff`]), the
//! patch after a `MOVED` ([`Topology::with_slot_moved`]), the choice of a node to read from
//! ([`choose`]), and key hashing ([`Slot::of_key`]).
//!
//! Will never contain: connections, names to resolve, clocks, or when to ask for a new view.

mod accept;
mod addr;
mod candidate;
mod crc;
mod diff;
mod lag;
mod node;
mod parse;
mod reader;
mod slot;
mod snapshot;
#[cfg(test)]
mod testing;

pub use accept::{Refusal, accept};
pub use addr::NodeAddr;
pub use candidate::{Candidate, ParseError, SHARDS_MAX};
pub use diff::{Change, diff};
pub use lag::Offsets;
pub use node::{Health, Node, NodeId, Role, Shard};
pub use parse::{parse_shards, parse_slots};
pub use reader::{Nearness, choose};
pub use slot::{Slot, SlotRange};
pub use snapshot::{Revision, ShardIndex, Topology};
