//! What clients say, and what they may be answered.

use std::collections::BTreeSet;

use resp::{Value, write};
use topology::Slot;

use crate::{
    client::Client,
    history::{Fate, History, ReadId, Violation, WriteId},
    identities::is_refusal,
    listening::{Channel, is_pong},
    others::Look,
    rng::Rng,
    weather::Weather,
};

/// Hash tags of all keys.
pub(crate) const TAGS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Appends, and says how long the list is.
pub(crate) const PUSH: &str = "return redis.call('RPUSH', KEYS[1], ARGV[1])";
/// Its SHA-1.
pub(crate) const PUSH_SHA1: &str = "b9705020f551c492b7692cdba607bbdb64837972";
/// Appends, then answers with words that are the server's own.
const FORGE: &str = "redis.call('RPUSH', KEYS[1], ARGV[1]); return redis.error_reply(ARGV[2])";
/// Nobody of the cluster.
pub(crate) const STRANGER: &str = "10.66.66.66:6379";

/// A command that was sent, and what it is for the oracle.
#[derive(Debug)]
pub(crate) enum Sent {
    Echo(String),
    /// A status line, whatever it is about.
    Status(&'static str),
    /// An append to a list, perhaps by a script.
    Push {
        write: WriteId,
        script: Script,
    },
    Range(ReadId),
    Set(Vec<(String, u64)>),
    Get(Vec<String>),
    Exec {
        writes: Vec<WriteId>,
        watched: bool,
    },
    /// `EXEC` of a transaction over several slots.
    Parts(Vec<Sent>),
    /// A pop from a queue that may block.
    Pop(String),
    /// `HELLO 3`
    Hello,
    /// A message, by its number.
    Publish(usize),
    /// `SUBSCRIBE` or its like, for one channel.
    Subscribe {
        channel: Channel,
        begin: bool,
    },
    /// `PING` of a client that listens.
    Ping,
    /// From then on it is somebody else, if the words are the right ones.
    Change {
        place: usize,
        right: bool,
    },
    /// `ACL WHOAMI`
    WhoAmI,
    /// A page of a walk through all keys.
    Page(usize),
    /// `DBSIZE`
    Size {
        since: u64,
    },
    /// `KEYS`
    Keys {
        since: u64,
    },
    /// `SCRIPT LOAD`
    Load,
    /// `SCRIPT EXISTS`
    Loaded {
        since: bool,
    },
    /// `EXISTS` or `TOUCH`, of several keys.
    Count(Vec<String>),
    /// `DEL` or `UNLINK`, of several keys.
    Delete(Vec<String>),
    /// `CLIENT SETNAME`
    Name(usize),
    /// `CLIENT LIST`
    List {
        since: u64,
    },
    /// `CLIENT KILL`
    Kill,
    /// `SET` of a key that all write to.
    Share {
        key: String,
        number: u64,
    },
    /// `GET` of one.
    Look(Look),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    None,
    Honest,
    Forging,
}

pub(crate) fn lists() -> impl Iterator<Item = String> {
    TAGS.iter()
        .flat_map(|tag| [0, 1].map(|n| format!("{{{tag}}}:l{n}")))
}

pub(crate) fn queues() -> impl Iterator<Item = String> {
    TAGS.iter().take(2).map(|tag| format!("{{{tag}}}:q"))
}

/// The keys that only this client writes.
pub(crate) fn own_keys(client: usize) -> impl Iterator<Item = String> {
    TAGS.iter().map(move |tag| format!("{{{tag}}}:r{client}"))
}

/// The slots of all keys.
pub(crate) fn slots() -> Vec<Slot> {
    TAGS.iter()
        .map(|tag| Slot::of_key(tag.as_bytes()))
        .collect()
}

impl Client {
    /// Writes one more command, or one transaction.
    pub(crate) fn speak(&mut self, rng: &mut Rng, history: &mut History, weather: &Weather) {
        let tag = TAGS[rng.below(TAGS.len())];
        let mut list = format!("{{{tag}}}:l{}", rng.below(2));
        if weather.coalesce && self.sent.len().is_multiple_of(2) {
            list = format!("{{{}}}:l0", TAGS[0]);
        }
        if weather.users && rng.chance(8) {
            return self.change(rng, history);
        }
        if weather.fan_outs && rng.chance(15) {
            return self.ask_all(rng, history);
        }
        if (weather.near || weather.hot) && rng.chance(40) {
            return self.share(rng, history);
        }
        if weather.near && rng.chance(35) {
            // What is kept near is read between writes of one's own.
            return match rng.below(3) {
                0 => self.set(rng, history, weather),
                _ => self.get(rng),
            };
        }
        match rng.below(100) {
            0..3 if weather.users => self.ask_who(),
            0..8 if weather.split => self.transact_apart(rng, history, weather),
            0..8 if weather.transactions => self.transact(rng, history, tag, false),
            8..11 if weather.transactions => self.transact(rng, history, tag, true),
            11..22 if weather.scripts => self.script(rng, history, &list, weather),
            22..28 if weather.queues => self.use_queue(rng, history),
            28..50 => self.range(history, &list, weather),
            50..56 if weather.listeners > 0 => self.publish(rng, &mut history.messages),
            50..58 => self.set(rng, history, weather),
            58..66 => self.get(rng),
            66..70 => {
                let serial = self.fresh();
                let nonce = format!("nonce {}.{serial}", self.number);
                self.say(&["ECHO", &nonce], Sent::Echo(nonce.clone()));
            }
            _ => self.push(history, &list),
        }
    }

    /// The client wants to be spoken to in RESP3.
    pub(crate) fn greet(&mut self) {
        self.resp3 = true;
        self.say(&["HELLO", "3"], Sent::Hello);
    }

    /// The client reads from replicas from now on.
    pub(crate) fn read_anywhere(&mut self) {
        self.readonly = true;
        self.say(&["READONLY"], Sent::Status("OK"));
    }

    pub(crate) fn say(&mut self, args: &[&str], sent: Sent) {
        write::request(&mut self.outgoing, args);
        self.sent.push_back(sent);
    }

    fn push(&mut self, history: &mut History, list: &str) {
        let (write, token) = history.begin_write(list, self.number, None);
        let script = Script::None;
        self.say(&["RPUSH", list, &token], Sent::Push { write, script });
    }

    fn range(&mut self, history: &mut History, list: &str, weather: &Weather) {
        let read = history.begin_read(list, self.number, self.readonly);
        let mut last = "-1".to_owned();
        if !weather.coalesce {
            // As good as the last one, and no other read has it.
            last = (1_000_000_000 + read).to_string();
            history.identities.says(self.number, &last);
        }
        self.say(&["LRANGE", list, "0", &last], Sent::Range(read));
    }

    fn script(&mut self, rng: &mut Rng, history: &mut History, list: &str, weather: &Weather) {
        let (write, token) = history.begin_write(list, self.number, None);
        if weather.forging_scripts && rng.chance(30) {
            let slot = Slot::of_key(list.as_bytes()).get();
            let word = if rng.chance(50) { "ASK" } else { "MOVED" };
            let forged = format!("{word} {slot} {STRANGER}");
            let script = Script::Forging;
            let args = ["EVAL", FORGE, "1", list, &token, &forged];
            return self.say(&args, Sent::Push { write, script });
        }
        let script = Script::Honest;
        if self.has_shown_script && rng.chance(60) {
            let args = ["EVALSHA", PUSH_SHA1, "1", list, &token];
            return self.say(&args, Sent::Push { write, script });
        }
        self.has_shown_script = true;
        let args = ["EVAL", PUSH, "1", list, &token];
        self.say(&args, Sent::Push { write, script });
    }

    /// A key that only this client writes.
    fn own_key(&self, rng: &mut Rng) -> String {
        format!("{{{}}}:r{}", TAGS[rng.below(TAGS.len())], self.number)
    }

    pub(crate) fn set(&mut self, rng: &mut Rng, history: &mut History, weather: &Weather) {
        let count = if rng.chance(50) { 1 } else { rng.up_to(4) };
        let mut pairs: Vec<(String, u64)> = Vec::new();
        for _ in 0..count {
            let key = self.own_key(rng);
            if pairs.iter().all(|(known, _)| *known != key) {
                pairs.push((key, self.fresh()));
            }
        }
        let name = if pairs.len() == 1 { "SET" } else { "MSET" };
        let mut args = vec![name.to_owned()];
        for (key, number) in &pairs {
            let mut value = format!("{key}|{number}");
            history.identities.says(self.number, &value);
            if weather.big_values {
                value.extend(std::iter::repeat_n('.', padding(*number)));
            }
            args.extend([key.clone(), value]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.say(&args, Sent::Set(pairs));
    }

    pub(crate) fn get(&mut self, rng: &mut Rng) {
        let count = if rng.chance(40) { 1 } else { rng.up_to(5) };
        let keys: Vec<String> = (0..count).map(|_| self.own_key(rng)).collect();
        self.say_of(if count == 1 { "GET" } else { "MGET" }, &keys);
        self.sent.push_back(Sent::Get(keys));
    }

    /// A command and its keys; what it is for the oracle, its caller says.
    pub(crate) fn say_of(&mut self, word: &str, keys: &[String]) {
        let mut args = vec![word];
        args.extend(keys.iter().map(String::as_str));
        write::request(&mut self.outgoing, &args);
    }

    /// Some of its own keys, each once.
    pub(crate) fn own_keys(&self, rng: &mut Rng) -> Vec<String> {
        let count = rng.up_to(5);
        let keys: BTreeSet<String> = (0..count).map(|_| self.own_key(rng)).collect();
        keys.into_iter().collect()
    }

    fn use_queue(&mut self, rng: &mut Rng, history: &mut History) {
        let queues: Vec<String> = queues().collect();
        let queue = &queues[rng.below(queues.len())];
        if rng.chance(55) {
            return self.push(history, queue);
        }
        let seconds = format!("0.{:03}", 1 + rng.below(400));
        self.say(&["BLPOP", queue, &seconds], Sent::Pop(queue.clone()));
    }

    /// Appends to lists with this tag: they are in one slot, and whole or not at all.
    fn transact(&mut self, rng: &mut Rng, history: &mut History, tag: &str, watched: bool) {
        let key = |n: usize| format!("{{{tag}}}:l{n}");
        if watched {
            self.say(&["WATCH", &key(rng.below(2))], Sent::Status("OK"));
        }
        self.say(&["MULTI"], Sent::Status("OK"));
        let group = history.new_group();
        let mut writes = Vec::new();
        for _ in 0..rng.up_to(3) {
            let key = key(rng.below(2));
            let (write, token) = history.begin_write(&key, self.number, Some(group));
            self.say(&["RPUSH", &key, &token], Sent::Status("QUEUED"));
            writes.push(write);
        }
        self.say(&["EXEC"], Sent::Exec { writes, watched });
    }

    /// Holds a reply against what was sent.
    pub(crate) fn check(
        &mut self,
        sent: &Sent,
        reply: &Value,
        history: &mut History,
        weather: &Weather,
    ) -> Result<(), Violation> {
        if let Some(error) = reply.as_error() {
            let text = String::from_utf8_lossy(error).into_owned();
            return self.refused((sent, false), &text, history, weather);
        }
        let who = self.number;
        let wrong = || format!("client {who}: {sent:?} was answered {reply:?}");
        if let Sent::Subscribe { channel, begin } = *sent {
            let confirmed = self.confirms(channel, begin, reply);
            return confirmed.then_some(()).ok_or_else(wrong);
        }
        if let Sent::Change { place, right } = *sent {
            let changed = self.changed((place, right), reply, &mut history.identities);
            return changed.then_some(()).ok_or_else(wrong);
        }
        if let Some(checked) = self.check_all(sent, reply, history, weather) {
            return checked;
        }
        if let Some(checked) = self.check_shared(sent, reply, &mut history.others) {
            return checked;
        }
        match sent {
            Sent::WhoAmI if self.is_it(reply, &history.identities) => Ok(()),
            Sent::Hello if reply.map_get("proto").and_then(Value::as_int) == Some(3) => Ok(()),
            Sent::Echo(nonce) if reply.as_bytes() == Some(nonce.as_bytes()) => Ok(()),
            Sent::Status(status) if reply.as_bytes() == Some(status.as_bytes()) => Ok(()),
            Sent::Push { write, .. } => {
                let length = length(reply).ok_or_else(wrong)?;
                history.end_write(*write, Fate::Ran, Some(length));
                Ok(())
            }
            Sent::Range(read) => {
                let items = reply.as_array().ok_or_else(wrong)?;
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                history.end_read(*read, &items)
            }
            Sent::Publish(number) if reply.as_int().is_some() => {
                history.messages.end(*number, Fate::Ran);
                Ok(())
            }
            Sent::Ping if is_pong(reply) => Ok(()),
            Sent::Set(pairs) if reply.as_bytes() == Some(b"OK") => {
                for (key, number) in pairs {
                    self.registers.wrote(key, *number);
                }
                Ok(())
            }
            Sent::Get(keys) => self.got(keys, reply).unwrap_or_else(|| Err(wrong())),
            Sent::Exec { writes, watched } => {
                executed(writes, *watched, reply, history).ok_or_else(wrong)
            }
            Sent::Parts(parts) => self
                .executed_apart(parts, reply, history, weather)
                .unwrap_or_else(|| Err(wrong())),
            Sent::Pop(queue) => match reply.as_array() {
                None if reply.is_null() => Ok(()),
                Some([key, value]) if key.as_str() == Some(queue) => {
                    let token = value.as_str().ok_or_else(wrong)?;
                    history.popped(queue, token)
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }

    /// What its own keys hold. `None`: the reply is not about them.
    fn got(&mut self, keys: &[String], reply: &Value) -> Option<Result<(), Violation>> {
        let single = std::slice::from_ref(reply);
        let values = reply.as_array().unwrap_or(single);
        if values.len() != keys.len() {
            return None;
        }
        for (key, value) in keys.iter().zip(values) {
            let number = number(key, value)?;
            if self.readonly {
                if number > self.serial {
                    return None;
                }
            } else if let Err(what) = self.registers.read(key, number) {
                return Some(Err(what));
            }
        }
        Some(Ok(()))
    }

    /// An error: is it one that may be, and what does it say about the command's fate? It may be one of
    /// several that met a slot half moved.
    pub(crate) fn refused(
        &mut self,
        (sent, torn): (&Sent, bool),
        text: &str,
        history: &mut History,
        weather: &Weather,
    ) -> Result<(), Violation> {
        let forged = matches!(
            sent,
            Sent::Push {
                script: Script::Forging,
                ..
            }
        );
        let fate = match text.split(' ').collect::<Vec<_>>()[..] {
            // It says what the cluster would, and nobody may believe it.
            _ if forged && !text.contains("was not run") => Fate::Unknown,
            ["ERR", "KEYWAY.UNKNOWN_OUTCOME", ..] => Fate::Unknown,
            ["ERR", "KEYWAY.UNAVAILABLE", ..] => Fate::NotRun,
            _ if is_refused_change(sent, text) => Fate::NotRun,
            ["TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "EXECABORT", ..] => Fate::NotRun,
            // Where commands behind it on its key have run already.
            ["NOSCRIPT", ..] if matches!(sent, Sent::Push { .. }) => Fate::NotRun,
            ["UNBLOCKED", ..] if matches!(sent, Sent::Pop(_)) => Fate::NotRun,
            _ => {
                return Err(format!(
                    "client {}: {sent:?} was answered {text}",
                    self.number
                ));
            }
        };
        let torn = is_torn((sent, torn), text, weather);
        let expected = forged || torn || is_refused_change(sent, text);
        if !weather.is_rough() && !expected {
            let who = self.number;
            return Err(format!(
                "visible change: client {who}: {sent:?} was answered {text}"
            ));
        }
        self.end(sent, fate, history);
        self.errors += 1;
        Ok(())
    }

    /// Whether it ran, where no reply tells.
    fn end(&mut self, sent: &Sent, fate: Fate, history: &mut History) {
        match sent {
            Sent::Push { write, .. } => history.end_write(*write, fate, None),
            Sent::Exec { writes, .. } => {
                for write in writes {
                    history.end_write(*write, fate, None);
                }
            }
            Sent::Parts(parts) => parts.iter().for_each(|part| self.end(part, fate, history)),
            Sent::Set(pairs) => {
                for (key, number) in pairs {
                    // Of a split command, parts may have run.
                    if fate == Fate::Unknown || pairs.len() > 1 {
                        self.registers.may_have_written(key, *number);
                    }
                }
            }
            Sent::Delete(keys) => {
                for key in keys {
                    // Of a split command, parts may have run.
                    self.registers.may_have_written(key, 0);
                }
            }
            Sent::Publish(number) => history.messages.end(*number, fate),
            Sent::Change { place, .. } => history.identities.end(self.number, *place, fate),
            Sent::Pop(queue) if fate == Fate::Unknown => history.may_have_popped(queue),
            _ => {}
        }
    }
}

/// The reply to `EXEC`: a length for each write, or that a watched key was touched. `None`: neither.
fn executed(writes: &[WriteId], watched: bool, reply: &Value, history: &mut History) -> Option<()> {
    if watched && reply.is_null() {
        for write in writes {
            history.end_write(*write, Fate::NotRun, None);
        }
        return Some(());
    }
    let replies = reply.as_array().filter(|all| all.len() == writes.len())?;
    for (write, reply) in writes.iter().zip(replies) {
        history.end_write(*write, Fate::Ran, Some(length(reply)?));
    }
    Some(())
}

/// Errors that a cluster gives too, when a slot is half moved and a command has several keys there,
/// or when a script is sent elsewhere; and when a node's answers contradict each other.
fn is_torn((sent, torn): (&Sent, bool), text: &str, weather: &Weather) -> bool {
    let several = match sent {
        _ if torn => true,
        Sent::Exec { writes, .. } => writes.len() > 1,
        Sent::Parts(parts) => {
            parts.len() > 1
                || parts
                    .iter()
                    .any(|part| is_torn((part, false), text, weather))
        }
        Sent::Set(pairs) => pairs.len() > 1,
        Sent::Get(keys) | Sent::Count(keys) | Sent::Delete(keys) => keys.len() > 1,
        Sent::Push { script, .. } => *script != Script::None,
        _ => false,
    };
    // A script that was sent elsewhere may have made that up: it counts as run, and what was sent
    // before it on its key cannot be sent again.
    let overtaken = weather.misdirections || (weather.scripts && weather.legacy_moves);
    let noscript = text.starts_with("NOSCRIPT") && several;
    // A node has said something else when it was asked again.
    let unconfirmed = text.contains("has not confirmed it") && weather.misdirections && several;
    let push = matches!(sent, Sent::Push { .. });
    noscript || unconfirmed || (text.starts_with("TRYAGAIN") && ((several && !push) || overtaken))
}

/// Wrong words, and nothing has changed.
fn is_refused_change(sent: &Sent, text: &str) -> bool {
    matches!(sent, Sent::Change { right, .. } if is_refusal(*right, text))
}

/// Some values are bigger than what is passed on only whole, by a length that says which they are.
fn padding(number: u64) -> usize {
    if number.is_multiple_of(5) {
        70_000 + number as usize
    } else {
        0
    }
}

fn length(reply: &Value) -> Option<usize> {
    usize::try_from(reply.as_int()?).ok()
}

/// The number that a register holds. Fails when the value names another key.
pub(crate) fn number(key: &str, value: &Value) -> Option<u64> {
    if value.is_null() {
        return Some(0);
    }
    let (named, number) = value.as_str()?.rsplit_once('|')?;
    let digits = number.trim_end_matches('.');
    let parsed = digits.parse().ok()?;
    let dots = number.len() - digits.len();
    (named == key && (dots == 0 || dots == padding(parsed))).then_some(parsed)
}
