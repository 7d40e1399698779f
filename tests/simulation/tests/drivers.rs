//! The proxy's own drivers in the simulated world: some seeds on every test run, the same seed
//! twice, and faults planted in the drivers that have to be found.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use simulation::{DriverFault, Failure, run_drivers};

/// As many as a planted fault may take until it is found.
const SEEDS: u64 = 120;

fn all_pass(seeds: std::ops::Range<u64>) {
    let (mut answered, mut unknown) = (0, 0);
    for seed in seeds {
        match run_drivers(seed, None, false) {
            Ok(report) => {
                answered += report.answered;
                unknown += report.unknown;
            }
            Err(Failure { seed, what }) => {
                panic!("{what}\nreplay: tests/simulate --drivers --seed {seed} --trace")
            }
        }
    }
    // The world is neither mute nor harmless.
    assert!(answered > 10_000, "only {answered} replies were checked");
    assert!(unknown > 20, "only {unknown} outcomes were unknown");
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
    for seed in 0..12 {
        let digests = [(); 2].map(|()| run_drivers(seed, None, false).unwrap().digest);
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
    let [one, other] = [0, 1].map(|seed| run_drivers(seed, None, false).unwrap().digest);
    assert_ne!(one, other);
}

/// What the first seed that shows a fault says. Without the fault the seed passes.
fn found(fault: DriverFault) -> String {
    let Failure { seed, what } = (0..SEEDS)
        .find_map(|seed| run_drivers(seed, Some(fault), false).err())
        .unwrap_or_else(|| panic!("{fault:?} is not found within {SEEDS} seeds"));
    let again = run_drivers(seed, Some(fault), false).unwrap_err();
    assert_eq!(again.what, what, "the seed does not replay");
    run_drivers(seed, None, false).unwrap();
    eprintln!("{fault:?}: seed {seed}: {what}");
    what
}

#[test]
fn a_partial_write_that_is_taken_for_whole_is_found() {
    found(DriverFault::PartialWriteIsWhole);
}

#[test]
fn a_flush_that_is_forgotten_is_found() {
    found(DriverFault::FlushIsForgotten);
}

#[test]
fn a_wake_that_is_lost_is_found() {
    found(DriverFault::WakeIsLost);
}
