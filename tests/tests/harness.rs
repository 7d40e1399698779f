//! The harness does what it says: its clusters really move slots and change primaries.

use std::time::{Duration, Instant};

use keyway_tests::{
    Client, ClusterOptions, Fault, Load, LoadOptions, RealCluster, Relay, Standalone, Toward,
    Traffic, Version, slot_of, text, wait_until,
};

fn set_in_slot(cluster: &RealCluster, tag: &str, keys: usize) -> usize {
    let owner = cluster.owner(slot_of(tag));
    let mut client = cluster.client(owner);
    for i in 0..keys {
        let key = format!("{tag}:{i}");
        assert_eq!(text(&client.cmd(&["SET", &key, &key])), "OK");
    }
    owner
}

#[test]
fn slots_move_key_by_key() {
    for version in [Version::V9_1, Version::V8_0Tls] {
        let cluster = RealCluster::start(version, 2, 0);
        let from = set_in_slot(&cluster, "{moving}", 10);
        let to = 1 - from;
        let mut between = 0;
        cluster.migrate_slot(slot_of("{moving}"), from, to, || between += 1);
        assert_eq!((between, cluster.owner(slot_of("{moving}"))), (10, to));
        assert_eq!(
            text(&cluster.client(to).cmd(&["GET", "{moving}:7"])),
            "{moving}:7"
        );
        let moved = text(&cluster.client(from).cmd(&["GET", "{moving}:7"]));
        assert!(moved.starts_with("-MOVED"), "{moved}");
    }
}

#[test]
fn slots_move_in_one_step() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    let from = set_in_slot(&cluster, "{atomic}", 100);
    let slot = slot_of("{atomic}");
    cluster.migrate_slots_atomically(slot, slot, from, 1 - from);
    assert_eq!(cluster.owner(slot), 1 - from);
    assert_eq!(
        text(&cluster.client(1 - from).cmd(&["GET", "{atomic}:99"])),
        "{atomic}:99"
    );
}

#[test]
fn primaries_change_by_plan_and_by_force() {
    let options = ClusterOptions {
        node_timeout_ms: 1_000,
        ..ClusterOptions::new(Version::V8_0Tls, 3, 1)
    };
    let mut cluster = RealCluster::with(options);
    cluster.failover(3);
    wait_until("the planned failover", 10, || cluster.owner(0) == 3);
    cluster.node_mut(1).kill();
    let middle = cluster.slots_of(1).0;
    wait_until("the promotion after a kill", 20, || {
        text(&cluster.client(4).cmd(&["ROLE"])).contains("master") && cluster.owner(middle) == 4
    });
    cluster.node_mut(1).restart();
    cluster.wait_healthy();
}

#[test]
fn users_and_passwords_are_on_every_node() {
    let cluster = RealCluster::with(ClusterOptions {
        password: Some("secret".to_owned()),
        users: vec![("app".to_owned(), ">pw ~app:* +@all".to_owned())],
        ..ClusterOptions::new(Version::V9_1, 2, 1)
    });
    for index in 0..cluster.nodes().len() {
        let mut client = cluster.client(index);
        assert_eq!(text(&client.cmd(&["AUTH", "app", "pw"])), "OK");
        assert_eq!(text(&client.cmd(&["ACL", "WHOAMI"])), "app");
    }
}

#[test]
fn verifying_clients_see_what_a_cluster_shows_without_keyway() {
    let cluster = RealCluster::start(Version::V8_0Tls, 2, 0);
    let slot = slot_of("{seen}");
    let from = cluster.owner(slot);
    let node = &cluster.nodes()[from];
    let traffic = Traffic::start(&node.addr(), node.ca().expect("TLS"), 2, "{seen}");
    cluster.migrate_slot(slot, from, 1 - from, || {});
    traffic.wait_rounds(10);
    let (problems, _) = traffic.stop();
    assert!(
        problems
            .iter()
            .any(|problem| problem.got.starts_with("-MOVED")),
        "{problems:?}"
    );
    assert!(
        problems
            .iter()
            .any(|problem| problem.got.starts_with("-ASK")),
        "{problems:?}"
    );
}

#[test]
fn a_relay_delays_stalls_and_cuts() {
    let server = Standalone::start_9_1();
    let relay = Relay::listen();
    relay.point_at(server.node().port());
    let mut client = Client::try_plain(&relay.addr()).expect("a connection");
    assert_eq!(text(&client.cmd(&["SET", "a", "one"])), "OK");

    let delay = Duration::from_millis(40);
    relay.set_latency(delay);
    let begin = Instant::now();
    assert_eq!(text(&client.cmd(&["GET", "a"])), "one");
    assert!(begin.elapsed() >= 2 * delay, "there and back");
    relay.set_latency(Duration::ZERO);

    relay.stall(true);
    client.set_patience(Duration::from_millis(100));
    assert!(client.try_cmd(&["GET", "a"]).is_err(), "nothing moves");
    relay.stall(false);
    client.set_patience(Duration::from_secs(10));
    assert_eq!(text(&client.read()), "one", "late, and not lost");

    relay.cut_after(Toward::Client, 4);
    let mut request = Vec::new();
    resp::write::request(&mut request, &["GET", "a"]);
    client.raw(&request);
    let received = client.read_to_end(Duration::from_secs(10));
    assert_eq!(received.as_deref(), Some(&b"$3\r\n"[..]));
    assert!(!relay.cut_is_due());

    let mut client = Client::try_plain(&relay.addr()).expect("a connection");
    relay.cut_after(Toward::Node, request.len() - 1);
    client.raw(&request);
    let received = client.read_to_end(Duration::from_secs(10));
    assert_eq!(received.as_deref(), Some(&b""[..]));
    assert_eq!(relay.accepted(), 2);
}

#[test]
fn a_relay_falls_silent() {
    let server = Standalone::start_9_1();
    let relay = Relay::listen();
    relay.point_at(server.node().port());
    let mut before = Client::try_plain(&relay.addr()).expect("a connection");
    assert_eq!(text(&before.cmd(&["SET", "a", "one"])), "OK");
    relay.silence(true);
    let mut during = Client::try_plain(&relay.addr()).expect("it is taken");
    for client in [&mut before, &mut during] {
        client.set_patience(Duration::from_millis(100));
        assert!(client.try_cmd(&["SET", "a", "two"]).is_err());
    }
    relay.silence(false);
    for client in [&mut before, &mut during] {
        assert_eq!(
            client.read_to_end(Duration::from_secs(10)),
            Some(Vec::new())
        );
    }
    let mut after = Client::try_plain(&relay.addr()).expect("a connection");
    assert_eq!(
        text(&after.cmd(&["GET", "a"])),
        "one",
        "what was said meanwhile is lost"
    );
}

#[test]
fn clients_of_a_relayed_cluster_are_told_of_relays_only() {
    for version in [Version::V9_1, Version::V8_0Tls] {
        let cluster = RealCluster::with(ClusterOptions {
            relayed: true,
            ..ClusterOptions::new(version, 2, 1)
        });
        let slots = format!("{:?}", cluster.client(0).cmd(&["CLUSTER", "SLOTS"]));
        for index in 0..4 {
            let relay = cluster.relay(index).port();
            assert!(
                slots.contains(&format!("Integer({relay})")),
                "{relay} in {slots}"
            );
            let own = cluster.nodes()[index].port();
            assert!(
                !slots.contains(&format!("Integer({own})")),
                "{own} in {slots}"
            );
        }
        let key = (0..).map(|n| format!("k{n}"));
        let key = key.into_iter().find(|key| cluster.owner(slot_of(key)) == 1);
        let moved = text(&cluster.client(0).cmd(&["GET", &key.unwrap_or_default()]));
        let relay = cluster.relay(1).addr();
        assert!(
            moved.starts_with("-MOVED") && moved.ends_with(&relay),
            "{moved} {relay}"
        );
    }
}

/// Against a server that answers for somebody else, the load must find it: here another client
/// writes to its keys.
#[test]
fn verified_load_sees_a_write_that_is_not_its_own() {
    let server = Standalone::start();
    let options = LoadOptions {
        pause: Duration::from_millis(5),
        ..LoadOptions::new(2)
    };
    let clean = Load::start(&server.node().addr(), server.ca(), &options);
    clean.wait_rounds(50);
    let report = clean.stop();
    assert!(report.is_clean(), "{}", report.told(10));

    let options = LoadOptions {
        prefix: "again".to_owned(),
        ..options
    };
    let load = Load::start(&server.node().addr(), server.ca(), &options);
    let mut other = server.node().client();
    for _ in 0..20 {
        other.cmd(&["INCR", "again:0:n0"]);
        other.cmd(&["SET", "again:1:r0", "again:0:r0#00000001"]);
        load.wait_rounds(10);
    }
    let report = load.stop();
    assert!(report.faults_of(Fault::Twice) > 0, "{:?}", report.faults);
    assert!(report.faults_of(Fault::Swapped) > 0, "{:?}", report.faults);
}
