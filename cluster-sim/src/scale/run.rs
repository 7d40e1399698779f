//! The run: events in the order of their times, and what each of them does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use heat::{
    Change, Chooser, EvictionRules, NodeLoad, Plan, Policy, Rng, ScaleView, SlotLoad, SlotMove,
};

use super::control::{Control, Seen};
use super::report::{Report, Sample};
use super::scenario::Scenario;
use super::world::{Migration, NodeState, Shard, ShardState, World, bytes_of};

/// Things that happen. Times are in microseconds, so that they have an order without rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    Control,
    ShardAttached { tenant: usize, shard: usize },
    SlotsMoved { migration: usize },
    NodeMoved { node: usize, to: usize },
    PoolFilled,
    SlotsGetHot { tenant: usize },
}

/// What to do besides running.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks {
    /// Hold the invariants against the world after every event that changes it.
    pub always: bool,
    /// Kill the control plane at this time, and start it again from its log.
    #[cfg(test)]
    pub(super) restart_at_s: Option<f64>,
}

/// A run under way.
pub(super) struct Run<'a> {
    scenario: &'a Scenario,
    pub(super) world: World,
    control: Control,
    checks: Checks,
    kinds: Vec<usize>,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events: u64,
    /// Demand, and chance in decisions: apart, so that a decision does not change what comes.
    demand_rng: Rng,
    choice_rng: Rng,
    focus: usize,
    report: Report,
}

fn us(seconds: f64) -> u64 {
    bytes_of(seconds * 1e6)
}

impl<'a> Run<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64, checks: Checks) -> anyhow::Result<Self> {
        let rng = Rng::new(seed);
        let mut begin_rng = rng.fork(1);
        let mut world = World::new(scenario);
        let mut kinds = Vec::new();
        let mut focus = 0;
        for (spec, kind) in scenario.tenant.iter().enumerate() {
            for _ in 0..kind.count {
                let added = world.add_tenant(scenario, spec, &mut begin_rng);
                focus = if kind.focus {
                    added.unwrap_or(0)
                } else {
                    focus
                };
                kinds.push(spec);
            }
        }
        #[cfg(test)]
        let logs = checks.restart_at_s.is_some();
        #[cfg(not(test))]
        let logs = false;
        let mut run = Self {
            control: Control::new(scenario, &kinds, logs),
            report: Report::new(scenario, seed),
            scenario,
            world,
            checks,
            kinds,
            queue: BinaryHeap::new(),
            events: 0,
            demand_rng: rng.fork(2),
            choice_rng: begin_rng.fork(3),
            focus,
        };
        run.place_first_nodes()?;
        for tenant in 0..run.kinds.len() {
            let kind = run
                .kinds
                .get(tenant)
                .and_then(|kind| scenario.tenant.get(*kind));
            if let Some(hot) = kind.and_then(|kind| kind.hot.as_ref()) {
                run.at(hot.at_s, Event::SlotsGetHot { tenant });
            }
        }
        run.at(0.0, Event::Tick);
        run.at(scenario.control_s, Event::Control);
        Ok(run)
    }

    /// Runs to the end; every tick is shown.
    pub(super) fn finish(
        mut self,
        mut show: impl FnMut(&Report) -> anyhow::Result<()>,
    ) -> anyhow::Result<Report> {
        let end = us(self.scenario.duration_s);
        while let Some(Reverse((time, number, event))) = self.queue.pop() {
            if time > end {
                break;
            }
            self.world.now_s = time as f64 / 1e6;
            self.report.trace(time, number, &format!("{event:?}"));
            self.happen(event);
            if event == Event::Tick {
                show(&self.report)?;
            }
            if self.checks.always || event == Event::Control {
                self.world.check(self.scenario)?;
            }
        }
        self.report.end(self.scenario, &self.world);
        Ok(self.report)
    }

    fn at(&mut self, seconds: f64, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((us(seconds), self.events, event)));
    }

    fn after(&mut self, seconds: f64, event: Event) {
        self.at(self.world.now_s + seconds, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.world.tick(self.scenario, &mut self.demand_rng);
                let sample = Sample::take(self.scenario, &self.world, self.focus);
                self.report.add(self.scenario, &self.world, sample);
                self.world.end_pauses();
                self.after(self.scenario.tick_s, Event::Tick);
            }
            Event::Control => {
                self.restart_control();
                (0..self.kinds.len()).for_each(|tenant| self.govern(tenant));
                self.evict();
                self.after(self.scenario.control_s, Event::Control);
            }
            Event::ShardAttached { tenant, shard } => self.world.open_shard(tenant, shard),
            Event::SlotsMoved { migration } => self.report.moved(self.world.arrive_at(migration)),
            Event::NodeMoved { node, to } => {
                self.world.settle(node, to);
                self.report.evictions += 1;
            }
            Event::SlotsGetHot { tenant } => {
                self.world
                    .heat_up(self.scenario, tenant, &mut self.demand_rng);
            }
            Event::PoolFilled => {
                self.world.pool_coming -= 1;
                self.world.pool += 1;
            }
        }
    }

    #[cfg(not(test))]
    fn restart_control(&mut self) {}

    #[cfg(test)]
    fn restart_control(&mut self) {
        if self
            .checks
            .restart_at_s
            .is_some_and(|at| self.world.now_s >= at)
        {
            let restarted = self.control.restarted(self.scenario, &self.kinds);
            assert_eq!(restarted, self.control, "it does not know what it knew");
            self.control = restarted;
            self.checks.restart_at_s = None;
        }
    }

    /// What is there in the beginning has the size that its demand needs, as if it had long been there,
    /// and stands on hosts chosen as later ones are.
    fn place_first_nodes(&mut self) -> anyhow::Result<()> {
        for tenant in 0..self.world.tenants.len() {
            let kind = self
                .kinds
                .get(tenant)
                .and_then(|kind| self.scenario.tenant.get(*kind));
            let demand = kind.map_or(0.0, |kind| kind.demand_at(0.0));
            let load = demand * self.world.tenants[tenant].size;
            let enough = self
                .control
                .enough(tenant, load, self.world.tenants[tenant].bytes);
            self.world.split_evenly(tenant, enough);
            for shard in 0..self.world.tenants[tenant].shards.len() {
                let placed = self.place(tenant, shard);
                anyhow::ensure!(
                    placed,
                    "the hosts have no room for the nodes of the beginning"
                );
                self.world.open_shard(tenant, shard);
            }
        }
        Ok(())
    }

    /// Finds hosts for a shard's nodes, each in a zone of its own, and puts them there.
    fn place(&mut self, tenant: usize, shard: usize) -> bool {
        let zones = self.scenario.hosts.zones;
        let rules = self.eviction_rules();
        let mut hosts = Vec::new();
        for member in 0..=self.scenario.node.replicas {
            let zone = (tenant + shard + member) % zones;
            let Some(host) = self.two_choices(zone, &rules) else {
                return false;
            };
            hosts.push(host);
        }
        for host in hosts {
            self.world.add_node(tenant, shard, host);
        }
        true
    }

    /// The less busy of two random hosts with room, as [`Chooser::destination`] without a copy of all
    /// hosts for every node; where few have room, the least busy of those.
    fn two_choices(&mut self, zone: usize, rules: &EvictionRules) -> Option<usize> {
        let mut drawn: Vec<usize> = Vec::with_capacity(2);
        for _ in 0..rules.draws_max * self.scenario.hosts.zones {
            let host = self.choice_rng.below(self.world.hosts.len());
            if drawn.len() < 2 && self.has_room(host, zone, rules) {
                drawn.push(host);
            }
        }
        // In the beginning all are cold: nodes count then.
        let heat = |host: usize| {
            let nodes = self.world.nodes_at(host) as f64;
            self.world.heat_of(self.scenario, host) + nodes * 1e-6
        };
        let cooler = |a: &usize, b: &usize| heat(*a).total_cmp(&heat(*b)).then(a.cmp(b));
        drawn.into_iter().min_by(cooler).or_else(|| {
            let hosts = 0..self.world.hosts.len();
            hosts
                .filter(|host| self.has_room(*host, zone, rules))
                .min_by(cooler)
        })
    }

    fn has_room(&self, host: usize, zone: usize, rules: &EvictionRules) -> bool {
        self.world.hosts[host].zone == zone
            && self.world.nodes_at(host) < self.scenario.nodes_per_host()
            && self.world.heat_of(self.scenario, host) <= rules.full_above
    }

    fn eviction_rules(&self) -> EvictionRules {
        EvictionRules {
            busy_above: self.scenario.hosts.busy_above,
            full_above: self.scenario.hosts.full_above,
            moves_per_host: self.scenario.moves.per_host,
            ..EvictionRules::default()
        }
    }

    /// Tells the control plane of a tenant and does what it decides.
    fn govern(&mut self, tenant: usize) {
        let shards: Vec<usize> = self
            .world
            .shards_of(tenant)
            .map(|(shard, _)| shard)
            .collect();
        let seen = self.look_at(tenant, &shards);
        let changing = seen.view.changing;
        let (change, plan) = self.control.decide(tenant, seen);
        debug_assert!(
            !(changing && matches!(change, Change::In(_))),
            "shards are given back while others come"
        );
        match change {
            Change::Out(more) => self.grow(tenant, more),
            Change::In(fewer) => self.world.leave(tenant, fewer),
            Change::Hold => {}
        }
        self.begin_moves(tenant, &shards, plan);
        self.world.close_empty(tenant);
    }

    fn look_at(&self, tenant: usize, shards: &[usize]) -> Seen {
        let world = &self.world;
        let row = &world.tenants[tenant];
        let capacity = world.capacity(self.scenario, tenant);
        let held = self.scenario.node.memory_gib * self.scenario.node.use_max;
        let node = |&shard: &usize| {
            let shard = &row.shards[shard];
            // One whose nodes are being moved has no place for slots on the move.
            let settled = shard
                .nodes
                .iter()
                .all(|&node| world.nodes[node].state == NodeState::Serving);
            NodeLoad {
                capacity: if shard.state == ShardState::Leaving {
                    0.0
                } else {
                    1.0
                },
                bytes_max: bytes_of(held * (1_u64 << 30) as f64),
                moves: if settled { shard.moves } else { usize::MAX },
            }
        };
        // Those that are not there yet are not planned with.
        let open: Vec<usize> = shards
            .iter()
            .copied()
            .filter(|&s| row.shards[s].is_open())
            .collect();
        let mut index = vec![0; row.shards.len()];
        for (place, shard) in open.iter().enumerate() {
            if let Some(index) = index.get_mut(*shard) {
                *index = place;
            }
        }
        let place = |shard: usize| index.get(shard).copied().unwrap_or_default();
        let changing = shards.iter().any(|&shard| {
            row.shards[shard].state != ShardState::Serving || row.shards[shard].moves > 0
        });
        let counted = |shard: &&usize| row.shards[**shard].state != ShardState::Leaving;
        let slot = |slot: &super::world::SlotRow| SlotLoad {
            owner: place(slot.bound_for.unwrap_or(slot.shard)),
            load: slot.weight * row.demand_rps,
            bytes: slot.bytes,
            moving: slot.bound_for.is_some(),
        };
        let many = open.len() > 1;
        Seen {
            view: ScaleView {
                now_s: world.now_s,
                nodes: shards.iter().filter(counted).count(),
                load: row.demand_rps,
                expected: row.demand_rps,
                skew: capacity.skew,
                bytes: row.bytes,
                changing,
            },
            nodes: open.iter().map(node).collect(),
            slots: if many {
                row.slots.iter().map(slot).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// Takes nodes from the warm pool for so many more shards, as far as it has them.
    fn grow(&mut self, tenant: usize, more: usize) {
        let each = 1 + self.scenario.node.replicas;
        for _ in 0..more {
            if self.world.pool < each {
                self.report.pool_empty += 1;
                return;
            }
            let shard = self.world.tenants[tenant].shards.add(Shard::new());
            if !self.place(tenant, shard) {
                self.world.close_shard(tenant, shard);
                self.report.hosts_full += 1;
                return;
            }
            self.world.pool -= each;
            self.world.pool_coming += each;
            for _ in 0..each {
                self.after(self.scenario.pool.provision_s, Event::PoolFilled);
            }
            self.after(
                self.scenario.pool.attach_s,
                Event::ShardAttached { tenant, shard },
            );
        }
    }

    /// Begins the migrations of a plan that the hosts have places for; the others are planned again.
    fn begin_moves(&mut self, tenant: usize, shards: &[usize], plan: Plan) {
        let row = &self.world.tenants[tenant];
        let open: Vec<usize> = shards
            .iter()
            .copied()
            .filter(|&s| {
                row.shards[s].state != ShardState::Coming && !row.shards[s].nodes.is_empty()
            })
            .collect();
        for planned in plan.moves {
            let (Some(&from), Some(&to)) = (open.get(planned.from), open.get(planned.to)) else {
                continue;
            };
            self.begin_move(tenant, from, to, planned);
        }
    }

    fn begin_move(&mut self, tenant: usize, from: usize, to: usize, planned: SlotMove) {
        let host_of = |shard: usize| {
            let primary = self.world.tenants[tenant].shards[shard].nodes.first();
            primary.map(|&node| self.world.nodes[node].host)
        };
        let (Some(a), Some(b)) = (host_of(from), host_of(to)) else {
            return;
        };
        // Both ends on one host take two places.
        let most = self.scenario.moves.per_host - usize::from(a == b);
        if [a, b]
            .iter()
            .any(|&host| self.world.hosts[host].moves >= most)
        {
            return;
        }
        let takes_s = self.transfer_s(planned.bytes as f64, [a, b]);
        let migration = self.world.depart(Migration {
            tenant,
            from,
            to,
            slots: planned.slots,
            hosts: [a, b],
            done: false,
        });
        self.after(takes_s, Event::SlotsMoved { migration });
    }

    /// The time for so many bytes between two hosts: a stream's own limit, or what their networks have
    /// left for it beside requests and the other streams.
    fn transfer_s(&self, bytes: f64, hosts: [usize; 2]) -> f64 {
        let network = self.scenario.hosts.network_gbit * 1e9 / 8.0;
        let own = self.scenario.moves.mbyte_per_s * 1e6;
        let spare = hosts.map(|host| {
            let host = &self.world.hosts[host];
            (network - host.bytes_per_s).max(network * 0.05) / (host.moves + 1) as f64
        });
        let rate = spare.into_iter().fold(own, f64::min);
        self.scenario.moves.fixed_s + bytes / rate
    }

    /// Nodes leave busy hosts.
    fn evict(&mut self) {
        let rules = self.eviction_rules();
        let hosts = self.world.heat(self.scenario);
        let chooser = Chooser {
            policy: Policy::TwoChoices,
            rules: &rules,
        };
        let world = &self.world;
        let apart = |node: usize, host: usize| {
            let node = &world.nodes[node];
            world.apart(node.tenant, node.shard, host)
        };
        let evictions = chooser.evictions(&hosts, &mut self.choice_rng, apart);
        for eviction in evictions {
            let row = &self.world.nodes[eviction.node];
            let shard = &self.world.tenants[row.tenant].shards[row.shard];
            // Two of one shard at once would be too many away.
            if shard
                .nodes
                .iter()
                .any(|&n| self.world.nodes[n].state != NodeState::Serving)
            {
                continue;
            }
            let takes_s = self.transfer_s(shard.bytes as f64, [eviction.from, eviction.to]);
            self.world.set_out(eviction.node, eviction.to);
            self.after(
                takes_s,
                Event::NodeMoved {
                    node: eviction.node,
                    to: eviction.to,
                },
            );
        }
    }
}
