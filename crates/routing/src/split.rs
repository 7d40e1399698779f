//! A command over several slots, cut into one command for each slot.

use std::ops::Range;

use bytes::Bytes;
use command::SplitKind;
use resp::Request;
use smallvec::SmallVec;
use topology::{NodeAddr, Slot};

use crate::{keys::Keys, merge::Merge};

/// The most keys that one split command may name. More are refused: each needs memory here until
/// the slowest shard has answered.
pub const SPLIT_KEYS_MAX: usize = 65_536;

/// The keys of so many are sorted without an allocation.
const FEW_KEYS: usize = 16;

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
    /// The request to send, within [`Split::bytes`].
    pub request: Range<usize>,
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
    /// The parts' requests.
    pub bytes: Bytes,
    /// Takes the parts' replies.
    pub merge: Merge,
}

impl Split {
    /// The request of one of the parts.
    #[must_use]
    pub fn request(&self, part: &Part) -> &[u8] {
        self.bytes.get(part.request.clone()).unwrap_or_default()
    }

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
        let mut order: SmallVec<[(Slot, usize); FEW_KEYS]> = (1..request.argc())
            .step_by(stride)
            .map(|index| (Slot::of_key(request.arg(index).unwrap_or_default()), index))
            .collect();
        // Within a slot the keys keep their order, and so do their effects and replies.
        order.sort_unstable();
        let slots = order.chunk_by(|one, other| one.0 == other.0);
        let count = slots.clone().count();
        if count < 2 {
            return None;
        }
        let mut parts = Vec::with_capacity(count);
        let mut part_of_key = Vec::new();
        if kind == SplitKind::Mget {
            part_of_key.resize(order.len(), 0);
        }
        // All parts lie in one allocation: the arguments once, the name and a header for each.
        let header_bytes = request.name().len() + HEADER_BYTES_MAX;
        let mut bytes = Vec::with_capacity(request.bytes().len() + count * header_bytes);
        let mut header = 0..0;
        let mut header_keys = 0;
        for (part, share) in (0..).zip(slots) {
            let start = bytes.len();
            if share.len() == header_keys {
                bytes.extend_from_within(header.clone());
            } else {
                resp::write::array(&mut bytes, 1 + share.len() * stride);
                resp::write::bulk(&mut bytes, request.name());
                header = start..bytes.len();
                header_keys = share.len();
            }
            let mut keys = Keys::none();
            for (_, index) in share {
                keys.push(request.arg(*index).unwrap_or_default(), hasher);
                bytes.extend_from_slice(request.framed(*index, stride)?);
                if let Some(of_key) = part_of_key.get_mut((index - 1) / stride) {
                    *of_key = part;
                }
            }
            let (slot, _) = share.first()?;
            parts.push(Part {
                slot: *slot,
                keys,
                node: None,
                request: start..bytes.len(),
                block: None,
            });
        }
        let merge = match kind {
            SplitKind::Mget => Merge::array(count, part_of_key),
            SplitKind::Mset => Merge::all_ok(count),
            SplitKind::Sum => Merge::sum(count),
        };
        let bytes = bytes.into();
        Some(Self {
            parts,
            bytes,
            merge,
        })
    }
}
