//! Commands that took long: the last ones, without keys and values.
//!
//! Owns the bounds: how many are kept, and how many a worker hands in while everything is slow.
//! Never here: what counts as slow, which the configuration says.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Commands that are kept.
pub const KEPT_MAX: usize = 256;
/// Commands that one worker hands in within a second; more are counted.
const HANDED_IN_MAX: u32 = 20;

/// One command that took long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// When it was done, in milliseconds since 1970.
    pub at_ms: u64,
    /// From its arrival to its whole reply.
    pub took_us: u64,
    /// Its name.
    pub command: String,
    /// Whose it was.
    pub client: String,
    /// As whom it ran.
    pub user: String,
    /// Slow ones of the same worker that were left out before it.
    pub left_out: u64,
}

/// The last ones of all workers, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct SlowLog(Mutex<VecDeque<Slow>>);

impl SlowLog {
    pub(crate) fn push(&self, slow: Slow) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == KEPT_MAX {
            all.pop_front();
        }
        all.push_back(slow);
    }

    pub(crate) fn clear(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
    }

    pub(crate) fn all(&self) -> Vec<Slow> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().cloned().collect()
    }
}

/// What one worker may hand in.
#[derive(Debug)]
pub(crate) struct Allowance {
    since: Instant,
    used: u32,
    left_out: u64,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            used: 0,
            left_out: 0,
        }
    }

    /// Whether one more may be handed in, and how many could not be before.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.used = 0;
        }
        if self.used == HANDED_IN_MAX {
            self.left_out += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let log = SlowLog::default();
        for at_ms in 0..1000 {
            log.push(Slow {
                at_ms,
                ..Slow::default()
            });
        }
        let all = log.all();
        assert_eq!(all.len(), KEPT_MAX);
        assert_eq!(all.last().unwrap().at_ms, 999);
    }

    #[test]
    fn while_all_is_slow_a_worker_counts_and_goes_on() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let taken = (0..100).filter(|_| allowance.take(start).is_some());
        assert_eq!(taken.count(), 20);
        assert_eq!(allowance.take(start + Duration::from_secs(1)), Some(80));
        assert_eq!(allowance.take(start + Duration::from_secs(1)), Some(0));
    }
}
