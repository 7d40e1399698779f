//! Commands that took long are kept, without keys and values.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::process::Command;
use std::time::Duration;

use keyway_tests::{Keyway, RealCluster, Settings, Version, run_to_end, text, tools, wait_until};
use serde_json::Value;

fn slow(keyway: &Keyway) -> Vec<Value> {
    let (status, body) = keyway.http("/slowlog").unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn the_servers_own_slow_logs_are_one() {
    let cluster = RealCluster::start(Version::V9_1, 2, 1);
    let nodes = cluster.nodes().len();
    for index in 0..nodes {
        let mut node = cluster.client(index);
        node.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]);
        node.cmd(&["SLOWLOG", "RESET"]);
    }
    // An entry of each node that no other has.
    for index in 0..nodes {
        let mut node = cluster.client(index);
        node.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
        node.cmd(&["ECHO", &format!("node-{index}")]);
        node.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]);
    }
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let entries = |client: &mut keyway_tests::Client| -> Vec<(i64, String)> {
        let reply = client.cmd(&["SLOWLOG", "GET", "-1"]);
        let entries = reply.as_array().unwrap_or_else(|| panic!("{reply:?}"));
        let entry = |entry: &resp::Value| {
            let fields = entry.as_array().unwrap();
            (fields[1].as_int().unwrap(), text(&fields[3]))
        };
        entries.iter().map(entry).collect()
    };
    let all = entries(&mut client);
    assert!(all.is_sorted_by(|a, b| a.0 >= b.0), "{all:?}");
    for index in 0..nodes {
        let name = format!("node-{index}");
        let found = all.iter().filter(|(_, words)| words.contains(&name));
        assert_eq!(found.count(), 1, "{name}: {all:?}");
    }
    let len = text(&client.cmd(&["SLOWLOG", "LEN"]));
    assert_eq!(len, all.len().to_string());
    assert_eq!(text(&client.cmd(&["SLOWLOG", "RESET"])), "OK");
    assert_eq!(entries(&mut client), []);
}

#[test]
fn slow_commands_are_kept_without_their_arguments() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let settings = Settings {
        sections: "[log]\nslow_ms = 20\n".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    // A node that counts for a while, and a client that waits for a list.
    let busy = "local sum = 0 for i = 1, 30000000 do sum = sum + i end return 'secretvalue'";
    let reply = client.cmd(&["EVAL", busy, "1", "secretkey"]);
    assert_eq!(text(&reply), "secretvalue");
    let _ = client.cmd(&["BLPOP", "secretlist", "0.5"]);
    wait_until("the script in the slow log", 10, || {
        slow(&keyway).iter().any(|one| one["command"] == "eval")
    });
    let all = slow(&keyway);
    let script = all.iter().find(|one| one["command"] == "eval").unwrap();
    assert!(script["took_us"].as_u64().unwrap() >= 20_000, "{script}");
    assert_eq!(script["user"], "default");
    let from = script["client"].as_str().unwrap();
    assert!(from.starts_with("127.0.0.1:"), "{script}");
    let blocked = all.iter().any(|one| one["command"] == "blpop");
    assert!(!blocked, "waiting is what it is for: {all:?}");
    assert!(!format!("{all:?}").contains("secret"), "{all:?}");

    let mut command = Command::new(tools::keyway());
    command.args(["slowlog", "--admin", &keyway.admin()]);
    let shown = run_to_end(&mut command, Duration::from_secs(20));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("eval") && shown.stdout.contains(from));
}
