//! What changed between two snapshots, for a log line.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Health, Node, NodeAddr, Role, Slot, Topology};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node that was not known.
    Added(NodeAddr),
    /// A node that is gone.
    Removed(NodeAddr),
    /// A node that is reached elsewhere now.
    Readdressed(NodeAddr, NodeAddr),
    /// A replica that is a primary now.
    Promoted(NodeAddr),
    /// A primary that is a replica now.
    Demoted(NodeAddr),
    /// A node whose health is another now.
    Health(NodeAddr, Health),
    /// A node that is in another zone, or in a known one at last.
    Zone(NodeAddr),
    /// So many slots have this primary now, and had one of another shard before.
    SlotsMoved(usize, NodeAddr),
    /// So many slots have no owner any more.
    SlotsLost(usize),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(addr) => write!(f, "{addr} joined"),
            Self::Removed(addr) => write!(f, "{addr} left"),
            Self::Readdressed(from, to) => write!(f, "{from} is at {to}"),
            Self::Promoted(addr) => write!(f, "{addr} became primary"),
            Self::Demoted(addr) => write!(f, "{addr} became replica"),
            Self::Health(addr, Health::Online) => write!(f, "{addr} is online"),
            Self::Health(addr, Health::Loading) => write!(f, "{addr} is loading"),
            Self::Health(addr, Health::Failed) => write!(f, "{addr} failed"),
            Self::Zone(addr) => write!(f, "{addr} changed zone"),
            Self::SlotsMoved(count, to) => write!(f, "{count} slots moved to {to}"),
            Self::SlotsLost(count) => write!(f, "{count} slots lost their owner"),
        }
    }
}

/// Everything that differs, nodes first, each kind in a stable order. Slots that follow their
/// shard through a failover did not move.
#[must_use]
pub fn diff(old: &Topology, new: &Topology) -> Vec<Change> {
    let by_id = |topology: &Topology| -> BTreeMap<_, Node> {
        topology
            .nodes()
            .map(|node| (node.id, node.clone()))
            .collect()
    };
    let (before, after) = (by_id(old), by_id(new));
    let mut changes = Vec::new();
    for (id, node) in &after {
        match before.get(id) {
            None => changes.push(Change::Added(node.addr.clone())),
            Some(earlier) => node_changes(earlier, node, &mut changes),
        }
    }
    let gone = before.iter().filter(|(id, _)| !after.contains_key(*id));
    changes.extend(gone.map(|(_, node)| Change::Removed(node.addr.clone())));
    slot_changes(old, new, &mut changes);
    changes
}

fn node_changes(before: &Node, after: &Node, changes: &mut Vec<Change>) {
    let addr = || after.addr.clone();
    if before.addr != after.addr {
        changes.push(Change::Readdressed(before.addr.clone(), addr()));
    }
    match (before.role, after.role) {
        (Role::Replica, Role::Primary) => changes.push(Change::Promoted(addr())),
        (Role::Primary, Role::Replica) => changes.push(Change::Demoted(addr())),
        _ => {}
    }
    if before.health != after.health {
        changes.push(Change::Health(addr(), after.health));
    }
    if before.zone != after.zone {
        changes.push(Change::Zone(addr()));
    }
}

fn slot_changes(old: &Topology, new: &Topology, changes: &mut Vec<Change>) {
    let mut moved: BTreeMap<NodeAddr, usize> = BTreeMap::new();
    let mut lost = 0;
    for slot in Slot::all() {
        match (old.owner(slot), new.owner(slot)) {
            (Some(_), None) => lost += 1,
            (before, Some(after)) => {
                // The same shard if the primary of one is any node of the other.
                let stayed = before.is_some_and(|before| {
                    before.primary.id == after.primary.id
                        || before.nodes().any(|node| node.id == after.primary.id)
                        || after.nodes().any(|node| node.id == before.primary.id)
                });
                if !stayed {
                    *moved.entry(after.primary.addr.clone()).or_default() += 1;
                }
            }
            (None, None) => {}
        }
    }
    changes.extend(
        moved
            .into_iter()
            .map(|(to, count)| Change::SlotsMoved(count, to)),
    );
    if lost > 0 {
        changes.push(Change::SlotsLost(lost));
    }
}

#[cfg(test)]
mod tests;
