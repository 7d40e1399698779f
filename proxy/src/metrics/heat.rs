//! Where the load is, in few series: by shard, and how far it is from even. Slots and keys have no
//! series of their own, there are too many of them, and keys have no names here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::collector::{counter, family};

/// Shards with series of their own; the others are one.
const SHARDS_MAX: usize = 128;
/// How many of the hottest slots are taken together.
pub const SLOTS_TOP: [usize; 3] = [1, 10, 100];
/// The same of keys.
pub const KEYS_TOP: [usize; 2] = [1, 10];

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct HeatFigures {
    /// Commands that read, and all others.
    pub operations: [u64; 2],
    /// Bytes of requests and of replies.
    pub bytes: [u64; 2],
    /// By shard: commands and bytes in a second.
    pub shards: Vec<(f64, f64)>,
    /// The hottest slot's commands, of the mean.
    pub slot_max_over_mean: f64,
    /// The hottest slots' share of all commands, by [`SLOTS_TOP`].
    pub slots_share: [f64; SLOTS_TOP.len()],
    /// The hottest keys' share of all commands with keys, by [`KEYS_TOP`].
    pub keys_share: [f64; KEYS_TOP.len()],
    /// The biggest value seen lately.
    pub value_bytes_max: u64,
}

/// Written by the thread that adds up what workers have counted.
#[derive(Clone, Debug, Default)]
pub struct HeatMetrics(Arc<Mutex<HeatFigures>>);

impl HeatMetrics {
    /// Shows these from now on.
    pub fn set(&self, figures: HeatFigures) {
        *self.figures() = figures;
    }

    fn figures(&self) -> MutexGuard<'_, HeatFigures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn families(&self) -> [MetricFamily; 8] {
        let figures = self.figures().clone();
        let shards = by_shard(&figures.shards);
        let of_shards = |value: fn(&(f64, f64)) -> f64| -> Vec<(String, f64)> {
            let all = shards.iter();
            all.map(|(shard, rates)| (shard.clone(), value(rates)))
                .collect()
        };
        [
            counter(
                "keyway_slot_operations_total",
                "Commands with keys that nodes have answered; those of a transaction count each.",
                "kind",
                pairs(["read", "write"], figures.operations),
            ),
            counter(
                "keyway_slot_bytes_total",
                "Bytes of such commands (in) and of their replies (out).",
                "direction",
                pairs(["in", "out"], figures.bytes),
            ),
            gauges(
                "keyway_shard_operations_per_second",
                "Commands for the slots that a shard owns, lately.",
                "shard",
                of_shards(|(operations, _)| *operations),
            ),
            gauges(
                "keyway_shard_bytes_per_second",
                "Bytes of commands and replies for the slots that a shard owns, lately.",
                "shard",
                of_shards(|(_, bytes)| *bytes),
            ),
            gauges(
                "keyway_slot_max_over_mean",
                "Commands of the hottest slot, of the mean of all 16384.",
                "",
                vec![(String::new(), figures.slot_max_over_mean)],
            ),
            gauges(
                "keyway_hot_slots_ratio",
                "Share of the hottest slots in all commands with keys.",
                "top",
                shares(&SLOTS_TOP, &figures.slots_share),
            ),
            gauges(
                "keyway_hot_keys_ratio",
                "Share of the hottest keys in all commands with keys, by a sample.",
                "top",
                shares(&KEYS_TOP, &figures.keys_share),
            ),
            gauges(
                "keyway_value_max_bytes",
                "The biggest value that one command moved within ten minutes; 0 below 16 KiB.",
                "",
                vec![(String::new(), as_f64(figures.value_bytes_max))],
            ),
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric's value is a double")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn pairs(names: [&'static str; 2], counts: [u64; 2]) -> Vec<(&'static str, u64)> {
    names.into_iter().zip(counts).collect()
}

fn shares(tops: &[usize], shares: &[f64]) -> Vec<(String, f64)> {
    let tops = tops.iter().map(ToString::to_string);
    tops.zip(shares.iter().copied()).collect()
}

/// One at least: a family without a value is no family.
fn by_shard(shards: &[(f64, f64)]) -> Vec<(String, (f64, f64))> {
    let mut all: Vec<(String, (f64, f64))> = Vec::new();
    for (index, rates) in shards.iter().enumerate() {
        match all.get_mut(SHARDS_MAX) {
            Some((_, others)) => *others = (others.0 + rates.0, others.1 + rates.1),
            None if index < SHARDS_MAX => all.push((index.to_string(), *rates)),
            None => all.push(("other".to_owned(), *rates)),
        }
    }
    if all.is_empty() {
        all.push(("0".to_owned(), (0.0, 0.0)));
    }
    all
}

fn gauges(name: &str, help: &str, label: &str, values: Vec<(String, f64)>) -> MetricFamily {
    let metrics = values.into_iter().map(|(value, number)| {
        let mut metric = Metric::default();
        if !label.is_empty() {
            let mut pair = LabelPair::default();
            pair.set_name(label.to_owned());
            pair.set_value(value);
            metric.set_label(vec![pair]);
        }
        let mut gauge = Gauge::default();
        gauge.set_value(number);
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, MetricType::GAUGE, metrics.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_shards_have_few_series() {
        let shards = vec![(1.0, 10.0); 1_000];
        let all = by_shard(&shards);
        assert_eq!(all.len(), SHARDS_MAX + 1);
        assert_eq!(all[SHARDS_MAX], ("other".to_owned(), (872.0, 8_720.0)));
        assert_eq!(by_shard(&[]).len(), 1);
    }
}
