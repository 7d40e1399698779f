//! What one worker's commands weigh: exact counts by slot, a sample of the keys, the biggest values.
//!
//! Everything is noted when a node has answered, which is the one moment that knows request, reply
//! and slot (or when a key that is kept near was read, as one of the sample): a command that was sent elsewhere counts once, where it was answered. Of most commands
//! only the slot's counts are touched; the request is looked into for one in so many, and for those
//! with a big value. Owned by the worker: no lock, no atomic, no allocation in the steady state.
//!
//! Never here: who may see keys, and what is shown of several workers.

use std::time::{Duration, Instant};

use command::{CommandTable, KeyRefs};
use heat::{BigKeys, HotKeys, Sampling, SlotCounts, SlotLog};
use resp::{RequestDecoder, RequestLimits};
use topology::Slot;

use crate::ticket::{About, Ticket};

/// Requests looked into in a second, about: at 600 instructions each less than a thousandth of a core.
const LOOKS_PER_SECOND: u32 = 2_000;
/// Until it is known how many requests come, one in so many is looked into.
const EVERY_AT_FIRST: u32 = 128;
/// Never fewer than one in so many.
const EVERY_MAX: u32 = 1_024;
/// How many keys with big values are kept.
const BIG_KEYS: usize = 64;
/// How many requests come is estimated this often.
const ESTIMATE: Duration = Duration::from_secs(1);

/// The heat that one worker has seen.
#[derive(Debug)]
pub struct Heat {
    keys: HotKeys,
    slots: SlotCounts,
    /// What is not in `slots` yet.
    recent: SlotLog,
    big: BigKeys,
    /// What a value has to have to be among the big ones.
    big_floor: usize,
    lens: Lens,
    /// `None` until the first tick.
    started: Option<Instant>,
    estimated_at: Option<Instant>,
    /// Requests looked into since then, and for how many they stand.
    looks: u32,
    stand_for: u64,
}

/// What is needed to look into a request, kept so that looking allocates nothing.
#[derive(Debug)]
struct Lens {
    decoder: RequestDecoder,
    refs: KeyRefs,
}

impl Default for Lens {
    fn default() -> Self {
        let limits = RequestLimits {
            request_bytes_max: usize::MAX,
            ..RequestLimits::AUTHENTICATED
        };
        Self {
            decoder: RequestDecoder::new(limits),
            refs: KeyRefs::new(),
        }
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Heat {
    pub(crate) fn new(seed: u64) -> Self {
        let sampling = Sampling {
            every: EVERY_AT_FIRST,
            ..Sampling::default()
        };
        let big = BigKeys::new(BIG_KEYS);
        Self {
            keys: HotKeys::new(sampling, seed),
            slots: SlotCounts::default(),
            recent: SlotLog::default(),
            big_floor: usize::try_from(big.floor()).unwrap_or(usize::MAX),
            big,
            lens: Lens::default(),
            started: None,
            estimated_at: None,
            looks: 0,
            stand_for: 0,
        }
    }

    /// Hot keys, by operations and by bytes.
    #[must_use]
    pub fn keys(&self) -> &HotKeys {
        &self.keys
    }

    /// Exact counts of what was answered.
    #[must_use]
    pub fn slots(&mut self) -> &SlotCounts {
        self.recent.settle(&mut self.slots);
        &self.slots
    }

    /// The biggest values.
    #[must_use]
    pub fn big(&self) -> &BigKeys {
        &self.big
    }

    /// Since when times are told: the `now` of [`HotKeys::span`] and of the big keys.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.started
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// A node has answered, with so many bytes.
    #[inline(always)]
    pub(crate) fn answered(
        &mut self,
        ticket: &Ticket,
        request: &[u8],
        reply_bytes: usize,
        (table, now): (&CommandTable, Instant),
    ) {
        let About::Keys(slot) = ticket.about else {
            return;
        };
        self.count(slot, ticket, request.len(), reply_bytes);
        let sampled = self.keys.takes_next();
        let biggest = reply_bytes.max(request.len());
        if sampled || biggest >= self.big_floor {
            self.look(sampled, ticket, (request, reply_bytes), table, now);
        }
    }

    /// A read was answered from what is kept near: its key is as hot as if a node had answered. Slots
    /// are not counted: they are what nodes have to do.
    pub(crate) fn served_near(&mut self, key: &[u8], bytes: usize) {
        if self.keys.takes_next() {
            self.looked();
            self.keys.record(key, as_u64(bytes));
        }
    }

    #[inline(always)]
    fn count(&mut self, slot: Slot, ticket: &Ticket, sent: usize, got: usize) {
        let reads = !ticket.nature.may_write;
        let bytes = (as_u64(sent), as_u64(got));
        let commands = (reads, ticket.operations());
        self.recent.answered(&mut self.slots, slot, commands, bytes);
    }

    /// Looks into a request for its keys. Bytes are shared evenly among the keys of a command; in a
    /// transaction, whose replies come as one, only those of the requests count.
    #[cold]
    #[inline(never)]
    fn look(
        &mut self,
        sampled: bool,
        ticket: &Ticket,
        (request, reply_bytes): (&[u8], usize),
        table: &CommandTable,
        now: Instant,
    ) {
        if sampled {
            self.looked();
        }
        let (block, age) = (ticket.is_block(), self.age(now));
        let Lens { decoder, refs } = &mut self.lens;
        decoder.next();
        let mut rest = request;
        while let Ok(Some(len)) = decoder.decode(rest) {
            let (frame, behind) = rest.split_at(len.min(rest.len()));
            let one = decoder.request(frame);
            refs.clear();
            if let Ok(command) = table.lookup(one)
                && command.keys(one, refs).is_ok()
            {
                let reply = if block { 0 } else { reply_bytes };
                let moved = as_u64(frame.len() + reply);
                let each = moved.checked_div(as_u64(refs.len())).unwrap_or_default();
                let keys = refs.iter().filter_map(|key| one.arg(key.index()));
                if sampled {
                    keys.clone().for_each(|key| self.keys.record(key, each));
                }
                let value = if ticket.nature.may_write {
                    frame.len().max(reply)
                } else {
                    reply
                };
                if value >= self.big_floor && refs.len() == 1 && !command.is_script() {
                    keys.for_each(|key| self.big.seen(key, as_u64(value), age));
                    self.big_floor = usize::try_from(self.big.floor()).unwrap_or(usize::MAX);
                }
            }
            rest = behind;
            decoder.next();
        }
        // Half a frame is no request of ours; the next one begins anew.
        decoder.next();
    }

    /// While more come than the estimate says, fewer are looked into at once.
    fn looked(&mut self) {
        self.looks += 1;
        self.stand_for = self.stand_for.saturating_add(self.keys.every().into());
        if self.looks.is_multiple_of(LOOKS_PER_SECOND) {
            let every = self.keys.every().saturating_mul(2).min(EVERY_MAX);
            self.keys.look_at_one_in(every);
        }
    }

    /// Time has passed: what is past fades, and as many requests are looked into as is cheap.
    pub(crate) fn tick(&mut self, now: Instant) {
        let started = *self.started.get_or_insert(now);
        let estimated_at = *self.estimated_at.get_or_insert(now);
        let passed = now.saturating_duration_since(estimated_at);
        if passed < ESTIMATE {
            return;
        }
        let age = now.saturating_duration_since(started);
        self.keys.advance(age);
        self.big.advance(age);
        self.big_floor = usize::try_from(self.big.floor()).unwrap_or(usize::MAX);
        let milliseconds = passed.as_millis().max(1);
        let rate = u128::from(self.stand_for) * 1_000 / milliseconds;
        let every = u32::try_from(rate / u128::from(LOOKS_PER_SECOND)).unwrap_or(u32::MAX);
        self.keys.look_at_one_in(every.clamp(1, EVERY_MAX));
        self.estimated_at = Some(now);
        self.looks = 0;
        self.stand_for = 0;
    }
}

#[cfg(test)]
mod tests;
