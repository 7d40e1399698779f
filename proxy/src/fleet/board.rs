//! The cluster as the planner wants it: nodes and slots by index. Pure.

use std::collections::BTreeSet;

use heat::{NodeLoad, SlotLoad, SlotMove};
use topology::{NodeId, Slot};

use super::{Job, Load, Mover, View};

/// Nodes that take part, and all slots.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    /// Primaries, by address; the planner's indexes are places here.
    pub(crate) ids: Vec<NodeId>,
    pub(crate) nodes: Vec<NodeLoad>,
    pub(crate) slots: Vec<SlotLoad>,
}

impl Board {
    /// All primaries, equally able, but for those that shall be `emptied`.
    pub(crate) fn new(view: &View, load: &Load, emptied: &BTreeSet<NodeId>) -> Self {
        let ids: Vec<NodeId> = view.primaries().map(|peer| peer.id).collect();
        let node = |id: &NodeId| NodeLoad {
            capacity: if emptied.contains(id) { 0.0 } else { 1.0 },
            bytes_max: match load.nodes.get(id).map_or(0, |node| node.bytes_max) {
                0 => u64::MAX,
                bound => bound,
            },
            moves: 0,
        };
        let slot = |slot: Slot| {
            let index = usize::from(slot.get());
            let owner = view.owner(slot).map(|owner| owner.id);
            SlotLoad {
                owner: ids
                    .iter()
                    .position(|id| Some(*id) == owner)
                    .unwrap_or(usize::MAX),
                load: load.slots.get(index).copied().unwrap_or_default(),
                bytes: load.bytes.get(index).copied().unwrap_or_default(),
                moving: false,
            }
        };
        Self {
            nodes: ids.iter().map(node).collect(),
            slots: Slot::all().map(slot).collect(),
            ids,
        }
    }

    /// The jobs of a planned move, by the owners of now. Returns how many slots have gone elsewhere too.
    pub(crate) fn jobs(
        &self,
        mover: &Mover<'_>,
        view: &View,
        planned: &SlotMove,
        keys: &[u64],
    ) -> (Vec<Job>, usize) {
        let (Some(from), Some(to)) = (self.ids.get(planned.from), self.ids.get(planned.to)) else {
            return (Vec::new(), planned.slots.len());
        };
        let there = |slot: &&Slot| view.owner(**slot).is_some_and(|owner| owner.id == *from);
        let slots: Vec<Slot> = planned.slots.iter().filter(there).copied().collect();
        let left_out = planned.slots.len() - slots.len();
        (mover.jobs(*from, *to, &slots, keys), left_out)
    }
}
