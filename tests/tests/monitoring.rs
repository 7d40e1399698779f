//! Rules, runbooks and dashboards under `deploy/`: their expressions are right, their alerts tested, and
//! every metric, label and value in them is one that the binary has.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keyway_tests::run_to_end;
use keyway_tests::tools::{listed_metrics, root, tool};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
/// What an on-call engineer can read at three in the morning.
const ALERTS_MAX: usize = 15;
/// Labels that Prometheus gives, and those whose values are no closed set.
const FREE_LABELS: [&str; 7] = [
    "job",
    "namespace",
    "instance",
    "cluster",
    "le",
    "command",
    "version",
];
/// What a query asks for that is about a cluster.
const CHOSEN_CLUSTER: &str = "cluster=~\"$cluster\"";
const DASHBOARDS: [&str; 4] = ["overview", "upstream", "clients", "heat"];

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> String {
    read("deploy/prometheus/rules.yml")
}

/// What stands behind `key` on lines of its own.
fn all<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim_start);
    lines.filter_map(|line| line.strip_prefix(key)).collect()
}

#[track_caller]
fn promtool(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new(tool("KEYWAY_PROMTOOL"));
    let said = run_to_end(command.current_dir(folder).args(arguments), LIMIT);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[track_caller]
fn python(script: &Path, argument: &Path) {
    let mut command = Command::new(tool("KEYWAY_PYTHON"));
    let said = run_to_end(command.arg("-B").arg(script).arg(argument), LIMIT);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(format!("deploy/grafana/{name}.json"))).unwrap()
}

/// The panels that show something; rows do not.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard)
        .into_iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    targets
        .chain(annotations)
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

/// What stands between backticks in the runbooks and is a question for Prometheus.
fn runbook_expressions() -> Vec<String> {
    let mut found = Vec::new();
    for path in runbooks() {
        let text = read(&path);
        let spans = text.split('`').skip(1).step_by(2);
        let asks = |span: &&str| {
            ["keyway_", "process_", "namespace_job:"]
                .iter()
                .any(|start| span.contains(start))
        };
        found.extend(spans.filter(asks).map(str::to_owned));
    }
    found
}

fn runbooks() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs/runbooks")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every expression outside of the rules, with its origin.
fn questions() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for name in DASHBOARDS {
        let found = expressions(&dashboard(name));
        all.extend(found.into_iter().map(|expr| (name.to_owned(), expr)));
    }
    let runbooks = runbook_expressions().into_iter();
    all.extend(runbooks.map(|expr| ("a runbook".to_owned(), expr)));
    assert!(all.len() > 60, "only {} expressions were found", all.len());
    all
}

#[test]
fn every_alert_fires_and_ends_as_its_unit_test_says() {
    let folder = root().join("deploy/prometheus");
    promtool(&folder, &["check", "rules", "rules.yml"]);
    promtool(&folder, &["test", "rules", "rules_test.yml"]);
    let text = rules();
    let alerts = all(&text, "- alert: ");
    assert!(
        !alerts.is_empty() && alerts.len() <= ALERTS_MAX,
        "{alerts:?}"
    );
    let tests = read("deploy/prometheus/rules_test.yml");
    for alert in alerts {
        let fires = format!("alertname=\"{alert}\"");
        assert!(tests.contains(&fires), "no unit test sees {alert} fire");
    }
}

#[test]
fn every_alert_has_a_page_that_says_what_to_do() {
    let text = rules();
    let alerts = all(&text, "- alert: ");
    let urls = all(&text, "runbook_url: ");
    assert_eq!(alerts.len(), urls.len());
    let pages: BTreeSet<_> = runbooks().into_iter().collect();
    let mut named = BTreeSet::new();
    for (alert, url) in alerts.iter().zip(urls) {
        assert_eq!(url, format!("docs/runbooks/{alert}.md"));
        let page = read(url);
        for part in [
            "# ",
            "\n## What it means\n",
            "\n## How to look\n",
            "\n## What to do\n",
        ] {
            assert!(page.contains(part), "{url} lacks {part:?}");
        }
        assert!(page.starts_with(&format!("# {alert}\n")), "{url}");
        named.insert(root().join(url));
    }
    assert_eq!(pages, named, "a page without an alert");
}

#[test]
fn every_expression_is_one_for_prometheus() {
    let folder = TempDir::new().unwrap();
    let wrapped: Vec<Value> = questions()
        .iter()
        .enumerate()
        .map(|(number, (origin, expr))| {
            let expr = expr.replace("$__rate_interval", "5m");
            json!({"record": format!("test:{}:{number}", origin.replace(' ', "_")), "expr": expr})
        })
        .collect();
    let rules = json!({"groups": [{"name": "wrapped", "rules": wrapped}]});
    // JSON is YAML.
    fs::write(folder.path().join("wrapped.yml"), rules.to_string()).unwrap();
    promtool(folder.path(), &["check", "rules", "wrapped.yml"]);
}

#[test]
fn dashboards_are_what_the_script_writes() {
    let folder = TempDir::new().unwrap();
    python(&root().join("deploy/grafana/generate.py"), folder.path());
    for name in DASHBOARDS {
        let written = fs::read_to_string(folder.path().join(format!("{name}.json"))).unwrap();
        assert!(
            written == read(format!("deploy/grafana/{name}.json")),
            "{name}.json is old: run python3 deploy/grafana/generate.py"
        );
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        DASHBOARDS.len()
    );
}

/// What Grafana's own linter asks for.
#[test]
fn dashboards_are_readable_anywhere() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(
                !title.is_empty() && titles.insert(title),
                "{name}: {title:?} twice"
            );
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{name}: {title}"
            );
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(
                unit.is_some_and(|unit| !unit.is_empty()),
                "{name}: {title} has no unit"
            );
            for target in panel["targets"].as_array().unwrap() {
                assert_ne!(target["legendFormat"], "", "{name}: {title}");
                let expr = target["expr"].as_str().unwrap();
                let bare = ["rate(", "increase("]
                    .iter()
                    .any(|call| expr.contains(call));
                assert!(
                    !bare || expr.contains("[$__rate_interval]"),
                    "{name}: {title}: a rate over something else than $__rate_interval"
                );
            }
        }
    }
}

#[test]
fn every_metric_label_and_value_exists() {
    let metrics = known();
    let text = rules();
    let records: BTreeSet<_> = all(&text, "- record: ").into_iter().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    let tests = read("deploy/prometheus/rules_test.yml");
    let files = [("rules.yml", &text), ("rules_test.yml", &tests)];
    let files = files.map(|(name, text)| (name.to_owned(), text.clone()));
    for (origin, expr) in files.into_iter().chain(questions()) {
        for (word, rest) in words(&expr) {
            if word.contains(':') {
                if !records.contains(word) {
                    wrong.push(format!("{origin}: nothing records {word}"));
                }
            } else if word.starts_with("keyway_") || word.starts_with("process_") {
                seen += 1;
                let labels = metrics.get(word).or_else(|| metrics.get(base(word)));
                match labels {
                    None => wrong.push(format!("{origin}: there is no {word}")),
                    Some(labels) => wrong.extend(
                        unknown_labels(rest, labels).map(|what| format!("{origin}: {word}{what}")),
                    ),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 100, "only {seen} metrics were found");
}

/// The choice of a cluster counts for all that is about one: what the process has only once has no such
/// label, and what is recorded adds all clusters up.
#[test]
fn dashboards_can_be_of_one_cluster() {
    let listed = listed_metrics();
    let (mut filtered, mut others) = (0, 0);
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let cluster = variables.iter().find(|one| one["name"] == "cluster");
        let cluster = cluster.unwrap_or_else(|| panic!("{name} has no variable `cluster`"));
        assert_eq!(cluster["current"]["value"], json!(["$__all"]), "{name}");
        // Without several clusters no series has the label, and `.+` would find none of them.
        assert_eq!(cluster["allValue"], ".*", "{name}");
        for expr in expressions(&dashboard) {
            for (word, rest) in words(&expr) {
                let selector = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
                let chosen = selector.is_some_and(|(asks, _)| asks.contains(CHOSEN_CLUSTER));
                let metric = listed.iter().find(|metric| metric.name == base(word));
                let has_the_label =
                    metric.is_some_and(keyway_tests::tools::Listed::is_of_a_cluster);
                assert_eq!(chosen, has_the_label, "{name}: {word} in {expr}");
                filtered += usize::from(chosen);
                others += usize::from(!chosen);
            }
        }
    }
    assert!(
        filtered > 60 && others > 5,
        "{filtered} and {others} were found"
    );
}

/// Labels and their values, where these are a closed set, by metric.
fn known() -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let listed = listed_metrics().into_iter();
    let labels = |text: &str| -> BTreeMap<String, Vec<String>> {
        let labels = text.split(' ').filter(|label| !label.is_empty());
        labels
            .map(|label| {
                let (name, values) = label.split_once('=').unwrap_or((label, ""));
                (
                    name.to_owned(),
                    values.split('|').map(str::to_owned).collect(),
                )
            })
            .collect()
    };
    listed
        .map(|metric| (metric.name, labels(&metric.labels)))
        .collect()
}

/// A histogram's series are its name with one of these behind.
fn base(word: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| word.strip_suffix(end))
        .unwrap_or(word)
}

/// The words of an expression that can be names of metrics, each with what follows it.
fn words(expr: &str) -> Vec<(&str, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(start) = rest.find(part) {
        rest = &rest[start..];
        let (word, after) = rest.split_at(rest.find(|c| !part(c)).unwrap_or(rest.len()));
        let word = word.trim_end_matches(':');
        if word.contains("keyway_") || word.starts_with("process_") {
            found.push((word, after));
        }
        rest = after;
    }
    found
}

/// What a selector asks for that its metric does not have.
fn unknown_labels<'a>(
    rest: &'a str,
    labels: &'a BTreeMap<String, Vec<String>>,
) -> impl Iterator<Item = String> + 'a {
    let selector = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let matchers = selector.map_or("", |(inside, _)| inside).split(',');
    matchers.filter_map(|matcher| {
        let (name, value) = matcher.split_once(['=', '!'])?;
        if FREE_LABELS.contains(&name) {
            return None;
        }
        let value = value.trim_start_matches(['=', '~']).trim_matches('"');
        match labels.get(name) {
            None => Some(format!(" has no label {name}")),
            Some(known) => {
                let strange = |value: &&str| !known.iter().any(|known| known == value);
                let strange: Vec<_> = value.split('|').filter(strange).collect();
                (!strange.is_empty()).then(|| format!(" is never {name}={strange:?}"))
            }
        }
    })
}
