//! The style that matters, as a test: who may import whom, what pure crates must not know, how long
//! files may be, where documentation must stand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::path::{Path, PathBuf};

use keyway_tests::tools::root;

/// Which rooms each room may import. `tests` and `benches` may import all.
const IMPORTS: [(&str, &[&str]); 10] = [
    ("crates/resp", &[]),
    ("crates/command", &["resp"]),
    ("crates/topology", &["resp"]),
    ("crates/upstream", &["resp"]),
    ("crates/routing", &["resp", "command", "topology"]),
    ("crates/heat", &["topology"]),
    ("crates/session", &["resp", "command", "routing"]),
    (
        "crates/dataplane",
        &[
            "resp", "command", "topology", "routing", "session", "upstream",
        ],
    ),
    ("cluster-sim", &["resp", "command", "topology", "heat"]),
    (
        "proxy",
        &[
            "resp",
            "command",
            "topology",
            "routing",
            "session",
            "upstream",
            "dataplane",
            "heat",
            "cluster-sim",
        ],
    ),
];

const ROOMS: [&str; 11] = [
    "resp",
    "command",
    "topology",
    "routing",
    "session",
    "upstream",
    "dataplane",
    "heat",
    "cluster-sim",
    "keyway",
    "keyway-tests",
];

/// Crates that do IO, threads, clocks or chance, and so have no place under `crates/`.
const IMPURE_CRATES: [&str; 12] = [
    "tokio",
    "tokio-rustls",
    "rustls",
    "socket2",
    "hickory-resolver",
    "hyper",
    "arc-swap",
    "rand",
    "getrandom",
    "tracing",
    "rustix",
    "tempfile",
];

/// What pure code must not say; addresses as data are fine.
const IMPURE_WORDS: [&str; 14] = [
    "tokio::",
    "std::fs",
    "std::env",
    "std::process::Command",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "thread_rng",
    "getrandom",
    "std::io::stdin",
];

/// Lines a file may have; a flat table is exempt.
const FILE_LINES_MAX: usize = 800;
const FLAT_TABLES: [&str; 1] = ["crates/command/src/builtin.rs"];

fn rust_files(under: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(under)]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn all_rust_files() -> Vec<PathBuf> {
    let files: Vec<_> = ["crates", "cluster-sim", "proxy", "tests", "benches", "fuzz"]
        .iter()
        .flat_map(|room| rust_files(room))
        .collect();
    assert!(
        files.len() > 50,
        "the rooms were not found: {} files",
        files.len()
    );
    files
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The names under `[dependencies]` (and `[target...dependencies]`) of a manifest; tests may use more.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest))
        .unwrap_or_else(|error| panic!("{manifest}: {error}"));
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies"
                || (section.starts_with("target") && section.ends_with(".dependencies"));
        } else if inside && !line.starts_with('#') && line.contains('=') {
            names.extend(line.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    names
}

#[test]
fn rooms_import_only_what_the_design_allows() {
    let mut wrong = Vec::new();
    for (room, allowed) in IMPORTS {
        let names = dependencies(&format!("{room}/Cargo.toml"));
        let rooms = names.iter().filter(|name| ROOMS.contains(&name.as_str()));
        wrong.extend(
            rooms
                .filter(|name| !allowed.contains(&name.as_str()))
                .map(|name| format!("{room} imports {name}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_member_of_the_workspace_is_held_to_an_order() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once("]\n"))
        .unwrap()
        .0;
    let free = ["tests", "tests/simulation", "benches", "benches/micro"];
    for member in members
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split('"').next())
    {
        let known = free.contains(&member) || IMPORTS.iter().any(|(room, _)| *room == member);
        assert!(known, "{member} is not in the order of imports");
    }
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    for (room, _) in IMPORTS
        .iter()
        .filter(|(room, _)| room.starts_with("crates/"))
    {
        let names = dependencies(&format!("{room}/Cargo.toml"));
        let impure: Vec<_> = names
            .iter()
            .filter(|name| IMPURE_CRATES.contains(&name.as_str()))
            .collect();
        assert!(impure.is_empty(), "{room} depends on {impure:?}");
    }
}

#[test]
fn pure_crates_touch_nothing_of_the_world() {
    let mut wrong = Vec::new();
    for path in rust_files("crates")
        .iter()
        .filter(|path| shown(path).contains("/src/"))
    {
        // A crate's tests may read the files they compare with.
        let of_tests = path.ends_with("tests.rs") || path.ends_with("testing.rs");
        if of_tests || shown(path).contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let product = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        for (number, line) in product.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let words = IMPURE_WORDS.iter().filter(|word| code.contains(**word));
            wrong.extend(words.map(|word| format!("{}:{}: {word}", shown(path), number + 1)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Faults are planted by the simulation alone: the hosts of the proxy and of every other room leave
/// them where they are.
#[test]
fn nobody_but_the_simulation_plants_faults() {
    let plants = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.contains("has_planted") || text.contains("Planted")
    };
    for path in ["proxy", "benches", "cluster-sim"].map(rust_files).concat() {
        assert!(!plants(&path), "{} plants a fault", shown(&path));
    }
    let simulation = rust_files("tests/simulation");
    assert!(
        simulation.iter().any(plants),
        "the faults are planted nowhere"
    );
    // Nor does a network of the proxy's ask its drivers for one: the trait's own says none.
    let asks = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.matches("fn driver_fault").count()
    };
    assert_eq!(rust_files("proxy").iter().map(asks).sum::<usize>(), 1);
}

#[test]
fn files_are_short_enough_to_read() {
    let long = |path: &PathBuf| {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        (lines > FILE_LINES_MAX && !FLAT_TABLES.contains(&shown(path).as_str()))
            .then(|| format!("{}: {lines} lines", shown(path)))
    };
    let long: Vec<_> = all_rust_files().iter().filter_map(long).collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut silent = Vec::new();
    for path in all_rust_files() {
        let is_root = path.ends_with("lib.rs") || path.ends_with("main.rs");
        let text = fs::read_to_string(&path).unwrap();
        if is_root && (!text.starts_with("//!") || text.starts_with("//! placeholder")) {
            silent.push(shown(&path));
        }
    }
    assert!(
        silent.is_empty(),
        "no documentation at the top of {silent:#?}"
    );
}

#[test]
fn no_file_is_named_mod() {
    let found: Vec<_> = all_rust_files()
        .iter()
        .filter(|path| path.ends_with("mod.rs"))
        .map(|path| shown(path))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn every_member_obeys_the_workspace_lints() {
    for (room, _) in IMPORTS.iter().chain(&[
        ("tests", &[][..]),
        ("tests/simulation", &[][..]),
        ("benches", &[][..]),
        ("benches/micro", &[][..]),
    ]) {
        let manifest = fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{room}/Cargo.toml lacks the workspace's lints"
        );
    }
}
