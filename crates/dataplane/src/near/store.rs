//! What a near cache keeps, within a number of bytes.
//!
//! Replies are found by the fingerprint of their key, as commands in flight are, and compared with
//! what was asked, byte for byte. When there is no more room, what
//! has lain longest goes, unless it was asked for since it was last looked at.

use std::{collections::VecDeque, time::Instant};

use hashbrown::HashMap;
use smallvec::SmallVec;

/// What an entry costs beside the question and its answer.
const ENTRY_BYTES: usize = 128;
/// Of one key so many answers: who asks something else each time is not helped by what is kept.
const ANSWERS_MAX: usize = 8;
/// The queue may have so many places of entries that are gone, for each that is there.
const GONE_MAX: usize = 2;

/// Whose values: those of a user in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Realm(pub(crate) u32);

#[derive(Debug)]
struct Entry<T> {
    request: Box<[u8]>,
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
        self.request.len() + self.reply.len() + ENTRY_BYTES
    }
}

/// Answers of all realms.
///
/// Invariants: `bytes` is what the entries cost, and at most `bytes_max` after every insertion;
/// every entry has a place in the queue; those of one key ask different things.
#[derive(Debug)]
pub(crate) struct Store<T> {
    entries: HashMap<(Realm, u32), SmallVec<[Entry<T>; 1]>, foldhash::fast::FixedState>,
    count: usize,
    queue: VecDeque<(Realm, u32, u64)>,
    places: u64,
    bytes: usize,
    bytes_max: usize,
}

impl<T: Copy + PartialEq> Store<T> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            entries: HashMap::default(),
            count: 0,
            queue: VecDeque::new(),
            places: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// The answer, if it is known, with who answers for it.
    pub(crate) fn get(
        &mut self,
        realm: Realm,
        (key, request): (u32, &[u8]),
        now: Instant,
    ) -> Option<(&[u8], T)> {
        let mut entries = self.entries.get_mut(&(realm, key))?.iter_mut();
        let entry = entries.find(|entry| *entry.request == *request)?;
        if entry.until.is_some_and(|until| until <= now) {
            return None;
        }
        entry.used = true;
        Some((&entry.reply, entry.home))
    }

    /// Whether nothing else than this is known to be the answer.
    pub(crate) fn holds(&self, realm: Realm, (key, request): (u32, &[u8]), reply: &[u8]) -> bool {
        let mut entries = self.entries.get(&(realm, key)).into_iter().flatten();
        let entry = entries.find(|entry| *entry.request == *request);
        entry.is_none_or(|entry| *entry.reply == *reply)
    }

    /// Whether one more answer of a key would be kept.
    pub(crate) fn has_room(&self, realm: Realm, key: u32, now: Instant) -> bool {
        let entries = self.entries.get(&(realm, key));
        entries.is_none_or(|entries| {
            let over = |entry: &Entry<T>| entry.until.is_some_and(|until| until <= now);
            entries.len() < ANSWERS_MAX || entries.iter().any(over)
        })
    }

    /// This is the answer, until then at most.
    pub(crate) fn insert(
        &mut self,
        realm: Realm,
        (key, request): (u32, &[u8]),
        reply: &[u8],
        (home, until): (T, Option<Instant>),
        now: Instant,
    ) {
        self.remove_if(realm, key, |entry| {
            *entry.request == *request || entry.until.is_some_and(|until| until <= now)
        });
        self.places += 1;
        let entry = Entry {
            request: request.into(),
            reply: reply.into(),
            home,
            until,
            used: false,
            place: self.places,
        };
        if entry.bytes() > self.bytes_max / 8 {
            return; // for one value many would have to go
        }
        let bytes = entry.bytes();
        let entries = self.entries.entry((realm, key)).or_default();
        if entries.len() >= ANSWERS_MAX {
            return;
        }
        entries.push(entry);
        self.bytes += bytes;
        self.count += 1;
        self.queue.push_back((realm, key, self.places));
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > self.bytes_max
            && let Some((realm, key, place)) = self.queue.pop_front()
        {
            let mut entries = self.entries.get_mut(&(realm, key)).into_iter().flatten();
            let Some(entry) = entries.find(|entry| entry.place == place) else {
                continue;
            };
            if std::mem::take(&mut entry.used) {
                self.queue.push_back((realm, key, place));
            } else {
                self.remove_if(realm, key, |entry| entry.place == place);
            }
        }
        if self.queue.len() > 64 + self.count * (GONE_MAX + 1) {
            let Self { queue, entries, .. } = self;
            queue.retain(|(realm, key, place)| {
                let mut entries = entries.get(&(*realm, *key)).into_iter().flatten();
                entries.any(|entry| entry.place == *place)
            });
        }
    }

    fn remove_if(&mut self, realm: Realm, key: u32, goes: impl Fn(&Entry<T>) -> bool) {
        let Some(entries) = self.entries.get_mut(&(realm, key)) else {
            return;
        };
        entries.retain(|entry| {
            let gone = goes(entry);
            self.bytes -= if gone { entry.bytes() } else { 0 };
            self.count -= usize::from(gone);
            !gone
        });
        if entries.is_empty() {
            self.entries.remove(&(realm, key));
        }
    }

    /// A key may hold something else. Returns how many answers there were.
    pub(crate) fn remove(&mut self, realm: Realm, key: u32) -> usize {
        let removed = self.entries.remove(&(realm, key)).unwrap_or_default();
        self.bytes -= removed.iter().map(Entry::bytes).sum::<usize>();
        self.count -= removed.len();
        removed.len()
    }

    /// Nobody answers for these any more. Returns how many there were.
    pub(crate) fn remove_of(&mut self, home: T) -> usize {
        let before = self.count;
        self.entries.retain(|_, entries| {
            entries.retain(|entry| entry.home != home);
            !entries.is_empty()
        });
        self.bytes = self.entries.values().flatten().map(Entry::bytes).sum();
        self.count = self.entries.values().map(SmallVec::len).sum();
        before - self.count
    }

    /// Returns how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.count;
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
        store.insert(
            REALM,
            (key, &key.to_le_bytes()),
            b"value",
            (home, None),
            start(),
        );
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
            assert_eq!(store.bytes, store.count * one);
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
            assert_eq!(store.remove(REALM, 1), 1);
        }
        assert!(store.queue.len() <= 65 && store.bytes == 0);
    }

    #[test]
    fn another_key_user_or_time_finds_nothing() {
        let now = start();
        let mut store = Store::new(100_000);
        let until = now + Duration::from_millis(5);
        let (home, never) = ((1_u8, Some(until)), (1, None));
        store.insert(REALM, (7, b"key"), b"value", home, now);
        let found = |store: &mut Store<u8>, realm, key: &[u8], now| {
            store.get(realm, (7, key), now).is_some()
        };
        assert!(found(&mut store, REALM, b"key", now));
        assert!(!found(&mut store, REALM, b"yek", now));
        assert!(!found(&mut store, Realm(1), b"key", now));
        assert!(!found(&mut store, REALM, b"key", until));
        store.insert(REALM, (8, b"big"), &[0; 20_000], never, now);
        assert!(store.get(REALM, (8, b"big"), now).is_none(), "too big");
    }

    #[test]
    fn the_answers_of_a_key_are_few_apart_and_go_together() {
        let now = start();
        let mut store = Store::new(100_000);
        let keep = |store: &mut Store<u8>, question: u8, until| {
            store.insert(REALM, (7, &[question]), &[question], (1, until), now);
        };
        let most = u8::try_from(ANSWERS_MAX).unwrap_or_default();
        for question in 0..most {
            assert!(store.has_room(REALM, 7, now));
            keep(&mut store, question, None);
            keep(&mut store, question, None);
        }
        assert!(!store.has_room(REALM, 7, now));
        keep(&mut store, most, None);
        assert!(store.get(REALM, (7, &[most]), now).is_none());
        for question in 0..most {
            let found = store.get(REALM, (7, &[question]), now);
            assert_eq!(found, Some((&[question][..], 1)));
            assert!(store.holds(REALM, (7, &[question]), &[question]));
            assert!(!store.holds(REALM, (7, &[question]), &[most]));
        }
        assert!(store.holds(REALM, (7, &[most]), &[0]), "it is not known");
        // What is over makes room.
        let soon = now + Duration::from_millis(1);
        keep(&mut store, 0, Some(soon));
        assert!(store.has_room(REALM, 7, soon));
        store.insert(REALM, (7, &[most]), &[most], (1, None), soon);
        assert!(store.get(REALM, (7, &[most]), soon).is_some());
        assert_eq!(store.remove(REALM, 7), ANSWERS_MAX);
        assert_eq!((store.bytes, store.count), (0, 0));
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
