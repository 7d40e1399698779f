//! Verified load: many clients over TLS, each with keys of its own, mixed commands in pipelines, and
//! every reply checked against what it must be, while the test changes the world behind Keyway.
//!
//! Owns the clients' threads and what they found. The checks are exact: values are never used
//! twice, and counters, lengths and contents show a write that was done twice, lost, late or
//! refused and done all the same. After an error that leaves the outcome open, the key is read.
//! What the world does meanwhile is the caller's business.

mod dice;
mod keys;
mod model;
mod op;
mod pairs;
mod tally;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use model::Fault;
pub use tally::{Mistake, Report};

use crate::load::pairs::Pair;
use crate::load::tally::{Shared, Tally};
use crate::load::worker::Worker;
use crate::wait::wait_until;

/// Stacks of the clients' threads: a TLS handshake fits.
const STACK_BYTES: usize = 1 << 20;

/// What the load is like. Start from [`LoadOptions::new`].
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Connections, half of them with RESP3.
    pub clients: usize,
    /// How the keys begin. A hash tag here keeps all of them in one slot.
    pub prefix: String,
    /// A client's mean pause between two pipelines.
    pub pause: Duration,
    /// Commands of a pipeline, at most.
    pub pipeline_max: usize,
    /// Keys of one command, at most. With 1 there are no transactions and scripts either.
    pub keys_max: usize,
    /// Scripts are among the commands.
    pub scripts: bool,
    /// Transactions that watch keys are.
    pub watches: bool,
    /// Beside the clients, so many pairs of connections of which one pops what the other pushes, and
    /// as many of which one has subscribed to what the other publishes.
    pub pairs: usize,
    /// A failover may lose the last acknowledged writes, as Valkey's own replication does.
    pub lossy: bool,
    /// What the clients choose follows from this.
    pub seed: u64,
}

impl LoadOptions {
    /// That many clients, pipelines of 1 to 32.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        Self {
            clients,
            prefix: "load".to_owned(),
            pause: Duration::from_millis(100),
            pipeline_max: 32,
            keys_max: 4,
            scripts: true,
            watches: false,
            pairs: 0,
            lossy: false,
            seed: 1,
        }
    }
}

/// Clients at work, each in a thread.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Tally>>,
    pairs: Vec<JoinHandle<Vec<Tally>>>,
}

impl Load {
    /// Starts the clients and waits until each has had replies.
    ///
    /// # Panics
    /// They do not get going within 30 s.
    #[must_use]
    pub fn start(addr: &str, ca: &Path, options: &LoadOptions) -> Self {
        let shared = Arc::new(Shared::new());
        let spawn = |client: usize| {
            let worker = Worker::new(
                addr.to_owned(),
                PathBuf::from(ca),
                options.clone(),
                client,
                Arc::clone(&shared),
            );
            std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || worker.run())
                .expect("a client's thread")
        };
        let threads = (0..options.clients).map(spawn).collect();
        let pair = |number: usize| {
            let pair = Pair {
                addr: addr.to_owned(),
                ca: PathBuf::from(ca),
                options: options.clone(),
                client: options.clients + number,
                shared: Arc::clone(&shared),
            };
            let pops = number < options.pairs;
            std::thread::spawn(move || if pops { pair.pop() } else { pair.listen() })
        };
        let pairs = (0..2 * options.pairs).map(pair).collect();
        let load = Self {
            shared,
            threads,
            pairs,
        };
        load.wait_rounds(3 * options.clients as u64);
        load
    }

    /// Pipelines that were answered, of all clients together.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.shared.rounds()
    }

    /// Waits for `count` more pipelines.
    ///
    /// # Panics
    /// They do not come within 30 s.
    pub fn wait_rounds(&self, count: u64) {
        let goal = self.rounds() + count;
        wait_until("clients that go on", 30, || {
            self.rounds() >= goal || self.threads.iter().any(JoinHandle::is_finished)
        });
    }

    /// The longest wait for a reply and the age of the last error, both since the last call.
    #[must_use]
    pub fn take_worst(&self) -> (Duration, Option<Duration>) {
        self.shared.take_worst()
    }

    /// Ends the clients after a last look at all their keys.
    ///
    /// # Panics
    /// A client's thread panicked.
    #[must_use]
    pub fn stop(self) -> Report {
        self.shared.stop();
        let tallies = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("a client's thread"));
        let pairs = self
            .pairs
            .into_iter()
            .flat_map(|thread| thread.join().expect("a pair's thread"));
        Report::of(tallies.chain(pairs))
    }
}
