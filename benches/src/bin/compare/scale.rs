//! What a request costs as clients, shards and workers grow in number: several of ours in one duel.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{CPU, Ground, Outcome, THROUGHPUT, Target};
use crate::process::Process;
use crate::proxies::{self, Proxy};
use crate::wish::Wish;

/// Clients of one Keyway each; all together fit a limit of 20,000 open files.
const CLIENTS: [u32; 7] = [10, 50, 100, 500, 1_000, 5_000, 10_000];
/// Shards of a simulated cluster each.
const SHARDS: [u32; 5] = [1, 3, 10, 25, 50];
/// Clients of each of those.
const SHARDS_CLIENTS: u32 = 500;
/// What a request of one among 5,000 clients costs, by one among 500.
const BOUND: Bound = Bound::no_more_than(1.3);
const BOUND_CLIENTS: (u32, u32) = (5_000, 500);
/// Workers of one Keyway each, on all cores.
const WORKERS: [u32; 2] = [1, 2];
/// Clients of each worker: what one collects for a write to a node, and so the cost of a request,
/// depends on its own clients, not on how many workers there are.
const WORKERS_CLIENTS: u32 = 250;
/// What a request costs with two workers, by one with one: they share nothing.
const WORKERS_BOUND: Bound = Bound::no_more_than(1.15);

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if !wish.quick && wish.wants("scale-clients") {
        wish.tell("clients from 10 to 10,000");
        clients(ground, wish, findings).context("clients from 10 to 10,000")?;
    }
    if !wish.quick && wish.wants("scale-shards") {
        wish.tell("shards from 1 to 50");
        shards(ground, wish, findings).context("shards from 1 to 50")?;
    }
    if !wish.quick && wish.wants("scale-workers") {
        wish.tell("one worker and two");
        workers(ground, wish, findings).context("one worker and two")?;
    }
    Ok(())
}

fn arguments(wish: &Wish) -> String {
    format!(
        "--mix get=1 --shared 0 --keys 20000 --warmup 400ms --turn 250ms --duration {}ms",
        wish.rotations * 250
    )
}

fn clients(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    let mut proxies = Vec::new();
    let mut targets = Vec::new();
    for clients in CLIENTS {
        let proxy = ground.keyway()?;
        targets.push(Target {
            clients: Some(clients),
            ..Target::of(&clients.to_string(), &proxy)
        });
        proxies.push(proxy);
    }
    let outcome = ground.run(&targets, &arguments(wish))?;
    let first = BOUND_CLIENTS.1;
    findings.tables.push(table(
        "GET 64 B, pipeline 1, three shards: one Keyway for each number of clients",
        ["clients", "CPU us/request", "by that of 500", "requests /s"],
        &CLIENTS,
        first,
        &outcome,
    ));
    note_failures("clients", &outcome, findings);
    let (many, few) = BOUND_CLIENTS;
    let ratio = outcome.ratio(&many.to_string(), &few.to_string(), CPU);
    let name = format!("CPU with {many} clients / with {few}");
    let ratio = ratio.map(|ratio| ratio.median);
    findings.checks.push(Check::new(name, BOUND, ratio));
    Ok(())
}

fn shards(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    let mut running: Vec<(Process, Proxy)> = Vec::new();
    let mut targets = Vec::new();
    for shards in SHARDS {
        let (simulator, seed) = simulator(ground, shards)?;
        let name = format!("keyway-{shards}");
        let proxy = proxies::keyway(&ground.site(), &name, seed)?;
        targets.push(Target::of(&shards.to_string(), &proxy));
        running.push((simulator, proxy));
    }
    let arguments = format!("--clients {SHARDS_CLIENTS} {}", arguments(wish));
    let outcome = ground.run(&targets, &arguments)?;
    findings.tables.push(table(
        "GET 64 B, 500 clients, pipeline 1: one Keyway for each number of shards of cluster-sim (which is \
         one process: it, not Keyway, limits the rate)",
        ["shards", "CPU us/request", "by that of 3", "requests /s"],
        &SHARDS,
        3,
        &outcome,
    ));
    note_failures("shards", &outcome, findings);
    Ok(())
}

fn workers(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    let seed = ground.nodes.shard_ports().first().copied().unwrap_or(0);
    let site = ground.site();
    let mut proxies = Vec::new();
    let mut targets = Vec::new();
    for workers in WORKERS {
        let name = format!("keyway-of-{workers}");
        let proxy = proxies::keyway_of(&site, &name, seed, (workers, site.cores.all()), "")?;
        targets.push(Target {
            clients: Some(WORKERS_CLIENTS * workers),
            ..Target::of(&workers.to_string(), &proxy)
        });
        proxies.push(proxy);
    }
    let outcome = ground.run(&targets, &arguments(wish))?;
    findings.tables.push(table(
        "GET 64 B, 250 clients for each worker, pipeline 1, three shards: one Keyway for each number of workers, \
         on all cores",
        ["workers", "CPU us/request", "by that of 1", "requests /s"],
        &WORKERS,
        1,
        &outcome,
    ));
    note_failures("workers", &outcome, findings);
    let ratio = outcome.ratio("2", "1", CPU).map(|ratio| ratio.median);
    findings.checks.push(Check::new(
        "CPU with 2 workers / with 1",
        WORKERS_BOUND,
        ratio,
    ));
    Ok(())
}

/// A simulated cluster, and the port of its first node.
fn simulator(ground: &Ground, shards: u32) -> Result<(Process, u16)> {
    let program: PathBuf = std::env::var_os("KEYWAY_CLUSTER_SIM")
        .context("KEYWAY_CLUSTER_SIM is not set: start this by benches/compare")?
        .into();
    let arguments: Vec<String> = format!("--shards {shards} --replicas 0 --port 0")
        .split(' ')
        .map(str::to_owned)
        .collect();
    let site = ground.site();
    let name = format!("cluster-sim-{shards}");
    let mut process = Process::start(&name, site.cores.all(), &program, &arguments, site.folder)?;
    let log = process.log_path();
    let mut port = None;
    process.wait("its addresses", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let complete = u32::try_from(log.lines().count()).is_ok_and(|lines| lines >= shards);
        let first = log.lines().next().filter(|_| complete);
        port = first.and_then(|line| line.trim().rsplit_once(':')?.1.parse().ok());
        port.is_some()
    })?;
    Ok((process, port.unwrap_or(0)))
}

fn table(
    title: &str,
    columns: [&'static str; 4],
    sizes: &[u32],
    first: u32,
    outcome: &Outcome,
) -> Table {
    let row = |size: &u32| {
        let name = size.to_string();
        vec![
            Cell::Text(name.clone()),
            Cell::maybe(outcome.median(&name, CPU), 2),
            Cell::Ratio(outcome.ratio(&name, &first.to_string(), CPU)),
            Cell::maybe(outcome.median(&name, THROUGHPUT), 0),
        ]
    };
    Table {
        title: title.to_owned(),
        columns: columns.into(),
        rows: sizes.iter().map(row).collect(),
    }
}

fn note_failures(what: &str, outcome: &Outcome, findings: &mut Findings) {
    let failures = outcome.0.failures.iter();
    findings
        .failures
        .extend(failures.map(|failure| format!("{what}: {failure}")));
}
