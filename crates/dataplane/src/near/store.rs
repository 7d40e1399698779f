//! What a near cache keeps, within a number of bytes.
//!
//! Values are found by the fingerprint of their key, as commands in flight are, and compared with
//! the key itself; of two keys with one fingerprint one is kept. When there is no more room, what
//! has lain longest goes, unless it was asked for since it was last looked at.

use std::{collections::VecDeque, time::Instant};

use hashbrown::HashMap;

/// What an entry costs beside its key and its value.
const ENTRY_BYTES: usize = 128;
/// The queue may have so many places of entries that are gone, for each that is there.
const GONE_MAX: usize = 2;

/// Whose values: those of a user in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Realm(pub(crate) u32);

#[derive(Debug)]
struct Entry<T> {
    key: Box<[u8]>,
    reply: Box<[u8]>,
    /// Who answers for it.
    home: T,
    until: Option<Instant>,
    used: bool,
    /// Its place in the queue; an older one of the same key is not its own.
    place: u64,
}

impl<T> Entry<T> {
    fn bytes(&self) -> usize {
        self.key.len() + self.reply.len() + ENTRY_BYTES
    }
}

/// Values of all realms.
///
/// Invariants: `bytes` is what the entries cost, and at most `bytes_max` after every insertion;
/// every entry has a place in the queue.
#[derive(Debug)]
pub(crate) struct Store<T> {
    entries: HashMap<(Realm, u32), Entry<T>, foldhash::fast::FixedState>,
    queue: VecDeque<(Realm, u32, u64)>,
    places: u64,
    bytes: usize,
    bytes_max: usize,
}

impl<T: Copy + PartialEq> Store<T> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            entries: HashMap::default(),
            queue: VecDeque::new(),
            places: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// What a key holds, if it is known, with who answers for it.
    pub(crate) fn get(
        &mut self,
        realm: Realm,
        (fingerprint, key): (u32, &[u8]),
        now: Instant,
    ) -> Option<(&[u8], T)> {
        let entry = self.entries.get_mut(&(realm, fingerprint))?;
        if *entry.key != *key || entry.until.is_some_and(|until| until <= now) {
            return None;
        }
        entry.used = true;
        Some((&entry.reply, entry.home))
    }

    /// Whether nothing else than this is known.
    pub(crate) fn holds(&self, realm: Realm, fingerprint: u32, reply: &[u8]) -> bool {
        let entry = self.entries.get(&(realm, fingerprint));
        entry.is_none_or(|entry| *entry.reply == *reply)
    }

    /// A key holds this, until then at most.
    pub(crate) fn insert(
        &mut self,
        realm: Realm,
        (fingerprint, key): (u32, &[u8]),
        reply: &[u8],
        home: T,
        until: Option<Instant>,
    ) {
        self.remove(realm, fingerprint);
        self.places += 1;
        let entry = Entry {
            key: key.into(),
            reply: reply.into(),
            home,
            until,
            used: false,
            place: self.places,
        };
        if entry.bytes() > self.bytes_max / 8 {
            return; // for one value many would have to go
        }
        self.bytes += entry.bytes();
        self.queue.push_back((realm, fingerprint, self.places));
        self.entries.insert((realm, fingerprint), entry);
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > self.bytes_max
            && let Some((realm, fingerprint, place)) = self.queue.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&(realm, fingerprint)) else {
                continue;
            };
            if entry.place != place {
                continue;
            }
            if std::mem::take(&mut entry.used) {
                self.queue.push_back((realm, fingerprint, place));
            } else {
                self.remove(realm, fingerprint);
            }
        }
        if self.queue.len() > 64 + self.entries.len() * (GONE_MAX + 1) {
            let Self { queue, entries, .. } = self;
            queue.retain(|(realm, fingerprint, place)| {
                let entry = entries.get(&(*realm, *fingerprint));
                entry.is_some_and(|entry| entry.place == *place)
            });
        }
    }

    /// A key may hold something else. Returns whether it was known.
    pub(crate) fn remove(&mut self, realm: Realm, fingerprint: u32) -> bool {
        let removed = self.entries.remove(&(realm, fingerprint));
        self.bytes -= removed.as_ref().map_or(0, Entry::bytes);
        removed.is_some()
    }

    /// Nobody answers for these any more. Returns how many there were.
    pub(crate) fn remove_of(&mut self, home: T) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.home != home);
        self.bytes = self.entries.values().map(Entry::bytes).sum();
        before - self.entries.len()
    }

    /// Returns how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.entries.len();
        *self = Self::new(self.bytes_max);
        count
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const REALM: Realm = Realm(0);

    #[expect(
        clippy::disallowed_methods,
        reason = "the only way to an `Instant`; everything later is counted from it"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn shows(store: &mut Store<u8>, key: u32, now: Instant) -> Option<Vec<u8>> {
        let found = store.get(REALM, (key, &key.to_le_bytes()), now);
        found.map(|(reply, _)| reply.to_vec())
    }

    fn keep(store: &mut Store<u8>, key: u32, home: u8) {
        store.insert(REALM, (key, &key.to_le_bytes()), b"value", home, None);
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_makes_room() {
        let now = start();
        let one = 4 + 5 + ENTRY_BYTES;
        let mut store = Store::new(10 * one);
        for key in 0..10_000 {
            keep(&mut store, key, 0);
            assert!(store.bytes <= store.bytes_max);
            assert!(store.queue.len() <= 64 + 33);
            assert_eq!(store.bytes, store.entries.len() * one);
            assert!(shows(&mut store, 0, now).is_some(), "asked for at {key}");
        }
        assert!(shows(&mut store, 5000, now).is_none());
        assert!(shows(&mut store, 9999, now).is_some());
    }

    #[test]
    fn what_changes_again_and_again_needs_no_more_room() {
        let mut store = Store::new(100_000);
        for _ in 0..10_000 {
            keep(&mut store, 1, 0);
            assert!(store.remove(REALM, 1));
        }
        assert!(store.queue.len() <= 65 && store.bytes == 0);
    }

    #[test]
    fn another_key_user_or_time_finds_nothing() {
        let now = start();
        let mut store = Store::new(100_000);
        let until = now + Duration::from_millis(5);
        store.insert(REALM, (7, b"key"), b"value", 1_u8, Some(until));
        let found = |store: &mut Store<u8>, realm, key: &[u8], now| {
            store.get(realm, (7, key), now).is_some()
        };
        assert!(found(&mut store, REALM, b"key", now));
        assert!(!found(&mut store, REALM, b"yek", now));
        assert!(!found(&mut store, Realm(1), b"key", now));
        assert!(!found(&mut store, REALM, b"key", until));
        store.insert(REALM, (8, b"big"), &[0; 20_000], 1, None);
        assert!(store.get(REALM, (8, b"big"), now).is_none(), "too big");
    }

    #[test]
    fn a_home_takes_its_own_with_it() {
        let now = start();
        let mut store = Store::new(100_000);
        (0..10).for_each(|key| keep(&mut store, key, u8::try_from(key % 2).unwrap_or_default()));
        assert_eq!(store.remove_of(1), 5);
        assert!(shows(&mut store, 1, now).is_none() && shows(&mut store, 2, now).is_some());
        assert_eq!(store.clear(), 5);
        assert_eq!(store.bytes(), 0);
    }
}
