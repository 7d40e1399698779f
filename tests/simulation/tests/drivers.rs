//! The proxy's own drivers in the simulated world: some seeds on every test run, the same seed
//! twice, and faults planted in the drivers that have to be found.

use simulation::{DriverFault, Proof, run_drivers};

const SEEDS: u64 = 120;

const PROOF: Proof<DriverFault> = Proof {
    run: |seed, fault| run_drivers(seed, fault, false),
    replay: "--drivers ",
    seeds: SEEDS,
};

#[test]
fn the_first_half_of_the_seeds() {
    let sum = PROOF.all_pass(0..SEEDS / 2, (10_000, 20));
    assert!(sum.near > 400, "only {} from near", sum.near);
}

#[test]
fn the_second_half_of_the_seeds() {
    let sum = PROOF.all_pass(SEEDS / 2..SEEDS, (10_000, 20));
    assert!(sum.near > 400, "only {} from near", sum.near);
}

#[test]
fn the_same_seed_is_the_same_run() {
    PROOF.repeats(12);
}

#[test]
fn a_partial_write_that_is_taken_for_whole_is_found() {
    let _ = PROOF.found(DriverFault::PartialWriteIsWhole);
}

#[test]
fn a_flush_that_is_forgotten_is_found() {
    let _ = PROOF.found(DriverFault::FlushIsForgotten);
}

#[test]
fn news_that_is_lost_is_found() {
    let what = PROOF.found(DriverFault::NewsIsLost);
    assert!(what.starts_with("stale: older than news"), "{what}");
}

#[test]
fn a_wake_that_is_lost_is_found() {
    let _ = PROOF.found(DriverFault::WakeIsLost);
}
