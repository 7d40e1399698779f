//! What becomes of a command: a closed list, and refused is whatever is not on it.

use resp::Request;

use crate::flags::{Flags, KeyFlags};
use crate::introspect::glob;
use crate::keys::{Args, streams_block};
use crate::spec::{BeginSearch, FindKeys};
use crate::table::{Command, Row};

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handling {
    /// One node, on a connection shared with others: exactly one reply, and nothing about the
    /// connection changes. By its keys; without any (`EVAL` with 0) any primary.
    Shared,
    /// As `Shared`, and it never has keys: any primary.
    AnyPrimary,
    /// The owner of the slot whose number is the argument behind the subcommand.
    BySlot,
    /// `CONFIG GET`: any primary, which is asked for [`probed`] alone.
    Probed,
    /// As `Shared` when all keys are in one slot; otherwise in parts.
    Split(SplitKind),
    /// Every shard; the replies are put together.
    FanOut(FanOut),
    /// Every node, replicas too; the replies are put together.
    EveryNode(FanOut),
    /// `SCAN`: one shard after the other, by the cursor.
    Scan,
    /// One node, on a connection that is the client's alone while it blocks.
    Blocking,
    /// `WAIT` and `WAITAOF`: every shard, each on such a connection.
    Wait,
    /// As `Shared`, in a transaction with a command whose keys a node looks for.
    Guarded,
    /// The session: it gathers commands, and sends them together.
    Transaction(TransactionKind),
    /// `SUBSCRIBE` and its like.
    Subscription(Subscription),
    /// Keyway itself, about the clients of all workers, if Valkey lets the user.
    Clients,
    /// Keyway itself.
    Local(LocalKind),
    /// Nobody.
    Refused(Refusal),
}

/// What messages can be subscribed to by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKind {
    /// `SUBSCRIBE`: a channel of the whole cluster.
    Channel,
    /// `PSUBSCRIBE`: all channels whose names match.
    Pattern,
    /// `SSUBSCRIBE`: a channel of one slot.
    Shard,
}

/// `SUBSCRIBE` and its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// What it is about.
    pub kind: TopicKind,
    /// To begin; otherwise to end.
    pub begin: bool,
}

/// How the replies of all shards become one. An error of any shard is the reply, but for
/// [`FanOut::OneSucceeds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FanOut {
    /// The sum of integers.
    Sum,
    /// Pairs of a name and an integer, as many from each shard: the sums.
    SumPairs,
    /// One of them, when all shards have succeeded.
    Same,
    /// An array of integers, each the least that a shard says.
    And,
    /// The least of integers.
    Min,
    /// One array of the elements of all.
    Concatenate,
    /// The same of arrays whose second element is when something was, the newest first.
    Newest,
    /// One array of the elements of all without repetitions.
    Union,
    /// A success, if there is one; otherwise the first error.
    OneSucceeds,
    /// One that is not null, by chance; null when all are.
    Random,
}

/// What a command about transactions does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionKind {
    /// `MULTI`
    Multi,
    /// `EXEC`
    Exec,
    /// `DISCARD`
    Discard,
    /// `WATCH key...`
    Watch,
    /// `UNWATCH`
    Unwatch,
}

/// How a command over several slots is cut and its replies are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SplitKind {
    /// `MGET`: an array in the order of the keys.
    Mget,
    /// `MSET`: a value behind every key; `OK` when all parts are.
    Mset,
    /// `DEL`, `UNLINK`, `EXISTS`, `TOUCH`: the sum.
    Sum,
}

/// What Keyway answers itself; one for each answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalKind {
    /// `PING [message]`
    Ping,
    /// `ECHO message`
    Echo,
    /// `HELLO [version [AUTH user password] [SETNAME name]]`
    Hello,
    /// `AUTH [user] password`
    Auth,
    /// `SELECT database`
    Select,
    /// `QUIT`
    Quit,
    /// `RESET`
    Reset,
    /// `CLIENT ID`
    ClientId,
    /// `CLIENT SETNAME name`
    ClientSetName,
    /// `CLIENT GETNAME`
    ClientGetName,
    /// `CLIENT SETINFO LIB-NAME|LIB-VER value`
    ClientSetInfo,
    /// `CLIENT INFO`
    ClientInfo,
    /// `CLIENT NO-EVICT ON|OFF`
    ClientNoEvict,
    /// `CLIENT NO-TOUCH ON|OFF`
    ClientNoTouch,
    /// `CLIENT REPLY ON|OFF|SKIP`
    ClientReply,
    /// `COMMAND` and every subcommand of it: [`introspect::reply`](crate::introspect::reply)
    Command,
    /// `CONFIG GET pattern...`: clients ask while they connect, and an empty answer suits them.
    ConfigGet,
    /// `INFO [section...]`
    Info,
    /// `READONLY`
    ReadOnly,
    /// `READWRITE`
    ReadWrite,
    /// `ASKING`
    Asking,
    /// `CLUSTER SLOTS`
    ClusterSlots,
    /// `CLUSTER SHARDS`
    ClusterShards,
    /// `CLUSTER NODES`
    ClusterNodes,
    /// `CLUSTER INFO`
    ClusterInfo,
    /// `CLUSTER KEYSLOT key`
    ClusterKeySlot,
    /// `CLUSTER MYID`
    ClusterMyId,
    /// `CLUSTER MYSHARDID`
    ClusterMyShardId,
    /// `CLUSTER LINKS` and `CLUSTER GETSLOTMIGRATIONS`: there are none.
    ClusterNone,
    /// `CLUSTER REPLICAS id` and `CLUSTER SLAVES id`
    ClusterReplicas,
    /// `CLUSTER COUNT-FAILURE-REPORTS id`
    ClusterFailureReports,
    /// `ROLE`
    Role,
    /// `CLIENT CAPA capability...`
    ClientCapa,
    /// `CLIENT TRACKING OFF`; `ON` is refused.
    ClientTracking,
    /// `CLIENT TRACKINGINFO`
    ClientTrackingInfo,
    /// `CLIENT GETREDIR`
    ClientGetRedir,
    /// `CLIENT CACHING YES|NO`
    ClientCaching,
    /// `CLIENT IMPORT-SOURCE ON|OFF`: as where nothing is imported.
    ClientImportSource,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It would harm the cluster, other clients, or show what is not the client's to see.
    Harmful,
    /// Nothing speaks against it, but Keyway cannot do it yet.
    NotBuilt(NotBuilt),
}

/// What a refused command would need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotBuilt {
    /// A node's connection to itself while it blocks.
    Lease,
    /// Something else; also every command that Keyway knows nothing about but its name.
    Other,
}

impl Refusal {
    /// The error line without `-` and CRLF; it names the command.
    #[must_use]
    pub fn reply(self, command: &Command) -> String {
        let name = command.name();
        match self {
            Self::Harmful => format!("ERR command '{name}' is not allowed through Keyway"),
            Self::NotBuilt(_) => format!("ERR command '{name}' is not supported by Keyway yet"),
        }
    }
}

impl Command {
    /// Who answers this request of this command.
    #[inline]
    #[must_use]
    pub fn handling(&self, request: Request<'_>) -> Handling {
        match self.disposition() {
            Disposition::Always(handling) => handling,
            Disposition::ConfigGet if probed(request).is_empty() => {
                Handling::Local(LocalKind::ConfigGet)
            }
            Disposition::ConfigGet => Handling::Probed,
            Disposition::Script => Handling::Shared,
            Disposition::Streams if streams_block(Args::behind(request, 0)) => Handling::Blocking,
            Disposition::Streams => Handling::Shared,
        }
    }

    /// Whether this request may keep its connection waiting: `BLPOP` always may, `XREAD` with
    /// `BLOCK`.
    #[must_use]
    pub fn blocks(&self, request: Request<'_>) -> bool {
        self.flags().contains(Flags::BLOCKING)
            && (!self.blocks_by_option() || streams_block(Args::behind(request, 0)))
    }

    fn blocks_by_option(&self) -> bool {
        self.disposition() == Disposition::Streams
    }
}

/// What is known of a command's handling before there is a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Every request of it alike.
    Always(Handling),
    /// Shared; but its reply may be any text, so that a redirect must be confirmed.
    Script,
    /// `XREAD`, `XREADGROUP`: shared unless it blocks.
    Streams,
    /// `CONFIG GET`: from a node what clients probe for; nothing else is shown.
    ConfigGet,
}

impl Disposition {
    pub(crate) fn is_script(self) -> bool {
        self == Self::Script
    }

    /// By name what the tables below name; by its keys and flags a command that has keys; refused
    /// everything else.
    pub(crate) fn of(row: &Row) -> Self {
        match row.name.as_ref() {
            "eval" | "eval_ro" | "evalsha" | "evalsha_ro" | "fcall" | "fcall_ro" => Self::Script,
            "xread" | "xreadgroup" => Self::Streams,
            "config|get" => Self::ConfigGet,
            "client|kill" | "client|list" | "client|pause" | "client|unblock"
            | "client|unpause" | "keyway|bigkeys" | "keyway|help" | "keyway|hotkeys"
            | "keyway|hotslots" | "keyway|slowlog" => Self::Always(Handling::Clients),
            "wait" | "waitaof" => Self::Always(Handling::Wait),
            // Valkey 9.1.2 does not see the keys of MSETEX when it looks for the slot: no MOVED, no
            // CROSSSLOT, and a node that does not own the slot writes there and says 1.
            "msetex" => Self::Always(Handling::Guarded),
            name => Self::Always(
                local(name)
                    .map(Handling::Local)
                    .or_else(|| split(name).map(Handling::Split))
                    .or_else(|| transaction(name).map(Handling::Transaction))
                    .or_else(|| subscription(name).map(Handling::Subscription))
                    .or_else(|| fan_out(name))
                    .or_else(|| by_slot(name).then_some(Handling::BySlot))
                    .or_else(|| BLOCKING.contains(&name).then_some(Handling::Blocking))
                    .or_else(|| refused(name).map(Handling::Refused))
                    .unwrap_or_else(|| by_flags(row)),
            ),
        }
    }
}

fn by_flags(row: &Row) -> Handling {
    if any_primary(&row.name) {
        return Handling::AnyPrimary;
    }
    if row.flags.contains(Flags::BLOCKING) {
        return Handling::Refused(Refusal::NotBuilt(NotBuilt::Lease));
    }
    // A command with one of these has to do with its connection, with other nodes, or with the
    // server itself. (SPUBLISH has not: its one reply is a number.)
    let peculiar = Flags::ADMIN
        .with(Flags::ASKING)
        .with(Flags::NO_AUTH)
        .with(Flags::NO_MULTI)
        .with(Flags::NOSCRIPT)
        .with(Flags::PUBSUB);
    let plain = !row.flags.intersects(peculiar) || *row.name == *"spublish";
    if plain && keys_are_known(row) {
        Handling::Shared
    } else {
        Handling::Refused(Refusal::NotBuilt(NotBuilt::Other))
    }
}

/// Every key can be found: by specs alone, or with a function of ours.
pub(crate) fn keys_are_known(row: &Row) -> bool {
    let complete = row.key_specs.iter().all(|spec| {
        spec.begin != BeginSearch::Unknown
            && spec.find != FindKeys::Unknown
            && !spec.flags.contains(KeyFlags::INCOMPLETE)
    });
    !row.key_specs.is_empty() && (complete || crate::keys::by_hand(row).is_some())
}

fn any_primary(name: &str) -> bool {
    name.ends_with("|help")
        || [
            "acl|cat",
            "acl|dryrun",
            "acl|genpass",
            "acl|whoami",
            "function|dump",
            "function|list",
            "function|stats",
            "lastsave",
            "latency|doctor",
            "latency|graph",
            "latency|histogram",
            "latency|history",
            "lolwut",
            "memory|doctor",
            "memory|malloc-stats",
            "memory|stats",
            "module|list",
            "publish",
            "script|show",
            "time",
        ]
        .contains(&name)
}

fn split(name: &str) -> Option<SplitKind> {
    match name {
        "mget" => Some(SplitKind::Mget),
        "mset" => Some(SplitKind::Mset),
        "del" | "exists" | "touch" | "unlink" => Some(SplitKind::Sum),
        _ => None,
    }
}

fn transaction(name: &str) -> Option<TransactionKind> {
    Some(match name {
        "multi" => TransactionKind::Multi,
        "exec" => TransactionKind::Exec,
        "discard" => TransactionKind::Discard,
        "watch" => TransactionKind::Watch,
        "unwatch" => TransactionKind::Unwatch,
        _ => return None,
    })
}

fn by_slot(name: &str) -> bool {
    ["cluster|countkeysinslot", "cluster|getkeysinslot"].contains(&name)
}

/// Parameters that clients and tools ask for to know how they may speak; none of them tells where
/// the nodes are or how they are protected.
const PROBED: [&str; 27] = [
    "appendonly",
    "busy-reply-threshold",
    "cluster-databases",
    "cluster-require-full-coverage",
    "databases",
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "list-compress-depth",
    "list-max-listpack-size",
    "lua-time-limit",
    "maxmemory",
    "maxmemory-policy",
    "maxmemory-samples",
    "notify-keyspace-events",
    "proto-max-bulk-len",
    "replica-read-only",
    "save",
    "set-max-intset-entries",
    "set-max-listpack-entries",
    "set-max-listpack-value",
    "slowlog-log-slower-than",
    "slowlog-max-len",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "timeout",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
];

/// The parameters that a `CONFIG GET` may see, of those that it asks for.
#[must_use]
pub fn probed(request: Request<'_>) -> Vec<&'static str> {
    let asked = |name: &str| {
        let mut patterns = request.args().skip(2);
        patterns.any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let names = PROBED.iter().copied();
    names.filter(|name| asked(name)).collect()
}

fn subscription(name: &str) -> Option<Subscription> {
    let (kind, begin) = match name {
        "subscribe" => (TopicKind::Channel, true),
        "unsubscribe" => (TopicKind::Channel, false),
        "psubscribe" => (TopicKind::Pattern, true),
        "punsubscribe" => (TopicKind::Pattern, false),
        "ssubscribe" => (TopicKind::Shard, true),
        "sunsubscribe" => (TopicKind::Shard, false),
        _ => return None,
    };
    Some(Subscription { kind, begin })
}

/// As the table's response policies have it; where it has none, what makes sense.
fn fan_out(name: &str) -> Option<Handling> {
    Some(Handling::FanOut(match name {
        "scan" => return Some(Handling::Scan),
        // Replicas have commands of their own that took long.
        "commandlog|get" | "slowlog|get" => return Some(Handling::EveryNode(FanOut::Newest)),
        "commandlog|len" | "slowlog|len" => return Some(Handling::EveryNode(FanOut::Sum)),
        "commandlog|reset" | "slowlog|reset" => return Some(Handling::EveryNode(FanOut::Same)),
        "dbsize" | "latency|reset" | "pubsub|numpat" => FanOut::Sum,
        "pubsub|numsub" | "pubsub|shardnumsub" => FanOut::SumPairs,
        "pubsub|channels" | "pubsub|shardchannels" => FanOut::Union,
        "flushall" | "flushdb" | "function|delete" | "function|flush" | "function|load"
        | "function|restore" | "memory|purge" | "script|flush" | "script|load" => FanOut::Same,
        "script|exists" => FanOut::And,
        "cluster|slot-stats" | "keys" | "latency|latest" => FanOut::Concatenate,
        "function|kill" | "script|kill" => FanOut::OneSucceeds,
        "randomkey" => FanOut::Random,
        _ => return None,
    }))
}

/// They wait for others, and end by themselves or by a client's doing.
const BLOCKING: &[&str] = &[
    "blmove",
    "blmpop",
    "blpop",
    "brpop",
    "brpoplpush",
    "bzmpop",
    "bzpopmax",
    "bzpopmin",
];

fn local(name: &str) -> Option<LocalKind> {
    Some(match name {
        "ping" => LocalKind::Ping,
        "echo" => LocalKind::Echo,
        "hello" => LocalKind::Hello,
        "auth" => LocalKind::Auth,
        "select" => LocalKind::Select,
        "quit" => LocalKind::Quit,
        "reset" => LocalKind::Reset,
        "client|id" => LocalKind::ClientId,
        "client|setname" => LocalKind::ClientSetName,
        "client|getname" => LocalKind::ClientGetName,
        "client|setinfo" => LocalKind::ClientSetInfo,
        "client|info" => LocalKind::ClientInfo,
        "client|no-evict" => LocalKind::ClientNoEvict,
        "client|no-touch" => LocalKind::ClientNoTouch,
        "client|reply" => LocalKind::ClientReply,
        "command"
        | "command|count"
        | "command|docs"
        | "command|getkeys"
        | "command|getkeysandflags"
        | "command|help"
        | "command|info"
        | "command|list" => LocalKind::Command,
        "info" => LocalKind::Info,
        "readonly" => LocalKind::ReadOnly,
        "readwrite" => LocalKind::ReadWrite,
        "asking" => LocalKind::Asking,
        "cluster|slots" => LocalKind::ClusterSlots,
        "cluster|shards" => LocalKind::ClusterShards,
        "cluster|nodes" => LocalKind::ClusterNodes,
        "cluster|info" => LocalKind::ClusterInfo,
        "cluster|keyslot" => LocalKind::ClusterKeySlot,
        "cluster|myid" => LocalKind::ClusterMyId,
        "cluster|myshardid" => LocalKind::ClusterMyShardId,
        "cluster|links" | "cluster|getslotmigrations" => LocalKind::ClusterNone,
        "cluster|replicas" | "cluster|slaves" => LocalKind::ClusterReplicas,
        "cluster|count-failure-reports" => LocalKind::ClusterFailureReports,
        "role" => LocalKind::Role,
        "client|capa" => LocalKind::ClientCapa,
        "client|tracking" => LocalKind::ClientTracking,
        "client|trackinginfo" => LocalKind::ClientTrackingInfo,
        "client|getredir" => LocalKind::ClientGetRedir,
        "client|caching" => LocalKind::ClientCaching,
        "client|import-source" => LocalKind::ClientImportSource,
        _ => return None,
    })
}

fn refused(name: &str) -> Option<Refusal> {
    HARMFUL.contains(&name).then_some(Refusal::Harmful)
}

/// They change the server or the cluster rather than data, stop it, dump it to whoever asks, or
/// reach into connections that are not the client's.
const HARMFUL: &[&str] = &[
    "acl|deluser",
    "acl|getuser",
    "acl|list",
    "acl|load",
    "acl|log",
    "acl|save",
    "acl|setuser",
    "acl|users",
    "bgrewriteaof",
    "bgsave",
    "cluster|addslots",
    "cluster|addslotsrange",
    "cluster|bumpepoch",
    "cluster|cancelslotmigrations",
    "cluster|delslots",
    "cluster|delslotsrange",
    "cluster|failover",
    "cluster|flushslot",
    "cluster|flushslots",
    "cluster|forget",
    "cluster|meet",
    "cluster|migrateslots",
    "cluster|replicate",
    "cluster|reset",
    "cluster|saveconfig",
    "cluster|set-config-epoch",
    "cluster|setslot",
    "cluster|syncslots",
    "config|resetstat",
    "config|rewrite",
    "config|set",
    "debug",
    "failover",
    "migrate",
    "module|load",
    "module|loadex",
    "module|unload",
    "monitor",
    "pfdebug",
    "pfselftest",
    "psync",
    "replconf",
    "replicaof",
    "restore-asking",
    "save",
    "script|debug",
    "shutdown",
    "slaveof",
    "swapdb",
    "sync",
];

#[cfg(test)]
mod tests;
