//! `SCAN` and its like: cursors that lose nothing while keys come and go.

use resp::Value;
use topology::Slot;

use super::{Call, args, glob};

/// A cursor's low bits are its slot.
const SLOT_BITS: u32 = 14;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
/// A node's cursor has at most 48 bits.
const WITHIN_SLOT_MASK: u64 = (1 << (48 - SLOT_BITS)) - 1;

const TYPES: [&[u8]; 6] = [b"string", b"list", b"set", b"zset", b"hash", b"stream"];

/// What a scan asks for.
pub(super) struct Scan<'a> {
    cursor: u64,
    count: usize,
    pattern: Option<&'a [u8]>,
    pub(super) kind: Option<&'a [u8]>,
    /// `HSCAN` without values.
    pub(super) names_only: bool,
}

impl<'a> Scan<'a> {
    /// Reads `cursor [MATCH pattern] [COUNT count] [TYPE type]` from this argument on.
    pub(super) fn read(call: &Call<'a>, at: usize, with_type: bool) -> Result<Self, String> {
        let cursor = std::str::from_utf8(call.arg(at))
            .ok()
            .and_then(|text| text.parse().ok());
        let cursor = cursor.ok_or("ERR invalid cursor")?;
        let mut scan = Self {
            cursor,
            count: 10,
            pattern: None,
            kind: None,
            names_only: false,
        };
        let mut at = at + 1;
        while at < call.count() {
            if call.is(0, "hscan") && call.is(at, "novalues") {
                scan.names_only = true;
                at += 1;
                continue;
            }
            if at + 1 >= call.count() {
                return Err(args::SYNTAX.to_owned());
            }
            if call.is(at, "match") {
                scan.pattern = Some(call.arg(at + 1));
            } else if call.is(at, "count") {
                let count = call.integer(at + 1)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                scan.count = count.ok_or(args::SYNTAX)?;
            } else if with_type && call.is(at, "type") {
                let kind = call.arg(at + 1);
                if !TYPES.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
                    let kind = String::from_utf8_lossy(kind);
                    return Err(format!("ERR unknown type name '{kind}'"));
                }
                scan.kind = Some(kind);
            } else {
                return Err(args::SYNTAX.to_owned());
            }
            at += 2;
        }
        Ok(scan)
    }

    /// The cursor of a walk through a node's keys: as in cluster mode, the slot is in its low bits.
    /// Slots come one after the other, and a node goes on to its own next by itself.
    pub(super) fn step_through_slots(&self, keys: Vec<Vec<u8>>) -> (u64, Vec<Vec<u8>>) {
        let from = (self.cursor & SLOT_MASK, self.cursor >> SLOT_BITS);
        let place_of = |key: &Vec<u8>| {
            let slot = u64::from(Slot::of_key(key).get());
            (slot, (place(key) & WITHIN_SLOT_MASK).max(1))
        };
        let keys = keys.into_iter().map(|key| (place_of(&key), key));
        let mut left: Vec<_> = keys.filter(|(at, _)| *at >= from).collect();
        left.sort_unstable();
        let mut taken = self.count.min(left.len());
        while taken > 0 && taken < left.len() && same(&left, taken - 1, taken) {
            taken += 1;
        }
        let slot_before = taken.checked_sub(1).and_then(|at| left.get(at));
        let next = left.get(taken).map_or(0, |((slot, place), _)| {
            let goes_on = slot_before.is_some_and(|((before, _), _)| before == slot);
            slot | if goes_on { place << SLOT_BITS } else { 0 }
        });
        left.truncate(taken);
        let names = left.into_iter().map(|(_, name)| name);
        (next, names.filter(|name| self.wants(name)).collect())
    }

    fn wants(&self, name: &[u8]) -> bool {
        self.pattern
            .is_none_or(|pattern| glob::matches(pattern, name))
    }

    /// The cursor is a place in the order of the names' hashes, which does not change when others
    /// come or go. Returns the next one and the names.
    pub(super) fn step(&self, names: impl Iterator<Item = Vec<u8>>) -> (u64, Vec<Vec<u8>>) {
        let mut hashed: Vec<(u64, Vec<u8>)> = names.map(|name| (place(&name), name)).collect();
        hashed.retain(|(place, _)| *place >= self.cursor);
        hashed.sort_unstable();
        let mut taken = self.count.min(hashed.len());
        // All names of one place go together.
        while taken > 0 && taken < hashed.len() && same(&hashed, taken - 1, taken) {
            taken += 1;
        }
        let next = hashed.get(taken).map_or(0, |(place, _)| *place);
        hashed.truncate(taken);
        (
            next,
            hashed
                .into_iter()
                .map(|(_, name)| name)
                .filter(|name| self.wants(name))
                .collect(),
        )
    }
}

fn same<T: PartialEq>(hashed: &[(T, Vec<u8>)], one: usize, other: usize) -> bool {
    hashed.get(one).map(|(place, _)| place) == hashed.get(other).map(|(place, _)| place)
}

/// FNV-1a, 48 bits of it, never 0.
fn place(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 16).max(1)
}

pub(super) fn reply(cursor: u64, items: Vec<Value>) -> Value {
    Value::Array(vec![Value::bulk(cursor.to_string()), Value::Array(items)])
}
