//! `INFO`: sections and fields as the server names, orders and selects them.
//!
//! Only what the proxy knows is told. Of the server's sections those are missing that speak of a
//! node's inside (`TLS`, `CPU`, `Modules`, `Commandstats`, `Errorstats`...), and of the others the
//! fields that do. Memory, hits and keys are those of all primaries, added up a moment ago. `Keyway`
//! is a section of the proxy's own.

use std::fmt::Write as _;

use resp::{Request, write};

use super::{Context, Endpoint, Sums};
use crate::state::Session;

/// The version of Redis OSS that Valkey says it is compatible with, whatever its own version.
const REDIS_VERSION: &str = "7.2.4";

/// The sections, in the order they are printed. All of them are in the default output.
const SECTIONS: [Section; 9] = [
    Section {
        title: "Server",
        print: server,
    },
    Section {
        title: "Clients",
        print: clients,
    },
    Section {
        title: "Memory",
        print: memory,
    },
    Section {
        title: "Persistence",
        print: persistence,
    },
    Section {
        title: "Stats",
        print: stats,
    },
    Section {
        title: "Replication",
        print: replication,
    },
    Section {
        title: "Cluster",
        print: cluster,
    },
    // Before the keyspace: some read that to the end of the text.
    Section {
        title: "Keyway",
        print: keyway,
    },
    Section {
        title: "Keyspace",
        print: keyspace,
    },
];

struct Section {
    /// Its name is this in any case.
    title: &'static str,
    print: fn(&mut Lines, &Context<'_>),
}

/// Lines of `name:value`.
struct Lines(String);

impl Lines {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

/// `INFO [section...]`. Unknown sections are empty, and the order of the names does not matter.
pub(super) fn info(
    request: Request<'_>,
    session: &Session,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) {
    let everything = request.argc() == 1 || request.args().skip(1).any(is_everything);
    let mut lines = Lines(String::with_capacity(1024));
    for section in &SECTIONS {
        let named = |arg: &[u8]| arg.eq_ignore_ascii_case(section.title.as_bytes());
        if !everything && !request.args().skip(1).any(named) {
            continue;
        }
        if !lines.0.is_empty() {
            lines.0.push_str("\r\n");
        }
        let _ = write!(lines.0, "# {}\r\n", section.title);
        (section.print)(&mut lines, context);
    }
    write::verbatim(out, session.protocol, b"txt", lines.0);
}

fn is_everything(arg: &[u8]) -> bool {
    ["default", "all", "everything"]
        .iter()
        .any(|name| arg.eq_ignore_ascii_case(name.as_bytes()))
}

fn server(lines: &mut Lines, context: &Context<'_>) {
    const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
    let uptime = context.uptime.as_secs();
    lines.field("redis_version", REDIS_VERSION);
    lines.field("server_name", "valkey");
    lines.field("valkey_version", &context.facts.version);
    lines.field("server_mode", "cluster");
    lines.field("arch_bits", usize::BITS);
    lines.field("process_id", context.process_id);
    lines.field("run_id", context.run_id);
    lines.field("tcp_port", context.asked().endpoint.port);
    lines.field("server_time_usec", context.unix_ms.saturating_mul(1000));
    lines.field("uptime_in_seconds", uptime);
    lines.field("uptime_in_days", uptime / SECONDS_PER_DAY);
    // Clients that prefer their own zone look for it here.
    lines.field(
        "availability_zone",
        context.named_zone().unwrap_or_default(),
    );
}

fn clients(lines: &mut Lines, context: &Context<'_>) {
    lines.field("connected_clients", context.clients);
    lines.field("maxclients", context.clients_max);
    lines.field("blocked_clients", context.clients_blocked);
}

fn memory(lines: &mut Lines, context: &Context<'_>) {
    let sums = &context.facts.sums;
    let used = sums.fields.get("used_memory").copied().unwrap_or(0);
    lines.field("used_memory", used);
    lines.field("used_memory_human", Human(used));
    let others = sums.print(&Sums::MEMORY);
    for (name, sum) in others.filter(|(name, _)| *name != "used_memory") {
        lines.field(name, sum);
        lines.field(&format!("{name}_human"), Human(sum));
    }
}

/// Nothing is loaded or saved here, ever; clients wait for `loading:0`.
fn persistence(lines: &mut Lines, _: &Context<'_>) {
    for name in [
        "loading",
        "async_loading",
        "rdb_bgsave_in_progress",
        "aof_rewrite_in_progress",
    ] {
        lines.field(name, 0);
    }
}

fn stats(lines: &mut Lines, context: &Context<'_>) {
    lines.field("total_connections_received", context.connections_received);
    lines.field("total_commands_processed", context.commands_processed);
    for (name, sum) in context.facts.sums.print(&Sums::STATS) {
        lines.field(name, sum);
    }
}

fn replication(lines: &mut Lines, context: &Context<'_>) {
    if context.read_port {
        lines.field("role", "slave");
        lines.field("master_host", &context.endpoint.host);
        lines.field("master_port", context.endpoint.port);
        lines.field("master_link_status", "up");
        lines.field("master_sync_in_progress", 0);
        lines.field("slave_read_only", 1);
        lines.field("connected_slaves", 0);
        return;
    }
    lines.field("role", "master");
    lines.field("connected_slaves", context.replica.iter().len());
    if let Some((Endpoint { host, port }, _)) = context.replica {
        lines.field(
            "slave0",
            format_args!("ip={host},port={port},state=online,offset=0,lag=0"),
        );
    }
}

fn cluster(lines: &mut Lines, _: &Context<'_>) {
    lines.field("cluster_enabled", 1);
}

fn keyspace(lines: &mut Lines, context: &Context<'_>) {
    for (number, [keys, expires]) in &context.facts.sums.databases {
        lines.field(
            &format!("db{number}"),
            format_args!("keys={keys},expires={expires},avg_ttl=0"),
        );
    }
}

fn keyway(lines: &mut Lines, context: &Context<'_>) {
    lines.field("keyway_version", context.keyway_version);
    lines.field("keyway_used_memory", context.used_memory);
    lines.field("keyway_shards", context.facts.shards);
    lines.field("keyway_nodes", context.facts.nodes);
    lines.field("keyway_slots_covered", context.facts.slots_covered);
}

/// An amount of bytes as the server writes it for people: `512B`, `3.10M`.
struct Human(u64);

impl std::fmt::Display for Human {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
        if self.0 < 1024 {
            return write!(f, "{}B", self.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "two decimals are printed")]
        let mut amount = self.0 as f64 / 1024.0;
        let mut unit = "K";
        for larger in UNITS.iter().skip(1) {
            if amount < 1024.0 {
                break;
            }
            amount /= 1024.0;
            unit = larger;
        }
        write!(f, "{amount:.2}{unit}")
    }
}
