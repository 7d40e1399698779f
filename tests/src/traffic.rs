//! Clients that never stop and check every reply, while the test changes the world behind Keyway.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use resp::write;

use crate::client::{Client, text};
use crate::wait::wait_until;

/// Rounds per client after which its keys are used again.
const KEYS_PER_CLIENT: u64 = 50;
/// Problems of one kind that a client remembers: a few say what happened.
const PROBLEMS_PER_KIND: usize = 3;

/// One reply that was not the expected one, or a connection that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The request, as a person would type it.
    pub request: String,
    /// What came.
    pub got: String,
    /// The connection ended with this; false for an error reply or a wrong one.
    pub closed: bool,
}

/// Clients in threads, each with one connection, each with a set of keys of its own. Every round
/// pipelines SET, GET and INCR of a counter, and checks the exact replies; the counter
/// shows a write that was lost or done twice.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    longest_ms: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Problem>>>,
}

impl Traffic {
    /// Starts `clients` clients whose keys begin with `prefix`; put a hash tag there to keep all of
    /// them in one slot. Waits until each has done a few rounds.
    ///
    /// # Panics
    /// They do not get going within ten seconds.
    #[must_use]
    pub fn start(addr: &str, ca: &Path, clients: usize, prefix: &str) -> Self {
        let traffic = Self::spawn(addr, ca, clients, prefix);
        let enough = 5 * clients as u64;
        wait_until("clients that get replies", 10, || {
            traffic.rounds() >= enough || traffic.threads.iter().any(JoinHandle::is_finished)
        });
        traffic
    }

    fn spawn(addr: &str, ca: &Path, clients: usize, prefix: &str) -> Self {
        let (stop, rounds) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let longest_ms = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|index| {
                let mut worker = Worker {
                    addr: addr.to_owned(),
                    ca: ca.to_owned(),
                    prefix: format!("{prefix}:{index}"),
                    counter: 0,
                    problems: Vec::new(),
                };
                let (stop, rounds, longest) = (
                    Arc::clone(&stop),
                    Arc::clone(&rounds),
                    Arc::clone(&longest_ms),
                );
                thread::spawn(move || {
                    worker.run(&stop, &rounds, &longest);
                    worker.problems
                })
            })
            .collect();
        Self {
            stop,
            rounds,
            longest_ms,
            threads,
        }
    }

    /// Rounds done by all clients together.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Waits for `count` more rounds.
    ///
    /// # Panics
    /// They do not come within 20 s.
    pub fn wait_rounds(&self, count: u64) {
        let goal = self.rounds() + count;
        wait_until("clients that go on", 20, || {
            self.rounds() >= goal || self.threads.iter().all(JoinHandle::is_finished)
        });
    }

    /// Ends the clients; returns what was not as expected (a few of each kind), and the longest round.
    ///
    /// # Panics
    /// A client's thread panicked.
    #[must_use]
    pub fn stop(self) -> (Vec<Problem>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let problems = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a client's thread"));
        (
            problems.collect(),
            Duration::from_millis(self.longest_ms.load(Ordering::Relaxed)),
        )
    }
}

struct Worker {
    addr: String,
    ca: PathBuf,
    prefix: String,
    /// What the counter is known to hold; only counted while nothing went wrong.
    counter: i64,
    problems: Vec<Problem>,
}

impl Worker {
    fn run(&mut self, stop: &AtomicBool, rounds: &AtomicU64, longest_ms: &AtomicU64) {
        let mut client = Client::connect(&self.addr, &self.ca);
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let begin = Instant::now();
            if !self.round(&mut client, round) {
                match Client::try_connect(&self.addr, &self.ca) {
                    Ok(fresh) => client = fresh,
                    Err(_) => thread::sleep(Duration::from_millis(50)),
                }
            }
            let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            longest_ms.fetch_max(took, Ordering::Relaxed);
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One pipeline; false when the connection ended.
    fn round(&mut self, client: &mut Client, round: u64) -> bool {
        let key = format!("{}:{}", self.prefix, round % KEYS_PER_CLIENT);
        let value = format!("{key}={round}");
        let counter = format!("{}:counter", self.prefix);
        let requests: [Vec<&str>; 3] = [
            vec!["SET", &key, &value],
            vec!["GET", &key],
            vec!["INCR", &counter],
        ];
        let mut bytes = Vec::new();
        requests
            .iter()
            .for_each(|request| write::request(&mut bytes, request));
        if let Err(error) = client.try_raw(&bytes) {
            self.problem("a pipeline", error.to_string(), true);
            return false;
        }
        for request in &requests {
            let reply = match client.try_read() {
                Ok(reply) => text(&reply),
                Err(error) => {
                    self.problem(&request.join(" "), error.to_string(), true);
                    return false;
                }
            };
            let expected = match request[0] {
                "SET" => reply == "OK",
                "GET" => reply == value,
                _ => self.counted(&reply),
            };
            if !expected {
                self.problem(&request.join(" "), reply, false);
            }
        }
        true
    }

    /// Whether the counter's reply is exactly one more; resumes from what it is.
    fn counted(&mut self, reply: &str) -> bool {
        let Ok(count) = reply.parse::<i64>() else {
            return false;
        };
        let expected = count == self.counter + 1;
        self.counter = count;
        expected
    }

    /// Notes a problem, unless there are a few of its kind (the first word of the reply) already.
    fn problem(&mut self, request: &str, got: String, closed: bool) {
        let kind = |got: &str| got.split(' ').next().map(str::to_owned);
        let alike = self
            .problems
            .iter()
            .filter(|problem| kind(&problem.got) == kind(&got))
            .count();
        if alike < PROBLEMS_PER_KIND {
            self.problems.push(Problem {
                request: request.to_owned(),
                got,
                closed,
            });
        }
    }
}
