//! The Helm chart, and what else is written from other files.

use std::collections::BTreeSet;
use std::fs;

use keyway_tests::Output;
use keyway_tests::tools::{root, tool};

use super::{charts, run, succeeds};

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
                  autoscaling.connections=0,tls.certManager.dnsNames[0]=valkey.example.com,\
                  podMonitor.labels.release=prometheus,prometheusRule.labels.release=stack";
    let arguments = ["template", "one", "deploy/helm/keyway"];
    let more = ["--namespace", "cache", "--set", values];
    let text = succeeds(tool("KEYWAY_HELM"), &[&arguments[..], &more].concat());
    for line in [
        "      priorityClassName: high",
        "      imagePullSecrets:\n        - name: registry",
        "    - one\n    - one.cache\n    - one.cache.svc\n    - one.cache.svc.cluster.local\n    \
         - valkey.example.com",
        "    app.kubernetes.io/instance: one\n    release: prometheus\nspec:",
        "    app.kubernetes.io/instance: one\n    release: stack\nspec:",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    assert!(
        !text.contains("name: keyway_client_connections\n"),
        "{text}"
    );
}

/// Each Kubernetes is told to stay in the zone by the name that it knows, and has no other to warn of.
#[test]
fn the_chart_asks_for_the_zone_by_the_name_of_the_day() {
    for (version, name) in [("v1.33.9", "PreferClose"), ("v1.34.0", "PreferSameZone")] {
        let said = chart(None, &["--kube-version", version]);
        let line = format!("\n  trafficDistribution: {name}\n");
        assert!(said.stdout.contains(&line), "{version}: {}", said.stderr);
    }
}

#[test]
fn a_release_whose_name_cannot_be_a_services_is_refused() {
    let said = run(
        tool("KEYWAY_HELM"),
        &["template", "my.rel", "deploy/helm/keyway"],
    );
    let told = said.stderr.contains("a Service's name has no dot");
    assert!(said.code != Some(0) && told, "{}", said.stderr);
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
