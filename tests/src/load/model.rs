//! What one client knows of its keys, from the replies it got: the exact state while everything was
//! answered, the possible states after an error that left the outcome of a write open.
//!
//! Pure: replies in, findings out. Every written value names its key and a number that is never used
//! again, so a value that is read says which write it came from.

use std::fmt::Display;

/// Digits of a write's number: all values of one key are equally long.
const DIGITS: usize = 8;

/// What is wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// An older state, or writes that took effect in another order.
    Order,
    /// Another key's or client's value, or a reply to some other request.
    Swapped,
    /// A write that was done twice.
    Twice,
    /// A write that was done although its reply said that it was not.
    Refused,
    /// An acknowledged write is gone, and no failover explains it.
    Lost,
}

/// A reply that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) fault: Fault,
    pub(crate) expected: String,
}

/// The number of acknowledged writes that a failover has lost, or what is wrong.
pub(crate) type Finding = Result<u64, Wrong>;

pub(crate) fn wrong(fault: Fault, expected: impl Display) -> Finding {
    Err(Wrong {
        fault,
        expected: expected.to_string(),
    })
}

/// The value that write `seq` leaves in the key `name`.
pub(crate) fn value(name: &str, seq: u64) -> String {
    format!("{name}#{seq:0DIGITS$}")
}

/// Which write of `name` a value came from; `None` when it is another key's.
pub(crate) fn origin(name: &str, value: &str) -> Option<u64> {
    let digits = value.strip_prefix(name)?.strip_prefix('#')?;
    (digits.len() == DIGITS).then(|| digits.parse().ok())?
}

/// A key or a hash's field that is overwritten as a whole.
#[derive(Debug)]
pub(crate) struct Register {
    name: String,
    last: u64,
    /// The writes whose value it may hold; `None` is "not there". Never empty.
    possible: Vec<Option<u64>>,
    refused: Vec<u64>,
}

impl Register {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            last: 0,
            possible: vec![None],
            refused: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The number of the next write.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The write (or, with `None`, the deletion) was acknowledged.
    pub(crate) fn wrote(&mut self, seq: Option<u64>) {
        self.possible.clear();
        self.possible.push(seq);
    }

    /// Nobody knows whether the write was done.
    pub(crate) fn unsure(&mut self, seq: Option<u64>) {
        self.possible.push(seq);
    }

    /// The write was not done, by its reply.
    pub(crate) fn refused(&mut self, seq: Option<u64>) {
        self.refused.extend(seq);
    }

    /// Whether a value is there; `None` when that is not known.
    pub(crate) fn exists(&self) -> Option<bool> {
        let there = self.possible.iter().filter(|seq| seq.is_some()).count();
        match there {
            0 => Some(false),
            all if all == self.possible.len() => Some(true),
            _ => None,
        }
    }

    pub(crate) fn read(&mut self, got: Option<&str>, lossy: bool) -> Finding {
        let seq = match got {
            None => None,
            Some(text) => match origin(&self.name, text) {
                Some(seq) => Some(seq),
                None => return wrong(Fault::Swapped, self.expected()),
            },
        };
        let expected = self.possible.contains(&seq);
        let finding = if expected {
            Ok(0)
        } else if seq.is_some_and(|seq| self.refused.contains(&seq)) {
            wrong(Fault::Refused, self.expected())
        } else if seq.is_some_and(|seq| seq > self.last) {
            wrong(Fault::Swapped, self.expected())
        } else if lossy {
            Ok(1)
        } else {
            wrong(Fault::Order, self.expected())
        };
        self.wrote(seq);
        finding
    }

    fn expected(&self) -> String {
        let one = |seq: &Option<u64>| match seq {
            None => "nothing".to_owned(),
            Some(seq) => value(&self.name, *seq),
        };
        let all: Vec<String> = self.possible.iter().map(one).collect();
        all.join(" or ")
    }
}

/// A number that only grows by one.
#[derive(Debug)]
pub(crate) struct Counter {
    name: String,
    low: i64,
    high: i64,
}

impl Counter {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            low: 0,
            high: 0,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn unsure(&mut self) {
        self.high += 1;
    }

    /// It is `now`, after `added` more writes that were acknowledged.
    pub(crate) fn read(&mut self, now: i64, added: i64, lossy: bool) -> Finding {
        let (low, high) = (self.low + added, self.high + added);
        (self.low, self.high) = (now, now);
        let expected = || format!("{low}..={high}");
        if now > high {
            return wrong(Fault::Twice, expected());
        }
        match (now < low, lossy) {
            (false, _) => Ok(0),
            (true, true) => Ok(low.abs_diff(now)),
            (true, false) => wrong(Fault::Order, expected()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: u64,
    /// It is there, by a reply that has shown it.
    sure: bool,
    /// Its write was acknowledged.
    acked: bool,
}

/// A key that writes are added to: a list, or a string that is appended to. Its content tells every
/// write that was done, and in which order.
#[derive(Debug)]
pub(crate) struct Log {
    base: String,
    name: String,
    generation: u64,
    last: u64,
    entries: Vec<Entry>,
    refused: Vec<u64>,
}

impl Log {
    pub(crate) fn new(base: String) -> Self {
        Self {
            name: format!("{base}:0"),
            base,
            generation: 0,
            last: 0,
            entries: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes that may be in it.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of one value in a string that is appended to, with its separator.
    pub(crate) fn width(&self) -> usize {
        self.name.len() + 1 + DIGITS + 1
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Starts again with a key of a new name; returns the old one.
    pub(crate) fn renew(&mut self) -> String {
        self.generation += 1;
        let name = format!("{}:{}", self.base, self.generation);
        self.entries.clear();
        self.refused.clear();
        std::mem::replace(&mut self.name, name)
    }

    pub(crate) fn unsure(&mut self, seq: u64) {
        self.entries.push(Entry {
            seq,
            sure: false,
            acked: false,
        });
    }

    pub(crate) fn refused(&mut self, seq: u64) {
        self.refused.push(seq);
    }

    /// The write was acknowledged, and its reply says that there are `len` now.
    pub(crate) fn added(&mut self, seq: u64, len: i64, lossy: bool) -> Finding {
        let sure = self.entries.iter().filter(|entry| entry.sure).count();
        let (low, high) = (sure + 1, self.entries.len() + 1);
        let len = usize::try_from(len).unwrap_or(0);
        let finding = if len > high {
            wrong(Fault::Twice, format!("a length of {low}..={high}"))
        } else if len < low && !lossy {
            wrong(Fault::Lost, format!("a length of {low}..={high}"))
        } else {
            Ok(0)
        };
        if len == low {
            self.entries.retain(|entry| entry.sure);
        } else if len == high {
            self.entries.iter_mut().for_each(|entry| entry.sure = true);
        } else if len < low {
            // Which ones a failover has lost, the next read shows.
            self.entries.iter_mut().for_each(|entry| entry.sure = false);
        }
        self.entries.push(Entry {
            seq,
            sure: true,
            acked: true,
        });
        finding
    }

    /// Its whole content, oldest first.
    pub(crate) fn read(&mut self, got: &[&str], lossy: bool) -> Finding {
        let finding = self.compare(got, lossy);
        let seqs: Vec<u64> = got
            .iter()
            .filter_map(|text| origin(&self.name, text))
            .collect();
        self.entries = seqs
            .iter()
            .map(|seq| Entry {
                seq: *seq,
                sure: true,
                acked: true,
            })
            .collect();
        finding
    }

    fn compare(&self, got: &[&str], lossy: bool) -> Finding {
        let mut seen = Vec::with_capacity(got.len());
        for text in got {
            let Some(seq) = origin(&self.name, text).filter(|seq| *seq <= self.last) else {
                return wrong(Fault::Swapped, self.expected());
            };
            if seen.contains(&seq) {
                return wrong(Fault::Twice, self.expected());
            }
            if self.refused.contains(&seq) {
                return wrong(Fault::Refused, self.expected());
            }
            seen.push(seq);
        }
        if !seen.is_sorted() {
            return wrong(Fault::Order, self.expected());
        }
        let known = |seq: &u64| self.entries.iter().any(|entry| entry.seq == *seq);
        if !lossy && !seen.iter().all(known) {
            return wrong(Fault::Order, self.expected());
        }
        let (mut gap, mut closed) = (0, false);
        for entry in &self.entries {
            let there = seen.contains(&entry.seq);
            if (entry.acked || entry.sure) && !there {
                // A failover loses the end of what was there, never something before it.
                if !lossy || closed {
                    return wrong(Fault::Lost, self.expected());
                }
                gap += 1;
            }
            closed |= gap > 0 && there;
        }
        Ok(gap)
    }

    fn expected(&self) -> String {
        let mut text = format!("{} with", self.name);
        let from = self.entries.len().saturating_sub(20);
        if from > 0 {
            text.push_str(" ...");
        }
        for entry in self.entries.iter().skip(from) {
            let mark = if entry.sure { "" } else { "?" };
            text.push_str(&format!(" {}{mark}", entry.seq));
        }
        text
    }
}

#[cfg(test)]
mod tests;
