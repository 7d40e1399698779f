//! A configuration that is read again while clients are connected.

use std::fs;
use std::process::Command;
use std::time::Duration;

use keyway_tests::{
    Certificates, Client, ClusterOptions, Keyway, Load, LoadOptions, RealCluster, Settings,
    Version, run_to_end, text, tools, wait_until,
};

const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

fn is_closed(client: &mut Client) -> bool {
    client.read_to_end(Duration::from_secs(10)) == Some(Vec::new())
}

fn user(name: &str) -> String {
    format!(
        "[users.{name}]\npassword_file = '{name}'\ncluster_username = 'blue'\ncluster_password_env = 'BLUE'\n"
    )
}

/// A cluster with a user, and Keyway with two that run as it; their passwords are in `folder`.
fn start(folder: &std::path::Path) -> (RealCluster, Keyway) {
    let cluster = RealCluster::with(ClusterOptions {
        users: vec![("blue".to_owned(), ">blue-pw ~* +@all".to_owned())],
        ..ClusterOptions::new(Version::V9_1, 3, 0)
    });
    let sections = ["one", "two", "three"].map(|name| {
        let file = folder.join(name);
        fs::write(&file, format!("{name}-pw\n")).expect("a password");
        user(name).replace(&format!("'{name}'"), &format!("{file:?}"))
    });
    let settings = Settings {
        sections: sections.concat(),
        environment: vec![("BLUE".to_owned(), "blue-pw".to_owned())],
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    (cluster, keyway)
}

#[test]
fn what_can_change_changes_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, keyway) = start(folder.path());
    let [mut one, mut two, mut nobody] = [(); 3].map(|()| keyway.client());
    assert_eq!(one.ask("AUTH one one-pw"), "OK");
    assert_eq!(two.ask("AUTH two two-pw"), "OK");
    assert_eq!(nobody.ask("MSET a 1 b 2 c 3"), "OK");

    fs::write(folder.path().join("three"), "other-pw").expect("a password");
    keyway.reconfigure(|config| {
        config
            .replace("[users.two]", "[users.four]")
            .replace("workers = 2", "workers = 5")
            .replace("[limits]", "[limits]\nclients_max = 4\nin_flight_max = 7")
            .replace("[cluster]\n", "[cluster]\ncross_slot = 'refuse'\n")
            + "[log]\nlevel = 'debug'\nformat = 'human'\n"
    });
    keyway.wait_logged("configuration reloaded");
    let log = keyway.log();
    let line = log.lines().find(|line| line.contains("needs_restart"));
    let line = line.unwrap_or_else(|| panic!("no report:\n{log}"));
    assert!(
        line.contains("\"needs_restart\":\"listen.workers, log.format\""),
        "{line}"
    );
    for key in [
        "cluster.cross_slot",
        "limits.clients_max",
        "log.level",
        "users.three.password",
    ] {
        assert!(line.contains(key), "{key} is not in {line}");
    }
    assert!(!log.contains("other-pw"), "a password in the log:\n{log}");

    assert!(is_closed(&mut two), "a user that is gone stays connected");
    assert_eq!(one.ask("SET own 1"), "OK", "others stay");
    wait_until("the new word on slots", 10, || {
        nobody.ask("MGET a b c").starts_with("-CROSSSLOT")
    });
    assert_eq!(nobody.ask("AUTH two two-pw"), WRONGPASS);
    assert_eq!(nobody.ask("AUTH four two-pw"), "OK");
    assert_eq!(nobody.ask("AUTH three three-pw"), WRONGPASS);
    assert_eq!(nobody.ask("AUTH three other-pw"), "OK");
    let (_third, _fourth) = (keyway.client(), keyway.client());
    assert!(
        Client::try_connect(&keyway.addr(), keyway.ca()).is_err(),
        "a fifth client"
    );
    drop(one);
    wait_until("a line that only debug has", 10, || {
        keyway.log().contains("client left")
    });
}

/// Connections of a user at a cluster's nodes, but for those that only hear messages.
fn connections(cluster: &RealCluster, user: &str) -> usize {
    let nodes = 0..cluster.nodes().len();
    let of = |node: usize| {
        let list = text(&cluster.client(node).cmd(&["CLIENT", "LIST"]));
        list.matches(&format!(" user={user} ")).count()
    };
    nodes.map(of).sum()
}

#[test]
fn keyway_s_own_user_changes_and_no_command_is_lost() {
    let users = ["blue", "green"];
    let cluster = RealCluster::with(ClusterOptions {
        users: users
            .map(|name| (name.to_owned(), format!(">{name}-pw ~* &* +@all")))
            .to_vec(),
        ..ClusterOptions::new(Version::V9_1, 3, 0)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let files = users.map(|name| {
        let file = folder.path().join(name);
        fs::write(&file, format!("{name}-pw\n")).expect("a password");
        format!("{file:?}")
    });
    let [blue, green] = &files;
    let settings = Settings {
        cluster: format!("unauthenticated = 'service'\nusername = 'blue'\npassword_file = {blue}"),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let options = LoadOptions {
        pause: Duration::from_millis(5),
        watches: true,
        ..LoadOptions::new(6)
    };
    let load = Load::start(&keyway.addr(), keyway.ca(), &options);
    let mut idle = keyway.client();
    assert_eq!(idle.ask("SET own 1"), "OK");
    assert!(connections(&cluster, "blue") > 3);
    keyway.reconfigure(|config| config.replace("'blue'", "'green'").replace(blue, green));
    keyway.wait_logged("cluster.username");
    wait_until("the old connections to close", 20, || {
        connections(&cluster, "blue") == 0
    });
    for node in 0..3 {
        let gone = cluster.client(node).cmd(&["ACL", "DELUSER", "blue"]);
        assert_eq!(text(&gone), "1");
    }
    // Another password of the same one, and then the one before is worth nothing.
    let rule = |rule: &str| {
        for node in 0..3 {
            let set = ["ACL", "SETUSER", "green", rule];
            assert_eq!(text(&cluster.client(node).cmd(&set)), "OK");
        }
    };
    rule(">other-pw");
    fs::write(folder.path().join("green"), "other-pw").expect("a password");
    keyway.reconfigure(|config| config);
    load.wait_rounds(50);
    rule("<green-pw");
    load.wait_rounds(200);
    assert_eq!(idle.ask("ACL WHOAMI"), "green");
    assert_eq!(idle.ask("GET own"), "1");
    let report = load.stop();
    assert!(report.is_clean(), "{}", report.told(10));
    let log = keyway.log();
    assert!(
        !log.contains("-pw") && !log.contains("needs_restart"),
        "{log}"
    );
}

#[test]
fn commands_are_allowed_and_forbidden_while_clients_are_connected() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let set = "CONFIG SET slowlog-log-slower-than 12345";
    assert!(client.ask(set).starts_with("-ERR"));
    let allow = "[admin_commands]\nallow = ['CONFIG SET', 'acl|list']\n";
    keyway.reconfigure(|config| config + allow);
    keyway.wait_logged("admin_commands.allow");
    wait_until("the command to be allowed", 10, || client.ask(set) == "OK");
    for node in 0..2 {
        let of_node = cluster
            .client(node)
            .cmd(&["CONFIG", "GET", "slowlog-log-slower-than"]);
        assert!(format!("{of_node:?}").contains("12345"), "{of_node:?}");
    }
    keyway.reconfigure(|config| config.replace("'CONFIG SET', ", ""));
    wait_until("it to be refused again", 10, || {
        client.ask(set).starts_with("-ERR")
    });
    assert!(!client.ask("ACL LIST").starts_with('-'));
    assert!(!keyway.log().contains("needs_restart"));
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, keyway) = start(folder.path());
    let mut client = keyway.client();
    assert_eq!(client.ask("AUTH one one-pw"), "OK");
    let failed = || keyway.metric("keyway_config_reloads_total", &["result=\"failed\""]);
    let good = std::cell::RefCell::new(String::new());
    // One with two mistakes; one whose certificate does not exist.
    for (round, (from, to)) in (1..).zip([
        ("[limits]", "[limits]\nclients_max = 0\nin_flight_maxx = 1"),
        ("certificate = \"", "certificate = \"/nowhere"),
    ]) {
        keyway.reconfigure(|config| {
            good.replace(config.clone());
            config
                .replacen(from, to, 1)
                .replace("[users.one]", "[users.other]")
        });
        assert!((failed() - f64::from(round)).abs() < 0.5);
        keyway.reconfigure(|_| good.borrow().clone());
    }
    let log = keyway.log();
    for part in ["clients_max", "did you mean", "/nowhere"] {
        assert!(log.contains(part), "nothing of {part} in\n{log}");
    }
    assert_eq!(client.ask("SET key 1"), "OK");
    let mut again = keyway.client();
    assert_eq!(again.ask("AUTH one one-pw"), "OK");
    assert!((keyway.metric("keyway_config_reloads_total", &["result=\"ok\""]) - 2.0).abs() < 0.5);
}

#[test]
fn the_default_configuration_is_one() {
    let limit = Duration::from_secs(20);
    let printed = run_to_end(
        Command::new(tools::keyway()).arg("--print-default-config"),
        limit,
    );
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::loopback();
    for (from, to) in [
        (&certificates.cert, "cert.pem"),
        (&certificates.key, "key.pem"),
    ] {
        fs::copy(from, folder.path().join(to)).expect("a copy");
    }
    let path = folder.path().join("keyway.toml");
    fs::write(&path, printed.stdout).expect("the configuration");
    let checked = run_to_end(
        Command::new(tools::keyway())
            .args(["check", "--config"])
            .arg(path),
        limit,
    );
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(
        checked.stdout.contains("clients_max = 10000"),
        "{}",
        checked.stdout
    );
}
