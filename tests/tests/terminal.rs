//! What `keyway` says on a terminal about a running Keyway and its cluster.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails; a missing field is null"
)]

use std::process::Command;
use std::time::Duration;

use keyway_tests::{
    Keyway, Output, RealCluster, Settings, Version, run_to_end, slot_of, tools, wait_until,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn keyway(arguments: &[&str]) -> Output {
    run_to_end(Command::new(tools::keyway()).args(arguments), LIMIT)
}

#[track_caller]
fn answer(arguments: &[&str]) -> String {
    let output = keyway(arguments);
    assert_eq!(output.code, Some(0), "{arguments:?}: {}", output.stderr);
    output.stdout
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let text = answer(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn topology_is_told_by_the_proxy_and_without_one_by_the_cluster() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let running = Keyway::start(&cluster);
    let (admin, config) = (running.admin(), running.config());
    let text = answer(&["topology", "--admin", &admin]);
    for (index, address) in cluster.addrs().iter().enumerate() {
        let mut lines = text.lines().filter(|line| line.starts_with("  "));
        let line = lines.find(|line| line.contains(address.as_str()));
        let line = line.unwrap_or_else(|| panic!("no {address} in\n{text}"));
        let role = if index < 3 { "primary" } else { "replica" };
        assert!(
            line.contains(role) && line.contains(cluster.zone(index)),
            "{line}"
        );
    }
    assert!(text.contains("16384 of 16384 slots"), "{text}");
    let told = json(&["topology", "--json", "--config", &config]);
    assert_eq!(told["shards"].as_array().unwrap().len(), 3);
    assert!(!told["events"].as_array().unwrap().is_empty());

    let config = running.stop_and_keep_config();
    let path = config.path().join("keyway.toml");
    let text = answer(&["topology", "--config", path.to_str().unwrap()]);
    assert!(text.contains("told by the node 127.0.0.1:"), "{text}");
    for address in cluster.addrs() {
        assert!(text.contains(&address), "no {address} in\n{text}");
    }
    let output = keyway(&["topology", "--admin", &admin]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""));
    assert!(output.stderr.contains(&admin), "{}", output.stderr);
}

#[test]
fn what_is_explained_is_what_happens() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let settings = Settings {
        sections: "[reads]\nzone = \"az-b\"\n".to_owned(),
        ..Settings::default()
    };
    let running = Keyway::with(&cluster, &settings);
    let admin = running.admin();
    let mut client = running.client();
    for key in ["user:1", "a{x}b", "{}", "k9"] {
        let explained = json(&["explain", "--json", "--admin", &admin, "SET", key, "v"]);
        let place = &explained["places"][0];
        let slot = slot_of(key);
        assert_eq!(place["slot"], slot, "{key}");
        let owner = cluster.addrs()[cluster.owner(slot)].clone();
        assert_eq!(place["node"]["address"], *owner, "{key}");
        assert_eq!(explained["kind"], "write");
        let _ = client.cmd(&["SET", key, "v"]);
        let there = cluster.client(cluster.owner(slot)).cmd(&["EXISTS", key]);
        assert_eq!(there, resp::Value::Integer(1), "{key} is not at {owner}");
    }
    // Of the shards' nodes in az-b, one each is read from.
    wait_until("reads that are explained to stay in the zone", 20, || {
        ["user:1", "k9", "b", "c", "d"].iter().all(|key| {
            let explained = json(&["explain", "--json", "--admin", &admin, "GET", key]);
            let reads = explained["places"][0]["reads_from"]
                .as_array()
                .unwrap()
                .clone();
            let zones: Vec<&Value> = reads.iter().map(|node| &node["zone"]).collect();
            let shard = cluster.owner(slot_of(key));
            let has = (0..6).filter(|node| node % 3 == shard && cluster.zone(*node) == "az-b");
            has.count() == 0 || zones.iter().all(|zone| *zone == "az-b")
        })
    });
    let text = answer(&["explain", "--admin", &admin, "MGET", "a", "b"]);
    assert!(text.contains("the owners of 2 slots"), "{text}");
    let unknown = keyway(&["explain", "--admin", &admin, "NOSUCH", "x"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("NOSUCH"), "{}", unknown.stderr);
}

#[test]
fn shells_and_man_know_every_command() {
    let commands = [
        "serve",
        "check",
        "topology",
        "explain",
        "doctor",
        "top",
        "heat",
        "slowlog",
        "demo",
        "rebalance",
        "autoscale",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let script = answer(&["completions", shell]);
        for command in commands {
            assert!(script.contains(command), "no {command} for {shell}");
        }
    }
    let script = answer(&["completions", "bash"]);
    let output = run_to_end(
        Command::new("bash").args([
            "-c",
            &format!("{script}\nCOMP_WORDS=(keyway topo); COMP_CWORD=1; _keyway keyway topo; echo \"${{COMPREPLY[@]}}\""),
        ]),
        LIMIT,
    );
    assert_eq!(output.stdout.trim(), "topology", "{}", output.stderr);
    let page = answer(&["man"]);
    assert!(page.contains(".TH keyway 1"), "{page}");
    for command in commands {
        let section = format!("KEYWAY {}", command.to_uppercase());
        assert!(page.contains(&section), "no {section}");
    }
}

#[test]
fn a_pipe_that_is_closed_early_is_no_failure() {
    let script = format!("{} man | head -1", tools::keyway().display());
    let output = run_to_end(
        Command::new("bash").args(["-o", "pipefail", "-c", &script]),
        LIMIT,
    );
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
}

#[test]
fn top_prints_a_line_each_second_where_there_is_no_terminal() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let running = Keyway::start(&cluster);
    let admin = running.admin();
    let mut client = running.client();
    for _ in 0..50 {
        let _ = client.cmd(&["SET", "k", "v"]);
    }
    let text = answer(&["top", "--admin", &admin, "--count", "2"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.contains(" req/s ")), "{text}");
    let text = answer(&["top", "--json", "--admin", &admin, "--count", "2"]);
    let seconds: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(seconds.len(), 2);
    assert!(seconds[1]["at_ms"].as_u64() > seconds[0]["at_ms"].as_u64());
    assert!(seconds[1]["requests"]["total"].as_u64().unwrap() >= 50);
}

#[test]
fn top_is_a_screen_on_a_terminal_and_leaves_it_as_it_was() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let running = Keyway::start(&cluster);
    let keyway = tools::keyway();
    let top = format!(
        "stty cols 120 rows 30; {} top --admin {} --count 3",
        keyway.display(),
        running.admin()
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &top, "/dev/null"])
        .env("TERM", "xterm");
    let output = run_to_end(&mut script, LIMIT);
    let shown = output.stdout;
    assert_eq!(output.code, Some(0), "{shown}");
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    assert!(shown.contains(enter) && shown.contains(leave), "{shown:?}");
    assert!(shown.contains(&cluster.addrs()[0]), "{shown:?}");
}
