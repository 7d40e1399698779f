//! A Valkey cluster in memory, for tests, demos and simulations.
//!
//! [`Cluster`] is pure: nodes with their keys, slots, replicas and connections, driven by calls
//! that carry the time, so that a test decides what happens when. It redirects (`MOVED`, `ASK`,
//! `TRYAGAIN`), fails over, migrates slots key by key or at once, lags, and breaks as a test
//! scripts it. [`serve`] puts it behind sockets.
//!
//! It knows strings, hashes, lists, sets, sorted sets, expiry, `SCAN`, counters, transactions, `BLPOP`
//! and `BRPOP`, subscriptions, news of changed keys, and scripts that are no more than a row of calls; no streams. What it
//! does not know it refuses as a server refuses a command that it has never heard of.
//!
//! [`scale`] simulates a service of many such clusters that scale by themselves, without a byte sent, and
//! [`choices`] compares ways to choose who moves there.

mod apart;
mod blocking;
pub mod choices;
mod cluster;
mod commands;
mod connection;
mod control;
mod execute;
mod introspection;
mod layout;
mod node;
mod ordered;
mod pubsub;
pub mod scale;
mod script;
mod serve;
mod store;
mod tracking;
mod transaction;
mod zset;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Ran};
pub use layout::{Layout, Version};
pub use node::{ConnectionId, NodeIndex, ShardIndex};
pub use serve::{ClusterHandle, Options, Running, serve};
