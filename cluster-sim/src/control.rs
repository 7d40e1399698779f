//! What tests and tools do to a cluster: failures, failovers, migrations, scripted answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use resp::Value;
use topology::Slot;

use crate::{
    cluster::{Cluster, Ran},
    commands::{self, Call},
    node::{NodeIndex, ShardIndex},
};

impl Cluster {
    /// Kills a node: its connections end, nobody listens. A replica takes over after the node
    /// timeout.
    pub fn kill(&mut self, node: NodeIndex) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(node) {
            node.alive = false;
            node.died_at = now;
        }
        self.connections
            .retain(|_, connection| connection.node != node);
    }

    /// A dead node comes back: as a replica, if another one has its place. It answers `LOADING`
    /// for so long.
    pub fn restart(&mut self, node: NodeIndex, loading: Duration) {
        let until = self.now + loading;
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        if state.alive {
            return;
        }
        state.alive = true;
        state.frozen = false;
        state.cut_off = None;
        state.scripts.clear();
        state.loading_until = (!loading.is_zero()).then_some(until);
        let primary = self
            .nodes
            .get(node)
            .and_then(|node| self.primary(node.shard));
        if let Some(primary) = primary.filter(|primary| *primary != node) {
            self.resync(node, primary);
        }
    }

    /// Stops a node (`SIGSTOP`): it takes bytes and answers nothing.
    pub fn freeze(&mut self, node: NodeIndex) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.frozen = true;
        }
    }

    /// Lets a stopped node go on with what it was sent.
    pub fn thaw(&mut self, node: NodeIndex) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.frozen = false;
        }
        let waiting: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.node == node)
            .map(|(id, _)| *id)
            .collect();
        waiting.into_iter().for_each(|id| self.work(id));
    }

    /// Ends all connections to a node.
    pub fn drop_connections(&mut self, node: NodeIndex) {
        self.connections
            .retain(|_, connection| connection.node != node);
    }

    /// A replica that has lost its primary refuses reads with `MASTERDOWN`, or serves again.
    pub fn set_master_down(&mut self, node: NodeIndex, down: bool) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.master_down = down;
        }
    }

    /// The node answers the next `count` commands with this error line instead of running them.
    pub fn answer_next(&mut self, node: NodeIndex, count: usize, error: &str) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.answers
                .extend(std::iter::repeat_n(error.to_owned(), count));
        }
    }

    /// The node sends the next `count` commands with keys to this address, whoever owns their slot:
    /// with `ASK`, or with `MOVED`. Nothing needs to listen there.
    pub fn misdirect_next(&mut self, node: NodeIndex, count: usize, ask: bool, to: SocketAddr) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.misdirections
                .extend(std::iter::repeat_n((ask, to), count));
        }
    }

    /// The answers scripted for a node that it has not given are forgotten.
    pub fn stop_misdirecting(&mut self, node: NodeIndex) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.misdirections.clear();
        }
    }

    /// What a node has itself, dead or alive, owner or not: the reply of a command without side
    /// effects, as if no cluster were there.
    pub fn look_into(&mut self, node: NodeIndex, args: &[&[u8]]) -> Option<Value> {
        let now = self.unix_ms();
        let name = String::from_utf8_lossy(args.first()?).to_lowercase();
        let mut call = Call {
            store: &mut self.nodes.get_mut(node)?.store,
            args,
            now,
            resp3: false,
        };
        commands::run(&name, &mut call)?.ok()
    }

    /// What nodes have run since this was called last; the first call only begins to keep it.
    pub fn take_journal(&mut self) -> Vec<Ran> {
        self.journal.replace(Vec::new()).unwrap_or_default()
    }

    /// The node runs the next `count` commands and answers none of them.
    pub fn swallow_next(&mut self, node: NodeIndex, count: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.swallow += count;
        }
    }

    /// A planned failover (`CLUSTER FAILOVER`): the replica has everything before it takes over.
    /// Returns the new primary; `None` when the shard has no living replica.
    pub fn fail_over(&mut self, shard: ShardIndex) -> Option<NodeIndex> {
        let (old, new) = (self.primary(shard)?, self.replicas(shard).first().copied()?);
        self.resync(new, old);
        self.promote(shard, new);
        Some(new)
    }

    /// Begins to move a slot key by key (`SETSLOT IMPORTING` and `MIGRATING`).
    pub fn begin_migration(&mut self, slot: Slot, to: ShardIndex) {
        let (Some(from), Some(target)) = (self.owner(slot), self.primary(to)) else {
            return;
        };
        let Some(source) = self.primary(from).filter(|source| *source != target) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(target) {
            node.importing.insert(slot.get(), source);
        }
        if let Some(node) = self.nodes.get_mut(source) {
            node.migrating.insert(slot.get(), target);
        }
    }

    /// Whether a migration that was begun waits for a node that is dead or cut off.
    #[must_use]
    pub fn is_stuck(&self, slot: Slot) -> bool {
        let source = self.owner(slot).and_then(|shard| self.primary(shard));
        let from = source.and_then(|source| self.nodes.get(source));
        let to = from.and_then(|from| from.migrating.get(&slot.get()).copied());
        [source, to]
            .into_iter()
            .flatten()
            .any(|node| !self.is_whole(node))
    }

    /// Moves up to `count` keys of a slot that [`Cluster::begin_migration`] was called for.
    /// Returns how many keys are left.
    pub fn move_keys(&mut self, slot: Slot, count: usize) -> usize {
        let now = self.unix_ms();
        let Some(source) = self.owner(slot).and_then(|shard| self.primary(shard)) else {
            return 0;
        };
        let target = self
            .nodes
            .get(source)
            .and_then(|node| node.migrating.get(&slot.get()).copied());
        let Some(target) = target else { return 0 };
        let keys = self
            .nodes
            .get_mut(source)
            .map(|node| node.store.keys_in(slot, now));
        let keys = keys.unwrap_or_default();
        for key in keys.iter().take(count) {
            self.move_key(key, source, target);
        }
        self.replicas_follow([source, target]);
        keys.len().saturating_sub(count)
    }

    pub(crate) fn move_key(&mut self, key: &[u8], source: NodeIndex, target: NodeIndex) -> bool {
        let now = self.unix_ms();
        let entry = self
            .nodes
            .get_mut(source)
            .and_then(|node| node.store.remove(key, now));
        let Some(entry) = entry else { return false };
        if let Some(node) = self.nodes.get_mut(target) {
            node.store.put(key, entry);
        }
        true
    }

    /// Replicas have what their primaries have: how they come by a moved key is not simulated.
    pub(crate) fn replicas_follow(&mut self, primaries: [NodeIndex; 2]) {
        for node in primaries {
            let shard = self.nodes.get(node).map(|node| node.shard);
            for replica in shard.map(|shard| self.replicas(shard)).unwrap_or_default() {
                self.take_over(replica, node);
            }
        }
    }

    /// Ends a migration: the slot is the target's (`SETSLOT NODE`). Keys that were not moved go
    /// along.
    pub fn finish_migration(&mut self, slot: Slot) {
        let Some(source) = self.owner(slot).and_then(|shard| self.primary(shard)) else {
            return;
        };
        let target = self
            .nodes
            .get(source)
            .and_then(|node| node.migrating.get(&slot.get()).copied());
        if let Some(target) = target {
            self.move_keys(slot, usize::MAX);
            self.assign(slot.get(), target);
        }
    }

    /// Moves slots with all their keys at once (`CLUSTER MIGRATESLOTS` of 9.x).
    pub fn migrate_atomically(&mut self, slots: impl IntoIterator<Item = Slot>, to: ShardIndex) {
        let Some(target) = self.primary(to) else {
            return;
        };
        let mut sources = BTreeMap::<NodeIndex, BTreeSet<Slot>>::new();
        for slot in slots {
            let source = self.owner(slot).and_then(|shard| self.primary(shard));
            if let Some(source) = source.filter(|source| *source != target) {
                sources.entry(source).or_default().insert(slot);
            }
        }
        for (source, slots) in sources {
            let now = self.unix_ms();
            let keys = self.nodes.get_mut(source).map(|node| node.store.keys(now));
            for key in keys.unwrap_or_default() {
                if slots.contains(&Slot::of_key(&key)) {
                    self.move_key(&key, source, target);
                }
            }
            self.replicas_follow([source, target]);
            for slot in slots {
                self.assign(slot.get(), target);
            }
        }
    }

    /// A slot belongs to the shard of this primary from now on.
    pub(crate) fn assign(&mut self, slot: u16, target: NodeIndex) {
        let Some(shard) = self.nodes.get(target).map(|node| node.shard) else {
            return;
        };
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = shard;
        }
        self.epoch += 1;
        for node in &mut self.nodes {
            node.migrating.remove(&slot);
            node.importing.remove(&slot);
        }
        if let Some(slot) = Slot::new(slot) {
            self.end_subscriptions(slot);
        }
    }
}
