//! The heaviest keys of a stream, in bounded memory.
//!
//! Space-Saving (Metwally, Agrawal and El Abbadi, 2005) over a heap: `capacity` keys are counted;
//! a key that is not among them takes the place of the lightest and inherits its count as the error
//! of its own. Of every key:
//!
//! - what it weighs is at most its `at_most`, at least its `at_least`;
//! - `at_most - at_least`, and what a key that is not counted weighs, is at most `total / capacity`.
//!
//! So every key above `total / capacity` is found. Counts are whole numbers and halve with age; a key
//! that has faded below 1 is forgotten, so a bound may be wrong by that 1 once weights have halved.

use hashbrown::HashTable;

/// Bytes of a key that are kept; longer ones are told apart by their hash alone.
pub const KEY_BYTES_MAX: usize = 128;

/// A key and the bounds of what it weighs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// The key, or its first [`KEY_BYTES_MAX`] bytes.
    pub key: Vec<u8>,
    /// What it weighs for certain.
    pub at_least: u64,
    /// More than this it does not weigh.
    pub at_most: u64,
}

/// A key's bytes, in place: counting another key allocates nothing.
#[derive(Clone, Debug)]
struct Name {
    len: usize,
    bytes: [u8; KEY_BYTES_MAX],
}

impl Name {
    fn of(key: &[u8]) -> Self {
        let mut name = Self {
            len: 0,
            bytes: [0; KEY_BYTES_MAX],
        };
        name.set(key);
        name
    }

    fn set(&mut self, key: &[u8]) {
        for (into, byte) in self.bytes.iter_mut().zip(key) {
            *into = *byte;
        }
        self.len = key.len().min(KEY_BYTES_MAX);
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// One counted key. `place` is where `heap` has it.
#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    key: Name,
    at_least: u64,
    at_most: u64,
    place: usize,
}

/// The heaviest keys of a stream.
#[derive(Clone, Debug)]
pub struct Top {
    capacity: usize,
    entries: Vec<Entry>,
    /// Indices of entries, the one with the least `at_most` first.
    heap: Vec<usize>,
    index: HashTable<usize>,
    total: u64,
}

impl Top {
    /// Counts up to `capacity` keys, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            capacity,
            entries: Vec::with_capacity(capacity),
            heap: Vec::with_capacity(capacity),
            // Twice as many, so that those that were taken out never make it grow.
            index: HashTable::with_capacity(2 * capacity),
            total: 0,
        }
    }

    /// All that was added, halved as the counts were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Keys that are counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing was added, or all of it is forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a key weighs at most that is not counted.
    #[must_use]
    pub fn floor(&self) -> u64 {
        if self.entries.len() < self.capacity {
            return 0;
        }
        self.heap
            .first()
            .and_then(|&lightest| self.entries.get(lightest))
            .map_or(0, |entry| entry.at_most)
    }

    /// Keys (their first [`KEY_BYTES_MAX`] bytes) and what they weigh for certain, in no order.
    pub fn weights(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let entries = self.entries.iter();
        entries.map(|entry| (entry.key.get(), entry.at_least))
    }

    /// Adds to a key's weight. `hash` is the key's, always from the same function. Allocates nothing.
    pub fn add(&mut self, hash: u64, key: &[u8], weight: u64) {
        let key = key.get(..KEY_BYTES_MAX).unwrap_or(key);
        self.total = self.total.saturating_add(weight);
        let is_it = |&at: &usize| {
            let entry = self.entries.get(at);
            entry.is_some_and(|entry| entry.hash == hash && entry.key.get() == key)
        };
        let at = match self.index.find(hash, is_it) {
            Some(&at) => at,
            None if self.entries.len() < self.capacity => self.admit(hash, key),
            None => self.replace_lightest(hash, key),
        };
        if let Some(entry) = self.entries.get_mut(at) {
            entry.at_least = entry.at_least.saturating_add(weight);
            entry.at_most = entry.at_most.saturating_add(weight);
            let place = entry.place;
            self.sift_down(place);
        }
        debug_assert!(self.entries.len() == self.heap.len());
    }

    /// Halves every weight, so that what is past counts less with every call. Bounds are rounded
    /// outward and stay true; keys whose weight is gone are forgotten.
    pub fn halve(&mut self) {
        self.total = self.total.div_ceil(2);
        for entry in &mut self.entries {
            entry.at_least /= 2;
            entry.at_most = match entry.at_most {
                1 => 0,
                more => more.div_ceil(2),
            };
        }
        self.entries.retain(|entry| entry.at_most > 0);
        self.rebuild();
        self.check_invariants();
    }

    /// The `count` heaviest, by what they weigh at most, heaviest first.
    #[must_use]
    pub fn heaviest(&self, count: usize) -> Vec<HotKey> {
        let all = self.entries.iter().map(|entry| HotKey {
            key: entry.key.get().to_vec(),
            at_least: entry.at_least,
            at_most: entry.at_most,
        });
        sorted(all.collect(), count)
    }

    /// The heaviest of several streams, such as those of all workers: bounds add up, and a key that
    /// one of them does not count may weigh what that one's lightest does.
    #[must_use]
    pub fn heaviest_of<'a>(
        streams: impl IntoIterator<Item = &'a Self> + Clone,
        count: usize,
    ) -> Vec<HotKey> {
        let floors: u64 = streams.clone().into_iter().map(Self::floor).sum();
        let mut merged: hashbrown::HashMap<&[u8], HotKey, foldhash::fast::FixedState> =
            hashbrown::HashMap::default();
        for stream in streams {
            let floor = stream.floor();
            for entry in &stream.entries {
                let found = merged.entry(entry.key.get()).or_insert_with(|| HotKey {
                    key: entry.key.get().to_vec(),
                    at_least: 0,
                    at_most: floors,
                });
                found.at_least += entry.at_least;
                found.at_most += entry.at_most - floor.min(entry.at_most);
            }
        }
        sorted(merged.into_values().collect(), count)
    }

    fn admit(&mut self, hash: u64, key: &[u8]) -> usize {
        let at = self.entries.len();
        self.entries.push(Entry {
            hash,
            key: Name::of(key),
            at_least: 0,
            at_most: 0,
            place: self.heap.len(),
        });
        self.heap.push(at);
        self.sift_up(self.heap.len() - 1);
        self.enter(hash, at);
        at
    }

    fn replace_lightest(&mut self, hash: u64, key: &[u8]) -> usize {
        let at = self.heap.first().copied().unwrap_or_default();
        if let Some(entry) = self.entries.get_mut(at) {
            if let Ok(found) = self.index.find_entry(entry.hash, |&other| other == at) {
                found.remove();
            }
            entry.hash = hash;
            entry.key.set(key);
            entry.at_least = 0;
        }
        self.enter(hash, at);
        at
    }

    fn enter(&mut self, hash: u64, at: usize) {
        let entries = &self.entries;
        self.index.insert_unique(hash, at, |&other| {
            entries.get(other).map_or(0, |entry| entry.hash)
        });
    }

    fn rebuild(&mut self) {
        self.heap.clear();
        self.index.clear();
        for at in 0..self.entries.len() {
            let Some(entry) = self.entries.get_mut(at) else {
                continue;
            };
            entry.place = at;
            let hash = entry.hash;
            self.heap.push(at);
            self.enter(hash, at);
        }
        for place in (0..self.heap.len() / 2).rev() {
            self.sift_down(place);
        }
    }

    fn weight_at(&self, place: usize) -> u64 {
        let entry = self.heap.get(place).and_then(|&at| self.entries.get(at));
        entry.map_or(u64::MAX, |entry| entry.at_most)
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            if let Some(entry) = self
                .heap
                .get(place)
                .and_then(|&at| self.entries.get_mut(at))
            {
                entry.place = place;
            }
        }
    }

    fn sift_up(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.weight_at(parent) <= self.weight_at(place) {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let child = if self.weight_at(right) < self.weight_at(left) {
                right
            } else {
                left
            };
            if self.weight_at(place) <= self.weight_at(child) {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }

    fn check_invariants(&self) {
        debug_assert!(self.entries.len() <= self.capacity);
        debug_assert_eq!(self.entries.len(), self.heap.len());
        debug_assert_eq!(self.entries.len(), self.index.len());
        debug_assert!(
            (1..self.heap.len())
                .all(|place| self.weight_at((place - 1) / 2) <= self.weight_at(place)),
            "the lightest is not on top"
        );
        debug_assert!(
            self.entries
                .iter()
                .all(|entry| entry.at_least <= entry.at_most && entry.key.len <= KEY_BYTES_MAX)
        );
    }
}

/// Heaviest first; equal ones by name, so that the same stream gives the same list.
fn sorted(mut keys: Vec<HotKey>, count: usize) -> Vec<HotKey> {
    keys.sort_unstable_by(|a, b| {
        (b.at_most, b.at_least)
            .cmp(&(a.at_most, a.at_least))
            .then_with(|| a.key.cmp(&b.key))
    });
    keys.truncate(count);
    keys
}

#[cfg(test)]
mod tests;
