//! Clients notice nothing of a cluster that changes, and of one that fails no more than they must:
//! the table of `./tests/chaos` in small, and connections to nodes that break where it hurts.

use std::time::Duration;

use keyway_tests::chaos::{Ground, Row, atomic, killed, legacy, planned, scaled, stopped};
use keyway_tests::{
    ClusterOptions, Keyway, Load, LoadOptions, RealCluster, Report, Settings, Toward, Version,
    slot_of, text, wait_until,
};

const CLIENTS: usize = 20;

fn load() -> LoadOptions {
    LoadOptions {
        pause: Duration::from_millis(20),
        watches: true,
        pairs: 3,
        ..LoadOptions::new(CLIENTS)
    }
}

fn ground(version: Version, shards: usize, replicas: usize) -> Ground {
    let mut options = ClusterOptions::new(version, shards, replicas);
    if replicas > 0 {
        options.node_timeout_ms = 1_000;
    }
    Ground::new(options, load())
}

#[track_caller]
fn assert_clean(row: &Row) {
    assert!(row.report.verified > 0);
    assert!(
        row.report.is_clean(),
        "{:?}\n{}",
        row.cells(),
        row.details()
    );
}

#[track_caller]
fn assert_right(report: &Report) {
    assert!(report.verified > 0);
    assert!(
        report.is_right(),
        "{:?}, {:?}, {} closed\n{}",
        report.errors,
        report.faults,
        report.closed,
        report.told(20)
    );
}

#[test]
fn clients_notice_no_slot_that_moves_9_1() {
    no_slot_that_moves(Version::V9_1);
}

#[test]
fn clients_notice_no_slot_that_moves_8_0_over_tls() {
    no_slot_that_moves(Version::V8_0Tls);
}

fn no_slot_that_moves(version: Version) {
    let ground = ground(version, 3, 0);
    if version == Version::V9_1 {
        assert_clean(&atomic(&ground, 1)); // it came with 9.0
    }
    assert_clean(&legacy(&ground, 200, 1));
    // All keys in one slot: no command that does not meet it half moved.
    let options = LoadOptions {
        prefix: "{moving}".to_owned(),
        ..load()
    };
    let load = Load::start(&ground.keyway.addr(), ground.keyway.ca(), &options);
    let slot = slot_of("{moving}");
    for _ in 0..20 {
        let from = ground.cluster.owner(slot);
        let to = (from + 1) % 3;
        ground.cluster.migrate_slot(slot, from, to, || {});
        load.wait_rounds(CLIENTS as u64);
    }
    let report = load.stop();
    assert!(
        report.verified > 0 && report.is_clean(),
        "{:?}\n{}",
        report.errors,
        report.told(20)
    );
}

#[test]
fn clients_notice_no_planned_failover_and_no_more_of_a_killed_primary_than_they_must_9_1() {
    no_more_of_a_failure_than_they_must(Version::V9_1);
}

#[test]
fn clients_notice_no_planned_failover_and_no_more_of_a_killed_primary_than_they_must_8_0_over_tls()
{
    no_more_of_a_failure_than_they_must(Version::V8_0Tls);
}

fn no_more_of_a_failure_than_they_must(version: Version) {
    let mut ground = ground(version, 3, 1);
    assert_clean(&planned(&ground, 3));
    assert_right(&killed(&mut ground, 1).report);
    assert_right(&stopped(&ground, 1, Duration::from_secs(4)).report);
}

#[test]
fn clients_notice_no_shard_that_comes_or_goes() {
    let mut ground = ground(Version::V9_1, 1, 0);
    assert_clean(&scaled(&mut ground, 3, 1));
    assert_eq!(ground.cluster.nodes().len(), 1);
}

/// Every node that the configuration names goes; what is known of the others is enough.
#[test]
fn clients_notice_nothing_when_all_seeds_go() {
    let mut cluster = RealCluster::start(Version::V9_1, 4, 0);
    let section = format!("[cluster]\nseeds = {:?}\n", &cluster.addrs()[2..]);
    let mut keyway = Keyway::launch(&section, &Settings::default());
    keyway.wait_ready();
    let load = Load::start(&keyway.addr(), keyway.ca(), &load());
    while cluster.nodes().len() > 2 {
        let last = cluster.nodes().len() - 1;
        cluster.migrate_ranges_atomically(&cluster.ranges_of(last), last, 0);
        load.wait_rounds(2 * CLIENTS as u64);
        cluster.remove_last_node();
    }
    // Who is new is found all the same.
    let new = cluster.add_primary();
    cluster.migrate_ranges_atomically(&cluster.ranges_of(1), 1, new);
    load.wait_rounds(5 * CLIENTS as u64);
    let report = load.stop();
    assert!(
        report.verified > 0 && report.is_clean(),
        "{:?}\n{}",
        report.errors,
        report.told(20)
    );
    wait_until("a topology with the new node alone", 15, || {
        keyway
            .log()
            .contains(&format!("{} joined", cluster.nodes()[new].addr()))
    });
}

/// A cluster behind relays, and Keyway that gives a silent node up soon.
fn relayed(version: Version) -> (RealCluster, Keyway) {
    let cluster = RealCluster::with(ClusterOptions {
        relayed: true,
        node_timeout_ms: 30_000,
        ..ClusterOptions::new(version, 3, 0)
    });
    let settings = Settings {
        limits: "reply_timeout_ms = 1000".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    (cluster, keyway)
}

fn cut_connections_to_nodes(version: Version) {
    let (cluster, keyway) = relayed(version);
    let load = Load::start(&keyway.addr(), keyway.ca(), &load());
    for bytes in [1, 2, 3, 4, 5, 7, 12, 23, 64, 100, 333, 1_000, 5_000, 20_000] {
        for node in 0..3 {
            for toward in [Toward::Client, Toward::Node] {
                let relay = cluster.relay(node);
                relay.cut_after(toward, bytes);
                wait_until("a connection that is cut", 10, || !relay.cut_is_due());
            }
        }
        load.wait_rounds(CLIENTS as u64);
    }
    let report = load.stop();
    assert_right(&report);
    assert!(
        report.unknown_writes > 0,
        "no write was on its way when a connection was cut: nothing was tested"
    );
}

#[test]
fn connections_to_nodes_are_cut_in_the_middle_of_replies() {
    cut_connections_to_nodes(Version::V9_1);
}

#[test]
fn tls_connections_to_nodes_are_cut_in_the_middle_of_records() {
    cut_connections_to_nodes(Version::V8_0Tls);
}

#[test]
fn a_silent_node_costs_clients_of_others_nothing() {
    let (cluster, keyway) = relayed(Version::V9_1);
    let (low, high) = cluster.slots_of(1);
    let inside = |tag: &String| (low..=high).contains(&slot_of(tag));
    let elsewhere = (0..).map(|n| format!("{{other{n}}}")).find(inside);
    let options = LoadOptions {
        prefix: elsewhere.unwrap_or_default(),
        ..load()
    };
    let others = Load::start(&keyway.addr(), keyway.ca(), &options);
    let slow = (0..).map(|n| format!("silent:{n}"));
    let slow = slow.filter(|key| slot_of(key) < low).take(3);
    let [read, write, later]: [String; 3] = slow.collect::<Vec<_>>().try_into().expect("three");
    let mut client = keyway.client();
    assert_eq!(text(&client.cmd(&["SET", &read, "before"])), "OK");
    let mut request = Vec::new();
    resp::write::request(&mut request, &["GET", &read]);
    cluster.relay(0).stall(true);
    client.raw(&request);
    others.wait_rounds(CLIENTS as u64);
    cluster.relay(0).stall(false);
    assert_eq!(text(&client.read()), "before", "late is all it is");

    cluster.relay(0).silence(true);
    let answer = text(&client.cmd(&["SET", &write, "lost?"]));
    assert!(answer.contains("KEYWAY.UNKNOWN_OUTCOME"), "{answer}");
    others.wait_rounds(10 * CLIENTS as u64);
    client.raw(&request);
    others.wait_rounds(10 * CLIENTS as u64);
    cluster.relay(0).silence(false);
    assert_eq!(text(&client.read()), "before", "a read waits for its node");
    assert_eq!(text(&client.cmd(&["SET", &later, "after"])), "OK");
    assert_eq!(
        text(&client.cmd(&["EXISTS", &write])),
        "0",
        "the node never saw it"
    );
    let report = others.stop();
    assert!(
        report.is_clean(),
        "{:?}\n{}",
        report.errors,
        report.told(20)
    );
}

/// The address of a node goes over to a node of another cluster: nothing is written there, and
/// nothing that it says of its cluster is believed.
#[test]
fn a_node_of_another_cluster_at_a_known_address_is_never_believed() {
    let cluster = RealCluster::with(ClusterOptions {
        relayed: true,
        node_timeout_ms: 30_000,
        ..ClusterOptions::new(Version::V9_1, 3, 0)
    });
    let other = RealCluster::start(Version::V9_1, 1, 0);
    let settings = Settings {
        limits: "deadline_ms = 1500".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    let keys: Vec<String> = (0..60).map(|number| format!("taken:{number}")).collect();
    for key in &keys {
        assert_eq!(text(&client.cmd(&["SET", key, key])), "OK");
    }
    let relay = cluster.relay(0);
    relay.point_at(other.nodes()[0].port());
    relay.cut();
    let (first, last) = cluster.slots_of(0);
    for (number, key) in keys.iter().enumerate() {
        let said = text(&client.cmd(&["SET", key, "new"]));
        if (first..=last).contains(&slot_of(key)) {
            assert!(said.starts_with("-ERR KEYWAY.UN"), "{key}: {said}");
            if number > 20 {
                break;
            }
        } else {
            assert_eq!(said, "OK", "{key}");
        }
    }
    assert_eq!(text(&other.client(0).cmd(&["DBSIZE"])), "0");
    assert!(
        keyway.is_ready(),
        "the other cluster's topology was believed"
    );
    relay.point_at(cluster.nodes()[0].port());
    relay.cut();
    wait_until("the node's keys again", 10, || {
        keys.iter()
            .all(|key| text(&client.cmd(&["SET", key, "again"])) == "OK")
    });
}
