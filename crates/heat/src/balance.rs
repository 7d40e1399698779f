//! Which slots go where, so that the nodes of a cluster are equally busy for their size.
//!
//! Busy nodes are paired with idle ones, the busiest with the idlest, and every pair moves at once.
//! Hot slots and cold ones are told apart: hot ones go singly and first, they carry much heat for few
//! bytes; cold ones follow in runs of neighbours, so that a migration is few ranges. A slot hotter than
//! the difference it should even out stays where it is, and the cold ones leave from beside it.
//! Nothing begins until a node is well off the mean, and once begun it goes on until all are near:
//! two bounds, so that a cluster at the edge does not swing.

use topology::Slot;

/// A node that owns slots, or may.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLoad {
    /// Load it can carry, in the unit of the slots' load; 0 when it is to be emptied.
    pub capacity: f64,
    /// Bytes it can hold.
    pub bytes_max: u64,
    /// Moves from or to it that are going on.
    pub moves: usize,
}

/// What is known of a slot.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotLoad {
    /// Index of its owner among the nodes; while it moves, of the one it moves to.
    pub owner: usize,
    /// Load, in any unit: operations or microseconds of CPU a second.
    pub load: f64,
    /// Bytes it holds.
    pub bytes: u64,
    /// It is on its way and must not be moved again.
    pub moving: bool,
}

/// When slots move, and how many at once.
#[derive(Clone, Debug, PartialEq)]
pub struct BalanceRules {
    /// Moves begin when a node's load for its capacity is this far from the mean, above or below, as a
    /// ratio..
    pub begin_off: f64,
    /// ..and go on until every node is nearer than this.
    pub end_off: f64,
    /// Moves that a node takes part in at once.
    pub moves_per_node: usize,
    /// Slots in one move.
    pub slots_per_move: usize,
    /// Bytes in one move, unless one slot alone has more.
    pub bytes_per_move: u64,
    /// A slot is hot with so many times the load of the mean slot.
    pub hot_from: f64,
}

impl Default for BalanceRules {
    fn default() -> Self {
        Self {
            begin_off: 1.2,
            end_off: 1.05,
            moves_per_node: 2,
            slots_per_move: 1024,
            bytes_per_move: 4 << 30,
            hot_from: 4.0,
        }
    }
}

/// Slots that go from one node to another, in one migration.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotMove {
    /// Index of the node that owns them.
    pub from: usize,
    /// Index of the one that will.
    pub to: usize,
    /// The slots, in order.
    pub slots: Vec<Slot>,
    /// Their load together.
    pub load: f64,
    /// Their bytes together.
    pub bytes: u64,
}

/// What to move now, and what it is good for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be begun now, all at once; the next plan, once they are done, goes on from there.
    pub moves: Vec<SlotMove>,
    /// Every node's load now.
    pub before: Vec<f64>,
    /// Every node's load when these are done.
    pub after: Vec<f64>,
}

/// Plans for one cluster; remembers whether it is on its way to even.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancer {
    begun: bool,
}

impl Balancer {
    /// The moves to begin now. `slots` are all slots of the cluster (or, where slots stand for groups
    /// of equal ones, fewer), in order.
    #[must_use]
    pub fn plan(&mut self, nodes: &[NodeLoad], slots: &[SlotLoad], rules: &BalanceRules) -> Plan {
        let mut work = Work::new(nodes, slots, rules);
        let before = work.load.clone();
        self.begun = work.can_begin() && (self.begun || work.must_begin());
        while self.begun
            && let Some((from, to)) = work.next_pair()
        {
            if !work.move_between(from, to) {
                work.give_up(from, to);
            }
        }
        // Even, or as near to it as the slots allow: what drifts from here on may drift.
        let under_way = nodes.iter().any(|node| node.moves > 0);
        self.begun &= under_way || !work.moves.is_empty();
        work.check_invariants();
        Plan {
            moves: work.moves,
            before,
            after: work.load,
        }
    }
}

struct Work<'a> {
    nodes: &'a [NodeLoad],
    slots: &'a [SlotLoad],
    rules: &'a BalanceRules,
    /// What every slot counts: its load, and a little for being there, so that idle slots spread too.
    weight: Vec<f64>,
    load: Vec<f64>,
    bytes: Vec<u64>,
    /// Moves each node can still take part in.
    places: Vec<usize>,
    /// Load that each node should have: its capacity's share of all.
    target: Vec<f64>,
    /// Slots that may move, by owner, hottest first.
    movable: Vec<Vec<usize>>,
    hot_from: f64,
    /// Pairs between which nothing fits.
    given_up: Vec<(usize, usize)>,
    moves: Vec<SlotMove>,
}

/// The share of the mean load that a slot counts for being there.
const IDLE_SHARE: f64 = 1e-3;

fn at<T: Copy + Default>(list: &[T], index: usize) -> T {
    list.get(index).copied().unwrap_or_default()
}

impl<'a> Work<'a> {
    fn new(nodes: &'a [NodeLoad], slots: &'a [SlotLoad], rules: &'a BalanceRules) -> Self {
        let count = slots.len().max(1) as f64;
        let mean = slots.iter().map(|slot| slot.load).sum::<f64>() / count;
        let idle = if mean > 0.0 { mean * IDLE_SHARE } else { 1.0 };
        let weight: Vec<f64> = slots.iter().map(|slot| slot.load + idle).collect();
        let (mut load, mut bytes) = (vec![0.0; nodes.len()], vec![0_u64; nodes.len()]);
        let mut movable = vec![Vec::new(); nodes.len()];
        for (index, slot) in slots.iter().enumerate() {
            if let (Some(load), Some(bytes), Some(movable)) = (
                load.get_mut(slot.owner),
                bytes.get_mut(slot.owner),
                movable.get_mut(slot.owner),
            ) {
                *load += at(&weight, index);
                *bytes = bytes.saturating_add(slot.bytes);
                if !slot.moving {
                    movable.push(index);
                }
            }
        }
        for slots in &mut movable {
            slots.sort_by(|a, b| at(&weight, *b).total_cmp(&at(&weight, *a)).then(a.cmp(b)));
        }
        let total: f64 = load.iter().sum();
        let capacity: f64 = nodes.iter().map(|node| node.capacity).sum();
        let share = |node: &NodeLoad| total * node.capacity / capacity.max(f64::MIN_POSITIVE);
        let places = |node: &NodeLoad| rules.moves_per_node.saturating_sub(node.moves);
        Self {
            target: nodes.iter().map(share).collect(),
            places: nodes.iter().map(places).collect(),
            hot_from: (mean + idle) * rules.hot_from,
            given_up: Vec::new(),
            moves: Vec::new(),
            nodes,
            slots,
            rules,
            weight,
            load,
            bytes,
            movable,
        }
    }

    /// Some node is far from what it should have, or has something and should have nothing.
    fn must_begin(&self) -> bool {
        let off = self.rules.begin_off;
        let far = |(load, target): (&f64, &f64)| {
            (*load > 0.0 && *load > target * off) || load * off < *target
        };
        self.load.iter().zip(&self.target).any(far)
    }

    fn can_begin(&self) -> bool {
        self.target.iter().any(|target| *target > 0.0)
    }

    /// The busiest node that has too much, and the idlest with room, both with a place for a move.
    fn next_pair(&self) -> Option<(usize, usize)> {
        let free = |node: &usize| at(&self.places, *node) > 0;
        let above = |node: usize| at(&self.load, node) - at(&self.target, node);
        let off = self.rules.end_off;
        let too_busy = |node: usize| at(&self.load, node) > at(&self.target, node) * off;
        let too_idle = |node: usize| at(&self.load, node) * off < at(&self.target, node);
        let has_slots = |node: usize| self.movable.get(node).is_some_and(|m| !m.is_empty());
        let mut from: Vec<usize> = (0..self.nodes.len()).filter(free).collect();
        let mut to = from.clone();
        from.retain(|node| above(*node) > 0.0 && has_slots(*node));
        to.retain(|node| above(*node) < 0.0);
        from.sort_by(|a, b| above(*b).total_cmp(&above(*a)).then(a.cmp(b)));
        to.sort_by(|a, b| above(*a).total_cmp(&above(*b)).then(a.cmp(b)));
        from.iter().find_map(|from| {
            let useful = |to: &&usize| too_busy(*from) || too_idle(**to);
            let open = |to: &&usize| !self.given_up.contains(&(*from, **to));
            let to = to.iter().find(|to| useful(to) && open(to));
            to.map(|to| (*from, *to))
        })
    }

    /// Plans one move between the two; false when no slot fits.
    fn move_between(&mut self, from: usize, to: usize) -> bool {
        let spare = at(&self.load, from) - at(&self.target, from);
        let room = at(&self.target, to) - at(&self.load, to);
        let heat_max = spare.min(room) * (1.0 + f64::EPSILON * 64.0);
        let bytes_free = self
            .nodes
            .get(to)
            .map_or(0, |node| node.bytes_max.saturating_sub(at(&self.bytes, to)));
        let mut chosen = self.choose(from, heat_max, bytes_free);
        if chosen.is_empty() && at(&self.target, from) <= 0.0 {
            // Whoever is emptied must get rid of what fits nowhere too: singly, to the idlest.
            chosen = self.choose(from, f64::INFINITY, bytes_free);
            chosen.truncate(1);
        }
        if chosen.is_empty() {
            return false;
        }
        let heat: f64 = chosen.iter().map(|slot| at(&self.weight, *slot)).sum();
        let known: Vec<&SlotLoad> = chosen.iter().filter_map(|s| self.slots.get(*s)).collect();
        let planned = SlotMove {
            from,
            to,
            load: known.iter().map(|slot| slot.load).sum(),
            bytes: known.iter().map(|slot| slot.bytes).sum(),
            slots: chosen
                .iter()
                .filter_map(|slot| Slot::new(u16::try_from(*slot).ok()?))
                .collect(),
        };
        if let Some(movable) = self.movable.get_mut(from) {
            movable.retain(|slot| chosen.binary_search(slot).is_err());
        }
        for (node, heat) in [(from, -heat), (to, heat)] {
            if let (Some(load), Some(places)) = (self.load.get_mut(node), self.places.get_mut(node))
            {
                *load += heat;
                *places -= 1;
            }
        }
        // The bytes are at both until the move is done.
        if let Some(bytes) = self.bytes.get_mut(to) {
            *bytes = bytes.saturating_add(planned.bytes);
        }
        self.moves.push(planned);
        true
    }

    /// Hot slots of `from` if one fits, else cold ones in runs, with no more heat and bytes than these.
    fn choose(&self, from: usize, heat_max: f64, bytes_free: u64) -> Vec<usize> {
        let movable = self.movable.get(from).map_or(&[][..], Vec::as_slice);
        let hot_end = movable.partition_point(|slot| at(&self.weight, *slot) >= self.hot_from);
        let (hot, cold) = movable.split_at_checked(hot_end).unwrap_or_default();
        let bytes_max = self.rules.bytes_per_move.min(bytes_free);
        let mut taken = Taken::default();
        for slot in hot {
            self.take(&mut taken, *slot, heat_max, bytes_max, bytes_free);
        }
        // The receiver that got hot slots gets the cold ones next time, in a move of their own.
        if taken.slots.is_empty() {
            let mut runs = cold.to_vec();
            runs.sort_unstable();
            for slot in runs {
                self.take(&mut taken, slot, heat_max, bytes_max, bytes_free);
            }
        }
        taken.slots.sort_unstable();
        taken.slots
    }

    fn take(&self, taken: &mut Taken, slot: usize, heat_max: f64, bytes_max: u64, free: u64) {
        let heat = taken.heat + at(&self.weight, slot);
        let Some(known) = self.slots.get(slot) else {
            return;
        };
        let bytes = taken.bytes.saturating_add(known.bytes);
        let alone = taken.slots.is_empty() && bytes <= free;
        let fits = heat <= heat_max && (bytes <= bytes_max || alone);
        if fits && taken.slots.len() < self.rules.slots_per_move {
            *taken = Taken {
                heat,
                bytes,
                slots: std::mem::take(&mut taken.slots),
            };
            taken.slots.push(slot);
        }
    }

    /// Nothing fits between these two: not asked again in this plan.
    fn give_up(&mut self, from: usize, to: usize) {
        self.given_up.push((from, to));
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.moves
                .iter()
                .all(|planned| planned.from != planned.to && !planned.slots.is_empty())
        );
        if cfg!(debug_assertions) {
            let mut moved: Vec<Slot> = self.moves.iter().flat_map(|m| m.slots.clone()).collect();
            let count = moved.len();
            moved.sort_unstable();
            moved.dedup();
            debug_assert_eq!(moved.len(), count, "a slot is in two moves");
        }
    }
}

#[derive(Default)]
struct Taken {
    slots: Vec<usize>,
    heat: f64,
    bytes: u64,
}

#[cfg(test)]
mod tests;
