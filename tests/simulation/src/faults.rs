//! What goes wrong, and how it is put right again.

use std::time::Duration;

use resp::Value;
use topology::Slot;

use crate::{
    agenda::{Event, Mend},
    history::Violation,
    others,
    proxy::Proxy,
    speech,
    world::World,
};

/// A shard does not fail over more often: a command that is under way for longer than that is not
/// met twice by the same node.
const FAILOVERS_APART: Duration = Duration::from_secs(2);

/// What is wrong with a node now.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeState {
    /// It takes bytes and answers nothing.
    pub(crate) frozen: bool,
    /// Nothing reaches it, and nothing comes from it.
    pub(crate) silent: bool,
    /// It answers later than others.
    pub(crate) lag: Duration,
    /// Its fellows do not reach it.
    pub(crate) alone: bool,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LegacyMove,
    AtomicMove,
    PlannedFailover,
    Misdirection,
    Spike,
    Leave,
    Cut,
    Silence,
    Stop,
    Kill,
    Isolate,
}

impl<P: Proxy> World<P> {
    pub(crate) fn fault(&mut self) -> Result<(), Violation> {
        if !self.busy {
            return Ok(());
        }
        let calm = self.rng.time(self.weather.calm);
        self.after(calm, Event::Fault);
        let weather = &self.weather;
        let all = [
            (weather.legacy_moves, Fault::LegacyMove),
            (weather.legacy_moves, Fault::LegacyMove),
            (weather.atomic_moves, Fault::AtomicMove),
            (weather.planned_failovers, Fault::PlannedFailover),
            (weather.misdirections, Fault::Misdirection),
            (weather.spikes, Fault::Spike),
            (weather.leavers, Fault::Leave),
            (weather.cuts, Fault::Cut),
            (weather.silence, Fault::Silence),
            (weather.stops, Fault::Stop),
            (weather.kills, Fault::Kill),
            (weather.isolation, Fault::Isolate),
        ];
        let happening = all.iter().filter(|(happens, _)| *happens);
        let happening: Vec<Fault> = happening.map(|(_, fault)| *fault).collect();
        let Some(fault) = self.rng.pick(&happening).copied() else {
            return Ok(());
        };
        let node = self.rng.below(self.nodes.len());
        self.note(&[], format_args!("{fault:?}, node {node}"));
        match fault {
            Fault::LegacyMove => self.begin_move(),
            Fault::AtomicMove => self.move_at_once(),
            Fault::PlannedFailover => self.fail_over(),
            Fault::Misdirection => self.misdirect(node),
            Fault::Spike => {
                self.nodes[node].lag = self.rng.ms(20, 300);
                self.mend_after(400, Mend::Fast(node));
            }
            Fault::Leave => {
                let at = self.rng.below(self.clients.len());
                return self.leave(at);
            }
            Fault::Cut => {
                let ids: Vec<u64> = self.links.keys().copied().collect();
                if let Some(id) = self.rng.pick(&ids).copied() {
                    self.cut(id);
                }
            }
            Fault::Silence => self.silence(node),
            Fault::Stop if self.may_fail(node) => {
                self.nodes[node].frozen = true;
                self.cluster.freeze(node);
                self.mend_after(2500, Mend::Thaw(node));
            }
            Fault::Kill if self.may_fail(node) => self.kill(node),
            Fault::Isolate if self.may_fail(node) => {
                self.nodes[node].alone = true;
                self.cluster.isolate(node);
                self.mend_after(3000, Mend::Rejoin(node));
            }
            Fault::Stop | Fault::Kill | Fault::Isolate => {}
        }
        Ok(())
    }

    fn mend_after(&mut self, most_ms: u64, mend: Mend) {
        let wait = self.rng.ms(20, most_ms);
        self.after(wait, Event::Mend(mend));
    }

    pub(crate) fn mend(&mut self, mend: &Mend) -> Result<(), Violation> {
        self.note(&[], format_args!("{mend:?}"));
        match *mend {
            Mend::Thaw(node) => {
                self.nodes[node].frozen = false;
                self.cluster.thaw(node);
                self.collect();
                self.bury_all();
            }
            Mend::Restart(node) => {
                if !self.cluster.is_alive(node) {
                    let loads = self.weather.loading && self.rng.chance(50);
                    let most = if loads { 300 } else { 0 };
                    let loading = self.rng.ms(0, most);
                    self.cluster.restart(node, loading);
                }
            }
            Mend::Rejoin(node) => {
                self.nodes[node].alone = false;
                self.cluster.rejoin(node);
            }
            Mend::Hear(node) => self.nodes[node].silent = false,
            Mend::Fast(node) => self.nodes[node].lag = Duration::ZERO,
            Mend::Migrate(slot) => self.go_on_moving(slot),
        }
        Ok(())
    }

    /// The faults are over.
    pub(crate) fn mend_all(&mut self) -> Result<(), Violation> {
        for node in 0..self.nodes.len() {
            self.mend(&Mend::Thaw(node))?;
            self.mend(&Mend::Restart(node))?;
            self.mend(&Mend::Rejoin(node))?;
            self.mend(&Mend::Hear(node))?;
            self.mend(&Mend::Fast(node))?;
            self.cluster.stop_misdirecting(node);
        }
        Ok(())
    }

    fn bury_all(&mut self) {
        let ids: Vec<u64> = self.links.keys().copied().collect();
        ids.into_iter().for_each(|id| self.bury(id));
    }

    // ---- nodes ----

    /// All of a shard is not down at the same time, so that somebody can take over.
    fn may_fail(&self, node: usize) -> bool {
        let fellows = (0..self.nodes.len())
            .filter(|other| other % self.weather.shards == node % self.weather.shards);
        let mut others = fellows.filter(|other| *other != node);
        self.is_whole(node) && others.all(|other| self.is_whole(other))
    }

    fn is_whole(&self, node: usize) -> bool {
        self.cluster.is_whole(node) && !self.nodes[node].frozen
    }

    fn kill(&mut self, node: usize) {
        self.cluster.kill(node);
        let ids: Vec<u64> = self
            .links
            .values()
            .filter(|link| link.node == node)
            .map(|link| link.id)
            .collect();
        ids.into_iter().for_each(|id| self.cut(id));
        self.mend_after(3000, Mend::Restart(node));
    }

    /// One connection, or a node and all its connections, is not heard of any more.
    fn silence(&mut self, node: usize) {
        let whole = self.rng.chance(50);
        if whole {
            self.nodes[node].silent = true;
            self.mend_after(2000, Mend::Hear(node));
        }
        let some = self.rng.next();
        let mut silenced = Vec::new();
        for link in self.links.values_mut().filter(|link| link.node == node) {
            if whole || some.wrapping_add(link.id) % 3 == 0 {
                link.silent = true;
                silenced.push(link.id);
            }
        }
        // What the dataplane does not find out by itself the system does, by its keepalive.
        for id in silenced {
            let wait = self.rng.ms(5000, 9000);
            self.after(wait, Event::Reset(id));
        }
        self.bury_all();
    }

    /// A node sends commands where they do not belong: to strangers, or to each other.
    fn misdirect(&mut self, node: usize) {
        let count = self.rng.up_to(4);
        // Who imports a slot believes an ASK, and would have a key that its owner has too.
        let ask = self.rng.chance(30) && !self.weather.legacy_moves;
        let other = self.rng.below(self.nodes.len());
        let Some(here) = self.cluster.address(node) else {
            return;
        };
        match self.cluster.address(other) {
            Some(there) if self.rng.chance(60) => {
                self.cluster.misdirect_next(node, count, ask, there);
                if self.rng.chance(50) {
                    self.cluster.misdirect_next(other, count, ask, here);
                }
            }
            _ => {
                let stranger = speech::STRANGER.parse();
                if let Ok(stranger) = stranger {
                    self.cluster.misdirect_next(node, count, ask, stranger);
                }
            }
        }
    }

    fn fail_over(&mut self) {
        let shard = self.rng.below(self.weather.shards);
        let last = self.failed_over.get(&shard).copied();
        if last.is_none_or(|last| last + FAILOVERS_APART <= self.now)
            && let Some(primary) = self.cluster.primary(shard)
            && self.is_whole(primary)
        {
            self.tick_cluster();
            self.cluster.fail_over(shard);
            self.failed_over.insert(shard, self.now);
        }
    }

    /// Time passes in the cluster. When a replica takes a dead primary's place, what only the dead
    /// one had is lost: noted here, exactly.
    pub(crate) fn tick_cluster(&mut self) {
        let primaries = |world: &Self| -> Vec<Option<usize>> {
            let shards = 0..world.weather.shards;
            shards.map(|shard| world.cluster.primary(shard)).collect()
        };
        let before = primaries(self);
        self.cluster.tick(self.now);
        let after = primaries(self);
        for (old, new) in before.into_iter().zip(after) {
            if let (Some(old), Some(new)) = (old, new)
                && old != new
            {
                self.note(&[], format_args!("node {new} takes the place of {old}"));
                self.failed_over.insert(new % self.weather.shards, self.now);
                self.note_losses(old, new);
            }
        }
    }

    fn note_losses(&mut self, old: usize, new: usize) {
        for key in speech::lists().chain(speech::queues()) {
            let had = self.list_on(old, &key);
            let has = self.list_on(new, &key);
            if had != has {
                self.set_back += 1;
                self.history.revive(&key);
            }
            self.history
                .lose(had.into_iter().filter(|token| !has.contains(token)));
        }
        for key in others::shared() {
            let value = |world: &mut Self, node| {
                let value = world.cluster.look_into(node, &[b"GET", key.as_bytes()]);
                speech::number(&key, &value.unwrap_or(Value::Null))
            };
            let (had, has) = (value(self, old), value(self, new));
            if let Some(has) = has.filter(|has| Some(*has) != had) {
                self.set_back += 1;
                self.history.others.holds(&key, has);
                self.told_by_silence(old, &key);
            }
        }
        for at in 0..self.clients.len() {
            let (who, last) = (self.clients[at].number, self.clients[at].serial);
            // Also where it has not been told yet that it has written.
            for key in speech::own_keys(who) {
                let value = |world: &mut Self, node| {
                    let value = world.cluster.look_into(node, &[b"GET", key.as_bytes()]);
                    value.and_then(|value| speech::number(&key, &value))
                };
                let (had, has) = (value(self, old), value(self, new));
                if let Some(has) = has.filter(|has| Some(*has) != had) {
                    self.set_back += 1;
                    self.clients[at].registers.restored(&key, has, last);
                }
            }
        }
    }

    /// A worker without a connection to the node that has lost something was told so by that.
    fn told_by_silence(&mut self, old: usize, key: &str) {
        for worker in 0..self.weather.workers {
            let mut links = self.links.values();
            let hears = links.any(|link| {
                let is_its = self.proxy.worker_of(link.attempt) == worker;
                link.node == old && !link.dropped && is_its
            });
            if !hears {
                self.history.others.heard_of(worker, key);
            }
        }
    }

    // ---- slots ----

    pub(crate) fn owner_of(&self, key: &str) -> usize {
        let shard = self.cluster.owner(Slot::of_key(key.as_bytes()));
        shard
            .and_then(|shard| self.cluster.primary(shard))
            .unwrap_or_default()
    }

    /// A slot, and the shard that it moves to. None comes back within a run: that takes a real
    /// cluster longer than a command is under way.
    fn choose_move(&mut self) -> Option<(Slot, usize)> {
        let slots = speech::slots();
        let slot = *self.rng.pick(&slots)?;
        let moves = self.moves.get(&slot.get()).copied().unwrap_or_default();
        let owner = self.cluster.owner(slot)?;
        let to = (owner + 1) % self.weather.shards;
        let living = [owner, to].into_iter().all(|shard| {
            let primary = self.cluster.primary(shard);
            primary.is_some_and(|node| self.is_whole(node))
        });
        let may =
            living && moves + 1 < self.weather.shards && !self.migrations.contains(&slot.get());
        may.then_some((slot, to))
    }

    fn begin_move(&mut self) {
        if let Some((slot, to)) = self.choose_move() {
            *self.moves.entry(slot.get()).or_default() += 1;
            self.migrations.insert(slot.get());
            self.history.moving.insert(slot.get());
            self.history.walks.is_moving(slot.get());
            self.cluster.begin_migration(slot, to);
            self.mend_after(60, Mend::Migrate(slot.get()));
        }
    }

    fn go_on_moving(&mut self, slot: u16) {
        let Some(slot) = Slot::new(slot) else { return };
        if !self.migrations.contains(&slot.get()) {
            return;
        }
        if self.cluster.is_stuck(slot) {
            return self.mend_after(40, Mend::Migrate(slot.get()));
        }
        let count = self.rng.up_to(3);
        if self.cluster.move_keys(slot, count) == 0 && self.rng.chance(50) {
            self.cluster.finish_migration(slot);
            self.migrations.remove(&slot.get());
            self.history.moving.remove(&slot.get());
        } else {
            self.mend_after(40, Mend::Migrate(slot.get()));
        }
    }

    fn move_at_once(&mut self) {
        if let Some((slot, to)) = self.choose_move() {
            *self.moves.entry(slot.get()).or_default() += 1;
            self.cluster.migrate_atomically([slot], to);
        }
    }

    /// Dead primaries have been replaced, and slots that were being moved are where they belong.
    pub(crate) fn settle_cluster(&mut self) -> Result<(), Violation> {
        self.now += Duration::from_secs(5);
        self.tick_cluster();
        Ok(())
    }
}
