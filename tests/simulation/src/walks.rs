//! Commands about all keys: what a `SCAN` through the whole cluster shows, and what all shards
//! together say.
//!
//! A walk shows every key that was there before it began and stays: lists, which nobody deletes.
//! Excused are keys in slots that were being moved key by key meanwhile (no server promises more)
//! and keys that were set back when a primary died.

use std::collections::BTreeSet;

use resp::Value;
use topology::Slot;

use crate::{
    client::Client,
    history::{History, Violation},
    others,
    rng::Rng,
    speech::{self, Sent},
    weather::Weather,
};

/// A walk's place among all.
type WalkId = usize;

#[derive(Debug)]
struct Walk {
    client: usize,
    begun: u64,
    found: BTreeSet<String>,
    /// Slots that were being moved key by key.
    moving: BTreeSet<u16>,
    over: bool,
}

/// All walks of a run.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    all: Vec<Walk>,
    /// When a script was first known to be loaded everywhere.
    loaded: bool,
}

impl Walks {
    /// A slot is being moved key by key.
    pub(crate) fn is_moving(&mut self, slot: u16) {
        for walk in self.all.iter_mut().filter(|walk| !walk.over) {
            walk.moving.insert(slot);
        }
    }
}

impl History {
    /// Everything that was there all the time was shown.
    pub(crate) fn check_walks(&self, weather: &Weather) -> Result<(), Violation> {
        // Whoever makes up an `ASK` is asked for its page without knowing whose slot it is.
        let walks = self.walks.all.iter().filter(|walk| walk.over);
        for walk in walks.filter(|_| !weather.misdirections) {
            let missed = speech::lists().find(|key| {
                let slot = Slot::of_key(key.as_bytes()).get();
                let excused = walk.moving.contains(&slot) || self.is_damaged(key);
                !excused && !walk.found.contains(key) && self.was_there(key, walk.begun)
            });
            if let Some(key) = missed {
                let client = walk.client;
                return Err(format!(
                    "scan: client {client} went through all keys and was not shown {key}: {:?}",
                    walk.found
                ));
            }
        }
        Ok(())
    }

    /// How many lists were there all the time since.
    fn lists_there(&self, since: u64) -> usize {
        let there = |key: &String| self.was_there(key, since) && !self.is_damaged(key);
        speech::lists().filter(there).count()
    }
}

/// A key that somebody has written, as far as its name tells.
fn is_a_key(name: &str) -> bool {
    speech::lists()
        .chain(speech::queues())
        .chain(others::shared())
        .any(|key| key == name)
        || {
            let (tag, rest) = name.split_once("}:r").unwrap_or_default();
            let tag = tag.strip_prefix('{');
            tag.is_some_and(|tag| speech::TAGS.contains(&tag)) && rest.parse::<usize>().is_ok()
        }
}

fn names(value: &Value) -> Result<Vec<String>, Violation> {
    let items = value.as_array().ok_or_else(|| format!("scan: {value:?}"))?;
    let names = items.iter().map(|item| {
        let name = item.as_str().filter(|name| is_a_key(name));
        let name = name.ok_or_else(|| format!("identity: {item:?} is no key"))?;
        Ok(name.to_owned())
    });
    names.collect()
}

impl Client {
    /// Something about all keys, or about several of its own.
    pub(crate) fn ask_all(&mut self, rng: &mut Rng, history: &mut History) {
        let since = history.tick();
        match rng.below(11) {
            0 => self.say(&["DBSIZE"], Sent::Size { since }),
            1 => self.say(&["KEYS", "*"], Sent::Keys { since }),
            2 => self.say(&["SCRIPT", "LOAD", speech::PUSH], Sent::Load),
            3 => {
                let since = history.walks.loaded;
                let args = ["SCRIPT", "EXISTS", speech::PUSH_SHA1];
                self.say(&args, Sent::Loaded { since });
            }
            4 | 5 => self.count_or_delete(rng),
            6 => self.list(history),
            7 => self.kill(history),
            _ => self.walk(rng, history),
        }
    }

    /// About some of its own keys.
    pub(crate) fn count_or_delete(&mut self, rng: &mut Rng) {
        let keys = self.own_keys(rng);
        let word = ["DEL", "UNLINK", "EXISTS", "TOUCH"][rng.below(4)];
        self.say_of(word, &keys);
        self.sent.push_back(match word {
            "DEL" | "UNLINK" => Sent::Delete(keys),
            _ => Sent::Count(keys),
        });
    }

    /// Its next page, if it does not wait for one.
    fn walk(&mut self, rng: &mut Rng, history: &mut History) {
        let waits = self.sent.iter().any(|s| matches!(s, Sent::Page(_)));
        if waits || self.readonly {
            return;
        }
        let (walk, cursor) = match self.walk.clone() {
            Some(walk) => walk,
            None => {
                let moving = history.moving.clone();
                let begun = history.tick();
                history.walks.all.push(Walk {
                    client: self.number,
                    begun,
                    found: BTreeSet::new(),
                    moving,
                    over: false,
                });
                (history.walks.all.len() - 1, "0".to_owned())
            }
        };
        self.walk = Some((walk, cursor.clone()));
        let count = rng.up_to(6).to_string();
        self.say(&["SCAN", &cursor, "COUNT", &count], Sent::Page(walk));
    }

    fn page(
        &mut self,
        walk: WalkId,
        reply: &Value,
        history: &mut History,
    ) -> Result<(), Violation> {
        let Some([cursor, keys]) = reply.as_array() else {
            return Err(format!("scan: {reply:?}"));
        };
        let keys = names(keys)?;
        let walk_of = &mut history.walks.all[walk];
        walk_of.found.extend(keys);
        let cursor = cursor.as_str().unwrap_or_default().to_owned();
        walk_of.over = cursor == "0";
        self.walk = (!walk_of.over).then_some((walk, cursor));
        Ok(())
    }

    /// The reply to something about all keys, several or all clients; `None`: it was something else.
    pub(crate) fn check_all(
        &mut self,
        sent: &Sent,
        reply: &Value,
        history: &mut History,
        weather: &Weather,
    ) -> Option<Result<(), Violation>> {
        Some(match sent {
            Sent::Name(names) if reply.as_bytes() == Some(b"OK") => {
                if *names == self.names {
                    history.name_is_known(self.number);
                }
                Ok(())
            }
            Sent::List { since } => self.listed(*since, reply, history, weather),
            Sent::Kill if matches!(reply.as_int(), Some(0 | 1)) => Ok(()),
            Sent::Page(walk) => self.page(*walk, reply, history),
            Sent::Size { .. }
            | Sent::Keys { .. }
            | Sent::Load
            | Sent::Loaded { .. }
            | Sent::Count(_)
            | Sent::Delete(_) => self.together(sent, reply, history, weather),
            _ => return None,
        })
    }

    /// What all shards say together.
    fn together(
        &mut self,
        sent: &Sent,
        reply: &Value,
        history: &mut History,
        weather: &Weather,
    ) -> Result<(), Violation> {
        let wrong = || format!("together: {sent:?} was answered {reply:?}");
        // Shards are not asked at one moment: while a slot moves, its keys are with none, or two.
        let moves = weather.legacy_moves || weather.atomic_moves;
        // And who is told of a slot where it is not has a shard asked in place of another.
        let all_asked = !weather.is_rough() && !weather.misdirections;
        let stands_still = all_asked && !moves;
        let number = || {
            reply
                .as_int()
                .and_then(|number| usize::try_from(number).ok())
        };
        let right = match sent {
            Sent::Size { since } => {
                let least = history.lists_there(*since);
                number().is_some_and(|number| !stands_still || number >= least)
            }
            Sent::Keys { since } => {
                let names = names(reply)?;
                let all: BTreeSet<&String> = names.iter().collect();
                let once = all.len() == names.len();
                let shown = speech::lists()
                    .filter(|key| history.was_there(key, *since))
                    .all(|key| all.contains(&key) || history.is_damaged(&key));
                !stands_still || (once && shown)
            }
            Sent::Load => {
                history.walks.loaded = true;
                reply.as_str() == Some(speech::PUSH_SHA1)
            }
            Sent::Loaded { since } => {
                let same = all_asked && !weather.planned_failovers;
                match reply.as_array() {
                    Some([one]) => match one.as_int() {
                        Some(0) => !(same && *since),
                        Some(1) => true,
                        _ => false,
                    },
                    _ => false,
                }
            }
            Sent::Count(keys) | Sent::Delete(keys) => {
                let is_read = matches!(sent, Sent::Count(_));
                let (least, most) = if is_read && self.readonly {
                    (0, keys.len()) // a replica may have answered
                } else {
                    self.registers.count(keys)
                };
                number().is_some_and(|number| (least..=most).contains(&number))
            }
            _ => false,
        };
        if let Sent::Delete(keys) = sent {
            keys.iter().for_each(|key| self.registers.wrote(key, 0));
        }
        right.then_some(()).ok_or_else(wrong)
    }
}
