//! The client suites in other languages, run as processes with host, port and CA.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::run_to_end;
use crate::tools::{root, tool};

/// The slowest suite takes some ten seconds on a machine with two busy cores.
const SUITE_LIMIT: Duration = Duration::from_secs(240);

/// What a suite connects to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The authority to trust.
    pub ca: &'a Path,
    /// Which of its classes a client library uses.
    pub mode: Mode,
    /// Whether the target takes keys of several slots in one command.
    pub splits: bool,
}

/// Which of its classes a client library uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The plain one.
    Standalone,
    /// The one that asks for the topology.
    Cluster,
    /// One after the other.
    All,
}

/// Runs a Python suite by its file name, and checks that it said `ok` for `clients` clients.
///
/// # Panics
/// It failed; the message has all it said.
#[track_caller]
pub fn run_python_suite(script: &str, target: Target<'_>, clients: usize) {
    let mut command = Command::new(tool("KEYWAY_PYTHON"));
    // No __pycache__ in the source tree.
    command
        .arg("-B")
        .env("KEYWAY_VALKEY_CLI", tool("KEYWAY_VALKEY_CLI"));
    command.env("KEYWAY_VALKEY_BENCHMARK", tool("KEYWAY_VALKEY_BENCHMARK"));
    run_suite(
        command,
        root().join("tests/clients/python").join(script),
        target,
        clients,
    );
}

/// Runs a Node suite by its file name, and checks that it said `ok` for `clients` clients.
///
/// # Panics
/// It failed; the message has all it said.
#[track_caller]
pub fn run_node_suite(script: &str, target: Target<'_>, clients: usize) {
    let mut command = Command::new(tool("KEYWAY_NODE"));
    command.env("NODE_PATH", tool("NODE_PATH"));
    run_suite(
        command,
        root().join("tests/clients/node").join(script),
        target,
        clients,
    );
}

#[track_caller]
fn run_suite(mut command: Command, script: PathBuf, target: Target<'_>, clients: usize) {
    let mode = match target.mode {
        Mode::Standalone => "standalone",
        Mode::Cluster => "cluster",
        Mode::All => "all",
    };
    command
        .arg(&script)
        .args(["--host", "127.0.0.1", "--port", &target.port.to_string()]);
    command.arg("--ca").arg(target.ca).args(["--mode", mode]);
    command.args([
        "--cross-slot",
        if target.splits { "split" } else { "refuse" },
    ]);
    let output = run_to_end(&mut command, SUITE_LIMIT);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, Some(0), "{} failed:\n{said}", script.display());
    let passed = output
        .stdout
        .lines()
        .filter(|line| line.contains(" ok "))
        .count();
    assert_eq!(passed, clients, "clients that passed:\n{said}");
    eprint!("{}", output.stdout);
}
