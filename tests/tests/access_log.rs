//! The access log: who asked for what, when and where, and never which key or value.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::{fs, path::Path};

use keyway_tests::{Keyway, RealCluster, Settings, Version, text, wait_until};
use serde_json::Value;

fn lines(path: &Path) -> Vec<Value> {
    let all = fs::read_to_string(path).unwrap_or_default();
    let whole = all.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"));
    whole.lines().map(line).collect()
}

fn of<'a>(all: &'a [Value], command: &str) -> Vec<&'a Value> {
    let same = all.iter().filter(|one| one["command"] == command);
    same.collect()
}

#[test]
fn every_command_is_a_line_without_its_key_and_value() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.json");
    let settings = Settings {
        sections: format!("[log]\naccess_one_in = 1\naccess_file = {path:?}\n"),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    assert_eq!(text(&client.cmd(&["PING"])), "PONG");
    for number in 0..20 {
        let key = format!("secret:{number}");
        assert_eq!(text(&client.cmd(&["SET", &key, "secretvalue"])), "OK");
    }
    assert_eq!(text(&client.cmd(&["GET", "secret:7"])), "secretvalue");
    wait_until("all commands in the log", 10, || {
        let all = lines(&path);
        of(&all, "set").len() == 20 && of(&all, "get").len() == 1
    });
    let all = lines(&path);
    let get = of(&all, "get")[0];
    assert_eq!(get["user"], "default");
    assert!(get["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(get["at_ms"].as_u64().unwrap() > 1_700_000_000_000, "{get}");
    assert_eq!(get["one_in"], 1);
    let slot = text(&cluster.client(0).cmd(&["CLUSTER", "KEYSLOT", "secret:7"]));
    assert_eq!(get["slot"].to_string(), slot);
    let (node, nodes) = (get["node"].as_str().unwrap(), cluster.addrs());
    assert!(
        nodes.iter().any(|known| known == node),
        "{node} of {nodes:?}"
    );
    let ping = of(&all, "ping")[0];
    assert!(
        ping.get("node").is_none() && ping.get("slot").is_none(),
        "{ping}"
    );
    assert!(!fs::read_to_string(&path).unwrap().contains("secret"));

    // Whoever rotates logs moves the file away.
    let moved = folder.path().join("access.json.1");
    fs::rename(&path, &moved).unwrap();
    wait_until("a new file", 10, || {
        assert_eq!(text(&client.cmd(&["ECHO", "again"])), "again");
        !of(&lines(&path), "echo").is_empty()
    });
}

#[test]
fn it_begins_goes_elsewhere_and_ends_while_keyway_runs() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first.json", "second.json"].map(|name| folder.path().join(name));
    let settings = Settings {
        sections: "[log]\naccess_one_in = 0\n".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    let mut goes_to = |path: &Path, word: &str| {
        wait_until(word, 10, || {
            assert_eq!(text(&client.cmd(&["ECHO", word])), word);
            !of(&lines(path), "echo").is_empty()
        });
    };
    keyway.reconfigure(|config| {
        let log = format!("access_one_in = 1\naccess_file = {first:?}");
        config.replace("access_one_in = 0", &log)
    });
    goes_to(&first, "a log");
    keyway.reconfigure(|config| config.replace("first.json", "second.json"));
    goes_to(&second, "another one");
    let log = keyway.log();
    let report = log
        .lines()
        .rfind(|line| line.contains("configuration reloaded"));
    let report = report.unwrap();
    assert!(
        report.contains("\"changed\":\"log.access_file\""),
        "{report}"
    );
    assert!(!report.contains("needs_restart"), "{report}");

    // A file that cannot be written changes nothing.
    keyway.reconfigure(|config| config.replace("second.json", "no/third.json"));
    keyway.wait_logged("log.access_file: cannot write");
    assert_eq!(text(&client.cmd(&["PING"])), "PONG");
    wait_until("the line of a PING", 10, || {
        !of(&lines(&second), "ping").is_empty()
    });

    keyway.reconfigure(|config| {
        let config = config.replace("no/third.json", "second.json");
        config.replace("access_one_in = 1", "access_one_in = 0")
    });
    let mut late = keyway.client();
    assert!(!text(&late.cmd(&["TIME"])).is_empty());
    keyway.reconfigure(|config| config.replace("access_one_in = 0", "access_one_in = 1"));
    wait_until("lines again", 10, || {
        assert!(!text(&late.cmd(&["LASTSAVE"])).is_empty());
        !of(&lines(&second), "lastsave").is_empty()
    });
    assert!(of(&lines(&second), "time").is_empty());
}
