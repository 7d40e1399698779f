//! System calls per request on both sides of a proxy, counted by `perf stat`, and its connections to the
//! nodes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use keyway_bench::Stage;
use rustix::process::{Pid, Signal, kill_process};

use crate::findings::{Cell, Findings, Table};
use crate::ground::{DIRECT, Ground, Target};
use crate::sockets;
use crate::wish::Wish;

/// Calls that take from a socket, that give to one, and that wait for any.
const READS: [&str; 4] = ["read", "readv", "recvfrom", "recvmsg"];
const WRITES: [&str; 4] = ["write", "writev", "sendto", "sendmsg"];
const EPOLLS: [&str; 4] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl"];
/// perf says nothing when it has begun to count.
const PERF_STARTS: Duration = Duration::from_millis(500);
const LOADS: [(&str, &str); 3] = [
    ("50 clients, pipeline 1", "--clients 50"),
    ("50 clients, pipeline 16", "--clients 50 --pipeline 16"),
    ("500 clients, pipeline 1", "--clients 500"),
];
const REST: &str = "--mix get=1 --shared 0 --keys 20000 --warmup 300ms --duration 3s";

/// Calls while it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Calls {
    reads: f64,
    writes: f64,
    node_reads: f64,
    node_writes: f64,
    epolls: f64,
    all: f64,
}

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("syscalls") {
        return Ok(());
    }
    let field = ground.field()?;
    let mut targets = field.targets();
    targets.push(ground.direct());
    let mut table = Table {
        title:
            "System calls per request, GET 64 B (perf stat; '-' where perf may not count, or has \
                too many files to tell apart)"
                .into(),
        columns: vec![
            "load",
            "target",
            "client reads",
            "client writes",
            "node reads",
            "node writes",
            "epoll",
            "all",
            "connections to nodes",
        ],
        rows: Vec::new(),
    };
    let mut ports = ground.nodes.shard_ports();
    ports.push(ground.nodes.alone.port());
    for (title, clients) in LOADS {
        for target in &targets {
            wish.tell(&format!("system calls: {title}: {}", target.name));
            let arguments = format!("{clients} {REST}");
            let row = measure(ground, target, &arguments, &ports, findings)
                .with_context(|| format!("system calls: {title}: {}", target.name))?;
            table.rows.push([vec![title.into()], row].concat());
        }
    }
    findings.tables.push(table);
    Ok(())
}

fn measure(
    ground: &Ground,
    target: &Target,
    arguments: &str,
    ports: &[u16],
    findings: &mut Findings,
) -> Result<Vec<Cell>> {
    let output = ground.site().folder.join("perf-stat.csv");
    let (mut counting, mut calls) = (None, None);
    let mut nodes = Ok(Vec::new());
    let outcome =
        ground.run_watched(
            std::slice::from_ref(target),
            arguments,
            &mut |stage| match stage {
                Stage::Connected => {}
                Stage::Measuring => {
                    nodes = sockets::to_ports(target.pid, ports);
                    let files = nodes.as_deref().unwrap_or_default();
                    counting = count(target.pid, files, &output);
                }
                Stage::Measured => calls = counting.take().and_then(|perf| counted(perf, &output)),
            },
        )?;
    let failures = outcome.0.failures.iter();
    findings
        .failures
        .extend(failures.map(|failure| format!("system calls: {failure}")));
    let requests = outcome
        .target(&target.name)
        .map_or(0, |target| target.requests);
    let each = |count: fn(&Calls) -> f64| {
        let count = calls.as_ref().map(count);
        Cell::maybe(count.map(|count| count / requests as f64), 2)
    };
    let connections = nodes?.len().to_string();
    let shown = match target.name.as_str() {
        DIRECT => "-".to_owned(),
        _ => connections,
    };
    Ok(vec![
        target.name.as_str().into(),
        each(|calls| calls.reads - calls.node_reads),
        each(|calls| calls.writes - calls.node_writes),
        each(|calls| calls.node_reads),
        each(|calls| calls.node_writes),
        each(|calls| calls.epolls),
        each(|calls| calls.all),
        Cell::Text(shown),
    ])
}

/// Begins to count the calls of process `pid`, those on `files` apart.
fn count(pid: u32, files: &[u32], output: &Path) -> Option<Child> {
    let filter = files
        .iter()
        .map(|file| format!("fd=={file}"))
        .collect::<Vec<_>>()
        .join("||");
    let mut command = Command::new("perf");
    command.args(["stat", "-x,", "-o"]).arg(output);
    command.args(["-p", &pid.to_string(), "-e", "raw_syscalls:sys_enter"]);
    for call in [READS, WRITES, EPOLLS].concat() {
        command.args(["-e", &format!("syscalls:sys_enter_{call}")]);
    }
    if !files.is_empty() {
        for call in [READS, WRITES].concat() {
            command.args(["-e", &format!("syscalls:sys_enter_{call}")]);
            command.args(["--filter", &filter]);
        }
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    thread::sleep(PERF_STARTS);
    Some(child)
}

/// Ends the counting; `None` when perf could not.
fn counted(mut perf: Child, output: &Path) -> Option<Calls> {
    let pid = Pid::from_raw(i32::try_from(perf.id()).ok()?)?;
    // It has ended already where it may not count.
    let _ = kill_process(pid, Signal::INT);
    perf.wait().ok()?;
    calls(&std::fs::read_to_string(output).ok()?)
}

/// Out of `perf stat -x,`: the events in the order they were asked for, on both sides first.
fn calls(csv: &str) -> Option<Calls> {
    let mut counts = csv.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let count = fields.next()?;
        let event = fields.nth(1)?;
        event
            .contains("sys_enter")
            .then(|| count.parse::<f64>().ok())
    });
    let mut sum = |events: usize| -> Option<f64> {
        let mut sum = 0.0;
        for _ in 0..events {
            sum += counts.next()??;
        }
        Some(sum)
    };
    Some(Calls {
        all: sum(1)?,
        reads: sum(READS.len())?,
        writes: sum(WRITES.len())?,
        epolls: sum(EPOLLS.len())?,
        // Without connections to nodes they were not asked for.
        node_reads: sum(READS.len()).unwrap_or(0.0),
        node_writes: sum(WRITES.len()).unwrap_or(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(counts: impl IntoIterator<Item = String>) -> String {
        let line = |count: String| format!("{count},,syscalls:sys_enter_x,1000,100.00,,\n");
        let body: String = counts.into_iter().map(line).collect();
        format!("# started on a day\n\n{body}")
    }

    #[test]
    fn counts_are_taken_in_the_order_they_were_asked_for() {
        let both = csv((1..=21).map(|count| count.to_string()));
        let expected = Calls {
            all: 1.0,
            reads: f64::from(2 + 3 + 4 + 5),
            writes: f64::from(6 + 7 + 8 + 9),
            epolls: f64::from(10 + 11 + 12 + 13),
            node_reads: f64::from(14 + 15 + 16 + 17),
            node_writes: f64::from(18 + 19 + 20 + 21),
        };
        assert_eq!(calls(&both), Some(expected));
        let clients = csv((1..=13).map(|count| count.to_string()));
        let none = Calls {
            node_reads: 0.0,
            node_writes: 0.0,
            ..expected
        };
        assert_eq!(calls(&clients), Some(none));
    }

    #[test]
    fn what_was_not_counted_is_no_figure() {
        let refused = csv((0..13).map(|_| "<not supported>".to_owned()));
        assert_eq!(calls(&refused), None);
        assert_eq!(calls(""), None);
    }
}
