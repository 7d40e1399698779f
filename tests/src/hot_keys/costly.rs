//! One key whose read costs its node far more than the reply tells: the number of bits that are set in a
//! bitmap, which the node counts anew for each read.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use resp::Value;

use super::{Cost, THREADS, WARM_ROUNDS, cpu_of, spent};
use crate::client::{Client, text};
use crate::cluster::RealCluster;
use crate::keyway::{Keyway, Settings};

const KEY: &str = "config:seen-today";
const READ: [&str; 2] = ["BITCOUNT", KEY];
/// 4 MiB: the last bit is set.
const BITS: usize = 32 * 1024 * 1024;
/// Between two writes, each of which sets a bit more: so a reply tells which write it has seen.
const PAUSE: Duration = Duration::from_secs(1);
/// What is kept near is never believed longer.
const OLD_MAX: Duration = Duration::from_secs(1);

/// How the key is read.
#[derive(Clone, Copy, Debug)]
pub struct Counting<'a> {
    /// Lines of `[hot_keys]`; without, clients ask the node itself.
    pub hot_keys: Option<&'a str>,
    /// Connections.
    pub clients: usize,
    /// Reads that each of them sends at once.
    pub depth: usize,
    /// For how long.
    pub lasts: Duration,
}

/// What that came to.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// What it cost. No reply was one that the key had not then, or older than one before it on its
    /// connection.
    pub cost: Cost,
    /// Writes beside the reads, at the node itself.
    pub writes: usize,
    /// Reads that showed what was over, by a write that was acknowledged, when they were sent.
    pub old: usize,
    /// Of those: the longest that it had been over.
    pub oldest: Duration,
}

/// Has the key read while it is written, through a Keyway of its own or at its node.
///
/// # Panics
/// A reply is not what it may be.
#[must_use]
pub fn count_bits(cluster: &RealCluster, counting: Counting<'_>) -> Counted {
    let keyway = counting.hot_keys.map(|lines| {
        let settings = Settings {
            sections: format!("[hot_keys]\n{lines}\n"),
            ..Settings::default()
        };
        Keyway::with(cluster, &settings)
    });
    let owner = cluster.owner(crate::slot_of(KEY));
    let mut writer = cluster.client(owner);
    writer.cmd(&["DEL", KEY]);
    writer.cmd(&["SETBIT", KEY, &(BITS - 1).to_string(), "1"]);
    let acked = Mutex::new(vec![Instant::now()]);
    let (ready, over) = (Barrier::new(THREADS + 1), AtomicBool::new(false));
    let now = || {
        let keyway_cpu = keyway.as_ref().map(|keyway| cpu_of(keyway.pid()));
        let (commands, cpu) = spent(cluster, "bitcount");
        (commands, cpu, keyway_cpu.unwrap_or_default())
    };
    let (before, begun, tallies) = thread::scope(|scope| {
        let readers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (keyway, acked, ready, over) = (keyway.as_ref(), &acked, &ready, &over);
                let connect = move || match keyway {
                    Some(keyway) => keyway.client(),
                    None => cluster.client(owner),
                };
                let share = counting.clients / THREADS;
                scope.spawn(move || {
                    let mut readers = Readers::new(share, connect, counting.depth);
                    (0..WARM_ROUNDS).for_each(|_| readers.round(acked));
                    readers.tally = Tally::default();
                    ready.wait();
                    ready.wait();
                    while !over.load(Relaxed) {
                        readers.round(acked);
                    }
                    readers.tally
                })
            })
            .collect();
        ready.wait();
        let (before, begun) = (now(), Instant::now());
        ready.wait();
        write_until(&mut writer, &acked, begun + counting.lasts);
        over.store(true, Relaxed);
        let tallies = readers.into_iter().map(|reader| reader.join());
        (before, begun, tallies.collect::<Result<Vec<_>, _>>())
    });
    let (after, took) = (now(), begun.elapsed());
    let tallies = tallies.unwrap();
    Counted {
        cost: Cost {
            reads: tallies.iter().map(|tally| tally.reads).sum(),
            at_nodes: after.0 - before.0,
            took,
            node_cpu: after.1 - before.1,
            keyway_cpu: after.2 - before.2,
        },
        writes: acked.lock().unwrap().len() - 1,
        old: tallies.iter().map(|tally| tally.old).sum(),
        oldest: tallies
            .iter()
            .map(|tally| tally.oldest)
            .max()
            .unwrap_or_default(),
    }
}

/// One bit more after every pause, until then.
fn write_until(writer: &mut Client, acked: &Mutex<Vec<Instant>>, end: Instant) {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        thread::sleep(left.min(PAUSE));
        if left <= PAUSE {
            return;
        }
        let bit = acked.lock().unwrap_or_else(PoisonError::into_inner).len();
        let reply = writer.cmd(&["SETBIT", KEY, &bit.to_string(), "1"]);
        assert_eq!(text(&reply), "0");
        let mut acked = acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.push(Instant::now());
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    reads: u64,
    old: usize,
    oldest: Duration,
}

/// Connections that one thread reads by, all at once.
struct Readers {
    clients: Vec<(Client, usize)>,
    batch: Vec<u8>,
    depth: usize,
    shown: Vec<(Instant, usize)>,
    tally: Tally,
}

impl Readers {
    fn new(count: usize, connect: impl Fn() -> Client, depth: usize) -> Self {
        let mut batch = Vec::new();
        (0..depth).for_each(|_| resp::write::request(&mut batch, &READ));
        Self {
            clients: (0..count).map(|_| (connect(), 0)).collect(),
            batch,
            depth,
            shown: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn round(&mut self, acked: &Mutex<Vec<Instant>>) {
        let mut sent = Vec::with_capacity(self.clients.len());
        for (client, _) in &mut self.clients {
            sent.push(Instant::now());
            client.raw(&self.batch);
        }
        self.shown.clear();
        for ((client, last), sent) in self.clients.iter_mut().zip(sent) {
            for _ in 0..self.depth {
                let reply = client.read();
                let Value::Integer(bits) = reply.plain() else {
                    panic!("{READ:?} was answered {reply:?}");
                };
                let bits = usize::try_from(*bits).unwrap();
                assert!(bits >= *last, "{bits} after {last} was read");
                *last = bits;
                self.shown.push((sent, bits));
            }
        }
        self.judge(acked);
    }

    /// Counts what was over when it was asked for.
    fn judge(&mut self, acked: &Mutex<Vec<Instant>>) {
        let acked = acked.lock().unwrap_or_else(PoisonError::into_inner);
        for (sent, bits) in self.shown.drain(..) {
            self.tally.reads += 1;
            // The one that is being written may be acknowledged yet.
            assert!(bits <= acked.len() + 1, "{bits} of {}", acked.len());
            let next = acked.get(bits);
            let age = next.and_then(|next| sent.checked_duration_since(*next));
            if let Some(age) = age {
                self.tally.old += 1;
                self.tally.oldest = self.tally.oldest.max(age);
                assert!(age <= OLD_MAX, "{bits} was over for {age:?}");
            }
        }
    }
}
