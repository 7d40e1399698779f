//! Looks at a cluster without Keyway: since when each shard takes writes again.
//!
//! One thread per node writes a key of the node's shard every few milliseconds. A shard serves when
//! any of its nodes takes the write.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{Client, text};

/// How often a node is asked, and how long it may take.
const STEP: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(20);
/// A shorter gap between two writes is no loss of service.
const GAP_MIN: Duration = Duration::from_millis(100);

/// What to watch: the nodes of one shard, and a key in its slots.
#[derive(Clone, Debug)]
pub struct Watch {
    /// `host:port` of each of its nodes.
    pub nodes: Vec<String>,
    /// The authority to trust, when they speak TLS.
    pub ca: Option<PathBuf>,
    /// The key to write.
    pub key: String,
}

/// Writes that were taken by a shard, by when.
type Taken = Arc<Mutex<Vec<Instant>>>;

/// Direct writers to every node of a cluster; they end when this is dropped.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    shards: Vec<Taken>,
    threads: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Begins to look.
    #[must_use]
    pub fn start(shards: &[Watch]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut all = Vec::new();
        for shard in shards {
            let taken = Taken::default();
            for node in &shard.nodes {
                let (node, key, ca) = (node.clone(), shard.key.clone(), shard.ca.clone());
                let (stop, taken) = (Arc::clone(&stop), Arc::clone(&taken));
                threads.push(thread::spawn(move || {
                    watch((&node, ca.as_deref()), &key, &stop, &taken);
                }));
            }
            all.push(taken);
        }
        Self {
            stop,
            shards: all,
            threads,
        }
    }

    /// Whether every shard has taken a write after `since`, and still did not long ago.
    ///
    /// # Panics
    /// A thread of the observer panicked.
    #[must_use]
    pub fn all_serve(&self, since: Instant) -> bool {
        self.shards.iter().all(|taken| {
            let taken = taken.lock().expect("the writes");
            let last = taken.last().copied();
            last.is_some_and(|last| last > since && last.elapsed() < GAP_MIN)
        })
    }

    /// How long after `since` the last of the shards took writes again; zero when all did all the
    /// time.
    ///
    /// # Panics
    /// A thread of the observer panicked.
    #[must_use]
    pub fn outage(&self, since: Instant) -> Duration {
        let longest = |taken: &Taken| {
            let taken = taken.lock().expect("the writes");
            let pairs = taken.windows(2).filter(|pair| pair[1] > since);
            let gaps = pairs.filter(|pair| pair[1] - pair[0] >= GAP_MIN);
            gaps.map(|pair| pair[1] - since).max().unwrap_or_default()
        };
        self.shards.iter().map(longest).max().unwrap_or_default()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn watch(
    (addr, ca): (&str, Option<&Path>),
    key: &str,
    stop: &AtomicBool,
    taken: &Mutex<Vec<Instant>>,
) {
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let connected = match client.take() {
            Some(client) => Some(client),
            None => match ca {
                Some(ca) => Client::try_connect(addr, ca).ok(),
                None => Client::try_plain(addr).ok(),
            },
        };
        if let Some(mut open) = connected {
            open.set_patience(PATIENCE);
            if let Ok(reply) = open.try_cmd(&["SET", key, "observed"]) {
                if text(&reply) == "OK" {
                    taken.lock().expect("the writes").push(Instant::now());
                }
                client = Some(open);
            }
        }
        thread::sleep(STEP);
    }
}
