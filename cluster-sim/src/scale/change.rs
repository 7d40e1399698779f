//! What changes between ticks: slots and nodes that move, shards that leave.

use heat::Rng;

use super::scenario::Scenario;
use super::world::{Migration, NodeState, ShardState, World};

impl World {
    /// Slots set out for another shard; it counts as theirs for the planner from now on. Returns the
    /// migration's index.
    pub(super) fn depart(&mut self, migration: Migration) -> usize {
        let tenant = &mut self.tenants[migration.tenant];
        for slot in &migration.slots {
            tenant.slots[usize::from(slot.get())].bound_for = Some(migration.to);
        }
        for shard in [migration.from, migration.to] {
            tenant.shards[shard].moves += 1;
        }
        for host in migration.hosts {
            self.hosts[host].moves += 1;
        }
        self.migrations.add(migration)
    }

    /// They have arrived, all at once. Returns how many.
    pub(super) fn arrive_at(&mut self, migration: usize) -> usize {
        let moved = &mut self.migrations[migration];
        moved.done = true;
        let slots = std::mem::take(&mut moved.slots);
        let (from, to) = (moved.from, moved.to);
        let tenant = &mut self.tenants[moved.tenant];
        for slot in &slots {
            let row = &mut tenant.slots[usize::from(slot.get())];
            (row.shard, row.bound_for) = (to, None);
            let (weight, bytes) = (row.weight, row.bytes);
            tenant.shards[from].weight -= weight;
            tenant.shards[from].bytes -= bytes;
            tenant.shards[to].weight += weight;
            tenant.shards[to].bytes += bytes;
            tenant.shards[to].paused += weight;
        }
        for shard in [from, to] {
            tenant.shards[shard].moves -= 1;
        }
        for host in moved.hosts {
            self.hosts[host].moves -= 1;
        }
        slots.len()
    }

    /// Some slots of a tenant take a share of all its requests from now on.
    pub(super) fn heat_up(&mut self, scenario: &Scenario, tenant: usize, rng: &mut Rng) {
        let tenant = &mut self.tenants[tenant];
        let kind = scenario.tenant.get(tenant.spec);
        let Some(hot) = kind.and_then(|kind| kind.hot.as_ref()) else {
            return;
        };
        for slot in tenant.slots.iter_mut() {
            slot.weight *= 1.0 - hot.share;
        }
        for _ in 0..hot.slots {
            let slot = rng.below(tenant.slots.len());
            tenant.slots[slot].weight += hot.share / hot.slots as f64;
        }
        for shard in tenant.shards.iter_mut() {
            shard.weight = 0.0;
        }
        for slot in tenant.slots.iter() {
            tenant.shards[slot.shard].weight += slot.weight;
        }
    }

    /// What met the end of a migration was of the tick that is over.
    pub(super) fn end_pauses(&mut self) {
        for tenant in self.tenants.iter_mut() {
            for shard in tenant.shards.iter_mut() {
                shard.paused = 0.0;
            }
        }
    }

    /// A node is copied to another host from now on; its memory is taken at both.
    pub(super) fn set_out(&mut self, node: usize, to: usize) {
        let row = &mut self.nodes[node];
        row.state = NodeState::MovingTo(to);
        self.hosts[row.host].moves += 1;
        self.hosts[to].moves += 1;
        self.hosts[to].arriving += 1;
    }

    /// It lives there now. Requests to its slots met a pause, if it is a primary.
    pub(super) fn settle(&mut self, node: usize, to: usize) {
        let row = &mut self.nodes[node];
        let from = row.host;
        self.hosts[from].moves -= 1;
        self.hosts[to].moves -= 1;
        self.hosts[to].arriving -= 1;
        self.hosts[from].nodes.retain(|other| *other != node);
        if row.state == NodeState::Gone {
            return;
        }
        row.host = to;
        row.state = NodeState::Serving;
        self.hosts[to].nodes.push(node);
        if row.primary {
            let shard = &mut self.tenants[row.tenant].shards[row.shard];
            shard.paused += shard.weight;
        }
    }

    /// The shards with the least load begin to leave.
    pub(super) fn leave(&mut self, tenant: usize, fewer: usize) {
        let mut order: Vec<(usize, f64)> = self
            .shards_of(tenant)
            .filter(|(_, shard)| shard.state == ShardState::Serving)
            .map(|(index, shard)| (index, shard.weight.max(0.0)))
            .collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let most = order.len().saturating_sub(1);
        let leaving: Vec<usize> = order
            .iter()
            .take(fewer.min(most))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in leaving {
            self.tenants[tenant].shards[shard].state = ShardState::Leaving;
        }
    }

    /// Shards that leave and have nothing left are given back.
    pub(super) fn close_empty(&mut self, tenant: usize) {
        let owned = |shard: usize| {
            let slots = self.tenants[tenant].slots.iter();
            let mut slots =
                slots.filter(|slot| slot.shard == shard || slot.bound_for == Some(shard));
            slots.next().is_some()
        };
        let still = |node: &usize| self.nodes[*node].state == NodeState::Serving;
        let empty: Vec<usize> = self
            .shards_of(tenant)
            .filter(|(_, shard)| shard.state == ShardState::Leaving && shard.moves == 0)
            .filter(|(_, shard)| shard.nodes.iter().all(still))
            .map(|(index, _)| index)
            .filter(|index| !owned(*index))
            .collect();
        for shard in empty {
            self.close_shard(tenant, shard);
        }
    }
}
