//! The commands a client sends, as bytes, and what each reply must be.

use resp::{Value, write};

use crate::client::show;
use crate::load::dice::Dice;
use crate::load::keys::{Keys, Kind, Place, group};
use crate::load::model::{Fault, Finding, value, wrong};

const ADD: &str = "local n = redis.call('INCR', KEYS[1]) \
    local a = redis.call('RPUSH', KEYS[2], ARGV[1]) \
    return {n, a, redis.call('RPUSH', KEYS[3], ARGV[1])}";
const SHOW: &str = "return {redis.call('GET', KEYS[1]), \
    redis.call('LRANGE', KEYS[2], 0, -1), redis.call('LRANGE', KEYS[3], 0, -1)}";

/// How the three keys of a group are reached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Multi,
    Script,
    /// A transaction that watches one of them.
    Watch,
}

/// One command, or one transaction, with the numbers of its writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Set(Vec<(usize, u64)>),
    Get(Vec<usize>),
    /// MSET and MGET also of a single key.
    SetMany(Vec<(usize, u64)>),
    Delete(Vec<usize>),
    Count(usize),
    ReadCounter(usize),
    SetField(usize, u64),
    GetField(usize),
    Add(usize, u64),
    Read(usize),
    AddGroup(usize, u64, How),
    ReadGroup(usize, How),
    /// A transaction that must not be done, because a key that it watches is written before it.
    Touched(usize, u64, u64),
    /// A log's key under its old name.
    Forget(String),
    Echo(String),
}

impl Op {
    /// Any command on at most `keys_max` of `keys`; `nonce` is never used again.
    pub(crate) fn random(
        dice: &mut Dice,
        keys: &mut Keys,
        (keys_max, how): (usize, How),
        nonce: u64,
    ) -> Self {
        let one_slot = dice.below(3) == 0;
        let range = keys.registers_of(one_slot);
        let log = dice.below(keys.logs.len());
        let (kind, _) = keys.logs[log];
        match dice.below(20) {
            0 if how == How::Watch && keys_max > 1 => {
                let register = dice.within(range);
                let own = &mut keys.registers[register];
                Self::Touched(register, own.next(), own.next())
            }
            0..=3 => {
                let register = dice.within(range);
                Self::Set(vec![(register, keys.registers[register].next())])
            }
            4..=6 => Self::Get(vec![dice.within(range)]),
            7 => Self::Get(dice.some(range, keys_max)),
            8 => {
                let some = dice.some(range, keys_max).into_iter();
                Self::SetMany(some.map(|r| (r, keys.registers[r].next())).collect())
            }
            9 => Self::Delete(dice.some(range, keys_max)),
            10..=11 => Self::Count(dice.below(keys.counters.len())),
            12 => Self::ReadCounter(dice.below(keys.counters.len())),
            13 => {
                let field = dice.below(keys.fields.len());
                Self::SetField(field, keys.fields[field].next())
            }
            14 => Self::GetField(dice.below(keys.fields.len())),
            15..=17 => {
                let seq = keys.logs[log].1.next();
                match kind {
                    Kind::Group => Self::AddGroup(log, seq, how),
                    _ => Self::Add(log, seq),
                }
            }
            18 => Self::read(Place::Log(log), keys, how),
            _ => Self::Echo(format!("{}!{nonce}", keys.hash)),
        }
    }

    /// The command that shows what a key holds.
    pub(crate) fn read(place: Place, keys: &Keys, how: How) -> Self {
        match place {
            Place::Register(index) => Self::Get(vec![index]),
            Place::Counter(index) => Self::ReadCounter(index),
            Place::Field(index) => Self::GetField(index),
            Place::Log(index) => match keys.logs[index].0 {
                Kind::Group => Self::ReadGroup(index, how),
                _ => Self::Read(index),
            },
        }
    }

    /// The requests, word by word.
    pub(crate) fn requests(&self, keys: &Keys) -> Vec<Vec<String>> {
        let register = |index: &usize| keys.registers[*index].name().to_owned();
        let pairs = |writes: &[(usize, u64)]| -> Vec<String> {
            let pair = |(index, seq): &(usize, u64)| {
                let name = register(index);
                let value = value(&name, *seq);
                [name, value]
            };
            writes.iter().flat_map(pair).collect()
        };
        let alone = |name: &str, words: Vec<String>| vec![command(name, words)];
        match self {
            Self::Set(writes) => alone("SET", pairs(writes)),
            Self::SetMany(writes) => alone("MSET", pairs(writes)),
            Self::Get(of) => {
                let name = if of.len() == 1 { "GET" } else { "MGET" };
                alone(name, of.iter().map(register).collect())
            }
            Self::Delete(of) => alone("DEL", of.iter().map(register).collect()),
            Self::Count(index) => alone("INCR", vec![keys.counters[*index].name().to_owned()]),
            Self::ReadCounter(index) => alone("GET", vec![keys.counters[*index].name().to_owned()]),
            Self::SetField(index, seq) => {
                let name = keys.fields[*index].name();
                let words = [keys.hash.clone(), name.to_owned(), value(name, *seq)];
                alone("HSET", words.to_vec())
            }
            Self::GetField(index) => {
                let name = keys.fields[*index].name().to_owned();
                alone("HGET", vec![keys.hash.clone(), name])
            }
            Self::Add(index, seq) => vec![add(keys, *index, *seq)],
            Self::Read(index) => {
                let (kind, log) = &keys.logs[*index];
                let name = log.name().to_owned();
                match kind {
                    Kind::Text => alone("GET", vec![name]),
                    _ => vec![lrange(name)],
                }
            }
            Self::AddGroup(index, seq, how) => {
                let name = keys.logs[*index].1.name();
                add_group(group(name), value(name, *seq), *how)
            }
            Self::Touched(index, first, second) => {
                touched(keys.registers[*index].name(), *first, *second)
            }
            Self::ReadGroup(index, how) => read_group(group(keys.logs[*index].1.name()), *how),
            Self::Forget(name) => alone("UNLINK", vec![name.clone()]),
            Self::Echo(text) => alone("ECHO", vec![text.clone()]),
        }
    }

    /// Whether it watches keys that nobody else writes.
    pub(crate) fn watches(&self) -> bool {
        matches!(self, Self::AddGroup(_, _, How::Watch))
    }

    /// Whether its outcome matters when its reply is an error.
    pub(crate) fn writes(&self) -> bool {
        !matches!(
            self,
            Self::Get(_)
                | Self::ReadCounter(_)
                | Self::GetField(_)
                | Self::Read(_)
                | Self::ReadGroup(..)
                | Self::Echo(_)
        )
    }

    /// The keys it names.
    pub(crate) fn places(&self) -> Vec<Place> {
        match self {
            Self::Set(writes) | Self::SetMany(writes) => writes
                .iter()
                .map(|(index, _)| Place::Register(*index))
                .collect(),
            Self::Get(of) | Self::Delete(of) => {
                of.iter().map(|index| Place::Register(*index)).collect()
            }
            Self::Touched(index, ..) => vec![Place::Register(*index)],
            Self::Count(index) | Self::ReadCounter(index) => vec![Place::Counter(*index)],
            Self::SetField(index, _) | Self::GetField(index) => vec![Place::Field(*index)],
            Self::Add(index, _)
            | Self::Read(index)
            | Self::AddGroup(index, _, _)
            | Self::ReadGroup(index, _) => vec![Place::Log(*index)],
            Self::Forget(_) | Self::Echo(_) => Vec::new(),
        }
    }

    /// Whether the two must take effect in their order: they share a key, and one writes. A hash is
    /// one key.
    pub(crate) fn conflicts(&self, later: &Self) -> bool {
        let same =
            |a: &Place, b: &Place| a == b || matches!((a, b), (Place::Field(_), Place::Field(_)));
        let (own, others) = (self.places(), later.places());
        (self.writes() || later.writes()) && own.iter().any(|a| others.iter().any(|b| same(a, b)))
    }

    /// Nobody knows whether it was done.
    pub(crate) fn unsure(&self, keys: &mut Keys) {
        match self {
            Self::Set(writes) | Self::SetMany(writes) => {
                for (index, seq) in writes {
                    keys.registers[*index].unsure(Some(*seq));
                }
            }
            Self::Delete(of) => of
                .iter()
                .for_each(|index| keys.registers[*index].unsure(None)),
            Self::Touched(index, first, second) => {
                keys.registers[*index].unsure(Some(*first));
                keys.registers[*index].unsure(Some(*second));
            }
            Self::Count(index) => keys.counters[*index].unsure(),
            Self::SetField(index, seq) => keys.fields[*index].unsure(Some(*seq)),
            Self::Add(index, seq) | Self::AddGroup(index, seq, _) => {
                keys.logs[*index].1.unsure(*seq);
            }
            _ => {}
        }
    }

    /// Its error says that it was not done. Of a command on several slots a part may have been.
    pub(crate) fn refused(&self, keys: &mut Keys) {
        match self {
            Self::Set(writes) => {
                for (index, seq) in writes {
                    keys.registers[*index].refused(Some(*seq));
                }
            }
            Self::SetField(index, seq) => keys.fields[*index].refused(Some(*seq)),
            Self::Add(index, seq) | Self::AddGroup(index, seq, _) => {
                keys.logs[*index].1.refused(*seq);
            }
            Self::SetMany(_) | Self::Delete(_) | Self::Touched(..) => self.unsure(keys),
            _ => {}
        }
    }

    /// Compares the replies with what they must be, and remembers what they tell. They are no
    /// errors; a transaction's last one is the array.
    pub(crate) fn check(&self, keys: &mut Keys, replies: &[Value], lossy: bool) -> Finding {
        let [before @ .., reply] = replies else {
            return wrong(Fault::Swapped, "a reply");
        };
        let queued = |reply: &Value| matches!(reply.as_str(), Some("OK" | "QUEUED"));
        if !before.iter().all(queued) {
            return wrong(Fault::Swapped, "OK, and QUEUED for each command");
        }
        match self {
            Self::Set(writes) | Self::SetMany(writes) => {
                for (index, seq) in writes {
                    keys.registers[*index].wrote(Some(*seq));
                }
                is("OK", reply)
            }
            Self::Get(of) if of.len() == 1 => read_register(keys, of[0], reply, lossy),
            Self::Get(of) => {
                let Some(replies) = reply.as_array().filter(|got| got.len() == of.len()) else {
                    return wrong(Fault::Swapped, format!("an array of {}", of.len()));
                };
                let pairs = of.iter().zip(replies);
                sum(pairs.map(|(index, reply)| read_register(keys, *index, reply, lossy)))
            }
            Self::Delete(of) => deleted(keys, of, reply, lossy),
            Self::Count(index) => match number(reply) {
                Some(now) => keys.counters[*index].read(now, 1, lossy),
                None => wrong(Fault::Swapped, "a number"),
            },
            Self::ReadCounter(index) => match (reply.is_null(), reply.as_bytes()) {
                (true, _) => keys.counters[*index].read(0, 0, lossy),
                (false, Some(_)) if reply.as_int().is_some() => {
                    keys.counters[*index].read(reply.as_int().unwrap_or(0), 0, lossy)
                }
                _ => wrong(Fault::Swapped, "a number in a string"),
            },
            Self::SetField(index, seq) => set_field(keys, *index, *seq, reply, lossy),
            Self::GetField(index) => match string(reply) {
                Some(got) => keys.fields[*index].read(got, lossy),
                None => wrong(Fault::Swapped, "a field"),
            },
            Self::Add(index, seq) => added(keys, *index, *seq, reply, lossy),
            Self::Read(index) => read_log(keys, *index, reply, lossy),
            Self::AddGroup(index, seq, How::Watch) if reply.is_null() => {
                keys.logs[*index].1.refused(*seq);
                Ok(0)
            }
            Self::AddGroup(index, seq, _) => added_to_group(keys, *index, *seq, reply, lossy),
            Self::Touched(index, first, second) => {
                keys.registers[*index].wrote(Some(*first));
                if reply.is_null() {
                    return Ok(0);
                }
                keys.registers[*index].wrote(Some(*second));
                wrong(Fault::Order, "nothing: a key that it watches was written")
            }
            Self::ReadGroup(index, _) => read_whole_group(keys, *index, reply, lossy),
            Self::Forget(_) => match number(reply) {
                Some(0..=3) => Ok(0),
                _ => wrong(Fault::Swapped, "a number of keys"),
            },
            Self::Echo(text) => is(text, reply),
        }
    }
}

/// The bytes of requests.
pub(crate) fn encode(out: &mut Vec<u8>, requests: &[Vec<String>]) {
    for words in requests {
        write::request(out, words);
    }
}

fn command(name: &str, mut words: Vec<String>) -> Vec<String> {
    words.insert(0, name.to_owned());
    words
}

fn lrange(name: String) -> Vec<String> {
    command("LRANGE", vec![name, "0".to_owned(), "-1".to_owned()])
}

fn add(keys: &Keys, index: usize, seq: u64) -> Vec<String> {
    let (kind, log) = &keys.logs[index];
    let (name, value) = (log.name().to_owned(), value(log.name(), seq));
    match kind {
        Kind::Text => command("APPEND", vec![name, value + ";"]),
        Kind::Left => command("LPUSH", vec![name, value]),
        Kind::Right | Kind::Group => command("RPUSH", vec![name, value]),
    }
}

fn script(text: &str, keys: [String; 3], argument: Option<String>) -> Vec<Vec<String>> {
    let name = if argument.is_some() {
        "EVAL"
    } else {
        "EVAL_RO"
    };
    let mut words = vec![name.to_owned(), text.to_owned(), "3".to_owned()];
    words.extend(keys);
    words.extend(argument);
    vec![words]
}

fn transaction(commands: impl IntoIterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let mut all = vec![command("MULTI", Vec::new())];
    all.extend(commands);
    all.push(command("EXEC", Vec::new()));
    all
}

fn add_group(keys: [String; 3], value: String, how: How) -> Vec<Vec<String>> {
    if how == How::Script {
        return script(ADD, keys, Some(value));
    }
    let [n, a, b] = keys;
    let watch = (how == How::Watch).then(|| command("WATCH", vec![n.clone()]));
    let done = transaction([
        command("INCR", vec![n]),
        command("RPUSH", vec![a, value.clone()]),
        command("RPUSH", vec![b, value]),
    ]);
    watch.into_iter().chain(done).collect()
}

fn touched(name: &str, first: u64, second: u64) -> Vec<Vec<String>> {
    let set = |seq| command("SET", vec![name.to_owned(), value(name, seq)]);
    let before = [command("WATCH", vec![name.to_owned()]), set(first)];
    before
        .into_iter()
        .chain(transaction([set(second)]))
        .collect()
}

fn read_group(keys: [String; 3], how: How) -> Vec<Vec<String>> {
    if how == How::Script {
        return script(SHOW, keys, None);
    }
    let [n, a, b] = keys;
    transaction([command("GET", vec![n]), lrange(a), lrange(b)])
}

fn is(expected: &str, reply: &Value) -> Finding {
    if reply.as_str() == Some(expected) {
        return Ok(0);
    }
    wrong(Fault::Swapped, expected)
}

/// Adds up findings; the first thing that is wrong counts, and all are looked at.
fn sum(findings: impl Iterator<Item = Finding>) -> Finding {
    let mut total = Ok(0);
    for finding in findings {
        total = match (total, finding) {
            (Ok(sum), Ok(lost)) => Ok(sum + lost),
            (Err(first), _) => Err(first),
            (_, Err(next)) => Err(next),
        };
    }
    total
}

/// An integer reply, which no string is.
fn number(reply: &Value) -> Option<i64> {
    match reply.plain() {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

/// A string or nothing; outer `None` when it is neither.
fn string(reply: &Value) -> Option<Option<&str>> {
    if reply.is_null() {
        return Some(None);
    }
    reply.as_str().map(Some)
}

fn read_register(keys: &mut Keys, index: usize, reply: &Value, lossy: bool) -> Finding {
    match string(reply) {
        Some(got) => keys.registers[index].read(got, lossy),
        None => wrong(Fault::Swapped, format!("what {index} holds")),
    }
}

fn deleted(keys: &mut Keys, of: &[usize], reply: &Value, lossy: bool) -> Finding {
    let exists = of.iter().map(|index| keys.registers[*index].exists());
    let (low, high) = exists.fold((0, 0), |(low, high), there| {
        (
            low + i64::from(there == Some(true)),
            high + i64::from(there != Some(false)),
        )
    });
    of.iter()
        .for_each(|index| keys.registers[*index].wrote(None));
    let of = i64::try_from(of.len()).unwrap_or(0);
    match number(reply) {
        Some(count) if (low..=high).contains(&count) => Ok(0),
        Some(count) if lossy && (0..=of).contains(&count) => Ok(1),
        Some(count) if (0..=of).contains(&count) => {
            wrong(Fault::Order, format!("{low}..={high} deleted keys"))
        }
        _ => wrong(Fault::Swapped, "a number of keys"),
    }
}

fn set_field(keys: &mut Keys, index: usize, seq: u64, reply: &Value, lossy: bool) -> Finding {
    let before = keys.fields[index].exists();
    keys.fields[index].wrote(Some(seq));
    match (number(reply), before) {
        (Some(1), Some(true)) | (Some(0), Some(false)) if !lossy => {
            wrong(Fault::Order, format!("a field that was there: {before:?}"))
        }
        (Some(0 | 1), _) => Ok(0),
        _ => wrong(Fault::Swapped, "0 or 1"),
    }
}

fn added(keys: &mut Keys, index: usize, seq: u64, reply: &Value, lossy: bool) -> Finding {
    let (kind, log) = &mut keys.logs[index];
    let Some(len) = number(reply) else {
        return wrong(Fault::Swapped, "a length");
    };
    let width = match kind {
        Kind::Text => i64::try_from(log.width()).unwrap_or(1),
        _ => 1,
    };
    if len % width != 0 {
        return wrong(Fault::Swapped, format!("a multiple of {width}"));
    }
    log.added(seq, len / width, lossy)
}

fn read_log(keys: &mut Keys, index: usize, reply: &Value, lossy: bool) -> Finding {
    let (kind, log) = &mut keys.logs[index];
    let got: Option<Vec<&str>> = match kind {
        Kind::Text if reply.is_null() => Some(Vec::new()),
        Kind::Text => reply
            .as_str()
            .map(|text| text.split_terminator(';').collect()),
        _ => strings(reply),
    };
    let Some(mut got) = got else {
        return wrong(Fault::Swapped, format!("what {} holds", log.name()));
    };
    if *kind == Kind::Left {
        got.reverse();
    }
    log.read(&got, lossy)
}

fn strings(reply: &Value) -> Option<Vec<&str>> {
    reply.as_array()?.iter().map(Value::as_str).collect()
}

fn added_to_group(keys: &mut Keys, index: usize, seq: u64, reply: &Value, lossy: bool) -> Finding {
    let lens: Option<Vec<i64>> = reply
        .as_array()
        .and_then(|lens| lens.iter().map(number).collect());
    let Some([n, a, b]) = lens.as_deref() else {
        return wrong(Fault::Swapped, "three numbers");
    };
    if n != a || a != b {
        return wrong(
            Fault::Order,
            "three equal numbers, or the three were not written together",
        );
    }
    keys.logs[index].1.added(seq, *n, lossy)
}

fn read_whole_group(keys: &mut Keys, index: usize, reply: &Value, lossy: bool) -> Finding {
    let Some([n, a, b]) = reply.as_array() else {
        return wrong(Fault::Swapped, "a counter and two lists");
    };
    let (Some(a), Some(b)) = (strings(a), strings(b)) else {
        return wrong(Fault::Swapped, format!("two lists, not {}", show(reply)));
    };
    // A script turns a missing counter into false, which is null.
    let count = if n.is_null() { Some(0) } else { n.as_int() };
    if a != b || count != i64::try_from(a.len()).ok() {
        return wrong(
            Fault::Order,
            "a counter and lists that were written together",
        );
    }
    keys.logs[index].1.read(&a, lossy)
}
