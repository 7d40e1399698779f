//! How the tests of a run ended, and where runs keep their files. Starts no servers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use keyway_tests::tools::root;

/// How the tests of a run ended; skipped ones are not in it.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// By name, what a test said when it failed; `None` when it passed.
    ended: BTreeMap<String, Option<String>>,
}

impl Outcomes {
    /// A test may be told of twice, as when its tear-down fails: then it failed.
    pub(crate) fn add(&mut self, name: &str, failure: Option<&str>) {
        let said = self.ended.entry(name.to_owned()).or_default();
        if let (None, Some(failure)) = (&said, failure) {
            *said = Some(failure.to_owned());
        }
    }

    pub(crate) fn passed(&self, name: &str) -> bool {
        self.ended.get(name).is_some_and(Option::is_none)
    }

    /// The names of all that passed.
    pub(crate) fn all_passed(&self) -> impl Iterator<Item = &String> {
        let passed = self.ended.iter().filter(|(_, failure)| failure.is_none());
        passed.map(|(name, _)| name)
    }

    /// What a test said when it failed.
    pub(crate) fn failure(&self, name: &str) -> &str {
        match self.ended.get(name) {
            Some(Some(failure)) => failure,
            Some(None) => "",
            None => "did not run",
        }
    }
}

/// Where sources and builds are kept between runs.
pub(crate) fn folder() -> PathBuf {
    let folder = root().join("target/suites");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} failed");
}
