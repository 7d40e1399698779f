//! `[hot_keys]`: one key that many ask for costs its node little, and nobody reads what is old.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::thread;

use keyway_tests::hot_keys::{Reading, read_one_key};
use keyway_tests::{Client, Keyway, RealCluster, Settings, Version, text};
use resp::Value;

const COALESCE: &str = "coalesce = true";

fn keyway(cluster: &RealCluster, hot_keys: &str) -> Keyway {
    let settings = Settings {
        sections: format!("[hot_keys]\n{hot_keys}\n"),
        ..Settings::default()
    };
    Keyway::with(cluster, &settings)
}

#[test]
fn one_key_read_by_many_is_asked_for_once_in_a_while() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let reading = Reading {
        hot_keys: "",
        clients: 100,
        depth: 16,
        rounds: 10,
    };
    let without = read_one_key(&cluster, reading);
    assert_eq!(without.at_nodes, without.reads);
    let hot_keys = COALESCE;
    let coalesced = read_one_key(
        &cluster,
        Reading {
            hot_keys,
            ..reading
        },
    );
    assert!(
        coalesced.at_nodes * 5 <= coalesced.reads,
        "{coalesced:?} is less than five reads for each command"
    );
}

/// Everything that a client sends at once, in the order of its own commands.
#[test]
fn a_client_reads_what_it_has_written_before() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = keyway(&cluster, COALESCE);
    thread::scope(|scope| {
        for number in 0..4 {
            let keyway = &keyway;
            scope.spawn(move || {
                let mut client = keyway.client();
                (0..200).for_each(|round| counts(&mut client, number, round));
            });
        }
    });
    assert!(keyway.metric("keyway_coalesced_total", &[]) > 0.0);
}

/// `INCR` between `GET`s that all look the same: what each shows is no less than what the client's
/// own commands before it have counted.
fn counts(client: &mut Client, number: usize, round: usize) {
    let key = format!("counter:{}", round / 20);
    let commands: Vec<Vec<&str>> = (0..24)
        .map(|at| {
            if (at + number).is_multiple_of(6) {
                vec!["INCR", &key]
            } else {
                vec!["GET", &key]
            }
        })
        .collect();
    let mut bytes = Vec::new();
    for command in &commands {
        resp::write::request(&mut bytes, command);
    }
    client.raw(&bytes);
    let mut seen = 0;
    for command in &commands {
        let reply = client.read();
        let count = match &reply {
            reply if reply.is_null() => 0,
            reply => text(reply).parse::<i64>().unwrap(),
        };
        assert!(
            count >= seen && (count > seen || command.first() == Some(&"GET")),
            "{command:?} shows {count} after {seen}"
        );
        seen = count;
    }
}

#[test]
fn errors_and_big_values_reach_all_who_asked() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = keyway(&cluster, COALESCE);
    let mut client = keyway.client();
    let big = "x".repeat(300_000);
    client.cmd(&["SET", "big", &big]);
    client.cmd(&["SET", "text", "no list"]);
    let mut bytes = Vec::new();
    for _ in 0..8 {
        resp::write::request(&mut bytes, &["LRANGE", "text", "0", "-1"]);
        resp::write::request(&mut bytes, &["GET", "big"]);
    }
    client.raw(&bytes);
    for _ in 0..8 {
        let error = client.read();
        let error = error.as_error().map(<[u8]>::to_vec).unwrap_or_default();
        assert!(error.starts_with(b"WRONGTYPE"), "{error:?}");
        assert_eq!(client.read().as_bytes(), Some(big.as_bytes()));
    }
    // What they ask for moves away at the same moment.
    let slot = keyway_tests::slot_of("text");
    let from = cluster.owner(slot);
    cluster.migrate_slot(slot, from, (from + 1) % 3, || {});
    client.raw(&bytes);
    for _ in 0..8 {
        assert!(client.read().as_error().is_some());
        assert!(matches!(client.read(), Value::Bulk(_)));
    }
}
