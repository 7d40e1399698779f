//! How often commands may be sent again.
//!
//! While a cluster is down, everything that waits for it would ask again and again, and keep it from
//! recovering. So only a first retry is free; further ones are paid for by what is answered. Once
//! the cluster works, every answer pays for two, so that all that waits is through within a few
//! round trips.

use std::time::{Duration, Instant};

/// Further retries in a second of one worker while nothing at all is answered.
const PER_SECOND: u32 = 100;
/// Retries that can be saved up.
const SAVED_MAX: u32 = 10_000;
/// What an answer pays for.
const ANSWER: u32 = 2;

/// Retries that are paid for.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    saved: u32,
    refilled_at: Option<Instant>,
}

impl Budget {
    /// A node has answered a command.
    #[inline]
    pub(crate) fn earn(&mut self) {
        self.saved = self.saved.saturating_add(ANSWER).min(SAVED_MAX);
    }

    /// Whether a command that was sent `hops` times already may be sent again.
    pub(crate) fn spend(&mut self, hops: u8, now: Instant) -> bool {
        if hops <= 1 {
            return true;
        }
        let last = *self.refilled_at.get_or_insert(now);
        let passed = now
            .saturating_duration_since(last)
            .min(Duration::from_secs(1));
        let earned = u32::try_from(passed.as_millis()).unwrap_or(u32::MAX) * PER_SECOND / 1000;
        if earned > 0 {
            self.refilled_at = Some(now);
            self.saved = self.saved.saturating_add(earned).min(SAVED_MAX);
        }
        let may = self.saved > 0;
        self.saved = self.saved.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "the only way to an `Instant`; everything later is counted from it"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn spent(budget: &mut Budget, most: usize, now: Instant) -> usize {
        (0..most).take_while(|_| budget.spend(2, now)).count()
    }

    #[test]
    fn a_cluster_that_is_down_is_asked_a_hundred_times_a_second() {
        let (start, mut budget) = (start(), Budget::default());
        assert!((0..1000).all(|_| budget.spend(0, start) && budget.spend(1, start)));
        assert_eq!(spent(&mut budget, 1000, start), 0);
        let mut total = 0;
        for tick in 1..=100 {
            total += spent(&mut budget, 1000, start + Duration::from_millis(10 * tick));
        }
        assert_eq!(total, 100);
        // Longer silence saves up no more than a second's worth.
        assert_eq!(
            spent(&mut budget, 1000, start + Duration::from_secs(60)),
            100
        );
    }

    #[test]
    fn answers_pay_for_twice_as_many() {
        let (start, mut budget) = (start(), Budget::default());
        (0..5).for_each(|_| budget.earn());
        assert_eq!(spent(&mut budget, 1000, start), 10);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!(spent(&mut budget, 100_000, start), 10_000);
    }
}
