//! When what is known of a cluster is enough for clients to come.

use std::time::Duration;

use topology::Slot;

/// After the first topology, owners are waited for so long; then those that are there are enough.
const OWNERS_WITHIN: Duration = Duration::from_secs(10);

/// Why clients should not come, with so many slots without an owner. A cluster that lost some is not
/// served better by nobody: whoever is ready stays so while there is any owner.
pub(super) fn why_not(holes: usize, is_ready: bool, known_for: Duration) -> Option<String> {
    let some = holes < usize::from(Slot::COUNT);
    let enough = holes == 0 || (some && (is_ready || known_for >= OWNERS_WITHIN));
    (!enough).then(|| format!("{holes} slots have no owner"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_slots_make_ready_and_only_their_total_loss_ends_it() {
        let (soon, late) = (Duration::ZERO, OWNERS_WITHIN);
        assert_eq!(why_not(0, false, soon), None);
        assert_eq!(
            why_not(1, false, soon).as_deref(),
            Some("1 slots have no owner"),
            "a cluster that is being made"
        );
        assert_eq!(why_not(1, false, late), None, "a start beside a loss");
        assert_eq!(why_not(5000, true, soon), None);
        assert!(why_not(16384, true, late).is_some());
    }
}
