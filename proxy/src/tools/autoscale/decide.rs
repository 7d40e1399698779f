//! How many nodes, and which of them go. Pure, but for what it remembers between two looks.

use std::collections::{BTreeMap, BTreeSet};

use heat::{BalanceRules, Balancer, Change, Forecast, Plan, ScaleRules, ScaleView, Scaler};
use topology::{NodeId, Slot};

use crate::{
    config::Autoscale,
    fleet::{Board, Load, NodeRate, Source, View},
};

/// How fast the load of a slot follows what is measured: moves shall not run after every wave.
const FOLLOW_S: f64 = 30.0;
/// Unevenness counts when the busiest node has more than this of what it may have; an idle cluster
/// is uneven by chance.
const BUSY_FROM: f64 = 0.5;
/// Moves begin and end further from the mean than on paper: what is measured wavers.
const BEGIN_OFF: f64 = 1.3;
const END_OFF: f64 = 1.1;

/// What to do, and the figures behind it.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) change: Change,
    pub(super) plan: Plan,
    pub(super) board: Board,
    pub(super) seen: ScaleView,
    /// Nodes that `seen` needs, with headroom.
    pub(super) needed: usize,
}

/// Decides; remembers load.
pub(super) struct Decider {
    rules: ScaleRules,
    balance: BalanceRules,
    ahead_s: f64,
    ops: bool,
    scaler: Scaler,
    forecast: Forecast,
    balancer: Balancer,
    slots: Vec<f64>,
}

impl Decider {
    pub(super) fn new(config: &Autoscale) -> Self {
        Self {
            rules: rules(config),
            // Jobs are cut by their keys later: a move may be all that goes between two nodes.
            balance: BalanceRules {
                begin_off: BEGIN_OFF,
                end_off: END_OFF,
                slots_per_move: usize::from(Slot::COUNT),
                ..BalanceRules::default()
            },
            ahead_s: config.ahead.as_secs_f64(),
            ops: config.node_ops_max.is_some(),
            scaler: Scaler::default(),
            forecast: Forecast::default(),
            balancer: Balancer::default(),
            slots: Vec::new(),
        }
    }

    /// `now_s` counts from a midnight; `leaving` are being emptied.
    pub(super) fn decide(
        &mut self,
        now_s: f64,
        view: &View,
        mut load: Load,
        leaving: &BTreeSet<NodeId>,
    ) -> Decision {
        self.smooth(&mut load);
        let board = Board::new(view, &load, leaving);
        let (rates, ops) = (|| load.nodes.iter(), self.ops);
        let of = |rate: &NodeRate| if ops { rate.ops } else { rate.cores };
        let total: f64 = rates().map(|(_, rate)| of(rate)).sum();
        let staying: Vec<f64> = rates()
            .filter(|(id, _)| !leaving.contains(id))
            .map(|(_, rate)| of(rate))
            .collect();
        self.forecast.observe(now_s, total);
        if let Some(bound) = rates()
            .map(|(_, rate)| rate.bytes_max)
            .filter(|max| *max > 0)
            .min()
        {
            self.rules.node_bytes_max = self.rules.node_bytes_max.min(bound);
        }
        let busiest = staying.iter().copied().fold(0.0, f64::max);
        let unserved = view
            .primaries()
            .any(|peer| peer.slots.is_empty() != leaving.contains(&peer.id));
        let plan = if unserved || busiest > self.carries(1) * BUSY_FROM {
            self.balancer
                .plan(&board.nodes, &board.slots, &self.balance)
        } else {
            Plan::default()
        };
        let changing = !leaving.is_empty() || !plan.moves.is_empty();
        // Unevenness that moves will cure is no reason for more nodes; some of it stays.
        let skew = if changing { 1.0 } else { skew(&staying) };
        let seen = ScaleView {
            now_s,
            nodes: staying.len(),
            // Smoothed: one busy moment is no reason for a node.
            load: self.forecast.level(),
            expected: self.forecast.expect(self.ahead_s),
            skew: skew.max(self.balance.end_off),
            bytes: rates().map(|(_, rate)| rate.bytes).sum(),
            changing,
        };
        Decision {
            change: self.scaler.decide(&seen, &self.rules).change,
            needed: self.rules.nodes_for(&seen),
            plan,
            board,
            seen,
        }
    }

    fn smooth(&mut self, load: &mut Load) {
        if load.source == Source::Cpu {
            let past = (-load.over.as_secs_f64() / FOLLOW_S).exp();
            for (now, before) in load.slots.iter_mut().zip(&self.slots) {
                *now += past * (before - *now);
            }
        }
        self.slots.clone_from(&load.slots);
    }

    /// What all the nodes can carry, in the unit of the load.
    pub(super) fn carries(&self, nodes: usize) -> f64 {
        nodes as f64 * self.rules.node_load_max * self.rules.use_max
    }
}

fn rules(config: &Autoscale) -> ScaleRules {
    let percent = |percent: usize| percent as f64 / 100.0;
    let ops = config.node_ops_max.map(|ops| ops as f64);
    ScaleRules {
        node_load_max: ops.unwrap_or(percent(config.node_cpu_percent_max)),
        node_bytes_max: config
            .node_memory_bytes_max
            .map_or(u64::MAX, |bytes| bytes as u64),
        use_max: percent(config.use_percent_max),
        headroom: percent(config.headroom_percent),
        headroom_min: percent(config.headroom_min_percent),
        // Nodes here are as big as they are.
        size_max: 1.0,
        nodes_min: config.shards_min,
        nodes_max: config.shards_max,
        growth_max: 2.0,
        growth_period_s: config.growth_period.as_secs_f64(),
        shrink_below: percent(config.shrink_below_percent),
        shrink_after_s: config.shrink_after.as_secs_f64(),
    }
}

/// Load of the busiest for the mean.
fn skew(loads: &[f64]) -> f64 {
    let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    let most = loads.iter().copied().fold(0.0, f64::max);
    if mean > 0.0 { most / mean } else { 1.0 }
}

/// Whom a run before this one was giving back, by what it left: nodes of the pool with less than half
/// of a share, when there are more nodes than needed. With load for all of them they were coming.
pub(super) fn was_leaving(
    slots: &BTreeMap<NodeId, usize>,
    pool: &BTreeSet<NodeId>,
    nodes: usize,
    needed: usize,
) -> BTreeSet<NodeId> {
    let half = usize::from(Slot::COUNT) / nodes.max(1) / 2;
    let mut few: Vec<(usize, NodeId)> = slots
        .iter()
        .filter(|(id, slots)| pool.contains(id) && **slots < half)
        .map(|(id, slots)| (*slots, *id))
        .collect();
    few.sort_unstable();
    few.into_iter()
        .take(nodes.saturating_sub(needed))
        .map(|(_, id)| id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::parse(format!("{number:040}").as_bytes()).unwrap()
    }

    #[test]
    fn who_was_leaving_is_told_by_what_is_left() {
        let slots = BTreeMap::from([(id(1), 8000), (id(2), 7384), (id(3), 1000), (id(4), 0)]);
        let pool = BTreeSet::from([id(2), id(3), id(4)]);
        let leaving = |needed| was_leaving(&slots, &pool, 4, needed);
        assert_eq!(leaving(4), BTreeSet::new(), "they were coming");
        assert_eq!(leaving(3), BTreeSet::from([id(4)]));
        assert_eq!(leaving(1), BTreeSet::from([id(3), id(4)]));
        let others = BTreeSet::from([id(1)]);
        assert_eq!(
            was_leaving(&slots, &others, 4, 1),
            BTreeSet::new(),
            "not of the pool"
        );
    }

    #[test]
    fn rules_are_in_the_unit_that_is_configured() {
        let by_cpu = rules(&Autoscale::default());
        assert!((by_cpu.node_load_max - 1.0).abs() < 1e-9);
        let by_ops = rules(&Autoscale {
            node_ops_max: Some(50_000),
            ..Autoscale::default()
        });
        assert!((by_ops.node_load_max - 50_000.0).abs() < 1e-9);
        assert_eq!(skew(&[]), 1.0);
        assert!((skew(&[1.0, 3.0]) - 1.5).abs() < 1e-9);
    }
}
