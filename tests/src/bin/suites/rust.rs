//! The tests in the published crate of redis-rs. Each starts a server of its own by the program that
//! `REDISRS_SERVER_BIN` names: this one, which becomes a real server or forwards to Keyway.
//!
//! The package leaves out two crates that its tests are built with: `redis-test` is published by
//! itself, and for `test-macros` stands `tests/clients/redis-rs/async_test.rs`.

use std::env;
use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use keyway_tests::Signal;
use keyway_tests::tools::tool;
use serde_json::Value;

use crate::outcome::{Outcomes, folder, run};

pub(crate) const VERSION: &str = "2.0.0-rc.2";

/// Set when this program is to stand in for a server: to Keyway's port, or to nothing.
pub(crate) const STAND_IN: &str = "KEYWAY_SUITES_STAND_IN";

/// What is added to the crate's manifest.
const MANIFEST: &str = r#"
[dev-dependencies.redis-test]
version = "=2.0.0-rc.1"
features = ["aio", "tls-rustls-insecure"]

[dev-dependencies.test-macros]
path = "../test-macros"

[patch.crates-io]
redis = { path = "." }

[workspace]
"#;

const MACROS_MANIFEST: &str = r#"
[package]
name = "test-macros"
version = "0.0.0"
edition = "2024"

[lib]
proc-macro = true
"#;

const FETCH_MANIFEST: &str = r#"
[package]
name = "fetch"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = "=VERSION"

[workspace]
"#;

/// Tests take their turn, since through Keyway they share a cluster and each begins with FLUSHDB.
const NEXTEST: &str = r#"
[profile.default]
slow-timeout = { period = "20s", terminate-after = 1 }
test-threads = 1
fail-fast = false
status-level = "all"
final-status-level = "none"
failure-output = "immediate"
"#;

/// Each test that uses TLS makes itself keys of 4096 bits, which nobody looks at here and which take
/// a second or more.
const OPENSSL: &str = r#"#!/usr/bin/env bash
exec "$(type -ap openssl | sed -n 2p)" "${@/4096/2048}"
"#;

const FEATURES: &str = "tls-rustls-insecure,tokio-rustls-comp,cluster,connection-manager";

/// Those of commands. The others are of clusters, sentinels and modules, or need no server.
const FILES: [&str; 8] = [
    "test_acl",
    "test_async",
    "test_auth",
    "test_basic",
    "test_bignum",
    "test_geospatial",
    "test_script",
    "test_streams",
];

/// What the tests take for a server.
pub(crate) enum Server {
    /// A new 9.1 for each, without TLS.
    Own,
    /// Keyway at this port, over TLS.
    Keyway(u16),
}

/// Runs the tests, over RESP3: those named, or all.
pub(crate) fn outcomes(server: &Server, only: &[&String]) -> Outcomes {
    let source = install();
    let mut command = Command::new("cargo");
    command
        .args(["nextest", "run", "--color", "never", "--features", FEATURES])
        .arg("--config-file")
        .arg(folder().join("nextest.toml"))
        .args(FILES.iter().flat_map(|file| ["--test", file]))
        .current_dir(source)
        .env(
            "PATH",
            format!(
                "{}:{}",
                folder().join("bin").display(),
                env::var("PATH").unwrap()
            ),
        )
        .env("CARGO_TARGET_DIR", folder().join("rust"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("PROTOCOL", "RESP3");
    for name in only {
        if let Some((binary, test)) = name.split_once("::") {
            command.args(["-E", &format!("binary(={binary}) & test(={test})")]);
        }
    }
    command.env("REDISRS_SERVER_BIN", env::current_exe().unwrap());
    match server {
        Server::Own => command.env("REDISRS_SERVER_TYPE", "tcp").env(STAND_IN, ""),
        Server::Keyway(port) => command
            .env("REDISRS_SERVER_TYPE", "tcp+tls")
            .env(STAND_IN, port.to_string()),
    };
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cargo nextest: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    fs::write(folder().join("nextest.log"), text.as_bytes()).unwrap();
    // 100 is that a test failed, others that nextest did not get to the end.
    assert!(
        matches!(output.status.code(), Some(0 | 100)),
        "cargo nextest: {text}"
    );
    parse(&text)
}

/// Reads nextest's status lines, `PASS [   0.2s] ( 1/20) redis::test_acl acl::test_x`. What a test
/// said follows its line: the line after `panicked at` is taken.
fn parse(text: &str) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut failed: Option<String> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [status, .., binary, test] = words[..]
            && let Some(binary) = binary.strip_prefix("redis::")
            && ["PASS", "FAIL", "TIMEOUT", "ABORT"].contains(&status)
        {
            let name = format!("{binary}::{test}");
            if let Some(failed) = failed.take() {
                outcomes.add(&failed, Some("no panic"));
            }
            if status == "PASS" {
                outcomes.add(&name, None);
            } else {
                failed = Some(name);
            }
        } else if line.contains("panicked at")
            && let Some(name) = failed.take()
        {
            outcomes.add(&name, Some(lines.next().unwrap_or_default().trim()));
        }
    }
    if let Some(failed) = failed {
        outcomes.add(&failed, Some("no panic"));
    }
    outcomes
}

/// The crate's source as cargo has it, with the manifest completed.
fn install() -> PathBuf {
    let source = folder().join(format!("redis-rs-{VERSION}"));
    fs::write(folder().join("nextest.toml"), NEXTEST).unwrap();
    let bin = folder().join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("openssl"), OPENSSL).unwrap();
    fs::set_permissions(bin.join("openssl"), fs::Permissions::from_mode(0o755)).unwrap();
    if !source.join("installed").exists() {
        let macros = folder().join("test-macros");
        package(
            &macros,
            MACROS_MANIFEST,
            include_str!("../../../clients/redis-rs/async_test.rs"),
        );
        let fetch = folder().join("fetch");
        package(&fetch, &FETCH_MANIFEST.replace("VERSION", VERSION), "");
        run(Command::new("cp")
            .arg("-r")
            .arg(published(&fetch))
            .arg(&source));
        let manifest = source.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text + MANIFEST).unwrap();
        fs::write(source.join("installed"), "").unwrap();
    }
    source
}

fn package(folder: &Path, manifest: &str, library: &str) {
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/lib.rs"), library).unwrap();
}

/// Where cargo unpacked the crate that the package in `fetch` depends on.
fn published(fetch: &Path) -> PathBuf {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1"])
        .current_dir(fetch)
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata.get("packages").and_then(Value::as_array).unwrap();
    let manifest = packages
        .iter()
        .find(|package| package.get("name").is_some_and(|name| name == "redis"))
        .and_then(|package| package.get("manifest_path")?.as_str())
        .unwrap();
    Path::new(manifest).parent().unwrap().to_owned()
}

/// Stands in for a server that a test starts, and ends with the test: those that fail leave theirs.
/// Becomes a real one, or forwards to Keyway's port where it is given one.
pub(crate) fn stand_in(keyway: &str) {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    if keyway.is_empty() {
        let error = Command::new(tool("KEYWAY_VALKEY_9"))
            .args(env::args().skip(1))
            .exec();
        panic!("valkey-server: {error}");
    }
    forward(keyway);
}

/// Says a version, or listens where it is told to and hands every byte to Keyway and back.
fn forward(keyway: &str) {
    let words: Vec<String> = env::args().collect();
    if words.iter().any(|word| word == "-v") {
        println!("Valkey server v=9.1.0");
        return;
    }
    let at = words.iter().position(|word| word == "--tls-port").unwrap();
    let listener = TcpListener::bind(format!("127.0.0.1:{}", words.get(at + 1).unwrap())).unwrap();
    for client in listener.incoming().map_while(Result::ok) {
        let server = TcpStream::connect(format!("127.0.0.1:{keyway}")).unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || copy(from_client, server));
        thread::spawn(move || copy(from_server, client));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
