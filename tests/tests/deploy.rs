//! What is under `deploy/` is right as far as that can be seen without a cluster: schemas, the rules of
//! restricted pods, names that must fit each other, configurations that Keyway takes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keyway_tests::tools::{keyway, listed_metrics, root, tool};
use keyway_tests::{Certificates, Output, run_to_end};
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

fn chart(values: Option<&str>, more: &[&str]) -> Output {
    let mut arguments = vec!["template", "keyway", "deploy/helm/keyway"];
    arguments.extend(["--namespace", "keyway"]);
    arguments.extend(values.map(|file| ["--values", file]).into_iter().flatten());
    arguments.extend(more);
    run(tool("KEYWAY_HELM"), &arguments)
}

#[test]
fn the_chart_refuses_values_that_it_does_not_have() {
    succeeds(
        tool("KEYWAY_HELM"),
        &["lint", "--strict", "deploy/helm/keyway"],
    );
    let wrong = ["kind=StatefulSet", "image.tga=1", "replicas=none"];
    let too_short = "terminationGracePeriodSeconds=25"; // as long as Keyway takes to end
    for wrong in wrong.into_iter().chain([too_short]) {
        let said = chart(None, &["--set", wrong]);
        let refused = said
            .stderr
            .contains("don't meet the specifications of the schema");
        assert!(said.code == Some(1) && refused, "{wrong}: {}", said.stderr);
    }
}

/// What the rendered charts do not show, for it is off there or says nothing else.
#[test]
fn the_chart_does_what_its_values_say() {
    let values = "priorityClassName=high,imagePullSecrets[0].name=registry,\
                  autoscaling.connections=0,tls.certManager.dnsNames[0]=valkey.example.com";
    let arguments = ["template", "one", "deploy/helm/keyway"];
    let more = ["--namespace", "cache", "--set", values];
    let text = succeeds(tool("KEYWAY_HELM"), &[&arguments[..], &more].concat());
    for line in [
        "      priorityClassName: high",
        "      imagePullSecrets:\n        - name: registry",
        "    - one\n    - one.cache\n    - one.cache.svc\n    - one.cache.svc.cluster.local\n    \
         - valkey.example.com",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    assert!(
        !text.contains("name: keyway_client_connections\n"),
        "{text}"
    );
}

/// They may be in one namespace, and in different ones under one Prometheus.
#[test]
fn two_releases_share_nothing() {
    let made = |release: &str| -> BTreeSet<String> {
        let arguments = ["template", release, "deploy/helm/keyway"];
        let text = succeeds(tool("KEYWAY_HELM"), &arguments);
        let named = |document: &str, what: &str| {
            let line = document.lines().find(|line| line.starts_with(what));
            line.map(|line| line.trim().to_owned()).unwrap()
        };
        let resources = text.split("\n---\n").map(|resource| {
            let [kind, name] = ["kind: ", "  name: "].map(|what| named(resource, what));
            format!("{kind}, {name}")
        });
        let secret = named(&text, "  secretName: ");
        resources.chain([secret]).collect()
    };
    let [one, two] = [made("one"), made("two")];
    assert!(
        one.len() > 8 && one.contains("secretName: one-tls"),
        "{one:?}"
    );
    assert_eq!(one.len(), two.len());
    assert!(one.is_disjoint(&two), "{one:?}\n{two:?}");
}

/// `UPDATE_DOCS=1` writes them anew.
#[test]
fn what_is_derived_is_fresh() {
    let mut derived = vec![
        (
            "deploy/kustomize/components/prometheus-rule/prometheusrule.yaml".to_owned(),
            prometheus_rule(),
        ),
        // A chart reads no file outside of its folder.
        (
            "deploy/helm/keyway/rules.yml".to_owned(),
            fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap(),
        ),
    ];
    for (name, values) in charts() {
        let said = chart(values, &[]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        derived.push((format!("deploy/helm/rendered/{name}.yaml"), said.stdout));
    }
    for (path, text) in derived {
        let full = root().join(&path);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&full, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&full).unwrap_or_default() == text,
            "{path} is old: run UPDATE_DOCS=1 cargo test -p keyway-tests --test deploy"
        );
    }
}

fn prometheus_rule() -> String {
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
    let mut text = "# Written by a test from deploy/prometheus/rules.yml; change it there.\n\
        apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: keyway\n  \
        labels:\n    app.kubernetes.io/name: keyway\nspec:\n"
        .to_owned();
    for line in rules.lines().skip_while(|line| line.starts_with('#')) {
        let indent = if line.is_empty() { "" } else { "  " };
        text.push_str(&format!("{indent}{line}\n"));
    }
    text
}

/// What the namespace enforces: the restricted profile of Kubernetes' pod security standards.
#[test]
fn pods_are_restricted_and_end_in_time() {
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert!(security["runAsUser"].as_u64().unwrap() > 0, "{name}");
        assert_eq!(
            security["seccompProfile"]["type"], "RuntimeDefault",
            "{name}"
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(key).is_none(), "{name}: {key}");
        }
        for volume in array(&pod["volumes"]) {
            let kinds = [
                "configMap",
                "secret",
                "downwardAPI",
                "emptyDir",
                "projected",
            ];
            assert!(
                kinds.iter().any(|kind| volume.get(kind).is_some()),
                "{name}: {volume}"
            );
        }
        for container in containers(pod) {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            assert!(
                container.get("lifecycle").is_none(),
                "{name}: hooks end no connection"
            );
            assert!(
                container["resources"]["limits"]["memory"].is_string(),
                "{name}"
            );
        }
    }
}

#[test]
fn names_fit_each_other() {
    for (name, resources) in shipped() {
        let workload = workload(&resources);
        let template = &workload["spec"]["template"];
        let pod = &template["spec"];
        let labels = template["metadata"]["labels"].as_object().unwrap();
        let fits = |selector: &Value| {
            let wanted = selector.as_object().unwrap();
            !wanted.is_empty()
                && wanted
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
        };
        assert!(fits(&workload["spec"]["selector"]["matchLabels"]), "{name}");
        let container = keyway_container(pod);
        let ports: Vec<_> = array(&container["ports"])
            .iter()
            .map(|port| &port["name"])
            .collect();
        for service in of_kind(&resources, "Service") {
            assert!(fits(&service["spec"]["selector"]), "{name}");
            for port in array(&service["spec"]["ports"]) {
                assert!(ports.contains(&&port["targetPort"]), "{name}: {port}");
            }
        }
        for monitor in of_kind(&resources, "PodMonitor") {
            assert!(fits(&monitor["spec"]["selector"]["matchLabels"]), "{name}");
            assert!(
                ports.contains(&&monitor["spec"]["podMetricsEndpoints"][0]["port"]),
                "{name}"
            );
        }
        for monitor in of_kind(&resources, "ServiceMonitor") {
            let wanted = &monitor["spec"]["selector"]["matchLabels"];
            let wanted = wanted.as_object().unwrap();
            let service = of_kind(&resources, "Service").into_iter().find(|service| {
                wanted
                    .iter()
                    .all(|(key, value)| service["metadata"]["labels"][key] == *value)
            });
            let port = &service.unwrap()["spec"]["ports"][0]["name"];
            assert_eq!(&monitor["spec"]["endpoints"][0]["port"], port, "{name}");
        }
        for kind in ["PodDisruptionBudget", "NetworkPolicy"] {
            for one in of_kind(&resources, kind) {
                let selector = one["spec"]
                    .get("selector")
                    .unwrap_or(&one["spec"]["podSelector"]);
                assert!(fits(&selector["matchLabels"]), "{name}: {kind}");
            }
        }
        mounts_fit(&name, pod, &resources);
    }
}

/// And whoever comes to another port of the pod may: a policy shuts what it does not name.
#[test]
fn metrics_are_for_monitoring_alone() {
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let policies = of_kind(&resources, "NetworkPolicy");
        let open: BTreeMap<&str, &Value> = policies
            .iter()
            .flat_map(|policy| array(&policy["spec"]["ingress"]))
            .flat_map(|rule| array(&rule["ports"]).iter().map(move |port| (rule, port)))
            .map(|(rule, port)| (port["port"].as_str().unwrap(), &rule["from"]))
            .collect();
        let namespace = "/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name";
        let who = open["admin"].pointer(namespace);
        assert_eq!(who, Some(&json!("monitoring")), "{name}");
        let sidecar = pod["initContainers"].is_array();
        for port in containers(pod).flat_map(|container| array(&container["ports"])) {
            let port = port["name"].as_str().unwrap();
            // A sidecar's clients are in its own pod.
            let within = sidecar && ["valkey", "reads"].contains(&port);
            assert_eq!(open.contains_key(port), !within, "{name}: {port}");
        }
    }
}

fn mounts_fit(name: &str, pod: &Value, resources: &[Value]) {
    let volumes = array(&pod["volumes"]);
    for mount in containers(pod).flat_map(|container| array(&container["volumeMounts"])) {
        assert!(
            volumes.iter().any(|one| one["name"] == mount["name"]),
            "{name}: {mount}"
        );
        // By subPath, neither a new certificate nor a new configuration would ever arrive.
        assert!(mount.get("subPath").is_none(), "{name}: {mount}");
    }
    for volume in volumes {
        if let Some(map) = volume["configMap"]["name"].as_str() {
            let maps = of_kind(resources, "ConfigMap");
            assert!(
                maps.iter().any(|one| one["metadata"]["name"] == map),
                "{name}: {map}"
            );
        }
        if let Some(secret) = volume["secret"]["secretName"].as_str() {
            let certificates = of_kind(resources, "Certificate");
            let made = certificates
                .iter()
                .any(|one| one["spec"]["secretName"] == secret);
            assert!(made, "{name}: nobody makes the Secret {secret}");
        }
    }
}

/// The same container everywhere, but for what makes it a sidecar.
#[test]
fn the_container_is_the_same_everywhere() {
    let mut seen: Option<Value> = None;
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let mut container = keyway_container(pod).clone();
        let is_sidecar = name == "sidecar";
        assert_eq!(
            container.get("restartPolicy").is_some(),
            is_sidecar,
            "{name}"
        );
        assert_eq!(
            container.get("readinessProbe").is_none(),
            is_sidecar,
            "{name}"
        );
        let mounts = container["volumeMounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["name"] != "keyway-pod");
        let fields = container.as_object_mut().unwrap();
        for differs in ["restartPolicy", "readinessProbe", "env", "resources"] {
            fields.remove(differs);
        }
        match &seen {
            None => seen = Some(container),
            Some(first) => assert_eq!(first, &container, "{name}"),
        }
    }
}

#[test]
fn every_pod_knows_its_zone() {
    const LABEL: &str = "metadata.labels['topology.kubernetes.io/zone']";
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let environment = array(&keyway_container(pod)["env"]).iter();
        let by_name = environment
            .filter(|one| one["name"] == "KEYWAY_ZONE")
            .any(|one| one["valueFrom"]["fieldRef"]["fieldPath"] == LABEL);
        let by_file = array(&pod["volumes"])
            .iter()
            .flat_map(|volume| array(&volume["downwardAPI"]["items"]))
            .any(|item| item["path"] == "zone" && item["fieldRef"]["fieldPath"] == LABEL);
        let configured = config_of(&resources).contains("zone_file = \"/etc/keyway/pod/zone\"");
        assert_eq!(by_file, configured, "{name}");
        assert!(by_name != by_file, "{name}: by the one or by the other");
    }
}

/// What the attributes of traces are made of.
#[test]
fn every_pod_knows_its_own_name() {
    let names = [
        ("NODE_NAME", "spec.nodeName"),
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
    ];
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let environment = array(&keyway_container(pod)["env"]);
        for (variable, field) in names {
            let found: Vec<&Value> = environment
                .iter()
                .filter(|one| one["name"] == variable)
                .map(|one| &one["valueFrom"]["fieldRef"]["fieldPath"])
                .collect();
            assert_eq!(found, [field], "{name}: {variable}");
        }
    }
    let reference = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    for (variable, _) in names {
        assert!(reference.contains(&format!("`{variable}`")), "{variable}");
    }
}

fn config_of(resources: &[Value]) -> String {
    let maps = of_kind(resources, "ConfigMap");
    assert_eq!(maps.len(), 1);
    maps[0]["data"]["keyway.toml"].as_str().unwrap().to_owned()
}

/// With the files that a pod has put where a test can have them.
#[test]
fn keyway_takes_every_configuration() {
    let certificates = Certificates::loopback();
    let folder = TempDir::new().unwrap();
    let zone = folder.path().join("zone");
    for (name, resources) in shipped() {
        // What the pod of a machine without zones has.
        fs::write(&zone, "").unwrap();
        let config = config_of(&resources)
            .replace(
                "/etc/keyway/tls/tls.crt",
                certificates.cert.to_str().unwrap(),
            )
            .replace(
                "/etc/keyway/tls/tls.key",
                certificates.key.to_str().unwrap(),
            )
            .replace("/etc/keyway/pod/zone", zone.to_str().unwrap());
        assert!(
            !config.contains("/etc/keyway"),
            "{name}: a file that no test knows"
        );
        let path = folder.path().join("keyway.toml");
        fs::write(&path, config).unwrap();
        let shown = succeeds(keyway(), &["check", "--config", path.to_str().unwrap()]);
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let ports = array(&keyway_container(pod)["ports"]).iter();
        for port in ports.map(|port| port["containerPort"].to_string()) {
            assert!(
                shown.contains(&format!(":{port}\"")),
                "{name}: {port}\n{shown}"
            );
        }
        ends_in_time(&name, pod, &shown);
    }
}

/// Keyway ends before Kubernetes would end it, and a sidecar does not wait for load balancers.
fn ends_in_time(name: &str, pod: &Value, shown: &str) {
    let (_, drain) = shown.split_once("\n[drain]\n").unwrap();
    let of = |key: &str| {
        let found = drain.lines().find_map(|line| line.strip_prefix(key));
        found
            .unwrap()
            .trim_start_matches(" = ")
            .trim_matches('"')
            .to_owned()
    };
    let grace_ms: u64 = of("grace_ms").parse().unwrap();
    let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(given * 1000 > grace_ms, "{name}: {given} s, {grace_ms} ms");
    let mode = match name {
        "sidecar" => "sidecar",
        _ => "deployment",
    };
    assert_eq!(of("mode"), mode, "{name}");
}

/// The kubelet restarts what has run for ten minutes without the pauses, up to five minutes, that it
/// puts between restarts that come sooner.
#[test]
fn a_cluster_that_is_down_is_waited_for() {
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let probe = &keyway_container(pod)["startupProbe"];
        let of = |key: &str| probe[key].as_u64().unwrap();
        let seconds = of("periodSeconds") * of("failureThreshold");
        assert!(seconds > 600, "{name}: {seconds} s");
    }
}

#[test]
fn the_pods_of_a_version_are_spread() {
    let mut seen = 0;
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        for spread in array(&pod["topologySpreadConstraints"]) {
            assert_eq!(
                spread["matchLabelKeys"],
                json!(["pod-template-hash"]),
                "{name}"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 4);
}

#[test]
fn what_scales_by_a_metric_names_one_that_exists() {
    let mut seen = 0;
    for (name, resources) in shipped() {
        for scaler in of_kind(&resources, "HorizontalPodAutoscaler") {
            let metrics = array(&scaler["spec"]["metrics"]).iter();
            let names: Vec<_> = metrics
                .filter_map(|one| one["pods"]["metric"]["name"].as_str())
                .collect();
            let listed = listed_metrics();
            let known = |metric: &&str| listed.iter().any(|one| one.name == **metric);
            assert!(
                !names.is_empty() && names.iter().all(known),
                "{name}: {names:?}"
            );
            assert!(
                workload(&resources)["spec"].get("replicas").is_none(),
                "{name}: two masters"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn yaml_is_tidy() {
    let rules = "{extends: default, rules: {line-length: disable, document-start: disable, \
                 braces: {max-spaces-inside: 1}, indentation: {indent-sequences: whatever}, \
                 comments: {min-spaces-from-content: 2}, \
                 trailing-spaces: {ignore: [deploy/helm/rendered/]}}}"; // by helm, in indented text
    let paths = [
        "deploy/kustomize",
        "deploy/prometheus",
        "deploy/helm/rendered",
    ];
    let mut arguments = vec!["--strict", "-d", rules];
    arguments.extend(paths);
    arguments.extend([
        "deploy/helm/keyway/values.yaml",
        "deploy/helm/keyway/Chart.yaml",
    ]);
    succeeds(beside_python("yamllint"), &arguments);
}

#[test]
fn the_image_is_built_as_it_should_be() {
    let path = "deploy/docker/Dockerfile";
    succeeds(beside_python("hadolint"), &["--strict-labels", path]);
    let text = fs::read_to_string(root().join(path)).unwrap();
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = workspace
        .split("rust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(text.contains(&format!("rust:{version}-")), "Rust {version}");
    for line in [
        "\nUSER 65532:65532\n",
        "\nEXPOSE 6379 6380 9121\n",
        "--locked",
    ] {
        assert!(text.contains(line), "{line:?}");
    }
    let last = text.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("scratch\n"), "the last stage: {last}");
}

#[test]
fn scripts_are_sound() {
    let scripts = [
        ".ci/run",
        "fuzz/run",
        "tests/chaos",
        "tests/compat",
        "tests/frameworks",
        "tests/image",
        "tests/install",
        "tests/run",
        "tests/simulate",
        "tests/suites",
    ];
    let mut arguments = vec!["--severity=warning"];
    arguments.extend(scripts);
    succeeds("shellcheck", &arguments);
}

/// With the paths of this machine in place of those of an installation.
#[test]
fn systemd_takes_the_unit() {
    let folder = TempDir::new().unwrap();
    let unit = fs::read_to_string(root().join("deploy/systemd/keyway.service")).unwrap();
    // A mistake is not put right by a restart; systemd asks the main process alone about that.
    assert!(unit.contains("\nRestartPreventExitStatus=2\n") && !unit.contains("\nExecStartPre="));
    let installed = unit.replace("/usr/local/bin/keyway", keyway().to_str().unwrap());
    let path = folder.path().join("keyway.service");
    fs::write(&path, installed).unwrap();
    let socket = folder.path().join("keyway.socket");
    fs::copy(root().join("deploy/systemd/keyway.socket"), &socket).unwrap();
    let (path, socket) = (path.to_str().unwrap(), socket.to_str().unwrap());
    let said = run("systemd-analyze", &["verify", "--man=no", path, socket]);
    assert!(
        said.code == Some(0) && !said.stderr.contains("keyway."),
        "{}",
        said.stderr
    );
    // Of 100; whoever adds a right to the unit sees it here.
    succeeds(
        "systemd-analyze",
        &["security", "--offline=yes", "--threshold=20", path],
    );
}
