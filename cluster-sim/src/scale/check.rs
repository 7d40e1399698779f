//! What must be true of the world at every moment (FAILURES of the control plane, as invariants).

use anyhow::ensure;

use super::scenario::Scenario;
use super::world::{NodeState, ShardState, World};

impl World {
    /// Holds the world against its invariants.
    ///
    /// # Errors
    /// The first that is broken.
    pub(super) fn check(&self, scenario: &Scenario) -> anyhow::Result<()> {
        let check = || {
            self.check_slots()?;
            self.check_places(scenario)?;
            self.check_moves(scenario)?;
            let pool = self.pool + self.pool_coming;
            ensure!(
                pool == scenario.pool.nodes,
                "{pool} nodes in the pool and on their way"
            );
            Ok(())
        };
        check().map_err(|error: anyhow::Error| error.context(format!("at {} s", self.now_s)))
    }

    /// Every slot has one owner that is open, is in at most one migration, and no byte is lost.
    fn check_slots(&self) -> anyhow::Result<()> {
        for (index, tenant) in self.tenants.iter().enumerate() {
            let mut weights = vec![0.0; tenant.shards.len()];
            let mut bytes = vec![0_u64; tenant.shards.len()];
            for slot in tenant.slots.iter() {
                let owner = &tenant.shards[slot.shard];
                ensure!(
                    owner.is_open(),
                    "tenant {index}: a slot's owner is {:?}",
                    owner.state
                );
                if let (Some(weight), Some(bytes)) =
                    (weights.get_mut(slot.shard), bytes.get_mut(slot.shard))
                {
                    *weight += slot.weight;
                    *bytes += slot.bytes;
                }
            }
            for ((shard, weight), bytes) in tenant.shards.iter().zip(&weights).zip(&bytes) {
                ensure!(
                    shard.bytes == *bytes,
                    "tenant {index}: bytes were lost on the way"
                );
                ensure!(
                    (shard.weight - weight).abs() < 1e-6,
                    "tenant {index}: load was lost"
                );
            }
            let all: u64 = bytes.iter().sum();
            ensure!(
                all == tenant.bytes,
                "tenant {index} had {} bytes, has {all}",
                tenant.bytes
            );
        }
        let mut bound = 0;
        for migration in self.migrations.iter().filter(|migration| !migration.done) {
            let tenant = &self.tenants[migration.tenant];
            for slot in &migration.slots {
                let slot = &tenant.slots[usize::from(slot.get())];
                ensure!(
                    slot.shard == migration.from && slot.bound_for == Some(migration.to),
                    "a slot is in two migrations"
                );
            }
            bound += migration.slots.len();
        }
        let slots = self.tenants.iter().flat_map(|tenant| tenant.slots.iter());
        let moving = slots.filter(|slot| slot.bound_for.is_some()).count();
        ensure!(
            moving == bound,
            "{moving} slots are on the move, {bound} in migrations"
        );
        Ok(())
    }

    /// No host and no zone has two nodes of one shard; no host has more nodes than memory.
    fn check_places(&self, scenario: &Scenario) -> anyhow::Result<()> {
        for tenant in self.tenants.iter() {
            let open = tenant.shards.iter().filter(|s| s.state != ShardState::Gone);
            for shard in open {
                ensure!(
                    shard.nodes.len() == 1 + scenario.node.replicas,
                    "a shard lacks nodes"
                );
                let mut zones: Vec<usize> = Vec::new();
                for &node in &shard.nodes {
                    let node = &self.nodes[node];
                    zones.push(self.hosts[node.host].zone);
                    if let NodeState::MovingTo(host) = node.state {
                        let same = self.hosts[host].zone == self.hosts[node.host].zone;
                        ensure!(same, "a node moves to another zone");
                    }
                }
                zones.sort_unstable();
                zones.dedup();
                ensure!(
                    zones.len() == shard.nodes.len(),
                    "two nodes of a shard in one zone"
                );
            }
        }
        for host in 0..self.hosts.len() {
            let nodes = self.nodes_at(host);
            ensure!(
                nodes <= scenario.nodes_per_host(),
                "host {host} has {nodes} nodes"
            );
        }
        Ok(())
    }

    /// Nobody takes part in more migrations than allowed, and all that are counted exist.
    fn check_moves(&self, scenario: &Scenario) -> anyhow::Result<()> {
        let mut at_host = vec![0_usize; self.hosts.len()];
        for migration in self.migrations.iter().filter(|migration| !migration.done) {
            for host in migration.hosts {
                at_host
                    .get_mut(host)
                    .into_iter()
                    .for_each(|count| *count += 1);
            }
        }
        for node in self.nodes.iter() {
            if let NodeState::MovingTo(to) = node.state {
                for host in [node.host, to] {
                    at_host
                        .get_mut(host)
                        .into_iter()
                        .for_each(|count| *count += 1);
                }
            }
        }
        for (index, (host, counted)) in self.hosts.iter().zip(&at_host).enumerate() {
            ensure!(
                host.moves == *counted,
                "host {index}: {} moves, {counted}",
                host.moves
            );
            ensure!(
                *counted <= scenario.moves.per_host,
                "host {index}: {counted} moves"
            );
        }
        for shard in self.tenants.iter().flat_map(|tenant| tenant.shards.iter()) {
            ensure!(
                shard.moves <= scenario.moves.per_node,
                "a node has {} moves",
                shard.moves
            );
        }
        Ok(())
    }
}
