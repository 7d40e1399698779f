//! The immutable snapshot everyone reads.

use std::fmt;
use std::sync::Arc;

use crate::candidate::Candidate;
use crate::{Node, NodeAddr, NodeId, Shard, Slot, SlotRange};

/// Place of a shard in one snapshot; means nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(u16);

impl ShardIndex {
    pub(crate) fn new(index: usize) -> Option<Self> {
        u16::try_from(index)
            .ok()
            .filter(|&index| index != Owners::NOBODY)
            .map(Self)
    }

    /// The place, from 0.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// Counts snapshots of one proxy; only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(u64);

impl Revision {
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number, from 1.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The owner of every slot.
///
/// All but a few of the rows of 64 slots are one shard's in most clusters, and are asked first:
/// 512 bytes stay in the nearest cache when 32 KiB do not.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Owners {
    /// The owner of a row, or nobody where it is not one.
    rows: [u16; Self::ROWS],
    slots: [u16; Slot::COUNT as usize],
}

impl Owners {
    const NOBODY: u16 = u16::MAX;
    const ROW: usize = 64;
    const ROWS: usize = Slot::COUNT as usize / Self::ROW;

    pub(crate) fn nobody() -> Box<Self> {
        Box::new(Self {
            rows: [Self::NOBODY; Self::ROWS],
            slots: [Self::NOBODY; Slot::COUNT as usize],
        })
    }

    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> Option<ShardIndex> {
        let slot = usize::from(slot.get());
        let known = |owner: &u16| *owner != Self::NOBODY;
        let row = self.rows.get(slot / Self::ROW).copied().filter(known);
        let owner = row.or_else(|| self.slots.get(slot).copied().filter(known));
        owner.map(ShardIndex)
    }

    /// Returns the owner before.
    pub(crate) fn set(&mut self, slot: Slot, owner: ShardIndex) -> Option<ShardIndex> {
        let before = self.get(slot);
        let slot = usize::from(slot.get());
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = owner.0;
        }
        let slots = self.slots.chunks_exact(Self::ROW).nth(slot / Self::ROW);
        if let (Some(row), Some(slots)) = (self.rows.get_mut(slot / Self::ROW), slots) {
            let is_one = slots.iter().all(|&other| other == owner.0);
            *row = if is_one { owner.0 } else { Self::NOBODY };
        }
        before
    }

    pub(crate) fn holes(&self) -> usize {
        self.slots
            .iter()
            .filter(|&&index| index == Self::NOBODY)
            .count()
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owners({} holes)", self.holes())
    }
}

/// Who owns which slot and where they are, at one moment. Immutable; a clone copies pointers.
#[derive(Clone, Debug)]
pub struct Topology {
    revision: Revision,
    /// Sorted by the primary's id when accepted; a promotion leaves the order as it is.
    shards: Arc<[Shard]>,
    owners: Arc<Owners>,
    epoch: Option<u64>,
    holes: usize,
}

impl Topology {
    pub(crate) fn new(revision: Revision, candidate: Candidate) -> Self {
        Self {
            revision,
            holes: candidate.owners.holes(),
            shards: candidate.shards.into(),
            owners: Arc::from(candidate.owners),
            epoch: candidate.epoch,
        }
    }

    /// Which snapshot this is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The cluster's epoch, if it was known.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// All shards, also those without slots.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard at this place.
    #[must_use]
    pub fn shard(&self, index: ShardIndex) -> Option<&Shard> {
        self.shards.get(index.get())
    }

    /// The place of the shard that owns a slot; `None`: nobody does.
    #[inline]
    #[must_use]
    pub fn owner_index(&self, slot: Slot) -> Option<ShardIndex> {
        self.owners.get(slot)
    }

    /// The shard that owns a slot; `None`: nobody does.
    #[inline]
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<&Shard> {
        self.owner_index(slot).and_then(|index| self.shard(index))
    }

    /// The node that takes writes for a slot; `None`: nobody does.
    #[inline]
    #[must_use]
    pub fn primary(&self, slot: Slot) -> Option<&Node> {
        self.owner(slot).map(|shard| &shard.primary)
    }

    /// The primary of every shard, also of those without slots.
    pub fn primaries(&self) -> impl Iterator<Item = &Node> {
        self.shards.iter().map(|shard| &shard.primary)
    }

    /// Every node, shard by shard, primaries first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.shards.iter().flat_map(Shard::nodes)
    }

    /// The node at an address.
    #[must_use]
    pub fn node_by_addr(&self, addr: &NodeAddr) -> Option<&Node> {
        self.nodes().find(|node| node.addr == *addr)
    }

    /// The node of this name.
    #[must_use]
    pub fn node_by_id(&self, id: &NodeId) -> Option<&Node> {
        self.nodes().find(|node| node.id == *id)
    }

    /// Every slot has an owner.
    #[must_use]
    pub fn covers_all(&self) -> bool {
        self.holes == 0
    }

    /// Number of slots that nobody owns.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.holes
    }

    /// The longest runs of slots with one owner, in order; slots without an owner are left out.
    #[must_use]
    pub fn ranges(&self) -> Vec<(SlotRange, ShardIndex)> {
        let mut ranges: Vec<(SlotRange, ShardIndex)> = Vec::new();
        for slot in Slot::all() {
            let Some(owner) = self.owner_index(slot) else {
                continue;
            };
            let extended = ranges.last().and_then(|&(range, of)| {
                let adjacent = range.last().get() + 1 == slot.get();
                (of == owner && adjacent)
                    .then(|| SlotRange::new(range.first(), slot))
                    .flatten()
            });
            match (extended, ranges.last_mut()) {
                (Some(longer), Some(last)) => last.0 = longer,
                _ => ranges.extend(SlotRange::new(slot, slot).map(|range| (range, owner))),
            }
        }
        ranges
    }

    /// What a `MOVED` of this slot to this address teaches: the slot has a new owner, and when
    /// that node was a replica until now, it is its shard's primary. The revision grows by one,
    /// unless nothing changes. `None`: no node is known at this address; only a new view can tell
    /// (an address out of an error text is never connected to).
    #[must_use]
    pub fn with_slot_moved(&self, slot: Slot, to: &NodeAddr) -> Option<Self> {
        let (place, shard) = self
            .shards
            .iter()
            .enumerate()
            .find(|(_, s)| s.nodes().any(|n| n.addr == *to))?;
        let index = ShardIndex::new(place)?;
        let replica = shard.replicas.iter().position(|node| node.addr == *to);
        let before = self.owner_index(slot);
        if replica.is_none() && before == Some(index) {
            return Some(self.clone());
        }
        let mut next = self.clone();
        next.revision = self.revision.next();
        if let Some(replica) = replica {
            let mut shards = self.shards.to_vec();
            shards.get_mut(place)?.promote(replica);
            next.shards = shards.into();
        }
        if before != Some(index) {
            Arc::make_mut(&mut next.owners).set(slot, index);
            next.holes -= usize::from(before.is_none());
        }
        Some(next)
    }

    pub(crate) fn says_the_same_as(&self, candidate: &Candidate) -> bool {
        *self.owners == *candidate.owners
            && crate::candidate::same_shards(&self.shards, &candidate.shards)
    }
}

#[cfg(test)]
mod tests;
