//! Figures: latencies, counts, quartiles. Pure.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::workload::{Flaw, Mismatch};

/// Latencies above this are counted as this: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Kinds of errors that are told apart; the rest is `OTHER`.
const ERROR_KINDS_MAX: usize = 32;
/// Wrong replies kept to look at.
pub const MISMATCHES_KEPT_MAX: usize = 8;

/// Latencies in nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // Constant bounds; were they ever wrong, a growing histogram is as good.
        Self(
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
                .unwrap_or_else(|_| growing_histogram()),
        )
    }
}

#[expect(clippy::expect_used, reason = "3 digits are always legal")]
fn growing_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("3 significant digits are legal")
}

impl Latencies {
    /// Adds `count` requests that took `ns`.
    #[inline]
    pub fn record(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns.max(1), count);
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        // Equal bounds, so it cannot be refused.
        let _ = self.0.add(&other.0);
    }

    /// The value that `percent` of the requests did not exceed, in nanoseconds.
    #[must_use]
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }

    /// The arithmetic mean in nanoseconds.
    #[must_use]
    pub fn mean_ns(&self) -> f64 {
        self.0.mean()
    }

    /// The longest, in nanoseconds.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.0.max()
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// What happened on some connections. Latencies and `requests` are of measured turns; faults are
/// counted always.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Replies of any kind in measured turns.
    pub requests: u64,
    /// Replies of any kind, ever.
    pub replies: u64,
    /// From sending (open loop: from the instant due) to the reply, of the turns that are over.
    pub latency: Latencies,
    /// The same, of the turn that is on.
    pub turn_latency: Latencies,
    /// Open loop: from the instant due to sending.
    pub lag: Latencies,
    /// Error replies by their first word.
    pub errors: BTreeMap<Box<str>, u64>,
    /// Wrong replies by their flaw.
    pub mismatched: BTreeMap<Flaw, u64>,
    /// The first few of them.
    pub mismatches: Vec<Mismatch>,
    /// Connections that ended while they were needed, by reason.
    pub closed: BTreeMap<Box<str>, u64>,
    /// Connections made again after that.
    pub reconnected: u64,
    /// Attempts to connect that failed.
    pub connect_failed: u64,
    /// Requests whose reply was lost with its connection.
    pub lost: u64,
    /// Requests without a reply at the end of the drain.
    pub unanswered: u64,
    /// Open loop: due, but not sent before the turn's end.
    pub unsent: u64,
    /// RESP3 pushes.
    pub pushes: u64,
    /// RESP bytes, without TLS.
    pub bytes_sent: u64,
    /// RESP bytes, without TLS.
    pub bytes_received: u64,
}

impl Tally {
    /// Counts an error reply.
    pub fn error(&mut self, word: Box<str>) {
        count_bounded(&mut self.errors, word, 1);
    }

    /// Counts a connection's end.
    pub fn closed(&mut self, reason: &str) {
        count_bounded(&mut self.closed, reason.into(), 1);
    }

    /// Counts a wrong reply and keeps it if it is one of the first.
    pub fn mismatch(&mut self, mismatch: Mismatch) {
        *self.mismatched.entry(mismatch.flaw).or_default() += 1;
        if self.mismatches.len() < MISMATCHES_KEPT_MAX {
            self.mismatches.push(mismatch);
        }
    }

    /// The turn is over: its latencies join the others, and are returned.
    pub fn end_turn(&mut self) -> Latencies {
        let turn = std::mem::take(&mut self.turn_latency);
        self.latency.add(&turn);
        turn
    }

    /// Adds all of another.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.replies += other.replies;
        self.latency.add(&other.latency);
        self.lag.add(&other.lag);
        for (word, count) in other.errors {
            count_bounded(&mut self.errors, word, count);
        }
        for (flaw, count) in other.mismatched {
            *self.mismatched.entry(flaw).or_default() += count;
        }
        let room = MISMATCHES_KEPT_MAX.saturating_sub(self.mismatches.len());
        self.mismatches
            .extend(other.mismatches.into_iter().take(room));
        for (reason, count) in other.closed {
            count_bounded(&mut self.closed, reason, count);
        }
        self.reconnected += other.reconnected;
        self.connect_failed += other.connect_failed;
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.pushes += other.pushes;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

fn count_bounded(counts: &mut BTreeMap<Box<str>, u64>, word: Box<str>, by: u64) {
    let known = counts.contains_key(&word) || counts.len() < ERROR_KINDS_MAX;
    let word = if known { word } else { "OTHER".into() };
    *counts.entry(word).or_default() += by;
}

/// A median and its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Quartiles {
    /// A quarter is below.
    pub q1: f64,
    /// Half is below.
    pub median: f64,
    /// Three quarters are below.
    pub q3: f64,
    /// Values they are taken from.
    pub count: usize,
}

impl Quartiles {
    /// Of any numbers, with linear interpolation (type 7, as NumPy does); `None` of none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let last = u32::try_from(values.len().checked_sub(1)?).ok()?;
        let at = |part: f64| {
            let place = f64::from(last) * part;
            let below = place.floor();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place within the values"
            )]
            let index = below as usize;
            let low = values.get(index).copied()?;
            let high = values.get(index + 1).copied().unwrap_or(low);
            Some(low + (high - low) * (place - below))
        };
        Some(Self {
            q1: at(0.25)?,
            median: at(0.5)?,
            q3: at(0.75)?,
            count: values.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_numpy() {
        let quartiles = Quartiles::of(vec![7.0, 1.0, 3.0, 10.0]).expect("four values");
        assert_eq!(
            (quartiles.q1, quartiles.median, quartiles.q3),
            (2.5, 5.0, 7.75)
        );
        let one = Quartiles::of(vec![2.0]).expect("one value");
        assert_eq!((one.q1, one.median, one.q3, one.count), (2.0, 2.0, 2.0, 1));
        assert_eq!(Quartiles::of(vec![f64::NAN]), None);
    }

    #[test]
    fn percentiles_hold_three_digits() {
        let mut latencies = Latencies::default();
        for us in 1..=1000_u64 {
            latencies.record(us * 1000, 10);
        }
        let p50 = latencies.percentile_ns(50.0);
        assert!((499_000..=501_000).contains(&p50), "{p50}");
        let p99 = latencies.percentile_ns(99.0);
        assert!((989_000..=991_500).contains(&p99), "{p99}");
        assert_eq!(latencies.count(), 10_000);
        let mut sum = Latencies::default();
        sum.add(&latencies);
        assert_eq!(sum.count(), 10_000);
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut tally = Tally::default();
        for n in 0..1000 {
            tally.error(format!("E{n}").into());
        }
        assert_eq!(tally.errors.len(), ERROR_KINDS_MAX + 1);
        assert_eq!(tally.errors.values().sum::<u64>(), 1000);
    }
}
