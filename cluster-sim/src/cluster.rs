//! The cluster: nodes, slots, replication, failover, migration. Pure: time is an argument, and
//! nothing depends on chance.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use topology::Slot;

use crate::{
    commands::{self, Call},
    layout::Layout,
    node::{Connection, ConnectionId, Node, NodeIndex, ShardIndex},
    store::Store,
};

/// Commands that the shard's replicas have yet to run; the first has this place.
#[derive(Debug, Default)]
pub(crate) struct Log {
    first: u64,
    entries: VecDeque<(Duration, Vec<Vec<u8>>)>,
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) primary: NodeIndex,
    pub(crate) log: Log,
}

/// A whole cluster in memory.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) layout: Layout,
    pub(crate) nodes: Vec<Node>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) owners: Vec<ShardIndex>,
    pub(crate) epoch: u64,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
    pub(crate) now: Duration,
    /// Nobody is served until then, because a failover was decided.
    pub(crate) down_until: Duration,
    latencies: BTreeMap<(String, String), Duration>,
    /// What has run, if somebody wants to know.
    pub(crate) journal: Option<Vec<Ran>>,
}

/// A command that a node has run, for a client or within a transaction or a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// As whom.
    pub user: Vec<u8>,
    /// In which database.
    pub database: u32,
    /// Its name and its arguments.
    pub args: Vec<Vec<u8>>,
}

/// For how long every node says `CLUSTERDOWN` when a primary has failed, as a real cluster does
/// between the failure and the election.
const ELECTION: Duration = Duration::from_millis(50);

impl Cluster {
    /// A cluster whose slots are divided among its shards. `addresses` are those of the nodes:
    /// the primaries first, then the first replica of each shard, and so on.
    ///
    /// # Panics
    /// In debug builds, when there are fewer addresses than nodes.
    #[must_use]
    pub fn new(layout: Layout, addresses: &[SocketAddr]) -> Self {
        let shards = layout.shards.max(1);
        let count = shards * (layout.replicas + 1);
        debug_assert!(addresses.len() >= count, "an address for every node");
        let nodes = addresses
            .iter()
            .take(count)
            .enumerate()
            .map(|(index, addr)| {
                let (shard, copy) = (index % shards, index / shards);
                let zone = layout.zones.get((shard + copy) % layout.zones.len().max(1));
                Node {
                    id: hex40(layout.seed, index),
                    addr: *addr,
                    zone: zone.cloned().unwrap_or_default(),
                    shard,
                    store: Store::default(),
                    applied: 0,
                    alive: true,
                    died_at: Duration::ZERO,
                    cut_off: None,
                    frozen: false,
                    loading_until: None,
                    master_down: false,
                    migrating: BTreeMap::new(),
                    importing: BTreeMap::new(),
                    scripts: BTreeMap::new(),
                    answers: VecDeque::new(),
                    misdirections: VecDeque::new(),
                    swallow: 0,
                }
            });
        let slots = usize::from(Slot::COUNT);
        Self {
            nodes: nodes.collect(),
            shards: (0..shards)
                .map(|primary| Shard {
                    primary,
                    log: Log::default(),
                })
                .collect(),
            owners: (0..slots).map(|slot| slot * shards / slots).collect(),
            epoch: u64::try_from(shards).unwrap_or(u64::MAX),
            connections: BTreeMap::new(),
            next_connection: 1,
            now: Duration::ZERO,
            down_until: Duration::ZERO,
            latencies: BTreeMap::new(),
            journal: None,
            layout,
        }
    }

    /// Nodes, dead ones included.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Where a node listens.
    #[must_use]
    pub fn address(&self, node: NodeIndex) -> Option<SocketAddr> {
        self.nodes.get(node).map(|node| node.addr)
    }

    /// Whether a node runs.
    #[must_use]
    pub fn is_alive(&self, node: NodeIndex) -> bool {
        self.nodes.get(node).is_some_and(|node| node.alive)
    }

    /// The primary of a shard.
    #[must_use]
    pub fn primary(&self, shard: ShardIndex) -> Option<NodeIndex> {
        self.shards.get(shard).map(|shard| shard.primary)
    }

    /// The shard that owns a slot.
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<ShardIndex> {
        self.owners.get(usize::from(slot.get())).copied()
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        let passed = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        self.layout.started_unix_ms.saturating_add(passed)
    }

    pub(crate) fn is_primary(&self, node: NodeIndex) -> bool {
        let shard = self
            .nodes
            .get(node)
            .and_then(|node| self.shards.get(node.shard));
        shard.is_some_and(|shard| shard.primary == node)
    }

    /// Time passes between two zones.
    pub fn set_latency(&mut self, one: &str, other: &str, latency: Duration) {
        self.latencies
            .insert((one.to_owned(), other.to_owned()), latency);
        self.latencies
            .insert((other.to_owned(), one.to_owned()), latency);
    }

    // ---- connections ----

    /// Connects to a node from a zone. `None`: nobody listens there.
    pub fn connect(&mut self, node: NodeIndex, zone: &str, now: Duration) -> Option<ConnectionId> {
        self.tick(now);
        let target = self.nodes.get(node).filter(|node| node.alive)?;
        let zones = (zone.to_owned(), target.zone.clone());
        let latency = self.latencies.get(&zones).copied().unwrap_or_default();
        let id = self.next_connection;
        self.next_connection += 1;
        let open = self.layout.default_password.is_none();
        self.connections
            .insert(id, Connection::new(id, node, open, latency));
        Some(ConnectionId(id))
    }

    /// The client is gone.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection.0);
    }

    /// Whether the node has closed a connection, and everything it said has been taken.
    #[must_use]
    pub fn is_closed(&self, connection: ConnectionId) -> bool {
        let connection = self.connections.get(&connection.0);
        connection.is_none_or(|connection| connection.closing && connection.output.is_empty())
    }

    /// Takes what a client can see of the replies by now.
    pub fn output(&mut self, connection: ConnectionId, now: Duration) -> Vec<u8> {
        let Some(connection) = self.connections.get_mut(&connection.0) else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        while connection
            .output
            .front()
            .is_some_and(|(due, _)| *due <= now)
        {
            bytes.extend(
                connection
                    .output
                    .pop_front()
                    .map(|(_, bytes)| bytes)
                    .unwrap_or_default(),
            );
        }
        bytes
    }

    /// When a connection's next reply can be seen.
    #[must_use]
    pub fn output_due(&self, connection: ConnectionId) -> Option<Duration> {
        self.connections
            .get(&connection.0)?
            .output
            .front()
            .map(|(due, _)| *due)
    }

    // ---- time ----

    /// Time has passed: replicas catch up, dead primaries are replaced.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.replicate();
        self.elect();
        for index in 0..self.nodes.len() {
            let over = |node: &Node| node.loading_until.is_some_and(|until| until <= self.now);
            if self.nodes.get(index).is_some_and(over)
                && let Some(node) = self.nodes.get_mut(index)
            {
                node.loading_until = None;
            }
        }
        self.serve_blocked();
        self.tell_changes();
    }

    /// When [`Cluster::tick`] has something to do; `None`: nothing until something else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let lag = self.layout.replica_lag;
        let logs = self
            .shards
            .iter()
            .filter_map(|shard| shard.log.entries.front());
        let logs = logs.map(|(at, _)| *at + lag);
        let dead = self
            .shards
            .iter()
            .filter_map(|shard| self.nodes.get(shard.primary));
        let dead = dead
            .filter_map(Node::gone_since)
            .map(|since| since + self.layout.node_timeout);
        let loading = self.nodes.iter().filter_map(|node| node.loading_until);
        logs.chain(dead)
            .chain(loading)
            .filter(|at| *at > self.now)
            .min()
    }

    fn replicate(&mut self) {
        for shard in 0..self.shards.len() {
            let primary = self.shards.get(shard).map(|shard| shard.primary);
            let until = self.sent_until(shard);
            for node in 0..self.nodes.len() {
                let follows = self
                    .nodes
                    .get(node)
                    .is_some_and(|node| node.shard == shard && node.gone_since().is_none());
                if follows && Some(node) != primary {
                    self.catch_up(node, until);
                }
            }
            self.trim_log(shard);
        }
    }

    /// Runs what the replica lacks, as far as it was written until then.
    fn catch_up(&mut self, index: NodeIndex, until: Option<Duration>) {
        let now = self.unix_ms();
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let Some(shard) = self.shards.get(node.shard) else {
            return;
        };
        let skip =
            usize::try_from(node.applied.saturating_sub(shard.log.first)).unwrap_or(usize::MAX);
        for (at, command) in shard.log.entries.iter().skip(skip) {
            if until.is_none_or(|until| *at > until) {
                break;
            }
            apply(&mut node.store, command, now);
            node.applied += 1;
        }
    }

    fn trim_log(&mut self, shard: ShardIndex) {
        let Some(state) = self.shards.get(shard) else {
            return;
        };
        let (primary, end) = (state.primary, state.log.end());
        let replicas = self.nodes.iter().enumerate().filter(|(index, node)| {
            node.shard == shard && node.gone_since().is_none() && *index != primary
        });
        let needed = replicas.map(|(_, node)| node.applied).min().unwrap_or(end);
        if let Some(state) = self.shards.get_mut(shard) {
            while state.log.first < needed && state.log.entries.pop_front().is_some() {
                state.log.first += 1;
            }
        }
    }

    /// What a primary has run goes to its replicas.
    pub(crate) fn log(&mut self, node: NodeIndex, command: Vec<Vec<u8>>) {
        let (now, lag) = (self.now, self.layout.replica_lag);
        let Some(shard) = self.nodes.get(node).map(|node| node.shard) else {
            return;
        };
        if let Some(state) = self.shards.get_mut(shard) {
            state.log.entries.push_back((now, command));
            let end = state.log.end();
            if let Some(node) = self.nodes.get_mut(node) {
                node.applied = end;
            }
        }
        if lag.is_zero() {
            self.replicate();
        }
    }

    fn elect(&mut self) {
        for shard in 0..self.shards.len() {
            let Some(primary) = self.primary(shard) else {
                continue;
            };
            let Some(node) = self.nodes.get(primary) else {
                continue;
            };
            let over = |since| since + self.layout.node_timeout <= self.now;
            if !node.gone_since().is_some_and(over) {
                continue;
            }
            let best = self.replicas(shard).into_iter().max_by_key(|index| {
                (
                    self.nodes.get(*index).map(|node| node.applied),
                    std::cmp::Reverse(*index),
                )
            });
            if let Some(best) = best {
                self.down_until = self.now + ELECTION;
                self.promote(shard, best);
            }
        }
    }

    /// The replicas of a shard that live and reach the others.
    pub(crate) fn replicas(&self, shard: ShardIndex) -> Vec<NodeIndex> {
        let primary = self.primary(shard);
        let living = self.nodes.iter().enumerate().filter(|(index, node)| {
            node.shard == shard && node.gone_since().is_none() && Some(*index) != primary
        });
        living.map(|(index, _)| index).collect()
    }

    pub(crate) fn promote(&mut self, shard: ShardIndex, node: NodeIndex) {
        self.epoch += 1;
        let Some(applied) = self.nodes.get(node).map(|node| node.applied) else {
            return;
        };
        let old = self.primary(shard);
        if let Some(old) = old {
            self.inherit_migrations(old, node);
        }
        if let Some(state) = self.shards.get_mut(shard) {
            state.primary = node;
            // What the old primary had and the new one has not is lost.
            let keep = usize::try_from(applied.saturating_sub(state.log.first)).unwrap_or_default();
            state.log.entries.truncate(keep);
        }
        for other in self.replicas(shard) {
            self.resync(other, node);
        }
    }

    /// Replicas know which slots are half moved (as they do since 8.0): the new primary goes on
    /// where the old one ended.
    fn inherit_migrations(&mut self, old: NodeIndex, new: NodeIndex) {
        let taken = self.nodes.get_mut(old).map(|node| {
            (
                std::mem::take(&mut node.migrating),
                std::mem::take(&mut node.importing),
            )
        });
        if let (Some((migrating, importing)), Some(node)) = (taken, self.nodes.get_mut(new)) {
            node.migrating = migrating;
            node.importing = importing;
        }
        for node in &mut self.nodes {
            let others = node
                .migrating
                .values_mut()
                .chain(node.importing.values_mut());
            others
                .filter(|other| **other == old)
                .for_each(|other| *other = new);
        }
    }

    /// A replica starts afresh with everything that its primary has.
    pub(crate) fn resync(&mut self, replica: NodeIndex, primary: NodeIndex) {
        self.take_over(replica, primary);
        if let Some(node) = self.nodes.get_mut(replica) {
            node.migrating.clear();
            node.importing.clear();
        }
    }

    /// A replica has the keys that its primary has.
    pub(crate) fn take_over(&mut self, replica: NodeIndex, primary: NodeIndex) {
        let Some(store) = self.nodes.get(primary).map(|node| node.store.clone()) else {
            return;
        };
        let end = self.nodes.get(primary).map_or(0, |node| node.applied);
        if let Some(node) = self.nodes.get_mut(replica) {
            node.store.follow(&store);
            node.applied = end;
        }
    }
}

/// Runs a command of the replication log.
fn apply(store: &mut Store, command: &[Vec<u8>], now: u64) {
    let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
    let name = args
        .first()
        .map(|name| String::from_utf8_lossy(name).to_lowercase());
    let mut call = Call {
        store,
        args: &args,
        now,
        resp3: false,
    };
    // The primary has answered for it; the same command does the same here.
    let _ = commands::run(&name.unwrap_or_default(), &mut call);
}

/// 40 hexadecimal digits that differ by both numbers.
fn hex40(seed: u64, index: usize) -> String {
    let mut state = seed
        ^ u64::try_from(index)
            .unwrap_or_default()
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = String::new();
    while id.len() < 40 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        id.push_str(&format!("{:016x}", mixed ^ (mixed >> 31)));
    }
    id.truncate(40);
    id
}
