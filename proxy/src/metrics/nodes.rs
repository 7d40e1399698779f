//! What nodes say that they have done, each with series of its own.
//!
//! Owns the counts as they were told last. Never here: who asks nodes, and when.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::proto::{Counter, Metric, MetricFamily, MetricType};

use super::{
    ControlMetrics,
    collector::{family, labelled},
};

/// Nodes with series of their own; the others are one.
const NODES_MAX: usize = 128;

/// What a node has done since it was started, as it counts itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeWork {
    /// Its address.
    pub node: String,
    /// Commands of all of its clients.
    pub commands: u64,
    /// The time that they took there.
    pub micros: u64,
}

/// Written by the thread that asks nodes.
#[derive(Debug, Default)]
pub(super) struct NodeFigures(Mutex<Vec<NodeWork>>);

impl NodeFigures {
    fn lock(&self) -> MutexGuard<'_, Vec<NodeWork>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn families(&self) -> [MetricFamily; 2] {
        let nodes = few(&self.lock());
        let of_nodes = |name: &str, help: &str, value: fn(&NodeWork) -> f64| {
            let metrics = nodes.iter().map(|work| {
                let mut counter = Counter::default();
                counter.set_value(value(work));
                let mut metric = labelled("node", &work.node);
                metric.set_counter(counter);
                metric
            });
            let metrics: Vec<Metric> = metrics.collect();
            family(name, help, MetricType::COUNTER, metrics)
        };
        [
            of_nodes(
                "keyway_node_commands_total",
                "Commands that a node says it has done, for all of its clients (INFO commandstats). Known while nodes are watched: with a read port, while clients read from replicas, or somebody looks at the status page.",
                |work| as_f64(work.commands),
            ),
            of_nodes(
                "keyway_node_command_seconds_total",
                "The time that a node says those commands took it; by keyway_node_commands_total, the mean.",
                |work| as_f64(work.micros) / 1e6,
            ),
        ]
    }
}

impl ControlMetrics {
    /// These are all the nodes that say what they have done, and what.
    pub fn nodes_worked(&self, nodes: Vec<NodeWork>) {
        *self.0.nodes.lock() = nodes;
    }
}

fn few(nodes: &[NodeWork]) -> Vec<NodeWork> {
    let (own, others) = nodes.split_at(nodes.len().min(NODES_MAX));
    let mut few = own.to_vec();
    let sum = others
        .iter()
        .fold(NodeWork::default(), |sum, one| NodeWork {
            node: "other".to_owned(),
            commands: sum.commands.saturating_add(one.commands),
            micros: sum.micros.saturating_add(one.micros),
        });
    few.extend((!others.is_empty()).then_some(sum));
    few
}

#[expect(clippy::cast_precision_loss, reason = "a metric's value is a double")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_nodes_have_few_series() {
        let one = |number: usize| NodeWork {
            node: format!("n{number}:1"),
            commands: 2,
            micros: 3,
        };
        let many: Vec<NodeWork> = (0..NODES_MAX + 5).map(one).collect();
        let shown = few(&many);
        assert_eq!(shown.len(), NODES_MAX + 1);
        let last = shown.last().unwrap();
        assert_eq!((&*last.node, last.commands, last.micros), ("other", 10, 15));
        assert_eq!(few(&many[..2]), many[..2]);
        assert!(few(&[]).is_empty());
    }
}
