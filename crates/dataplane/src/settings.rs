//! What the dataplane is told of the configuration.

use std::{sync::Arc, time::Duration};

use routing::CrossSlot;
use session::local::Endpoint;
use upstream::Credentials;

use crate::{audience::Audience, seats::Seats, users::Users};

/// As whom the commands of a client run that has not authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unauthenticated {
    /// As Valkey's `default` user; `NOAUTH` when that one has a password.
    #[default]
    Default,
    /// As the user of [`Settings::service`].
    Service,
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a command's arrival to its reply.
    pub deadline: Duration,
    /// From the start of a connection attempt until commands may flow.
    pub connect: Duration,
    /// Without a byte from a node that owes a reply.
    pub reply: Duration,
    /// The same from a replica that owes a read.
    pub read_reply: Duration,
    /// A client leaves a command half sent for so long.
    pub request: Duration,
    /// A client sends no whole command for so long after it has connected.
    pub first_command: Duration,
    /// Commands of one client without a reply.
    pub in_flight_max: usize,
    /// Bytes of one command.
    pub request_bytes_max: usize,
    /// Bytes of replies that wait for one client.
    pub client_output_bytes_max: usize,
    /// A client that has sent no command for so long leaves, unless it waits for something.
    pub idle: Option<Duration>,
    /// A client that has been here for so long leaves when it loses nothing by it, and soon after in any
    /// case.
    pub age: Option<Duration>,
    /// Bytes that wait for all clients of this worker: replies, and commands that are half sent.
    pub worker_output_bytes_max: usize,
    /// Node connections lent to single clients, for commands that block and for `WATCH`.
    pub leases_max: usize,
    /// Client connections, as `INFO` shows it.
    pub clients_max: usize,
}

/// The port where clients come to whose reads may go to replicas.
#[derive(Clone, Debug)]
pub struct ReadPort {
    /// Its number.
    pub port: u16,
    /// What cluster commands tell clients to dial; `None` is the main port's host.
    pub advertise: Option<Endpoint>,
    /// The id of the virtual replica: 40 hexadecimal digits.
    pub node_id: String,
}

/// Everything a dataplane is told of the configuration; another may take its place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
    /// What becomes of `MGET` and its like over several slots.
    pub cross_slot: CrossSlot,
    /// Reads that ask the same at the same moment are asked once.
    pub coalesce: bool,
    /// Values of keys that begin like one of these are kept near; of none, when there are none.
    pub near_prefixes: Arc<[Box<[u8]>]>,
    /// So are those of keys with so many operations in a second; of none, when it is 0.
    pub near_ops_min: usize,
    /// So many bytes of them, in this worker.
    pub near_bytes_max: usize,
    /// Workers of the whole proxy.
    pub workers: usize,
    /// The proxy's own user, if it has one.
    pub service: Option<Credentials>,
    /// Users that the configuration names.
    pub users: Arc<Users>,
    /// How many clients each user may have; shared by all workers.
    pub seats: Arc<Seats>,
    /// Who listens to what, in all workers.
    pub audience: Arc<Audience>,
    /// The proxy's own availability zone.
    pub zone: Option<Arc<str>>,
    /// Whether `READONLY` sends a client's reads to replicas also when it has not connected to the
    /// read port.
    pub readonly_flag: bool,
    /// As whom unauthenticated clients run.
    pub unauthenticated: Unauthenticated,
    /// The main port.
    pub port: u16,
    /// What cluster commands tell clients to dial; `None` is the address that the client used, and
    /// the main port.
    pub advertise: Option<Endpoint>,
    /// The read port, if there is one.
    pub read_port: Option<ReadPort>,
    /// The id of the virtual primary: 40 hexadecimal digits.
    pub node_id: String,
    /// The id of its shard: 40 hexadecimal digits.
    pub shard_id: String,
    /// 40 hexadecimal digits, others after every start.
    pub run_id: String,
    /// The proxy's process.
    pub process_id: u32,
    /// The proxy's version.
    pub version: &'static str,
    /// Different in every process and worker, and hard to guess.
    pub seed: u64,
}
