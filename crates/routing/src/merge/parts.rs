//! Replies of several shards, or of several commands, as one.

use std::{collections::BTreeSet, sync::OnceLock};

use resp::{ReplyFramer, Value, write};
use topology::Slot;

/// The count in the header of an array, and what follows it.
pub(super) fn array_of(reply: &[u8]) -> Option<(usize, &[u8])> {
    let rest = reply.strip_prefix(b"*")?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let (digits, rest) = rest.split_at_checked(end)?;
    let count = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((count, rest.strip_prefix(b"\r\n")?))
}

/// The first reply, and what follows it.
pub(super) fn split_reply(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(size) = resp::flat_reply_size(bytes) {
        return bytes.split_at_checked(size);
    }
    let walk = ReplyFramer::new().advance(bytes).ok()?;
    walk.done.then(|| bytes.split_at_checked(walk.consumed))?
}

/// The bytes of the first string, and what follows it.
fn split_bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bulk, rest) = split_reply(bytes)?;
    let body = bulk.strip_prefix(b"$")?.strip_suffix(b"\r\n")?;
    let start = body.windows(2).position(|pair| pair == b"\r\n")? + 2;
    Some((body.get(start..)?, rest))
}

/// One array of the elements of all.
pub(super) fn concatenate<'a>(
    replies: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let arrays = replies.map(array_of).collect::<Option<Vec<_>>>()?;
    write::array(out, arrays.iter().map(|(count, _)| count).sum());
    for (_, elements) in arrays {
        out.extend_from_slice(elements);
    }
    Some(())
}

/// One array of the elements of all, which are arrays themselves: the one whose second element, the
/// time, is the greatest comes first.
pub(super) fn newest<'a>(replies: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Option<()> {
    let mut elements: Vec<(i64, &[u8])> = Vec::new();
    for reply in replies {
        let (count, mut rest) = array_of(reply)?;
        for _ in 0..count {
            let (element, left) = split_reply(rest)?;
            let (_, fields) = array_of(element)?;
            let (_, behind) = split_reply(fields)?;
            let (Value::Integer(time), _) = Value::parse(behind).ok()? else {
                return None;
            };
            elements.push((time, element));
            rest = left;
        }
    }
    // What one node says stays in its order.
    elements.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    write::array(out, elements.len());
    elements
        .iter()
        .for_each(|(_, element)| out.extend_from_slice(element));
    Some(())
}

/// One array of the elements of all, each once, in the order of their bytes.
pub(super) fn union<'a>(replies: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Option<()> {
    let mut elements = BTreeSet::new();
    for reply in replies {
        let (count, mut rest) = array_of(reply)?;
        for _ in 0..count {
            let (element, left) = split_reply(rest)?;
            elements.insert(element);
            rest = left;
        }
    }
    write::array(out, elements.len());
    elements
        .into_iter()
        .for_each(|element| out.extend_from_slice(element));
    Some(())
}

/// Names and integers in turn, the same names from all: the sums.
pub(super) fn sum_pairs<'a>(
    replies: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut sums: Vec<(&[u8], i64)> = Vec::new();
    for (turn, reply) in replies.enumerate() {
        let (count, mut rest) = array_of(reply)?;
        for pair in 0..count / 2 {
            let (name, behind) = split_reply(rest)?;
            let (Value::Integer(number), len) = Value::parse(behind).ok()? else {
                return None;
            };
            rest = behind.get(len..)?;
            match sums.get_mut(pair) {
                None if turn == 0 => sums.push((name, number)),
                Some((known, sum)) if *known == name => *sum = sum.checked_add(number)?,
                _ => return None,
            }
        }
    }
    write::array(out, sums.len() * 2);
    for (name, sum) in sums {
        out.extend_from_slice(name);
        write::integer(out, sum);
    }
    Some(())
}

/// An array of integers: 1 where all say 1.
pub(super) fn and<'a>(replies: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Option<()> {
    let mut all: Option<Vec<i64>> = None;
    for reply in replies {
        let Ok((Value::Array(values), _)) = Value::parse(reply) else {
            return None;
        };
        let integer = |value: &Value| match value {
            Value::Integer(value) => Some(*value),
            _ => None,
        };
        let values = values.iter().map(integer).collect::<Option<Vec<_>>>()?;
        all = Some(match all {
            None => values,
            Some(all) if all.len() == values.len() => {
                all.iter().zip(values).map(|(a, b)| *a.min(&b)).collect()
            }
            Some(_) => return None,
        });
    }
    let all = all?;
    write::array(out, all.len());
    all.iter().for_each(|value| write::integer(out, *value));
    Some(())
}

/// One that is not null; null when all are.
pub(super) fn any_value<'a>(
    replies: impl Iterator<Item = &'a [u8]> + Clone,
    chance: u64,
) -> Option<&'a [u8]> {
    let there = |reply: &&[u8]| !matches!(*reply, b"$-1\r\n" | b"_\r\n");
    let count = u64::try_from(replies.clone().filter(there).count()).ok()?;
    let chosen = usize::try_from(chance.checked_rem(count).unwrap_or_default()).ok()?;
    let mut found = replies.clone().filter(there).skip(chosen);
    found.next().or_else(|| replies.clone().next())
}

/// The epoch in the reply to `CLUSTER INFO`.
fn epoch_in(info: &[u8]) -> Option<u64> {
    let text = str::from_utf8(info).ok()?;
    let mut lines = text.lines();
    let digits = lines.find_map(|line| line.strip_prefix("cluster_current_epoch:"))?;
    digits.parse().ok()
}

/// The last element of an array; what is no array (an error) is as it is.
pub(super) fn last(reply: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let Some((count, mut rest)) = array_of(reply) else {
        out.extend_from_slice(reply);
        return Some(());
    };
    for _ in 1..count {
        (_, rest) = split_reply(rest)?;
    }
    let (element, end) = split_reply(rest)?;
    out.extend_from_slice(element);
    end.is_empty().then_some(())
}

/// `EXEC`'s array with the replies to commands that were answered here in their places. A reply
/// that is no array (an error, or null because a watched key was written to) stands alone.
pub(super) fn insert(reply: &[u8], here: &[(usize, Vec<u8>)], out: &mut Vec<u8>) -> Option<()> {
    let Some((count, mut rest)) = array_of(reply) else {
        out.extend_from_slice(reply);
        return Some(());
    };
    let mut here = here.iter().peekable();
    let total = count + here.len();
    write::array(out, total);
    for index in 0..total {
        if let Some((_, bytes)) = here.next_if(|(at, _)| *at == index) {
            out.extend_from_slice(bytes);
        } else {
            let (element, left) = split_reply(rest)?;
            out.extend_from_slice(element);
            rest = left;
        }
    }
    rest.is_empty().then_some(())
}

/// How a page that a node returned for `SCAN` continues in the whole cluster.
///
/// A node's cursor says in its low 14 bits which slot it is in (Valkey 8.0 and newer, in cluster
/// mode); it goes on to the node's own next slots by itself. The cluster's cursor goes through all
/// slots in their order, whoever owns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The slot that the page begins in.
    pub slot: Slot,
    /// The first slot behind it that the node does not own.
    pub foreign: Option<Slot>,
    /// What marks the node's cursors within a slot: they mean nothing to other nodes.
    pub mark: u64,
    /// The reply is that of a transaction: the guard's, then the page, then perhaps the epoch.
    pub guarded: bool,
    /// The epoch of which `foreign` is true; `None` when the node was not asked for its own.
    pub epoch: Option<u64>,
}

/// A key in each slot.
static GUARDS: OnceLock<Vec<String>> = OnceLock::new();

fn guards() -> Vec<String> {
    let mut found = vec![String::new(); usize::from(Slot::COUNT)];
    let mut missing = found.len();
    for number in 0_u32.. {
        let name = number.to_string();
        let slot = usize::from(Slot::of_key(name.as_bytes()).get());
        if let Some(place) = found.get_mut(slot).filter(|place| place.is_empty()) {
            *place = name;
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    found
}

const SLOT_MASK: u64 = 0x3fff;
const NODE_CURSOR_BITS: u32 = 48;
const MARK_MASK: u64 = 0x3fff;

impl Page {
    /// The slot that a client's cursor is in, the cursor for the node, and the mark of the node
    /// whose cursor it is (0: any node's).
    #[must_use]
    pub fn cursor(client: u64) -> Option<(Slot, u64, u64)> {
        let slot = u16::try_from(client & SLOT_MASK).ok().and_then(Slot::new)?;
        let node = client & ((1 << NODE_CURSOR_BITS) - 1);
        let mark = (client >> NODE_CURSOR_BITS) & MARK_MASK;
        Some((slot, node, mark))
    }

    /// A mark for a node; never 0.
    #[must_use]
    pub fn mark(node: &str) -> u64 {
        let hash = node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ((hash >> 32) & MARK_MASK).max(1)
    }

    /// `SCAN` behind a keyed command in its slot, in one transaction. `SCAN` alone is answered by any
    /// node, also by one that has lost the slot a moment ago; with the guard such a node redirects.
    ///
    /// A page goes through many slots, and the node may have lost another one of them, so that it
    /// says nothing of its keys. Then its epoch is newer than the one by which it was chosen
    /// (`asks_epoch`), and the page does not count.
    #[must_use]
    pub fn guard(slot: Slot, scan: &[u8], asks_epoch: bool) -> Vec<u8> {
        let key = GUARDS.get_or_init(guards).get(usize::from(slot.get()));
        let mut out = Vec::with_capacity(scan.len() + 80);
        write::request(&mut out, &["MULTI"]);
        write::request(&mut out, &["EXISTS", key.map_or("", String::as_str)]);
        out.extend_from_slice(scan);
        if asks_epoch {
            write::request(&mut out, &["CLUSTER", "INFO"]);
        }
        write::request(&mut out, &["EXEC"]);
        out
    }

    /// Replies before that of `EXEC` to [`Page::guard`].
    #[must_use]
    pub fn guard_preludes(asks_epoch: bool) -> u16 {
        3 + u16::from(asks_epoch)
    }

    /// What marks the cursor of [`Page::again`]; hardly ever a node's.
    pub const AGAIN: u64 = 1;

    /// The reply that has the client begin with a slot again. Its cursor is marked, because for
    /// slot 0 it would otherwise say that all is done.
    pub fn again(slot: Slot, out: &mut Vec<u8>) {
        let cursor = u64::from(slot.get()) | Self::AGAIN << NODE_CURSOR_BITS;
        write::array(out, 2);
        write::bulk(out, cursor.to_string().as_bytes());
        write::array(out, 0);
    }

    /// Turns a node's page into the cluster's.
    pub(super) fn turn(self, reply: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut reply = reply;
        if self.guarded
            && let (2 | 3, rest @ [b':', ..]) = array_of(reply)?
        {
            let (_, rest) = split_reply(rest)?;
            let (page, info) = split_reply(rest)?;
            reply = page;
            let newer = self.epoch.zip(epoch_in(info));
            if newer.is_some_and(|(known, epoch)| epoch > known) {
                Self::again(self.slot, out);
                return Some(());
            }
            if reply.starts_with(b"-") {
                out.extend_from_slice(reply);
                return Some(());
            }
        }
        let (2, rest) = array_of(reply)? else {
            return None;
        };
        let (cursor, rest) = split_bulk(rest)?;
        let cursor: u64 = std::str::from_utf8(cursor).ok()?.parse().ok()?;
        if cursor >> NODE_CURSOR_BITS != 0 {
            out.extend_from_slice(reply); // `Page::again`: no node has such a cursor
            return Some(());
        }
        let foreign = self.foreign.map(|slot| u64::from(slot.get()));
        let within = cursor & SLOT_MASK;
        // The node is at its end, or has gone past a slot that is not its own.
        let left = cursor == 0 || foreign.is_some_and(|foreign| within > foreign);
        let next = if left {
            foreign.unwrap_or(0)
        } else if cursor >> 14 == 0 {
            cursor
        } else {
            cursor | self.mark << NODE_CURSOR_BITS
        };
        // What lies behind the next slot comes again when its turn has come.
        let end = foreign.filter(|_| left);
        let (count, mut rest) = array_of(rest)?;
        let mut keys = Vec::new();
        let mut kept = 0;
        for _ in 0..count {
            let (key, behind) = split_bulk(rest)?;
            if end.is_none_or(|end| u64::from(Slot::of_key(key).get()) < end) {
                keys.extend_from_slice(rest.get(..rest.len() - behind.len())?);
                kept += 1;
            }
            rest = behind;
        }
        write::array(out, 2);
        write::bulk(out, next.to_string().as_bytes());
        write::array(out, kept);
        out.extend_from_slice(&keys);
        rest.is_empty().then_some(())
    }
}
