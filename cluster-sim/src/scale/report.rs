//! What a run showed: a line for every tick, and the figures of the whole.

use std::fmt::Write;

use serde::Serialize;

use super::scenario::{Scenario, TenantSpec};
use super::world::{NodeState, ShardState, World, bytes_of};

/// A tenant is starved when it is left with requests that waited for longer than this.
const STARVED_AFTER_S: f64 = 10.0;
/// The share of the highest demand that counts as having reached it: demand wavers around its curve.
const REACHED: f64 = 0.98;

/// One tick, as the tenant in focus saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Simulated time.
    pub t_s: f64,
    /// Requests a second that came..
    pub demand_rps: f64,
    /// ..that were served..
    pub served_rps: f64,
    /// ..and that could be, without leaving the share of use that is planned with.
    pub capacity_rps: f64,
    /// The median of latencies.
    pub p50_ms: f64,
    /// What 99 of 100 requests keep.
    pub p99_ms: f64,
    /// Shards that serve.
    pub shards: usize,
    /// Nodes, replicas and those on their way among them.
    pub nodes: usize,
    /// Migrations of slots under way.
    pub migrations: usize,
    /// Nodes on their way from host to host, of all tenants.
    pub evictions: usize,
    /// Nodes in the warm pool.
    pub pool: usize,
    /// The mean of the hosts' heat..
    pub heat_mean: f64,
    /// ..and the highest.
    pub heat_max: f64,
    /// Of one host, that the tenant's nodes use or have reserved.
    pub hosts_used: f64,
    /// Of one host, that a cluster sized for the peak uses.
    pub hosts_fixed: f64,
}

impl Sample {
    pub(super) fn take(scenario: &Scenario, world: &World, focus: usize) -> Self {
        let tenant = &world.tenants[focus];
        let [p50, p99] = world.latencies(scenario, focus, [0.5, 0.99]);
        let heats: Vec<f64> = (0..world.hosts.len())
            .map(|host| world.heat_of(scenario, host))
            .collect();
        let shards: Vec<_> = world.shards_of(focus).map(|(_, shard)| shard).collect();
        let nodes: Vec<usize> = shards
            .iter()
            .flat_map(|s| s.nodes.iter().copied())
            .collect();
        let moving = |node: &&super::world::Node| matches!(node.state, NodeState::MovingTo(_));
        let memory = scenario.node.memory_gib / scenario.hosts.memory_gib;
        let used = |node: &usize| {
            let cpus = world.nodes[*node]
                .cpus_used
                .max(scenario.node.cpus_reserved);
            (cpus / scenario.hosts.cpus).max(memory)
        };
        Self {
            t_s: world.now_s,
            demand_rps: tenant.demand_rps,
            served_rps: tenant.served_rps,
            capacity_rps: world.capacity(scenario, focus).rps,
            p50_ms: p50 * 1e3,
            p99_ms: p99 * 1e3,
            shards: shards
                .iter()
                .filter(|s| s.state == ShardState::Serving)
                .count(),
            nodes: nodes.len(),
            migrations: shards.iter().map(|s| s.moves).sum::<usize>() / 2,
            evictions: world.nodes.iter().filter(moving).count(),
            pool: world.pool,
            heat_mean: heats.iter().sum::<f64>() / heats.len().max(1) as f64,
            heat_max: heats.iter().copied().fold(0.0, f64::max),
            hosts_used: nodes.iter().map(used).sum(),
            hosts_fixed: 0.0,
        }
    }
}

/// The figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The scenario.
    pub scenario: String,
    /// Everything random followed from it.
    pub seed: u64,
    /// Hosts of the service.
    pub hosts: usize,
    /// Tenants on them.
    pub tenants: usize,
    /// The highest demand that the curves of the tenant in focus come to.
    pub peak_rps: f64,
    /// The most that it was served.
    pub reached_rps: f64,
    /// When it was first served 98 % of the highest demand; none if never.
    pub reached_at_s: Option<f64>,
    /// The longest time in which its capacity doubled, on its way from what it had to its peak.
    pub doubling_s_max: f64,
    /// The highest median of latencies of a tick.
    pub p50_ms_max: f64,
    /// The highest 99th percentile of a tick..
    pub p99_ms_max: f64,
    /// ..that which it should keep..
    pub p99_ms_bound: f64,
    /// ..and the longest time that it did not.
    pub p99_recovery_s_max: f64,
    /// Slots moved, of all tenants.
    pub moves: usize,
    /// Migrations they took.
    pub migrations: usize,
    /// Nodes moved from busy hosts.
    pub evictions: usize,
    /// Most nodes that the tenant in focus had.
    pub nodes_max: usize,
    /// Tenants that had requests waiting for more than 10 s at a stretch.
    pub starved: usize,
    /// The longest stretch.
    pub starved_s_max: f64,
    /// Requests of all tenants that were given up.
    pub failed: u64,
    /// Fewest nodes in the warm pool.
    pub pool_min: usize,
    /// Decisions that the pool was too small for.
    pub pool_empty: usize,
    /// Decisions that no host had room for.
    pub hosts_full: usize,
    /// The longest time that a host used all it has.
    pub host_full_s_max: f64,
    /// The highest heat of a host for the mean, at the end.
    pub heat_max_over_mean: f64,
    /// What the tenant's nodes cost, against a cluster that has the peak's size all the time..
    pub cost_ratio: f64,
    /// ..and with the whole warm pool added, which serves all tenants.
    pub cost_ratio_with_pool: f64,
    /// Of all that happened, in order: the same run has the same.
    pub trace: String,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every tick.
    pub samples: Vec<Sample>,
    /// The figures.
    pub summary: Summary,
    pub(super) evictions: usize,
    pub(super) pool_empty: usize,
    pub(super) hosts_full: usize,
    trace: u64,
    starved: Vec<bool>,
    /// Since when latency has been above its bound.
    over_since_s: Option<f64>,
    /// What a cluster sized for the peak takes.
    fixed_hosts: f64,
}

impl Report {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let focus = scenario.tenant.iter().find(|tenant| tenant.focus);
        Self {
            samples: Vec::new(),
            summary: Summary {
                scenario: scenario.name.clone(),
                seed,
                hosts: scenario.hosts.count,
                tenants: scenario.tenant.iter().map(|tenant| tenant.count).sum(),
                peak_rps: focus.map_or(0.0, |tenant| peak_rps(scenario, tenant)),
                p99_ms_bound: focus.map_or(0.0, |tenant| tenant.p99_ms),
                pool_min: scenario.pool.nodes,
                ..Summary::default()
            },
            evictions: 0,
            pool_empty: 0,
            hosts_full: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            starved: vec![false; scenario.tenant.iter().map(|tenant| tenant.count).sum()],
            over_since_s: None,
            fixed_hosts: focus.map_or(0.0, |tenant| fixed_hosts(scenario, tenant)),
        }
    }

    /// Folds what happened into the trace (FNV-1a).
    pub(super) fn trace(&mut self, time: u64, number: u64, event: &str) {
        for byte in time
            .to_le_bytes()
            .iter()
            .chain(&number.to_le_bytes())
            .chain(event.as_bytes())
        {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn moved(&mut self, slots: usize) {
        self.summary.moves += slots;
        self.summary.migrations += 1;
    }

    pub(super) fn add(&mut self, scenario: &Scenario, world: &World, sample: Sample) {
        let sample = Sample {
            hosts_fixed: self.fixed_hosts,
            ..sample
        };
        let summary = &mut self.summary;
        summary.reached_rps = summary.reached_rps.max(sample.served_rps);
        summary.p50_ms_max = summary.p50_ms_max.max(sample.p50_ms);
        summary.p99_ms_max = summary.p99_ms_max.max(sample.p99_ms);
        summary.nodes_max = summary.nodes_max.max(sample.nodes);
        summary.pool_min = summary.pool_min.min(world.pool);
        if sample.p99_ms > summary.p99_ms_bound {
            let since = *self.over_since_s.get_or_insert(sample.t_s);
            let lasted = sample.t_s + scenario.tick_s - since;
            summary.p99_recovery_s_max = summary.p99_recovery_s_max.max(lasted);
        } else {
            self.over_since_s = None;
        }
        for (tenant, starved) in world.tenants.iter().zip(&mut self.starved) {
            for since in tenant.shards.iter().filter_map(|shard| shard.short_since_s) {
                let lasted = world.now_s + scenario.tick_s - since;
                summary.starved_s_max = summary.starved_s_max.max(lasted);
                *starved |= lasted > STARVED_AFTER_S;
            }
        }
        for since in world.hosts.iter().filter_map(|host| host.full_since_s) {
            let lasted = world.now_s + scenario.tick_s - since;
            summary.host_full_s_max = summary.host_full_s_max.max(lasted);
        }
        let bits = [sample.served_rps, sample.capacity_rps, sample.p99_ms].map(f64::to_bits);
        self.samples.push(sample);
        self.trace(bits[0], bits[1], &bits[2].to_string());
    }

    pub(super) fn end(&mut self, scenario: &Scenario, world: &World) {
        let doubling_s_max = self.doubling_s_max();
        let pool = scenario.pool.nodes as f64 * scenario.node_share();
        let used: f64 = self.samples.iter().map(|sample| sample.hosts_used).sum();
        let fixed: f64 = self.samples.iter().map(|sample| sample.hosts_fixed).sum();
        let last = self.samples.last().copied().unwrap_or_default();
        let summary = &mut self.summary;
        let reached = summary.peak_rps * REACHED;
        let mut first = self
            .samples
            .iter()
            .filter(|sample| sample.served_rps >= reached);
        summary.reached_at_s = first.next().map(|sample| sample.t_s);
        summary.doubling_s_max = doubling_s_max;
        summary.evictions = self.evictions;
        summary.pool_empty = self.pool_empty;
        summary.hosts_full = self.hosts_full;
        summary.starved = self.starved.iter().filter(|starved| **starved).count();
        summary.failed = bytes_of(world.tenants.iter().map(|tenant| tenant.failed).sum());
        summary.heat_max_over_mean = last.heat_max / last.heat_mean.max(f64::MIN_POSITIVE);
        summary.cost_ratio = used / fixed.max(f64::MIN_POSITIVE);
        let pooled = used + pool * self.samples.len() as f64;
        summary.cost_ratio_with_pool = pooled / fixed.max(f64::MIN_POSITIVE);
        summary.trace = format!("{:016x}", self.trace);
    }

    /// The longest time between capacity first being at a power of two of what it was when demand
    /// came, and at the next; the last one is the first above the peak of demand.
    fn doubling_s_max(&self) -> f64 {
        let begun = |sample: &&Sample| sample.demand_rps > self.summary.peak_rps * 0.005;
        let Some(first) = self.samples.iter().find(begun) else {
            return 0.0;
        };
        let (mut since, mut next, mut longest) = (first.t_s, first.capacity_rps * 2.0, 0.0_f64);
        for sample in self.samples.iter().filter(|sample| sample.t_s > first.t_s) {
            if next / 2.0 >= self.summary.peak_rps {
                break;
            }
            if sample.capacity_rps >= next {
                longest = longest.max(sample.t_s - since);
                since = sample.t_s;
                while next <= sample.capacity_rps {
                    next *= 2.0;
                }
            }
        }
        longest
    }

    /// Every tick as a line of comma-separated values.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "t_s,demand_rps,served_rps,capacity_rps,p50_ms,p99_ms,shards,nodes,migrations,evictions,\
             pool,heat_mean,heat_max,hosts_used,hosts_fixed\n",
        );
        for s in &self.samples {
            let _ = writeln!(
                text,
                "{},{:.0},{:.0},{:.0},{:.4},{:.4},{},{},{},{},{},{:.4},{:.4},{:.3},{:.3}",
                s.t_s,
                s.demand_rps,
                s.served_rps,
                s.capacity_rps,
                s.p50_ms,
                s.p99_ms,
                s.shards,
                s.nodes,
                s.migrations,
                s.evictions,
                s.pool,
                s.heat_mean,
                s.heat_max,
                s.hosts_used,
                s.hosts_fixed
            );
        }
        text
    }
}

impl Scenario {
    /// Ticks of a whole run.
    #[must_use]
    pub fn samples(&self) -> usize {
        usize::try_from(bytes_of((self.duration_s / self.tick_s).floor())).unwrap_or(usize::MAX - 1)
            + 1
    }

    /// Nodes that a host has memory for.
    pub(super) fn nodes_per_host(&self) -> usize {
        let nodes = (self.hosts.memory_gib / self.node.memory_gib).floor();
        usize::try_from(bytes_of(nodes)).unwrap_or(usize::MAX)
    }

    /// The share of a host that a node has reserved.
    fn node_share(&self) -> f64 {
        let cpus = self.node.cpus_reserved / self.hosts.cpus;
        cpus.max(self.node.memory_gib / self.hosts.memory_gib)
    }
}

/// The highest demand that the tenant's curves come to.
fn peak_rps(scenario: &Scenario, tenant: &TenantSpec) -> f64 {
    let (mut peak, mut t) = (0.0_f64, 0.0);
    while t < scenario.duration_s {
        peak = peak.max(tenant.demand_at(t));
        t += scenario.tick_s;
    }
    peak
}

/// What a cluster takes that is sized for the peak: nodes of the full size, replicas of the same, none
/// of which may be used beyond the share that is planned with.
fn fixed_hosts(scenario: &Scenario, tenant: &TenantSpec) -> f64 {
    let node = &scenario.node;
    let peak = peak_rps(scenario, tenant);
    let cpus = node.cpus_reserved * node.growth_in_place;
    let by_load = peak / (node.rps_per_cpu * cpus * node.use_max);
    let by_bytes = tenant.gib * tenant.shards as f64 / (node.memory_gib * node.use_max);
    let shards = by_load.max(by_bytes).ceil().max(tenant.shards as f64);
    let share = (cpus / scenario.hosts.cpus).max(node.memory_gib / scenario.hosts.memory_gib);
    shards * (1 + node.replicas) as f64 * share
}
