//! The control plane: looks at the world every so often and decides with `heat`; knows nothing that it
//! was not told, and can be started again from its log.

use heat::{
    BalanceRules, Balancer, Change, Forecast, NodeLoad, Plan, ScaleRules, ScaleView, Scaler,
    SlotLoad,
};

use super::scenario::{Scenario, TenantSpec};

/// What slots are uneven by and demand wavers by, for those who were there before the beginning.
const SKEW_FIRST: f64 = 1.2;

/// What the control plane knows of a tenant from one time to the next.
#[derive(Clone, Debug, Default, PartialEq)]
struct Memory {
    forecast: Forecast,
    scaler: Scaler,
    balancer: Balancer,
}

/// What it was told and what came of it: enough to know again what it knew.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    tenant: usize,
    /// As it was told, without what to expect.
    seen: ScaleView,
    balancer: Balancer,
}

/// The control plane.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Control {
    rules: Vec<ScaleRules>,
    balance: BalanceRules,
    ahead_s: f64,
    tenants: Vec<Memory>,
    log: Option<Vec<Entry>>,
}

/// What it is told of a tenant.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `expected` is for the control plane to fill in.
    pub(super) view: ScaleView,
    pub(super) nodes: Vec<NodeLoad>,
    pub(super) slots: Vec<SlotLoad>,
}

impl Control {
    /// Knows nothing yet. `kinds` has the kind of every tenant. With a log it can be started again.
    pub(super) fn new(scenario: &Scenario, kinds: &[usize], logs: bool) -> Self {
        let kind = |kind: &usize| scenario.tenant.get(*kind);
        let rules = kinds.iter().filter_map(kind);
        Self {
            rules: rules.map(|kind| scale_rules(scenario, kind)).collect(),
            balance: BalanceRules {
                moves_per_node: scenario.moves.per_node,
                slots_per_move: scenario.moves.slots,
                ..BalanceRules::default()
            },
            ahead_s: scenario.scaling.ahead_s,
            tenants: vec![Memory::default(); kinds.len()],
            log: logs.then(Vec::new),
        }
    }

    /// Shards that carry this load and these bytes.
    pub(super) fn enough(&self, tenant: usize, load: f64, bytes: u64) -> usize {
        let view = ScaleView {
            now_s: 0.0,
            nodes: 1,
            load,
            expected: load,
            skew: SKEW_FIRST,
            bytes,
            changing: false,
        };
        self.rules
            .get(tenant)
            .map_or(1, |rules| rules.nodes_for(&view))
    }

    /// The same after its process has died: a new one that reads the log.
    #[cfg(test)]
    pub(super) fn restarted(&self, scenario: &Scenario, kinds: &[usize]) -> Self {
        let mut new = Self::new(scenario, kinds, true);
        for entry in self.log.iter().flatten() {
            new.scale(entry.tenant, entry.seen.clone());
            if let Some(memory) = new.tenants.get_mut(entry.tenant) {
                memory.balancer = entry.balancer.clone();
            }
            new.log.get_or_insert_default().push(entry.clone());
        }
        new
    }

    /// Decides for a tenant: which slots move, and how many nodes there should be.
    pub(super) fn decide(&mut self, tenant: usize, seen: Seen) -> (Change, Plan) {
        let Some(memory) = self.tenants.get_mut(tenant) else {
            return (Change::Hold, Plan::default());
        };
        let plan = if seen.nodes.len() > 1 {
            let balancer = &mut memory.balancer;
            balancer.plan(&seen.nodes, &seen.slots, &self.balance)
        } else {
            Plan::default()
        };
        let balancer = memory.balancer.clone();
        let mut view = seen.view;
        // Unevenness that moves will cure is no reason for more nodes.
        if view.changing || !plan.moves.is_empty() {
            (view.changing, view.skew) = (true, 1.0);
        }
        // Some of it stays after all moves.
        view.skew = view.skew.max(self.balance.end_off);
        let change = self.scale(tenant, view.clone());
        if let Some(log) = &mut self.log {
            log.push(Entry {
                tenant,
                seen: view,
                balancer,
            });
        }
        (change, plan)
    }

    fn scale(&mut self, tenant: usize, mut view: ScaleView) -> Change {
        let (Some(memory), Some(rules)) = (self.tenants.get_mut(tenant), self.rules.get(tenant))
        else {
            return Change::Hold;
        };
        memory.forecast.observe(view.now_s, view.load);
        view.expected = memory.forecast.expect(self.ahead_s);
        memory.scaler.decide(&view, rules).change
    }
}

fn scale_rules(scenario: &Scenario, kind: &TenantSpec) -> ScaleRules {
    let (node, scaling) = (&scenario.node, &scenario.scaling);
    ScaleRules {
        node_load_max: node.rps_per_cpu * node.cpus_reserved * node.growth_in_place,
        node_bytes_max: super::world::bytes_of(node.memory_gib * (1_u64 << 30) as f64),
        use_max: node.use_max,
        headroom: scaling.headroom,
        headroom_min: scaling.headroom_min,
        size_max: node.growth_in_place,
        nodes_min: kind.shards,
        nodes_max: kind.slots.min(super::SHARDS_MAX),
        growth_max: scaling.growth_max,
        growth_period_s: scaling.growth_period_s,
        shrink_below: scaling.shrink_below,
        shrink_after_s: scaling.shrink_after_s,
    }
}
