//! The duel: all targets under one load in turns, for each kind of load.

use anyhow::{Context, Result};
use keyway_bench::stats::Quartiles;

use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{
    CPU, DIRECT, ENVOY, Field, Ground, HAPROXY, KEYWAY, NODES_CPU, Outcome, THROUGHPUT,
};
use crate::sockets;
use crate::wish::Wish;

/// One turn of one target.
const TURN_MS: u32 = 250;

/// A kind of load, and what must hold under it.
struct Case {
    name: &'static str,
    title: &'static str,
    /// As the generator takes them.
    arguments: &'static str,
    /// A second node's worth of connections does not fit the usual limit of open files.
    direct: bool,
    bounds: Option<Bounds>,
}

struct Bounds {
    envoy: Bound,
    haproxy: Bound,
    throughput: Option<Bound>,
}

const fn bounds(envoy: (f64, f64), haproxy: (f64, f64), throughput: Option<f64>) -> Option<Bounds> {
    Some(Bounds {
        envoy: Bound::at_most(envoy.0, envoy.1),
        haproxy: Bound::at_most(haproxy.0, haproxy.1),
        throughput: match throughput {
            Some(least) => Some(Bound::at_least(least)),
            None => None,
        },
    })
}

const CASES: [Case; 9] = [
    Case {
        name: "get-50",
        title: "GET 64 B, 50 clients, pipeline 1",
        arguments: "--clients 50 --mix get=1",
        direct: true,
        bounds: bounds((0.75, 0.55), (0.85, 0.65), Some(1.2)),
    },
    Case {
        name: "get-50-p16",
        title: "GET 64 B, 50 clients, pipeline 16",
        arguments: "--clients 50 --pipeline 16 --mix get=1",
        direct: true,
        bounds: bounds((0.38, 0.25), (1.0, 0.75), Some(2.0)),
    },
    Case {
        name: "get-500",
        title: "GET 64 B, 500 clients, pipeline 1",
        arguments: "--clients 500 --mix get=1",
        direct: true,
        bounds: bounds((0.58, 0.42), (0.50, 0.35), Some(1.2)),
    },
    Case {
        name: "set-1k",
        title: "SET 1 KiB, 50 clients",
        arguments: "--clients 50 --mix set=1 --value-bytes 1024",
        direct: true,
        bounds: bounds((0.85, 0.65), (0.95, 0.70), None),
    },
    Case {
        name: "get-16k",
        title: "GET 16 KiB, 50 clients",
        arguments: "--clients 50 --mix get=1 --value-bytes 16384 --keys 4000",
        direct: true,
        bounds: bounds((0.75, 0.55), (0.85, 0.60), None),
    },
    Case {
        name: "mget-10",
        title: "MGET of 10 over three shards, 50 clients",
        arguments: "--clients 50 --mix mget=1 --multi-keys 10",
        direct: true,
        bounds: bounds((0.55, 0.40), (1.1, 0.85), None),
    },
    Case {
        name: "get-1",
        title: "GET 64 B, 1 client, one at a time",
        arguments: "--clients 1 --mix get=1 --keys 4000",
        direct: true,
        bounds: bounds((0.85, 0.70), (1.0, 0.90), None),
    },
    Case {
        name: "mix-80-20",
        title: "80 % GET, 20 % SET, 64 to 1024 B, zipfian keys, 50 clients",
        arguments: "--clients 50 --mix get=80,set=20 --distribution zipf --value-bytes 64..1024",
        direct: true,
        bounds: None,
    },
    Case {
        name: "get-5000",
        title: "GET 64 B, 5,000 clients, pipeline 1",
        arguments: "--clients 5000 --mix get=1",
        direct: false,
        bounds: None,
    },
];

/// Runs every case that is wanted.
pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    let wanted = |case: &&Case| wish.wants(case.name) && (case.bounds.is_some() || !wish.quick);
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let field = ground.field()?;
    let mut cpu = Table {
        title: "CPU of the process that clients talk to, microseconds per request (medians), and \
                paired ratios with quartiles"
            .into(),
        columns: vec![
            "load",
            "keyway",
            "envoy",
            "haproxy, blind",
            "direct",
            "keyway/envoy",
            "keyway/haproxy",
            "keyway/direct",
        ],
        rows: Vec::new(),
    };
    let mut speed = Table {
        title: "The same runs, saturated: requests a second (medians of the turns), milliseconds, \
                and CPU of the nodes behind per request"
            .into(),
        columns: vec![
            "load",
            "keyway /s",
            "envoy /s",
            "haproxy /s",
            "direct /s",
            "keyway/envoy",
            "keyway p50, p99",
            "envoy p50, p99",
            "nodes: keyway",
            "envoy",
            "direct",
        ],
        rows: Vec::new(),
    };
    let ports = ground.nodes.shard_ports();
    let mut connections = 0;
    for case in cases {
        wish.tell(case.title);
        let outcome = measure(ground, &field, wish, case).with_context(|| case.title.to_owned())?;
        cpu.rows.push(cpu_row(case, &outcome));
        speed.rows.push(speed_row(case, &outcome));
        check(case, &outcome, findings);
        connections = connections.max(sockets::to_ports(field.keyway.pid(), &ports)?.len());
    }
    findings.checks.push(Check::new(
        "most connections to the three nodes, under any of these loads",
        Bound::no_more_than(3.0),
        u32::try_from(connections).ok().map(f64::from),
    ));
    findings.tables.extend([cpu, speed]);
    Ok(())
}

fn measure(ground: &Ground, field: &Field, wish: &Wish, case: &Case) -> Result<Outcome> {
    let mut targets = field.targets();
    // In a quick run the node itself has no turn: no bound is about it.
    if case.direct && !wish.quick {
        targets.push(ground.direct());
    }
    let arguments = format!(
        "--shared 0 --keys 20000 --warmup {}ms --turn {TURN_MS}ms --duration {}ms {}",
        if wish.quick { 100 } else { 400 },
        wish.rotations * TURN_MS,
        case.arguments
    );
    ground.run(&targets, &arguments)
}

fn cpu_row(case: &Case, outcome: &Outcome) -> Vec<Cell> {
    let cpu = |name| Cell::maybe(outcome.median(name, CPU), 2);
    let by = |name| Cell::Ratio(outcome.ratio(KEYWAY, name, CPU));
    vec![
        case.title.into(),
        cpu(KEYWAY),
        cpu(ENVOY),
        cpu(HAPROXY),
        cpu(DIRECT),
        by(ENVOY),
        by(HAPROXY),
        by(DIRECT),
    ]
}

fn speed_row(case: &Case, outcome: &Outcome) -> Vec<Cell> {
    let rate = |name| Cell::maybe(outcome.median(name, THROUGHPUT), 0);
    let nodes = |name| Cell::maybe(outcome.median(name, NODES_CPU), 2);
    let latency = |name| {
        let ms = outcome.target(name).map(|target| {
            let latency = target.latency_us;
            format!("{:.2}, {:.2}", latency.p50 / 1000.0, latency.p99 / 1000.0)
        });
        Cell::Text(ms.unwrap_or_else(|| "-".to_owned()))
    };
    vec![
        case.title.into(),
        rate(KEYWAY),
        rate(ENVOY),
        rate(HAPROXY),
        rate(DIRECT),
        Cell::Ratio(outcome.ratio(KEYWAY, ENVOY, THROUGHPUT)),
        latency(KEYWAY),
        latency(ENVOY),
        nodes(KEYWAY),
        nodes(ENVOY),
        nodes(DIRECT),
    ]
}

fn check(case: &Case, outcome: &Outcome, findings: &mut Findings) {
    let failures = outcome.0.failures.iter();
    findings
        .failures
        .extend(failures.map(|failure| format!("{}: {failure}", case.title)));
    let Some(bounds) = &case.bounds else { return };
    let median = |ratio: Option<Quartiles>| ratio.map(|ratio| ratio.median);
    let mut push = |what: &str, bound, ratio| {
        let name = format!("{}: {what}", case.title);
        findings.checks.push(Check::new(name, bound, median(ratio)));
    };
    let ratio = |other, figure| outcome.ratio(KEYWAY, other, figure);
    push("CPU / Envoy's", bounds.envoy, ratio(ENVOY, CPU));
    push("CPU / HAProxy's", bounds.haproxy, ratio(HAPROXY, CPU));
    if let Some(bound) = bounds.throughput {
        push("throughput / Envoy's", bound, ratio(ENVOY, THROUGHPUT));
    }
}
