//! What nodes answer to reads of keys with chosen prefixes, and of those that many ask for, kept near
//! their readers and kept true by Valkey itself.
//!
//! To each primary there is a connection of its own, for each user and database, on which the node
//! tells of every change to a key with one of the prefixes (`CLIENT TRACKING ON BCAST`), and another one,
//! for keys that are hot, on which it tells of changes to what was read there. What is kept is
//! asked for on that same connection: so a node's answers and what it tells of changes are in one
//! stream, and a value that came before the news of its change is dropped by it. The rules:
//!
//! - A value is kept when the time that it has left (`PTTL`) and it are there, in this order, and no news
//!   of its key came since it was asked for. It goes with the news, and when its time is over. That there
//!   is no such key is kept for [`STALE_MAX`]: when its slot moves away there is nothing to delete, and
//!   so no news.
//! - It is served while its connection has proved within [`STALE_MAX`] that no news is under way: by
//!   the answer to something asked since, about a key, for a primary that its cluster has lost still
//!   answers `PING`. With its connection all that it answers for is dropped,
//!   and everything with a change of the topology.
//! - A client's own write drops what it wrote to before the client has the reply, and whatever is
//!   asked for at that moment is not kept. Behind a command of its own on the key, and while it
//!   watches keys, a client is not served from here.
//! - What a node has told a client and is not what is kept here as the answer drops all that is kept of
//!   the key: nobody reads something newer first and then this.
//! - Answers are to what was asked byte for byte, and asked for with the very bytes that a client sent.
//!
//! Owns the connections, the questions on them, what is kept. Never here: which commands there are.

mod homes;
mod hot;
mod store;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use command::{Command, CommandId, CommandTable};
use hashbrown::HashMap;
use heat::{HotKeys, KEY_BYTES_MAX};
use resp::Value;
use routing::Keys;
use topology::NodeAddr;

use crate::{slots::Key, ticket::Ticket};

use self::{
    hot::HotOnes,
    store::{Realm, Store},
};

/// A value is served for so long after the last proof that it is still true.
pub const STALE_MAX: Duration = Duration::from_secs(1);
/// One whose user may not do what it needs, after this.
const REFUSED: Duration = Duration::from_secs(30);
/// What RESP3 says for nothing, as it is kept for RESP2 too.
const NOTHING: &[u8] = b"_\r\n";
/// A bigger value is not kept.
const VALUE_BYTES_MAX: usize = 32 * 1024;
/// Users and databases at a time.
const REALMS_MAX: usize = 64;

/// Why a key is kept, and so what its connection tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It begins like one that was named: every change to any such key.
    Named,
    /// Many ask for it: a change to what was read on the connection, once.
    Hot,
}

/// A connection that tells of changes.
#[derive(Debug)]
struct Home {
    realm: Realm,
    why: Why,
    addr: NodeAddr,
    channel: Option<Key>,
    /// It tells of them.
    tracks: bool,
    /// Everything that had changed by then is known.
    proved_at: Option<Instant>,
    probing: bool,
    /// A key that is kept and the node answers for, if it still does.
    sample: Option<Box<[u8]>>,
    /// The node answers for it no more: all that is kept is given up.
    disowned: bool,
    again_at: Instant,
}

#[derive(Debug)]
struct Known {
    realm: Realm,
    identity: Key,
    database: u32,
    used_at: Instant,
}

#[derive(Debug)]
enum What {
    Track,
    Probe,
    Fetch {
        realm: Realm,
        fingerprint: u32,
        key: Box<[u8]>,
        request: Box<[u8]>,
        /// What the node answered to `PTTL`, in milliseconds; -1 for ever, -2 for no such key.
        left_ms: Option<i64>,
        /// What a client was told meanwhile.
        told: Option<Box<[u8]>>,
        /// It may have changed since.
        spoiled: bool,
    },
}

/// Something asked on a connection of a cache.
#[derive(Debug)]
struct Question {
    channel: Key,
    asked_at: Instant,
    what: What,
}

/// Rates of less time than this say nothing.
const SPAN_MIN: Duration = Duration::from_secs(1);
/// The parts of a question.
const FIRST: u16 = 0;
const LAST: u16 = 1;

/// What is kept near, and how.
#[derive(Debug)]
pub(crate) struct Near {
    on: bool,
    hot: HotOnes,
    prefixes: Arc<[Box<[u8]>]>,
    /// Commands whose replies are kept, by their ids.
    kept: Box<[bool]>,
    store: Store<Key>,
    realms: Vec<Known>,
    homes: Vec<Home>,
    questions: HashMap<u32, Question, foldhash::fast::FixedState>,
    fetching: HashMap<(Realm, u32), u32, foldhash::fast::FixedState>,
    numbers: u32,
    hasher: foldhash::fast::FixedState,
}

impl Near {
    pub(crate) fn new(
        prefixes: Arc<[Box<[u8]>]>,
        ops_min: usize,
        bytes_max: usize,
        hasher: foldhash::fast::FixedState,
    ) -> Self {
        let hot = HotOnes::new(ops_min);
        Self {
            on: !prefixes.is_empty() || hot.is_on(),
            hot,
            prefixes,
            kept: CommandTable::builtin()
                .iter()
                .map(Command::is_of_one_key)
                .collect(),
            store: Store::new(bytes_max),
            realms: Vec::new(),
            homes: Vec::new(),
            questions: HashMap::default(),
            fetching: HashMap::default(),
            numbers: 0,
            hasher,
        }
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Whether the replies of a command are kept.
    #[inline]
    pub(crate) fn keeps(&self, command: CommandId) -> bool {
        self.kept.get(command.index()).is_some_and(|kept| *kept)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// Why a key that is read now is kept, if it is.
    fn covers(&mut self, fingerprint: u32, key: &[u8]) -> Option<Why> {
        let mut prefixes = self.prefixes.iter();
        if prefixes.any(|prefix| key.starts_with(prefix)) {
            return Some(Why::Named);
        }
        self.hot.reads(fingerprint, key).then_some(Why::Hot)
    }

    /// The sketch has changed: hot keys come, and go with their values when they have cooled.
    fn follow(&mut self, heat: &HotKeys, age: Duration, now: Instant) -> usize {
        let mut dropped = 0;
        for fingerprint in self.hot.tick(now) {
            dropped += self.forget(fingerprint);
        }
        let span = heat.span(age).max(SPAN_MIN).as_secs_f64();
        for (key, weight) in heat.by_operations().weights() {
            let ops = weight as f64 / span;
            // Of a longer one the rest is not known.
            if self.hot.is_enough(ops) && key.len() < KEY_BYTES_MAX {
                let mut one = Keys::none();
                one.push(key, &self.hasher);
                if let Some(fingerprint) = one.single() {
                    self.hot.seen(fingerprint, key, ops, now);
                }
            }
        }
        dropped
    }

    fn number(&mut self, channel: Key, what: What, now: Instant) -> u32 {
        self.numbers = self.numbers.wrapping_add(1);
        let question = Question {
            channel,
            asked_at: now,
            what,
        };
        self.questions.insert(self.numbers, question);
        self.numbers
    }

    fn home_on(&mut self, channel: Key) -> Option<&mut Home> {
        let mut homes = self.homes.iter_mut();
        homes.find(|home| home.channel == Some(channel))
    }

    fn realm_of(&self, identity: Key, database: u32) -> Option<Realm> {
        let mut realms = self.realms.iter();
        let known = realms.find(|known| known.identity == identity && known.database == database);
        known.map(|known| known.realm)
    }

    /// The realm of a user and a database, which somebody has use for.
    fn realm(&mut self, identity: Key, database: u32, now: Instant) -> Option<Realm> {
        let mut realms = self.realms.iter_mut();
        let known = realms.find(|known| known.identity == identity && known.database == database);
        if let Some(known) = known {
            known.used_at = now;
            return Some(known.realm);
        }
        if self.realms.len() >= REALMS_MAX {
            return None;
        }
        self.numbers = self.numbers.wrapping_add(1);
        let realm = Realm(self.numbers);
        self.realms.push(Known {
            realm,
            identity,
            database,
            used_at: now,
        });
        Some(realm)
    }

    /// The answer, if it is kept and proved to be true.
    fn find(&mut self, realm: Realm, asked: (u32, &[u8]), now: Instant) -> Option<&[u8]> {
        let (reply, home) = self.store.get(realm, asked, now)?;
        let mut homes = self.homes.iter();
        let home = homes.find(|known| known.channel == Some(home))?;
        let proved = home.proved_at.is_some_and(|at| at + STALE_MAX > now);
        (proved && home.tracks).then_some(reply)
    }

    /// A key may hold something else.
    fn forget(&mut self, fingerprint: u32) -> usize {
        let realms = std::mem::take(&mut self.realms);
        let forgotten = realms
            .iter()
            .map(|known| self.forget_in(known.realm, fingerprint));
        let count = forgotten.sum();
        self.realms = realms;
        count
    }

    fn forget_in(&mut self, realm: Realm, fingerprint: u32) -> usize {
        if let Some(number) = self.fetching.get(&(realm, fingerprint))
            && let Some(question) = self.questions.get_mut(number)
            && let What::Fetch { spoiled, .. } = &mut question.what
        {
            *spoiled = true;
        }
        self.store.remove(realm, fingerprint)
    }

    /// Any key may hold something else.
    pub(crate) fn forget_all(&mut self) -> usize {
        for question in self.questions.values_mut() {
            if let What::Fetch { spoiled, .. } = &mut question.what {
                *spoiled = true;
            }
        }
        self.store.clear()
    }

    /// A client's command on these keys, which may have written, has had its outcome.
    pub(crate) fn wrote(&mut self, keys: &Keys) {
        if keys.are_all() {
            self.forget_all();
        }
        for fingerprint in keys.fingerprints() {
            self.forget(fingerprint);
        }
    }

    /// A node has told a client what the answer is, to something about a key: if something else is kept,
    /// the key has changed.
    pub(crate) fn told(
        &mut self,
        (identity, database): (Key, u32),
        fingerprint: u32,
        (asked, reply): (Option<&[u8]>, &[u8]),
    ) {
        let Some(realm) = self.realm_of(identity, database) else {
            return;
        };
        let Some(asked) = asked else {
            self.forget_in(realm, fingerprint);
            return;
        };
        let reply = plain(reply);
        if !self.store.holds(realm, (fingerprint, asked), reply) {
            self.forget_in(realm, fingerprint);
        }
        let Some(number) = self.fetching.get(&(realm, fingerprint)) else {
            return;
        };
        if let Some(question) = self.questions.get_mut(number)
            && let What::Fetch {
                request,
                told,
                spoiled,
                ..
            } = &mut question.what
            && **request == *asked
        {
            let other = told.as_ref().is_some_and(|told| **told != *reply);
            *spoiled |= other || reply.len() > VALUE_BYTES_MAX;
            if told.is_none() && !*spoiled {
                *told = Some(reply.into());
            }
        }
    }

    /// A node tells of changes: what stands behind the word. Returns what was dropped for it.
    pub(crate) fn invalidated(&mut self, news: &[u8]) -> usize {
        let Ok((Value::Array(keys), _)) = Value::parse(news) else {
            return self.forget_all(); // of all keys
        };
        let mut count = 0;
        for key in &keys {
            let mut one = Keys::none();
            one.push(key.as_bytes().unwrap_or_default(), &self.hasher);
            count += one.single().map_or(0, |key| self.forget(key));
        }
        count
    }

    /// A node has answered.
    pub(crate) fn answered(&mut self, ticket: &Ticket, bytes: &[u8], done: bool, now: Instant) {
        let number = ticket.place.0;
        let Some(question) = self.questions.get_mut(&number) else {
            return;
        };
        if let What::Fetch {
            left_ms, spoiled, ..
        } = &mut question.what
        {
            if ticket.part == FIRST {
                let number = bytes.strip_prefix(b":").map(<[u8]>::trim_ascii_end);
                *left_ms = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
                return;
            }
            if !done {
                *spoiled = true; // too big
                return;
            }
        }
        let Some(Question {
            channel,
            asked_at,
            what,
        }) = self.questions.remove(&number)
        else {
            return;
        };
        if let Some(home) = self.home_on(channel) {
            home.proved_at = home.proved_at.max(Some(asked_at));
            match what {
                What::Track => home.tracks = true,
                What::Probe => home.probing = false,
                What::Fetch { .. } => {}
            }
        }
        if let What::Fetch { .. } = what {
            self.fetched(channel, (what, asked_at), bytes, now);
        }
    }

    /// Everything about a value is there.
    fn fetched(
        &mut self,
        home: Key,
        (what, asked_at): (What, Instant),
        value: &[u8],
        now: Instant,
    ) {
        let What::Fetch {
            realm,
            fingerprint,
            key,
            request,
            left_ms,
            told,
            spoiled,
        } = what
        else {
            return;
        };
        self.fetching.remove(&(realm, fingerprint));
        // It was asked for before the node counted what is left.
        let until = match left_ms {
            Some(-1) => None,
            Some(-2) => Some(asked_at + STALE_MAX),
            Some(left) if left > 0 => Some(asked_at + Duration::from_millis(left.unsigned_abs())),
            _ => return,
        };
        let value = plain(value);
        let is_one = matches!(value.first(), Some(b'$' | b':' | b'_'));
        let is_other = told.is_some_and(|told| *told != *value);
        let is_over = until.is_some_and(|until| until <= now);
        if spoiled || is_other || is_over || !is_one || value.len() > VALUE_BYTES_MAX {
            return;
        }
        let asked = (fingerprint, &*request);
        self.store.insert(realm, asked, value, (home, until), now);
        if let Some(home) = self.home_on(home) {
            home.sample = Some(key);
        }
    }

    /// A node has refused.
    pub(crate) fn refused(&mut self, ticket: &Ticket, now: Instant) {
        let number = ticket.place.0;
        let Some(question) = self.questions.get_mut(&number) else {
            return;
        };
        if let What::Fetch { spoiled, .. } = &mut question.what
            && ticket.part == FIRST
        {
            *spoiled = true;
            return;
        }
        let Some(question) = self.questions.remove(&number) else {
            return;
        };
        match question.what {
            What::Fetch {
                realm, fingerprint, ..
            } => {
                self.fetching.remove(&(realm, fingerprint));
            }
            // The user may not have it tell of changes.
            What::Track => {
                if let Some(home) = self.home_on(question.channel) {
                    home.tracks = false;
                    home.proved_at = None;
                    home.again_at = now + REFUSED;
                }
                self.store.remove_of(question.channel);
            }
            // The node is not what it was: it owns the slot no more, or has lost its cluster.
            What::Probe => {
                if let Some(home) = self.home_on(question.channel) {
                    home.proved_at = None;
                    home.disowned = true;
                }
                self.store.remove_of(question.channel);
            }
        }
    }

    /// A connection is over. Returns how many values it answered for.
    fn lost(&mut self, channel: Key, again_at: Instant) -> usize {
        self.questions
            .retain(|_, question| question.channel != channel);
        let Self {
            fetching,
            questions,
            ..
        } = self;
        fetching.retain(|_, number| questions.contains_key(number));
        if let Some(home) = self.home_on(channel) {
            home.channel = None;
            home.tracks = false;
            home.proved_at = None;
            home.probing = false;
            home.again_at = again_at.max(home.again_at);
        }
        self.store.remove_of(channel)
    }
}

/// Nothing is said alike in both protocols.
fn plain(reply: &[u8]) -> &[u8] {
    if reply == b"$-1\r\n" { NOTHING } else { reply }
}

#[cfg(test)]
mod tests;
