//! One tick: demand arrives, hosts share their CPUs and network, queues grow and shrink.

use heat::Rng;

use super::queue::{Part, quantile, waiting};
use super::scenario::Scenario;
use super::table::Table;
use super::world::{Host, Node, NodeState, Shard, ShardState, World};

/// How fast demand forgets that it wavered: the time constant.
const WAVER_S: f64 = 30.0;
/// A host whose CPUs are used to this share is full.
const FULL: f64 = 0.98;

impl World {
    /// What happens in `scenario.tick_s` from now.
    pub(super) fn tick(&mut self, scenario: &Scenario, rng: &mut Rng) {
        for tenant in 0..self.tenants.len() {
            self.arrive(scenario, tenant, rng);
        }
        for host in 0..self.hosts.len() {
            share_host(scenario, &mut self.hosts[host], &mut self.nodes);
        }
        for tenant in 0..self.tenants.len() {
            self.serve(scenario, tenant);
        }
        for host in 0..self.hosts.len() {
            self.throttle_check(scenario, host);
        }
    }

    /// Requests of a tenant reach its shards; their nodes want CPUs.
    fn arrive(&mut self, scenario: &Scenario, tenant: usize, rng: &mut Rng) {
        let now_s = self.now_s;
        let tenant = &mut self.tenants[tenant];
        let Some(kind) = scenario.tenant.get(tenant.spec) else {
            return;
        };
        if kind.noise > 0.0 {
            let keep = (-scenario.tick_s / WAVER_S).exp();
            let fresh = kind.noise * (1.0 - keep * keep).sqrt() * rng.normal();
            tenant.waver = 1.0 + keep * (tenant.waver - 1.0) + fresh;
        }
        tenant.demand_rps = kind.demand_at(now_s) * tenant.size * tenant.waver.max(0.0);
        let of_cpu = scenario.node.rps_per_cpu;
        for shard in tenant.shards.iter_mut() {
            let rps = tenant.demand_rps * shard.weight + shard.backlog / scenario.tick_s;
            let moving = shard.moves as f64 * scenario.moves.cpus;
            let copied = rps * scenario.request.write_share * scenario.request.replica_cost;
            for &node in &shard.nodes {
                let node = &mut self.nodes[node];
                let leaves = matches!(node.state, NodeState::MovingTo(_));
                let copying = if leaves { scenario.moves.cpus } else { 0.0 };
                let asked = if node.primary { rps } else { copied };
                let own = if node.primary { moving } else { 0.0 };
                node.cpus_wanted = asked / of_cpu + own + copying;
            }
        }
    }

    /// Shards serve with the CPUs they got; what they cannot waits, and is given up in the end.
    fn serve(&mut self, scenario: &Scenario, tenant: usize) {
        let (now_s, of_cpu) = (self.now_s, scenario.node.rps_per_cpu);
        let tenant = &mut self.tenants[tenant];
        tenant.served_rps = 0.0;
        for shard in tenant.shards.iter_mut() {
            let Some(&primary) = shard.nodes.first() else {
                continue;
            };
            let node = &self.nodes[primary];
            let moving = shard.moves as f64 * scenario.moves.cpus;
            let able = (node.cpus_used - moving.min(node.cpus_used / 2.0)).max(0.0) * of_cpu;
            let asked = tenant.demand_rps * shard.weight * scenario.tick_s + shard.backlog;
            let served = asked.min(able * scenario.tick_s * (1.0 + 1e-9));
            let patience = able * scenario.request.timeout_s;
            let left = (asked - served).max(0.0);
            shard.backlog = left.min(patience);
            tenant.failed += left - shard.backlog;
            tenant.served_rps += served / scenario.tick_s;
            shard.short_since_s = if shard.backlog > 1.0 {
                shard.short_since_s.or(Some(now_s))
            } else {
                None
            };
            self.hosts[node.host].bytes_per_s += served / scenario.tick_s * scenario.request.bytes;
        }
    }

    fn throttle_check(&mut self, scenario: &Scenario, host: usize) {
        let heat = self.heat_of(scenario, host);
        let host = &mut self.hosts[host];
        host.full_since_s = if heat >= FULL {
            host.full_since_s.or(Some(self.now_s))
        } else {
            None
        };
    }

    /// The latencies that these shares of a tenant's requests keep, in seconds.
    pub(super) fn latencies(
        &self,
        scenario: &Scenario,
        tenant: usize,
        shares: [f64; 2],
    ) -> [f64; 2] {
        let request = &scenario.request;
        let service_s = 1.0 / scenario.node.rps_per_cpu;
        let mut parts = Vec::new();
        for (_, shard) in self.shards_of(tenant) {
            let Some(&primary) = shard.nodes.first() else {
                continue;
            };
            if shard.weight <= 0.0 {
                continue;
            }
            let node = &self.nodes[primary];
            let cpus = node.cpus_at_hand.max(1e-6);
            let busy = node.cpus_wanted / cpus;
            let (waits, wait_s) = waiting(cpus, busy, service_s, request.service_cv2);
            let part = Part {
                share: shard.weight,
                fixed_s: request.network_ms / 1e3 + shard.backlog * service_s / cpus,
                service_s: service_s + request.jitter_ms / 1e3,
                waiting: waits,
                wait_s,
            };
            parts.push(part);
            if shard.paused > 0.0 {
                // All of these wait for the whole pause: more than they would.
                let pause_s = scenario.moves.pause_ms / 1e3;
                parts.push(Part {
                    share: shard.paused * (pause_s / scenario.tick_s).min(1.0),
                    fixed_s: part.fixed_s + pause_s,
                    ..part
                });
            }
        }
        shares.map(|share| quantile(&parts, share))
    }
}

/// A host's CPUs go to its nodes: to each what it has reserved if it wants it, the rest in equal parts
/// to those that want more, up to the size that a node may have. What nobody wants is at hand for all.
/// A network that is full slows all nodes of the host alike.
fn share_host(scenario: &Scenario, host: &mut Host, nodes: &mut Table<Node>) {
    let spec = &scenario.node;
    let most = spec.cpus_reserved * spec.growth_in_place;
    let network = scenario.hosts.network_gbit * 1e9 / 8.0;
    let wanted: f64 = host.nodes.iter().map(|&node| nodes[node].cpus_wanted).sum();
    let bytes = wanted * spec.rps_per_cpu * scenario.request.bytes;
    let slowed = if bytes > network {
        network / bytes
    } else {
        1.0
    };
    let mut order: Vec<usize> = host.nodes.clone();
    order.sort_by(|a, b| {
        let wanted = |node: &usize| nodes[*node].cpus_wanted;
        wanted(a).total_cmp(&wanted(b)).then(a.cmp(b))
    });
    let mut left = scenario.hosts.cpus;
    for (place, &node) in order.iter().enumerate() {
        let fair = left / (order.len() - place) as f64;
        let node = &mut nodes[node];
        node.cpus_used = node.cpus_wanted.min(most).min(fair);
        left -= node.cpus_used;
    }
    let count = order.len().max(1) as f64;
    for &node in &order {
        let node = &mut nodes[node];
        let entitled = (scenario.hosts.cpus / count).max(node.cpus_used + left.max(0.0));
        node.cpus_at_hand = entitled.min(most) * slowed;
        node.cpus_used *= slowed;
    }
    host.cpus_used = scenario.hosts.cpus - left;
    host.bytes_per_s = 0.0;
}

impl Shard {
    /// It owns slots or may.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, ShardState::Serving | ShardState::Leaving)
    }
}
