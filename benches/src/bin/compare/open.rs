//! Latency where requests come when they come, whatever the replies do: an open loop at fixed rates.

use anyhow::{Context, Result};

use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{
    CPU, DIRECT, ENVOY, Ground, HAPROXY, KEYWAY, OF_ONE, Outcome, P50, P99, Target,
};
use crate::wish::Wish;

/// Clients, and requests a second over all of them.
const LOADS: [(u32, u32); 3] = [(50, 5_000), (50, 20_000), (500, 20_000)];
/// One turn of one target: a tail needs more requests than an average does.
const TURN_MS: u32 = 500;
/// Ours by a peer's.
const BOUND: Bound = Bound::no_more_than(1.0);

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("open") {
        return Ok(());
    }
    let field = ground.field()?;
    let mut targets = field.targets();
    targets.push(ground.direct());
    let (of_one, _node) = ground.keyway_of_one()?;
    targets.push(Target::of(OF_ONE, &of_one));
    let mut table = Table {
        title:
            "Open loop (Poisson arrivals, 80 % GET, 20 % SET, 64 B): milliseconds from the instant \
                due to the reply. Medians of the turns, and Keyway's by the target's in pairs; p99.9 \
                over all turns"
                .into(),
        columns: vec![
            "load",
            "target",
            "p50",
            "p99",
            "p99.9",
            "keyway's p50 by its",
            "keyway's p99 by its",
            "CPU us/request",
        ],
        rows: Vec::new(),
    };
    let mut alike = Table {
        title: "The same turns, where one node is behind Keyway as one is behind HAProxy".into(),
        columns: table.columns.clone(),
        rows: Vec::new(),
    };
    for (clients, rate) in LOADS {
        let load = format!("{rate}/s over {clients} clients");
        wish.tell(&format!("open loop: {load}"));
        let arguments = format!(
            "--clients {clients} --rate {rate} --pipeline 16 --mix get=80,set=20 --shared 0 \
             --keys 20000 --warmup 400ms --turn {TURN_MS}ms --duration {}ms",
            wish.rotations * TURN_MS
        );
        let outcome = ground
            .run(&targets, &arguments)
            .with_context(|| load.clone())?;
        let failures = outcome.0.failures.iter();
        findings
            .failures
            .extend(failures.map(|failure| format!("{load}: {failure}")));
        for name in [KEYWAY, ENVOY, HAPROXY, DIRECT] {
            table.rows.extend(row(&load, (KEYWAY, name), &outcome));
        }
        alike.rows.extend(row(&load, (OF_ONE, OF_ONE), &outcome));
        alike.rows.extend(row(&load, (OF_ONE, HAPROXY), &outcome));
        check(&load, &outcome, findings);
    }
    findings.tables.extend([table, alike]);
    Ok(())
}

/// What a target did, and Keyway's by it.
fn row(load: &str, (keyway, name): (&str, &str), outcome: &Outcome) -> Option<Vec<Cell>> {
    let p999_us = outcome.target(name)?.latency_us.p999;
    let ms = |us: Option<f64>| Cell::maybe(us.map(|us| us / 1000.0), 2);
    let by = |figure| match name {
        _ if name == keyway => "-".into(),
        _ => Cell::Ratio(outcome.ratio(keyway, name, figure)),
    };
    Some(vec![
        load.into(),
        name.into(),
        ms(outcome.median(name, P50)),
        ms(outcome.median(name, P99)),
        ms(Some(p999_us)),
        by(P50),
        by(P99),
        Cell::maybe(outcome.median(name, CPU), 1),
    ])
}

fn check(load: &str, outcome: &Outcome, findings: &mut Findings) {
    for (peer, possessive) in [(ENVOY, "Envoy's"), (HAPROXY, "HAProxy's")] {
        for (what, figure) in [("p50", P50), ("p99", P99)] {
            let name = format!("{load}: {what} / {possessive}");
            let ratio = outcome.ratio(KEYWAY, peer, figure);
            let ratio = ratio.map(|ratio| ratio.median);
            findings.checks.push(Check::new(name, BOUND, ratio));
        }
    }
}
