//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// The shortest upper bound of a wait.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// The longest upper bound of a wait.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Exponential backoff with full jitter, between 0 and a bound that doubles from 50 ms to 5 s.
///
/// Full jitter spreads a thousand proxies that lost the same node over the whole interval.
#[derive(Clone, Debug)]
pub struct Backoff {
    attempts: u32,
    state: u64,
}

impl Backoff {
    /// A fresh sequence. Different seeds give different waits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            attempts: 0,
            state: seed,
        }
    }

    /// The wait before the next attempt. The first is at most 50 ms.
    pub fn next_wait(&mut self) -> Duration {
        let bound = WAIT_MIN
            .saturating_mul(1 << self.attempts.min(7))
            .min(WAIT_MAX);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(self.unit())
    }

    /// Failed attempts since the last success.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next number in `0.0..1.0` (SplitMix64).
    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        f64::from(u32::try_from(mixed >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_bound_that_doubles_and_starts_again() {
        let mut backoff = Backoff::new(7);
        for attempt in 0..40 {
            let bound = WAIT_MIN.saturating_mul(1 << attempt.min(7)).min(WAIT_MAX);
            assert!(backoff.next_wait() <= bound);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= WAIT_MIN);
    }

    #[test]
    fn two_seeds_do_not_wait_alike() {
        let (mut one, mut other) = (Backoff::new(1), Backoff::new(2));
        assert_ne!(one.next_wait(), other.next_wait());
    }
}
