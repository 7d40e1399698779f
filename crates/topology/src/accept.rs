//! Which view of the cluster to believe.

use std::collections::HashSet;

use thiserror::Error;

use crate::snapshot::{Revision, Topology};
use crate::{Candidate, Slot};

/// Why a view is not believed. The current one stays; ask another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nobody owns any slot: a node that has not joined anything.
    #[error("no slot has an owner in this view")]
    Empty,
    /// Slots lose their owner, and no second node says so.
    #[error("{0} slots would lose their owner, the first is {1}")]
    LosesSlots(usize, Slot),
    /// Not one node we know: another cluster behind an old address.
    #[error(
        "this view shares no node with the cluster we know; if that was made anew, restart Keyway"
    )]
    OtherCluster,
    /// The view of a node that was cut off.
    #[error("this view's epoch {0} is behind the known {1}")]
    OlderEpoch(u64, u64),
}

/// Decides about a new view. `Ok(None)`: nothing changed. `Ok(Some)`: the next snapshot, with the
/// next revision.
///
/// The first view may have slots without owner (such a cluster works with
/// `cluster-require-full-coverage no`); after that, a slot only loses its owner when two nodes say
/// so ([`Candidate::confirmed`]).
///
/// # Errors
/// The view is not believed.
pub fn accept(
    current: Option<&Topology>,
    candidate: Candidate,
) -> Result<Option<Topology>, Refusal> {
    if candidate.holes() == usize::from(Slot::COUNT) {
        return Err(Refusal::Empty);
    }
    let Some(current) = current else {
        return Ok(Some(Topology::new(Revision::FIRST, candidate)));
    };
    let known: HashSet<_> = current.nodes().map(|node| node.id).collect();
    if !candidate
        .shards
        .iter()
        .flat_map(|s| s.nodes())
        .any(|node| known.contains(&node.id))
    {
        return Err(Refusal::OtherCluster);
    }
    if let (Some(new), Some(known)) = (candidate.epoch, current.epoch())
        && new < known
    {
        return Err(Refusal::OlderEpoch(new, known));
    }
    if !candidate.confirmed {
        let mut lost = Slot::all().filter(|&slot| {
            current.owner_index(slot).is_some() && candidate.owners.get(slot).is_none()
        });
        if let Some(first) = lost.next() {
            return Err(Refusal::LosesSlots(1 + lost.count(), first));
        }
    }
    // An epoch that grew alone is worth a snapshot: the next comparison needs it.
    let epoch_grew = candidate.epoch.is_some() && candidate.epoch != current.epoch();
    if !epoch_grew && current.says_the_same_as(&candidate) {
        return Ok(None);
    }
    let mut candidate = candidate;
    candidate.epoch = candidate.epoch.or(current.epoch());
    Ok(Some(Topology::new(current.revision().next(), candidate)))
}

#[cfg(test)]
mod tests;
