//! Keys that are kept near because many ask for them: who comes, who goes. Pure.
//!
//! What the worker's sketch has seen of a key lets it in. From then on its reads are counted here, one by
//! one. It goes when they are less than half of what let it in, so that a key near the bound does not
//! come and go; and for [`REST`] when most of its reads find nothing kept, because it is written all the
//! time. One that has gone is counted on for as long as the sketch, which forgets slowly, takes it for
//! hot: only these counts bring it back.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// Hot keys at most.
const HOT_MAX: usize = 256;
/// A key that is written too often is left alone for so long.
const REST: Duration = Duration::from_secs(30);
/// One that has cooled may come again after this.
const COOL: Duration = Duration::from_secs(10);
/// Rates are of so long at least.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Hot {
    key: Box<[u8]>,
    asked: u32,
    found: u32,
    /// Reads in a second, smoothed.
    rate: f64,
    since: Instant,
    rests_until: Option<Instant>,
    /// The sketch took it for hot then.
    seen_at: Instant,
}

/// The hot keys of one worker, by their fingerprints.
#[derive(Debug)]
pub(super) struct HotOnes {
    /// Operations a second that let a key in; 0 is that none comes.
    ops_min: usize,
    keys: HashMap<u32, Hot, foldhash::fast::FixedState>,
}

impl HotOnes {
    pub(super) fn new(ops_min: usize) -> Self {
        Self {
            ops_min,
            keys: HashMap::default(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.ops_min > 0
    }

    /// Whether a key that is read now is one of them.
    pub(super) fn reads(&mut self, fingerprint: u32, key: &[u8]) -> bool {
        let Some(hot) = self.keys.get_mut(&fingerprint) else {
            return false;
        };
        let is_it = *hot.key == *key;
        hot.asked = hot.asked.saturating_add(u32::from(is_it));
        is_it && hot.rests_until.is_none()
    }

    /// It was kept.
    pub(super) fn found(&mut self, fingerprint: u32) {
        if let Some(hot) = self.keys.get_mut(&fingerprint) {
            hot.found = hot.found.saturating_add(1);
        }
    }

    /// Whether a key with so many operations in a second comes.
    pub(super) fn is_enough(&self, ops: f64) -> bool {
        self.is_on() && ops >= self.bound()
    }

    /// The sketch has seen so much of a key: it comes, if that is enough.
    pub(super) fn seen(&mut self, fingerprint: u32, key: &[u8], ops: f64, now: Instant) {
        if !self.is_enough(ops) {
            return;
        }
        if let Some(hot) = self.keys.get_mut(&fingerprint) {
            hot.seen_at = now;
        } else if self.keys.len() < HOT_MAX {
            let hot = Hot {
                key: key.into(),
                asked: 0,
                found: 0,
                rate: ops,
                since: now,
                rests_until: None,
                seen_at: now,
            };
            self.keys.insert(fingerprint, hot);
        }
    }

    /// Time has passed. Returns those that are not to be kept any more.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<u32> {
        let (bound, mut gone) = (self.bound(), Vec::new());
        self.keys.retain(|fingerprint, hot| {
            let passed = now.saturating_duration_since(hot.since);
            if passed < PERIOD {
                return true;
            }
            let (asked, found) = (f64::from(hot.asked), f64::from(hot.found));
            hot.rate = f64::midpoint(hot.rate, asked / passed.as_secs_f64());
            (hot.asked, hot.found, hot.since) = (0, 0, now);
            if let Some(until) = hot.rests_until {
                if until <= now && hot.rate >= bound {
                    hot.rests_until = None;
                }
                return hot.rests_until.is_none_or(|until| until > now)
                    || hot.seen_at + 2 * PERIOD > now;
            }
            let stays = hot.rate >= bound / 2.0;
            let written = stays && asked >= bound / 2.0 && found < asked / 2.0;
            if written || !stays {
                hot.rests_until = Some(now + if written { REST } else { COOL });
                gone.push(*fingerprint);
            }
            true
        });
        gone
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate, not a count")]
    fn bound(&self) -> f64 {
        self.ops_min as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"key";

    #[expect(
        clippy::disallowed_methods,
        reason = "the only way to an `Instant`; everything later is counted from it"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    /// Reads of one second, and how many of a hundred find something; what goes then.
    fn second(hot: &mut HotOnes, reads: u32, percent: u32, now: &mut Instant) -> Vec<u32> {
        for read in 0..reads {
            if hot.reads(1, KEY) && read % 100 < percent {
                hot.found(1);
            }
        }
        *now += PERIOD;
        hot.tick(*now)
    }

    #[test]
    fn a_key_comes_when_it_is_hot_and_goes_when_it_is_half_as_hot() {
        let mut now = start();
        let mut hot = HotOnes::new(100);
        hot.seen(1, KEY, 99.0, now);
        assert!(!hot.reads(1, KEY), "not yet");
        hot.seen(1, KEY, 100.0, now);
        assert!(hot.reads(1, KEY) && !hot.reads(1, b"of the same hash") && !hot.reads(2, KEY));
        for _ in 0..10 {
            assert_eq!(second(&mut hot, 60, 100, &mut now), []);
        }
        let cooled: Vec<u32> = (0..3)
            .flat_map(|_| second(&mut hot, 10, 100, &mut now))
            .collect();
        assert_eq!(cooled, [1]);
        assert!(!hot.reads(1, KEY));
    }

    /// What is kept is in the sketch too, which forgets it slowly.
    #[test]
    fn one_that_has_cooled_comes_back_by_its_reads_alone() {
        let mut now = start();
        let mut hot = HotOnes::new(100);
        hot.seen(1, KEY, 1000.0, now);
        second(&mut hot, 1000, 100, &mut now);
        let mut gone = 0;
        for _ in 0..30 {
            hot.seen(1, KEY, 500.0, now);
            gone += second(&mut hot, 10, 100, &mut now).len();
        }
        assert!(gone == 1 && !hot.reads(1, KEY), "{gone}");
        for _ in 0..10 {
            hot.seen(1, KEY, 500.0, now);
            second(&mut hot, 200, 100, &mut now);
        }
        assert!(hot.reads(1, KEY), "as hot as before");
        for _ in 0..20 {
            second(&mut hot, 0, 0, &mut now);
        }
        assert!(hot.keys.is_empty(), "not in the sketch any more");
    }

    #[test]
    fn one_that_is_written_all_the_time_rests() {
        let mut now = start();
        let mut hot = HotOnes::new(100);
        hot.seen(1, KEY, 500.0, now);
        assert_eq!(second(&mut hot, 500, 40, &mut now), [1]);
        hot.seen(1, KEY, 500.0, now);
        assert!(!hot.reads(1, KEY));
        now += REST;
        assert_eq!(hot.tick(now), []);
        hot.seen(1, KEY, 500.0, now);
        assert!(hot.reads(1, KEY));
    }

    #[test]
    fn they_are_bounded_and_off_is_off() {
        let now = start();
        let mut hot = HotOnes::new(1);
        (0..1000).for_each(|key| hot.seen(key, &key.to_le_bytes(), 5.0, now));
        assert_eq!(hot.keys.len(), HOT_MAX);
        let mut off = HotOnes::new(0);
        off.seen(1, KEY, 1e9, now);
        assert!(!off.is_on() && !off.reads(1, KEY));
    }
}
