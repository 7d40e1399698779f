//! The image, the unit of systemd, scripts, and how YAML is written.

use std::fs;

use keyway_tests::tools::{keyway, root};
use tempfile::TempDir;

use super::{beside_python, run, succeeds};

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
