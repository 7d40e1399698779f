//! The tests in the source distributions of valkey-py and redis-py, the asyncio ones too, run by
//! pytest. Knows nothing of Keyway: it is given a URL.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use crate::outcome::{Outcomes, folder, run};

/// A Python library whose source distribution has tests.
pub(crate) struct Library {
    /// Its name in the package index.
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// The schemes of its URLs, without and with TLS.
    pub(crate) schemes: [&'static str; 2],
    /// What the tests keep about the server, in their `conftest.py`.
    info: &'static str,
    /// Folders and files with tests of commands. The others are of parts of the library, or start
    /// sentinels, clusters and modules that one server is not.
    files: &'static [&'static str],
}

pub(crate) const VALKEY: Library = Library {
    package: "valkey",
    version: "6.1.1",
    schemes: ["valkey", "valkeys"],
    info: "VALKEY_INFO",
    files: &[
        "tests/test_commands.py",
        "tests/test_encoding.py",
        "tests/test_function.py",
        "tests/test_lock.py",
        "tests/test_monitor.py",
        "tests/test_pipeline.py",
        "tests/test_pubsub.py",
        "tests/test_scripting.py",
        "tests/test_asyncio/test_commands.py",
        "tests/test_asyncio/test_encoding.py",
        "tests/test_asyncio/test_lock.py",
        "tests/test_asyncio/test_monitor.py",
        "tests/test_asyncio/test_pipeline.py",
        "tests/test_asyncio/test_pubsub.py",
        "tests/test_asyncio/test_scripting.py",
    ],
};

pub(crate) const REDIS: Library = Library {
    package: "redis",
    version: "8.1.0",
    schemes: ["redis", "rediss"],
    info: "REDIS_INFO",
    files: VALKEY.files,
};

const NEEDS: [&str; 6] = [
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "numpy",
    "mock",
    "packaging",
];

/// Says how each test ended, one line each, and takes the server for one that is no cluster, which
/// is what most tests are written for. redis-py's take plain connections whatever the URL says.
const PLUGIN: &str = "\
import os
import pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    import tests.conftest as conftest
    conftest.INFO['cluster_enabled'] = False
    secure = '?ssl_ca_certs=' in session.config.getoption('--PACKAGE-url')
    if secure and hasattr(conftest, 'SSLConnection'):
        conftest.Connection = conftest.SSLConnection

def pytest_runtest_logreport(report):
    if report.skipped or (report.passed and report.when != 'call'):
        return
    crash = getattr(report.longrepr, 'reprcrash', None)
    says = crash.message if crash else str(report.longrepr or '')
    says = ' '.join(says.split())[:200]
    with open(os.environ['KEYWAY_OUTCOMES'], 'a') as file:
        file.write(f'{report.outcome}\\t{report.nodeid}\\t{says}\\n')
";

/// Runs the tests against `url`: those named, or all of the library's files.
pub(crate) fn outcomes(library: &Library, url: &str, only: &[&String]) -> Outcomes {
    let (source, python) = install(library);
    let told = source.join("outcomes.tsv");
    let _ = fs::remove_file(&told);
    let log = File::create(source.join("pytest.log")).unwrap();
    let mut command = Command::new(&python);
    command
        .args(["-m", "pytest", "-q", "--tb", "line", "--timeout", "20"])
        .args(["-p", "no:cacheprovider", "-p", "keyway_plugin"])
        .args(["-o", "asyncio_mode=auto"])
        .arg(format!("--{}-cluster-nodes=1", library.package))
        .arg(format!("--{}-url={url}", library.package))
        .env("PYTHONPATH", &source)
        .env("KEYWAY_OUTCOMES", &told)
        .current_dir(&source)
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    if only.is_empty() {
        command.args(library.files);
    } else {
        command.args(only);
    }
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("pytest: {error}"));
    // 1 is that a test failed, 2 and above that pytest did not get to the end.
    let log = source.join("pytest.log");
    let done = matches!(status.code(), Some(0 | 1));
    assert!(done, "pytest: {status}, see {}", log.display());
    let text = fs::read_to_string(&told).unwrap_or_default();
    let mut outcomes = Outcomes::default();
    for line in text.lines() {
        let mut words = line.splitn(3, '\t');
        let (Some(outcome), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let says = words.next().unwrap_or_default();
        outcomes.add(name, (outcome != "passed").then_some(says));
    }
    outcomes
}

/// The library's unpacked source, and a Python that has it and what its tests need.
fn install(library: &Library) -> (PathBuf, PathBuf) {
    let folder = folder();
    let name = format!("{}-{}", library.package, library.version);
    let environment = folder.join(format!("{name}-python"));
    let python = environment.join("bin/python");
    let source = folder.join(&name);
    if !source.join("installed").exists() {
        let pip = |words: &[&str]| {
            run(Command::new(&python)
                .args(["-m", "pip"])
                .args(words)
                .current_dir(&folder));
        };
        run(Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment));
        pip(&[&["install", "-q"], &NEEDS[..]].concat());
        let wanted = format!("{}=={}", library.package, library.version);
        pip(&[
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            library.package,
            &wanted,
        ]);
        run(Command::new("tar")
            .args(["xzf", &format!("{name}.tar.gz")])
            .current_dir(&folder));
        pip(&["install", "-q", &format!("./{name}")]);
        fs::write(source.join("installed"), "").unwrap();
    }
    let plugin = PLUGIN
        .replace("INFO", library.info)
        .replace("PACKAGE", library.package);
    fs::write(source.join("keyway_plugin.py"), plugin).unwrap();
    (source, python)
}
