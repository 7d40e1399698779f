//! What one key costs that 500 connections read: `./tests/hot-keys` prints a table.
#![allow(clippy::print_stdout, reason = "its table is what it is for")]

use std::env;

use keyway_tests::hot_keys::{Freshness, Reading, read_one_key, read_while_written};
use keyway_tests::{RealCluster, Version};

const CLIENTS: usize = 500;
const WAYS: [(&str, &str); 4] = [
    ("without", ""),
    ("coalesce", "coalesce = true"),
    ("near_prefixes", "near_prefixes = ['config:']"),
    ("near_ops_min", "near_ops_min = 1000"),
];

fn main() {
    let reads: usize = env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(1_600_000);
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    println!(
        "| at once | [hot_keys] | reads a second | commands at the node | reads for each | node CPU | \
         reads for a second of it | Keyway CPU |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for depth in [1, 16] {
        for (name, hot_keys) in WAYS {
            let cost = read_one_key(
                &cluster,
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
    } = read_while_written(&cluster, "near_prefixes = ['config:']", 200_000);
    println!();
    println!(
        "beside a writer that Keyway does not see: {reads} reads, {hits:.0} of them from near, {writes} writes; \
         {old} reads showed an old value, {oldest:.2?} after its successor was acknowledged at most"
    );
}
