//! Where the programs are that the tests need: in the environment, or else in the file
//! `target/clients/env` that `./tests/run` writes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::run_to_end;

/// The repository's root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The value of `name` in the environment, or in what `./tests/run` installed.
///
/// # Panics
/// Neither has it: a test without its servers must fail, never pass in silence.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    if let Some(value) = env::var_os(name) {
        return value.into();
    }
    let installed = fs::read_to_string(root().join("target/clients/env")).unwrap_or_default();
    installed
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| {
            panic!("{name} is not set: run ./tests/run, which installs what the tests need")
        })
        .into()
}

/// The `keyway` binary: `KEYWAY_BIN`, or the newest one that cargo built.
///
/// # Panics
/// There is none.
#[must_use]
pub fn keyway() -> PathBuf {
    if let Some(path) = env::var_os("KEYWAY_BIN") {
        return path.into();
    }
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    ["debug", "release"]
        .iter()
        .map(|profile| target.join(profile).join("keyway"))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .unwrap_or_else(|| {
            panic!(
                "no keyway binary under {}: run ./tests/run",
                target.display()
            )
        })
}

/// A metric that the binary has.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// `name` or `name=value|value`, separated by blanks.
    pub labels: String,
    /// What it means.
    pub help: String,
}

impl Listed {
    /// Whether it is about a cluster: with several, its series have the label `cluster`. The rest is the
    /// process's own.
    #[must_use]
    pub fn is_of_a_cluster(&self) -> bool {
        let of_the_process = [
            "keyway_build_info",
            "keyway_config_reloads_total",
            "keyway_traces_total",
        ];
        !self.name.starts_with("process_") && !of_the_process.contains(&self.name.as_str())
    }
}

/// What `keyway --list-metrics` prints.
///
/// # Panics
/// It does not, or a line has not four columns.
#[must_use]
pub fn listed_metrics() -> Vec<Listed> {
    let mut command = Command::new(keyway());
    let said = run_to_end(command.arg("--list-metrics"), Duration::from_secs(20));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let listed = said.stdout.lines().map(|line| {
        let columns: Vec<_> = line.split('\t').map(str::to_owned).collect();
        let Ok([name, kind, labels, help]) = <[String; 4]>::try_from(columns) else {
            panic!("{line:?} has not four columns");
        };
        Listed {
            name,
            kind,
            labels,
            help,
        }
    });
    listed.collect()
}
