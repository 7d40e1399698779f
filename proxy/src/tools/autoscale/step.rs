//! One step of the loop: what is decided, done.

use std::collections::{BTreeMap, BTreeSet};

use heat::Change;
use topology::{NodeAddr, NodeId};

use super::{
    decide::{Decider, Decision, was_leaving},
    replicas::{Free, Group, groups},
    unusable::Unusable,
};
use crate::{
    config::Autoscale,
    events::unix_ms,
    fleet::{
        Event, Fleet, Load, Mover, Peer, Reading, Source, Stop, Trouble, View, What, heal::heal,
        pool::Spare,
    },
};

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Something was done.
    Soon,
    Later,
}

/// What the loop knows from one look to the next.
pub(super) struct Steps<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) pool: Vec<NodeAddr>,
    /// Of every shard that comes from the pool.
    pub(super) replicas: usize,
    pub(super) dry_run: bool,
    decider: Decider,
    earlier: Option<Reading>,
    /// Nodes that are being emptied, to be given back.
    pub(super) leaving: BTreeSet<NodeId>,
    /// Nodes that this run took to be primaries.
    pub(super) coming: BTreeSet<NodeId>,
    /// Shards that have fewer replicas than they should, and of which that was said.
    pub(super) poor: BTreeSet<NodeId>,
    /// Nodes of the pool that cannot be taken, as far as that was said.
    unusable: Unusable,
    /// Nodes that the pool was short of at the last look.
    missing: usize,
    /// Of those that leave, nodes that follow another one when they are empty, until they were told not to.
    followed: BTreeSet<NodeId>,
    /// Whether it is known what a run before this one was doing.
    resumed: bool,
    /// What was said about how slots are weighed.
    weighed: Option<Source>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(fleet: &'a Fleet, config: &Autoscale, dry_run: bool) -> Self {
        let pool = config.warm.iter();
        Self {
            fleet,
            pool: pool
                .filter_map(|addr| NodeAddr::new(&addr.host, addr.port))
                .collect(),
            replicas: config.replicas,
            dry_run,
            decider: Decider::new(config),
            earlier: None,
            leaving: BTreeSet::new(),
            coming: BTreeSet::new(),
            poor: BTreeSet::new(),
            unusable: Unusable::default(),
            missing: 0,
            followed: BTreeSet::new(),
            resumed: false,
            weighed: None,
        }
    }

    /// What was measured is too old to be compared with.
    pub(super) fn forget(&mut self) {
        self.earlier = None;
    }

    pub(super) async fn step(&mut self, stop: &Stop) -> Result<Next, Trouble> {
        let mut view = self.fleet.view().await?;
        view.sound()?;
        if !self.dry_run {
            view = heal(self.fleet, view, stop, &mut |text| tracing::info!("{text}")).await?;
        }
        let reading = Reading::take(self.fleet, &view).await?;
        let Some(earlier) = self.earlier.replace(reading.clone()) else {
            return Ok(Next::Later);
        };
        let load = Load::between(&earlier, &reading);
        self.note_source(&load.source);
        let keys = load.keys.clone();
        self.leaving.retain(|id| view.peer(*id).is_some());
        let now_s = unix_ms() as f64 / 1000.0;
        let decision = self.decider.decide(now_s, &view, load, &self.leaving);
        if !self.resumed {
            self.resumed = true;
            return self.resume(&view, &decision).await;
        }
        self.explain(&decision);
        if self.attach(&view).await? {
            self.forget();
            return Ok(Next::Soon);
        }
        let next = match decision.change {
            Change::Out(more) => match self.out(&view, &decision, more).await? {
                Next::Soon => Ok(Next::Soon),
                // Nobody came: those who are there are to have their slots all the same.
                Next::Later => self.follow(&view, &decision, &keys, stop).await,
            },
            Change::In(fewer) => self.shrink(&view, &decision, fewer).await,
            Change::Hold => self.follow(&view, &decision, &keys, stop).await,
        }?;
        if next == Next::Soon {
            // What moving costs the nodes is no load: before 9.0 it is commands, and more than a few.
            self.forget();
        }
        Ok(next)
    }

    fn note_source(&mut self, source: &Source) {
        if self.weighed.as_ref() != Some(source) {
            match source {
                Source::Cpu | Source::Keys | Source::Commands(_) => {
                    tracing::info!("slots are weighed by their CPU time");
                }
                Source::Even(why) => tracing::warn!("all slots weigh the same: {why}"),
            }
            self.weighed = Some(source.clone());
        }
    }

    fn explain(&self, decision: &Decision) {
        let seen = &decision.seen;
        tracing::debug!(
            shards = seen.nodes, needed = decision.needed, leaving = self.leaving.len(),
            load = seen.load, expected = seen.expected, skew = seen.skew, bytes = seen.bytes,
            moves = decision.plan.moves.len(), change = ?decision.change, "looked"
        );
    }

    /// Why, in the figures of a decision.
    fn why(&self, decision: &Decision) -> String {
        let seen = &decision.seen;
        format!(
            "load {}, {} expected, {} shards carry {}: {} needed",
            short(seen.load),
            short(seen.expected),
            seen.nodes,
            short(self.decider.carries(seen.nodes)),
            decision.needed
        )
    }

    /// Goes on with what a run before this one had begun.
    async fn resume(&mut self, view: &View, decision: &Decision) -> Result<Next, Trouble> {
        let pool = self.members(view).await?;
        let slots = view.primaries().map(|peer| (peer.id, peer.slots.len()));
        let slots: BTreeMap<NodeId, usize> = slots.collect();
        let leaving = was_leaving(&slots, &pool, decision.seen.nodes, decision.needed);
        for peer in leaving.iter().filter_map(|id| view.peer(*id)) {
            let (node, slots) = (&peer.addr, peer.slots.len());
            let why = self.why(decision);
            tracing::info!(%node, slots, why, "it was being given back, or is not needed: that goes on");
            self.begin_leaving_all(view, peer).await;
        }
        Ok(Next::Soon)
    }

    /// Nodes of the pool that are primaries of the cluster, with replicas of the pool alone.
    async fn members(&self, view: &View) -> Result<BTreeSet<NodeId>, Trouble> {
        for addr in &self.pool {
            if !self.dry_run && self.fleet.spare(view, addr).await == Spare::Stranded {
                self.renew(addr).await?;
            }
        }
        let pooled = self.pooled(view).await;
        let whole = |peer: &&Peer| {
            let mut replicas = view.replicas_of(peer.id);
            pooled.contains(&peer.id) && replicas.all(|replica| pooled.contains(&replica.id))
        };
        let found = view.primaries().filter(whole).map(|peer| peer.id);
        Ok(found.collect())
    }

    async fn renew(&self, node: &NodeAddr) -> Result<(), Trouble> {
        tracing::info!(%node, "it was left half in the cluster, empty: it is made new");
        self.fleet.reset(node).await
    }

    /// A shard with its replicas.
    async fn begin_leaving_all(&mut self, view: &View, peer: &Peer) {
        for replica in view.replicas_of(peer.id) {
            self.begin_leaving(replica).await;
        }
        self.begin_leaving(peer).await;
    }

    pub(super) async fn begin_leaving(&mut self, peer: &Peer) {
        if self.dry_run {
            return;
        }
        self.leaving.insert(peer.id);
        match self.fleet.set_follows(peer, false).await {
            Ok(true) => drop(self.followed.insert(peer.id)),
            Ok(false) => {}
            // Then it follows another node when it is empty, and is as good to give back.
            Err(trouble) => tracing::debug!(%trouble, "it may become a replica"),
        }
    }

    async fn out(
        &mut self,
        view: &View,
        decision: &Decision,
        more: usize,
    ) -> Result<Next, Trouble> {
        let why = self.why(decision);
        let primary = |id: &&NodeId| view.peer(**id).is_some_and(|peer| !peer.replica);
        let stay: Vec<NodeId> = self
            .leaving
            .iter()
            .filter(primary)
            .take(more)
            .copied()
            .collect();
        for peer in stay.iter().filter_map(|id| view.peer(*id)) {
            tracing::info!(node = %peer.addr, why, "scale out: it stays");
            self.leaving.remove(&peer.id);
            for replica in view.replicas_of(peer.id) {
                self.leaving.remove(&replica.id);
            }
        }
        let (shards, replicas) = (more.saturating_sub(stay.len()), self.replicas);
        let wanted = shards * (1 + replicas);
        // All of them, where it matters which zones there are.
        let looked_at = if replicas == 0 { wanted } else { usize::MAX };
        let free = self.free(view, looked_at).await?;
        let found = free.len();
        let groups = groups(free, replicas, shards);
        let missing = wanted.saturating_sub(found);
        if std::mem::replace(&mut self.missing, missing) != missing && missing > 0 {
            tracing::warn!(
                wanted,
                found,
                shards = groups.len(),
                replicas,
                why,
                "the warm pool has not as many nodes as are needed"
            );
        }
        if groups.is_empty() {
            return Ok(if stay.is_empty() {
                Next::Later
            } else {
                Next::Soon
            });
        }
        let spares: Vec<(NodeAddr, NodeId)> = groups
            .iter()
            .map(|(primary, _)| (primary.addr.clone(), primary.id))
            .collect();
        let names: Vec<String> = groups.iter().map(named).collect();
        tracing::info!(
            nodes = names.join(", "),
            why,
            "scale out: nodes of the warm pool join"
        );
        if self.dry_run {
            return Ok(Next::Later);
        }
        let view = self.fleet.join(view, &spares).await?;
        self.coming.extend(spares.iter().map(|(_, id)| *id));
        tracing::info!(
            nodes = names.join(", "),
            shards = view.primaries().count(),
            "all nodes know them"
        );
        if replicas == 0 && view.peers.iter().any(|peer| peer.replica) {
            let nodes = names.join(", ");
            tracing::warn!(
                nodes,
                "they have no replicas: what they hold is lost with them; see [autoscale] replicas"
            );
        }
        Ok(Next::Soon)
    }

    /// Up to so many nodes of the pool that can be had.
    pub(super) async fn free(&mut self, view: &View, wanted: usize) -> Result<Vec<Free>, Trouble> {
        let mut found = Vec::new();
        for addr in &self.pool.clone() {
            if found.len() == wanted {
                break;
            }
            let mut spare = self.fleet.spare(view, addr).await;
            if spare == Spare::Stranded && !self.dry_run {
                self.renew(addr).await?;
                spare = self.fleet.spare(view, addr).await;
            }
            match spare {
                Spare::Ready(id) => found.push(Free {
                    addr: addr.clone(),
                    id,
                    zone: match self.replicas {
                        0 => None,
                        _ => self.fleet.zone_of(addr).await,
                    },
                }),
                Spare::Unusable(why) => {
                    self.unusable.is(addr, why);
                    continue;
                }
                Spare::Member(_) | Spare::Stranded => {}
            }
            self.unusable.is_not(addr);
        }
        Ok(found)
    }

    async fn shrink(
        &mut self,
        view: &View,
        decision: &Decision,
        fewer: usize,
    ) -> Result<Next, Trouble> {
        let why = self.why(decision);
        let members = self.members(view).await?;
        let candidates = members.iter().filter(|id| !self.leaving.contains(id));
        let mut candidates: Vec<&Peer> = candidates.filter_map(|id| view.peer(*id)).collect();
        candidates.sort_by_key(|peer| peer.slots.len());
        if candidates.len() < fewer {
            let (wanted, found) = (fewer, candidates.len());
            tracing::info!(
                wanted,
                found,
                why,
                "scale in: only shards of the warm pool alone are given back"
            );
        }
        for peer in candidates.into_iter().take(fewer) {
            let (node, slots) = (&peer.addr, peer.slots.len());
            tracing::info!(%node, slots, why, "scale in: it is emptied and given back");
            self.begin_leaving_all(view, peer).await;
        }
        Ok(Next::Soon)
    }

    /// Moves slots as planned, and lets go who is empty.
    async fn follow(
        &mut self,
        view: &View,
        decision: &Decision,
        keys: &[u64],
        stop: &Stop,
    ) -> Result<Next, Trouble> {
        let mut next = Next::Later;
        if !decision.plan.moves.is_empty() {
            self.announce(view, decision);
            if self.dry_run {
                return Ok(Next::Later);
            }
            let mover = Mover::new(self.fleet, view);
            let moves = decision.plan.moves.iter();
            let lanes = moves.map(|planned| decision.board.jobs(&mover, view, planned, keys).0);
            let done = mover.run(lanes.collect(), stop, &mut tell).await;
            if let Some(trouble) = done.failed.into_iter().next() {
                return Err(trouble);
            }
            next = Next::Soon;
        }
        if self.leaving.is_empty() || stop.requested() {
            return Ok(next);
        }
        let view = self.fleet.view().await?;
        view.sound()?;
        // Replicas first: who has some is not let go.
        let mut ids: Vec<NodeId> = self.leaving.iter().copied().collect();
        ids.sort_by_key(|id| view.peer(*id).is_none_or(|peer| !peer.replica));
        let serves = |id: Option<NodeId>| {
            id.and_then(|id| view.peer(id))
                .is_some_and(|peer| self.leaving.contains(&peer.id) && !peer.slots.is_empty())
        };
        let empty = |peer: &&Peer| peer.slots.is_empty() && !serves(peer.primary);
        let empty = ids.iter().filter_map(|id| view.peer(*id)).filter(empty);
        let empty: Vec<Peer> = empty.cloned().collect();
        for peer in &empty {
            self.fleet.release(peer).await?;
            self.leaving.remove(&peer.id);
            if self.followed.remove(&peer.id) {
                let _ = self.fleet.set_follows(peer, true).await;
            }
            let shards = view.primaries().count() - usize::from(!peer.replica);
            tracing::info!(node = %peer.addr, shards, "it is empty, forgotten and back in the pool");
        }
        Ok(Next::Soon)
    }

    fn announce(&self, view: &View, decision: &Decision) {
        let moves = &decision.plan.moves;
        let slots: usize = moves.iter().map(|planned| planned.slots.len()).sum();
        let ids = &decision.board.ids;
        let empty = |index: usize| {
            let peer = ids.get(index).and_then(|id| view.peer(*id));
            peer.is_some_and(|peer| peer.slots.is_empty())
        };
        let leaves = |index: usize| ids.get(index).is_some_and(|id| self.leaving.contains(id));
        let why = if moves.iter().any(|planned| leaves(planned.from)) {
            "to empty nodes that are given back"
        } else if moves.iter().any(|planned| empty(planned.to)) {
            "to nodes that have none"
        } else {
            "the load is uneven"
        };
        let skew = decision.seen.skew;
        tracing::info!(slots, moves = moves.len(), skew, why, "slots move");
    }
}

/// Every job, for those who look closely.
fn tell(event: &Event) {
    let (from, to, slots, keys) = (&event.from, &event.to, event.slots, event.keys);
    match &event.what {
        What::Began => {}
        What::Moved(moved, took) => {
            let took_ms = took.as_millis();
            tracing::debug!(%from, %to, slots, moved, keys, took_ms, "moved");
        }
        What::Failed(trouble) => tracing::warn!(%from, %to, slots, "slots did not move: {trouble}"),
    }
}

/// A shard that comes.
fn named((primary, replicas): &Group) -> String {
    let replicas: Vec<String> = replicas.iter().map(|free| free.addr.to_string()).collect();
    match replicas.len() {
        0 => primary.addr.to_string(),
        _ => format!("{} (replicas {})", primary.addr, replicas.join(", ")),
    }
}

/// Operations a second, or cores.
fn short(number: f64) -> String {
    if number < 100.0 {
        format!("{number:.2}")
    } else {
        format!("{number:.0}")
    }
}
