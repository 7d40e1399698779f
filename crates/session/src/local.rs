//! What the proxy answers by itself, as one Valkey cluster node would that owns every slot, alone.
//!
//! [`answer`] takes a request that `command` has found to be [`LocalKind`], and the session it
//! came from; it changes the session and appends the reply. Texts, shapes and the order of checks
//! are those of Valkey 9.1.2, for RESP2 and RESP3; the tests compare them with replies captured
//! from a real server. Where an answer is different, the module that makes it says so and why.
//!
//! Credentials are never judged here: [`Outcome::Authenticate`] hands them to the caller, who asks
//! Valkey and then calls [`authenticated`], or passes Valkey's error on as it is.
//!
//! Never here: clock, environment, the real nodes. Nothing of the cluster's topology is in an
//! answer but its size, in the section `Keyway` of `INFO`.
//!
//! # Who sees a reply: `CLIENT REPLY`
//! [`answer`] obeys [`Session::reply_mode`] by itself. It uses a `SKIP` up, and what the client
//! must not see is not in `out`: the outcome is [`Outcome::Silent`] then (or [`Outcome::Close`]
//! with nothing appended, or an [`AuthRequest`] that is `silent`). So call it before a place in the
//! reply order is reserved, and reserve a silent one exactly for these. For everything that is not
//! answered by [`answer`] (forwarded commands, errors made elsewhere), ask
//! [`Session::take_reply_wanted`], once per command.

mod auth;
mod basic;
mod client;
mod cluster;
mod info;
mod inquiry;
pub mod keyway;
mod number;
mod silence;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use command::{CommandTable, LocalKind, introspect};
use resp::{Protocol, Request, write};

pub use self::auth::{authenticated, must_authenticate, refuse_unauthenticated};
pub use self::client::{Shown, client_line};
pub use self::inquiry::{Filter, Inquiry};
use crate::state::Session;

/// What the proxy knows of the cluster behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version of its nodes, such as `9.1.2`.
    pub version: String,
    /// Valkey's `default` user is on and needs no password.
    pub default_user_open: bool,
    /// Slots that have an owner, at most 16384.
    pub slots_covered: u16,
    /// Primaries.
    pub shards: u16,
    /// Primaries and replicas.
    pub nodes: u16,
    /// The highest epoch seen.
    pub epoch: u64,
    /// What its primaries count, added up.
    pub sums: Sums,
    /// Databases that `SELECT` may choose: `cluster-databases`, 1 before 9.0.
    pub databases: u32,
}

/// What the primaries say of themselves in `INFO`, added up a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Keys, and keys that expire, of each database that has any.
    pub databases: BTreeMap<u32, [u64; 2]>,
    /// Everything else, by its name.
    pub fields: BTreeMap<&'static str, u64>,
}

impl Sums {
    /// The sections of `INFO` that have what is added up.
    pub const SECTIONS: [&'static str; 3] = ["memory", "stats", "keyspace"];

    const MEMORY: [&'static str; 5] = [
        "used_memory",
        "used_memory_rss",
        "used_memory_peak",
        "used_memory_dataset",
        "maxmemory",
    ];
    const STATS: [&'static str; 6] = [
        "instantaneous_ops_per_sec",
        "expired_keys",
        "evicted_keys",
        "keyspace_hits",
        "keyspace_misses",
        "pubsub_channels",
    ];

    /// Adds what one node says.
    pub fn add(&mut self, info: &str) {
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let mut known = Self::MEMORY.iter().chain(&Self::STATS);
            if let Some(known) = known.find(|known| **known == name) {
                let sum = self.fields.entry(known).or_default();
                *sum = sum.saturating_add(value.trim().parse().unwrap_or(0));
            } else if let Some(number) = name.strip_prefix("db").and_then(|n| n.parse().ok()) {
                let counts = self.databases.entry(number).or_default();
                for pair in value.trim().split(',') {
                    let place = match pair.split_once('=') {
                        Some(("keys", count)) => Some((0, count)),
                        Some(("expires", count)) => Some((1, count)),
                        _ => None,
                    };
                    if let Some((at, count)) = place
                        && let Some(sum) = counts.get_mut(at)
                    {
                        *sum = sum.saturating_add(count.parse().unwrap_or(0));
                    }
                }
            }
        }
    }

    fn print(&self, names: &[&'static str]) -> impl Iterator<Item = (&'static str, u64)> {
        names
            .iter()
            .filter_map(|name| Some((*name, *self.fields.get(name)?)))
    }
}

impl Facts {
    /// Whether the cluster is of this version or a newer one. What cannot be read is taken for new.
    fn at_least(&self, major: u16, minor: u16) -> bool {
        let mut parts = self.version.split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next()) {
            (Some(Ok(has_major)), Some(Ok(has_minor))) => (has_major, has_minor) >= (major, minor),
            _ => true,
        }
    }
}

/// The address that cluster commands tell clients to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A host name or an IP address, the latter without brackets.
    pub host: String,
    /// The port, for TLS.
    pub port: u16,
}

/// Everything an answer may tell that is not the session's own.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time, on the clock that [`Session::connected_at`] is of.
    pub now: Instant,
    /// The time in milliseconds since 1970.
    pub unix_ms: u64,
    /// The cluster.
    pub facts: &'a Facts,
    /// The commands, for `COMMAND`.
    pub table: &'a CommandTable,
    /// Where cluster clients find the virtual primary.
    pub endpoint: &'a Endpoint,
    /// The id of the virtual primary: 40 hexadecimal digits.
    pub node_id: &'a str,
    /// The virtual replica, where there is a read port: where it is found, and its id.
    pub replica: Option<(&'a Endpoint, &'a str)>,
    /// The client has come to the read port: it is the virtual replica that answers.
    pub read_port: bool,
    /// The id of its shard: 40 hexadecimal digits.
    pub shard_id: &'a str,
    /// The proxy's availability zone. An empty name is none.
    pub zone: Option<&'a str>,
    /// How long the proxy has run.
    pub uptime: Duration,
    /// Client connections now.
    pub clients: usize,
    /// Client connections at most.
    pub clients_max: usize,
    /// Clients that wait in a blocking command.
    pub clients_blocked: usize,
    /// Commands taken since the start.
    pub commands_processed: u64,
    /// Client connections taken since the start.
    pub connections_received: u64,
    /// Memory of the proxy, in bytes.
    pub used_memory: u64,
    /// The proxy's process.
    pub process_id: u32,
    /// 40 hexadecimal digits, others after every start.
    pub run_id: &'a str,
    /// The proxy's own version.
    pub keyway_version: &'static str,
}

impl Context<'_> {
    /// The virtual nodes: the primary, and the replica if there is one.
    fn members(&self) -> impl Iterator<Item = Member<'_>> + Clone {
        let primary = Member {
            id: self.node_id,
            endpoint: self.endpoint,
            replica: false,
            is_asked: !self.read_port,
        };
        let replica = self.replica.map(|(endpoint, id)| Member {
            id,
            endpoint,
            replica: true,
            is_asked: self.read_port,
        });
        std::iter::once(primary).chain(replica)
    }

    /// The one that the client is connected to.
    fn asked(&self) -> Member<'_> {
        let mut members = self.members().filter(|member| member.is_asked);
        members.next().unwrap_or(Member {
            id: self.node_id,
            endpoint: self.endpoint,
            replica: false,
            is_asked: true,
        })
    }

    /// The zone, if it has a name.
    fn named_zone(&self) -> Option<&str> {
        self.zone.filter(|zone| !zone.is_empty())
    }
}

/// A virtual node.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    id: &'a str,
    endpoint: &'a Endpoint,
    replica: bool,
    /// The client is connected to it.
    is_asked: bool,
}

/// What remains to be done after [`answer`].
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: the reply was appended.
    Replied,
    /// The reply was appended (unless it is not wanted); after it, the connection closes.
    Close,
    /// Valkey decides. The reply comes later.
    Authenticate(AuthRequest),
    /// Nothing was appended, and nothing must be: the client wants no reply to this.
    Silent,
}

/// Credentials for Valkey to judge.
#[derive(PartialEq, Eq)]
pub struct AuthRequest {
    /// The user; with none, it is Valkey's `default` user.
    pub username: Option<Vec<u8>>,
    /// The password.
    pub password: Vec<u8>,
    /// What the client gets when Valkey accepts.
    pub then: AfterAuth,
    /// The client wants no reply, whatever Valkey says.
    pub silent: bool,
}

impl fmt::Debug for AuthRequest {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field(
                "username",
                &self.username.as_deref().map(String::from_utf8_lossy),
            )
            .field("password", &"***")
            .field("then", &self.then)
            .field("silent", &self.silent)
            .finish()
    }
}

/// What follows when Valkey has accepted credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterAuth {
    /// `AUTH`: `OK`.
    Ok,
    /// `HELLO`: the new name and protocol, and its map.
    Hello {
        /// The protocol asked for.
        protocol: Option<Protocol>,
        /// The connection's name; empty takes it away.
        name: Option<Vec<u8>>,
    },
}

/// Answers one request. Its number of arguments has been checked by the lookup in the table.
pub fn answer(
    kind: LocalKind,
    request: Request<'_>,
    session: &mut Session,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) -> Outcome {
    let before = silence::take(session);
    let start = out.len();
    let outcome = match kind {
        LocalKind::Auth => auth::auth(request, context, out),
        LocalKind::Hello => auth::hello(request, session, context, out),
        LocalKind::Quit => basic::quit(out),
        _ => {
            reply(kind, request, session, context, out);
            Outcome::Replied
        }
    };
    silence::apply(kind, before, session, (out, start), outcome)
}

/// The answers that are always made at once.
fn reply(
    kind: LocalKind,
    request: Request<'_>,
    session: &mut Session,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) {
    match kind {
        LocalKind::Ping => basic::ping(request, out),
        LocalKind::Echo => basic::echo(request, out),
        LocalKind::Select => basic::select(request, session, context, out),
        LocalKind::Reset => basic::reset(session, out),
        LocalKind::ReadOnly => basic::readonly(true, session, out),
        LocalKind::ReadWrite => basic::readonly(false, session, out),
        // Nothing to ask for: no slot ever migrates here.
        LocalKind::Asking => write::simple(out, "OK"),
        LocalKind::ConfigGet => write::map(out, session.protocol, 0),
        LocalKind::ClientId => client::id(session, out),
        LocalKind::ClientSetName => client::set_name(request, session, out),
        LocalKind::ClientGetName => client::get_name(session, out),
        LocalKind::ClientSetInfo => client::set_info(request, session, out),
        LocalKind::ClientInfo => client::info(session, context, out),
        LocalKind::ClientNoEvict => client::switch(request, &mut session.no_evict, out),
        LocalKind::ClientNoTouch => client::switch(request, &mut session.no_touch, out),
        LocalKind::ClientReply => client::reply(request, session, out),
        LocalKind::Command => {
            introspect::reply(context.table, request, session.protocol, out);
        }
        LocalKind::Info => info::info(request, session, context, out),
        LocalKind::ClusterSlots => cluster::slots(session, context, out),
        LocalKind::ClusterShards => cluster::shards(session, context, out),
        LocalKind::ClusterNodes => cluster::nodes(session, context, out),
        LocalKind::ClusterInfo => cluster::info(session, context, out),
        LocalKind::ClusterKeySlot => cluster::key_slot(request, out),
        LocalKind::ClusterMyId => write::bulk(out, context.asked().id),
        LocalKind::ClusterMyShardId => write::bulk(out, context.shard_id),
        LocalKind::ClusterNone => write::array(out, 0),
        LocalKind::ClusterReplicas => cluster::replicas(request, context, out),
        LocalKind::ClusterFailureReports => cluster::about_node(request, context, out, |out| {
            write::integer(out, 0);
        }),
        LocalKind::Role => basic::role(context, out),
        LocalKind::ClientCapa => write::simple(out, "OK"),
        LocalKind::ClientTracking => client::tracking(request, out),
        LocalKind::ClientTrackingInfo => client::tracking_info(session, out),
        LocalKind::ClientImportSource => client::import_source(request, out),
        LocalKind::ClientGetRedir => write::integer(out, -1),
        LocalKind::ClientCaching => write::error(
            out,
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
             or OPTOUT mode enabled",
        ),
        LocalKind::Auth | LocalKind::Hello | LocalKind::Quit => {
            debug_assert!(false, "answered by `answer`");
        }
    }
}

#[cfg(test)]
mod tests;
