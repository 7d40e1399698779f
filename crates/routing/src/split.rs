//! A command over several slots, cut into one command for each slot.

use std::ops::Range;

use bytes::Bytes;
use command::SplitKind;
use resp::Request;
use topology::{NodeAddr, Slot};

use crate::{keys::Keys, merge::Merge};

/// The most keys that one split command may name. More are refused: each needs memory here until
/// the slowest shard has answered.
pub const SPLIT_KEYS_MAX: usize = 65_536;

/// Bytes of an array's header and of the name's.
const HEADER_BYTES_MAX: usize = 24;

/// One slot's share of a split command.
#[derive(Debug)]
pub struct Part {
    /// The slot of all its keys.
    pub slot: Slot,
    /// Its keys.
    pub keys: Keys,
    /// The node it is for; without one, whoever owns the slot.
    pub node: Option<Box<NodeAddr>>,
    /// The request to send.
    pub request: Bytes,
    /// What it is, where it is not the split command in small.
    pub block: Option<PartBlock>,
}

/// A part that is several requests in a row.
#[derive(Clone, Copy, Debug)]
pub struct PartBlock {
    /// Replies before the one that counts.
    pub preludes: u16,
    /// One of the requests may write.
    pub writes: bool,
}

/// A command cut into parts, and what puts the replies together again.
#[derive(Debug)]
pub struct Split {
    /// One part for each slot, in the order of the slots.
    pub parts: Vec<Part>,
    /// Takes the parts' replies.
    pub merge: Merge,
}

impl Split {
    /// Cuts `request`, whose keys are every `stride`th argument from the first on (`MSET` has a
    /// value behind each key).
    ///
    /// Returns `None` when all keys are in one slot: the request goes whole.
    pub(crate) fn cut(
        kind: SplitKind,
        request: Request<'_>,
        hasher: &foldhash::fast::FixedState,
    ) -> Option<Self> {
        let stride = if kind == SplitKind::Mset { 2 } else { 1 };
        let mut order: Vec<(Slot, usize)> = (1..request.argc())
            .step_by(stride)
            .map(|index| (Slot::of_key(request.arg(index).unwrap_or_default()), index))
            .collect();
        let first = order.first()?.0;
        if order.iter().all(|(slot, _)| *slot == first) {
            return None;
        }
        // Stable: within a slot the keys keep their order, and so do their effects and replies.
        order.sort_by_key(|(slot, _)| *slot);
        let mut shares: Vec<(Slot, Keys, Range<usize>)> = Vec::with_capacity(order.len());
        let mut part_of_key = vec![0_u16; order.len()];
        // All parts lie in one allocation: the arguments once, the name and a header for each.
        let header = request.name().len() + HEADER_BYTES_MAX;
        let mut bytes = Vec::with_capacity(request.bytes().len() + order.len() * header);
        for share in order.chunk_by(|one, other| one.0 == other.0) {
            let part = u16::try_from(shares.len()).unwrap_or(u16::MAX);
            let start = bytes.len();
            let mut keys = Keys::none();
            resp::write::array(&mut bytes, 1 + share.len() * stride);
            resp::write::bulk(&mut bytes, request.name());
            for (_, index) in share {
                keys.push(request.arg(*index).unwrap_or_default(), hasher);
                for arg in (*index..index + stride).filter_map(|index| request.arg(index)) {
                    resp::write::bulk(&mut bytes, arg);
                }
                if let Some(slot) = part_of_key.get_mut((index - 1) / stride) {
                    *slot = part;
                }
            }
            let slot = share.first().map_or(first, |(slot, _)| *slot);
            shares.push((slot, keys, start..bytes.len()));
        }
        let bytes = Bytes::from(bytes);
        let part = |(slot, keys, range)| Part {
            node: None,
            slot,
            keys,
            request: bytes.slice(range),
            block: None,
        };
        let parts: Vec<_> = shares.into_iter().map(part).collect();
        let merge = match kind {
            SplitKind::Mget => Merge::array(parts.len(), part_of_key),
            SplitKind::Mset => Merge::all_ok(parts.len()),
            SplitKind::Sum => Merge::sum(parts.len()),
        };
        Some(Self { parts, merge })
    }
}
