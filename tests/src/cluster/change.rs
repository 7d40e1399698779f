//! Changes of a whole cluster: many slots at once, nodes that come and go.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use resp::{Value, write};

use crate::client::{Client, text};
use crate::cluster::{RealCluster, expect_ok};
use crate::node::Node;
use crate::wait::wait_until;

/// Slots that are half moved at the same time, by [`RealCluster::migrate_slots`].
const OPEN_SLOTS: usize = 100;
/// Connections that set slots: a node answers each SETSLOT when its replicas have it too.
const SETTERS: usize = 20;
/// A node that was asked for no data for so long has been left by all clients.
const UNASKED: Duration = Duration::from_millis(300);
/// Keys of one MIGRATE.
const KEYS_PER_MOVE: &str = "100";

impl RealCluster {
    /// Moves many slots with their keys by SETSLOT and MIGRATE, some dozens of them at a time.
    ///
    /// # Panics
    /// A node refuses.
    pub fn migrate_slots(&self, slots: RangeInclusive<u16>, from: usize, to: usize) {
        let open =
            |index: usize| -> Vec<Client> { (0..SETTERS).map(|_| self.client(index)).collect() };
        let (mut sources, mut targets) = (open(from), open(to));
        let (source_id, target_id) = (self.id(from), self.id(to));
        let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
        for some in slots.chunks(OPEN_SLOTS) {
            set_slots(&mut targets, some, "IMPORTING", &source_id);
            set_slots(&mut sources, some, "MIGRATING", &target_id);
            self.move_keys(&mut sources[0], some, to);
            // The target first, or the two would send clients back and forth.
            set_slots(&mut targets, some, "NODE", &target_id);
            set_slots(&mut sources, some, "NODE", &target_id);
        }
    }

    /// Moves what is in these slots, until nothing is.
    fn move_keys(&self, source: &mut Client, slots: &[String], to: usize) {
        let port = self.nodes()[to].port().to_string();
        let mut start = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000"]
            .map(str::as_bytes)
            .to_vec();
        let auth = self.options().password.as_ref();
        start.extend(
            auth.iter()
                .flat_map(|password| [b"AUTH", password.as_bytes()]),
        );
        start.push(b"KEYS");
        loop {
            let asked = slots.iter().map(|slot| {
                request(&["CLUSTER", "GETKEYSINSLOT", slot, KEYS_PER_MOVE].map(str::as_bytes))
            });
            let keys = source.pipeline(&asked.collect::<Vec<_>>());
            let full = keys
                .iter()
                .filter_map(Value::as_array)
                .filter(|keys| !keys.is_empty());
            let moves: Vec<Vec<u8>> = full
                .map(|keys| {
                    let mut words = start.clone();
                    words.extend(keys.iter().filter_map(Value::as_bytes));
                    request(&words)
                })
                .collect();
            if moves.is_empty() {
                return;
            }
            for moved in source.pipeline(&moves).iter().map(text) {
                assert!(moved == "OK" || moved == "NOKEY", "MIGRATE: {moved}");
            }
        }
    }

    /// Moves ranges of slots in one step (9.0 and newer), and waits until that is done.
    ///
    /// # Panics
    /// A node refuses, or it takes longer than 60 s.
    pub fn migrate_ranges_atomically(&self, ranges: &[(u16, u16)], from: usize, to: usize) {
        let mut source = self.client(from);
        let mut args: Vec<String> = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"]
            .map(str::to_owned)
            .to_vec();
        args.extend(
            ranges
                .iter()
                .flat_map(|(first, last)| [first.to_string(), last.to_string()]),
        );
        args.extend(["NODE".to_owned(), self.id(to)]);
        expect_ok(&source.cmd(&args));
        wait_until("the end of an atomic slot migration", 60, || {
            let jobs = source.cmd(&["CLUSTER", "GETSLOTMIGRATIONS"]);
            let state = jobs
                .as_array()
                .and_then(|jobs| jobs.first()?.map_get("state"))
                .map(text);
            let state = state.unwrap_or_default();
            assert!(
                state != "failed" && state != "cancelled",
                "the migration {state}: {jobs:?}"
            );
            state == "success"
        });
    }

    /// The slots a node owns now, by its own word, as ranges.
    ///
    /// # Panics
    /// The node does not answer.
    #[must_use]
    pub fn ranges_of(&self, index: usize) -> Vec<(u16, u16)> {
        let nodes = text(&self.client(index).cmd(&["CLUSTER", "NODES"]));
        let own = nodes
            .lines()
            .find(|line| line.contains("myself"))
            .unwrap_or_default();
        let words = own
            .split_whitespace()
            .skip(8)
            .filter(|word| !word.starts_with('['));
        let range = |word: &str| -> Option<(u16, u16)> {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        words.filter_map(range).collect()
    }

    /// Starts one more primary without slots, and waits until all nodes know it. Its index is the
    /// last one.
    ///
    /// # Panics
    /// It does not start, or the others do not take it.
    pub fn add_primary(&mut self) -> usize {
        let index = self.nodes().len();
        self.start_node(index);
        // Its epoch is no other's, so that it need not find out by a conflict.
        let epoch = (index + 1_000).to_string();
        expect_ok(
            &self
                .client(index)
                .cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]),
        );
        self.meet();
        self.wait_healthy();
        index
    }

    /// Starts a node like those of the cluster, which belongs to none.
    #[must_use]
    pub fn spare_node(&self) -> Node {
        let options = self.options();
        let mut extra = options.extra.clone();
        let timeout = options.node_timeout_ms.to_string();
        extra.extend(["--cluster-node-timeout".to_owned(), timeout]);
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        let certificates = self.certificates.clone();
        Node::start(
            options.version,
            certificates,
            true,
            options.password.clone(),
            &extra,
        )
    }

    fn wait_unasked(&self, index: usize) {
        let mut client = self.client(index);
        let (mut known, mut since) = (String::new(), Instant::now());
        wait_until("a node that nobody asks for data", 20, || {
            let now = text(&client.cmd(&["INFO", "commandstats"]));
            if refusals(&now) != refusals(&known) {
                (known, since) = (now, Instant::now());
            }
            since.elapsed() > UNASKED
        });
    }

    /// Takes the last node out of the cluster, which has no slots any more, and ends it when nobody
    /// asks it for data any more, as an operator does.
    ///
    /// # Panics
    /// A node refuses.
    pub fn remove_last_node(&mut self) {
        let last = self.nodes().len() - 1;
        self.wait_unasked(last);
        let id = self.id(last);
        for index in 0..last {
            let mut client = self.client(index);
            wait_until("a node that may be forgotten", 10, || {
                let _ = client.cmd(&["CLUSTER", "FORGET", &id]);
                !text(&client.cmd(&["CLUSTER", "NODES"])).contains(&id)
            });
        }
        self.drop_last_node();
    }
}

/// How often each command was refused: a node without slots refuses all that are about data.
fn refusals(stats: &str) -> Vec<&str> {
    let words = stats.split([':', ',', '\r', '\n']);
    words
        .filter(|word| word.starts_with("rejected_calls="))
        .collect()
}

fn set_slots(clients: &mut [Client], slots: &[String], state: &str, node: &str) {
    let shares = slots.chunks(slots.len().div_ceil(clients.len()));
    for (client, share) in clients.iter_mut().zip(shares.clone()) {
        for slot in share {
            client.raw(&request(
                &["CLUSTER", "SETSLOT", slot, state, node].map(str::as_bytes),
            ));
        }
    }
    for (client, share) in clients.iter_mut().zip(shares) {
        share.iter().for_each(|_| expect_ok(&client.read()));
    }
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write::request(&mut bytes, words);
    bytes
}
