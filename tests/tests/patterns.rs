//! The examples of `docs/patterns.md` do what the page says: each is run against Keyway before a real
//! cluster, and checks its own results.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use keyway_tests::tools::{root, tool};
use keyway_tests::{Keyway, RealCluster, Settings, Version, ports};

/// Every example; `demo.py` is what they share.
fn examples() -> Vec<PathBuf> {
    let folder = root().join("docs/patterns");
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "py"))
        .filter(|path| !path.ends_with("demo.py"))
        .collect();
    found.sort();
    found
}

#[test]
fn every_pattern_works() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let read_port = ports::reserve();
    let keyway = Keyway::with(
        &cluster,
        &Settings {
            sections: format!("[reads]\naddress = \"127.0.0.1:{}\"\n", read_port.number()),
            ..Settings::default()
        },
    );
    let mut failed = Vec::new();
    for example in examples() {
        let output = Command::new(tool("KEYWAY_PYTHON"))
            .arg("-B")
            .arg(&example)
            .args(["--port", &keyway.port().to_string()])
            .args(["--read-port", &read_port.number().to_string()])
            .arg("--ca")
            .arg(keyway.ca())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.starts_with("ok: ") {
            let why = String::from_utf8_lossy(&output.stderr);
            failed.push(format!("{}: {said}{why}", example.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_page_has_every_example_and_no_other() {
    let page = fs::read_to_string(root().join("docs/patterns.md")).unwrap();
    let named: BTreeSet<String> = page
        .split("(patterns/")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut there: BTreeSet<String> = examples()
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    there.insert("demo.py".to_owned());
    assert_eq!(named, there);
}
