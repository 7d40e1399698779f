//! The commands `cluster-sim scale` and `choices`, as somebody runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scenarios")
        .join(name)
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cluster-sim"))
        .args(arguments)
        .output()
        .unwrap()
}

fn figures(path: &Path, seed: &str) -> Value {
    let output = run(&["scale", path.to_str().unwrap(), "--seed", seed, "--json"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim().lines().count(), 1, "one object: {said}");
    serde_json::from_str(&said).unwrap()
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} in {figures}"))
}

/// The scenario of the README on a tenth of its hosts, with a tenth of its neighbours.
fn smaller(folder: &TempDir) -> PathBuf {
    let text = fs::read_to_string(scenario("zero-to-five-million.toml")).unwrap();
    let fewer = [
        ("count = 2000\n", "count = 200\n"),
        ("count = 15000\n", "count = 1500\n"),
        ("count = 40\n", "count = 4\n"),
    ];
    let text = fewer.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from:?}");
        text.replace(from, to)
    });
    let path = folder.path().join("smaller.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn five_million_requests_a_second_are_reached_in_twelve_minutes() {
    let folder = TempDir::new().unwrap();
    let path = smaller(&folder);
    for seed in ["1", "2"] {
        let figures = figures(&path, seed);
        assert!(number(&figures, "reached_rps") >= 5e6, "{figures}");
        assert!(number(&figures, "reached_at_s") <= 720.0, "{figures}");
        assert!(number(&figures, "doubling_s_max") <= 120.0, "{figures}");
        assert!(number(&figures, "p50_ms_max") < 1.0, "{figures}");
        assert!(number(&figures, "p99_recovery_s_max") <= 30.0, "{figures}");
        assert!(number(&figures, "starved") < 0.5, "{figures}");
        assert!(number(&figures, "moves") > 16_384.0, "{figures}");
        assert!(number(&figures, "cost_ratio") < 1.0, "{figures}");
    }
}

#[test]
fn busy_hosts_send_nodes_away_and_who_is_quiet_notices_nothing() {
    for seed in ["1", "3"] {
        let figures = figures(&scenario("noisy-neighbour.toml"), seed);
        assert!(number(&figures, "evictions") >= 1.0, "{figures}");
        assert!(number(&figures, "failed") < 0.5, "{figures}");
        assert!(number(&figures, "host_full_s_max") < 0.5, "{figures}");
        let p99 = number(&figures, "p99_ms_max");
        assert!(p99 < number(&figures, "p99_ms_bound"), "{figures}");
    }
}

#[test]
fn the_files_are_written_and_the_chart_is_shown() {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(scenario("flash-sale.toml")).unwrap();
    let path = folder.path().join("short.toml");
    let short = text.replace("duration_s = 3000", "duration_s = 60");
    assert_ne!(short, text);
    fs::write(&path, short.replace("count = 900", "count = 90")).unwrap();
    let out = folder.path().join("out");
    let output = run(&[
        "scale",
        path.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("demand rps") && said.contains("cost_ratio"),
        "{said}"
    );
    assert!(!said.contains('\x1b'), "nobody watches: {said}");
    // Drawn as it goes, it ends as the same.
    let arguments = ["scale", path.to_str().unwrap(), "--live", "--out"];
    let output = run(&[&arguments[..], &[out.to_str().unwrap()]].concat());
    let live = String::from_utf8(output.stdout).unwrap();
    let frames: Vec<&str> = live.split("\x1b[8A").collect();
    assert!(frames.len() > 30, "{} frames", frames.len());
    assert_eq!(frames.last(), Some(&&*said));
    let filled = |frame: &&str| {
        frame
            .chars()
            .filter(|c| ('\u{2581}'..='\u{2588}').contains(c))
            .count()
    };
    let (first, middle) = (filled(&frames[0]), filled(&frames[frames.len() / 2]));
    assert!(
        first < middle && middle < filled(&&*said),
        "{first}, {middle}"
    );
    assert_eq!(
        fs::read_to_string(out.join("short.csv"))
            .unwrap()
            .lines()
            .count(),
        62
    );
    assert!(
        fs::read_to_string(out.join("short.svg"))
            .unwrap()
            .starts_with("<svg")
    );
}

#[test]
fn a_scenario_with_a_mistake_is_refused_with_its_place() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("wrong.toml");
    let text = fs::read_to_string(scenario("daily-wave.toml")).unwrap();
    fs::write(&path, text.replace("provision_s", "provision")).unwrap();
    let output = run(&["scale", path.to_str().unwrap(), "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("provision"),
        "{said}"
    );
}

#[test]
fn the_table_of_choices_is_printed() {
    let output = run(&["choices", "--seeds", "2", "--hosts", "50"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("better of two") && said.contains("theory"),
        "{said}"
    );
}
