//! What one key costs that 500 connections read: `./tests/hot-keys` prints two tables.
#![allow(clippy::print_stdout, reason = "its tables are what it is for")]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use keyway_tests::hot_keys::{
    Counting, Freshness, Reading, count_bits, read_one_key, read_while_written,
};
use keyway_tests::{RealCluster, Version};

const CLIENTS: usize = 500;
const DEPTHS: [usize; 2] = [1, 16];
const WAYS: [(&str, &str); 4] = [
    ("without", ""),
    ("coalesce", "coalesce = true"),
    ("near_prefixes", "near_prefixes = ['config:']"),
    ("near_ops_min", "near_ops_min = 1000"),
];
/// Of a read that costs its node much; the first is no Keyway at all.
const COSTLY_WAYS: [(&str, Option<&str>); 5] = [
    ("no Keyway", None),
    ("without", Some("")),
    ("coalesce", Some("coalesce = true")),
    ("near_prefixes", Some("near_prefixes = ['config:']")),
    (
        "near_prefixes, coalesce",
        Some("near_prefixes = ['config:']\ncoalesce = true"),
    ),
];
/// A row of those.
const LASTS: Duration = Duration::from_secs(10);
/// The near cache answers so many times as often as the node does that clients ask themselves.
const NEAR_MIN: f64 = 10.0;

fn main() -> ExitCode {
    let reads: usize = env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(1_600_000);
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    cheap(&cluster, reads);
    println!();
    if costly(&cluster) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// `GET` of a small value.
fn cheap(cluster: &RealCluster, reads: usize) {
    println!(
        "| at once | [hot_keys] | reads a second | commands at the node | reads for each | node CPU | \
         reads for a second of it | Keyway CPU |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for depth in DEPTHS {
        for (name, hot_keys) in WAYS {
            let cost = read_one_key(
                cluster,
                Reading {
                    hot_keys,
                    clients: CLIENTS,
                    depth,
                    rounds: (reads / CLIENTS / depth).max(1),
                },
            );
            println!(
                "| {depth} | {name} | {:.0} | {} of {} | {:.1} | {:.2} s | {:.0} | {:.2} s |",
                cost.rate(),
                cost.at_nodes,
                cost.reads,
                cost.reads_per_command(),
                cost.node_cpu.as_secs_f64(),
                cost.reads_per_node_second(),
                cost.keyway_cpu.as_secs_f64(),
            );
        }
    }
    let Freshness {
        reads,
        writes,
        hits,
        old,
        oldest,
    } = read_while_written(cluster, "near_prefixes = ['config:']", 200_000);
    println!();
    println!(
        "beside a writer that Keyway does not see: {reads} reads, {hits:.0} of them from near, {writes} writes; \
         {old} reads showed an old value, {oldest:.2?} after its successor was acknowledged at most"
    );
}

/// `BITCOUNT` of 4 MiB, written every second. Returns whether the near cache is worth what it should.
fn costly(cluster: &RealCluster) -> bool {
    println!(
        "| at once | [hot_keys] | reads a second | times the node's own | commands at the node | node CPU | \
         Keyway CPU | writes | reads for a second of node CPU | old reads, oldest |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    for depth in DEPTHS {
        let mut own = 0.0;
        for (name, hot_keys) in COSTLY_WAYS {
            let counted = count_bits(
                cluster,
                Counting {
                    hot_keys,
                    clients: CLIENTS,
                    depth,
                    lasts: LASTS,
                },
            );
            let cost = counted.cost;
            if hot_keys.is_none() {
                own = cost.rate();
            }
            let times = cost.rate() / own;
            let near = name.starts_with("near");
            if near && times < NEAR_MIN {
                missed.push(format!("{times:.1} times with {name}, {depth} at once"));
            }
            // Only what is near may be old.
            if !near && counted.old > 0 {
                missed.push(format!("{} old reads with {name}", counted.old));
            }
            println!(
                "| {depth} | {name} | {:.0} | {times:.1} | {} of {} | {:.2} s | {:.2} s | {} | {:.0} | {}, {:.2?} |",
                cost.rate(),
                cost.at_nodes,
                cost.reads,
                cost.node_cpu.as_secs_f64(),
                cost.keyway_cpu.as_secs_f64(),
                counted.writes,
                cost.reads_per_node_second(),
                counted.old,
                counted.oldest,
            );
        }
    }
    missed.iter().for_each(|what| println!("missed: {what}"));
    missed.is_empty()
}
