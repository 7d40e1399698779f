//! One worker's hot keys: a sample of its requests in two bounded lists, by operations and by bytes.
//!
//! A request that is not in the sample costs a decrement and a comparison. One that is costs a hash
//! of the key and two places in heaps, and allocates nothing. Requests are
//! taken at random distances around one in `every`, so that a client whose pipeline repeats in step
//! with the sampling hides nothing. What the lists say is scaled back to all requests.
//!
//! `cargo run --release -p heat --example cost`: 24 ns a request with one in 16 looked at, 7 ns with one
//! in 64, and 3 ns for the exact counts by slot, on a busy machine; a request costs a worker 5 us or more.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::rng::Rng;
use crate::top::{HotKey, Top};

/// Halvings that one call does at most: after so many nothing is left of 64 bits.
const HALVINGS_MAX: u128 = 64;

/// How a worker looks at its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Keys that each list counts. Keys above `1 / keys` of all traffic are found.
    pub keys: usize,
    /// One request in so many is looked at, on average; 1 is every one.
    pub every: u32,
    /// After this time what was counted counts half.
    pub half_life: Duration,
}

impl Default for Sampling {
    /// 256 keys find what has 0.4 % of the traffic; at 100,000 requests a second, a sample of one in
    /// 16 sees such a key 250 times in ten seconds.
    fn default() -> Self {
        Self {
            keys: 256,
            every: 16,
            half_life: Duration::from_secs(10),
        }
    }
}

/// The hot keys of one worker.
#[derive(Clone, Debug)]
pub struct HotKeys {
    sampling: Sampling,
    hasher: FixedState,
    rng: Rng,
    /// Requests until one is looked at.
    left: u32,
    by_operations: Top,
    by_bytes: Top,
    /// The end of the halvings done, in time since the start.
    halved_until: Duration,
}

impl HotKeys {
    /// Begins with nothing. The seed decides which requests are looked at, and the hash, so that no
    /// client can choose keys that collide.
    #[must_use]
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        let mut keys = Self {
            sampling,
            hasher: FixedState::with_seed(seed),
            rng: Rng::new(seed),
            left: 0,
            by_operations: Top::new(sampling.keys),
            by_bytes: Top::new(sampling.keys),
            halved_until: Duration::ZERO,
        };
        keys.left = keys.distance();
        keys
    }

    /// Looks at one request in so many from the next one on.
    pub fn look_at_one_in(&mut self, every: u32) {
        let every = every.max(1);
        if every < self.sampling.every {
            self.left = self.left.min(every);
        }
        self.sampling.every = every;
    }

    /// One request in so many is looked at.
    #[must_use]
    pub fn every(&self) -> u32 {
        self.sampling.every
    }

    /// How much time the weights stand for at `now`: under a steady load, a weight divided by this is
    /// what comes in a second.
    #[must_use]
    pub fn span(&self, now: Duration) -> Duration {
        let half_life = self.sampling.half_life.max(Duration::from_millis(1));
        let since = now.saturating_sub(self.halved_until);
        // What is left of all the half-lives before: a half, a quarter, an eighth...
        let before = (self.halved_until.as_secs_f64() / half_life.as_secs_f64()).round();
        since + half_life.mul_f64(1.0 - 0.5_f64.powf(before.max(0.0)))
    }

    /// A request passes: whether it is one to look at. Its key and bytes go to [`HotKeys::record`],
    /// then or when its reply is known.
    #[inline]
    pub fn takes_next(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.left = self.distance();
        true
    }

    /// Counts a request that [`HotKeys::takes_next`] took: its key, and the bytes of it and its reply.
    pub fn record(&mut self, key: &[u8], bytes: u64) {
        let hash = self.hasher.hash_one(key);
        let stands_for = u64::from(self.sampling.every.max(1));
        self.by_operations.add(hash, key, stands_for);
        self.by_bytes
            .add(hash, key, bytes.saturating_mul(stands_for));
    }

    /// Both in one, where the bytes are known at once.
    #[inline]
    pub fn hit(&mut self, key: &[u8], bytes: u64) {
        if self.takes_next() {
            self.record(key, bytes);
        }
    }

    /// Lets the past fade: to be called now and then with the time since the start.
    pub fn advance(&mut self, now: Duration) {
        let half_life = self.sampling.half_life.max(Duration::from_millis(1));
        let passed = now.saturating_sub(self.halved_until);
        let halvings = passed.as_nanos() / half_life.as_nanos();
        if halvings > HALVINGS_MAX {
            self.halved_until = now;
        } else {
            for _ in 0..halvings {
                self.halved_until += half_life;
            }
        }
        for _ in 0..halvings.min(HALVINGS_MAX) {
            self.by_operations.halve();
            self.by_bytes.halve();
        }
    }

    /// Keys by operations.
    #[must_use]
    pub fn by_operations(&self) -> &Top {
        &self.by_operations
    }

    /// Keys by bytes of requests and replies.
    #[must_use]
    pub fn by_bytes(&self) -> &Top {
        &self.by_bytes
    }

    /// The hottest of several workers by operations.
    #[must_use]
    pub fn hottest<'a>(
        workers: impl IntoIterator<Item = &'a Self> + Clone,
        count: usize,
    ) -> Vec<HotKey> {
        let tops: Vec<&Top> = workers.into_iter().map(Self::by_operations).collect();
        Top::heaviest_of(tops, count)
    }

    /// 1 to `2 every - 1`, evenly: `every` on average.
    fn distance(&mut self) -> u32 {
        let every = self.sampling.every.max(1);
        let spread = usize::try_from(u64::from(every) * 2 - 1).unwrap_or(1);
        u32::try_from(self.rng.below(spread))
            .unwrap_or(0)
            .saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(every: u32) -> Sampling {
        Sampling {
            keys: 64,
            every,
            half_life: Duration::from_secs(10),
        }
    }

    #[test]
    fn a_sample_stands_for_all() {
        for every in [1, 2, 16, 100] {
            let mut keys = HotKeys::new(sampling(every), 3);
            for request in 0..200_000_u32 {
                // 20 % of the requests, and in step with every even distance.
                let key = if request % 5 == 0 {
                    b"hot".to_vec()
                } else {
                    format!("cold:{}", request % 4_999).into_bytes()
                };
                keys.hit(&key, 100);
            }
            let hot = &keys.by_operations().heaviest(1)[0];
            assert_eq!(hot.key, b"hot", "one in {every}");
            let middle = u64::midpoint(hot.at_least, hot.at_most) as f64;
            assert!((35_000.0..45_000.0).contains(&middle), "{every}: {hot:?}");
            let seen = keys.by_operations().total() as f64;
            assert!((seen / 200_000.0 - 1.0).abs() < 0.1, "{every}: {seen}");
        }
    }

    #[test]
    fn big_values_are_hot_by_bytes() {
        let mut keys = HotKeys::new(sampling(4), 5);
        for request in 0..20_000_u32 {
            let (key, bytes) = match request % 20 {
                0 => (&b"big"[..], 1 << 20),
                _ => (&b"often"[..], 10),
            };
            keys.hit(key, bytes);
        }
        assert_eq!(keys.by_operations().heaviest(1)[0].key, b"often");
        assert_eq!(keys.by_bytes().heaviest(1)[0].key, b"big");
    }

    #[test]
    fn what_was_hot_fades_by_half_with_its_half_life() {
        let mut keys = HotKeys::new(sampling(1), 5);
        (0..1_024).for_each(|_| keys.hit(b"key", 1));
        keys.advance(Duration::from_secs(9));
        assert_eq!(keys.by_operations().total(), 1_024);
        keys.advance(Duration::from_secs(31));
        assert_eq!(keys.by_operations().total(), 128);
        keys.advance(Duration::from_secs(39));
        assert_eq!(keys.by_operations().total(), 128);
        keys.advance(Duration::from_secs(1_000_000_000));
        assert!(keys.by_operations().is_empty());
    }

    #[test]
    fn a_weight_divided_by_its_span_is_the_rate() {
        let mut keys = HotKeys::new(sampling(1), 5);
        for second in 0..45 {
            let now = Duration::from_secs(second + 1);
            (0..100).for_each(|_| keys.hit(b"key", 10));
            let seen = keys.by_operations().total() as f64;
            let rate = seen / keys.span(now).as_secs_f64();
            assert!((rate - 100.0).abs() < 1.0, "{rate} after {now:?}");
            keys.advance(now);
        }
    }

    #[test]
    fn another_distance_leaves_the_weights_true() {
        let mut keys = HotKeys::new(sampling(64), 5);
        (0..64_000).for_each(|_| keys.hit(b"key", 1));
        keys.look_at_one_in(1);
        assert_eq!(keys.every(), 1);
        (0..64_000).for_each(|_| keys.hit(b"key", 1));
        keys.look_at_one_in(16);
        (0..64_000).for_each(|_| keys.hit(b"key", 1));
        let seen = keys.by_operations().total() as f64;
        assert!((seen / 192_000.0 - 1.0).abs() < 0.1, "{seen}");
    }

    #[test]
    fn workers_add_up() {
        let mut workers = [1, 2].map(|seed| HotKeys::new(sampling(1), seed));
        for worker in &mut workers {
            (0..10).for_each(|_| worker.hit(b"both", 1));
        }
        (0..15).for_each(|_| workers[0].hit(b"one", 1));
        let hottest = HotKeys::hottest(&workers, 1);
        assert_eq!(
            (&hottest[0].key[..], hottest[0].at_least),
            (&b"both"[..], 20)
        );
    }
}
