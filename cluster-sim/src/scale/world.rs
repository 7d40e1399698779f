//! What there is: hosts, nodes on them, tenants with shards and slots, the warm pool.
//!
//! Changes keep the sums beside the parts; [`World::check`](super::check) holds one against the other.

use heat::{HostHeat, NodeHeat, Rng};
use topology::Slot;

use super::scenario::{Scenario, TenantSpec};
use super::table::Table;

const GIB: f64 = (1_u64 << 30) as f64;

/// A machine.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) zone: usize,
    /// Nodes on it, and those on their way to it, which have their memory here already.
    pub(super) nodes: Vec<usize>,
    pub(super) arriving: usize,
    /// Migrations that it takes part in, of slots and of nodes.
    pub(super) moves: usize,
    /// In use in the last tick.
    pub(super) cpus_used: f64,
    /// What requests carried in the last tick, bytes a second.
    pub(super) bytes_per_s: f64,
    /// Since when it has used all its CPUs.
    pub(super) full_since_s: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    /// Taken from the pool, not a member yet.
    Attaching,
    Serving,
    /// Serving, and copied to this host meanwhile.
    MovingTo(usize),
    /// Given back.
    Gone,
}

/// A process with a share of a host.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) tenant: usize,
    pub(super) shard: usize,
    pub(super) primary: bool,
    pub(super) host: usize,
    pub(super) state: NodeState,
    /// What it would use in this tick, and what it may.
    pub(super) cpus_wanted: f64,
    pub(super) cpus_used: f64,
    pub(super) cpus_at_hand: f64,
}

/// A primary and its replicas.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    /// The primary first.
    pub(super) nodes: Vec<usize>,
    pub(super) state: ShardState,
    /// Sums over its slots.
    pub(super) weight: f64,
    pub(super) bytes: u64,
    /// Migrations of slots from or to it.
    pub(super) moves: usize,
    /// Requests waiting because it could not serve them in their tick.
    pub(super) backlog: f64,
    /// Share of the tenant's requests that met the end of a migration here in this tick.
    pub(super) paused: f64,
    /// Since when it has had a backlog.
    pub(super) short_since_s: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShardState {
    /// Its nodes are not all there yet.
    Coming,
    Serving,
    /// Being emptied.
    Leaving,
    Gone,
}

/// One slot of a tenant, or a group of equal ones.
#[derive(Clone, Debug)]
pub(super) struct SlotRow {
    pub(super) shard: usize,
    /// Where it is going.
    pub(super) bound_for: Option<usize>,
    /// Its share of the tenant's requests.
    pub(super) weight: f64,
    pub(super) bytes: u64,
}

/// Somebody with a cluster.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) spec: usize,
    /// Its demand against that of its kind.
    pub(super) size: f64,
    /// How demand wavers, around 1.
    pub(super) waver: f64,
    pub(super) slots: Table<SlotRow>,
    pub(super) shards: Table<Shard>,
    /// Bytes when it began: none are lost on the way.
    pub(super) bytes: u64,
    /// In the last tick, requests a second.
    pub(super) demand_rps: f64,
    pub(super) served_rps: f64,
    /// Requests given up.
    pub(super) failed: f64,
}

/// Slots on their way.
#[derive(Clone, Debug)]
pub(super) struct Migration {
    pub(super) tenant: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) slots: Vec<Slot>,
    pub(super) hosts: [usize; 2],
    pub(super) done: bool,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) now_s: f64,
    pub(super) hosts: Table<Host>,
    pub(super) nodes: Table<Node>,
    pub(super) tenants: Table<Tenant>,
    pub(super) migrations: Table<Migration>,
    /// Nodes ready to be taken.
    pub(super) pool: usize,
    /// On their way into it.
    pub(super) pool_coming: usize,
}

/// What a tenant's nodes could do, from what their hosts have free.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Capacity {
    /// Until the first shard is at its limit.
    pub(super) rps: f64,
    /// The busiest shard's share against the mean.
    pub(super) skew: f64,
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let zones = scenario.hosts.zones.max(1);
        let host = |index: usize| Host {
            zone: index % zones,
            nodes: Vec::new(),
            arriving: 0,
            moves: 0,
            cpus_used: 0.0,
            bytes_per_s: 0.0,
            full_since_s: None,
        };
        Self {
            now_s: 0.0,
            hosts: (0..scenario.hosts.count).map(host).collect(),
            nodes: Table::default(),
            tenants: Table::default(),
            migrations: Table::default(),
            pool: scenario.pool.nodes,
            pool_coming: 0,
        }
    }

    /// A tenant of this kind, with slots of its own unevenness and no nodes yet.
    pub(super) fn add_tenant(
        &mut self,
        scenario: &Scenario,
        spec: usize,
        rng: &mut Rng,
    ) -> Option<usize> {
        let kind = scenario.tenant.get(spec)?;
        let weights = slot_weights(kind, rng);
        let each = (kind.gib * GIB * kind.shards as f64 / kind.slots as f64).round();
        let bytes = bytes_of(each);
        let row = |weight: &f64| SlotRow {
            shard: 0,
            bound_for: None,
            weight: *weight,
            bytes,
        };
        let slots: Table<SlotRow> = weights.iter().map(row).collect();
        let tenant = self.tenants.add(Tenant {
            spec,
            size: (kind.spread * rng.normal()).exp(),
            waver: 1.0,
            bytes: bytes * slots.len() as u64,
            shards: Table::default(),
            slots,
            demand_rps: 0.0,
            served_rps: 0.0,
            failed: 0.0,
        });
        Some(tenant)
    }

    /// In the beginning: so many shards, each with as many slots as the others.
    pub(super) fn split_evenly(&mut self, tenant: usize, shards: usize) {
        let tenant = &mut self.tenants[tenant];
        tenant.shards = (0..shards).map(|_| Shard::new()).collect();
        let slots = tenant.slots.len();
        for (index, row) in tenant.slots.iter_mut().enumerate() {
            row.shard = index * shards / slots;
            let shard = &mut tenant.shards[row.shard];
            shard.weight += row.weight;
            shard.bytes += row.bytes;
        }
    }

    /// Puts a node of a shard onto a host.
    pub(super) fn add_node(&mut self, tenant: usize, shard: usize, host: usize) -> usize {
        let of_shard = &mut self.tenants[tenant].shards[shard].nodes;
        let node = self.nodes.add(Node {
            tenant,
            shard,
            primary: of_shard.is_empty(),
            host,
            state: NodeState::Attaching,
            cpus_wanted: 0.0,
            cpus_used: 0.0,
            cpus_at_hand: 0.0,
        });
        of_shard.push(node);
        self.hosts[host].nodes.push(node);
        node
    }

    /// A shard's nodes are all there, or in the beginning: were always.
    pub(super) fn open_shard(&mut self, tenant: usize, shard: usize) {
        let row = &mut self.tenants[tenant].shards[shard];
        row.state = ShardState::Serving;
        for &node in &row.nodes {
            self.nodes[node].state = NodeState::Serving;
        }
    }

    /// A shard without slots gives its nodes back.
    pub(super) fn close_shard(&mut self, tenant: usize, shard: usize) {
        let row = &mut self.tenants[tenant].shards[shard];
        row.state = ShardState::Gone;
        for node in std::mem::take(&mut row.nodes) {
            let row = &mut self.nodes[node];
            row.state = NodeState::Gone;
            self.hosts[row.host].nodes.retain(|other| *other != node);
        }
    }

    /// Memory that nodes have reserved on a host, in nodes: all have the same.
    pub(super) fn nodes_at(&self, host: usize) -> usize {
        let host = &self.hosts[host];
        host.nodes.len() + host.arriving
    }

    /// Whether a node of this shard may live on a host: no other of its shard does, or will.
    pub(super) fn apart(&self, tenant: usize, shard: usize, host: usize) -> bool {
        let others = &self.tenants[tenant].shards[shard].nodes;
        !others.iter().any(|&node| {
            let node = &self.nodes[node];
            node.host == host || node.state == NodeState::MovingTo(host)
        })
    }

    /// What the hosts say of themselves, for the planner.
    pub(super) fn heat(&self, scenario: &Scenario) -> Vec<HostHeat> {
        let node_bytes = bytes_of(scenario.node.memory_gib * GIB);
        let host_bytes = bytes_of(scenario.hosts.memory_gib * GIB);
        let seen = |index: usize| {
            let host = &self.hosts[index];
            let taken = node_bytes * self.nodes_at(index) as u64;
            HostHeat {
                zone: host.zone,
                heat: self.heat_of(scenario, index),
                bytes_free: host_bytes.saturating_sub(taken),
                moves: host.moves,
                nodes: host
                    .nodes
                    .iter()
                    .map(|&node| NodeHeat {
                        id: node,
                        heat: self.nodes[node].cpus_used / scenario.hosts.cpus,
                        bytes: node_bytes,
                        movable: self.is_movable(node),
                        leaving: matches!(self.nodes[node].state, NodeState::MovingTo(_)),
                    })
                    .collect(),
            }
        };
        (0..self.hosts.len()).map(seen).collect()
    }

    /// The share in use of what a host has least of: CPUs or network.
    pub(super) fn heat_of(&self, scenario: &Scenario, host: usize) -> f64 {
        let network = scenario.hosts.network_gbit * 1e9 / 8.0;
        let host = &self.hosts[host];
        (host.cpus_used / scenario.hosts.cpus).max(host.bytes_per_s / network)
    }

    /// Nothing else is being done to it.
    fn is_movable(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let shard = &self.tenants[node.tenant].shards[node.shard];
        node.state == NodeState::Serving && shard.state == ShardState::Serving && shard.moves == 0
    }

    /// Shards that have nodes or get them.
    pub(super) fn shards_of(&self, tenant: usize) -> impl Iterator<Item = (usize, &Shard)> {
        let shards = self.tenants[tenant].shards.iter().enumerate();
        shards.filter(|(_, shard)| shard.state != ShardState::Gone)
    }

    /// What the tenant could be served at the limit that is planned with.
    pub(super) fn capacity(&self, scenario: &Scenario, tenant: usize) -> Capacity {
        let of_cpu = scenario.node.rps_per_cpu * scenario.node.use_max;
        let (mut rps, mut busiest, mut count) = (f64::INFINITY, 0.0_f64, 0.0);
        for (_, shard) in self.shards_of(tenant) {
            count += if shard.state == ShardState::Leaving {
                0.0
            } else {
                1.0
            };
            if let (true, Some(&primary)) = (shard.weight > 0.0, shard.nodes.first()) {
                let cpus = self.nodes[primary].cpus_at_hand;
                rps = rps.min(cpus * of_cpu / shard.weight);
                busiest = busiest.max(shard.weight);
            }
        }
        Capacity {
            rps: if rps.is_finite() { rps } else { 0.0 },
            skew: busiest * count,
        }
    }
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            state: ShardState::Coming,
            weight: 0.0,
            bytes: 0,
            moves: 0,
            backlog: 0.0,
            paused: 0.0,
            short_since_s: None,
        }
    }
}

/// Whole bytes.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
pub(super) fn bytes_of(bytes: f64) -> u64 {
    bytes as u64
}

/// Keys that are told apart when slots get their share of requests; the rest lies evenly.
const KEYS_EXACT: f64 = 200_000.0;
const KEYS_EXACT_PER_SLOT: f64 = 64.0;

/// The slots' shares of all requests: keys as popular as Zipf's law has them, in random slots.
fn slot_weights(kind: &TenantSpec, rng: &mut Rng) -> Vec<f64> {
    let exact = (kind.slots as f64 * KEYS_EXACT_PER_SLOT).min(KEYS_EXACT);
    let exact = kind.keys.clamp(1.0, exact);
    let mut weights = vec![0.0; kind.slots];
    let (mut sum, mut rank) = (0.0, 1.0);
    while rank <= exact {
        let share = f64::powf(rank, -kind.skew);
        if let Some(weight) = weights.get_mut(rng.below(kind.slots)) {
            *weight += share;
        }
        sum += share;
        rank += 1.0;
    }
    let rest = tail(exact, kind.keys, kind.skew);
    let all = sum + rest;
    let even = rest / kind.slots as f64;
    weights.iter().map(|weight| (weight + even) / all).collect()
}

/// The sum of `rank^-skew` for ranks above `from` to `to`, as an integral.
fn tail(from: f64, to: f64, skew: f64) -> f64 {
    if to <= from {
        0.0
    } else if (skew - 1.0).abs() < 1e-9 {
        (to / from).ln()
    } else {
        (to.powf(1.0 - skew) - from.powf(1.0 - skew)) / (1.0 - skew)
    }
}
