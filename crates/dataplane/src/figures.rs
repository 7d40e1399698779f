//! What a worker knows of each node beyond counters: how many commands it owes, how long its
//! answers take, whether it can be reached. For those who look, not for those who route.
//!
//! Owns the histogram of times ([`Times`]), which is filled with the times that the loop has
//! anyway: one sample for each read from a node, the round trip of its oldest command. Never here:
//! the clock, rates, quantiles of a whole process.

use std::time::Duration;

use topology::NodeAddr;

use crate::{channel::Purpose, host::Host, plane::Dataplane};

/// Buckets for each doubling of the time: a bound is at most an eighth above what it stands for.
const STEPS: u64 = 8;

/// A histogram of times whose buckets grow with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times(Box<[u64; Self::BUCKETS]>);

impl Default for Times {
    fn default() -> Self {
        Self(Box::new([0; Self::BUCKETS]))
    }
}

impl Times {
    /// The number of buckets: the first is a microsecond, the last ends above two minutes.
    pub const BUCKETS: usize = 200;

    /// The bucket of a time; the last has everything beyond.
    #[inline]
    #[must_use]
    pub fn bucket(nanos: u64) -> usize {
        let micros = nanos / 1000;
        let doubling = u64::from((micros / STEPS).checked_ilog2().map_or(0, |log| log + 1));
        let step = micros >> doubling.saturating_sub(1);
        let bucket = if doubling == 0 {
            micros
        } else {
            doubling * STEPS + (step - STEPS)
        };
        usize::try_from(bucket).map_or(Self::BUCKETS - 1, |bucket| bucket.min(Self::BUCKETS - 1))
    }

    /// The time below which everything in a bucket is.
    #[must_use]
    pub fn bound(bucket: usize) -> Duration {
        let bucket = u64::try_from(bucket.min(Self::BUCKETS - 1)).unwrap_or_default();
        let (doubling, step) = (bucket / STEPS, bucket % STEPS);
        let micros = match doubling {
            0 => step + 1,
            _ => (STEPS + step + 1) << (doubling - 1),
        };
        Duration::from_micros(micros)
    }

    /// One more of so long.
    #[inline]
    pub fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.0.get_mut(Self::bucket(nanos)) {
            *count = count.wrapping_add(1);
        }
    }

    /// How many there are in each bucket.
    #[must_use]
    pub fn counts(&self) -> &[u64; Self::BUCKETS] {
        &self.0
    }

    /// A histogram of these counts; missing ones are 0.
    #[must_use]
    pub fn of(counts: impl IntoIterator<Item = u64>) -> Self {
        let mut times = Self::default();
        for (into, count) in times.0.iter_mut().zip(counts) {
            *into = count;
        }
        times
    }

    /// Those of another as well.
    pub fn merge(&mut self, other: &Self) {
        for (into, count) in self.0.iter_mut().zip(other.0.iter()) {
            *into = into.wrapping_add(*count);
        }
    }

    /// What came since `before`. A bucket that went back (a connection has gone, with its counts)
    /// has nothing new.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let both = self.0.iter().zip(before.0.iter());
        Self::of(both.map(|(now, before)| now.saturating_sub(*before)))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time that so many of a thousand are not above, at most an eighth too long. `None`: there
    /// are none.
    #[must_use]
    pub fn quantile(&self, permille: u32) -> Option<Duration> {
        let total = self.count();
        let rank = (u128::from(total) * u128::from(permille)).div_ceil(1000);
        let rank = u64::try_from(rank).unwrap_or(u64::MAX).max(1);
        let mut seen = 0;
        let reached = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        reached.filter(|_| total > 0).map(Self::bound)
    }
}

/// One connection to a node, as it is now.
#[derive(Clone, Debug)]
pub struct NodeFigures {
    /// The node.
    pub addr: NodeAddr,
    /// Commands can be sent.
    pub ready: bool,
    /// Commands without a reply.
    pub in_flight: usize,
    /// Bytes of commands that are not answered.
    pub queued_bytes: usize,
    /// Attempts to connect that failed in a row.
    pub failures: u32,
    /// Why the last attempt ended.
    pub trouble: String,
    /// From being queued for the node until its reply, since the connection is known.
    pub trips: Times,
}

impl<H: Host> Dataplane<H> {
    /// Every connection that serves commands.
    pub fn node_figures(&self) -> impl Iterator<Item = NodeFigures> {
        let channels = self.core.channels.iter().map(|(_, channel)| channel);
        let serving = channels.filter(|channel| channel.purpose == Purpose::Commands);
        serving.map(|channel| NodeFigures {
            addr: channel.addr.clone(),
            ready: channel.is_ready(),
            in_flight: channel.connection.pipeline().in_flight(),
            queued_bytes: channel.connection.pipeline().queued_bytes(),
            failures: channel.backoff.attempts(),
            trouble: channel.trouble.clone(),
            trips: channel.trips.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_below_its_bound_and_not_far_below() {
        let mut nanos: u64 = 1;
        while nanos < 60_000_000_000 {
            let bucket = Times::bucket(nanos);
            let bound = Times::bound(bucket);
            let took = Duration::from_nanos(nanos);
            assert!(took < bound, "{took:?} is in a bucket up to {bound:?}");
            let close = took + took / 8 + Duration::from_micros(1);
            assert!(bound <= close, "{took:?} is in a bucket up to {bound:?}");
            if bucket > 0 {
                assert!(Times::bound(bucket - 1) <= took, "{took:?}");
            }
            nanos += 1 + nanos / 7;
        }
        assert_eq!(Times::bucket(u64::MAX), Times::BUCKETS - 1);
        assert!(Times::bound(Times::BUCKETS - 1) > Duration::from_secs(60));
    }

    #[test]
    fn buckets_grow_without_gaps() {
        let mut before = Duration::ZERO;
        for bucket in 0..Times::BUCKETS {
            let bound = Times::bound(bucket);
            assert!(bound > before);
            let last = u64::try_from(bound.as_nanos()).unwrap() - 1;
            assert_eq!(Times::bucket(last), bucket);
            before = bound;
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut times = Times::default();
        assert_eq!(times.quantile(500), None);
        for millis in 1..=1000 {
            times.add(Duration::from_millis(millis));
        }
        for (permille, expected) in [(1, 1), (500, 500), (990, 990), (999, 999), (1000, 1000)] {
            let found = times.quantile(permille).unwrap().as_micros();
            assert!(
                (expected * 1000..=expected * 1126).contains(&found),
                "{permille}: {found} us instead of {expected} ms"
            );
        }
        let before = times.clone();
        times.add(Duration::from_secs(2));
        let news = times.since(&before);
        assert_eq!(news.count(), 1);
        assert!(news.quantile(500).unwrap() >= Duration::from_secs(2));
        assert_eq!(before.since(&times).count(), 0);
    }
}
