//! The replies to a split command's parts, put together into one.

use std::ops::Range;

use command::FanOut;
use resp::Value;
use smallvec::SmallVec;

mod parts;

pub use parts::Page;
use parts::split_reply;

#[derive(Debug)]
enum Kind {
    /// `MGET`: an array in the order of the keys. For each key, the part that has it.
    Array(Vec<u16>),
    /// `MSET`: `OK` when all are.
    AllOk,
    /// `DEL`, `UNLINK`, `EXISTS`, `TOUCH`: the sum.
    Sum,
    /// Every shard has said the same.
    Same,
    And,
    Concatenate,
    Newest,
    Union,
    SumPairs,
    OneSucceeds,
    /// One of those that are not null; this number chooses.
    Random(u64),
    /// `EXEC`, with replies that were made here in their places.
    Insert(Vec<(usize, Vec<u8>)>),
    /// `EXEC` in parts: where the reply of each command is, and replies that were made here.
    Blocks(Vec<Piece>, Vec<(usize, Vec<u8>)>),
    /// The same when the replies are there: all of them in their order, but for those made here.
    Lined(Option<Vec<u8>>, Vec<(usize, Vec<u8>)>),
    /// The last element of an array.
    Last,
    /// `WAIT`: the least.
    Min,
    /// `SCAN`
    Page(Page),
}

/// Room made ahead for replies that have not come.
const LIKELY_BYTES_MAX: usize = 16 * 1024;

/// A command of a transaction in parts.
#[derive(Debug)]
pub enum Piece {
    /// It is in this part.
    Whole(u16),
    /// It is in several itself, one after the other, and this puts their replies together.
    Cut(Vec<u16>, Merge),
}

/// One part's reply.
#[derive(Debug, Default)]
struct Collected {
    /// It came in one piece, which is here in `Merge::whole`.
    at: Range<usize>,
    /// It came in several.
    pieces: Vec<u8>,
    done: bool,
}

/// Collects the parts' replies in whatever order they come.
///
/// An error of one part is the reply of all, as `MGET` on one server would fail as a whole; what
/// the other parts did stays done. Of several errors the first part's is given.
#[derive(Debug)]
pub struct Merge {
    kind: Kind,
    parts: Vec<Collected>,
    /// Replies that came in one piece, in the order in which they came.
    whole: Vec<u8>,
    left: usize,
    held: usize,
}

impl Merge {
    pub(crate) fn array(parts: usize, part_of_key: Vec<u16>) -> Self {
        Self::new(Kind::Array(part_of_key), parts)
    }

    pub(crate) fn all_ok(parts: usize) -> Self {
        Self::new(Kind::AllOk, parts)
    }

    pub(crate) fn sum(parts: usize) -> Self {
        Self::new(Kind::Sum, parts)
    }

    /// The replies of all shards as `kind` has it. `chance` chooses where it is needed.
    #[must_use]
    pub fn fan_out(kind: FanOut, shards: usize, chance: u64) -> Self {
        let kind = match kind {
            FanOut::Sum => Kind::Sum,
            FanOut::Same => Kind::Same,
            FanOut::And => Kind::And,
            FanOut::Min => Kind::Min,
            FanOut::Concatenate => Kind::Concatenate,
            FanOut::Newest => Kind::Newest,
            FanOut::Union => Kind::Union,
            FanOut::SumPairs => Kind::SumPairs,
            FanOut::OneSucceeds => Kind::OneSucceeds,
            FanOut::Random => Kind::Random(chance),
        };
        Self::new(kind, shards)
    }

    /// `EXEC`'s reply with others at their places in its array, in the order of the places.
    #[must_use]
    pub fn insert(here: Vec<(usize, Vec<u8>)>) -> Self {
        Self::new(Kind::Insert(here), 1)
    }

    /// The replies of several transactions as if they were one's, a piece for each command. Where a part
    /// fails, the error is in the place of each of its commands; one that all
    /// fail with is the whole reply. Then replies that were made elsewhere come to their places, as with
    /// [`Merge::insert`].
    #[must_use]
    pub fn blocks(parts: usize, pieces: Vec<Piece>, here: Vec<(usize, Vec<u8>)>) -> Self {
        Self::new(Kind::Blocks(pieces, here), parts)
    }

    /// The last element of a transaction's reply.
    #[must_use]
    pub fn last() -> Self {
        Self::new(Kind::Last, 1)
    }

    /// A page of `SCAN`.
    #[must_use]
    pub fn page(page: Page) -> Self {
        Self::new(Kind::Page(page), 1)
    }

    fn new(kind: Kind, parts: usize) -> Self {
        let collected = std::iter::repeat_with(Collected::default)
            .take(parts)
            .collect();
        Self {
            kind,
            parts: collected,
            whole: Vec::new(),
            left: parts,
            held: 0,
        }
    }

    /// The next bytes of one part's reply. Returns whether every part has its whole reply now.
    pub fn piece(&mut self, part: u16, bytes: &[u8], done: bool) -> bool {
        if let Some(collected) = self.parts.get_mut(usize::from(part))
            && !collected.done
        {
            if done && collected.pieces.is_empty() {
                let start = self.whole.len();
                if start == 0 {
                    // The others are likely to be as long; but who knows how many there are?
                    let likely = (bytes.len() * self.left).min(LIKELY_BYTES_MAX);
                    self.whole.reserve(likely.max(bytes.len()));
                }
                self.whole.extend_from_slice(bytes);
                collected.at = start..self.whole.len();
            } else {
                collected.pieces.extend_from_slice(bytes);
            }
            self.held += bytes.len();
            collected.done = done;
            self.left -= usize::from(done);
        }
        self.left == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Appends the one reply to `out`. Every part must have its reply.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Kind::Blocks(pieces, here) = &mut self.kind {
            let (pieces, here) = (std::mem::take(pieces), std::mem::take(here));
            self.kind = Kind::Lined(self.line_up(pieces), here);
        }
        let succeeded = self.replies().find(|reply| !is_error(reply));
        let failed = match (&self.kind, succeeded) {
            (Kind::OneSucceeds, Some(_)) => None,
            (Kind::Lined(..), _) if !self.are_all_alike() => None,
            _ => self.replies().find(is_error),
        };
        if let Some(failed) = failed {
            out.extend_from_slice(failed);
            return;
        }
        let start = out.len();
        let merged = match &self.kind {
            Kind::AllOk => self.all_are_ok().then(|| resp::write::simple(out, "OK")),
            Kind::Sum => self.integers().map(|sum| resp::write::integer(out, sum)),
            Kind::Array(part_of_key) => self.interleave(part_of_key, out),
            Kind::Same | Kind::OneSucceeds => succeeded.map(|reply| out.extend_from_slice(reply)),
            Kind::And => parts::and(self.replies(), out),
            Kind::Min => self
                .each_integer()
                .and_then(|values| values.into_iter().min())
                .map(|least| resp::write::integer(out, least)),
            Kind::Last => self
                .replies()
                .next()
                .and_then(|reply| parts::last(reply, out)),
            Kind::Concatenate => parts::concatenate(self.replies(), out),
            Kind::Newest => parts::newest(self.replies(), out),
            Kind::Union => parts::union(self.replies(), out),
            Kind::SumPairs => parts::sum_pairs(self.replies(), out),
            Kind::Random(chance) => {
                parts::any_value(self.replies(), *chance).map(|reply| out.extend_from_slice(reply))
            }
            Kind::Insert(here) => self
                .replies()
                .next()
                .and_then(|reply| parts::insert(reply, here, out)),
            Kind::Blocks(..) => None,
            Kind::Lined(all, here) => all.as_ref().and_then(|all| parts::insert(all, here, out)),
            Kind::Page(page) => self
                .replies()
                .next()
                .and_then(|reply| page.turn(reply, out)),
        };
        if merged.is_none() {
            out.truncate(start);
            resp::write::error(
                out,
                b"ERR KEYWAY a shard's part of the reply has another shape",
            );
        }
    }

    fn replies(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.parts.iter().map(|part| self.reply(part))
    }

    fn reply<'a>(&'a self, part: &'a Collected) -> &'a [u8] {
        if part.pieces.is_empty() {
            self.whole.get(part.at.clone()).unwrap_or_default()
        } else {
            part.pieces.as_slice()
        }
    }

    fn are_all_alike(&self) -> bool {
        let mut replies = self.replies();
        let first = replies.next();
        replies.all(|reply| Some(reply) == first)
    }

    fn all_are_ok(&self) -> bool {
        self.replies().all(|reply| reply == b"+OK\r\n")
    }

    fn integers(&self) -> Option<i64> {
        let mut values = self.each_integer()?.into_iter();
        values.try_fold(0_i64, i64::checked_add)
    }

    fn each_integer(&self) -> Option<Vec<i64>> {
        let integer = |reply: &[u8]| match Value::parse(reply) {
            Ok((Value::Integer(value), len)) if len == reply.len() => Some(value),
            _ => None,
        };
        self.replies().map(integer).collect()
    }

    fn interleave(&self, part_of_key: &[u16], out: &mut Vec<u8>) -> Option<()> {
        out.reserve(self.held);
        if part_of_key.len() == self.parts.len() {
            return self.interleave_single(part_of_key, out);
        }
        let counts = self.counts(part_of_key)?;
        let mut rests = self
            .replies()
            .zip(counts)
            .map(|(reply, count)| elements(reply, count))
            .collect::<Option<Vec<_>>>()?;
        resp::write::array(out, part_of_key.len());
        for part in part_of_key {
            let rest = rests.get_mut(usize::from(*part))?;
            let (element, left) = split_value(rest)?;
            out.extend_from_slice(element);
            *rest = left;
        }
        rests.iter().all(|rest| rest.is_empty()).then_some(())
    }

    /// The same where every part has one key.
    fn interleave_single(&self, part_of_key: &[u16], out: &mut Vec<u8>) -> Option<()> {
        resp::write::array(out, part_of_key.len());
        for part in part_of_key {
            let reply = self.reply(self.parts.get(usize::from(*part))?);
            let (element, rest) = split_value(reply.strip_prefix(b"*1\r\n")?)?;
            if !rest.is_empty() {
                return None;
            }
            out.extend_from_slice(element);
        }
        Some(())
    }

    /// The elements of all parts in the order of the commands, with its error in place of each element
    /// that a part has not for it.
    fn line_up(&self, pieces: Vec<Piece>) -> Option<Vec<u8>> {
        let of_each = |piece: &Piece| match piece {
            Piece::Whole(part) => vec![*part],
            Piece::Cut(parts, _) => parts.clone(),
        };
        let part_of: Vec<u16> = pieces.iter().flat_map(of_each).collect();
        let counts = self.counts(&part_of)?;
        let part = |(reply, count): (_, usize)| {
            let failed = is_error(&reply);
            let rest = if failed {
                reply
            } else {
                elements(reply, count)?
            };
            Some((rest, failed))
        };
        let parts = self.replies().zip(counts).map(part);
        let mut parts = parts.collect::<Option<Vec<_>>>()?;
        let mut next = |part: u16| {
            let (rest, failed) = parts.get_mut(usize::from(part))?;
            if *failed {
                return Some(*rest);
            }
            let (element, left) = parts::split_reply(rest)?;
            *rest = left;
            Some(element)
        };
        let mut out = Vec::with_capacity(self.held);
        resp::write::array(&mut out, pieces.len());
        for piece in pieces {
            match piece {
                Piece::Whole(part) => out.extend_from_slice(next(part)?),
                Piece::Cut(of, mut merge) => {
                    for (number, part) in (0..).zip(of) {
                        merge.piece(number, next(part)?, true);
                    }
                    merge.finish(&mut out);
                }
            }
        }
        let all_used = |(rest, failed): &(&[u8], bool)| *failed || rest.is_empty();
        parts.iter().all(all_used).then_some(out)
    }

    /// How many of these each part has.
    fn counts(&self, part_of: &[u16]) -> Option<Vec<usize>> {
        let mut counts = vec![0; self.parts.len()];
        for part in part_of {
            *counts.get_mut(usize::from(*part))? += 1;
        }
        Some(counts)
    }
}

fn is_error(reply: &&[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// What follows the header of an array of `count`.
fn elements(reply: &[u8], count: usize) -> Option<&[u8]> {
    let mut header = SmallVec::<[u8; 24]>::new();
    resp::write::array(&mut header, count);
    reply.strip_prefix(header.as_slice())
}

/// The first string or null, and what follows it.
fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (b'$' | b'_') = bytes.first()? else {
        return None;
    };
    split_reply(bytes)
}

#[cfg(test)]
mod tests;
