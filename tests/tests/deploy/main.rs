//! What is under `deploy/` is right as far as that can be seen without a cluster: schemas, the rules of
//! restricted pods, names that must fit each other, configurations that Keyway takes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod chart;
mod files;
mod pods;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keyway_tests::tools::{root, tool};
use keyway_tests::{Output, run_to_end};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);
const OVERLAYS: [&str; 3] = ["deployment", "daemonset", "sidecar"];
/// The oldest that has all fields we use, and the newest that the schemas know.
const KUBERNETES: [&str; 2] = ["1.31", "1.37"];
/// Kinds that Kubernetes itself does not know; their makers' schemas come by npm.
const FOREIGN: [&str; 2] = ["cert-manager.io/", "monitoring.coreos.com/"];

fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let mut command = Command::new(program.as_ref());
    for name in ["KEYWAY_KUBECTL", "NODE_PATH"] {
        command.env(name, tool(name));
    }
    run_to_end(command.current_dir(root()).args(arguments), LIMIT)
}

#[track_caller]
fn succeeds(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let said = run(program, arguments);
    assert_eq!(
        said.code,
        Some(0),
        "{arguments:?}\n{}{}",
        said.stdout,
        said.stderr
    );
    said.stdout
}

/// A program of the tests' Python folder.
fn beside_python(name: &str) -> std::path::PathBuf {
    tool("KEYWAY_PYTHON").with_file_name(name)
}

/// Everything we ship, each with its name: the overlays, and the chart in both of its kinds.
fn shipped() -> BTreeMap<String, Vec<Value>> {
    let arguments = ["-B", "tests/deploy/manifests.py", "shipped"];
    let said = succeeds(tool("KEYWAY_PYTHON"), &arguments);
    let all: BTreeMap<String, Vec<Value>> = serde_json::from_str(&said).unwrap();
    assert_eq!(all.len(), OVERLAYS.len() + charts().len());
    for overlay in OVERLAYS {
        assert!(all.contains_key(overlay), "{overlay}");
    }
    all
}

fn charts() -> [(&'static str, Option<&'static str>); 2] {
    let daemonset = "deploy/helm/rendered/daemonset.values.yaml";
    [("deployment", None), ("daemonset", Some(daemonset))]
}

fn of_kind<'a>(resources: &'a [Value], kind: &str) -> Vec<&'a Value> {
    resources.iter().filter(|one| one["kind"] == kind).collect()
}

fn workload(resources: &[Value]) -> &Value {
    let pods: Vec<_> = resources
        .iter()
        .filter(|one| one["spec"]["template"].is_object())
        .collect();
    assert_eq!(pods.len(), 1);
    pods[0]
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    array(&pod["initContainers"])
        .iter()
        .chain(array(&pod["containers"]))
}

/// Keyway's own container, among the init containers when it is a sidecar.
fn keyway_container(pod: &Value) -> &Value {
    containers(pod).find(|one| one["name"] == "keyway").unwrap()
}

fn is_foreign(resource: &Value) -> bool {
    let version = resource["apiVersion"].as_str().unwrap();
    FOREIGN.iter().any(|group| version.starts_with(group))
}

#[test]
fn kubernetes_takes_every_manifest() {
    let folder = TempDir::new().unwrap();
    for (name, resources) in shipped() {
        let (foreign, own): (Vec<&Value>, Vec<&Value>) =
            resources.iter().partition(|one| is_foreign(one));
        assert!(own.len() >= 4 && !foreign.is_empty(), "{name}");

        let path = folder.path().join("own.yaml");
        let documents: Vec<_> = own.iter().map(ToString::to_string).collect();
        fs::write(&path, documents.join("\n---\n")).unwrap();
        for version in KUBERNETES {
            let path = path.to_str().unwrap();
            let validate = beside_python("kubernetes-validate");
            let said = run(&validate, &["-k", version, "--strict", path]);
            let passed =
                said.stdout.matches(" passed ").count() + said.stderr.matches(" passed ").count();
            assert!(
                said.code == Some(0) && passed == own.len(),
                "{name}, Kubernetes {version}:\n{}{}",
                said.stdout,
                said.stderr
            );
        }
        let said = by_their_makers(&json!(foreign));
        assert_eq!(said.code, Some(0), "{name}: {}", said.stderr);
    }
}

/// Held against the schemas of cert-manager and of the Prometheus operator.
fn by_their_makers(resources: &Value) -> Output {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("foreign.json");
    fs::write(&path, resources.to_string()).unwrap();
    let arguments = ["tests/deploy/crds.mjs", path.to_str().unwrap()];
    run(tool("KEYWAY_NODE"), &arguments)
}

/// Or the check of the others would say nothing.
#[test]
fn a_misspelt_field_of_a_foreign_kind_is_seen() {
    let all: Vec<Value> = shipped().into_values().flatten().collect();
    for (kind, right, wrong, complaint) in [
        (
            "ServiceMonitor",
            "interval",
            "intervall",
            "/intervall is not in",
        ),
        (
            "PodMonitor",
            "targetLabel",
            "targetLable",
            "/targetLable is not in",
        ),
        ("PrometheusRule", "for", "fro", "/fro is not in"),
        ("Certificate", "issuerRef", "issuer", "property issuerRef"),
        (
            "Certificate",
            "algorithm",
            "algorythm",
            "/algorythm is not in",
        ),
        ("Issuer", "ca", "authority", "/authority is not in"),
    ] {
        let text = json!(of_kind(&all, kind)).to_string();
        let misspelt = text.replace(&format!("\"{right}\":"), &format!("\"{wrong}\":"));
        assert_ne!(text, misspelt, "no {kind} has {right}");
        let said = by_their_makers(&serde_json::from_str(&misspelt).unwrap());
        let seen = said.code == Some(1) && said.stderr.contains(complaint);
        assert!(seen, "{kind} with {wrong}: {}", said.stderr);
    }
}

/// By the patch of docs/kubernetes.md, for both.
#[test]
fn what_needs_an_operator_can_be_left_out() {
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    let mut blocks = page.split("\n```yaml\n").skip(1);
    let block = blocks.find(|block| block.contains("$patch: delete"));
    let (patch, _) = block.unwrap().split_once("```").unwrap();
    let folder = TempDir::new_in(root().join("target")).unwrap();
    for overlay in OVERLAYS {
        let mut text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - \
             ../../deploy/kustomize/overlays/{overlay}\npatches:\n"
        );
        for group in FOREIGN {
            text += &patch.replace("cert-manager.io", group.trim_end_matches('/'));
        }
        fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
        let path = folder.path().to_str().unwrap();
        let left = succeeds(tool("KEYWAY_KUBECTL"), &["kustomize", path]);
        let kinds: Vec<&str> = left
            .lines()
            .filter(|line| line.starts_with("apiVersion: "))
            .collect();
        assert!(kinds.len() >= 4, "{overlay}: {kinds:?}");
        let foreign = |kind: &&str| FOREIGN.iter().any(|group| kind.contains(group));
        assert!(!kinds.iter().any(foreign), "{overlay}: {kinds:?}");
    }
}
