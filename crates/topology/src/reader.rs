//! Which node a read goes to.

use crate::{Node, Role};

/// How much a node is to be preferred for reads; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// In the reader's own zone, primary or replica.
    OwnZone,
    /// A replica in another zone, or in one that is not known.
    Elsewhere,
    /// The primary, in another zone.
    PrimaryElsewhere,
}

impl Nearness {
    /// How near `node`, which is in `its` zone, is to a reader in `ours`.
    #[must_use]
    pub fn of(node: &Node, its: Option<&str>, ours: Option<&str>) -> Self {
        if ours.is_some() && its == ours {
            Self::OwnZone
        } else if node.role == Role::Replica {
            Self::Elsewhere
        } else {
            Self::PrimaryElsewhere
        }
    }
}

/// Chooses among nodes that can be read from: the nearest, and of these the one with the fewest
/// requests in flight. Of equals, `turn` decides, so that all have their share. `None`: there are
/// none.
pub fn choose(
    candidates: impl Iterator<Item = (usize, Nearness, usize)> + Clone,
    turn: usize,
) -> Option<usize> {
    let least = candidates
        .clone()
        .map(|(_, nearness, load)| (nearness, load))
        .min()?;
    let best = candidates.filter(|(_, nearness, load)| (*nearness, *load) == least);
    let count = best.clone().count();
    best.map(|(index, ..)| index).nth(turn.checked_rem(count)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    #[test]
    fn the_own_zone_comes_first_then_replicas_then_the_primary() {
        let (mut primary, replica) = (node(1), node(2));
        primary.role = Role::Primary;
        let a = Some("a");
        assert_eq!(Nearness::of(&primary, a, a), Nearness::OwnZone);
        assert_eq!(Nearness::of(&replica, a, a), Nearness::OwnZone);
        assert_eq!(Nearness::of(&replica, Some("b"), a), Nearness::Elsewhere);
        assert_eq!(Nearness::of(&replica, None, a), Nearness::Elsewhere);
        assert_eq!(Nearness::of(&primary, None, a), Nearness::PrimaryElsewhere);
        // Who does not know where it is has no own zone.
        assert_eq!(Nearness::of(&replica, None, None), Nearness::Elsewhere);
        assert_eq!(
            Nearness::of(&primary, None, None),
            Nearness::PrimaryElsewhere
        );
    }

    #[test]
    fn the_nearest_with_the_fewest_in_flight_and_equals_by_turns() {
        use Nearness::{Elsewhere, OwnZone};
        let chosen = |all: &[(usize, Nearness, usize)], turn| choose(all.iter().copied(), turn);
        assert_eq!(chosen(&[], 0), None);
        assert_eq!(chosen(&[(0, Elsewhere, 0), (1, OwnZone, 9)], 0), Some(1));
        assert_eq!(chosen(&[(0, OwnZone, 3), (1, OwnZone, 2)], 0), Some(1));
        let equals = [(4, OwnZone, 2), (5, OwnZone, 3), (6, OwnZone, 2)];
        assert_eq!(
            [0, 1, 2].map(|turn| chosen(&equals, turn)),
            [Some(4), Some(6), Some(4)]
        );
    }
}
