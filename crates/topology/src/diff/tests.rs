use super::*;
use crate::testing::{addr, row, rows, slot, topology};

fn shown(old: &Topology, new: &Topology) -> Vec<String> {
    diff(old, new).iter().map(ToString::to_string).collect()
}

#[test]
fn equal_snapshots_do_not_differ() {
    assert_eq!(diff(&topology(rows()), &topology(rows())), []);
}

#[test]
fn a_failover_promotes_and_moves_no_slot() {
    let old = topology(rows());
    let new = old.with_slot_moved(slot(0), &addr(4)).unwrap();
    let expected = [Change::Demoted(addr(1)), Change::Promoted(addr(4))];
    assert_eq!(diff(&old, &new), expected);
    // Also when a node leads that was not there before.
    let joined = topology(vec![
        row(&[7, 1, 4], &[(0, 5460)]),
        rows()[1].clone(),
        rows()[2].clone(),
    ]);
    assert_eq!(
        diff(&old, &joined),
        [Change::Demoted(addr(1)), Change::Added(addr(7))]
    );
    // Also when the old primary is gone for good.
    let gone = topology(vec![
        row(&[4], &[(0, 5460)]),
        rows()[1].clone(),
        rows()[2].clone(),
    ]);
    assert_eq!(
        diff(&old, &gone),
        [Change::Promoted(addr(4)), Change::Removed(addr(1))]
    );
}

#[test]
fn a_line_says_what_happened() {
    let old = topology(rows());
    let mut rows = rows();
    rows[0] = row(&[1, 4], &[(100, 5000)]);
    rows[0].0.primary.health = Health::Failed;
    rows[0].0.replicas[0].zone = Some("b".into());
    rows[1].0.replicas[0].addr.port = 9;
    rows.push(row(&[7], &[(0, 99)]));
    let new = topology(rows);
    assert_eq!(
        shown(&old, &new),
        [
            "node-1:1001 failed",
            "node-4:1004 changed zone",
            "node-5:1005 is at node-5:9",
            "node-7:1007 joined",
            "100 slots moved to node-7:1007",
            "460 slots lost their owner",
        ]
    );
}
