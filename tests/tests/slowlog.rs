//! Commands that took long are kept, without keys and values.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
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
