//! How many commands were traced, and what became of their traces.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus::proto::MetricFamily;

use super::{TraceEnd, collector::counter};

/// Written by the thread that sends traces, and by workers when there is no room for one.
#[derive(Clone, Debug, Default)]
pub struct TraceMetrics(Arc<[AtomicU64; TraceEnd::COUNT]>);

impl TraceMetrics {
    /// The traces of so many commands have ended so.
    pub fn ended(&self, end: TraceEnd, commands: u64) {
        if let Some(counter) = self.0.get(end as usize) {
            counter.fetch_add(commands, Relaxed);
        }
    }

    pub(super) fn family(&self) -> MetricFamily {
        let counts = TraceEnd::LABELS.iter().zip(self.0.iter());
        let counts = counts.map(|(label, count)| (*label, count.load(Relaxed)));
        counter(
            "keyway_traces_total",
            "Traces of commands ([traces]): the collector has them (exported), it did not take them (failed), or they found no room to wait for it (dropped).",
            "result",
            counts.collect(),
        )
    }
}
