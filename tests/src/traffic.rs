//! Verified load for tests in which few clients are enough: commands on single keys, so that none
//! waits for a slot that is half moved.

use std::path::Path;
use std::time::Duration;

use crate::load::{Load, LoadOptions, Mistake};

const PIPELINE_MAX: usize = 8;

/// One reply that was not the expected one, or a connection that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The request, as a person would type it.
    pub request: String,
    /// What came; an error stands behind `-`.
    pub got: String,
    /// The connection ended with this; false for an error reply or a wrong one.
    pub closed: bool,
}

/// Clients that never stop, each with a connection and keys of its own. What they check, [`Load`]
/// says.
#[derive(Debug)]
pub struct Traffic {
    load: Load,
}

impl Traffic {
    /// Starts `clients` clients whose keys begin with `prefix`; put a hash tag there to keep all of
    /// them in one slot. Waits until each has done a few rounds.
    ///
    /// # Panics
    /// They do not get going.
    #[must_use]
    pub fn start(addr: &str, ca: &Path, clients: usize, prefix: &str) -> Self {
        let options = LoadOptions {
            prefix: prefix.to_owned(),
            pause: Duration::ZERO,
            pipeline_max: PIPELINE_MAX,
            keys_max: 1,
            scripts: false,
            ..LoadOptions::new(clients)
        };
        Self {
            load: Load::start(addr, ca, &options),
        }
    }

    /// Pipelines answered, of all clients together.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.load.rounds()
    }

    /// Waits for `count` more rounds.
    ///
    /// # Panics
    /// They do not come.
    pub fn wait_rounds(&self, count: u64) {
        self.load.wait_rounds(count);
    }

    /// Ends the clients; returns what was not as expected (a few of each kind), and the longest round.
    ///
    /// # Panics
    /// A client's thread panicked.
    #[must_use]
    pub fn stop(self) -> (Vec<Problem>, Duration) {
        let report = self.load.stop();
        let problem = |mistake: Mistake| Problem {
            closed: mistake.kind == "closed",
            got: if mistake.error {
                format!("-{}", mistake.got)
            } else {
                mistake.got
            },
            request: mistake.request,
        };
        let problems = report.mistakes.into_iter().map(problem).collect();
        (problems, report.longest)
    }
}
