use super::*;
use crate::Health;
use crate::testing::{row, rows, slot, topology, view};

#[test]
fn the_first_view_is_believed_if_anyone_owns_anything() {
    let first = accept(None, view(rows())).unwrap().unwrap();
    assert_eq!((first.revision().get(), first.covers_all()), (1, true));
    let partial = accept(None, view(vec![row(&[1], &[(5, 9)])]))
        .unwrap()
        .unwrap();
    assert_eq!(
        (partial.holes(), partial.owner(slot(4)).is_none()),
        (16379, true)
    );
    assert_eq!(
        accept(None, view(vec![row(&[1], &[])])).unwrap_err(),
        Refusal::Empty
    );
    assert_eq!(accept(None, view(vec![])).unwrap_err(), Refusal::Empty);
}

#[test]
fn the_same_view_in_another_order_changes_nothing() {
    let current = topology(vec![row(&[1, 4, 5], &[(0, 16383)]), row(&[2], &[])]);
    let mut again = vec![row(&[2], &[]), row(&[1, 5, 4], &[(9000, 16383), (0, 8999)])];
    again[1].0.primary.replication_offset = Some(7);
    assert!(accept(Some(&current), view(again)).unwrap().is_none());
}

#[test]
fn every_other_difference_is_a_new_snapshot() {
    let current = topology(rows());
    let changed = |change: &dyn Fn(&mut Vec<crate::testing::Row>)| {
        let mut rows = rows();
        change(&mut rows);
        let next = accept(Some(&current), view(rows)).unwrap();
        next.is_some_and(|next| next.revision().get() == 2)
    };
    assert!(!changed(&|_| {}));
    assert!(changed(&|rows| rows[0].0.primary.health = Health::Failed));
    assert!(changed(
        &|rows| rows[0].0.replicas[0].zone = Some("a".into())
    ));
    assert!(changed(&|rows| rows[0].0.replicas.clear()));
    assert!(changed(&|rows| rows[2].0.primary.addr.port = 9));
    assert!(changed(&|rows| rows.push(row(&[7], &[]))));
    assert!(changed(&|rows| rows[0] = row(&[4, 1], &[(0, 5460)])));
    assert!(changed(&|rows| {
        rows[0] = row(&[1, 4], &[(0, 5459)]);
        rows[1] = row(&[2, 5], &[(5460, 10922)]);
    }));
}

#[test]
fn a_view_of_another_cluster_is_refused() {
    let current = topology(rows());
    let stranger = view(vec![row(&[11, 12], &[(0, 16383)])]);
    assert_eq!(
        accept(Some(&current), stranger).unwrap_err(),
        Refusal::OtherCluster
    );
    let grown = view(vec![row(&[11, 6], &[(0, 16383)])]);
    assert!(accept(Some(&current), grown).unwrap().is_some());
}

#[test]
fn slots_lose_their_owner_only_when_two_nodes_say_so() {
    let current = topology(rows());
    let fresh = || {
        view(vec![
            row(&[2, 5], &[(5461, 10922)]),
            row(&[3], &[(10923, 16383)]),
        ])
    };
    let refusal = accept(Some(&current), fresh()).unwrap_err();
    assert_eq!(refusal, Refusal::LosesSlots(5461, slot(0)));
    let next = accept(Some(&current), fresh().confirmed())
        .unwrap()
        .unwrap();
    assert_eq!(next.holes(), 5461);
    // Fewer holes than before need no second opinion.
    let healed = accept(Some(&next), view(rows())).unwrap().unwrap();
    assert_eq!((healed.covers_all(), healed.revision().get()), (true, 3));
    assert_eq!(
        accept(Some(&current), view(vec![row(&[1], &[])]).confirmed()).unwrap_err(),
        Refusal::Empty
    );
}

#[test]
fn the_epoch_never_goes_back() {
    let current = accept(None, view(rows()).with_epoch(7)).unwrap().unwrap();
    let moved = || view(vec![row(&[1, 4], &[(0, 16383)])]);
    let refusal = accept(Some(&current), moved().with_epoch(6)).unwrap_err();
    assert_eq!(refusal, Refusal::OlderEpoch(6, 7));
    let unknown = accept(Some(&current), moved()).unwrap().unwrap();
    assert_eq!(unknown.epoch(), Some(7));
    let newer = accept(Some(&current), view(rows()).with_epoch(8))
        .unwrap()
        .unwrap();
    assert_eq!(newer.epoch(), Some(8));
    assert!(
        accept(Some(&newer), view(rows()).with_epoch(8))
            .unwrap()
            .is_none()
    );
}
