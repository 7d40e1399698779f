//! The keys with the biggest values that were seen, in bounded memory.
//!
//! Not a sample: every value of [`BIG_BYTES_MIN`] or more is offered, and so few are so big that
//! looking at each costs next to nothing beside moving its bytes. A key that was not seen big for
//! [`KEPT_FOR`] is forgotten: it may have been deleted, or cut.

use std::time::Duration;

use crate::top::KEY_BYTES_MAX;

/// Smaller values are not looked at.
pub const BIG_BYTES_MIN: u64 = 16 * 1024;

/// A key stays in the list for so long after it was last seen big.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// A key and how big its value was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigKey {
    /// The key, or its first [`KEY_BYTES_MAX`] bytes.
    pub key: Vec<u8>,
    /// The most bytes that one command moved of it.
    pub bytes: u64,
    /// When it was last seen big, in time since the start.
    pub seen: Duration,
}

/// The biggest values of one worker.
#[derive(Clone, Debug)]
pub struct BigKeys {
    capacity: usize,
    keys: Vec<BigKey>,
}

impl BigKeys {
    /// Keeps up to `capacity` keys, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            capacity,
            keys: Vec::with_capacity(capacity),
        }
    }

    /// A value smaller than this changes nothing.
    #[inline]
    #[must_use]
    pub fn floor(&self) -> u64 {
        if self.keys.len() < self.capacity {
            return BIG_BYTES_MIN;
        }
        let least = self.keys.iter().map(|key| key.bytes).min();
        least.unwrap_or_default().max(BIG_BYTES_MIN)
    }

    /// A value of so many bytes was read or written. Allocates only for the first keys, and where a
    /// key is longer than every one its place had.
    pub fn seen(&mut self, key: &[u8], bytes: u64, now: Duration) {
        if bytes < BIG_BYTES_MIN {
            return;
        }
        let key = key.get(..KEY_BYTES_MAX).unwrap_or(key);
        if let Some(known) = self.keys.iter_mut().find(|known| known.key == key) {
            known.bytes = known.bytes.max(bytes);
            known.seen = now;
        } else if self.keys.len() < self.capacity {
            self.keys.push(BigKey {
                key: key.to_vec(),
                bytes,
                seen: now,
            });
        } else if let Some(least) = self.keys.iter_mut().min_by_key(|known| known.bytes)
            && least.bytes < bytes
        {
            least.key.clear();
            least.key.extend_from_slice(key);
            least.bytes = bytes;
            least.seen = now;
        }
    }

    /// Forgets what was not seen for long: to be called now and then with the time since the start.
    pub fn advance(&mut self, now: Duration) {
        self.keys
            .retain(|key| now.saturating_sub(key.seen) < KEPT_FOR);
    }

    /// The `count` biggest of several workers, biggest first.
    #[must_use]
    pub fn biggest<'a>(workers: impl IntoIterator<Item = &'a Self>, count: usize) -> Vec<BigKey> {
        let mut merged: Vec<BigKey> = Vec::new();
        for key in workers.into_iter().flat_map(|worker| &worker.keys) {
            match merged.iter_mut().find(|known| known.key == key.key) {
                Some(known) => {
                    known.bytes = known.bytes.max(key.bytes);
                    known.seen = known.seen.max(key.seen);
                }
                None => merged.push(key.clone()),
            }
        }
        merged.sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
        merged.truncate(count);
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    #[test]
    fn the_biggest_stay() {
        let mut keys = BigKeys::new(8);
        for number in 0..100_u64 {
            let size = BIG_BYTES_MIN + (number * 37) % 100;
            keys.seen(format!("key:{number}").as_bytes(), size, NOW);
        }
        keys.seen(b"small", BIG_BYTES_MIN - 1, NOW);
        assert_eq!(keys.floor(), BIG_BYTES_MIN + 92);
        let sizes: Vec<u64> = BigKeys::biggest([&keys], 100)
            .iter()
            .map(|key| key.bytes - BIG_BYTES_MIN)
            .collect();
        assert_eq!(sizes, [99, 98, 97, 96, 95, 94, 93, 92]);
    }

    #[test]
    fn a_key_is_as_big_as_it_was_seen_and_is_forgotten_in_the_end() {
        let mut keys = BigKeys::new(8);
        assert_eq!(keys.floor(), BIG_BYTES_MIN);
        keys.seen(b"a", 100_000, NOW);
        keys.seen(b"a", 50_000, 2 * NOW);
        keys.seen(b"b", 20_000, NOW);
        let other = keys.clone();
        keys.seen(b"b", 30_000, NOW);
        let all = BigKeys::biggest([&keys, &other], 9);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].bytes, all[0].seen), (100_000, 2 * NOW));
        assert_eq!(all[1].bytes, 30_000);
        keys.advance(NOW + KEPT_FOR);
        assert_eq!(BigKeys::biggest([&keys], 9).len(), 1);
        keys.advance(2 * NOW + KEPT_FOR);
        assert!(BigKeys::biggest([&keys], 9).is_empty());
    }
}
