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
        ..LoadOptions::new(CLIENTS)
    }
}

/// Keyway takes no script's word for it that it was not run, so one that meets a change may get the
/// server's TRYAGAIN or CLUSTERDOWN: `./tests/chaos` counts those. Here everything else is held to
/// more.
fn ground(shards: usize, replicas: usize) -> Ground {
    let options = ClusterOptions {
        node_timeout_ms: 1_000,
        ..ClusterOptions::new(Version::V9_1, shards, replicas)
    };
    let load = LoadOptions {
        scripts: false,
        ..load()
    };
    Ground::new(options, load)
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

/// Commands on several keys that a later one has overtaken may be told to try again.
#[track_caller]
fn assert_clean_but_for_overtaken(report: &Report) {
    let others = report.errors.keys().filter(|kind| *kind != "TRYAGAIN");
    let right = report.faults.is_empty() && report.closed == 0 && others.count() == 0;
    assert!(
        right,
        "{:?}, {:?}\n{}",
        report.errors,
        report.faults,
        report.told(20)
    );
}

#[test]
fn clients_notice_no_slot_that_moves() {
    let ground = ground(3, 0);
    assert_clean(&atomic(&ground, 1));
    assert_clean_but_for_overtaken(&legacy(&ground, 200, 1).report);
    // All keys in one slot: no command that does not meet it half moved.
    let options = LoadOptions {
        prefix: "{moving}".to_owned(),
        scripts: false,
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
    assert_clean_but_for_overtaken(&load.stop());
}

#[test]
fn clients_notice_no_planned_failover_and_no_more_of_a_killed_primary_than_they_must() {
    let mut ground = ground(3, 1);
    assert_clean(&planned(&ground, 3));
    assert_right(&killed(&mut ground, 1).report);
    assert_right(&stopped(&ground, 1, Duration::from_secs(4)).report);
}

#[test]
fn clients_notice_no_shard_that_comes_or_goes() {
    let mut ground = ground(1, 0);
    assert_clean(&scaled(&mut ground, 3, 1));
    assert_eq!(ground.cluster.nodes().len(), 1);
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
