//! The configuration's promises: every mistake at once with its place, safe defaults, no secret shown.

use std::ffi::OsString;
use std::io::Write as _;

use super::*;

const MINIMAL: &str = r#"
[listen.tls]
certificate = "cert.pem"
key = "key.pem"
[cluster]
seeds = ["valkey-0.valkey:6379"]
"#;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, "k.toml", Path::new("/etc/keyway"), &|name| {
        let value = match name {
            "KEYWAY_TEST_PASSWORD" => "from-env",
            "KEYWAY_TEST_HEADERS" => "Authorization=Bearer x, x-scope = a b=c",
            _ => return None,
        };
        Some(OsString::from(value))
    })
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).expect_err("must be refused");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_least_that_works_gets_safe_defaults() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.listen.address, "0.0.0.0:6379".parse().unwrap());
    assert!(config.listen.workers >= 1);
    assert_eq!(
        config.listen.tls.certificate,
        Path::new("/etc/keyway/cert.pem")
    );
    assert_eq!(config.listen.tls.clients, ClientAuth::None);
    assert_eq!(config.listen.tls.min_version, TlsVersion::V1_2);
    assert_eq!(config.cluster.unauthenticated, Unauthenticated::Default);
    assert_eq!(config.cluster.cross_slot, CrossSlot::Split);
    assert!(config.cluster.credentials.is_none() && config.cluster.tls.is_none());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.admin.address, "127.0.0.1:9121".parse().unwrap());
    assert_eq!(
        config.log,
        Log {
            level: tracing::Level::INFO,
            format: LogFormat::Auto,
            slow: Duration::from_millis(100),
            access_one_in: 0,
            access_file: None,
        }
    );
}

/// Every key there is, each with a value other than its default.
const EVERY_KEY: &str = r#"
        [listen]
        address = "[::]:7000"
        advertise = "cache.example:6380"
        workers = 3
        [listen.tls]
        certificate = "/c.pem"
        key = "/k.pem"
        client_ca = "/ca.pem"
        client_auth = "optional"
        min_version = "1.3"
        [cluster]
        seeds = ["a:1", "[::1]:2"]
        name_servers = ["10.0.0.10:53", "[::1]:54"]
        username = "keyway"
        password_env = "KEYWAY_TEST_PASSWORD"
        unauthenticated = "service"
        cross_slot = "refuse"
        [cluster.tls]
        ca = "/nodes.pem"
        server_name = "valkey"
        certificate = "/me.pem"
        key = "/me.key"
        [limits]
        clients_max = 11
        handshake_timeout_ms = 12
        handshakes_max = 13
        auth_timeout_ms = 14
        request_timeout_ms = 15
        deadline_ms = 16
        reply_timeout_ms = 17
        client_output_bytes_max = 65538
        in_flight_max = 19
        leases_max = 21
        request_bytes_max = 65540
clients_per_address_max = 22
clients_per_user_max = 25
user_commands_per_second_max = 26
user_bytes_per_second_max = 27
commands_per_second_max = 28
bytes_per_second_max = 29
idle_timeout_ms = 23
max_connection_age_ms = 24
memory_bytes_max = 1048576
        [admin]
        address = "127.0.0.1:1"
        show_keys = true
        [log]
        level = "warn"
        format = "json"
        slow_ms = 22
        access_one_in = 30
        access_file = "access.json"
        [traces]
        endpoint = "https://collector:4318"
        one_in = 31
        service_name = "cache"
        attributes = { "team" = "shop" }
        headers_env = "KEYWAY_TEST_HEADERS"
        ca = "collector.pem"
        "#;

#[test]
fn every_key_is_read() {
    let config = parse(EVERY_KEY).unwrap();
    assert_eq!(
        config.listen.advertise.unwrap().to_string(),
        "cache.example:6380"
    );
    assert_eq!(config.listen.workers, 3);
    assert_eq!(
        config.listen.tls.clients,
        ClientAuth::Optional("/ca.pem".into())
    );
    assert_eq!(config.listen.tls.min_version, TlsVersion::V1_3);
    let credentials = config.cluster.credentials.unwrap();
    assert_eq!(
        (&*credentials.username, credentials.password.expose()),
        ("keyway", &b"from-env"[..])
    );
    assert_eq!(config.cluster.seeds.len(), 2);
    let servers = config.cluster.name_servers.iter();
    let servers: Vec<_> = servers.map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.10:53", "[::1]:54"]);
    let millis = Duration::from_millis;
    assert_eq!(
        config.limits,
        Limits {
            clients_max: 11,
            handshake_timeout: millis(12),
            handshakes_max: 13,
            auth_timeout: millis(14),
            request_timeout: millis(15),
            deadline: millis(16),
            reply_timeout: millis(17),
            client_output_bytes_max: 65538,
            in_flight_max: 19,
            leases_max: 21,
            request_bytes_max: 65540,
            clients_per_address_max: Some(22),
            clients_per_user_max: Some(25),
            user_commands_per_second_max: Some(26),
            user_bytes_per_second_max: Some(27),
            commands_per_second_max: Some(28),
            bytes_per_second_max: Some(29),
            idle_timeout: Some(millis(23)),
            max_connection_age: Some(millis(24)),
            memory_bytes_max: Some(1 << 20),
        }
    );
    assert_eq!(
        config.log,
        Log {
            level: tracing::Level::WARN,
            format: LogFormat::Json,
            slow: millis(22),
            access_one_in: 30,
            access_file: Some("/etc/keyway/access.json".into()),
        }
    );
    let tls = config.cluster.tls.unwrap();
    assert_eq!(
        (tls.server_name.as_deref(), tls.identity.is_some()),
        (Some("valkey"), true)
    );
}

#[test]
fn all_mistakes_come_at_once_with_line_and_suggestion() {
    let text = r#"[listen]
adress = "0.0.0.0:6379"
workers = "two"
certificate = "cert.pem"
[listen.tls]
key = "key.pem"
client_auth = "requird"
[cluster]
seeds = ["valkey-0"]
cross_slot = "no"
password = "inline"
[limits]
clients_max = -1
deadline_ms = 0
[extra]
x = 1
"#;
    assert_eq!(
        problems(text),
        [
            "k.toml:2: listen.adress: unknown key; did you mean `address`?",
            "k.toml:3: listen.workers: invalid type: string \"two\", expected a whole number",
            "k.toml:4: listen.certificate: unknown key; `certificate` belongs into [listen.tls]",
            "k.toml:5: listen.tls.certificate: missing; name a PEM file with the chain",
            "k.toml:7: listen.tls.client_auth: \"requird\" is none of \"none\", \"optional\", \
             \"required\"; did you mean \"required\"?",
            "k.toml:9: cluster.seeds: \"valkey-0\": no port; write `host:port`, for example \
             `valkey-0:6379`",
            "k.toml:10: cluster.cross_slot: \"no\" is none of \"split\", \"split_transactions\", \"refuse\"",
            "k.toml:11: cluster.password: unknown key; passwords are never written here: use \
             password_file or password_env",
            "k.toml:13: limits.clients_max: -1 is out of range; 1 to 1000000",
            "k.toml:14: limits.deadline_ms: 0 is out of range; 1 to 3600000 milliseconds",
            "k.toml:15: extra: unknown key; known here: listen, cluster, reads, hot_keys, users, admin_commands, limits, reload, drain, admin, log, traces, autoscale",
        ]
    );
}

#[test]
fn mistakes_in_a_list_of_sections_have_their_lines() {
    let text = r#"[listen.tls]
certificate = "cert.pem"
key = "key.pem"
client_crl = "revoked.pem"
[[listen.tls.certificates]]
certificate = "a.pem"
key = "a.key"
[[listen.tls.certificates]]
certificate = "b.pem"
keey = "b.key"
[[listen.tls.certificates]]
certificate = ""
key = 1
[cluster]
seeds = ["valkey-0:6379"]
"#;
    assert_eq!(
        problems(text),
        [
            "k.toml:4: listen.tls.client_crl: needs client_ca: whose certificates are revoked?",
            "k.toml:8: listen.tls.certificates.2.key: missing; each needs a certificate and its key",
            "k.toml:10: listen.tls.certificates.2.keey: unknown key; did you mean `key`?",
            "k.toml:12: listen.tls.certificates.3.certificate: an empty path; name a file",
            "k.toml:13: listen.tls.certificates.3.key: invalid type: integer `1`, expected a string",
        ]
    );
}

#[test]
fn what_is_wrong_is_underlined() {
    let text = "[listen]\nadress = 'x'\nworkers = 'two' \n[limits]\n  clients_max = 0\n[cluster]\n";
    let found = parse(text).unwrap_err();
    let excerpts: Vec<String> = found.iter().filter_map(|one| one.excerpt(text)).collect();
    for expected in [
        "  2 | adress = 'x'\n    | ^^^^^^",
        "  3 | workers = 'two' \n    |           ^^^^^",
        "  5 |   clients_max = 0\n    |                 ^",
        "  6 | [cluster]\n    | ^^^^^^^^^",
    ] {
        assert!(
            excerpts.iter().any(|one| one == expected),
            "{expected}\n{excerpts:#?}"
        );
    }
    assert_eq!(
        Problem::new("f", Some(1), "k", "m").excerpt("k = \u{1b}[31m"),
        None
    );
}

#[test]
fn a_text_that_is_not_toml_is_one_line_per_place() {
    let found = problems("[listen\naddress = 1\n");
    assert!(
        found[0].starts_with("k.toml:1: not valid TOML: "),
        "{found:?}"
    );
    assert!(found.iter().all(|line| !line.contains('\n')));
}

#[test]
fn no_key_can_break_the_line() {
    for found in problems("\"a\\nb\\u001b[31m\" = 1\n") {
        assert!(!found.contains(['\n', '\u{1b}']), "{found:?}");
    }
}

#[test]
fn contradictions_are_named() {
    for (extra, expected) in [
        (
            "username = \"u\"",
            "cluster.username: a user needs a password, by password_file or password_env",
        ),
        (
            "unauthenticated = \"service\"",
            "\"service\" needs username and password_file or password_env",
        ),
        (
            "password_file = \"/a\"\npassword_env = \"B\"",
            "leave out one of them",
        ),
        (
            "password_env = \"KEYWAY_TEST_NO_SUCH\"",
            "KEYWAY_TEST_NO_SUCH is not set or empty",
        ),
        (
            "password_file = \"/no/such\"",
            "cannot use /no/such: No such file or directory",
        ),
        (
            "[cluster.tls]\nca = \"a\"\nkey = \"k\"",
            "needs cluster.tls.certificate beside it",
        ),
        ("[cluster.tls]", "cluster.tls.ca: missing"),
        (
            "[cluster.tls]\nca = \"a\"\nserver_name = \"a b\"",
            "neither a DNS name nor an IP address",
        ),
        ("[users.a]", "how does a client show that it is this user?"),
        (
            "[users.'a b']\npassword_env = \"KEYWAY_TEST_PASSWORD\"",
            "has no spaces",
        ),
        (
            "[users.a]\npassword_env = \"KEYWAY_TEST_NONE\"",
            "is not set or empty",
        ),
        (
            "[users.a]\ncertificate = \"a\"\ncluster_password_env = \"KEYWAY_TEST_PASSWORD\"",
            "needs [listen.tls] client_ca",
        ),
        (
            "[users.a]\npassword_env = \"KEYWAY_TEST_PASSWORD\"\ncluster_usrname = \"x\"",
            "did you mean `cluster_username`?",
        ),
        (
            "[admin_commands]\nallow = [\"GET\"]",
            "\"GET\": it is not refused anyway",
        ),
        ("[admin_commands]\nallow = [\"SHUTDOWN\"]", "about one node"),
        (
            "[admin_commands]\nallow = [\"ACL\"]",
            "name those that are meant",
        ),
        (
            "[admin_commands]\nallow = [\"x.y\", \"x.y\"]",
            "is named twice",
        ),
        (
            "[admin_commands]\nallow = [\"\"]",
            "no command has this name",
        ),
    ] {
        let found = problems(&format!("{MINIMAL}{extra}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?} lacks {expected}");
    }
}

#[test]
fn every_key_about_traces_is_read() {
    let config = parse(EVERY_KEY).unwrap();
    let traces = config.traces;
    assert_eq!(
        traces.endpoint.unwrap().to_string(),
        "https://collector:4318/v1/traces"
    );
    assert_eq!((traces.one_in, &*traces.service_name), (31, "cache"));
    assert_eq!(traces.attributes["team"], "shop");
    assert_eq!(traces.ca.unwrap(), Path::new("/etc/keyway/collector.pem"));
    let (headers, source) = traces.headers.unwrap();
    assert_eq!(&*headers[1].name, "x-scope");
    assert_eq!(headers[1].value.expose(), b"a b=c");
    assert_eq!(&*source, "environment variable KEYWAY_TEST_HEADERS");
}

#[test]
fn a_collector_that_cannot_be_one_is_refused() {
    for (extra, expected) in [
        (
            "[traces]\nendpoint = \"127.0.0.1:4318\"",
            "is no URL of HTTP, like \"http://127.0.0.1:4318/v1/traces\"",
        ),
        ("[traces]\nendpoint = \"http://a:b/\"", "traces.endpoint: "),
        (
            "[traces]\nendpoint = \"http://a/a b\"",
            "its path has blanks",
        ),
        ("[traces]\nendpoint = \"https://a\"", "traces.ca: missing"),
        ("[traces]\nattributes = { \"\" = \"x\" }", "has no name"),
        (
            "[traces]\nheaders_env = \"KEYWAY_TEST_PASSWORD\"",
            "header 1 from environment variable KEYWAY_TEST_PASSWORD is not NAME=VALUE",
        ),
    ] {
        let found = problems(&format!("{MINIMAL}{extra}\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
    let found = parse(&format!(
        "{MINIMAL}[traces]\nendpoint = \"http://[::1]/v1/x\"\n"
    ));
    let endpoint = found.unwrap().traces.endpoint.unwrap();
    assert_eq!(endpoint.to_string(), "http://[::1]:80/v1/x");
}

#[test]
fn a_pool_and_its_bounds_fit_each_other() {
    for (extra, expected) in [
        (
            "[autoscale]\nshards_min = 5\nshards_max = 4",
            "is more than shards_max",
        ),
        (
            "[autoscale]\nheadroom_min_percent = 150",
            "is more than headroom_percent",
        ),
        ("[autoscale]\nwarm = [\"a:b\"]", "autoscale.warm: \"a:b\""),
        (
            "[autoscale]\nnode_cpu_percent_max = 0",
            "0 is out of range; 1 to 6400",
        ),
    ] {
        let found = problems(&format!("{MINIMAL}{extra}\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
}

#[test]
fn name_servers_are_addresses_and_few() {
    for (servers, expected) in [
        (
            "\"ns.example\"".to_owned(),
            "\"ns.example\" is no address with a port, like \"10.0.0.10:53\"",
        ),
        (
            ["\"10.0.0.10:53\""; 9].join(", "),
            "9 name servers; at most 8",
        ),
    ] {
        let found = problems(&format!("{MINIMAL}name_servers = [{servers}]\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
}

#[test]
fn the_default_user_needs_a_password_or_none() {
    let text = format!(
        "{MINIMAL}username = \"a\"\npassword_env = \"KEYWAY_TEST_PASSWORD\"\nunauthenticated = \
         \"service\"\n[users.default]\npassword_env = \"KEYWAY_TEST_PASSWORD\"\n"
    );
    let found = problems(&text);
    assert!(
        found.len() == 1 && found[0].contains("must clients say a password or not?"),
        "{found:?}"
    );
}

#[test]
fn a_password_file_loses_its_line_feed_and_nothing_else() {
    for (written, read) in [
        ("a b \n", "a b "),
        ("x\r\n", "x"),
        ("x\n\n", "x\n"),
        ("x", "x"),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(written.as_bytes()).unwrap();
        let config = parse(&format!("{MINIMAL}password_file = {:?}\n", file.path())).unwrap();
        let credentials = config.cluster.credentials.unwrap();
        assert_eq!(credentials.password.expose(), read.as_bytes());
        assert_eq!(&*credentials.username, "default");
    }
}

#[test]
fn no_output_shows_a_password() {
    let config = parse(&format!(
        "{MINIMAL}password_env = \"KEYWAY_TEST_PASSWORD\"\n"
    ))
    .unwrap();
    assert!(!format!("{config:?}{config:#?}{config}").contains("from-env"));
    assert!(
        config
            .to_string()
            .contains("# password: from environment variable KEYWAY_TEST_PASSWORD")
    );
}

#[test]
fn the_summary_is_a_configuration_again() {
    let first = parse(MINIMAL).unwrap().to_string();
    assert_eq!(parse(&first).unwrap().to_string(), first);
}

#[test]
fn a_missing_file_is_one_line() {
    let problems = Config::load(Path::new("/no/such/keyway.toml")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/no/such/keyway.toml: cannot read: No such file or directory (os error 2); give an \
         existing file by --config"
    );
}

#[test]
fn a_successor_keeps_what_only_counts_at_the_start() {
    let before = parse(
        "[listen]\nworkers = 2\naddress = '127.0.0.1:7000'\n[listen.tls]\ncertificate = 'a'\nkey = 'k'\n\
         [cluster]\nseeds = ['one:1']\n[limits]\nleases_max = 5\n",
    )
    .unwrap();
    let mut after = parse(
        "[listen]\nworkers = 3\naddress = '127.0.0.1:0'\n[listen.tls]\ncertificate = 'b'\nkey = 'k'\n\
         [cluster]\nseeds = ['one:1', 'two:2']\npassword_env = 'KEYWAY_TEST_PASSWORD'\nunauthenticated = 'service'\n\
         [cluster.tls]\nca = 'ca'\n[log]\nlevel = 'warn'\n",
    )
    .unwrap();
    let changes = after.succeed(&before);
    let at_start = ["cluster.tls.ca", "listen.workers"];
    assert_eq!(changes.at_start, at_start);
    let live = [
        "cluster.seeds",
        "cluster.unauthenticated",
        "cluster.username",
        "limits.leases_max",
        "listen.tls.certificate",
        "log.level",
    ];
    assert_eq!(changes.live, live);
    assert_eq!(after.listen.workers, 2);
    assert_eq!(after.listen.address.port(), 7000);
    assert!(after.cluster.tls.is_none() && after.cluster.credentials.is_some());
    assert_eq!(after.cluster.seeds.len(), 2);
    assert_eq!(after.clone().succeed(&after), Changes::default());
}

#[test]
fn what_is_kept_near_is_bounded_and_named_once() {
    for (extra, expected) in [
        (
            "near_prefixes = [\"a:\", \"a:b\"]",
            "one begins with the other",
        ),
        ("near_prefixes = [\"\"]", "1 to 256 bytes"),
        ("near_bytes_max = 5", "out of range"),
    ] {
        let found = problems(&format!("{MINIMAL}[hot_keys]\n{extra}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?} lacks {expected}");
    }
}

mod clusters;
