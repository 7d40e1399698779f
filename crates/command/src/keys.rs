//! Which arguments of a request are keys.
//!
//! The server has two answers, and so has this module. For routing it asks a function written for
//! the command, else a range of arguments: [`Command::keys`], which is what decides the slot, so
//! that we and the node agree also about requests that it will refuse. For `COMMAND GETKEYS` it
//! asks the key specs first: [`Command::documented_keys`].

mod by_hand;
mod specs;

use std::fmt;

use resp::Request;
use smallvec::SmallVec;

use crate::flags::{Flags, KeyFlags};
use crate::table::{Command, LegacyRange};

pub(crate) use by_hand::{ByHand, by_hand, streams_block};

/// The keys of one request; most name few.
pub type KeyRefs = SmallVec<[KeyRef; 4]>;

/// One key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Which argument it is; always below the request's number of arguments.
    pub index: u32,
    /// What the command does to it; [`KeyFlags::NONE`] when that is not known.
    pub flags: KeyFlags,
}

impl KeyRef {
    /// The argument's index, for [`Request::arg`].
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// A command that has keys names none that could be found: a count that is no number or larger
/// than what follows, no `STREAMS`. The server refuses such a request in words of the command's
/// own, without running it; any node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Invalid arguments specified for command")
    }
}

impl std::error::Error for KeyError {}

/// The arguments of a command, perhaps those behind others (`COMMAND GETKEYS` has a command for
/// arguments).
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    request: Request<'a>,
    skip: usize,
}

impl<'a> Args<'a> {
    pub(crate) fn behind(request: Request<'a>, skip: usize) -> Self {
        Self { request, skip }
    }

    pub(crate) fn count(self) -> usize {
        self.request.argc().saturating_sub(self.skip)
    }

    pub(crate) fn get(self, index: usize) -> Option<&'a [u8]> {
        self.request.arg(self.skip.checked_add(index)?)
    }

    fn is(self, index: usize, word: &str) -> bool {
        self.get(index)
            .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Adds a key if there is such an argument.
    fn push(self, out: &mut KeyRefs, index: usize, flags: KeyFlags) {
        if index < self.count()
            && let Ok(index) = u32::try_from(index)
        {
            out.push(KeyRef { index, flags });
        }
    }
}

impl Command {
    /// Appends the keys of a request of this command, in the order in which the server finds them,
    /// sharded channels and cluster cursors included. A key named twice is there twice.
    ///
    /// A request that names no keys because it need not (`EVAL` with 0, any keyless command)
    /// leaves `out` as it is.
    ///
    /// # Errors
    /// [`KeyError`]: it should name keys, and none can be found. `out` is as it was.
    #[inline]
    pub fn keys(&self, request: Request<'_>, out: &mut KeyRefs) -> Result<(), KeyError> {
        match self.only_first() {
            Some(flags) if request.argc() > 1 => {
                out.push(KeyRef { index: 1, flags });
                Ok(())
            }
            _ => self.keys_slow(Args::behind(request, 0), out),
        }
    }

    fn keys_slow(&self, args: Args<'_>, out: &mut KeyRefs) -> Result<(), KeyError> {
        let start = out.len();
        if !self.has_keys() {
            return Ok(());
        }
        if let Some(by_hand) = self.extraction_by_hand() {
            by_hand.keys(self, args, out);
        } else if specs::keys(self.key_specs(), args, specs::Include::LikeKeys, out).is_none() {
            legacy_range(self.row().legacy_range, args, out);
        }
        if out.len() == start
            && !self.row().flags.contains(Flags::NO_MANDATORY_KEYS)
            && self.needs_keys()
        {
            return Err(KeyError);
        }
        Ok(())
    }

    /// `SUNSUBSCRIBE` alone needs none, though no flag says so.
    fn needs_keys(&self) -> bool {
        self.arity() != -1
    }

    /// Appends the keys as `COMMAND GETKEYS` lists them: without what is only routed like a key.
    pub(crate) fn documented_keys(&self, args: Args<'_>, out: &mut KeyRefs) {
        let specs = self.key_specs();
        let varied = specs
            .iter()
            .any(|spec| spec.flags.contains(KeyFlags::VARIABLE_FLAGS));
        if !varied && specs::keys(specs, args, specs::Include::Keys, out).is_some() {
            return;
        }
        if let Some(by_hand) = self.extraction_by_hand() {
            let start = out.len();
            by_hand.keys(self, args, out);
            if by_hand.is_counted() {
                // The server's function for these does not say.
                out.iter_mut()
                    .skip(start)
                    .for_each(|key| key.flags = KeyFlags::NONE);
            }
        }
    }

    /// Whether `COMMAND GETKEYS` has an answer for this command.
    pub(crate) fn has_documented_keys(&self) -> bool {
        self.key_specs()
            .iter()
            .any(|spec| !spec.flags.contains(KeyFlags::NOT_KEY))
    }
}

/// From the first key to the last, counted from the end when negative. None of them if the last
/// is not there.
fn legacy_range(range: LegacyRange, args: Args<'_>, out: &mut KeyRefs) {
    let count = i64::try_from(args.count()).unwrap_or(i64::MAX);
    let (first, last) = (i64::from(range.first), i64::from(range.last));
    let last = if last < 0 { count + last } else { last };
    if first < 1 || range.step < 1 || last >= count {
        return;
    }
    let step = usize::from(range.step.unsigned_abs());
    for index in (first..=last).step_by(step) {
        args.push(
            out,
            usize::try_from(index).unwrap_or(usize::MAX),
            KeyFlags::NONE,
        );
    }
}

#[cfg(test)]
mod tests;
