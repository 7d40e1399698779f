//! Where the time of commands goes: three phases of those that are followed on their way.
//!
//! Owns the phases' counters of one worker, and their sums. Never here: which commands are followed,
//! and what a node itself says that they took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dataplane::Times;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::{
    Cells, Phase, WorkerMetrics, add, add_to,
    collector::{family, histogram, labelled},
};

/// Upper bounds of the buckets, in nanoseconds: from 5 microseconds to 1 s.
const BUCKETS_NS: [u64; 14] = [
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    1_000_000_000,
];

/// One worker's counters of one phase.
#[derive(Debug)]
pub(super) struct PhaseCells {
    buckets: [AtomicU64; BUCKETS_NS.len() + 1],
    sum_ns: AtomicU64,
    /// The same in finer steps, for quantiles of a few seconds.
    times: [AtomicU64; Times::BUCKETS],
}

impl Default for PhaseCells {
    fn default() -> Self {
        Self {
            buckets: Default::default(),
            sum_ns: AtomicU64::default(),
            times: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

/// What all workers have counted of one phase.
#[derive(Clone, Debug, Default)]
pub struct PhaseTotals {
    /// How long it took.
    pub times: Times,
    /// All of that together.
    pub sum_ns: u64,
}

impl WorkerMetrics {
    /// A command that was followed was in a phase for so long.
    pub fn phase(&self, phase: Phase, took: Duration) {
        let Some(cells) = self.cells.phases.get(phase as usize) else {
            return;
        };
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_NS.partition_point(|bound| *bound < nanos);
        add_to(&cells.buckets, bucket, 1);
        add(&cells.sum_ns, nanos);
        add_to(&cells.times, Times::bucket(nanos), 1);
    }
}

fn of_phase(cells: &[Arc<Cells>], phase: Phase) -> impl Iterator<Item = &PhaseCells> {
    let all = cells.iter();
    all.filter_map(move |cells| cells.phases.get(phase as usize))
}

fn sum_ns(cells: &[Arc<Cells>], phase: Phase) -> u64 {
    let sums = of_phase(cells, phase).map(|cells| cells.sum_ns.load(Relaxed));
    sums.sum()
}

pub(super) fn totals(cells: &[Arc<Cells>]) -> [PhaseTotals; Phase::COUNT] {
    let mut totals: [PhaseTotals; Phase::COUNT] = Default::default();
    for (into, phase) in totals.iter_mut().zip(Phase::ALL) {
        into.sum_ns = sum_ns(cells, *phase);
        for cells in of_phase(cells, *phase) {
            let counts = cells.times.iter().map(|count| count.load(Relaxed));
            into.times.merge(&Times::of(counts));
        }
    }
    totals
}

pub(super) fn phase_family(cells: &[Arc<Cells>]) -> MetricFamily {
    let metrics = Phase::ALL.iter().zip(Phase::LABELS).map(|(phase, label)| {
        let count = |index: usize| -> u64 {
            let one =
                |cells: &PhaseCells| cells.buckets.get(index).map(|count| count.load(Relaxed));
            of_phase(cells, *phase).filter_map(one).sum()
        };
        let mut metric = labelled("phase", label);
        metric.set_histogram(histogram(&BUCKETS_NS, count, sum_ns(cells, *phase)));
        metric
    });
    let metrics: Vec<Metric> = metrics.collect();
    family(
        "keyway_request_phase_seconds",
        "Where the time of commands goes, of a sample that is small under load: TLS and reading on the client's side, both ways (client_tls); of those that nodes answer, until it is written to its node, with lanes, slots that move and redirects (queue), the network and the node (node).",
        MetricType::HISTOGRAM,
        metrics,
    )
}
