//! All moves until the cluster is even, on paper: the planner asked again and again. Pure.

use heat::{BalanceRules, Balancer, NodeLoad, SlotLoad, SlotMove};
use topology::{Slot, SlotRange};

/// Rounds at most: a plan that needs more is wrong, and the next run goes on from there.
const ROUNDS_MAX: usize = 256;

/// What one node has of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) load: f64,
    pub(crate) slots: usize,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

/// Rounds of moves; those of a round are done at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Agenda {
    pub(crate) rounds: Vec<Vec<SlotMove>>,
    /// By node.
    pub(crate) before: Vec<Share>,
    pub(crate) after: Vec<Share>,
}

impl Agenda {
    /// Plans to the end. `slots` and `keys` are of all slots, in order.
    pub(crate) fn draw(
        nodes: &[NodeLoad],
        mut slots: Vec<SlotLoad>,
        keys: &[u64],
        rules: &BalanceRules,
    ) -> Self {
        let before = shares(nodes.len(), &slots, keys);
        let (mut balancer, mut rounds) = (Balancer::default(), Vec::new());
        while rounds.len() < ROUNDS_MAX {
            let moves = balancer.plan(nodes, &slots, rules).moves;
            if moves.is_empty() {
                break;
            }
            for (slot, to) in moves
                .iter()
                .flat_map(|m| m.slots.iter().map(|slot| (slot, m.to)))
            {
                if let Some(known) = slots.get_mut(usize::from(slot.get())) {
                    known.owner = to;
                }
            }
            rounds.push(moves);
        }
        Self {
            after: shares(nodes.len(), &slots, keys),
            before,
            rounds,
        }
    }

    pub(crate) fn moves(&self) -> impl Iterator<Item = &SlotMove> {
        self.rounds.iter().flatten()
    }

    /// Slots that are moved, those twice that are moved twice.
    pub(crate) fn slots(&self) -> usize {
        self.moves().map(|planned| planned.slots.len()).sum()
    }
}

fn shares(nodes: usize, slots: &[SlotLoad], keys: &[u64]) -> Vec<Share> {
    let mut shares = vec![Share::default(); nodes];
    for (index, slot) in slots.iter().enumerate() {
        if let Some(share) = shares.get_mut(slot.owner) {
            share.load += slot.load;
            share.slots += 1;
            share.keys += keys.get(index).copied().unwrap_or_default();
            share.bytes += slot.bytes;
        }
    }
    let all: f64 = shares.iter().map(|share| share.load).sum();
    for share in &mut shares {
        share.load /= all.max(f64::MIN_POSITIVE);
    }
    shares
}

/// Slots as runs of neighbours; they are in order.
pub(crate) fn slots_as_ranges(slots: &[Slot]) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for slot in slots {
        let longer = ranges.last().and_then(|last| {
            let next = last.last().get() + 1 == slot.get();
            SlotRange::new(last.first(), *slot).filter(|_| next)
        });
        match (longer, ranges.last_mut()) {
            (Some(longer), Some(last)) => *last = longer,
            _ => ranges.extend(SlotRange::new(*slot, *slot)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(capacity: f64) -> NodeLoad {
        NodeLoad {
            capacity,
            bytes_max: u64::MAX,
            moves: 0,
        }
    }

    fn slots(owner: impl Fn(u16) -> usize, load: impl Fn(u16) -> f64) -> Vec<SlotLoad> {
        let slot = |slot: Slot| SlotLoad {
            owner: owner(slot.get()),
            load: load(slot.get()),
            bytes: 10,
            moving: false,
        };
        Slot::all().map(slot).collect()
    }

    #[test]
    fn it_ends_even_whether_there_is_load_or_not() {
        let rules = BalanceRules {
            begin_off: 1.05,
            ..BalanceRules::default()
        };
        let keys = vec![2; 16384];
        for load in [0.0, 3.0] {
            let nodes = [node(1.0), node(1.0), node(1.0), node(1.0)];
            let agenda = Agenda::draw(&nodes, slots(|_| 0, |_| load), &keys, &rules);
            assert_eq!(agenda.before[0].slots, 16384);
            for share in &agenda.after {
                assert!((3891..=4301).contains(&share.slots), "{share:?}");
                assert_eq!(share.keys, 2 * share.slots as u64);
                assert_eq!(share.bytes, 10 * share.slots as u64);
            }
            assert!(
                agenda.rounds.iter().all(|round| round.len() <= 4),
                "bounded per node"
            );
            let again = slots(|slot| usize::from(slot / 4096), |_| load);
            assert_eq!(
                Agenda::draw(&nodes, again, &keys, &rules).rounds,
                Vec::<Vec<_>>::new()
            );
        }
    }

    #[test]
    fn a_node_without_capacity_is_emptied() {
        let nodes = [node(1.0), node(0.0), node(1.0)];
        let owner = |slot: u16| usize::from(slot / 5462);
        let agenda = Agenda::draw(
            &nodes,
            slots(owner, f64::from),
            &[],
            &BalanceRules::default(),
        );
        assert_eq!(agenda.after[1].slots, 0);
        assert!(
            (agenda.after[0].load - 0.5).abs() < 0.05,
            "{:?}",
            agenda.after
        );
    }

    #[test]
    fn slots_are_told_as_runs() {
        let slots: Vec<Slot> = [1, 2, 3, 7, 9, 10]
            .into_iter()
            .filter_map(Slot::new)
            .collect();
        let ranges: Vec<String> = slots_as_ranges(&slots)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(ranges, ["1-3", "7", "9-10"]);
    }
}
