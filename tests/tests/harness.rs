//! The harness does what it says: its clusters really move slots and change primaries.

use keyway_tests::{ClusterOptions, RealCluster, Traffic, Version, slot_of, text, wait_until};

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
