//! Several clusters: what each inherits, what is refused, and what a reload changes.

use super::*;

const SEVERAL: &str = r#"
[listen]
address = "10.0.0.1:6379"
[listen.tls]
certificate = "cert.pem"
key = "key.pem"
client_ca = "all.pem"
[reads]
address = "10.0.0.1:6380"
zone = "eu-1a"
[limits]
clients_max = 100
memory_bytes_max = 8388608
[[cluster]]
name = "a"
seeds = ["a:1"]
server_names = ["A.example.com."]
user_names = ["alice"]
[cluster.listen.tls]
certificate = "a.pem"
key = "a-key.pem"
client_ca = "a-ca.pem"
client_auth = "optional"
[cluster.users.alice]
password_env = "KEYWAY_TEST_PASSWORD"
[cluster.limits]
clients_max = 7
commands_per_second_max = 9
[[cluster]]
name = "b"
seeds = ["b:1"]
[cluster.listen]
address = "10.0.0.2:6379"
[cluster.reads]
zone = "eu-1b"
max_lag_ms = 5
"#;

#[test]
fn each_cluster_has_what_it_names_and_inherits_the_rest() {
    let config = parse(SEVERAL).unwrap();
    let [a, b] = &config.clusters[..] else {
        panic!("{config}")
    };
    let tenant = a.tenant.as_ref().unwrap();
    assert_eq!(&*tenant.server_names[0], "a.example.com");
    assert_eq!(a.listen.address, config.listen.address);
    assert_eq!(a.listen.tls.certificate, Path::new("/etc/keyway/a.pem"));
    assert_eq!(
        a.listen.tls.clients,
        ClientAuth::Optional("/etc/keyway/a-ca.pem".into())
    );
    assert_eq!(
        (a.limits.clients_max, a.limits.commands_per_second_max),
        (7, Some(9))
    );
    assert_eq!(
        (a.users.len(), b.users.len(), config.users.len()),
        (1, 0, 0)
    );
    assert_eq!(a.reads.address, config.reads.address);
    assert_eq!(a.reads.zone.as_deref(), Some("eu-1a"));
    assert!(tenant.shares_memory && a.limits.memory_bytes_max == Some(8 << 20));

    assert_eq!(b.listen.address, "10.0.0.2:6379".parse().unwrap());
    assert_eq!(b.listen.tls.certificate, Path::new("/etc/keyway/cert.pem"));
    assert_eq!(b.listen.tls.clients, config.listen.tls.clients);
    assert_eq!(
        b.reads.address, None,
        "who has a port of its own has no other's"
    );
    assert_eq!(b.reads.zone.as_deref(), Some("eu-1b"));
    assert_eq!(
        (b.limits.clients_max, b.limits.commands_per_second_max),
        (100, None)
    );
    assert_eq!(&*b.cluster.seeds[0].host, "b");
}

#[test]
fn what_is_shown_is_a_configuration_again() {
    let config = parse(SEVERAL).unwrap();
    let shown = config.to_string();
    let again = shown.replace(
        "# it has a password",
        "password_env = \"KEYWAY_TEST_PASSWORD\"",
    );
    let again = parse(&again).unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
    assert_eq!(again.to_string(), shown);
}

#[test]
fn what_cannot_be_meant_is_refused_where_it_stands() {
    let extra = r#"
[users.bob]
password_env = "KEYWAY_TEST_PASSWORD"
[[cluster]]
name = "a"
user_names = ["alice"]
[cluster.limits]
handshakes_max = 3
in_flight_max = -1
[[cluster]]
name = "c"
seeds = ["c:1"]
[cluster.listen]
adress = "10.0.0.3:6379"
"#;
    let text = SEVERAL.to_owned() + extra;
    let line = |part: &str| 1 + text.lines().position(|line| line.contains(part)).unwrap();
    let found = problems(&text);
    let expect = |start: String, part: &str| {
        let hit = |found: &&String| found.starts_with(&start) && found.contains(part);
        assert_eq!(
            found.iter().filter(hit).count(),
            1,
            "{start} .. {part}: {found:#?}"
        );
    };
    expect(
        format!("k.toml:{}: users: ", line("[users.bob]")),
        "[cluster.users.NAME]",
    );
    let third = 1 + text
        .rfind("[[cluster]]\nname = \"a\"")
        .map(|at| text[..at].lines().count())
        .unwrap();
    expect(format!("k.toml:{third}: cluster.3.seeds: "), "missing");
    let handshakes = line("handshakes_max = 3");
    expect(
        format!("k.toml:{handshakes}: cluster.3.limits.handshakes_max: "),
        "[limits]",
    );
    let in_flight = line("in_flight_max = -1");
    expect(
        format!("k.toml:{in_flight}: cluster.3.limits.in_flight_max: "),
        "out of range",
    );
    expect(
        format!("k.toml:{}: cluster.4.listen.adress: ", line("adress")),
        "did you mean `address`?",
    );
    expect("k.toml:".to_owned(), "nobody could choose it");
}

#[test]
fn no_two_clusters_are_meant_by_the_same() {
    let twice = SEVERAL
        .replace(
            "name = \"b\"",
            "name = \"a\"\nserver_names = [\"a.EXAMPLE.com\"]\nuser_names = [\"alice\"]",
        )
        .replace(
            "[cluster.reads]",
            "[cluster.reads]\naddress = \"10.0.0.2:6379\"",
        );
    let found = problems(&twice);
    for key in ["name", "server_names", "user_names"] {
        let start = format!("cluster.2.{key}: ");
        assert!(
            found
                .iter()
                .any(|found| found.contains(&start) && found.contains("\"a\"'s already")),
            "{key}: {found:#?}"
        );
    }
    assert!(
        found.iter().any(|found| found.contains("reads.address")),
        "{found:#?}"
    );
}

#[test]
fn one_cluster_has_no_keys_of_several() {
    let text = MINIMAL.to_owned() + "name = \"a\"\n[cluster.limits]\nclients_max = 1\n";
    let found = problems(&text);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found.iter().all(|found| found.contains("[[cluster]]")),
        "{found:#?}"
    );
}

#[test]
fn a_reload_says_which_clusters_change_come_and_go() {
    let before = parse(SEVERAL).unwrap();
    let text = SEVERAL
        .replace("clients_max = 7", "clients_max = 8")
        .replace(
            "server_names = [\"A.example.com.\"]",
            "server_names = [\"x.example.com\"]",
        )
        .replace("10.0.0.2:6379", "10.0.0.3:6379")
        .replace("clients_max = 100", "clients_max = 101")
        + "[[cluster]]\nname = \"c\"\nseeds = [\"c:1\"]\ndefault = true\n";
    let mut after = parse(&text).unwrap();
    let changes = after.succeed(&before);
    assert_eq!(
        changes.live,
        [
            "limits.clients_max",
            "a: limits.clients_max",
            "a: server_names",
            "b: limits.clients_max",
            "b: listen.address"
        ]
    );
    assert_eq!(changes.at_start, [""; 0]);
    assert_eq!(
        (&*changes.came, &*changes.went),
        (&["c".to_owned()][..], &[][..])
    );
    assert!(changes.same.is_empty(), "each has another neighbour");
    let [a, b, c] = &after.clusters[..] else {
        panic!("{after}")
    };
    let id = |config: &Config| config.tenant.as_ref().unwrap().id;
    assert_eq!(
        &*a.tenant.as_ref().unwrap().server_names[0],
        "x.example.com"
    );
    assert_eq!(a.limits.clients_max, 8);
    assert_ne!(b.listen.address, before.clusters[1].listen.address);
    assert_eq!([a, b, c].map(|own| id(own).place()), [0, 1, 2]);

    let mut without = parse(&text).unwrap();
    without.clusters.remove(0);
    let changes = without.succeed(&after);
    assert_eq!(
        (&*changes.came, &*changes.went),
        (&[][..], &["a".to_owned()][..])
    );
    assert_eq!(without.clusters.len(), 2);
    // It is another when it comes back.
    let mut again = parse(&text).unwrap();
    let changes = again.succeed(&without);
    assert_eq!(
        (&*changes.came, &*changes.went),
        (&["a".to_owned()][..], &[][..])
    );
    let ids = again.clusters.iter().map(|own| id(own).place());
    assert_eq!(ids.collect::<Vec<_>>(), [3, 1, 2]);
    let changes = parse(&text).unwrap().succeed(&again);
    assert_eq!(changes.same.len(), 3);
    assert_eq!(
        Changes {
            same: std::collections::BTreeSet::new(),
            ..changes
        },
        Changes::default()
    );
}

#[test]
fn one_cluster_beside_several_is_told_what_to_write() {
    let one = "[cluster]\nseeds = [\"x:1\"]\n";
    for text in [
        format!("{SEVERAL}{one}"),
        SEVERAL.replacen("[[cluster]]", &format!("{one}[[cluster]]"), 1),
        format!("{MINIMAL}{one}"),
    ] {
        let found = problems(&text);
        assert!(
            found[0].contains("write [[cluster]] with a name"),
            "{found:#?}"
        );
    }
    let found = problems("[reads]\nzone = \"a\"\nzone = \"b\"\n");
    assert!(
        found[0].ends_with("duplicate key: it is written twice; keep one"),
        "{found:#?}"
    );
}

#[test]
fn a_cluster_that_users_choose_is_no_stricter_than_the_handshake_they_had() {
    let strict =
        |section: &str| SEVERAL.replace(section, &format!("{section}\nmin_version = \"1.3\""));
    let text = strict("[cluster.listen.tls]");
    let found = problems(&text);
    assert!(
        found.len() == 1 && found[0].contains("cluster.1.listen.tls.min_version"),
        "{found:#?}"
    );
    parse(&text.replace("\n[listen.tls]", "\n[listen.tls]\nmin_version = \"1.3\"")).unwrap();
    parse(&text.replace("user_names = [\"alice\"]", "")).unwrap();
}
