//! Judges replies: by position, then by content.

use super::item::{self, Item};
use super::value::put_hex;
use super::{Owed, Touched, Want, Workload};

/// Bytes of a wrong reply that a [`Mismatch`] keeps.
const DUMP_BYTES_MAX: usize = 240;

/// How a reply is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flaw {
    /// It belongs to another key, client or request.
    Swapped,
    /// The right key and client, but not the value it has now: an acknowledged write is not there.
    Stale,
    /// Its checksum or length does not fit.
    Corrupt,
    /// A type or a count that this request never gets.
    Shape,
}

impl Flaw {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 4] = [Self::Swapped, Self::Stale, Self::Corrupt, Self::Shape];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Swapped => "swapped",
            Self::Stale => "stale",
            Self::Corrupt => "corrupt",
            Self::Shape => "shape",
        }
    }
}

/// A wrong reply, to look at.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// How it is wrong.
    pub flaw: Flaw,
    /// Whose request it was.
    pub client: u32,
    /// The request's place among all the client sent, from 1.
    pub place: u64,
    /// What was asked and what should have come.
    pub expected: String,
    /// The reply, escaped and cut.
    pub got: String,
}

/// What [`Workload::reply`] thinks of a reply.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// As it must be.
    Good,
    /// An error reply; its first word, in capitals.
    Error(Box<str>),
    /// Not the reply to this request.
    Mismatched(Box<Mismatch>),
    /// A RESP3 push: owed to nobody.
    Push,
}

impl Workload {
    /// Judges one whole reply, the next in order.
    pub fn reply(&mut self, frame: &[u8]) -> Verdict {
        if frame.first() == Some(&b'>') {
            return Verdict::Push;
        }
        let Some(owed) = self.owed.pop_front() else {
            return self.mismatch(Flaw::Swapped, "no reply: nothing was asked".into(), frame);
        };
        let place = self.settled;
        self.settled += 1;
        let mut rest = frame;
        let item = item::take(&mut rest, self.plan.protocol);
        if let Item::Error(text) = item {
            for _ in 0..owed.keys() {
                if let Some(touched) = self.touched.pop_front() {
                    self.doubt(owed, touched.key);
                }
            }
            return Verdict::Error(first_word(text));
        }
        match self.judge(owed, item, &mut rest, place) {
            Ok(()) if rest.is_empty() => Verdict::Good,
            Ok(()) => self.mismatch(Flaw::Shape, format!("{owed:?} and no more"), frame),
            Err((flaw, expected)) => self.mismatch(flaw, expected, frame),
        }
    }

    fn judge(
        &mut self,
        owed: Owed,
        item: Item<'_>,
        rest: &mut &[u8],
        place: u64,
    ) -> Result<(), (Flaw, String)> {
        match owed {
            Owed::Ok { keys } => {
                let written = self.pop(keys);
                match item {
                    Item::Simple(b"OK") => Ok(()),
                    _ => Err((Flaw::Shape, format!("+OK for a write of {written}"))),
                }
            }
            Owed::Pong => match item {
                Item::Simple(b"PONG") => Ok(()),
                _ => Err((Flaw::Shape, "+PONG".into())),
            },
            Owed::Echo { nonce } => {
                let mut text = Vec::with_capacity(16);
                put_hex(&mut text, nonce, 16);
                match item {
                    Item::Bulk(echo) if echo == text => Ok(()),
                    _ => Err((Flaw::Swapped, format!("ECHO of {nonce:016x}"))),
                }
            }
            Owed::Value => self.judge_value(item, place),
            Owed::Values { keys } => self.judge_values(item, keys, rest, place),
            Owed::Count { least, most, keys } => self.judge_count(item, least, most, keys, place),
            Owed::Counter { exactly } => self.judge_counter(item, exactly, place),
        }
    }

    /// Every value is judged, also past a wrong one: the model's queue has to stay in step.
    fn judge_values(
        &mut self,
        item: Item<'_>,
        keys: u32,
        rest: &mut &[u8],
        place: u64,
    ) -> Result<(), (Flaw, String)> {
        if item != Item::Array(keys as usize) {
            let read = self.pop(keys);
            return Err((Flaw::Shape, format!("an array of {keys}: MGET of {read}")));
        }
        let mut outcome = Ok(());
        for _ in 0..keys {
            let item = item::take(rest, self.plan.protocol);
            let judged = self.judge_value(item, place);
            outcome = outcome.and(judged);
        }
        outcome
    }

    fn judge_value(&mut self, item: Item<'_>, place: u64) -> Result<(), (Flaw, String)> {
        let Some(touched) = self.touched.pop_front() else {
            return Err((Flaw::Shape, "nothing: the model lost count".into()));
        };
        self.name.clear();
        self.plan
            .keys
            .name(self.client, touched.key, &mut self.name);
        let flaw = match self.value_flaw(item, touched.want) {
            Ok(()) => return Ok(()),
            Err(Flaw::Stale) if self.is_doubted(touched, place) => {
                match self.value_flaw(item, Want::Unknown) {
                    Ok(()) => return Ok(()),
                    Err(flaw) => flaw,
                }
            }
            Err(flaw) => flaw,
        };
        let key = String::from_utf8_lossy(&self.name).into_owned();
        Err((flaw, format!("the value of {key}: {:?}", touched.want)))
    }

    /// Judges a value of the key in `self.name`.
    fn value_flaw(&mut self, item: Item<'_>, want: Want) -> Result<(), Flaw> {
        let values = &self.plan.values;
        match (want, item) {
            (Want::Absent | Want::Unknown | Want::Shared, Item::Null) => Ok(()),
            (Want::Written(_), Item::Null) => Err(Flaw::Stale),
            (Want::Written(sequence), Item::Bulk(value)) => {
                values.check_exact(value, &self.name, self.client, sequence, &mut self.label)
            }
            (Want::Shared, Item::Bulk(value)) => values.check_named(value, &self.name, None),
            (Want::Unknown, Item::Bulk(value)) => {
                values.check_named(value, &self.name, Some(self.client))
            }
            (Want::Absent, Item::Bulk(value)) => {
                values.check_named(value, &self.name, Some(self.client))?;
                Err(Flaw::Stale)
            }
            _ => Err(Flaw::Shape),
        }
    }

    /// A write of the key failed after this read had been sent.
    fn is_doubted(&self, touched: Touched, place: u64) -> bool {
        self.doubted
            .get(&touched.key)
            .is_some_and(|until| place < *until)
    }

    fn judge_count(
        &mut self,
        item: Item<'_>,
        least: u32,
        most: u32,
        keys: u32,
        place: u64,
    ) -> Result<(), (Flaw, String)> {
        let mut doubted = false;
        for _ in 0..keys {
            if let Some(touched) = self.touched.pop_front() {
                doubted |= self.is_doubted(touched, place);
            }
        }
        let expected = || format!("a count of {least} to {most}");
        match item {
            Item::Integer(count) if (i64::from(least)..=i64::from(most)).contains(&count) => Ok(()),
            Item::Integer(count) if (0..=i64::from(keys)).contains(&count) => {
                if doubted {
                    Ok(())
                } else {
                    Err((Flaw::Stale, expected()))
                }
            }
            Item::Integer(_) => Err((Flaw::Swapped, expected())),
            _ => Err((Flaw::Shape, expected())),
        }
    }

    fn judge_counter(
        &mut self,
        item: Item<'_>,
        exactly: Option<i64>,
        place: u64,
    ) -> Result<(), (Flaw, String)> {
        let Some(touched) = self.touched.pop_front() else {
            return Err((Flaw::Shape, "nothing: the model lost count".into()));
        };
        let Item::Integer(value) = item else {
            return Err((Flaw::Shape, format!("INCR of {:?}", touched.key)));
        };
        let at = self.plan.keys.counter_index(touched.key);
        let floor = self.floors.get(at).copied().unwrap_or(i64::MIN);
        let exactly = exactly.filter(|_| !self.is_doubted(touched, place));
        let right = exactly.map_or(value > floor, |exactly| value == exactly);
        if let Some(floor) = self.floors.get_mut(at) {
            *floor = value.max(*floor);
        }
        if right {
            return Ok(());
        }
        let expected = match exactly {
            Some(exactly) => format!("INCR of {:?}: {exactly}", touched.key),
            None => format!("INCR of {:?}: above {floor}", touched.key),
        };
        Err((Flaw::Stale, expected))
    }

    /// Takes the next `count` keys off the queue; their names, for a report.
    fn pop(&mut self, count: u32) -> PoppedKeys {
        let mut first = None;
        for _ in 0..count {
            let touched = self.touched.pop_front();
            first = first.or(touched);
        }
        PoppedKeys(first)
    }

    #[cold]
    fn mismatch(&self, flaw: Flaw, expected: String, frame: &[u8]) -> Verdict {
        let shown = frame.get(..DUMP_BYTES_MAX).unwrap_or(frame);
        Verdict::Mismatched(Box::new(Mismatch {
            flaw,
            client: self.client,
            place: self.settled,
            expected,
            got: shown.escape_ascii().to_string(),
        }))
    }
}

/// The first of some keys, for a report; cheap as long as nobody prints it.
struct PoppedKeys(Option<Touched>);

impl std::fmt::Display for PoppedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(touched) => write!(f, "{:?} and on", touched.key),
            None => f.write_str("nothing"),
        }
    }
}

/// The kind of an error: its first word, or `OTHER` when that is no plain capital word.
fn first_word(text: &[u8]) -> Box<str> {
    let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let plain = (1..=24).contains(&word.len())
        && word
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    match std::str::from_utf8(word) {
        Ok(word) if plain => word.into(),
        _ => "OTHER".into(),
    }
}
