//! How far a replica is behind, in time.
//!
//! A server tells offsets in its stream of writes, not times. So the offsets that a primary has had
//! are remembered with the times at which it said so: a replica is behind for as long as the
//! primary is known to have had something that the replica has not.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Offsets that are remembered at most: as many looks as a bound of an hour needs would be no
/// bound, and what is older than these is old enough.
const REMEMBERED_MAX: usize = 256;

/// What a primary had, and when.
#[derive(Clone, Debug, Default)]
pub struct Offsets(VecDeque<(Instant, u64)>);

impl Offsets {
    /// The primary said at `now` that it has come to `offset`. An offset that went back is another
    /// primary's: what was known is forgotten.
    pub fn note(&mut self, now: Instant, offset: u64) {
        match self.0.back() {
            Some((_, last)) if *last == offset => return,
            Some((_, last)) if *last > offset => self.0.clear(),
            _ => {}
        }
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, offset));
    }

    /// For how long a replica at `offset` has been behind, at least.
    #[must_use]
    pub fn behind(&self, now: Instant, offset: u64) -> Duration {
        let missed = self.0.iter().find(|(_, had)| *had > offset);
        missed.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
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

    #[test]
    fn a_replica_is_behind_since_the_primary_had_more() {
        let start = start();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut offsets = Offsets::default();
        assert_eq!(offsets.behind(at(0), 0), Duration::ZERO);
        for (seconds, offset) in [(0, 100), (1, 200), (2, 200), (3, 400)] {
            offsets.note(at(seconds), offset);
        }
        assert_eq!(offsets.behind(at(3), 400), Duration::ZERO);
        assert_eq!(offsets.behind(at(3), 500), Duration::ZERO);
        assert_eq!(offsets.behind(at(3), 399), Duration::ZERO);
        assert_eq!(offsets.behind(at(5), 399), Duration::from_secs(2));
        assert_eq!(offsets.behind(at(5), 150), Duration::from_secs(4));
        assert_eq!(offsets.behind(at(5), 99), Duration::from_secs(5));
        // Another primary.
        offsets.note(at(6), 50);
        assert_eq!(offsets.behind(at(9), 50), Duration::ZERO);
        assert_eq!(offsets.behind(at(9), 49), Duration::from_secs(3));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = start();
        let mut offsets = Offsets::default();
        for number in 0..1000 {
            offsets.note(start + Duration::from_secs(number), number);
        }
        assert_eq!(offsets.0.len(), REMEMBERED_MAX);
        let oldest = 1000 - REMEMBERED_MAX as u64;
        assert_eq!(
            offsets.behind(start + Duration::from_secs(1000), 0),
            Duration::from_secs(1000 - oldest)
        );
    }
}
