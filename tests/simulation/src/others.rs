//! Keys that all clients write and read, and strangers write too, and how old what is read may be.
//!
//! A near cache may answer with what was true a moment ago. What a key held, and from when to when, is
//! known from what the nodes have run; so are the news of its changes and when they reached which
//! worker of the proxy. A read is right when what it shows
//!
//! - was not known to its worker as changed before it was asked for (news),
//! - was true within the last second ([`STALE_MAX`], with a frozen or silent node too), and
//! - is not older than what the same client had read by the same question when it asked, or wrote
//!   before it.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use cluster_sim::Ran;
use dataplane::STALE_MAX;
use resp::{Value, write};

use crate::{
    client::Client,
    history::{History, Violation},
    proxy::Proxy,
    rng::Rng,
    speech::{self, Sent, TAGS},
    world::World,
};

/// What the proxy's clock and the world's may differ by.
const CLOCKS: Duration = Duration::from_millis(2);
/// What every message of a changed key begins with.
const NEWS: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// The keys. There are channels of the same names.
pub(crate) fn shared() -> impl Iterator<Item = String> {
    TAGS.iter().take(3).map(|tag| format!("{{{tag}}}:s"))
}

/// What a key has held: numbers, 0 for nothing, each with the time from which on.
#[derive(Debug)]
struct Versions(Vec<(u64, Duration)>);

impl Default for Versions {
    fn default() -> Self {
        Self(vec![(0, Duration::ZERO)])
    }
}

impl Versions {
    fn last(&self) -> usize {
        self.0.len() - 1
    }

    /// The first version with this number, from a place on.
    fn find(&self, number: u64, from: usize) -> Option<usize> {
        let mut later = self.0.iter().enumerate().skip(from);
        later
            .find(|(_, (known, _))| *known == number)
            .map(|(at, _)| at)
    }

    /// Until when it was true.
    fn until(&self, at: usize) -> Duration {
        self.0
            .get(at + 1)
            .map_or(Duration::MAX, |(_, since)| *since)
    }
}

/// News on their way to the proxy: of these keys, with what they held when the node said so.
pub(crate) type News = Vec<(String, usize)>;

/// Questions that ask for all that a key holds. What is kept of one says nothing of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    Get,
    Range,
}

impl Asked {
    fn words(self, key: &str) -> Vec<&str> {
        match self {
            Self::Get => vec!["GET", key],
            Self::Range => vec!["GETRANGE", key, "0", "-1"],
        }
    }

    fn number(self, key: &str, reply: &Value) -> Option<u64> {
        if self == Self::Range && reply.as_bytes() == Some(b"") {
            return Some(0); // nothing
        }
        speech::number(key, reply)
    }
}

/// A read that was asked.
#[derive(Debug)]
pub(crate) struct Look {
    key: String,
    asked: Asked,
    begun: Duration,
    /// Its worker knew that everything before this version was over.
    known: usize,
    /// And the client had seen this one, by the same question. (Of two reads that are sent together the first may be sent
    /// again, after the second has run.)
    seen: usize,
}

/// All that is known of shared keys.
#[derive(Debug, Default)]
pub(crate) struct Others {
    pub(crate) now: Duration,
    numbers: u64,
    keys: BTreeMap<String, Versions>,
    /// What workers were told, and when.
    told: BTreeMap<(usize, String), Vec<(Duration, usize)>>,
    /// The versions of keys that clients have read, and those that they have written.
    seen: BTreeMap<(usize, String, Asked), usize>,
    written: BTreeMap<(usize, String), usize>,
}

impl Others {
    /// A number that nobody has written.
    fn fresh(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn versions(&mut self, key: &str) -> &mut Versions {
        self.keys.entry(key.to_owned()).or_default()
    }

    /// Nodes have run these.
    pub(crate) fn ran(&mut self, commands: &[Ran]) {
        for command in commands {
            if let [name, key, value, ..] = &command.args[..]
                && name.eq_ignore_ascii_case(b"set")
                && let Ok(key) = std::str::from_utf8(key)
                && key.ends_with(":s")
                && let Some(number) = speech::number(key, &Value::bulk(value))
            {
                self.holds(key, number);
            }
        }
    }

    /// A key holds this from now on.
    pub(crate) fn holds(&mut self, key: &str, number: u64) {
        let now = self.now;
        self.versions(key).0.push((number, now));
    }

    /// The news in what a node says, each with the place where it is.
    pub(crate) fn said(&self, bytes: &[u8]) -> Vec<(Range<usize>, News)> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = bytes[from..].iter().position(|byte| *byte == NEWS[0]) {
            let start = from + at;
            from = start + 1;
            if !bytes[start..].starts_with(NEWS) {
                continue;
            }
            let (value, used) = Value::parse(&bytes[start..]).unwrap();
            from = start + used;
            let Value::Push(parts) = value else { continue };
            let mentioned = parts.get(1).and_then(Value::as_array);
            let about = |key: &&String| {
                mentioned.is_none_or(|keys| keys.iter().any(|k| k.as_str() == Some(key)))
            };
            let keys = self.keys.iter().filter(|(key, _)| about(key));
            let news = keys.map(|(key, versions)| (key.clone(), versions.last()));
            found.push((start..from, news.collect()));
        }
        found
    }

    /// A worker has received news.
    pub(crate) fn heard(&mut self, worker: usize, news: News) {
        for (key, version) in news {
            let told = self.told.entry((worker, key)).or_default();
            told.push((self.now, version));
        }
    }

    /// A worker knows that all that a key has held until now is over.
    pub(crate) fn heard_of(&mut self, worker: usize, key: &str) {
        let last = self.versions(key).last();
        self.heard(worker, vec![(key.to_owned(), last)]);
    }

    /// What a worker knew in the millisecond before this one: a driver is told within one.
    fn known(&self, worker: usize, key: &str) -> usize {
        let told = self.told.get(&(worker, key.to_owned()));
        let before = |at: &Duration| at.as_millis() < self.now.as_millis();
        let told = told.into_iter().flatten().filter(|(at, _)| before(at));
        told.map(|(_, version)| *version).max().unwrap_or_default()
    }

    /// A client of a worker asks what a key holds.
    fn look(&self, who: usize, worker: usize, key: String, asked: Asked) -> Look {
        let seen = self.seen.get(&(who, key.clone(), asked)).copied();
        Look {
            begun: self.now,
            known: self.known(worker, &key),
            seen: seen.unwrap_or_default(),
            key,
            asked,
        }
    }

    /// A client's write was acknowledged: it has not to see what was before it any more.
    pub(crate) fn wrote(&mut self, who: usize, key: &str, number: u64) -> Result<(), Violation> {
        let at = self.versions(key).find(number, 0);
        let at = at.ok_or_else(|| format!("acknowledged, but never run: {key} is {number}"))?;
        let written = self.written.entry((who, key.to_owned())).or_default();
        *written = at.max(*written);
        Ok(())
    }

    /// A client was told what a key holds.
    pub(crate) fn read(&mut self, who: usize, look: &Look, number: u64) -> Result<(), Violation> {
        let Look {
            key, begun, known, ..
        } = look;
        let written = self.written.get(&(who, key.clone())).copied();
        let seen = look.seen.max(written.unwrap_or_default());
        let versions = self.versions(key);
        let wrong = |kind: &str| {
            let all = &versions.0;
            format!(
                "{kind}: client {who} asked for {key} at {begun:?} and was told {number}: version {known} \
                 was known to its worker and {seen} to itself, of {all:?}"
            )
        };
        let Some(at) = versions.find(number, 0) else {
            return Err(wrong("identity"));
        };
        let at = versions.find(number, seen.max(*known)).unwrap_or(at);
        if at < seen {
            return Err(wrong("order"));
        }
        if at < *known {
            return Err(wrong("stale: older than news of it"));
        }
        if versions.until(at).saturating_add(STALE_MAX + CLOCKS) < *begun {
            return Err(wrong("stale: too old"));
        }
        let seen = self.seen.entry((who, key.clone(), look.asked)).or_default();
        *seen = at.max(*seen);
        Ok(())
    }
}

impl<P: Proxy> World<P> {
    /// Somebody who does not come through the proxy writes to one of the keys, if its node lets him.
    pub(crate) fn stranger_writes(&mut self) {
        let keys: Vec<String> = shared().collect();
        let key = &keys[self.rng.below(keys.len())];
        let node = self.owner_of(key);
        if self.nodes[node].frozen {
            return; // it would have to be waited for
        }
        let Some(connection) = self.cluster.connect(node, "", self.now) else {
            return;
        };
        let value = format!("{key}|{}", self.history.others.fresh());
        self.note(
            value.as_bytes(),
            format_args!("a stranger writes to node {node}"),
        );
        let mut request = Vec::new();
        write::request(&mut request, &["SET", key, &value]);
        self.cluster.received(connection, &request, self.now);
        self.cluster.disconnect(connection);
        self.collect();
    }
}

impl Client {
    /// Writes to a key that all use, or reads it. Most read: what is written all the time is not kept.
    pub(crate) fn share(&mut self, rng: &mut Rng, history: &mut History) {
        let keys: Vec<String> = shared().collect();
        let key = keys[rng.below(keys.len())].clone();
        let others = &mut history.others;
        if rng.chance(8) {
            let number = others.fresh();
            let value = format!("{key}|{number}");
            history.identities.says(self.number, &value);
            let args = ["SET", &key, &value];
            let sent = Sent::Share {
                key: key.clone(),
                number,
            };
            return self.say(&args, sent);
        }
        let asked = [Asked::Get, Asked::Range][usize::from(rng.chance(30))];
        let look = others.look(self.number, self.worker, key, asked);
        write::request(&mut self.outgoing, &asked.words(&look.key));
        self.sent.push_back(Sent::Look(look));
    }

    /// What came of it; `None`: that is no answer to it.
    pub(crate) fn check_shared(
        &self,
        sent: &Sent,
        reply: &Value,
        others: &mut Others,
    ) -> Option<Result<(), Violation>> {
        match sent {
            Sent::Share { key, number } if reply.as_bytes() == Some(b"OK") => {
                Some(others.wrote(self.number, key, *number))
            }
            // From replicas what is old is right.
            Sent::Look(look) if self.readonly => {
                look.asked.number(&look.key, reply).map(|_| Ok(()))
            }
            Sent::Look(look) => {
                let number = look.asked.number(&look.key, reply)?;
                Some(others.read(self.number, look, number))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A key that was written at 1, 2 and 3 s, of which worker 0 was told at once.
    fn three() -> Others {
        let mut others = Others::default();
        for number in 1..=3 {
            others.now = Duration::from_secs(number);
            others.holds("k", number);
            let said = others.said(b"+OK\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n:1\r\n");
            let (at, news) = said[0].clone();
            assert_eq!((said.len(), at), (1, 5..37));
            others.heard(0, news);
        }
        others
    }

    fn read(others: &mut Others, worker: usize, number: u64) -> Result<(), Violation> {
        let look = others.look(7, worker, "k".to_owned(), Asked::Get);
        others.read(7, &look, number)
    }

    #[test]
    fn what_is_older_than_news_of_it_is_found() {
        let mut others = three();
        read(&mut others, 0, 2).unwrap(); // the news has just come
        others.now += MS;
        assert!(
            read(&mut others, 0, 2)
                .unwrap_err()
                .starts_with("stale: older")
        );
        read(&mut others, 0, 3).unwrap();
        assert!(read(&mut others, 1, 2).unwrap_err().starts_with("order"));
        assert!(read(&mut others, 0, 4).unwrap_err().starts_with("identity"));
    }

    #[test]
    fn what_is_older_than_a_second_is_found() {
        let mut others = three();
        others.now += STALE_MAX + CLOCKS;
        read(&mut others, 1, 2).unwrap();
        others.now += MS;
        assert!(
            read(&mut others, 1, 2)
                .unwrap_err()
                .starts_with("stale: too old")
        );
    }

    #[test]
    fn what_died_with_a_primary_is_not_served_any_more() {
        let mut others = three();
        others.wrote(7, "k", 3).unwrap();
        others.now += MS;
        others.holds("k", 1); // a new primary has it again
        others.heard_of(1, "k");
        read(&mut others, 0, 3).unwrap(); // worker 0 has not heard of it
        others.now += MS;
        let stale = read(&mut others, 1, 3).unwrap_err();
        assert!(stale.starts_with("stale: older"), "{stale}");
        read(&mut others, 0, 1).unwrap();
        let back = read(&mut others, 0, 3).unwrap_err();
        assert!(back.starts_with("order"), "{back}");
    }

    #[test]
    fn nobody_goes_back_behind_what_he_wrote_or_what_all_keys_are_told_of() {
        let mut others = three();
        others.wrote(7, "k", 3).unwrap();
        assert!(read(&mut others, 1, 2).unwrap_err().starts_with("order"));
        assert!(
            others
                .wrote(7, "k", 4)
                .unwrap_err()
                .starts_with("acknowledged")
        );
        let mut others = three();
        let said = others.said(b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        others.heard(1, said[0].1.clone());
        others.now += MS;
        assert!(
            read(&mut others, 1, 2)
                .unwrap_err()
                .starts_with("stale: older")
        );
    }
}
