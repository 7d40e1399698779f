//! The bounds hold against exact counts, for streams of every kind, also when weights halve.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use proptest::prelude::*;

use super::*;

fn hash(key: &[u8]) -> u64 {
    FixedState::with_seed(11).hash_one(key)
}

#[derive(Clone, Debug)]
enum Step {
    Add(u16, u64),
    Halve,
}

/// Few keys are common, many are rare: what a sketch is made for, and its worst case beside it.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        40 => (0_u16..8, 1_u64..50).prop_map(|(key, weight)| Step::Add(key, weight)),
        40 => (0_u16..500, 1_u64..4).prop_map(|(key, weight)| Step::Add(key, weight)),
        1 => Just(Step::Halve),
    ];
    proptest::collection::vec(step, 0..600)
}

fn name(key: u16) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

proptest! {
    #[test]
    fn bounds_hold(steps in steps(), capacity in 1_usize..40) {
        let mut top = Top::new(capacity);
        let mut exact: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(key, weight) => {
                    let key = name(key);
                    top.add(hash(&key), &key, weight);
                    *exact.entry(key).or_default() += weight as f64;
                }
                Step::Halve => {
                    top.halve();
                    exact.values_mut().for_each(|weight| *weight /= 2.0);
                }
            }
            top.check_invariants();
        }
        // Each halving rounds by a half at most, and what it rounded halves with it.
        let error = top.total() as f64 / capacity as f64 + 1.0;
        let counted = top.heaviest(capacity);
        prop_assert!(counted.len() <= capacity);
        for key in &counted {
            let weighs = exact.remove(&key.key).unwrap_or(0.0);
            prop_assert!(key.at_least as f64 <= weighs && weighs <= key.at_most as f64 + 1.0);
            prop_assert!((key.at_most - key.at_least) as f64 <= error);
        }
        for (key, weighs) in exact {
            prop_assert!(weighs <= error, "{key:?} weighs {weighs} and is not counted");
            prop_assert!(weighs <= top.floor() as f64 + 1.0);
        }
    }

    #[test]
    fn bounds_of_several_streams_hold(
        streams in proptest::collection::vec(
            proptest::collection::vec((0_u16..40, 1_u64..20), 0..200), 1..4),
        capacity in 1_usize..20,
    ) {
        let mut exact: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let tops: Vec<Top> = streams.into_iter().map(|stream| {
            let mut top = Top::new(capacity);
            for (key, weight) in stream {
                let key = name(key);
                top.add(hash(&key), &key, weight);
                *exact.entry(key).or_default() += weight;
            }
            top
        }).collect();
        for key in Top::heaviest_of(&tops, usize::MAX) {
            let weighs = exact.get(&key.key).copied().unwrap_or(0);
            prop_assert!(key.at_least <= weighs && weighs <= key.at_most);
        }
    }
}

#[test]
fn what_is_heavy_is_found_among_many() {
    let mut top = Top::new(64);
    for round in 0..20_000_u32 {
        let key = if round % 10 == 0 {
            b"heavy".to_vec()
        } else {
            format!("rare:{round}").into_bytes()
        };
        top.add(hash(&key), &key, 1);
    }
    let first = &top.heaviest(1)[0];
    assert_eq!(first.key, b"heavy");
    assert!(
        first.at_most >= 2_000 && first.at_least > 1_600,
        "{first:?}"
    );
}

#[test]
fn the_past_is_forgotten() {
    let mut top = Top::new(8);
    top.add(hash(b"old"), b"old", 1_000);
    for _ in 0..4 {
        top.halve();
    }
    top.add(hash(b"new"), b"new", 100);
    assert_eq!(top.heaviest(1)[0].key, b"new");
    for _ in 0..20 {
        top.halve();
    }
    assert!(top.is_empty(), "{top:?}");
}

#[test]
fn long_keys_are_bounded() {
    let mut top = Top::new(4);
    let long = vec![b'x'; 1 << 20];
    top.add(hash(&long), &long, 3);
    top.add(hash(&long), &long, 4);
    let found = top.heaviest(10);
    assert_eq!((found.len(), found[0].at_least), (1, 7));
    assert_eq!(found[0].key.len(), KEY_BYTES_MAX);
}
