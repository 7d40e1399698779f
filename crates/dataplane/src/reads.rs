//! Where the reads of clients go that have asked for it (`READONLY`, the read port): to the
//! nearest node of the shard that is fit, primary or replica.
//!
//! A replica is read from only while somebody watches over it ([`Readers`]): a link that broke, or
//! a replica that lags, does not show in the topology. One that fails a read is left out for a
//! while at once, and the read goes to the primary.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use routing::Slot;
use session::{Form, Route};
use smallvec::SmallVec;
use topology::{Health, Nearness, Node, NodeAddr, NodeId, Role, Topology};

use crate::{
    action::Action,
    channel::{Lane, Profile},
    client::State,
    core::Core,
    host::Host,
    slots::Key,
};

/// A node that failed a read is left out for so long, unless whoever watches over it says sooner
/// that it is unfit.
const OUT: Duration = Duration::from_secs(1);
/// Whoever watches over replicas is told this often that somebody reads from them.
const WANT_EVERY: Duration = Duration::from_secs(1);

/// What is known of a node beyond the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// Its availability zone, where the topology does not tell or somebody knows better.
    pub zone: Option<Arc<str>>,
    /// It may be read from: its link to the primary is up, it is not loading, and not too far
    /// behind. Nobody asks this of a primary.
    pub fit: bool,
}

/// Nodes that somebody watches over. A replica that is not among them is not read from.
pub type Readers = HashMap<NodeId, Fitness>;

/// Which way a read went, or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    /// To a node in the proxy's own zone.
    Own,
    /// To a node in another.
    Other,
    /// One of the two is not known.
    #[default]
    Unknown,
}

impl Zone {
    fn of(its: Option<&str>, ours: Option<&str>) -> Self {
        match (its, ours) {
            (Some(its), Some(ours)) if its == ours => Self::Own,
            (Some(_), Some(_)) => Self::Other,
            _ => Self::Unknown,
        }
    }
}

/// A node of a shard that can be read from.
#[derive(Debug)]
struct Candidate {
    addr: NodeAddr,
    id: NodeId,
    replica: bool,
    nearness: Nearness,
    /// Its channels, by the profile of the client. (A replica's own profile is another.)
    keys: SmallVec<[(Profile, Key); 1]>,
}

/// The nodes to read from, by shard, and what happened to them.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    by_shard: Vec<SmallVec<[Candidate; 3]>>,
    out: Vec<(NodeAddr, Instant)>,
    turn: usize,
    wanted_at: Option<Instant>,
}

impl Reads {
    /// Another topology, or other news of the nodes.
    pub(crate) fn renew(&mut self, topology: &Topology, readers: &Readers, ours: Option<&str>) {
        let candidate = |node: &Node| Candidate {
            addr: node.addr.clone(),
            id: node.id,
            replica: node.role == Role::Replica,
            nearness: Nearness::of(node, zone_of(node, readers), ours),
            keys: SmallVec::new(),
        };
        let fit = |node: &&Node| {
            node.role == Role::Primary
                || (node.health == Health::Online
                    && readers.get(&node.id).is_some_and(|known| known.fit))
        };
        let shards = topology.shards().iter();
        self.by_shard = shards
            .map(|shard| shard.nodes().filter(fit).map(candidate).collect())
            .collect();
    }

    pub(crate) fn forget(&mut self, key: Key) {
        for candidate in self.by_shard.iter_mut().flatten() {
            candidate.keys.retain(|(_, known)| *known != key);
        }
    }

    /// A node has failed a read.
    pub(crate) fn leave_out(&mut self, addr: &NodeAddr, now: Instant) {
        self.out
            .retain(|(other, until)| other != addr && *until > now);
        self.out.push((addr.clone(), now + OUT));
    }

    fn is_out(&self, addr: &NodeAddr, now: Instant) -> bool {
        let mut out = self.out.iter();
        out.any(|(other, until)| other == addr && *until > now)
    }
}

fn zone_of<'a>(node: &'a Node, readers: &'a Readers) -> Option<&'a str> {
    let known = readers
        .get(&node.id)
        .and_then(|known| known.zone.as_deref());
    known.or(node.zone.as_deref())
}

impl<H: Host> Core<H> {
    /// Whether a client's reads may go to replicas.
    pub(crate) fn reads_anywhere(&self, client: &State) -> bool {
        let session = &client.session;
        session.readonly && (session.read_port || self.settings.readonly_flag)
    }

    /// Which way to a node is.
    pub(crate) fn zone_to(&self, addr: &NodeAddr) -> Zone {
        let node = self
            .view
            .topology
            .as_deref()
            .and_then(|topology| topology.node_by_addr(addr));
        let its = node.and_then(|node| zone_of(node, &self.view.readers));
        Zone::of(its, self.settings.zone.as_deref())
    }

    /// The channel for a read: to the nearest node of the slot's shard that is well, the one with
    /// the fewest commands in flight. `None`: nobody owns the slot.
    pub(crate) fn reader(
        &mut self,
        profile: Profile,
        slot: Slot,
        any: u32,
        now: Instant,
    ) -> Option<Key> {
        self.want_readers(now);
        let shard = self.view.topology.as_deref()?.owner_index(slot)?.get();
        let candidates = self.reads.by_shard.get(shard)?;
        let mut usable: SmallVec<[(usize, Nearness, usize); 4]> = SmallVec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let known = candidate.keys.iter().find(|(of, _)| *of == profile);
            let load = known
                .and_then(|(_, key)| self.channels.get(*key))
                .map(|channel| {
                    let failing = !channel.is_ready() && channel.backoff.attempts() > 0;
                    let load = channel.connection.pipeline().in_flight();
                    (!failing && channel.has_room()).then_some(load)
                });
            let load = load.unwrap_or(Some(0)); // not connected yet
            if let Some(load) = load.filter(|_| !self.reads.is_out(&candidate.addr, now)) {
                usable.push((index, candidate.nearness, load));
            }
        }
        self.reads.turn = self.reads.turn.wrapping_add(1);
        let chosen = topology::choose(usable.iter().copied(), self.reads.turn);
        let Some(candidate) = chosen.and_then(|index| candidates.get(index)) else {
            return self.route(profile, Some(slot), any, now);
        };
        let known = candidate.keys.iter().find(|(of, _)| *of == profile);
        if let Some((_, key)) = known.filter(|(_, key)| self.channels.get(*key).is_some()) {
            return Some(*key);
        }
        let key = if candidate.replica {
            let (addr, id) = (candidate.addr.clone(), candidate.id);
            let profile = Profile {
                replica: true,
                ..profile
            };
            self.channel_to(&addr, Some(id), profile, now)
        } else {
            self.route(profile, Some(slot), any, now)?
        };
        let place = self.reads.by_shard.get_mut(shard)?.get_mut(chosen?)?;
        place.keys.retain(|(of, _)| *of != profile);
        place.keys.push((profile, key));
        Some(key)
    }

    /// The channel with this route, if commands of this form on the slot may take it: in either lane
    /// to the slot's owner, and for reads also to another of its shard's nodes.
    pub(crate) fn channel_on(
        &self,
        route: Route,
        profile: Profile,
        slot: Slot,
        form: Form,
    ) -> Option<Key> {
        let shard = self.view.topology.as_deref()?.owner_index(slot)?.get();
        let on = |key: &Key| {
            self.channels
                .get(*key)
                .is_some_and(|channel| channel.route == route)
        };
        let lanes = [Lane::Fast, Lane::Bulk].map(|lane| Profile { lane, ..profile });
        let mut to_owner = lanes
            .iter()
            .filter_map(|profile| self.known_route(*profile, shard));
        if let Some(key) = to_owner.find(on) {
            return Some(key);
        }
        let candidates = self
            .reads
            .by_shard
            .get(shard)
            .filter(|_| form == Form::Read)?;
        let keys = candidates.iter().flat_map(|candidate| &candidate.keys);
        let mut keys = keys
            .filter(|(of, _)| lanes.contains(of))
            .map(|(_, key)| *key);
        keys.find(on)
    }

    /// Counts a read that may go to a replica.
    pub(crate) fn count_read(&mut self, key: Key, form: Form) {
        if form == Form::Read
            && let Some(channel) = self.channels.get(key)
        {
            self.host.read(channel.zone);
        }
    }

    /// Says that somebody reads from replicas, so that somebody watches over them.
    fn want_readers(&mut self, now: Instant) {
        let due = |at: Instant| now.saturating_duration_since(at) >= WANT_EVERY;
        let before = self.reads.wanted_at;
        if before.is_none_or(due) {
            self.reads.wanted_at = Some(now);
            self.actions.push(Action::WatchReaders);
        }
        if before.is_none() {
            self.renew_reads(); // nobody has needed it
        }
    }

    /// What is known of nodes has changed.
    pub(crate) fn renew_reads(&mut self) {
        let Some(topology) = self.view.topology.as_deref() else {
            return;
        };
        let ours = self.settings.zone.as_deref();
        if self.reads.wanted_at.is_some() {
            self.reads.renew(topology, &self.view.readers, ours);
        }
        let zones: HashMap<&NodeAddr, Zone> = topology
            .nodes()
            .map(|node| {
                (
                    &node.addr,
                    Zone::of(zone_of(node, &self.view.readers), ours),
                )
            })
            .collect();
        for channel in self.channels.values_mut() {
            channel.zone = zones.get(&channel.addr).copied().unwrap_or_default();
        }
    }
}
