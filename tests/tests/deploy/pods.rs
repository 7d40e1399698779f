//! The pods, and what names them.

use std::collections::BTreeMap;
use std::fs;

use keyway_tests::Certificates;
use keyway_tests::tools::{keyway, listed_metrics, root};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{array, containers, keyway_container, of_kind, shipped, succeeds, workload};

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
        // Or the Service `keyway` would be in its environment, under names like those of the configuration.
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
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

/// A process that no longer answers does not see SIGTERM either, and the pod's whole grace period would
/// be waited for.
#[test]
fn what_hangs_is_ended_soon() {
    for (name, resources) in shipped() {
        let pod = &workload(&resources)["spec"]["template"]["spec"];
        let grace = &keyway_container(pod)["livenessProbe"]["terminationGracePeriodSeconds"];
        assert!(
            grace.as_u64().is_some_and(|seconds| seconds <= 10),
            "{name}: {grace}"
        );
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
