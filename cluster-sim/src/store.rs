//! One node's keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use topology::Slot;

use crate::{ordered::Ordered, zset::SortedSet};

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Str(Vec<u8>),
    Hash(Ordered<Vec<u8>>),
    List(VecDeque<Vec<u8>>),
    Set(Ordered<()>),
    Sorted(SortedSet),
}

impl Data {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Str(_) => "string",
            Self::Hash(_) => "hash",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Sorted(_) => "zset",
        }
    }

    /// An aggregate without elements does not exist.
    fn is_gone(&self) -> bool {
        match self {
            Self::Str(_) => false,
            Self::Hash(hash) => hash.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Sorted(sorted) => sorted.is_empty(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) data: Data,
    /// Milliseconds since 1970.
    pub(crate) expires_at: Option<u64>,
}

/// Keys with values and expiry. Everything that looks at a key sees it gone once it has expired.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Keys that were set or removed in this turn of the node's loop.
    changed: BTreeSet<Vec<u8>>,
    unsaid: Changes,
}

/// What has changed since somebody asked, in its order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) keys: Vec<Vec<u8>>,
    /// All of them.
    pub(crate) all: bool,
}

impl Store {
    /// What has changed since this was asked last, if anything has.
    pub(crate) fn take_unsaid(&mut self) -> Option<Changes> {
        let changed = self.unsaid.all || !self.unsaid.keys.is_empty();
        changed.then(|| std::mem::take(&mut self.unsaid))
    }

    /// What has changed in the turn that ends.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.changed)
    }

    fn note(&mut self, key: &[u8]) {
        self.unsaid.keys.push(key.to_vec());
        self.changed.insert(key.to_vec());
    }

    /// A command that changes what is there has run.
    pub(crate) fn note_changed(&mut self, key: &[u8]) {
        if self.entries.contains_key(key) {
            self.note(key);
        }
    }

    /// So many changes nobody has been told of.
    pub(crate) fn unsaid(&self) -> usize {
        self.unsaid.keys.len() + usize::from(self.unsaid.all)
    }

    /// Has what another store has, as if what differs had been written here.
    pub(crate) fn follow(&mut self, other: &Self) {
        let differs = |one: &Self, key: &[u8]| one.entries.get(key) != other.entries.get(key);
        let all = self.entries.keys().chain(other.entries.keys());
        let differing: BTreeSet<Vec<u8>> = all.filter(|key| differs(self, key)).cloned().collect();
        differing.iter().for_each(|key| self.note(key));
        self.entries.clone_from(&other.entries);
    }

    /// Drops a key that has expired at `now` (milliseconds since 1970) or has become empty.
    fn settle(&mut self, key: &[u8], now: u64) {
        let over = self.entries.get(key).is_some_and(|entry| {
            entry.data.is_gone() || entry.expires_at.is_some_and(|at| at <= now)
        });
        if over {
            self.note(key);
            self.entries.remove(key);
        }
    }

    pub(crate) fn get(&mut self, key: &[u8], now: u64) -> Option<&mut Entry> {
        self.settle(key, now);
        self.entries.get_mut(key)
    }

    pub(crate) fn exists(&mut self, key: &[u8], now: u64) -> bool {
        self.get(key, now).is_some()
    }

    /// The value at a key, made by `make` when there is none. Call [`Store::tidy`] afterwards.
    pub(crate) fn get_or(&mut self, key: &[u8], now: u64, make: fn() -> Data) -> &mut Data {
        self.settle(key, now);
        self.note(key);
        let entry = self.entries.entry(key.to_vec());
        &mut entry
            .or_insert_with(|| Entry {
                data: make(),
                expires_at: None,
            })
            .data
    }

    /// Sets a value; its expiry goes.
    pub(crate) fn set(&mut self, key: &[u8], data: Data, expires_at: Option<u64>) {
        self.note(key);
        self.entries
            .insert(key.to_vec(), Entry { data, expires_at });
    }

    pub(crate) fn put(&mut self, key: &[u8], entry: Entry) {
        self.note(key);
        self.entries.insert(key.to_vec(), entry);
    }

    pub(crate) fn remove(&mut self, key: &[u8], now: u64) -> Option<Entry> {
        self.settle(key, now);
        let removed = self.entries.remove(key);
        if removed.is_some() {
            self.note(key);
        }
        removed
    }

    /// Removes the key if its aggregate has become empty.
    pub(crate) fn tidy(&mut self, key: &[u8]) {
        if self
            .entries
            .get(key)
            .is_some_and(|entry| entry.data.is_gone())
        {
            self.entries.remove(key);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.unsaid.all = true;
        self.entries.clear();
    }

    /// All living keys, sorted.
    pub(crate) fn keys(&mut self, now: u64) -> Vec<Vec<u8>> {
        self.entries
            .retain(|_, entry| entry.expires_at.is_none_or(|at| at > now));
        self.entries.keys().cloned().collect()
    }

    pub(crate) fn keys_in(&mut self, slot: Slot, now: u64) -> Vec<Vec<u8>> {
        let mut keys = self.keys(now);
        keys.retain(|key| Slot::of_key(key) == slot);
        keys
    }
}
