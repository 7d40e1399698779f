//! A view of the cluster that nobody believed yet.

use std::collections::HashSet;

use resp::ReplyError;
use thiserror::Error;

use crate::snapshot::{Owners, ShardIndex};
use crate::{Health, Node, NodeAddr, NodeId, Shard, Slot, SlotRange};

/// Most shards a cluster can have: each needs a slot, and one spare index means "nobody".
pub const SHARDS_MAX: usize = Slot::COUNT as usize;

/// Most replicas of one shard that are remembered.
pub(crate) const REPLICAS_MAX: usize = 256;

/// An answer of a node that is no view of a cluster. The node is at fault; ask another one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The bytes were no reply.
    #[error("the reply is malformed: {0}")]
    Malformed(#[from] ReplyError),
    /// The node answered with an error.
    #[error("the node answered with an error: {0}")]
    Refused(Box<str>),
    /// The reply has another shape than the command's.
    #[error("the reply has no usable {0}")]
    Shape(&'static str),
    /// Slots out of range or in the wrong order.
    #[error("the reply names slots that do not exist")]
    NoSuchSlot,
    /// Two shards own this slot.
    #[error("slot {0} has two owners")]
    TwoOwners(Slot),
    /// One node in two places.
    #[error("node {0} appears twice")]
    NodeTwice(NodeId),
    /// Two living nodes at one address.
    #[error("two nodes share the address {0}")]
    AddressTwice(NodeAddr),
    /// More shards or replicas than are remembered.
    #[error("the cluster has more nodes than supported")]
    TooManyNodes,
}

/// A complete, consistent view; [`accept`](crate::accept) decides whether to believe it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(crate) shards: Vec<Shard>,
    pub(crate) owners: Box<Owners>,
    pub(crate) epoch: Option<u64>,
    pub(crate) confirmed: bool,
}

impl Candidate {
    /// Puts a view together. The order of shards and of replicas does not matter.
    ///
    /// # Errors
    /// A slot with two owners, a node that occurs twice, two living nodes at one address, too many
    /// nodes.
    pub fn from_shards<I>(shards: I) -> Result<Self, ParseError>
    where
        I: IntoIterator<Item = (Shard, Vec<SlotRange>)>,
    {
        let mut shards: Vec<_> = shards.into_iter().collect();
        shards.sort_by_key(|(shard, _)| shard.primary.id);
        if shards.len() > SHARDS_MAX {
            return Err(ParseError::TooManyNodes);
        }
        leave_out_shadows(&mut shards);
        let mut candidate = Self {
            shards: Vec::with_capacity(shards.len()),
            owners: Owners::nobody(),
            epoch: None,
            confirmed: false,
        };
        let mut ids = HashSet::new();
        let mut addrs = HashSet::new();
        for (index, (mut shard, ranges)) in shards.into_iter().enumerate() {
            let index = ShardIndex::new(index).ok_or(ParseError::TooManyNodes)?;
            for slot in ranges.into_iter().flat_map(SlotRange::slots) {
                if candidate.owners.set(slot, index).is_some() {
                    return Err(ParseError::TwoOwners(slot));
                }
            }
            if shard.replicas.len() > REPLICAS_MAX {
                return Err(ParseError::TooManyNodes);
            }
            shard.normalise();
            for node in shard.nodes() {
                if !ids.insert(node.id) {
                    return Err(ParseError::NodeTwice(node.id));
                }
                if !addrs.insert(node.addr.clone()) {
                    return Err(ParseError::AddressTwice(node.addr.clone()));
                }
            }
            candidate.shards.push(shard);
        }
        Ok(candidate)
    }

    /// Adds the cluster's current epoch (`cluster_current_epoch` of `CLUSTER INFO`), as the same
    /// node told it.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// Another node gave the same view: believed even when slots lost their owner.
    #[must_use]
    pub fn confirmed(mut self) -> Self {
        self.confirmed = true;
        self
    }

    /// The shards, sorted by the primary's id.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Number of slots that nobody owns.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.owners.holes()
    }

    /// Both say the same about owners, nodes, addresses, roles, health and zones.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.owners == other.owners && same_shards(&self.shards, &other.shards)
    }
}

/// A dead node's address may have been given to a living one. The dead one is left out: as a
/// replica, or as a primary without slots. (With slots, two owners are a contradiction.)
fn leave_out_shadows(shards: &mut Vec<(Shard, Vec<SlotRange>)>) {
    let nodes = shards.iter().flat_map(|(shard, _)| shard.nodes());
    let living = nodes.filter(|node| node.health != Health::Failed);
    let taken: HashSet<NodeAddr> = living.map(|node| node.addr.clone()).collect();
    let shadow = |node: &Node| node.health == Health::Failed && taken.contains(&node.addr);
    shards.retain(|(shard, ranges)| !(ranges.is_empty() && shadow(&shard.primary)));
    for (shard, _) in shards {
        shard.replicas.retain(|node| !shadow(node));
    }
}

/// Equal but for replication offsets, which never stand still.
pub(crate) fn same_shards(left: &[Shard], right: &[Shard]) -> bool {
    let nodes = |shards: &[Shard]| -> usize { shards.iter().map(|s| 1 + s.replicas.len()).sum() };
    left.len() == right.len()
        && nodes(left) == nodes(right)
        && left
            .iter()
            .flat_map(Shard::nodes)
            .zip(right.iter().flat_map(Shard::nodes))
            .all(|(a, b)| {
                (a.id, &a.addr, a.role, a.health, &a.zone)
                    == (b.id, &b.addr, b.role, b.health, &b.zone)
            })
}
