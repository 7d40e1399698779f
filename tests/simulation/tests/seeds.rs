//! Seeds 0 to 499 on every test run; the same seed twice; and six faults planted in the dataplane,
//! at least one against each of the invariants I1 to I4, that the simulation has to find.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use simulation::{Failure, Planted, run};

/// As many as a planted fault may take until it is found.
const SEEDS: u64 = 500;

fn all_pass(seeds: std::ops::Range<u64>) {
    let (mut answered, mut unknown, mut coalesced, mut near) = (0, 0, 0, 0);
    for seed in seeds {
        match run(seed, None, false) {
            Ok(report) => {
                answered += report.answered;
                unknown += report.unknown;
                coalesced += report.coalesced;
                near += report.near;
            }
            Err(Failure { seed, what }) => {
                panic!("{what}\nreplay: tests/simulate --seed {seed} --trace")
            }
        }
    }
    // The world is neither mute nor harmless.
    assert!(answered > 50_000, "only {answered} replies were checked");
    assert!(unknown > 100, "only {unknown} outcomes were unknown");
    assert!(coalesced > 300, "only {coalesced} reads were not sent");
    assert!(near > 100, "only {near} reads were answered from near");
}

#[test]
fn the_first_half_of_the_seeds() {
    all_pass(0..SEEDS / 2);
}

#[test]
fn the_second_half_of_the_seeds() {
    all_pass(SEEDS / 2..SEEDS);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..25 {
        let digests = [(); 2].map(|()| run(seed, None, false).unwrap().digest);
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
    let [one, other] = [0, 1].map(|seed| run(seed, None, false).unwrap().digest);
    assert_ne!(one, other);
}

/// What the first seed that shows a planted fault says. Without the fault the seed passes.
fn found(planted: Planted) -> String {
    let Failure { seed, what } = (0..SEEDS)
        .find_map(|seed| run(seed, Some(planted), false).err())
        .unwrap_or_else(|| panic!("{planted:?} is not found within {SEEDS} seeds"));
    let again = run(seed, Some(planted), false).unwrap_err();
    assert_eq!(again.what, what, "the seed does not replay");
    run(seed, None, false).unwrap();
    eprintln!("{planted:?}: seed {seed}: {what}");
    what
}

#[test]
fn a_reply_for_who_has_left_that_goes_to_another_is_found() {
    found(Planted::NoTombstone);
}

#[test]
fn a_command_that_overtakes_another_on_its_key_is_found() {
    let what = found(Planted::NoBarrier);
    let kinds = ["order", "linearizability", "stale"];
    assert!(kinds.iter().any(|kind| what.starts_with(kind)), "{what}");
}

#[test]
fn a_read_that_joins_one_before_a_write_is_found() {
    let what = found(Planted::JoinsBeforeWrites);
    assert!(what.starts_with("stale"), "{what}");
}

#[test]
fn what_is_kept_near_although_the_client_has_written_is_found() {
    let what = found(Planted::KeepsNear);
    assert!(what.starts_with("order"), "{what}");
}

#[test]
fn a_write_that_is_sent_twice_is_found() {
    let what = found(Planted::SendsTwice);
    assert!(what.starts_with("at most once"), "{what}");
}

#[test]
fn a_command_that_is_forgotten_is_found() {
    let what = found(Planted::Forgets);
    assert!(what.starts_with("liveness"), "{what}");
}
