//! What an idle client keeps: resident memory of a fresh process, by the number of its clients.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keyway_bench::Stage;

use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{DIRECT, ENVOY, Ground, HAPROXY, KEYWAY, Target};
use crate::nodes::Node;
use crate::proxies::Proxy;
use crate::wish::Wish;

/// Idle clients.
const CLIENTS: [u32; 2] = [2_000, 10_000];
/// HAProxy needs two files for each; this fits a limit of 20,000.
const HAPROXY_CLIENTS_MAX: u32 = 9_900;
/// Where the bound is.
const BOUND_CLIENTS: u32 = 10_000;
/// KiB of a client, before and after a burst.
const BOUND: Bound = Bound::at_most(12.0, 8.0);
/// What all clients do between the two looks.
const BURST: &str = "--no-fill --shared 0 --keys 20000 --mix get=50,set=50 --value-bytes 1024 \
                     --pipeline 16 --warmup 0s --duration 4s";
/// Memory has settled when it did not shrink for so long,
const SETTLED: Duration = Duration::from_secs(3);
/// or after this.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

/// KiB of one client.
#[derive(Clone, Copy, Debug)]
struct Kept {
    idle: f64,
    after_burst: f64,
}

/// A process that nobody has used yet.
enum Fresh {
    Proxy(Proxy),
    Node(Node),
}

impl Fresh {
    fn start(ground: &Ground, name: &str) -> Result<Self> {
        Ok(match name {
            KEYWAY => Self::Proxy(ground.keyway()?),
            ENVOY => Self::Proxy(ground.envoy()?),
            HAPROXY => Self::Proxy(ground.haproxy()?),
            _ => Self::Node(ground.fresh_node()?),
        })
    }

    fn target(&self, name: &str) -> Target {
        match self {
            Self::Proxy(proxy) => Target::of(name, proxy),
            Self::Node(node) => Target {
                name: name.to_owned(),
                port: node.tls_port(),
                pid: node.pid(),
                clients: None,
            },
        }
    }
}

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("memory") {
        return Ok(());
    }
    let mut table = Table {
        title:
            "Resident memory of an idle TLS client, KiB above the empty process: idle / after a \
                burst (HAProxy's 10,000 are 9,900: it needs two files for each)"
                .into(),
        columns: vec!["clients", KEYWAY, ENVOY, HAPROXY, DIRECT],
        rows: Vec::new(),
    };
    for clients in CLIENTS {
        let mut row = vec![Cell::Text(clients.to_string())];
        for name in [KEYWAY, ENVOY, HAPROXY, DIRECT] {
            wish.tell(&format!("memory of {clients} clients: {name}"));
            let kept = measure(ground, name, clients, findings)
                .with_context(|| format!("memory of {clients} clients: {name}"))?;
            let shown = format!("{:.1} / {:.1}", kept.idle, kept.after_burst);
            row.push(Cell::Text(shown));
            if name == KEYWAY && clients == BOUND_CLIENTS {
                let mut push = |what: &str, got| {
                    let name = format!("KiB of an idle client of {clients}, {what}");
                    findings.checks.push(Check::new(name, BOUND, Some(got)));
                };
                push("before a burst", kept.idle);
                push("after a burst", kept.after_burst);
            }
        }
        table.rows.push(row);
    }
    findings.tables.push(table);
    Ok(())
}

fn measure(ground: &Ground, name: &str, clients: u32, findings: &mut Findings) -> Result<Kept> {
    let clients = match name {
        HAPROXY => clients.min(HAPROXY_CLIENTS_MAX),
        _ => clients,
    };
    let fresh = Fresh::start(ground, name)?;
    let target = fresh.target(name);
    let pid = target.pid;
    let empty = resident_kib(pid)?;
    let (mut idle, mut after) = (Ok(empty), Ok(empty));
    let arguments = format!("--clients {clients} {BURST}");
    let outcome = ground.run_watched(&[target], &arguments, &mut |stage| match stage {
        Stage::Connected => idle = resident_kib(pid),
        Stage::Measuring => {}
        Stage::Measured => after = settled_kib(pid),
    })?;
    let failures = outcome.0.failures.iter();
    findings
        .failures
        .extend(failures.map(|failure| format!("memory of {clients} clients: {failure}")));
    let of_one = |kib: f64| (kib - empty) / f64::from(clients);
    Ok(Kept {
        idle: of_one(idle?),
        after_burst: of_one(after?),
    })
}

/// What is resident once nothing more is given back.
fn settled_kib(pid: u32) -> Result<f64> {
    let end = Instant::now() + SETTLE_LIMIT;
    let mut least = resident_kib(pid)?;
    let mut since = Instant::now();
    while since.elapsed() < SETTLED && Instant::now() < end {
        thread::sleep(Duration::from_millis(250));
        let now = resident_kib(pid)?;
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    resident_kib(pid)
}

/// The process's resident memory.
pub(crate) fn resident_kib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    kib(&status).with_context(|| format!("{path} has no VmRSS"))
}

fn kib(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read() {
        let status = "Name:\tx\nVmHWM:\t   99 kB\nVmRSS:\t   4711 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(kib(status), Some(4711.0));
        assert_eq!(kib("Name:\tx\n"), None);
        assert!(resident_kib(std::process::id()).expect("/proc") > 100.0);
    }
}
