//! Several clusters behind one Keyway: each client has one of them, and never a byte of another.
#![allow(clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use keyway_tests::tenants::{Tenant, World, with_user};
use keyway_tests::{
    Certificates, Client, Keyway, RealCluster, Settings, Version, ports, run_to_end, text as shown,
    tools, trusting, wait_until,
};
use resp::Value;

/// A reply's text, of an error without its mark.
fn text(reply: &Value) -> String {
    let text = shown(reply);
    text.strip_prefix('-').unwrap_or(&text).to_owned()
}

/// Writes and reads the same keys as all others, with values that tell whose they are.
fn exercise(client: &mut Client, cluster: &str, way: &str, rounds: usize) {
    for round in 0..rounds {
        let key = format!("k{}", round % 17);
        let value = format!("{cluster}:{key}:{way}:{round}");
        assert_eq!(text(&client.cmd(&["SET", &key, &value])), "OK");
        let mut pipelined = Vec::new();
        for key in ["k0", "k5", "k11"] {
            resp::write::request(&mut pipelined, &["GET", key]);
        }
        client.raw(&pipelined);
        for key in ["k0", "k5", "k11"] {
            let got = client.read();
            if got != Value::NullBulk {
                let got = text(&got);
                assert!(
                    got.starts_with(&format!("{cluster}:{key}:")),
                    "{cluster} by {way} read {got:?}"
                );
            }
        }
    }
}

#[test]
fn clients_by_name_by_port_and_by_user_have_their_own_cluster_only() {
    let [a, b] = [with_user("alice"), with_user("bob")].map(RealCluster::with);
    let [port_a, port_b] = [(); 2].map(|()| ports::reserve());
    let own = |letter: &str, user: &str, port: u16| {
        format!(
            "server_names = [\"{letter}.test\"]\nuser_names = [\"{user}\"]\n\
             [cluster.listen]\naddress = \"127.0.0.1:{port}\""
        )
    };
    let tenants = [
        Tenant::new("a", &a, own("a", "alice", port_a.number())),
        Tenant::new("b", &b, own("b", "bob", port_b.number())),
    ];
    let world = World::new(&tenants, Settings::default());
    let connect = |cluster: &str, way: &str| -> Client {
        let is_a = cluster == "a";
        match way {
            "name" => world.by_name(&format!("{cluster}.test")),
            "port" => world.at(if is_a { &port_a } else { &port_b }.number()),
            _ => {
                let mut client = world.unnamed();
                let [user, password] = if is_a {
                    ["alice", "alice-pw"]
                } else {
                    ["bob", "bob-pw"]
                };
                let reply = client.cmd(&["AUTH", user, password]);
                assert_eq!(text(&reply), "OK");
                client
            }
        }
    };
    thread::scope(|scope| {
        for cluster in ["a", "b"] {
            for way in ["name", "port", "user"] {
                let connect = &connect;
                scope.spawn(move || {
                    for _ in 0..5 {
                        exercise(&mut connect(cluster, way), cluster, way, 60);
                    }
                });
            }
        }
    });
    // A session of one cluster, shown at the other's port under the same name.
    let sessions = trusting(&world.authority.ca, None);
    let resumed = |port: &ports::Port, cluster: &str| {
        let addr = format!("127.0.0.1:{}", port.number());
        let client = Client::try_connect_with(&addr, "localhost", &sessions);
        let mut client = client.expect("a connection");
        exercise(&mut client, cluster, "port", 1); // behind its tickets
        client.resumed()
    };
    assert!(!resumed(&port_a, "a") && resumed(&port_a, "a"));
    assert!(!resumed(&port_b, "b") && resumed(&port_b, "b"));
    for (cluster, real) in [("a", &a), ("b", &b)] {
        let value = text(&real.client(0).cmd(&["GET", "k0"]));
        assert!(value.starts_with(&format!("{cluster}:k0:")), "{value}");
    }
    every_metric_of_a_cluster_says_so(&world.keyway);
}

fn every_metric_of_a_cluster_says_so(keyway: &Keyway) {
    for cluster in ["a", "b"] {
        let label = format!("cluster=\"{cluster}\"");
        let count = |name: &str, more: &str| keyway.metric(name, &[&label, more]);
        assert!(count("keyway_requests_total", "command=\"get\"") > 2699.5);
        assert!(count("keyway_handshakes_total", "result=\"ok\"") > 9.5);
        assert!(count("keyway_topology_slots_covered", "") > 16383.5);
        assert!(count("keyway_upstream_connections", "state=\"ready\"") > 0.5);
    }
    // What there may be of all together is nobody's own; nor are handshakes and errors of clients that
    // have not chosen, and the files of `[listen.tls]`.
    let also_of_nobody = [
        "keyway_client_connections_max",
        "keyway_handshakes_total",
        "keyway_errors_total",
    ];
    let (_, page) = keyway.http("/metrics").expect("/metrics");
    let mut seen = 0;
    for metric in tools::listed_metrics() {
        let is_its_own = |line: &&str| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let rest = name.strip_prefix(&metric.name);
            rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        };
        let lines: Vec<_> = page.lines().filter(is_its_own).collect();
        let named = lines.iter().filter(|line| line.contains("cluster=\""));
        if !metric.is_of_a_cluster() {
            assert_eq!(named.count(), 0, "{}", metric.name);
        } else if !also_of_nobody.contains(&metric.name.as_str())
            && !metric.name.starts_with("keyway_tls_")
        {
            assert_eq!(named.count(), lines.len(), "{}", metric.name);
            seen += usize::from(!lines.is_empty());
        }
    }
    assert!(seen > 25, "only {seen} metrics of a cluster were there");
}

#[test]
fn what_one_cluster_s_clients_do_is_nothing_to_the_other_s() {
    let [a, b] = [(); 2].map(|()| RealCluster::start(Version::V9_1, 1, 0));
    let tenants = [
        Tenant::new("a", &a, "server_names = [\"a.test\"]"),
        Tenant::new("b", &b, "server_names = [\"b.test\"]"),
    ];
    let world = World::new(&tenants, Settings::default());
    let mut one = world.by_name("a.test");
    let mut other = world.by_name("b.test");
    one.cmd(&["CLIENT", "SETNAME", "of-a"]);
    other.cmd(&["CLIENT", "SETNAME", "of-b"]);

    let list = text(&other.cmd(&["CLIENT", "LIST"]));
    assert!(list.contains("of-b") && !list.contains("of-a"), "{list}");
    let info = text(&other.cmd(&["INFO", "clients"]));
    assert!(info.contains("connected_clients:1\r\n"), "{info}");

    let script = "return 'made for a'";
    let sha = text(&one.cmd(&["SCRIPT", "LOAD", script]));
    assert_eq!(text(&one.cmd(&["EVALSHA", &sha, "0"])), "made for a");
    let missing = text(&other.cmd(&["EVALSHA", &sha, "0"]));
    assert!(missing.starts_with("NOSCRIPT"), "{missing}");

    let mut listener = world.by_name("b.test");
    listener.cmd(&["SUBSCRIBE", "news"]);
    one.cmd(&["PUBLISH", "news", "of a"]);
    other.cmd(&["PUBLISH", "news", "of b"]);
    let Value::Array(message) = listener.read() else {
        panic!("a message")
    };
    assert_eq!(text(&message[2]), "of b", "and nothing before it");

    one.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    other.set_patience(Duration::from_secs(10));
    assert_eq!(
        text(&other.cmd(&["SET", "x", "1"])),
        "OK",
        "it is not paused"
    );
    let mut killer = world.by_name("a.test");
    killer.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_until("the other client of a to be closed", 10, || {
        let list = text(&killer.cmd(&["CLIENT", "LIST"]));
        !list.contains("of-a")
    });
    assert_eq!(
        text(&other.cmd(&["GET", "x"])),
        "1",
        "and b's client is still here"
    );

    one = world.by_name("a.test");
    one.cmd(&["CLIENT", "UNPAUSE"]);
    assert_eq!(one.cmd(&["GET", "x"]), Value::NullBulk);
    assert_eq!(text(&one.cmd(&["FLUSHALL"])), "OK");
    assert_eq!(text(&other.cmd(&["GET", "x"])), "1");
}

/// Libraries as people use them: they dial an address, most of them say no name, and who they are before
/// anything else.
#[test]
fn client_libraries_choose_by_their_user() {
    let [a, b] = [with_user("alice"), with_user("bob")].map(RealCluster::with);
    let tenants = [
        Tenant::new("a", &a, "user_names = [\"alice\"]"),
        Tenant::new("b", &b, "user_names = [\"bob\"]"),
    ];
    let world = World::new(&tenants, Settings::default());
    a.client(0).cmd(&["SET", "k", "of-alice"]);
    b.client(0).cmd(&["SET", "k", "of-bob"]);
    let (port, ca) = (world.keyway.port().to_string(), &world.authority.ca);
    let clients = tools::root().join("tests/clients");
    for user in ["alice", "bob"] {
        let (password, expected) = (format!("{user}-pw"), format!("of-{user}"));
        let run = |command: &mut Command, lines: usize| {
            let output = run_to_end(command, Duration::from_secs(60));
            let said = output.stdout + &output.stderr;
            let right = said.lines().filter(|line| line.ends_with(&expected));
            assert_eq!((output.code, right.count()), (Some(0), lines), "{said}");
        };
        let arguments = [port.as_str(), ca.to_str().expect("a path"), user, &password];
        let mut python = Command::new(tools::tool("KEYWAY_PYTHON"));
        let script = clients.join("python/tenants.py");
        run(python.arg("-B").arg(script).args(arguments), 8);
        let mut node = Command::new(tools::tool("KEYWAY_NODE"));
        node.env("NODE_PATH", tools::tool("NODE_PATH"));
        run(node.arg(clients.join("node/tenants.js")).args(arguments), 6);
        let mut cli = Command::new(tools::tool("KEYWAY_VALKEY_CLI"));
        cli.args(["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert"]);
        cli.arg(ca)
            .args(["--user", user, "--pass", &password, "GET", "k"]);
        run(&mut cli, 1);
    }
}

#[test]
fn who_names_no_user_yet_has_no_cluster() {
    let [a, b] = [with_user("alice"), with_user("bob")].map(RealCluster::with);
    let tenants = [
        Tenant::new("a", &a, "user_names = [\"alice\", \"ghost\"]"),
        Tenant::new(
            "b",
            &b,
            "user_names = [\"bob\"]\nserver_names = [\"b.test\"]",
        ),
    ];
    let world = World::new(&tenants, Settings::default());
    let starts = |client: &mut Client, args: &[&str], expected: &str| {
        let reply = text(&client.cmd(args));
        assert!(reply.starts_with(expected), "{args:?}: {reply:?}");
    };
    a.client(0).cmd(&["SET", "k", "of a"]);
    b.client(0).cmd(&["SET", "k", "of b"]);

    let mut client = world.unnamed();
    starts(&mut client, &["GET", "k"], "NOAUTH ");
    starts(&mut client, &["HELLO", "3"], "NOAUTH HELLO ");
    starts(&mut client, &["RESET"], "NOAUTH ");
    starts(&mut client, &["AUTH", "nobody", "pw"], "WRONGPASS ");
    world.keyway.wait_logged("\"user\":\"nobody\"");
    starts(&mut client, &["AUTH", "pw"], "WRONGPASS ");
    // The cluster lets everybody in who does not authenticate, but this client is not everybody.
    starts(&mut client, &["AUTH", "alice", "wrong"], "WRONGPASS ");
    starts(&mut client, &["GET", "k"], "NOAUTH ");
    starts(&mut client, &["RESET"], "RESET");
    starts(&mut client, &["GET", "k"], "NOAUTH ");
    starts(&mut client, &["AUTH", "bob", "bob-pw"], "WRONGPASS ");
    starts(&mut client, &["AUTH", "alice", "alice-pw"], "OK");
    starts(&mut client, &["GET", "k"], "of a");
    starts(&mut client, &["RESET"], "RESET");
    starts(&mut client, &["GET", "k"], "NOAUTH ");

    let mut client = world.unnamed();
    client.cmd(&["HELLO", "3", "SETNAME", "me", "AUTH", "bob", "bob-pw"]);
    starts(&mut client, &["CLIENT", "GETNAME"], "me");
    starts(&mut client, &["GET", "k"], "of b");

    // All in one write, and in pieces.
    let mut words = Vec::new();
    for args in [&["PING"][..], &["AUTH", "alice", "alice-pw"], &["GET", "k"]] {
        resp::write::request(&mut words, args);
    }
    for size in [words.len(), 1, 7] {
        let mut client = world.unnamed();
        words.chunks(size).for_each(|piece| client.raw(piece));
        let replies = [(); 3].map(|()| text(&client.read()));
        assert!(replies[0].starts_with("NOAUTH "), "{replies:?}");
        assert_eq!(replies[1..], ["OK", "of a"]);
    }
    // A name counts before a user, and there the cluster lets everybody in.
    let mut named = world.by_name("b.test");
    starts(&mut named, &["GET", "k"], "of b");
    starts(&mut named, &["AUTH", "alice", "alice-pw"], "WRONGPASS ");

    let mut client = world.unnamed();
    starts(&mut client, &["QUIT"], "OK");
    assert_eq!(
        client.read_to_end(Duration::from_secs(10)),
        Some(Vec::new())
    );
    let mut client = world.unnamed();
    client.raw(b"*1\r\n$999999999\r\n");
    let rest = client.read_to_end(Duration::from_secs(10)).expect("an end");
    assert!(rest.starts_with(b"-ERR Protocol error"), "{rest:?}");
}

#[test]
fn who_means_no_cluster_is_refused_or_has_the_default() {
    let [a, b] = [(); 2].map(|()| RealCluster::start(Version::V9_1, 1, 0));
    let tenants = [
        Tenant::new("a", &a, "server_names = [\"a.test\"]"),
        Tenant::new("b", &b, "server_names = [\"*.b.test\"]"),
    ];
    let world = World::new(&tenants, Settings::default());
    a.client(0).cmd(&["SET", "k", "of a"]);
    for name in ["c.test", "b.test", "127.0.0.1"] {
        let config = trusting(&world.authority.ca, None);
        let error = Client::try_connect_with(&world.keyway.addr(), name, &config);
        let error = error.expect_err("nobody has that name").to_string();
        assert!(error.contains("UnrecognisedName"), "{name}: {error}");
    }
    let refused = |world: &World| {
        let label = ["result=\"no_cluster\""];
        world.keyway.metric("keyway_handshakes_total", &label)
    };
    wait_until("three to be counted", 10, || refused(&world) > 2.5);
    world.keyway.wait_logged("c.test");
    // From now on one is for them.
    world
        .keyway
        .reconfigure(|text| text.replace("server_names = [\"a.test\"]", "default = true"));
    world.keyway.wait_logged("a: default");
    for name in ["c.test", "a.test", "127.0.0.1"] {
        let mut client = world.by_name(name);
        assert_eq!(text(&client.cmd(&["GET", "k"])), "of a", "{name}");
    }
    assert!((refused(&world) - 3.0).abs() < 0.5);
}

#[test]
fn trust_and_sessions_of_one_cluster_are_worth_nothing_at_another() {
    let [a, b] = [(); 2].map(|()| RealCluster::start(Version::V9_1, 1, 0));
    let [port_a, port_b] = [(); 2].map(|()| ports::reserve());
    let [of_a, of_b] = [(); 2].map(|()| Certificates::loopback());
    let folder = tempfile::tempdir().expect("a folder");
    let ca_a = folder.path().join("ca.pem");
    fs::copy(&of_a.ca, &ca_a).expect("an authority");
    let own = |port: u16, ca: &Path, name: &str, user: &str| {
        format!(
            "server_names = [\"{name}\"]\n{user}\n[cluster.listen]\naddress = \"127.0.0.1:{port}\"\n\
             [cluster.listen.tls]\nclient_ca = {ca:?}"
        )
    };
    let user = "user_names = [\"default\"]";
    let tenants = [
        Tenant::new("a", &a, own(port_a.number(), &ca_a, "a.test", user)),
        Tenant::new("b", &b, own(port_b.number(), &of_b.ca, "b.test", "")),
    ];
    let world = World::new(&tenants, Settings::default());
    let ca = &world.authority.ca;
    a.client(0).cmd(&["SET", "k", "of a"]);
    b.client(0).cmd(&["SET", "k", "of b"]);
    let shared = world.keyway.port();
    let connect = |port: u16, name: &str, config: &Arc<rustls::ClientConfig>| {
        let mut client =
            Client::try_connect_with(&format!("127.0.0.1:{port}"), name, config).ok()?;
        let value = client.try_cmd(&["GET", "k"]).ok()?; // TLS 1.3 refuses a client after its handshake
        Some((text(&value), client.resumed(), client))
    };
    let [id_a, id_b] = [&of_a, &of_b].map(|own| own.identity("client", &[]));
    let [as_a, as_b] = [&id_a, &id_b].map(|identity| trusting(ca, Some(identity)));
    for (port, name) in [(port_a.number(), "localhost"), (shared, "a.test")] {
        assert!(connect(port, name, &as_b).is_none(), "{name}");
        assert!(connect(port, name, &trusting(ca, None)).is_none(), "{name}");
        let (value, _, _) = connect(port, name, &as_a).expect("a's client");
        assert_eq!(value, "of a");
    }
    // A session of a's, at b's port under the same name: the client shows it and is not believed.
    let (_, resumed, _) = connect(port_a.number(), "localhost", &as_a).expect("a's client");
    assert!(resumed, "sessions are resumed at all");
    assert!(connect(port_b.number(), "localhost", &as_a).is_none());
    // At everyone's port nobody asks for a certificate, and a's password alone is not enough.
    let mut unnamed = world.unnamed();
    let reply = text(&unnamed.cmd(&["AUTH", "default", "x"]));
    assert!(reply.starts_with("WRONGPASS"), "{reply}");
    assert_eq!(
        unnamed.read_to_end(Duration::from_secs(10)),
        Some(Vec::new())
    );

    // a's authority is another from now on: its clients are out, and b's are not.
    let (_, _, mut out) = connect(port_a.number(), "localhost", &as_a).expect("a's client");
    let (_, _, mut stays) = connect(port_b.number(), "localhost", &as_b).expect("b's client");
    let next = Certificates::loopback();
    fs::copy(&next.ca, &ca_a).expect("an authority");
    assert_eq!(out.read_to_end(Duration::from_secs(20)), Some(Vec::new()));
    assert_eq!(text(&stays.cmd(&["GET", "k"])), "of b");
    assert!(
        connect(port_a.number(), "localhost", &as_a).is_none(),
        "resumption included"
    );
    let (_, resumed, _) = connect(port_b.number(), "localhost", &as_b).expect("b's client");
    assert!(resumed, "b's sessions are what they were");
    let reloads = |cluster: &str| {
        let labels = [cluster, "result=\"ok\""];
        world.keyway.metric("keyway_tls_reloads_total", &labels)
    };
    assert!(reloads("cluster=\"a\"") > 0.5 && reloads("cluster=\"b\"") < 0.5);
}

#[test]
fn quotas_of_one_cluster_do_not_slow_another() {
    let [a, b] = [(); 2].map(|()| RealCluster::start(Version::V9_1, 1, 0));
    let limits = "server_names = [\"a.test\"]\n[cluster.limits]\n\
                  commands_per_second_max = 100\nclients_max = 3";
    let tenants = [
        Tenant::new("a", &a, limits),
        Tenant::new("b", &b, "server_names = [\"b.test\"]"),
    ];
    let world = World::new(&tenants, Settings::default());
    let hurry = |client: &mut Client, count: usize| {
        let mut frames = Vec::new();
        (0..count).for_each(|_| resp::write::request(&mut frames, &["PING"]));
        client.raw(&frames);
        let replies = (0..count).map(|_| text(&client.read()));
        replies
            .filter(|reply| reply.starts_with("ERR KEYWAY.TOO_FAST"))
            .count()
    };
    // Of all clients together, also of those who are nobody.
    let mut of_a = [world.by_name("a.test"), world.by_name("a.test")];
    let refused: usize = of_a.iter_mut().map(|client| hurry(client, 500)).sum();
    assert!(refused > 500, "{refused} of 1000 were too many");
    assert_eq!(hurry(&mut world.by_name("b.test"), 5000), 0);

    let third = world.by_name("a.test");
    let mut fourth = world.by_name("a.test");
    let answer = fourth.read_to_end(Duration::from_secs(10)).expect("an end");
    assert_eq!(answer, b"-ERR max number of clients reached\r\n");
    let others: Vec<Client> = (0..10).map(|_| world.by_name("b.test")).collect();
    let labels = ["cluster=\"a\"", "result=\"no_place\""];
    assert!(world.keyway.metric("keyway_handshakes_total", &labels) > 0.5);
    drop((third, others));
    // Live, and for that cluster alone.
    world.keyway.reconfigure(|text| {
        text.replace("commands_per_second_max = 100\n", "")
            .replace("clients_max = 3", "clients_max = 30")
    });
    world
        .keyway
        .wait_logged("a: limits.clients_max, a: limits.commands_per_second_max");
    wait_until("no quota", 10, || hurry(&mut of_a[0], 500) == 0);
    let more: Vec<Client> = (0..10).map(|_| world.by_name("a.test")).collect();
    assert_eq!(more.len(), 10);
}

#[test]
fn a_failover_and_the_end_of_one_cluster_do_not_touch_another() {
    let mut a = RealCluster::start(Version::V9_1, 3, 1);
    let b = RealCluster::start(Version::V9_1, 1, 0);
    let tenants = [
        Tenant::new("a", &a, "server_names = [\"a.test\"]"),
        Tenant::new("b", &b, "server_names = [\"b.test\"]"),
    ];
    let world = World::new(&tenants, Settings::default());
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let revision = || {
        let name = "keyway_topology_revision";
        world.keyway.metric(name, &["cluster=\"b\""])
    };
    let before = revision();
    let addrs_of_a = a.addrs();
    thread::scope(|scope| {
        for number in 0..3 {
            let (world, over, rounds) = (&world, &over, &rounds);
            scope.spawn(move || {
                let mut client = world.by_name("b.test");
                while !over.load(SeqCst) {
                    exercise(&mut client, "b", &number.to_string(), 1);
                    rounds.fetch_add(1, SeqCst);
                }
            });
        }
        let goes_on = |count: usize| {
            let before = rounds.load(SeqCst);
            wait_until("b's clients to go on", 10, || {
                rounds.load(SeqCst) >= before + count
            });
        };
        goes_on(50);
        a.node_mut(0).kill();
        goes_on(200);
        let mut client = world.by_name("a.test");
        wait_until("a's failover", 30, || {
            let all = ["{a}", "{b}", "{c}", "{d}"].map(|key| client.cmd(&["SET", key, "1"]));
            all.iter().all(|reply| text(reply) == "OK")
        });
        goes_on(200);
        (1..6).for_each(|index| a.node_mut(index).kill());
        wait_until("a to be gone", 10, || {
            let labels = ["cluster=\"a\"", "state=\"ready\""];
            world.keyway.metric("keyway_upstream_connections", &labels) < 0.5
        });
        goes_on(200);
        over.store(true, SeqCst);
    });
    assert!(world.keyway.is_ready(), "b is served");
    let news = revision() - before;
    assert!(before > 0.5 && news.abs() < 0.5, "{before} and {news} more");
    let (_, page) = world.keyway.http("/topology?cluster=b").expect("a page");
    let strangers = addrs_of_a.iter().filter(|addr| page.contains(*addr));
    assert_eq!(strangers.count(), 0, "b knows nodes of a: {page}");
    let errors = world
        .keyway
        .metric("keyway_errors_total", &["cluster=\"b\""]);
    assert!(errors < 0.5, "{errors} errors");
    let topology = |query: &str| {
        world
            .keyway
            .http(&format!("/topology{query}"))
            .expect("a page")
    };
    let first = b.nodes()[0].addr();
    assert!(topology("?cluster=b").1.contains(&first));
    assert!(!topology("?cluster=a").1.contains(&first));
    assert_eq!(topology("?cluster=c").0, 404);
}

fn tool(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(tools::keyway());
    let output = run_to_end(command.args(arguments), Duration::from_secs(30));
    (output.code, output.stdout + &output.stderr)
}

#[test]
fn pages_and_tools_tell_of_the_cluster_that_is_asked_for() {
    let [a, b] = [(); 2].map(|()| RealCluster::start(Version::V9_1, 1, 0));
    let tenants = [
        Tenant::new("a", &a, "server_names = [\"a.test\"]"),
        Tenant::new(
            "b",
            &b,
            "server_names = [\"b.test\"]\n[cluster.reads]\nzone = \"z-b\"",
        ),
    ];
    let world = World::new(&tenants, Settings::default());
    let (admin, config) = (world.keyway.admin(), world.keyway.config());
    let of = |index: usize| [&a, &b][index].nodes()[0].addr();
    exercise(&mut world.by_name("b.test"), "b", "name", 5);
    for (cluster, own, other) in [(None, 0, 1), (Some("a"), 0, 1), (Some("b"), 1, 0)] {
        let query = cluster.map_or(String::new(), |name| format!("?cluster={name}"));
        let (_, page) = world
            .keyway
            .http(&format!("/topology{query}"))
            .expect("a page");
        assert!(
            page.contains(&of(own)) && !page.contains(&of(other)),
            "{page}"
        );
        let (status, _) = world
            .keyway
            .http(&format!("/readyz{query}"))
            .expect("a page");
        assert_eq!(status, 200);
        let options: Vec<&str> = cluster
            .iter()
            .flat_map(|name| ["--cluster", name])
            .collect();
        for [name, words @ ..] in [["topology", "", ""], ["explain", "GET", "k"]] {
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let (code, text) = tool(&[&[name, "--admin", &admin], &options[..], &words].concat());
            assert_eq!(code, Some(0), "{text}");
            assert!(
                text.contains(&of(own)) && !text.contains(&of(other)),
                "{text}"
            );
        }
        let of_top = ["top", "--json", "--count", "1", "--admin", &admin];
        let (_, text) = tool(&[&of_top[..], &options].concat());
        let name = format!("\"name\":\"{}\"", cluster.unwrap_or("a"));
        assert!(
            text.contains(&name) && text.contains("\"names\":[\"a\",\"b\"]"),
            "{text}"
        );
    }
    for arguments in [
        &["topology", "--cluster", "c", "--admin", &admin][..],
        &["doctor", "--cluster", "c", "--config", &config],
    ] {
        let (code, text) = tool(arguments);
        assert!(code != Some(0) && text.contains("a, b"), "{text}");
    }
    let (_, text) = tool(&["doctor", "--config", &config]);
    assert!(text.contains(&of(0)) && text.contains(&of(1)), "{text}");
    let (_, text) = tool(&["doctor", "--cluster", "b", "--config", &config]);
    assert!(!text.contains(&of(0)) && text.contains(&of(1)), "{text}");
    let (code, text) = tool(&["check", "--config", &config]);
    assert!(
        code == Some(0) && text.matches("[[cluster]]").count() == 2,
        "{text}"
    );
    assert!(text.contains("zone = \"z-b\""), "{text}");
}

#[test]
fn the_example_of_the_documentation_runs() {
    let page = fs::read_to_string("../docs/tenants.md").expect("docs/tenants.md");
    let (_, example) = page.split_once("```toml\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let (_, clusters) = example.split_once("[[cluster]]").expect("several clusters");
    let [a, b] = [with_user("shop"), with_user("other")].map(RealCluster::with);
    let names = ["localhost", "127.0.0.1", "orders.example.com"];
    let authority = Certificates::for_names(&names);
    let own = Certificates::for_names(&["localhost", "x.sessions.example.com"]);
    let port = ports::reserve();
    let path = |path: &Path| format!("{path:?}");
    let quoted = |text: String| format!("\"{text}\"");
    let mut section = format!("[[cluster]]{clusters}");
    for (from, to) in [
        ("\"orders-0.orders:6379\"", quoted(a.nodes()[0].addr())),
        ("\"sessions-0.sessions:6379\"", quoted(b.nodes()[0].addr())),
        (
            "\"0.0.0.0:6390\"",
            quoted(format!("127.0.0.1:{}", port.number())),
        ),
        ("\"sessions.pem\"", path(&own.cert)),
        ("\"sessions-key.pem\"", path(&own.key)),
        ("\"sessions-ca.pem\"", path(&own.ca)),
    ] {
        assert!(section.contains(from), "{from} in {section}");
        section = section.replace(from, &to);
    }
    let settings = Settings {
        certificate: Some([authority.cert.clone(), authority.key.clone()]),
        environment: vec![("KEYWAY_WEB".to_owned(), "web-pw".to_owned())],
        ..Settings::default()
    };
    let mut keyway = Keyway::launch(&section, &settings);
    keyway.wait_ready();
    a.client(0).cmd(&["SET", "k", "an order"]);
    b.client(0).cmd(&["SET", "k", "a session"]);
    let connect = |port: u16, name: &str, ca: &Path| {
        let addr = format!("127.0.0.1:{port}");
        Client::try_connect_with(&addr, name, &trusting(ca, None)).expect("a connection")
    };
    let mut orders = connect(keyway.port(), "orders.example.com", &authority.ca);
    assert_eq!(text(&orders.cmd(&["GET", "k"])), "an order");
    let mut shop = connect(keyway.port(), "localhost", &authority.ca);
    assert_eq!(text(&shop.cmd(&["AUTH", "shop", "shop-pw"])), "OK");
    assert_eq!(text(&shop.cmd(&["GET", "k"])), "an order");
    let mut sessions = connect(keyway.port(), "x.sessions.example.com", &own.ca);
    assert_eq!(text(&sessions.cmd(&["GET", "k"])), "a session");
    let mut web = connect(port.number(), "localhost", &own.ca);
    assert_eq!(text(&web.cmd(&["AUTH", "web", "web-pw"])), "OK");
    assert_eq!(text(&web.cmd(&["GET", "k"])), "a session");
}
