//! When requests of an open loop are due: pure arithmetic over nanoseconds.
//!
//! An open loop sends by a schedule that does not wait for replies. Latency counts from the
//! instant a request was *due*, not from when it could be sent, so a server that stalls for a
//! second is charged for everything that should have been served meanwhile (no coordinated
//! omission).

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Exponential gaps: many independent users.
    Poisson,
    /// Equal gaps.
    Fixed,
}

/// A rising line of instants.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    mean_ns: f64,
    /// Of the next arrival.
    next_ns: f64,
    rng: SmallRng,
}

impl Schedule {
    /// `rate` arrivals a second (above 0) after `start_ns`.
    #[must_use]
    pub fn new(rate: f64, arrivals: Arrivals, start_ns: u64, seed: u64) -> Self {
        let mut schedule = Self {
            arrivals,
            mean_ns: 1e9 / rate,
            next_ns: ns_to_f64(start_ns),
            rng: SmallRng::seed_from_u64(seed),
        };
        // Schedules of several threads begin somewhere in their first gap, not all at once.
        schedule.next_ns += schedule.rng.random::<f64>() * schedule.mean_ns;
        schedule
    }

    /// When the next arrival is.
    #[must_use]
    pub fn next_ns(&self) -> u64 {
        f64_to_ns(self.next_ns)
    }

    /// The next arrival, if it is due at `now_ns`; call until `None`.
    pub fn due(&mut self, now_ns: u64) -> Option<u64> {
        let at = self.next_ns();
        if at > now_ns {
            return None;
        }
        self.next_ns += match self.arrivals {
            Arrivals::Fixed => self.mean_ns,
            // 1 - u is in (0, 1], so the logarithm is finite.
            Arrivals::Poisson => -(1.0 - self.rng.random::<f64>()).ln() * self.mean_ns,
        };
        Some(at)
    }
}

/// Runs are far shorter than the 104 days after which an f64 loses single nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 nanoseconds")]
fn ns_to_f64(ns: u64) -> f64 {
    ns as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive count of nanoseconds"
)]
fn f64_to_ns(ns: f64) -> u64 {
    ns as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Latencies;

    const SECOND_NS: u64 = 1_000_000_000;

    fn arrivals(kind: Arrivals, rate: f64) -> Vec<u64> {
        let mut schedule = Schedule::new(rate, kind, 0, 7);
        std::iter::from_fn(|| schedule.due(SECOND_NS)).collect()
    }

    #[test]
    fn a_second_holds_the_rate() {
        assert_eq!(arrivals(Arrivals::Fixed, 1000.0).len(), 1000);
        let poisson = arrivals(Arrivals::Poisson, 10_000.0);
        assert!(
            (9_600..10_400).contains(&poisson.len()),
            "{}",
            poisson.len()
        );
        assert!(poisson.is_sorted());
    }

    #[test]
    fn poisson_gaps_vary_as_much_as_their_mean() {
        let times = arrivals(Arrivals::Poisson, 20_000.0);
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| ns_to_f64(pair[1] - pair[0]))
            .collect();
        let count = ns_to_f64(gaps.len() as u64);
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        let ratio = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
    }

    /// A server that answers in 100 us but stops for one second in ten, driven by a virtual clock
    /// through one connection with one request outstanding.
    fn stalled_server(from_due: bool) -> u64 {
        let mut schedule = Schedule::new(1000.0, Arrivals::Fixed, 0, 1);
        let mut latencies = Latencies::default();
        let mut free_ns = 0;
        while let Some(due) = schedule.due(10 * SECOND_NS) {
            let sent = due.max(free_ns);
            let stall = 5 * SECOND_NS..6 * SECOND_NS;
            let begun = if stall.contains(&sent) {
                stall.end
            } else {
                sent
            };
            free_ns = begun + 100_000;
            latencies.record(free_ns - if from_due { due } else { sent }, 1);
        }
        latencies.percentile_ns(99.0)
    }

    #[test]
    fn a_stall_shows_in_p99_only_when_counted_from_the_intended_instant() {
        assert!(stalled_server(true) > 850_000_000);
        assert!(
            stalled_server(false) < 1_000_000,
            "the omission it corrects"
        );
    }
}
