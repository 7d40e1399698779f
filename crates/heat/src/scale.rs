//! How many nodes a cluster should have, and how big each.
//!
//! Three answers to load, the quickest first: a node grows in place, up to what its host allows; nodes
//! are taken from the warm pool, so many that all could grow by [`ScaleRules::headroom`] again; nodes are
//! given back, one step at a time, long after the load has gone. Growing has a bound in time, so that a
//! fault in the measuring empties no pool. Nothing shrinks while anything grows or moves.

/// What nodes can do, and when their number changes.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleRules {
    /// Load that one node carries at its full size.
    pub node_load_max: f64,
    /// Bytes that one node holds.
    pub node_bytes_max: u64,
    /// Share of a node's load and bytes that is used at most.
    pub use_max: f64,
    /// Load may grow by this factor at once and still be carried by the nodes that a decision leaves..
    pub headroom: f64,
    /// ..and the next decision to grow is due when less than this is left of it: lower, or load that
    /// wavers would take a node with every wave.
    pub headroom_min: f64,
    /// Times the size that a node has reserved to which it can grow in place.
    pub size_max: f64,
    /// Fewest nodes.
    pub nodes_min: usize,
    /// Most nodes.
    pub nodes_max: usize,
    /// Nodes at most become so many times as many within `growth_period_s`.
    pub growth_max: f64,
    /// The period of that.
    pub growth_period_s: f64,
    /// Nodes are given back when this share of them would do..
    pub shrink_below: f64,
    /// ..and has for this long.
    pub shrink_after_s: f64,
}

impl Default for ScaleRules {
    fn default() -> Self {
        Self {
            node_load_max: 100_000.0,
            node_bytes_max: 16 << 30,
            use_max: 0.7,
            headroom: 2.0,
            headroom_min: 1.7,
            size_max: 8.0,
            nodes_min: 1,
            nodes_max: 500,
            growth_max: 2.0,
            growth_period_s: 60.0,
            shrink_below: 0.7,
            shrink_after_s: 600.0,
        }
    }
}

/// The cluster as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleView {
    /// Seconds; they only grow.
    pub now_s: f64,
    /// Nodes that own slots or are about to.
    pub nodes: usize,
    /// Load now.
    pub load: f64,
    /// Load to expect by the time that more nodes would be there.
    pub expected: f64,
    /// Load of the busiest node for the mean of all: 1 when even.
    pub skew: f64,
    /// Bytes held.
    pub bytes: u64,
    /// Nodes are coming or going, or slots move.
    pub changing: bool,
}

/// What happens to the number of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Hold,
    /// So many more, from the warm pool.
    Out(usize),
    /// So many fewer.
    In(usize),
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The size that every node needs now, in sizes reserved: 1 to [`ScaleRules::size_max`].
    pub size: f64,
    /// What happens to their number.
    pub change: Change,
}

/// Decides for one cluster; remembers what it must not swing about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaler {
    /// Nodes at the beginning of the current period of growth, and when that was.
    period: Option<(f64, usize)>,
    /// Since when fewer nodes would do.
    low_since_s: Option<f64>,
}

impl Scaler {
    /// What to do now.
    pub fn decide(&mut self, view: &ScaleView, rules: &ScaleRules) -> Step {
        let nodes = view.nodes.max(1);
        let skew = view.skew.clamp(1.0, SKEW_MAX);
        let carried = nodes as f64 * rules.node_load_max * rules.use_max / skew;
        let size = (view.load / carried * rules.size_max).clamp(1.0, rules.size_max);
        let needed = rules.nodes_for(view);
        let change = if rules.nodes_with(view, rules.headroom_min) > nodes {
            self.low_since_s = None;
            self.grow(view.now_s, nodes, needed, rules)
        } else {
            self.shrink(view, nodes, needed, rules)
        };
        Step { size, change }
    }

    fn grow(&mut self, now_s: f64, nodes: usize, needed: usize, rules: &ScaleRules) -> Change {
        let (_, began_with) = match self.period {
            Some(period) if now_s < period.0 + rules.growth_period_s => period,
            _ => *self.period.insert((now_s, nodes)),
        };
        let most = whole((began_with as f64 * rules.growth_max).floor()).max(began_with + 1);
        match needed.min(most).saturating_sub(nodes) {
            0 => Change::Hold,
            more => Change::Out(more),
        }
    }

    fn shrink(
        &mut self,
        view: &ScaleView,
        nodes: usize,
        needed: usize,
        rules: &ScaleRules,
    ) -> Change {
        let would_do = needed < nodes && needed as f64 <= nodes as f64 * rules.shrink_below;
        if !would_do || view.changing {
            self.low_since_s = None;
            return Change::Hold;
        }
        let since = *self.low_since_s.get_or_insert(view.now_s);
        if view.now_s - since < rules.shrink_after_s {
            return Change::Hold;
        }
        self.low_since_s = None;
        // Half of what is too much: the forecast may be wrong, and slots have to move.
        Change::In((nodes - needed).div_ceil(2))
    }
}

/// More unevenness than this is a matter of moving slots, not of more nodes.
const SKEW_MAX: f64 = 1.5;

impl ScaleRules {
    /// Nodes that carry the load with headroom, the load expected (without: it is a guess already), and
    /// the bytes.
    #[must_use]
    pub fn nodes_for(&self, view: &ScaleView) -> usize {
        self.nodes_with(view, self.headroom)
    }

    fn nodes_with(&self, view: &ScaleView, headroom: f64) -> usize {
        let one = self.node_load_max * self.use_max;
        let skew = view.skew.clamp(1.0, SKEW_MAX);
        let load = (view.load * headroom).max(view.expected) * skew;
        let held = self.node_bytes_max as f64 * self.use_max;
        let by_load = load / one.max(f64::MIN_POSITIVE);
        let by_bytes = view.bytes as f64 / held.max(f64::MIN_POSITIVE);
        let needed = whole(by_load.max(by_bytes).ceil());
        needed.clamp(self.nodes_min.max(1), self.nodes_max.max(1))
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and the result is clamped"
)]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn view(now_s: f64, nodes: usize, load: f64) -> ScaleView {
        ScaleView {
            now_s,
            nodes,
            load,
            expected: load,
            skew: 1.0,
            bytes: 0,
            changing: false,
        }
    }

    #[test]
    fn it_grows_in_place_first_and_then_out() {
        let rules = ScaleRules::default();
        let mut scaler = Scaler::default();
        let small = scaler.decide(&view(0.0, 1, 1_000.0), &rules);
        assert_eq!((small.size, small.change), (1.0, Change::Hold));
        let more = scaler.decide(&view(1.0, 1, 30_000.0), &rules);
        assert!(more.size > 3.0 && more.change == Change::Hold, "{more:?}");
        let still = scaler.decide(&view(2.0, 1, 38_000.0), &rules);
        assert_eq!(still.change, Change::Hold);
        let out = scaler.decide(&view(3.0, 1, 50_000.0), &rules);
        assert_eq!(out.change, Change::Out(1));
    }

    #[test]
    fn bytes_alone_need_nodes_too() {
        let full = ScaleView {
            bytes: 40 << 30,
            ..view(0.0, 2, 0.0)
        };
        let step = Scaler::default().decide(&full, &ScaleRules::default());
        assert_eq!(step.change, Change::Out(2));
    }

    #[test]
    fn growth_has_a_bound_in_time() {
        let rules = ScaleRules::default();
        let mut scaler = Scaler::default();
        let mut nodes = 4;
        for second in 0..180 {
            let step = scaler.decide(&view(f64::from(second), nodes, 1e9), &rules);
            if let Change::Out(more) = step.change {
                nodes += more;
            }
            let bound = 4 << (second / 60 + 1);
            assert!(nodes <= bound, "{nodes} nodes after {second} s");
        }
        assert_eq!(nodes, 32);
    }

    #[test]
    fn it_gives_back_late_and_never_while_something_changes() {
        let rules = ScaleRules::default();
        let mut scaler = Scaler::default();
        let mut at = |second: u32, changing| {
            let view = ScaleView {
                changing,
                ..view(f64::from(second), 16, 70_000.0)
            };
            scaler.decide(&view, &rules).change
        };
        assert_eq!(at(0, false), Change::Hold);
        assert_eq!(at(599, false), Change::Hold);
        assert_eq!(at(600, true), Change::Hold);
        assert_eq!(at(700, false), Change::Hold);
        assert_eq!(at(1_299, false), Change::Hold);
        assert_eq!(at(1_300, false), Change::In(7));
    }

    proptest! {
        /// Hysteresis: load that stays within a tenth changes the number of nodes only upward.
        #[test]
        fn it_does_not_swing(seed: u64, load in 1e4_f64..1e7) {
            let rules = ScaleRules { growth_period_s: 1.0, ..ScaleRules::default() };
            let (mut rng, mut scaler, mut nodes) = (Rng::new(seed), Scaler::default(), 1);
            let mut shrunk = 0;
            for second in 0..5_000 {
                let load = load * (0.9 + 0.2 * rng.fraction());
                match scaler.decide(&view(f64::from(second), nodes, load), &rules).change {
                    Change::Out(more) => nodes += more,
                    Change::In(fewer) => { nodes -= fewer; shrunk += 1; }
                    Change::Hold => {}
                }
                prop_assert!((rules.nodes_min..=rules.nodes_max).contains(&nodes));
            }
            prop_assert_eq!(shrunk, 0);
        }
    }
}
