//! A configuration that cannot work: one line on standard error that says what and what to do, exit
//! code 2, and nothing bound.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use keyway_tests::ports::{Port, reserve};
use keyway_tests::{Certificates, Keyway, Settings, run_to_end, text, tools, wait_until};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);

/// A configuration that would work, its files and its ports.
struct Setup {
    folder: TempDir,
    certificates: Certificates,
    port: Port,
    admin: Port,
}

impl Setup {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            folder,
            certificates: Certificates::loopback(),
            port: reserve(),
            admin: reserve(),
        }
    }

    fn config(&self) -> String {
        format!(
            "[listen]\naddress = \"127.0.0.1:{}\"\n[listen.tls]\ncertificate = {:?}\nkey = {:?}\n\
             [cluster]\nseeds = [\"127.0.0.1:1\"]\n[admin]\naddress = \"127.0.0.1:{}\"\n",
            self.port.number(),
            self.certificates.cert,
            self.certificates.key,
            self.admin.number()
        )
    }

    /// `keyway serve` and `keyway check` with this text end with code 2 and one line that has all
    /// of `parts`; nothing was bound.
    #[track_caller]
    fn assert_refused(&self, config: &str, parts: &[&str]) {
        self.assert_refused_by("check", config, parts);
        self.assert_refused_by("serve", config, parts);
    }

    #[track_caller]
    fn assert_refused_by(&self, command: &str, config: &str, parts: &[&str]) {
        let path = self.folder.path().join("keyway.toml");
        fs::write(&path, config).unwrap();
        let output = run_to_end(
            Command::new(tools::keyway())
                .args([command, "--config"])
                .arg(&path),
            LIMIT,
        );
        let said = output.stderr.trim_end();
        assert_eq!(output.code, Some(2), "{command}: {said}");
        assert_eq!(said.lines().count(), 1, "{command}: not one line:\n{said}");
        for part in parts {
            assert!(said.contains(part), "{command}: no {part:?} in {said:?}");
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    for command in ["serve", "check"] {
        let output = run_to_end(
            Command::new(tools::keyway()).args([command, "--config", "/nowhere/keyway.toml"]),
            LIMIT,
        );
        assert_eq!(output.code, Some(2), "{}", output.stderr);
        assert_eq!(
            output.stderr.trim_end().lines().count(),
            1,
            "{}",
            output.stderr
        );
        assert!(
            output.stderr.contains("/nowhere/keyway.toml"),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn a_good_one_passes_the_check() {
    let setup = Setup::new();
    let path = setup.folder.path().join("keyway.toml");
    fs::write(&path, setup.config()).unwrap();
    let output = run_to_end(
        Command::new(tools::keyway())
            .args(["check", "--config"])
            .arg(&path),
        LIMIT,
    );
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

#[test]
fn unknown_keys_are_refused_with_line_and_suggestion() {
    let setup = Setup::new();
    let config = setup
        .config()
        .replace("[admin]", "cross_slots = \"split\"\n[admin]");
    let line = 1 + config
        .lines()
        .position(|line| line.starts_with("cross_slots"))
        .unwrap();
    setup.assert_refused(&config, &["cross_slots", "cross_slot", &line.to_string()]);
    setup.assert_refused(
        &config.replace("cross_slots = \"split\"\n[admin]", "[admn]"),
        &["admn", "admin"],
    );
}

#[test]
fn wrong_values_are_named() {
    let setup = Setup::new();
    let config = setup.config();
    setup.assert_refused(
        &config.replace("seeds = [\"127.0.0.1:1\"]", "seeds = []"),
        &["seeds"],
    );
    setup.assert_refused(
        &config.replace("seeds = [\"127.0.0.1:1\"]", "seeds = [\"no port\"]"),
        &["seeds", "no port"],
    );
    setup.assert_refused(
        &config.replace("[admin]", "cross_slot = \"maybe\"\n[admin]"),
        &["cross_slot", "split", "refuse"],
    );
    setup.assert_refused(
        &format!("{config}[limits]\nclients_max = \"many\"\n"),
        &["clients_max"],
    );
    setup.assert_refused(
        &format!("{config}[limits]\nclients_max = 0\n"),
        &["clients_max"],
    );
    setup.assert_refused("not toml at all", &["keyway.toml"]);
}

#[test]
fn certificates_that_do_not_load_are_named() {
    let setup = Setup::new();
    let (config, cert) = (
        setup.config(),
        setup.certificates.cert.display().to_string(),
    );
    setup.assert_refused(
        &config.replace(&cert, "/nowhere/cert.pem"),
        &["/nowhere/cert.pem"],
    );
    let garbage = setup.folder.path().join("garbage.pem");
    fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    setup.assert_refused(
        &config.replace(&cert, &garbage.display().to_string()),
        &["garbage.pem"],
    );
    fs::write(&garbage, "").unwrap();
    setup.assert_refused(
        &config.replace(&cert, &garbage.display().to_string()),
        &["garbage.pem"],
    );
    let other = Certificates::loopback();
    let key = setup.certificates.key.display().to_string();
    setup.assert_refused(
        &config.replace(&key, &other.key.display().to_string()),
        &["key"],
    );
}

#[test]
fn every_file_that_serve_reads_is_looked_at_and_all_that_is_wrong_is_said() {
    let setup = Setup::new();
    let garbage = setup.folder.path().join("garbage.pem");
    fs::write(&garbage, "no certificate").unwrap();
    let traces = |ca: &str| {
        let endpoint = "endpoint = \"https://127.0.0.1:4318\"";
        format!("{}[traces]\n{endpoint}\nca = \"{ca}\"\n", setup.config())
    };
    let config = traces("/nowhere/ca.pem");
    let line = format!("keyway.toml:{}: traces.ca: ", config.lines().count());
    setup.assert_refused(&config, &[&line, "/nowhere/ca.pem"]);
    setup.assert_refused(&traces("garbage.pem"), &["traces.ca", "has no certificate"]);
    let log = |file: &str| {
        let config = setup.config();
        format!("{config}[log]\naccess_one_in = 1\naccess_file = \"{file}\"\n")
    };
    let wrong = log("/nowhere/access.json");
    setup.assert_refused(
        &wrong,
        &["log.access_file", "make the folder /nowhere first"],
    );
    setup.assert_refused(&log("."), &["log.access_file", "it is a folder"]);

    let cert = setup.certificates.cert.display().to_string();
    let all = format!(
        "{}{}",
        log("/nowhere/a"),
        "[cluster.tls]\nca = \"/nowhere/n\"\n"
    )
    .replace(&cert, "/nowhere/c");
    let path = setup.folder.path().join("keyway.toml");
    fs::write(&path, all).unwrap();
    let mut check = Command::new(tools::keyway());
    let output = run_to_end(check.args(["check", "--config"]).arg(&path), LIMIT);
    let said: Vec<&str> = output.stderr.lines().collect();
    let parts = [
        "listen.tls.certificate",
        "log.access_file",
        "cluster.tls.ca",
    ];
    assert_eq!(said.len(), parts.len(), "{said:?}");
    for (line, part) in said.iter().zip(parts) {
        assert!(line.contains(part), "no {part} in {line}");
    }

    // A log that there is not yet is fine, and is not made by looking.
    fs::write(&path, log("access.json")).unwrap();
    let mut check = Command::new(tools::keyway());
    let output = run_to_end(check.args(["check", "--config"]).arg(&path), LIMIT);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(!setup.folder.path().join("access.json").exists());
}

#[test]
fn a_password_that_is_not_there_is_named() {
    let setup = Setup::new();
    let with = |lines: &str| {
        setup
            .config()
            .replace("[admin]", &format!("username = \"u\"\n{lines}\n[admin]"))
    };
    setup.assert_refused(
        &with("password_file = \"/nowhere/secret\""),
        &["/nowhere/secret"],
    );
    setup.assert_refused(
        &with("password_env = \"KEYWAY_TEST_UNSET\""),
        &["KEYWAY_TEST_UNSET"],
    );
}

#[test]
fn a_port_in_use_is_named() {
    let setup = Setup::new();
    let (port, admin) = (setup.port.number(), setup.admin.number());
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    setup.assert_refused_by("serve", &setup.config(), &[&format!("127.0.0.1:{port}")]);
    drop(taken);
    let _taken = TcpListener::bind(("127.0.0.1", admin)).unwrap();
    setup.assert_refused_by("serve", &setup.config(), &[&format!("127.0.0.1:{admin}")]);
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "the other port is not left bound"
    );
}

#[test]
fn unreachable_seeds_are_tried_again_and_said() {
    let nobody = reserve();
    let section = format!("[cluster]\nseeds = [\"127.0.0.1:{}\"]\n", nobody.number());
    let keyway = Keyway::launch(&section, &Settings::default());
    wait_until("/livez", 10, || {
        keyway.http("/livez").is_ok_and(|(status, _)| status == 200)
    });
    let (status, body) = keyway.http("/readyz").unwrap();
    assert_eq!(status, 503, "{body}");
    keyway.wait_logged(&nobody.number().to_string());
    // A client is told, not left hanging; PING needs no node.
    let mut client = keyway.client();
    assert_eq!(text(&client.cmd(&["PING"])), "PONG");
    let reply = text(&client.cmd(&["GET", "k"]));
    assert!(reply.starts_with('-'), "{reply}");
    assert!(keyway.stop().success(), "ends cleanly");
}

#[test]
fn the_command_line_is_explained() {
    let help = run_to_end(Command::new(tools::keyway()).arg("--help"), LIMIT);
    assert_eq!(help.code, Some(0));
    for word in ["serve", "check", "demo"] {
        assert!(help.stdout.contains(word), "{}", help.stdout);
    }
    let wrong = run_to_end(Command::new(tools::keyway()).arg("no-such-command"), LIMIT);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
}

/// As by `keyway check --config FILE | head -1`: the pipe is closed before all is said.
#[test]
fn an_answer_that_is_not_read_is_no_mistake() {
    let setup = Setup::new();
    let path = setup.folder.path().join("keyway.toml");
    fs::write(&path, setup.config()).unwrap();
    let path = path.to_str().unwrap();
    for arguments in [
        &["check", "--config", path][..],
        &["--print-default-config"],
        &["--list-metrics"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(tools::keyway());
        let child = command.args(arguments).stdout(writer);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    }
}
