//! Seeds 0 to 499 on every test run; the same seed twice; and faults planted in the dataplane, one
//! against each of the invariants I1 to I4 and I7, that the simulation has to find.

use simulation::{Planted, Proof, run};

const SEEDS: u64 = 500;

const PROOF: Proof<Planted> = Proof {
    run: |seed, planted| run(seed, planted, false),
    replay: "",
    seeds: SEEDS,
};

#[test]
fn the_first_half_of_the_seeds() {
    let sum = PROOF.all_pass(0..SEEDS / 2, (50_000, 100));
    assert!(sum.coalesced > 300, "only {} coalesced", sum.coalesced);
    assert!(sum.followed > 1000, "only {} followed", sum.followed);
    assert!(sum.near > 40, "only {} from near", sum.near);
    assert!(sum.set_back > 5, "only {} keys set back", sum.set_back);
}

#[test]
fn the_second_half_of_the_seeds() {
    let sum = PROOF.all_pass(SEEDS / 2..SEEDS, (50_000, 100));
    assert!(sum.coalesced > 300, "only {} coalesced", sum.coalesced);
    assert!(sum.followed > 1000, "only {} followed", sum.followed);
    assert!(sum.near > 40, "only {} from near", sum.near);
    assert!(sum.set_back > 5, "only {} keys set back", sum.set_back);
}

#[test]
fn the_same_seed_is_the_same_run() {
    PROOF.repeats(25);
}

#[test]
fn a_reply_for_who_has_left_that_goes_to_another_is_found() {
    let _ = PROOF.found(Planted::NoTombstone);
}

#[test]
fn a_command_that_overtakes_another_on_its_key_is_found() {
    let what = PROOF.found(Planted::NoBarrier);
    let kinds = ["order", "linearizability", "stale"];
    assert!(kinds.iter().any(|kind| what.starts_with(kind)), "{what}");
}

#[test]
fn a_read_that_joins_one_before_a_write_is_found() {
    let what = PROOF.found(Planted::JoinsBeforeWrites);
    let kinds = ["order", "stale"];
    assert!(kinds.iter().any(|kind| what.starts_with(kind)), "{what}");
}

#[test]
fn what_is_kept_near_although_the_client_has_written_is_found() {
    let what = PROOF.found(Planted::KeepsNear);
    assert!(what.starts_with("order"), "{what}");
}

#[test]
fn news_that_is_ignored_is_found() {
    let what = PROOF.found(Planted::IgnoresNews);
    assert!(what.starts_with("stale: older than news"), "{what}");
}

#[test]
fn a_write_that_is_sent_twice_is_found() {
    let what = PROOF.found(Planted::SendsTwice);
    assert!(what.starts_with("at most once"), "{what}");
}

#[test]
fn a_command_that_is_forgotten_is_found() {
    let what = PROOF.found(Planted::Forgets);
    assert!(what.starts_with("liveness"), "{what}");
}

#[test]
fn a_client_that_stays_who_it_was_is_found() {
    let what = PROOF.found(Planted::StaysWho);
    assert!(what.contains("ran as") || what.contains("WhoAmI"), "{what}");
}
