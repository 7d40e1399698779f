//! Refused credentials are in the log, each counted, none with its password.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use keyway_tests::{ClusterOptions, Keyway, RealCluster, Version, text, wait_until};
use serde_json::Value;

/// The lines about refused credentials.
fn refused(keyway: &Keyway) -> Vec<Value> {
    let log = keyway.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["message"] == "credentials refused")
        .collect()
}

#[test]
fn refused_credentials_are_logged_and_counted_without_the_password() {
    let mut options = ClusterOptions::new(Version::V9_1, 1, 0);
    options.users = vec![("alice".to_owned(), ">right-Ab3x ~* +@all".to_owned())];
    let cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    for guess in 0..40 {
        let reply = client.cmd(&["AUTH", "alice", &format!("wrong-Ab3x-{guess}")]);
        assert!(text(&reply).contains("WRONGPASS"), "{reply:?}");
    }
    assert_eq!(text(&client.cmd(&["AUTH", "alice", "right-Ab3x"])), "OK");
    keyway.wait_logged("credentials refused");
    let first = refused(&keyway);
    let line = first.first().unwrap();
    assert_eq!(line["user"], "alice");
    assert_eq!(line["client"], "127.0.0.1");
    assert!(line["reason"].as_str().unwrap().contains("WRONGPASS"));
    wait_until("the rest, counted", 30, || {
        let times = refused(&keyway);
        let times = times.iter().map(|line| line["times"].as_u64().unwrap());
        times.sum::<u64>() == 40
    });
    let lines = refused(&keyway).len();
    assert!(
        lines < 10,
        "{lines} lines for 40 guesses:\n{}",
        keyway.log()
    );
    assert!(!keyway.log().contains("Ab3x"), "{}", keyway.log());
}
