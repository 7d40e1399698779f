//! Thousands of seeds: clients that pipeline unique writes through a dataplane whose cluster moves
//! slots, loses connections and answers late. Every reply is held to what the client sent before.
//!
//! What is checked: replies come in order and to the right client (I1, I2), no write takes effect
//! twice or out of order (I2, I3), every command is answered in the end (I4), and no `MOVED` or
//! `ASK` reaches a client (I5). `KEYWAY_SEED=n` runs one seed, `KEYWAY_SEEDS=n` so many.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test: it panics to fail, its numbers are small, and it has a clock and settings"
)]

mod client;
mod cluster;
mod rng;
mod world;

use world::{Trouble, World};

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (number("KEYWAY_SEED"), number("KEYWAY_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => 0..count,
        (None, None) => 0..default,
    }
}

fn run(seeds: std::ops::Range<u64>, trouble: Trouble) {
    let mut unknown = 0;
    let mut answered = 0;
    for seed in seeds {
        let result = std::panic::catch_unwind(|| World::new(seed, trouble).run());
        match result {
            Ok(outcome) => {
                unknown += outcome.unknown;
                answered += outcome.answered;
                assert!(
                    trouble.kills || outcome.errors.is_empty(),
                    "seed {seed}: errors where none are due: {:#?}",
                    outcome.errors
                );
            }
            Err(panic) => {
                eprintln!("the seed was {seed}, with {trouble:?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(answered > 100, "only {answered} commands were answered");
    assert_eq!(
        unknown > 0,
        trouble.kills,
        "{unknown} outcomes were unknown"
    );
}

#[test]
fn a_quiet_cluster() {
    run(
        seeds(200),
        Trouble {
            moves: false,
            kills: false,
        },
    );
}

#[test]
fn slots_move_without_a_trace() {
    run(
        seeds(400),
        Trouble {
            moves: true,
            kills: false,
        },
    );
}

#[test]
fn connections_break_while_slots_move() {
    run(
        seeds(400),
        Trouble {
            moves: true,
            kills: true,
        },
    );
}
