//! Plans keep their bounds whatever the load, end where they should, and do not swing.

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

fn node(capacity: f64) -> NodeLoad {
    NodeLoad {
        capacity,
        bytes_max: u64::MAX,
        moves: 0,
    }
}

fn slots(count: usize, mut load: impl FnMut(usize) -> (usize, f64)) -> Vec<SlotLoad> {
    (0..count)
        .map(|slot| {
            let (owner, load) = load(slot);
            SlotLoad {
                owner,
                load,
                bytes: 1 << 20,
                moving: false,
            }
        })
        .collect()
}

fn carry_out(slots: &mut [SlotLoad], plan: &Plan) {
    for planned in &plan.moves {
        for slot in &planned.slots {
            let slot = &mut slots[usize::from(slot.get())];
            assert_eq!(slot.owner, planned.from, "moved from who does not own it");
            slot.owner = planned.to;
        }
    }
}

/// Carries out plan after plan until there is none; returns their number and the slots moved.
fn until_done(nodes: &[NodeLoad], slots: &mut [SlotLoad], rules: &BalanceRules) -> (usize, usize) {
    let mut moved = 0;
    let mut balancer = Balancer::default();
    for round in 0..200 {
        let plan = balancer.plan(nodes, slots, rules);
        if plan.moves.is_empty() {
            return (round, moved);
        }
        moved += plan.moves.iter().map(|m| m.slots.len()).sum::<usize>();
        carry_out(slots, &plan);
    }
    panic!("no end after 200 plans");
}

fn load_of(slots: &[SlotLoad], node: usize) -> f64 {
    let own = slots.iter().filter(|slot| slot.owner == node);
    own.map(|slot| slot.load).sum()
}

proptest! {
    #[test]
    fn every_plan_keeps_its_bounds(
        seed: u64, count in 1_usize..300, owners in 1_usize..12, idle in 0_usize..5, busy in 0_usize..3,
    ) {
        let mut rng = Rng::new(seed);
        let rules = BalanceRules {
            slots_per_move: 1 + rng.below(40),
            bytes_per_move: 1 + rng.bits() % (20 << 20),
            ..BalanceRules::default()
        };
        let mut nodes: Vec<_> = (0..owners + idle).map(|_| NodeLoad {
            capacity: [0.0, 1.0, 1.0, 2.0][rng.below(4)],
            bytes_max: 1 << (20 + rng.below(10)),
            moves: rng.below(busy + 1),
        }).collect();
        nodes[0].capacity = 1.0;
        let mut all = slots(count, |_| (rng.below(owners), rng.exponential().powi(3)));
        all.iter_mut().for_each(|slot| slot.moving = rng.below(10) == 0);
        let plan = Balancer::default().plan(&nodes, &all, &rules);
        let mut part = vec![0; nodes.len()];
        let mut got = vec![0; nodes.len()];
        for planned in &plan.moves {
            part[planned.from] += 1;
            part[planned.to] += 1;
            got[planned.to] += planned.bytes;
            prop_assert!(nodes[planned.to].capacity > 0.0, "to one that is to be emptied");
            prop_assert!(planned.slots.len() <= rules.slots_per_move);
            prop_assert!(planned.bytes <= rules.bytes_per_move || planned.slots.len() == 1);
            for slot in &planned.slots {
                let slot = &all[usize::from(slot.get())];
                prop_assert!(slot.owner == planned.from && !slot.moving);
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            prop_assert!(part[index] == 0 || part[index] + node.moves <= rules.moves_per_node);
            let held: u64 = all.iter().filter(|s| s.owner == index).map(|s| s.bytes).sum();
            prop_assert!(got[index] == 0 || held + got[index] <= node.bytes_max);
        }
        // The same question has the same answer.
        prop_assert_eq!(Balancer::default().plan(&nodes, &all, &rules), plan);
    }

    #[test]
    fn even_slots_end_even_and_stay(seed: u64, nodes in 2_usize..20) {
        let mut rng = Rng::new(seed);
        let rules = BalanceRules::default();
        let all_nodes = vec![node(1.0); nodes];
        let mut all = slots(4_096, |_| (rng.below(nodes) / 2, 1.0 + rng.fraction()));
        until_done(&all_nodes, &mut all, &rules);
        let total: f64 = all.iter().map(|slot| slot.load).sum();
        for index in 0..nodes {
            let ratio = load_of(&all, index) * nodes as f64 / total;
            prop_assert!(ratio <= rules.end_off + 0.01, "{index}: {ratio}");
        }
        // What drifts within the bounds moves nothing.
        all.iter_mut().for_each(|slot| slot.load *= 0.95 + 0.1 * rng.fraction());
        prop_assert!(Balancer::default().plan(&all_nodes, &all, &rules).moves.is_empty());
    }
}

#[test]
fn the_hottest_slot_stays_and_the_cold_leave() {
    // Half of all heat is in slot 0: its node keeps it and nothing else.
    let mut all = slots(1_000, |slot| {
        (slot % 2, if slot == 0 { 1_000.0 } else { 1.0 })
    });
    let nodes = [node(1.0), node(1.0)];
    until_done(&nodes, &mut all, &BalanceRules::default());
    assert_eq!(all[0].owner, 0);
    let beside = all.iter().filter(|slot| slot.owner == 0).count();
    assert!(beside < 20, "{beside} slots are left beside the hot one");
}

#[test]
fn hot_slots_move_first_and_apart_from_cold_ones() {
    let all = slots(1_000, |slot| (0, if slot % 100 == 0 { 100.0 } else { 1.0 }));
    let plan = Balancer::default().plan(&[node(1.0), node(1.0)], &all, &BalanceRules::default());
    assert_eq!(plan.moves.len(), 2);
    let hot = |planned: &SlotMove| planned.slots.iter().filter(|s| s.get() % 100 == 0).count();
    assert!(hot(&plan.moves[0]) == plan.moves[0].slots.len(), "{plan:?}");
    assert_eq!(hot(&plan.moves[1]), 0, "{plan:?}");
    // The cold ones are neighbours: one range, but for the hot ones within it.
    let cold = &plan.moves[1].slots;
    let span = cold[cold.len() - 1].get() - cold[0].get();
    assert!(
        usize::from(span) < cold.len() + 10,
        "{span} for {}",
        cold.len()
    );
}

#[test]
fn pairs_move_in_parallel() {
    let all = slots(16_384, |slot| (slot % 8, 1.0));
    let nodes = vec![node(1.0); 16];
    let plan = Balancer::default().plan(&nodes, &all, &BalanceRules::default());
    let mut receivers: Vec<_> = plan.moves.iter().map(|planned| planned.to).collect();
    receivers.sort_unstable();
    receivers.dedup();
    assert_eq!(receivers, (8..16).collect::<Vec<_>>());
}

#[test]
fn nodes_get_what_fits_their_size_and_emptied_ones_nothing() {
    let mut all = slots(3_000, |slot| (slot % 3, 1.0));
    let nodes = [node(1.0), node(0.0), node(2.0)];
    until_done(&nodes, &mut all, &BalanceRules::default());
    let loads: Vec<f64> = (0..3).map(|index| load_of(&all, index)).collect();
    assert!(loads[1] < 0.1, "{loads:?}");
    assert!((loads[2] / loads[0] - 2.0).abs() < 0.2, "{loads:?}");
}

#[test]
fn a_slot_hotter_than_any_room_leaves_a_node_that_is_emptied() {
    let mut all = slots(300, |slot| {
        (slot % 3, if slot == 0 { 1_000.0 } else { 1.0 })
    });
    let nodes = [node(0.0), node(1.0), node(1.0)];
    until_done(&nodes, &mut all, &BalanceRules::default());
    assert!(all.iter().all(|slot| slot.owner != 0));
}

#[test]
fn slots_without_load_spread_too() {
    let mut all = slots(1_000, |_| (0, 0.0));
    let nodes = vec![node(1.0); 4];
    until_done(&nodes, &mut all, &BalanceRules::default());
    for index in 0..4 {
        let own = all.iter().filter(|slot| slot.owner == index).count();
        assert!((230..=270).contains(&own), "{index}: {own}");
    }
}
