//! What is shown of files that are read again: how often, whether it went well, and until when
//! certificates hold.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use prometheus::proto::MetricFamily;

use super::{
    ReloadResult, TlsFile,
    collector::{counter, gauge, gauges},
};

/// Written by the thread that reads files again.
#[derive(Clone, Debug, Default)]
pub struct ReloadMetrics(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    tls: [AtomicU64; ReloadResult::COUNT],
    tls_failing: AtomicI64,
    config: [AtomicU64; ReloadResult::COUNT],
    /// Seconds since 1970, and one more; 0 is not known.
    ends: [AtomicI64; TlsFile::COUNT],
}

impl ReloadMetrics {
    /// Certificates were read again.
    pub fn tls(&self, result: ReloadResult) {
        if let Some(counter) = self.0.tls.get(result as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// The configuration was read again.
    pub fn config(&self, result: ReloadResult) {
        if let Some(counter) = self.0.config.get(result as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Whether the files are others than those in force, and cannot be used.
    pub fn tls_failing(&self, failing: bool) {
        self.0.tls_failing.store(failing.into(), Relaxed);
    }

    /// Until when the files of each kind hold, in seconds since 1970.
    pub fn ends(&self, ends: impl Iterator<Item = (TlsFile, i64)>) {
        let mut all = [0; TlsFile::COUNT];
        for (file, end) in ends {
            if let Some(place) = all.get_mut(file as usize) {
                *place = end.saturating_add(1);
            }
        }
        for (place, end) in self.0.ends.iter().zip(all) {
            place.store(end, Relaxed);
        }
    }

    pub(super) fn families(&self) -> [MetricFamily; 4] {
        let results = |counters: &[AtomicU64]| -> Vec<(&str, u64)> {
            let results = ReloadResult::LABELS.iter().zip(counters);
            results
                .map(|(label, count)| (*label, count.load(Relaxed)))
                .collect()
        };
        let ends = TlsFile::LABELS.iter().zip(&self.0.ends);
        let known: Vec<(&str, i64)> = ends
            .map(|(label, end)| (*label, end.load(Relaxed)))
            .filter(|(_, end)| *end > 0 && *end < i64::MAX)
            .map(|(label, end)| (label, end - 1))
            .collect();
        [
            counter(
                "keyway_tls_reloads_total",
                "Times that certificates, keys or revocation lists had changed and were read again.",
                "result",
                results(&self.0.tls),
            ),
            counter(
                "keyway_config_reloads_total",
                "Times that the configuration was read again.",
                "result",
                results(&self.0.config),
            ),
            gauge(
                "keyway_tls_reload_failing",
                "1 while the files are others than those in force and cannot be used.",
                self.0.tls_failing.load(Relaxed),
            ),
            gauges(
                "keyway_tls_not_after_timestamp_seconds",
                "Until when the files in force hold, the earliest of each kind; for a revocation list, when the next is due.",
                "file",
                &known,
            ),
        ]
    }
}
