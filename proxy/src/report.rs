//! What `/topology` and `/status` say, as types that the admin port writes and the command line
//! reads. No keys, no values, no passwords; additions are allowed, names stay.

use serde::{Deserialize, Serialize};

use crate::events::Event;

/// `/topology`: who owns what, and what changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Topology {
    /// Grows with every change; 0 until the cluster is found.
    pub revision: u64,
    /// The cluster's epoch.
    pub epoch: Option<u64>,
    /// Slots that have an owner, of 16384.
    pub slots_covered: usize,
    /// When it changed last, in milliseconds since 1970.
    pub changed_at_ms: Option<u64>,
    /// What the last change was, and how it is known.
    pub changed: Option<String>,
    /// Where reads of Keyway's clients go.
    pub reads: Reads,
    /// What becomes of commands over several slots: `split` or `refuse`.
    pub cross_slot: String,
    /// Every shard.
    pub shards: Vec<Shard>,
    /// The last changes, the oldest first.
    pub events: Vec<Event>,
}

/// What decides about reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reads {
    /// The zone that Keyway is in.
    pub zone: Option<String>,
    /// The port whose reads may go to replicas.
    pub port: Option<u16>,
    /// Whether `READONLY` counts on the main port.
    pub readonly_flag: bool,
}

/// A primary, its replicas and their slots.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shard {
    /// Its place, from 0.
    pub index: usize,
    /// How many slots it owns.
    pub slots: usize,
    /// Which, as first and last.
    pub ranges: Vec<(u16, u16)>,
    /// The primary first.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Node {
    /// The name that it gave itself.
    pub id: String,
    /// `host:port`.
    pub address: String,
    /// The shard's place.
    pub shard: usize,
    /// `primary` or `replica`.
    pub role: String,
    /// Its availability zone, where it is known.
    pub zone: Option<String>,
    /// As the cluster sees it: `online`, `loading` or `failed`.
    pub health: String,
    /// Whether reads may go to it: a replica that nobody has asked about its link is no such.
    pub readable: bool,
    /// For how long a replica has been behind its primary, while somebody watches over it.
    pub lag_ms: Option<u64>,
    /// What Keyway's own connections to it show.
    #[serde(flatten)]
    pub live: Live,
}

/// A node as Keyway's connections see it, all workers together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// Connections for commands that are ready.
    pub connections: usize,
    /// Connections that are not.
    pub connecting: usize,
    /// Commands sent, or to be sent, without a reply.
    pub in_flight: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// From being queued for the node to the reply.
    pub latency: Latency,
    /// What it says itself that commands took it, in the mean of those of the last seconds.
    #[serde(default)]
    pub server_mean_us: Option<f64>,
    /// Why the last attempt to connect failed, while there is no connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Quantiles in microseconds, each at most an eighth too high; absent when nothing was measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// What was measured.
    pub samples: u64,
    /// Half is not above this.
    pub p50_us: Option<u64>,
    /// 99 of 100 are not above this.
    pub p99_us: Option<u64>,
    /// 999 of 1000 are not above this.
    pub p999_us: Option<u64>,
}

/// `/status`: what happens now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// When this was, in milliseconds since 1970. It is made anew each second.
    pub at_ms: u64,
    /// Keyway's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Whether clients may be sent here.
    pub ready: bool,
    /// Why not.
    pub not_ready_because: Option<String>,
    /// What the configuration calls the cluster, if it is one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it calls them all: `?cluster=NAME` shows another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Worker threads.
    pub workers: usize,
    /// The zone that Keyway is in.
    pub zone: Option<String>,
    /// Clients.
    pub clients: Clients,
    /// Commands.
    pub requests: Requests,
    /// Times of the last ten to twenty seconds.
    pub latency: Latencies,
    /// Commands sent to nodes and not answered.
    pub in_flight: i64,
    /// Since the start, by kind.
    pub errors: Vec<Count>,
    /// TLS handshakes since the start, by how they ended.
    pub handshakes: Vec<Count>,
    /// Commands that a node sent elsewhere since the start, by kind.
    pub redirects: Vec<Count>,
    /// The cluster in short.
    pub cluster: Cluster,
    /// Every node.
    pub nodes: Vec<Node>,
    /// Every certificate of the configuration, as the file has it.
    pub certificates: Vec<Certificate>,
    /// The last two minutes, second by second, the oldest first.
    pub history: Vec<Second>,
}

/// Clients now and ever.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Clients {
    /// Now.
    pub now: u64,
    /// The most that are let in.
    pub max: usize,
    /// Since the start.
    pub total: u64,
}

/// Commands and bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Requests {
    /// Since the start.
    pub total: u64,
    /// In the last second.
    pub per_second: f64,
    /// Plain bytes from clients in the last second.
    pub bytes_in_per_second: f64,
    /// And to them.
    pub bytes_out_per_second: f64,
}

/// Where the time goes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// From a command's arrival at Keyway to its whole reply: every command.
    pub request: Latency,
    /// From being queued for a node to its reply: one for each time that a node's answers were read.
    pub server: Latency,
    /// The parts of a command's time.
    #[serde(default)]
    pub phases: Phases,
}

/// The parts of the time of commands that nodes answer, by a sample: all while there are few
/// commands, some hundred in a second under load.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Phases {
    /// TLS and reading on the client's side: from its socket, and back to it.
    pub client_tls: Latency,
    /// Until the command was written to its node: lanes, slots that move, redirects.
    pub queue: Latency,
    /// Until the node's answer was read: the network and the node.
    pub node: Latency,
    /// The mean of that.
    pub node_mean_us: Option<f64>,
    /// What the nodes themselves say that commands took them, in the mean: of all that they ran, by
    /// whomever. Absent while they are not asked, may not be asked, or ran nothing.
    pub server_mean_us: Option<f64>,
    /// What is left of the node's mean: the network, and both its ends.
    pub wire_mean_us: Option<f64>,
}

/// A number with a name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Count {
    /// The label that `/metrics` has too.
    pub name: String,
    /// The number.
    pub count: u64,
}

/// The cluster in short; `/topology` has the rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// The topology's revision.
    pub revision: u64,
    /// The cluster's epoch.
    pub epoch: Option<u64>,
    /// Slots that have an owner, of 16384.
    pub slots_covered: usize,
    /// Shards.
    pub shards: usize,
    /// Valkey's version, of the node that was asked last.
    pub version: String,
}

/// A certificate that the configuration names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Certificate {
    /// The configuration's key.
    pub key: String,
    /// The file.
    pub file: String,
    /// Whose it is; of several, whose ends first.
    pub subject: String,
    /// Host names and addresses that it is for.
    pub names: Vec<String>,
    /// When it ends, in milliseconds since 1970.
    pub not_after_ms: Option<u64>,
    /// Whole days until then, below 0 when it has ended.
    pub days_left: Option<i64>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Its end, in milliseconds since 1970.
    pub at_ms: u64,
    /// Commands.
    pub requests: u64,
    /// Errors of Keyway's own.
    pub errors: u64,
    /// From a command's arrival to its reply.
    pub p50_us: Option<u64>,
    /// The same, 99 of 100.
    pub p99_us: Option<u64>,
    /// The same, 999 of 1000.
    pub p999_us: Option<u64>,
}
