use super::*;
use crate::testing::{row, slot, topology};

/// Primary 1 in zone a, replicas 2 in a, 3 in b, 4 in b.
fn cluster() -> Vec<crate::testing::Row> {
    let mut rows = vec![row(&[1, 2, 3, 4], &[(0, 99)])];
    let shard = &mut rows[0].0;
    shard.primary.zone = Some("a".into());
    for (replica, zone) in shard.replicas.iter_mut().zip(["a", "b", "b"]) {
        replica.zone = Some(zone.into());
    }
    rows
}

fn choose(rows: Vec<crate::testing::Row>, zone: Option<&str>, loads: [usize; 4]) -> u16 {
    let topology = topology(rows);
    let load = |node: &Node| loads[usize::from(node.addr.port - 1001)];
    topology
        .choose_reader(slot(7), zone, load)
        .unwrap()
        .addr
        .port
        - 1000
}

#[test]
fn the_own_zone_comes_first_then_the_least_loaded() {
    assert_eq!(choose(cluster(), Some("a"), [0, 1, 0, 0]), 1);
    assert_eq!(choose(cluster(), Some("a"), [2, 1, 0, 0]), 2);
    assert_eq!(choose(cluster(), Some("b"), [0, 0, 9, 8]), 4);
    assert_eq!(choose(cluster(), Some("c"), [3, 2, 1, 2]), 3);
    assert_eq!(choose(cluster(), None, [3, 2, 5, 1]), 4);
}

#[test]
fn equals_go_to_a_replica() {
    assert_eq!(choose(cluster(), None, [0; 4]), 2);
    assert_eq!(choose(cluster(), Some("a"), [0; 4]), 2);
}

#[test]
fn sick_nodes_are_out_and_the_primary_is_the_last_resort() {
    let mut rows = cluster();
    rows[0].0.replicas[0].health = Health::Loading;
    assert_eq!(choose(rows.clone(), Some("a"), [9, 0, 0, 0]), 1);
    rows[0].0.primary.health = Health::Failed;
    assert_eq!(choose(rows.clone(), Some("a"), [0, 0, 1, 0]), 4);
    let out = usize::MAX;
    assert_eq!(choose(rows, Some("a"), [out; 4]), 1);
    assert_eq!(choose(cluster(), Some("b"), [0, 0, out, 5]), 4);
}

#[test]
fn nobody_owns_nothing_to_read() {
    assert!(
        topology(cluster())
            .choose_reader(slot(100), None, |_| 0)
            .is_none()
    );
}
