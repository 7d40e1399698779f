use proptest::prelude::*;

use super::{Owners, ShardIndex};
use crate::testing::{addr, node, range, row, rows, slot, topology};
use crate::{Role, Slot, accept};

#[test]
fn lookups_find_what_was_put_in() {
    let topology = topology(rows());
    assert_eq!(
        topology.primary(slot(5461)).map(|node| &node.addr),
        Some(&addr(2))
    );
    assert_eq!(topology.primaries().count(), 3);
    assert_eq!(topology.nodes().count(), 6);
    assert_eq!(
        topology.node_by_addr(&addr(5)).map(|node| node.role),
        Some(Role::Replica)
    );
    assert_eq!(topology.node_by_addr(&addr(9)), None);
    assert_eq!(
        topology.node_by_id(&node(3).id).map(|node| &node.addr),
        Some(&addr(3))
    );
    let index = topology.owner_index(slot(16383)).unwrap();
    assert_eq!(topology.shard(index), topology.owner(slot(16383)));
}

#[test]
fn ranges_are_the_longest_runs() {
    let topology = topology(vec![
        row(&[1], &[(0, 9), (11, 20), (10, 10)]),
        row(&[2], &[(30, 30)]),
    ]);
    let ranges: Vec<_> = topology
        .ranges()
        .into_iter()
        .map(|(range, shard)| (range, shard.get()))
        .collect();
    assert_eq!(ranges, [(range(0, 20), 0), (range(30, 30), 1)]);
    assert_eq!(ranges[0].0.to_string(), "0-20");
    assert_eq!(ranges[1].0.to_string(), "30");
}

#[test]
fn a_moved_slot_moves_alone() {
    let before = topology(rows());
    let after = before.with_slot_moved(slot(0), &addr(2)).unwrap();
    assert_eq!(
        after.primary(slot(0)).map(|node| &node.addr),
        Some(&addr(2))
    );
    assert_eq!(
        after.primary(slot(1)).map(|node| &node.addr),
        Some(&addr(1))
    );
    assert_eq!(after.revision().get(), before.revision().get() + 1);
    assert_eq!(
        before.primary(slot(0)).map(|node| &node.addr),
        Some(&addr(1))
    );
    assert_eq!(after.shards(), before.shards());
}

#[test]
fn a_slot_moved_to_a_replica_is_a_failover() {
    let before = topology(rows());
    let after = before.with_slot_moved(slot(7), &addr(4)).unwrap();
    for number in [0, 7, 5460] {
        assert_eq!(
            after.primary(slot(number)).map(|node| &node.addr),
            Some(&addr(4))
        );
    }
    let old = after.node_by_addr(&addr(1)).unwrap();
    assert_eq!(old.role, Role::Replica);
    assert_eq!(
        after.node_by_addr(&addr(4)).map(|node| node.role),
        Some(Role::Primary)
    );
    // Of another shard: that one failed over, and took the slot.
    let other = before.with_slot_moved(slot(7), &addr(5)).unwrap();
    assert_eq!(
        other.primary(slot(7)).map(|node| &node.addr),
        Some(&addr(5))
    );
    assert_eq!(
        other.primary(slot(5461)).map(|node| &node.addr),
        Some(&addr(5))
    );
    assert_eq!(
        other.primary(slot(8)).map(|node| &node.addr),
        Some(&addr(1))
    );
}

#[test]
fn an_unknown_address_teaches_nothing_and_a_known_fact_changes_nothing() {
    let before = topology(rows());
    assert!(before.with_slot_moved(slot(0), &addr(99)).is_none());
    let same = before.with_slot_moved(slot(0), &addr(1)).unwrap();
    assert_eq!(same.revision(), before.revision());
}

#[test]
fn a_moved_slot_fills_a_hole_and_a_view_undoes_a_patch() {
    let before = topology(vec![row(&[1], &[(1, 16383)]), row(&[2], &[])]);
    assert_eq!(before.holes(), 1);
    let after = before.with_slot_moved(slot(0), &addr(2)).unwrap();
    assert!(after.covers_all());
    let view = crate::testing::view(vec![row(&[1], &[(0, 16383)]), row(&[2], &[])]);
    let next = accept(Some(&after), view).unwrap().unwrap();
    assert_eq!(next.primary(slot(0)).map(|node| &node.addr), Some(&addr(1)));
    assert_eq!(next.revision().get(), 3);
}

proptest! {
    /// After any patches: the books balance, every owner is a primary, and the revision only grew.
    #[test]
    fn patches_keep_a_snapshot_consistent(
        moves in prop::collection::vec((0u16..16384, 1u16..9), 1..30),
    ) {
        let mut topology = topology(vec![
            row(&[1, 4], &[(0, 5460)]), row(&[2, 5], &[(5461, 10922)]), row(&[3, 6], &[]),
        ]);
        for (number, to) in moves {
            let before = topology.revision();
            let Some(next) = topology.with_slot_moved(slot(number), &addr(to)) else {
                prop_assert!(to > 6);
                continue;
            };
            prop_assert!(next.revision() >= before);
            prop_assert_eq!(next.primary(slot(number)).map(|node| &node.addr), Some(&addr(to)));
            topology = next;
        }
        prop_assert_eq!(topology.holes(), topology.owners.holes());
        prop_assert_eq!(topology.nodes().count(), 6);
        prop_assert!(topology.primaries().all(|node| node.role == Role::Primary));
        let replicas = topology.nodes().filter(|node| node.role == Role::Replica).count();
        prop_assert_eq!(replicas, 3);
        let covered: usize = topology.ranges().iter().map(|(range, _)| range.slots().count()).sum();
        prop_assert_eq!(covered + topology.holes(), 16384);
    }
}

#[test]
fn rows_of_slots_answer_like_single_slots() {
    let mut owners = Owners::nobody();
    let mut model = vec![None; usize::from(Slot::COUNT)];
    let mut set = |owners: &mut Owners, number: u16, owner: u16| {
        let owner = ShardIndex(owner);
        let before = model[usize::from(number)].replace(owner);
        assert_eq!(owners.set(slot(number), owner), before);
        let row = number / 64 * 64;
        for near in row..row + 64 {
            assert_eq!(owners.get(slot(near)), model[usize::from(near)], "{near}");
        }
    };
    let single = [5000, 5001, 5000, 16383, 0, 63, 64];
    (64..200).for_each(|number| set(&mut owners, number, 1));
    (0..3).for_each(|owner| {
        single
            .iter()
            .for_each(|&number| set(&mut owners, number, owner));
    });
    (0..Slot::COUNT).for_each(|number| set(&mut owners, number, 7));
    assert_eq!(owners.holes(), 0);
    set(&mut owners, 70, 2);
    set(&mut owners, 70, 7);
}
