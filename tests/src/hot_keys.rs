//! One key that many connections read at once, and what that costs the node it is on.

mod costly;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, text};
use crate::cluster::RealCluster;
use crate::keyway::{Keyway, Settings};

pub use self::costly::{Counted, Counting, count_bits};

const KEY: &str = "config:hot";
const THREADS: usize = 4;
/// After so many reads by every connection everything is as it will be.
const WARM_ROUNDS: usize = 10;
/// Readers beside a writer.
const READERS: usize = 8;
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(2);

/// How one key is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Lines of `[hot_keys]`.
    pub hot_keys: &'a str,
    /// Connections.
    pub clients: usize,
    /// Reads that each of them sends at once.
    pub depth: usize,
    /// How often each of them does.
    pub rounds: usize,
}

/// What that came to.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Reads that were answered, each with the right value.
    pub reads: u64,
    /// Commands that the nodes ran for them.
    pub at_nodes: u64,
    /// From the first read to the last reply.
    pub took: Duration,
    /// Processor time of the nodes.
    pub node_cpu: Duration,
    /// Processor time of Keyway.
    pub keyway_cpu: Duration,
}

impl Cost {
    /// Reads in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        number(self.reads) / self.took.as_secs_f64()
    }

    /// Reads for each second of processor time of the nodes.
    #[must_use]
    pub fn reads_per_node_second(&self) -> f64 {
        number(self.reads) / self.node_cpu.as_secs_f64().max(0.001)
    }

    /// Reads for each command at a node.
    #[must_use]
    pub fn reads_per_command(&self) -> f64 {
        number(self.reads) / number(self.at_nodes.max(1))
    }
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Has one key read through a Keyway of its own.
///
/// # Panics
/// A reply is not the key's value.
#[must_use]
pub fn read_one_key(cluster: &RealCluster, reading: Reading<'_>) -> Cost {
    let settings = Settings {
        sections: format!("[hot_keys]\n{}\n", reading.hot_keys),
        ..Settings::default()
    };
    let keyway = Keyway::with(cluster, &settings);
    let value = format!("value {}", keyway.port());
    assert_eq!(text(&keyway.client().cmd(&["SET", KEY, &value])), "OK");
    let mut batch = Vec::new();
    (0..reading.depth).for_each(|_| resp::write::request(&mut batch, &["GET", KEY]));
    let (ready, over) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let last = Mutex::new(Instant::now());
    let share = reading.clients / THREADS;
    let mut before = (0, Duration::ZERO, Duration::ZERO, Instant::now());
    let now = || {
        let (commands, cpu) = spent(cluster, "get");
        (commands, cpu, cpu_of(keyway.pid()), Instant::now())
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut clients: Vec<Client> = (0..share).map(|_| keyway.client()).collect();
                for _ in 0..WARM_ROUNDS {
                    for client in &mut clients {
                        assert_eq!(text(&client.cmd(&["GET", KEY])), value);
                    }
                }
                ready.wait();
                ready.wait();
                for _ in 0..reading.rounds {
                    clients.iter_mut().for_each(|client| client.raw(&batch));
                    for client in &mut clients {
                        (0..reading.depth).for_each(|_| assert_eq!(text(&client.read()), value));
                    }
                }
                *last.lock().unwrap() = Instant::now();
                over.wait();
            });
        }
        ready.wait();
        before = now();
        ready.wait();
        over.wait();
    });
    let after = now();
    let reads = share * THREADS * reading.depth * reading.rounds;
    Cost {
        reads: u64::try_from(reads).unwrap(),
        at_nodes: after.0 - before.0,
        took: last.lock().unwrap().duration_since(before.3),
        node_cpu: after.1 - before.1,
        keyway_cpu: after.2 - before.2,
    }
}

/// How old what clients read was.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// Reads, none of which showed an older value than one before it on its connection.
    pub reads: usize,
    /// Writes beside them, past Keyway.
    pub writes: usize,
    /// Reads that Keyway answered itself.
    pub hits: f64,
    /// Reads that showed a value whose successor had been acknowledged when they were sent.
    pub old: usize,
    /// Of those: the longest that the next one had been acknowledged when
    /// they were sent.
    pub oldest: Duration,
}

/// Has a key read through a Keyway of its own while it is written past it, and says how old what was
/// read was.
///
/// # Panics
/// A client reads something that is older than what it has read before.
#[must_use]
pub fn read_while_written(cluster: &RealCluster, hot_keys: &str, reads: usize) -> Freshness {
    let settings = Settings {
        sections: format!("[hot_keys]\n{hot_keys}\n"),
        ..Settings::default()
    };
    let keyway = Keyway::with(cluster, &settings);
    let mut node = cluster.client(cluster.owner(crate::slot_of(KEY)));
    node.cmd(&["SET", KEY, "0"]);
    // When a value was acknowledged.
    let acked = Mutex::new(vec![Instant::now()]);
    let over = AtomicBool::new(false);
    let ages: Vec<Duration> = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let number = acked.lock().unwrap().len();
                assert_eq!(text(&node.cmd(&["SET", KEY, &number.to_string()])), "OK");
                acked.lock().unwrap().push(Instant::now());
                thread::sleep(PAUSE);
            }
        });
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (keyway, acked) = (&keyway, &acked);
                scope.spawn(move || read_in_order(keyway, acked, reads / READERS))
            })
            .collect();
        let readers = readers.into_iter().map(|reader| reader.join());
        let ages = readers.collect::<Result<Vec<_>, _>>();
        over.store(true, Relaxed);
        ages.unwrap().concat()
    });
    Freshness {
        reads: reads / READERS * READERS,
        writes: acked.lock().unwrap().len() - 1,
        hits: keyway.metric("keyway_near_reads_total", &["hit"]),
        old: ages.len(),
        oldest: ages.iter().max().copied().unwrap_or_default(),
    }
}

/// Reads again and again; returns how long what was not shown had been acknowledged.
fn read_in_order(keyway: &Keyway, acked: &Mutex<Vec<Instant>>, reads: usize) -> Vec<Duration> {
    let mut client = keyway.client();
    let (mut last, mut ages) = (0, Vec::new());
    for _ in 0..reads {
        let begun = Instant::now();
        let shown: usize = text(&client.cmd(&["GET", KEY])).parse().unwrap();
        assert!(shown >= last, "{shown} after {last} was read");
        last = shown;
        let next = acked.lock().unwrap().get(shown + 1).copied();
        let age = next.and_then(|next| begun.checked_duration_since(next));
        ages.extend(age);
    }
    ages
}

/// How often the nodes have run a command, and the processor time that they have used.
fn spent(cluster: &RealCluster, command: &str) -> (u64, Duration) {
    let stat = format!("cmdstat_{command}:calls=");
    let mut all = (0, Duration::ZERO);
    for index in 0..cluster.nodes().len() {
        let mut node = cluster.client(index);
        let stats = text(&node.cmd(&["INFO", "commandstats"]));
        let calls = stats
            .lines()
            .find_map(|line| line.strip_prefix(&stat))
            .and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
        all.0 += calls.unwrap_or_default();
        let cpu = text(&node.cmd(&["INFO", "cpu"]));
        let seconds: f64 = cpu
            .lines()
            .filter(|line| line.starts_with("used_cpu_user:") || line.starts_with("used_cpu_sys:"))
            .filter_map(|line| line.split(':').nth(1)?.trim().parse::<f64>().ok())
            .sum();
        all.1 += Duration::from_secs_f64(seconds);
    }
    all
}

/// The processor time of a process, in the ticks of a hundredth that the system counts.
fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
