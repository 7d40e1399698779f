//! The list of metrics is what `/metrics` serves, its page is fresh, and its names are as Prometheus
//! wants them. `UPDATE_DOCS=1 cargo test -p keyway-tests --test metrics_doc` writes the page anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use keyway_tests::tools::{listed_metrics, root, tool};
use keyway_tests::{Keyway, RealCluster, Version, text, wait_until};

const HEAD: &str = "# Metrics

What the admin port serves under `/metrics`, as `keyway --list-metrics` prints it. Written by a test; do not edit.
[The rules](../deploy/prometheus/rules.yml) and [the dashboards](../deploy/grafana) use these names and no others.

A label whose values are a closed set has them here. `command` is a name of [the table of commands](commands.md), or `other`; a command
has no line before its first use. Everything is counted since the start of the process; nothing here names a key, a value or a client.

With [several clusters](tenants.md), every metric that is about one has the label `cluster` beside these; otherwise there is no such label.

| metric | type | labels | meaning |
|---|---|---|---|
";

fn document() -> String {
    let mut page = HEAD.to_owned();
    for metric in listed_metrics() {
        let labels: Vec<String> = metric.labels.split(' ').map(shown).collect();
        let (name, kind, help) = (metric.name, metric.kind, metric.help);
        let _ = writeln!(
            page,
            "| `{name}` | {kind} | {} | {help} |",
            labels.join(" ")
        );
    }
    page
}

fn shown(label: &str) -> String {
    match label.split_once('=') {
        None if label.is_empty() => String::new(),
        None => format!("`{label}`"),
        Some((name, values)) => {
            let values: Vec<_> = values
                .split('|')
                .map(|value| format!("`{value}`"))
                .collect();
            format!("`{name}`: {}", values.join(", "))
        }
    }
}

#[test]
fn the_metrics_page_is_true() {
    let path = root().join("docs/metrics.md");
    let text = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).expect("the page can be written");
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == text,
        "docs/metrics.md is old: run UPDATE_DOCS=1 cargo test -p keyway-tests --test metrics_doc"
    );
}

#[test]
fn a_live_page_has_what_is_listed_and_passes_promtool() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    assert_eq!(text(&keyway.client().cmd(&["SET", "k", "v"])), "OK");
    // Nodes are watched while somebody looks.
    wait_until("what nodes say of themselves", 20, || {
        let _ = keyway.http("/status").expect("/status");
        let (_, page) = keyway.http("/metrics").expect("/metrics");
        page.contains("keyway_node_commands_total{")
    });
    let (_, page) = keyway.http("/metrics").expect("/metrics");

    let served: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let listed = listed_metrics();
    let listed: BTreeSet<_> = listed.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(served, listed);

    let mut promtool = Command::new(tool("KEYWAY_PROMTOOL"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = promtool.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, page.as_bytes()).expect("promtool reads");
    drop(input);
    let said = promtool.wait_with_output().expect("promtool ends");
    let complaints = [said.stdout, said.stderr].concat();
    assert!(
        said.status.success() && complaints.is_empty(),
        "{}",
        String::from_utf8_lossy(&complaints)
    );
}
