//! A map that remembers the order of insertion, so that nothing depends on a hasher's seed.

use std::collections::{BTreeMap, HashMap};

/// Keys and values in the order in which the keys were inserted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ordered<V> {
    entries: HashMap<Vec<u8>, (u64, V)>,
    order: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl<V> Ordered<V> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    /// Sets a value; returns the former one. A known key keeps its place.
    pub(crate) fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        if let Some((_, known)) = self.entries.get_mut(key) {
            return Some(std::mem::replace(known, value));
        }
        self.entries.insert(key.to_vec(), (self.next, value));
        self.order.insert(self.next, key.to_vec());
        self.next += 1;
        None
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let (place, value) = self.entries.remove(key)?;
        self.order.remove(&place);
        Some(value)
    }

    /// Takes out the key that was inserted first.
    pub(crate) fn pop_first(&mut self) -> Option<Vec<u8>> {
        let (_, key) = self.order.pop_first()?;
        self.entries.remove(&key);
        Some(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.order.values()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &V)> {
        self.order
            .values()
            .filter_map(|key| Some((key, &self.entries.get(key)?.1)))
    }
}
