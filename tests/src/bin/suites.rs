//! `./tests/suites`: the tests that client libraries ship, on one real server and through Keyway.
//!
//! What passes on the server and fails through Keyway must be in `tests/rows/<library>.txt` with a
//! reason, and what is there must fail: the list stays true.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a tool for developers: it prints, and a panic is how it fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use keyway_tests::tools::root;
use keyway_tests::{Keyway, RealCluster, Standalone, Version};

/// A library whose source distribution has tests.
struct Library {
    name: &'static str,
    version: &'static str,
    /// The option that names the server, and the schemes without and with TLS.
    option: &'static str,
    schemes: [&'static str; 2],
    files: &'static [&'static str],
}

const LIBRARIES: [Library; 1] = [Library {
    name: "valkey",
    version: "6.1.1",
    option: "--valkey-url",
    schemes: ["valkey", "valkeys"],
    files: &[
        "tests/test_commands.py",
        "tests/test_encoding.py",
        "tests/test_function.py",
        "tests/test_lock.py",
        "tests/test_monitor.py",
        "tests/test_pipeline.py",
        "tests/test_pubsub.py",
        "tests/test_scripting.py",
    ],
}];

/// The server is taken for one that is no cluster, which is what most tests are written for.
const PLUGIN: &str = "\
import pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    import tests.conftest
    tests.conftest.VALKEY_INFO['cluster_enabled'] = False
";

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} failed");
}

/// The library's unpacked source, and a Python with what its tests need.
fn install(library: &Library) -> (PathBuf, PathBuf) {
    let folder = root().join("target/suites");
    let python = folder.join("python/bin/python");
    if !python.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        run(Command::new("python3")
            .args(["-m", "venv"])
            .arg(folder.join("python")));
        let needs = [
            "pytest",
            "pytest-asyncio",
            "pytest-timeout",
            "numpy",
            "mock",
            "packaging",
        ];
        run(Command::new(&python)
            .args(["-m", "pip", "install", "-q"])
            .args(needs));
    }
    let source = folder.join(format!("{}-{}", library.name, library.version));
    if !source.exists() {
        let wanted = format!("{}=={}", library.name, library.version);
        let pip = |words: &[&str]| {
            run(Command::new(&python)
                .args(["-m", "pip"])
                .args(words)
                .current_dir(&folder));
        };
        pip(&[
            "download",
            "-q",
            "--no-binary",
            ":all:",
            "--no-deps",
            &wanted,
        ]);
        let archive = format!("{}-{}.tar.gz", library.name, library.version);
        run(Command::new("tar")
            .args(["xzf", &archive])
            .current_dir(&folder));
        pip(&[
            "install",
            "-q",
            &format!("./{}-{}", library.name, library.version),
        ]);
    }
    std::fs::write(source.join("keyway_plugin.py"), PLUGIN).unwrap();
    (source, python)
}

/// Names of the tests that passed, and of those that did not, with what they say.
fn tests(library: &Library, url: &str) -> [BTreeMap<String, String>; 2] {
    let (source, python) = install(library);
    let output = Command::new(&python)
        .args([
            "-m",
            "pytest",
            "-q",
            "-rA",
            "--timeout",
            "20",
            "-p",
            "no:cacheprovider",
        ])
        .args([
            "-p",
            "keyway_plugin",
            "--tb",
            "no",
            "--valkey-cluster-nodes",
            "1",
        ])
        .args([library.option, url])
        .args(library.files)
        .env("PYTHONPATH", &source)
        .env("COLUMNS", "400")
        .current_dir(&source)
        .output()
        .unwrap_or_else(|error| panic!("pytest: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let named = |words: &[&str]| -> BTreeMap<String, String> {
        let line = |line: &str| {
            let (word, rest) = line.split_once(' ')?;
            let (name, says) = rest.split_once(" - ").unwrap_or((rest, ""));
            words
                .contains(&word)
                .then(|| (name.trim().to_owned(), says.to_owned()))
        };
        text.lines().filter_map(line).collect()
    };
    let [passed, failed] = [named(&["PASSED"]), named(&["FAILED", "ERROR"])];
    assert!(passed.len() > 100, "the tests did not run: {text}");
    [passed, failed]
}

fn listed(library: &Library) -> BTreeMap<String, String> {
    let path = root().join(format!("tests/rows/{}-py.tsv", library.name));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .collect()
}

fn main() -> ExitCode {
    let mut good = true;
    for library in &LIBRARIES {
        let single = Standalone::start_9_1();
        let cluster = RealCluster::start(Version::V9_1, 3, 0);
        let keyway = Keyway::start(&cluster);
        let [plain, tls] = library.schemes;
        println!("{} {}: on one server", library.name, library.version);
        let [passed, _] = tests(
            library,
            &format!("{plain}://127.0.0.1:{}/0", single.node().port()),
        );
        println!("{} {}: through Keyway", library.name, library.version);
        let ca = keyway.ca().display();
        let url = format!("{tls}://127.0.0.1:{}/0?ssl_ca_certs={ca}", keyway.port());
        let [_, failed] = tests(library, &url);
        let known = listed(library);
        let lost: BTreeSet<&String> = failed
            .keys()
            .filter(|name| passed.contains_key(*name))
            .collect();
        for name in lost.iter().filter(|name| !known.contains_key(**name)) {
            let says = failed.get(*name).map_or("", String::as_str);
            println!("fails, and is not listed: {name}\t{says}");
            good = false;
        }
        for name in known.keys().filter(|name| !lost.contains(*name)) {
            println!("is listed, and does not fail: {name}");
            good = false;
        }
        println!(
            "{} {}: {} of {} that pass on a server pass through Keyway; {} are listed with a reason",
            library.name,
            library.version,
            passed.len() - lost.len(),
            passed.len(),
            known.len()
        );
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
