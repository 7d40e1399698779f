//! A real Prometheus with the shipped rules watches a real Keyway: the cluster is lost, the alerts
//! fire; it comes back, and they end.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use keyway_tests::ports::{self, Port};
use keyway_tests::tools::{root, tool};
use keyway_tests::{Keyway, RealCluster, Settings, Signal, Version, http_get, signal, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// What the minutes and hours of the rules become: a test has no hours.
const WINDOW: &str = "8s";

struct Prometheus {
    child: Child,
    port: Port,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes `admin` every second and evaluates the shipped rules as often.
    fn start(admin: &str) -> Self {
        let (port, folder) = (ports::reserve(), TempDir::new().unwrap());
        let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
        fs::write(folder.path().join("rules.yml"), quickened(&rules)).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n  - job_name: keyway\n    static_configs: [{{targets: [\"{admin}\"]}}]\n"
        );
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new(tool("KEYWAY_PROMETHEUS"))
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}/data",
                folder.path().display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            _folder: folder,
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let (_, body) = http_get(&format!("127.0.0.1:{}", self.port.number()), path).ok()?;
        // The body may come in chunks, each with its length before it.
        let json = body.get(body.find('{')?..=body.rfind('}')?)?;
        serde_json::from_str(json).ok()
    }

    fn firing(&self) -> BTreeSet<String> {
        let answer = self.get("/api/v1/alerts").unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned();
        let firing = alerts.unwrap_or_default().into_iter();
        firing
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The value of a series, if there is one.
    fn value(&self, name: &str) -> Option<f64> {
        let answer = self.get(&format!("/api/v1/query?query={name}"))?;
        answer["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        signal(&self.child, Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The rules with every range and every `for` made short.
fn quickened(rules: &str) -> String {
    let mut lines = Vec::new();
    for line in rules.lines() {
        if line.trim_start().starts_with("for: ") {
            lines.push(line.split("for: ").next().unwrap().to_owned() + "for: 1s");
            continue;
        }
        let mut parts = line.split('[');
        let mut quick = parts.next().unwrap().to_owned();
        for part in parts {
            let (_, rest) = part.split_once(']').unwrap();
            quick.push_str(&format!("[{WINDOW}]{rest}"));
        }
        lines.push(quick);
    }
    lines.join("\n") + "\n"
}

#[test]
fn alerts_fire_when_the_cluster_is_lost_and_end_when_it_is_back() {
    let mut cluster = RealCluster::start(Version::V9_1, 3, 0);
    let settings = Settings {
        limits: "deadline_ms = 500".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let prometheus = Prometheus::start(&keyway.admin());

    let over = Arc::new(AtomicBool::new(false));
    let (mut client, ended) = (keyway.client(), Arc::clone(&over));
    let traffic = thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            for key in ["a", "b", "c", "d"] {
                let _ = client.cmd(&["SET", key, "v"]);
            }
        }
    });
    wait_until("the recording rules to have values", 30, || {
        let rate = prometheus.value("namespace_job:keyway_requests:rate5m");
        let failures = prometheus.value("namespace_job:keyway_failures:ratio_rate1h");
        rate.is_some_and(|rate| rate > 0.0) && failures.is_some_and(|share| share < 1e-9)
    });
    assert_eq!(prometheus.firing(), BTreeSet::new(), "nothing is wrong yet");

    (0..3).for_each(|index| cluster.node_mut(index).kill());
    let expected = [
        "KeywayTopologyStale",
        "KeywayErrorBudgetBurnFast",
        "KeywayNodeConnectsFail",
    ];
    wait_until("the alerts to fire", 40, || {
        let firing = prometheus.firing();
        expected.iter().all(|alert| firing.contains(*alert))
    });
    let firing = prometheus.firing();
    assert!(
        !firing.contains("KeywayDown"),
        "Keyway itself lives: {firing:?}"
    );

    (0..3).for_each(|index| cluster.node_mut(index).restart());
    wait_until("the alerts to end", 60, || prometheus.firing().is_empty());
    over.store(true, Ordering::Relaxed);
    traffic.join().unwrap();
}
