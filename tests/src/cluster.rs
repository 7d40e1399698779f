//! A real cluster of `valkey-server` processes, put together without `valkey-cli`.

mod change;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use resp::Value;

use crate::certificates::Certificates;
use crate::client::{Client, text};
use crate::node::{Node, Version};
use crate::relay::Relay;
use crate::wait::{wait_until, within};

const SLOTS: u16 = 16_384;
/// Between two introductions.
const MEET_AGAIN: Duration = Duration::from_secs(5);

/// What a cluster is like. Start from [`ClusterOptions::new`].
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Which server.
    pub version: Version,
    /// Number of primaries, which share the slots evenly.
    pub shards: usize,
    /// Number of replicas of each primary.
    pub replicas: usize,
    /// After how much silence a node counts as failed.
    pub node_timeout_ms: u32,
    /// The default user's password on every node.
    pub password: Option<String>,
    /// Users to create on every node: name and ACL rules, without `on`.
    pub users: Vec<(String, String)>,
    /// More arguments for every node.
    pub extra: Vec<String>,
    /// Clients of the cluster are told the addresses of relays, one before each node.
    pub relayed: bool,
}

impl ClusterOptions {
    /// No password; failover is quick where there are replicas. Without, nobody could take over, and a node that a busy
    /// machine keeps from its turn for seconds need not be missed.
    #[must_use]
    pub fn new(version: Version, shards: usize, replicas: usize) -> Self {
        Self {
            version,
            shards,
            replicas,
            node_timeout_ms: if replicas == 0 { 6_000 } else { 2_000 },
            password: None,
            users: Vec::new(),
            extra: Vec::new(),
            relayed: false,
        }
    }
}

/// The processes; primaries first, then the replicas of shard 0, of shard 1 and so on. The zones
/// are `az-a`, `az-b`, `az-c` in turn, a replica in the zone after its primary's. Ends when dropped.
#[derive(Debug)]
pub struct RealCluster {
    options: ClusterOptions,
    nodes: Vec<Node>,
    relays: Vec<Relay>,
    certificates: Option<Arc<Certificates>>,
}

impl RealCluster {
    /// Starts a cluster and waits until all of it works.
    ///
    /// # Panics
    /// It does not within half a minute.
    #[must_use]
    pub fn start(version: Version, shards: usize, replicas: usize) -> Self {
        Self::with(ClusterOptions::new(version, shards, replicas))
    }

    /// Starts a cluster with options of its own.
    ///
    /// # Panics
    /// It does not work within half a minute.
    #[must_use]
    pub fn with(options: ClusterOptions) -> Self {
        let certificates =
            (options.version == Version::V8_0Tls).then(|| Arc::new(Certificates::loopback()));
        let total = options.shards * (1 + options.replicas);
        let mut cluster = Self {
            options,
            nodes: Vec::new(),
            relays: Vec::new(),
            certificates,
        };
        (0..total).for_each(|index| cluster.start_node(index));
        cluster.assign_slots();
        cluster.meet();
        cluster.attach_replicas();
        cluster.create_users();
        cluster.wait_healthy();
        cluster
    }

    fn start_node(&mut self, index: usize) {
        let options = &self.options;
        let zone = zone(index, options.shards, options.replicas);
        let mut extra = vec!["--availability-zone".to_owned(), zone.to_owned()];
        let timeout = options.node_timeout_ms.to_string();
        extra.extend(["--cluster-node-timeout".to_owned(), timeout]);
        if options.relayed {
            let relay = Relay::listen();
            extra.extend(announced(options.version, relay.port()));
            self.relays.push(relay);
        }
        extra.extend(options.extra.iter().cloned());
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        let node = Node::start(
            options.version,
            self.certificates.clone(),
            true,
            options.password.clone(),
            &extra,
        );
        if let Some(relay) = self.relays.get(index) {
            relay.point_at(node.port());
        }
        self.nodes.push(node);
    }

    fn drop_last_node(&mut self) {
        self.nodes.pop();
        self.relays.truncate(self.nodes.len());
    }

    /// The slots that shard `shard` is given at the start, first and last.
    #[must_use]
    pub fn slots_of(&self, shard: usize) -> (u16, u16) {
        let first =
            |shard: usize| u16::try_from(usize::from(SLOTS) * shard / self.options.shards).unwrap();
        (first(shard), first(shard + 1) - 1)
    }

    fn assign_slots(&self) {
        for shard in 0..self.options.shards {
            let mut client = self.client(shard);
            let epoch = (shard + 1).to_string();
            expect_ok(&client.cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]));
            let (first, last) = self.slots_of(shard);
            expect_ok(&client.cmd(&[
                "CLUSTER",
                "ADDSLOTSRANGE",
                &first.to_string(),
                &last.to_string(),
            ]));
        }
    }

    /// The first node is told of all others. One that has no answer within the node timeout, as on a busy machine,
    /// gives up, and one of two may know the other and not be known: then all are told again.
    fn meet(&self) {
        let mut first = self.client(0);
        let lines = text(&first.cmd(&["CLUSTER", "NODES"]));
        let mut strangers: Vec<usize> = (1..self.nodes.len())
            .filter(|index| !lines.contains(&self.id(*index)))
            .collect();
        wait_until("nodes that know each other", 30, || {
            for index in &strangers {
                let node = &self.nodes[*index];
                let (port, bus) = (node.port().to_string(), node.bus_port().to_string());
                expect_ok(&first.cmd(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]));
            }
            strangers = (1..self.nodes.len()).collect();
            within(MEET_AGAIN, || self.are_acquainted())
        });
    }

    fn are_acquainted(&self) -> bool {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        (0..self.nodes.len()).all(|index| {
            let mut client = self.client(index);
            let nodes = text(&client.cmd(&["CLUSTER", "NODES"]));
            text(&client.cmd(&["CLUSTER", "INFO"])).contains(&known) && !nodes.contains("handshake")
        })
    }

    fn attach_replicas(&self) {
        for index in self.options.shards..self.nodes.len() {
            let primary = self.id((index - self.options.shards) / self.options.replicas);
            let mut client = self.client(index);
            wait_until("a replica that may follow its primary", 10, || {
                text(&client.cmd(&["CLUSTER", "REPLICATE", &primary])) == "OK"
            });
        }
    }

    fn create_users(&self) {
        for (name, rules) in &self.options.users {
            for index in 0..self.nodes.len() {
                let mut args = vec!["ACL", "SETUSER", name, "on"];
                args.extend(rules.split(' '));
                expect_ok(&self.client(index).cmd(&args));
            }
        }
    }

    /// Waits until every running node sees all slots served and every replica is in step.
    ///
    /// # Panics
    /// That takes longer than half a minute.
    pub fn wait_healthy(&self) {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            wait_until("cluster_state:ok and replicas in step", 30, || {
                let Ok(mut client) = node.try_client() else {
                    return false;
                };
                let info = client
                    .try_cmd(&["CLUSTER", "INFO"])
                    .map(|value| text(&value))
                    .unwrap_or_default();
                let replication = client
                    .try_cmd(&["INFO", "replication"])
                    .map(|value| text(&value));
                let replication = replication.unwrap_or_default();
                let in_step = replication.contains("role:master")
                    || replication.contains("master_link_status:up");
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && in_step
            });
        }
        self.wait_replicas_listed();
    }

    fn wait_replicas_listed(&self) {
        let running = self.nodes.iter().filter(|node| node.runs()).count();
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let mut client = node.client();
            wait_until("all nodes online in CLUSTER SHARDS", 30, || {
                let shards = client.cmd(&["CLUSTER", "SHARDS"]);
                let nodes = shards
                    .as_array()
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|s| s.map_get("nodes"));
                let health = nodes.flat_map(|nodes| nodes.as_array().unwrap_or_default());
                let online = health
                    .filter(|node| node.map_get("health").is_some_and(|h| text(h) == "online"));
                online.count() == running
            });
        }
    }

    /// What the cluster was made with.
    #[must_use]
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// The processes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One process, to kill, restart, freeze or thaw.
    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// A connection straight to a node.
    ///
    /// # Panics
    /// The node does not take it.
    #[must_use]
    #[track_caller]
    pub fn client(&self, index: usize) -> Client {
        self.nodes[index].client()
    }

    /// The node's id.
    ///
    /// # Panics
    /// The node does not say it.
    #[must_use]
    pub fn id(&self, index: usize) -> String {
        text(&self.client(index).cmd(&["CLUSTER", "MYID"]))
    }

    /// `host:port` of every node, as clients of the cluster reach it.
    #[must_use]
    pub fn addrs(&self) -> Vec<String> {
        if self.options.relayed {
            return self.relays.iter().map(Relay::addr).collect();
        }
        self.nodes.iter().map(Node::addr).collect()
    }

    /// The zone that a node is in.
    #[must_use]
    pub fn zone(&self, index: usize) -> &'static str {
        zone(index, self.options.shards, self.options.replicas)
    }

    /// The relay before a node.
    ///
    /// # Panics
    /// The cluster has none.
    #[must_use]
    pub fn relay(&self, index: usize) -> &Relay {
        &self.relays[index]
    }

    /// The `[cluster]` section of a Keyway configuration that reaches this cluster.
    #[must_use]
    pub fn section(&self, lines: &str) -> String {
        let mut out = format!("[cluster]\nseeds = {:?}\n{lines}\n", self.addrs());
        if let Some(files) = &self.certificates {
            let _ = writeln!(out, "[cluster.tls]\nca = {:?}", files.ca);
        }
        out
    }

    /// The node that owns a slot now, by its own word.
    ///
    /// # Panics
    /// None of the running ones does.
    #[must_use]
    pub fn owner(&self, slot: u16) -> usize {
        let slot = slot.to_string();
        let owns = |node: &Node| {
            let Ok(mut client) = node.try_client() else {
                return false;
            };
            let is_primary = text(&client.cmd(&["ROLE"])).contains("master");
            let id = text(&client.cmd(&["CLUSTER", "MYID"]));
            let keys = client.cmd(&["CLUSTER", "SLOTS"]);
            let ranges = keys.as_array().unwrap_or_default();
            is_primary && ranges.iter().any(|range| serves(range, &id, &slot))
        };
        self.nodes
            .iter()
            .position(|node| node.runs() && owns(node))
            .expect("an owner of the slot")
    }

    /// Moves one slot with all its keys as operators do since Redis 3: SETSLOT, MIGRATE key by key,
    /// SETSLOT. `between` is called after each key that was moved.
    ///
    /// # Panics
    /// A node refuses.
    pub fn migrate_slot(&self, slot: u16, from: usize, to: usize, mut between: impl FnMut()) {
        let (mut source, mut target) = (self.client(from), self.client(to));
        let (source_id, target_id) = (self.id(from), self.id(to));
        let slot_text = slot.to_string();
        expect_ok(&target.cmd(&["CLUSTER", "SETSLOT", &slot_text, "IMPORTING", &source_id]));
        expect_ok(&source.cmd(&["CLUSTER", "SETSLOT", &slot_text, "MIGRATING", &target_id]));
        loop {
            let keys = source.cmd(&["CLUSTER", "GETKEYSINSLOT", &slot_text, "1"]);
            let Some(key) = keys.as_array().and_then(|keys| keys.first()?.as_bytes()) else {
                break;
            };
            let port = self.nodes[to].port().to_string();
            let mut args: Vec<&[u8]> = vec![
                b"MIGRATE",
                b"127.0.0.1",
                port.as_bytes(),
                key,
                b"0",
                b"5000",
            ];
            if let Some(password) = &self.options.password {
                args.extend([b"AUTH".as_slice(), password.as_bytes()]);
            }
            let moved = text(&source.cmd(&args));
            assert!(moved == "OK" || moved == "NOKEY", "MIGRATE: {moved}");
            between();
        }
        // The target first, or the two would send clients back and forth.
        expect_ok(&target.cmd(&["CLUSTER", "SETSLOT", &slot_text, "NODE", &target_id]));
        expect_ok(&source.cmd(&["CLUSTER", "SETSLOT", &slot_text, "NODE", &target_id]));
    }

    /// Moves a range of slots in one step (9.0 and newer), and waits until that is done.
    ///
    /// # Panics
    /// A node refuses, or it takes longer than 60 s.
    pub fn migrate_slots_atomically(&self, first: u16, last: u16, from: usize, to: usize) {
        self.migrate_ranges_atomically(&[(first, last)], from, to);
    }

    /// Makes a replica the primary of its shard, as planned, and waits until it is.
    ///
    /// # Panics
    /// It does not become one within 20 s.
    pub fn failover(&self, replica: usize) {
        let mut client = self.client(replica);
        expect_ok(&client.cmd(&["CLUSTER", "FAILOVER"]));
        wait_until(
            "the replica's promotion",
            20,
            || matches!(&client.cmd(&["ROLE"]), Value::Array(role) if role.first().is_some_and(|r| text(r) == "master")),
        );
    }
}

fn serves(range: &Value, id: &str, slot: &str) -> bool {
    let Some([first, last, Value::Array(primary), ..]) = range.as_array() else {
        return false;
    };
    let slot: i64 = slot.parse().unwrap();
    let inside = first.as_int().unwrap() <= slot && slot <= last.as_int().unwrap();
    inside && primary.get(2).and_then(Value::as_str) == Some(id)
}

/// Arguments by which a node tells clients another port, and its fellow nodes the true one where
/// the version can.
fn announced(version: Version, port: u16) -> [String; 2] {
    let name = match version {
        Version::V9_1 => "--cluster-announce-client-port",
        Version::V8_0Tls => "--cluster-announce-tls-port",
    };
    [name.to_owned(), port.to_string()]
}

#[track_caller]
fn expect_ok(reply: &Value) {
    assert_eq!(text(reply), "OK");
}

fn zone(index: usize, shards: usize, replicas: usize) -> &'static str {
    const ZONES: [&str; 3] = ["az-a", "az-b", "az-c"];
    if index < shards || replicas == 0 {
        return ZONES[index % 3];
    }
    let (shard, replica) = ((index - shards) / replicas, (index - shards) % replicas);
    ZONES[(shard + replica + 1) % 3]
}

/// The slot of a key, asked from nobody: CRC16 over the key or its hash tag.
#[must_use]
pub fn slot_of(key: &str) -> u16 {
    let bytes = key.as_bytes();
    let tag = bytes.iter().position(|&b| b == b'{').and_then(|open| {
        let len = bytes[open + 1..].iter().position(|&b| b == b'}')?;
        (len > 0).then(|| &bytes[open + 1..open + 1 + len])
    });
    let crc = tag.unwrap_or(bytes).iter().fold(0_u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            (crc << 1) ^ (if crc & 0x8000 == 0 { 0 } else { 0x1021 })
        })
    });
    crc % SLOTS
}
