//! One node's state, and one connection's.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use resp::{Protocol, RequestDecoder, RequestLimits};

use crate::{
    blocking::Blocked, pubsub::Subscriptions, store::Store, tracking::Tracking,
    transaction::Transaction,
};

/// Which node; a place in the cluster's list, from 0. Primaries come first, shard by shard.
pub type NodeIndex = usize;

/// Which shard, from 0.
pub type ShardIndex = usize;

/// A connection to a node. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) addr: SocketAddr,
    pub(crate) zone: String,
    pub(crate) shard: ShardIndex,
    pub(crate) store: Store,
    /// Place in the shard's replication log up to which it has everything.
    pub(crate) applied: u64,
    pub(crate) alive: bool,
    pub(crate) died_at: Duration,
    /// Since when its fellows do not reach it, and it not them.
    pub(crate) cut_off: Option<Duration>,
    /// Stopped (`SIGSTOP`): takes bytes, answers nothing.
    pub(crate) frozen: bool,
    pub(crate) loading_until: Option<Duration>,
    /// A replica that has lost its primary and must not serve stale data.
    pub(crate) master_down: bool,
    pub(crate) migrating: BTreeMap<u16, NodeIndex>,
    pub(crate) importing: BTreeMap<u16, NodeIndex>,
    /// Scripts that it has seen, by their SHA-1.
    pub(crate) scripts: BTreeMap<String, String>,
    /// Scripted: answers to the next commands, instead of running them.
    pub(crate) answers: VecDeque<String>,
    /// Scripted: where the next commands with keys are sent, whoever owns their slot.
    pub(crate) misdirections: VecDeque<(bool, SocketAddr)>,
    /// Scripted: commands that are run and not answered.
    pub(crate) swallow: usize,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) node: NodeIndex,
    pub(crate) decoder: RequestDecoder,
    pub(crate) input: Vec<u8>,
    /// Replies, with the time from which the client can see them.
    pub(crate) output: VecDeque<(Duration, Vec<u8>)>,
    pub(crate) latency: Duration,
    pub(crate) protocol: Protocol,
    pub(crate) authenticated: bool,
    /// As whom its commands run.
    pub(crate) user: Vec<u8>,
    pub(crate) database: u32,
    pub(crate) name: Vec<u8>,
    pub(crate) readonly: bool,
    pub(crate) asking: bool,
    pub(crate) transaction: Transaction,
    pub(crate) closing: bool,
    /// It waits for an element of a list.
    pub(crate) blocked: Option<Blocked>,
    pub(crate) subscriptions: Subscriptions,
    /// What it is told of.
    pub(crate) tracking: Tracking,
    /// What it has said itself and hears, behind the reply that is being made.
    pub(crate) heard: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(id: u64, node: NodeIndex, authenticated: bool, latency: Duration) -> Self {
        Self {
            id,
            node,
            decoder: RequestDecoder::new(RequestLimits::AUTHENTICATED),
            input: Vec::new(),
            output: VecDeque::new(),
            latency,
            protocol: Protocol::Resp2,
            authenticated,
            user: b"default".to_vec(),
            database: 0,
            name: Vec::new(),
            readonly: false,
            asking: false,
            transaction: Transaction::default(),
            closing: false,
            blocked: None,
            subscriptions: Subscriptions::default(),
            tracking: Tracking::Off,
            heard: Vec::new(),
        }
    }
}
