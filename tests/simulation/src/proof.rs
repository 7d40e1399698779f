//! What the test runs say of many seeds, whatever runs them.

use std::{fmt::Debug, ops::Range};

use crate::{Failure, Report};

/// A way to run one seed, perhaps with a planted fault.
#[derive(Debug)]
pub struct Proof<F> {
    /// Runs it.
    pub run: fn(u64, Option<F>) -> Result<Report, Failure>,
    /// What a replay needs beside the seed.
    pub replay: &'static str,
    /// As many seeds as a planted fault may take until it is found.
    pub seeds: u64,
}

impl<F: Copy + Debug> Proof<F> {
    /// All of these seeds pass, and show so many replies and so many unknown outcomes: the world is
    /// neither mute nor harmless.
    ///
    /// # Panics
    /// When they do not.
    pub fn all_pass(&self, seeds: Range<u64>, (answered, unknown): (usize, usize)) -> Report {
        let mut sum = Report::default();
        for seed in seeds {
            match (self.run)(seed, None) {
                Ok(report) => {
                    sum.answered += report.answered;
                    sum.unknown += report.unknown;
                    sum.coalesced += report.coalesced;
                    sum.near += report.near;
                    sum.followed += report.followed;
                    sum.set_back += report.set_back;
                }
                Err(Failure { seed, what }) => {
                    let replay = self.replay;
                    panic!("{what}\nreplay: tests/simulate {replay}--seed {seed} --trace")
                }
            }
        }
        assert!(sum.answered > answered, "only {} replies", sum.answered);
        assert!(sum.unknown > unknown, "only {} unknown", sum.unknown);
        sum
    }

    /// The same seed is the same run, to the last byte.
    ///
    /// # Panics
    /// When it is not.
    pub fn repeats(&self, seeds: u64) {
        let digest = |seed| (self.run)(seed, None).unwrap().digest;
        for seed in 0..seeds {
            assert_eq!(digest(seed), digest(seed), "seed {seed}");
        }
        assert_ne!(digest(0), digest(1));
    }

    /// What the first seed that shows a planted fault says. Without the fault the seed passes.
    ///
    /// # Panics
    /// When the fault is not found.
    #[must_use]
    pub fn found(&self, fault: F) -> String {
        let Failure { seed, what } = (0..self.seeds)
            .find_map(|seed| (self.run)(seed, Some(fault)).err())
            .unwrap_or_else(|| panic!("{fault:?} is not found within {} seeds", self.seeds));
        let again = (self.run)(seed, Some(fault)).unwrap_err();
        assert_eq!(again.what, what, "the seed does not replay");
        (self.run)(seed, None).unwrap();
        eprintln!("{fault:?}: seed {seed}: {what}");
        what
    }
}
