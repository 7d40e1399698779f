//! `keyway doctor`: every check can fail, names what is wrong, and says what to do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails; a missing field is null"
)]

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use keyway_tests::ports::{Port, reserve};
use keyway_tests::{
    Certificates, ClusterOptions, Keyway, RealCluster, Version, run_to_end, text, tools, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// What a configuration is made of.
struct Setup {
    folder: TempDir,
    certificates: Certificates,
    port: Port,
    admin: Port,
    listen: String,
    cluster: String,
    reads: String,
}

impl Setup {
    fn before(cluster: &RealCluster) -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            certificates: Certificates::loopback(),
            port: reserve(),
            admin: reserve(),
            listen: String::new(),
            cluster: cluster.section(""),
            reads: String::new(),
        }
    }

    fn examine(&self) -> Examined {
        let config = format!(
            "[listen]\naddress = \"127.0.0.1:{}\"\n{}\n[listen.tls]\ncertificate = {:?}\nkey = {:?}\n\
             {}\n[reads]\n{}\n[admin]\naddress = \"127.0.0.1:{}\"\n",
            self.port.number(),
            self.listen,
            self.certificates.cert,
            self.certificates.key,
            self.cluster,
            self.reads,
            self.admin.number()
        );
        let path = self.folder.path().join("keyway.toml");
        fs::write(&path, config).unwrap();
        examine(path.to_str().unwrap())
    }
}

/// What the doctor said, as text and as JSON.
struct Examined {
    text: String,
    checks: Vec<Value>,
}

fn examine(config: &str) -> Examined {
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(tools::keyway());
        command.args(["doctor", "--config", config]).args(arguments);
        run_to_end(&mut command, LIMIT)
    };
    let output = doctor(&["--json"]);
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    let checks = told["checks"].as_array().unwrap().clone();
    let failed = checks.iter().any(|check| check["state"] == "failed");
    assert_eq!(told["ok"], !failed);
    assert_eq!(output.code, Some(i32::from(failed)), "{told}");
    let shown = doctor(&[]);
    assert_eq!(shown.code, output.code, "{}", shown.stdout);
    Examined {
        text: shown.stdout,
        checks,
    }
}

impl Examined {
    /// There is such a finding, with these words; one that is not good has a remedy.
    #[track_caller]
    fn assert_finds(&self, check: &str, state: &str, words: &str) {
        let found = self.checks.iter().find(|finding| {
            finding["check"] == check
                && finding["state"] == state
                && finding["found"].as_str().unwrap().contains(words)
        });
        let found = found.unwrap_or_else(|| panic!("no {check} {state} {words:?}:\n{}", self.text));
        if state == "failed" || state == "warning" {
            let remedy = found["remedy"].as_str().unwrap();
            assert!(self.text.contains(remedy), "{}", self.text);
        }
        assert!(self.text.contains(words), "{}", self.text);
    }

    #[track_caller]
    fn assert_nothing_failed(&self) {
        let bad = |state: &Value| state == "failed" || state == "warning";
        let found = self.checks.iter().find(|finding| bad(&finding["state"]));
        assert!(found.is_none(), "{}", self.text);
    }
}

#[test]
fn a_cluster_that_is_well_passes_with_and_without_a_keyway() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let mut setup = Setup::before(&cluster);
    setup.reads = "zone = \"az-a\"".to_owned();
    let examined = setup.examine();
    examined.assert_nothing_failed();
    for check in [
        "configuration",
        "certificate expiry",
        "certificate names",
        "listen.address",
        "file limit",
        "TCP",
        "node login",
        "slots",
        "nodes",
        "cluster state",
        "replicas",
        "zones",
        "clock",
    ] {
        examined.assert_finds(check, "ok", "");
    }
    let running = Keyway::start(&cluster);
    let examined = examine(&running.config());
    examined.assert_finds("listen.address", "ok", "is ready");
}

#[test]
fn tls_to_the_nodes_is_looked_at() {
    let cluster = RealCluster::start(Version::V8_0Tls, 1, 1);
    let mut setup = Setup::before(&cluster);
    let examined = setup.examine();
    examined.assert_finds("node TLS", "ok", "is who it should be");
    examined.assert_finds("certificate expiry", "ok", "the certificate of 127.0.0.1");
    let own = fs::read_to_string(&setup.certificates.ca).unwrap();
    let theirs = setup.cluster.lines().find(|line| line.starts_with("ca = "));
    let theirs = theirs.unwrap().to_owned();
    let other = setup.folder.path().join("other.pem");
    fs::write(&other, own).unwrap();
    setup.cluster = setup.cluster.replace(&theirs, &format!("ca = {other:?}"));
    let examined = setup.examine();
    examined.assert_finds("node TLS", "failed", "invalid peer certificate");
    examined.assert_finds("cluster", "skipped", "no seed could be asked");
}

#[test]
fn seeds_that_are_not_there_and_passwords_that_are_wrong_are_told() {
    let mut options = ClusterOptions::new(Version::V9_1, 1, 0);
    options.password = Some("right-Ab3x".to_owned());
    let cluster = RealCluster::with(options);
    let mut setup = Setup::before(&cluster);
    let password = setup.folder.path().join("password");
    fs::write(&password, "wrong-Ab3x").unwrap();
    let nobody = reserve();
    setup.cluster = format!(
        "[cluster]\nseeds = [\"{}\", \"127.0.0.1:{}\", \"no-such-host.invalid:6379\"]\n\
         username = \"default\"\npassword_file = {password:?}\n",
        cluster.addrs()[0],
        nobody.number()
    );
    let examined = setup.examine();
    examined.assert_finds("node login", "failed", "WRONGPASS");
    examined.assert_finds("TCP", "failed", "Connection refused");
    examined.assert_finds("DNS", "failed", "no-such-host.invalid");
    for said in [&examined.text, &format!("{:?}", examined.checks)] {
        assert!(!said.contains("Ab3x"), "{said}");
    }
    fs::write(&password, "right-Ab3x").unwrap();
    let examined = setup.examine();
    examined.assert_finds("node login", "ok", "runs 9.1");
    examined.assert_finds("replicas", "warning", "none for");
    examined.assert_finds("zones", "warning", "Keyway's own zone is not set");
}

#[test]
fn slots_without_an_owner_and_nodes_that_are_gone_are_told() {
    let mut cluster = RealCluster::start(Version::V9_1, 2, 0);
    let setup = Setup::before(&cluster);
    cluster.node_mut(1).kill();
    let examined = setup.examine();
    examined.assert_finds("nodes", "failed", "primary");
    wait_until("a cluster that knows of its loss", 30, || {
        let info = text(&cluster.client(0).cmd(&["CLUSTER", "INFO"]));
        info.contains("cluster_state:fail")
    });
    let examined = setup.examine();
    examined.assert_finds("cluster state", "failed", "not ok");
    let mut client = cluster.client(0);
    assert_eq!(text(&client.cmd(&["CLUSTER", "DELSLOTS", "0", "1"])), "OK");
    setup
        .examine()
        .assert_finds("slots", "failed", "2 have no owner");
}

#[test]
fn names_ports_and_mistakes_are_told() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let mut setup = Setup::before(&cluster);
    setup.listen = "advertise = \"cache.example:6379\"".to_owned();
    setup
        .examine()
        .assert_finds("certificate names", "failed", "cache.example");

    setup.listen = String::new();
    let _taken = TcpListener::bind(("127.0.0.1", setup.port.number())).unwrap();
    setup
        .examine()
        .assert_finds("listen.address", "failed", "cannot be bound");

    setup.listen = "workrs = 3".to_owned();
    let examined = setup.examine();
    examined.assert_finds("configuration", "failed", "workers");
    examined.assert_finds("everything else", "skipped", "");
}

#[test]
fn certificates_that_end_are_told() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let setup = Setup::before(&cluster);
    let key = rcgen::KeyPair::generate().unwrap();
    let write = |year, month| {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(year, month, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(&setup.certificates.cert, certificate.pem()).unwrap();
        fs::write(&setup.certificates.key, key.serialize_pem()).unwrap();
    };
    write(2020, 1);
    setup
        .examine()
        .assert_finds("certificate expiry", "failed", "ended");
    write(4000, 1);
    setup
        .examine()
        .assert_finds("certificate expiry", "ok", "good for");
}
