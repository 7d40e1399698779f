//! `[hot_keys]`: one key that many ask for costs its node little, and nobody reads what is old.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::thread;

use keyway_tests::hot_keys::{Reading, read_one_key, read_while_written};
use keyway_tests::{
    Client, ClusterOptions, Keyway, RealCluster, Settings, Version, text, wait_until,
};
use resp::Value;

const COALESCE: &str = "coalesce = true";
const HOT: &str = "near_ops_min = 100";
const NEAR: &str = "near_prefixes = ['config:']";

fn keyway(cluster: &RealCluster, hot_keys: &str) -> Keyway {
    let settings = Settings {
        sections: format!("[hot_keys]\n{hot_keys}\n"),
        ..Settings::default()
    };
    Keyway::with(cluster, &settings)
}

/// All of its clients have one cache.
fn one_worker(cluster: &RealCluster, hot_keys: &str) -> Keyway {
    let settings = Settings {
        workers: 1,
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
    let hot_keys = NEAR;
    let near = read_one_key(
        &cluster,
        Reading {
            hot_keys,
            ..reading
        },
    );
    assert!(
        near.at_nodes * 100 <= near.reads,
        "{near:?} is less than a hundred reads for each command"
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

/// Reads until Keyway answers itself.
fn warm(keyway: &Keyway, client: &mut Client, key: &str) {
    let before = keyway.metric("keyway_near_reads_total", &["hit"]);
    wait_until("what is kept near", 5, || {
        client.cmd(&["GET", key]);
        keyway.metric("keyway_near_reads_total", &["hit"]) > before
    });
}

#[test]
fn what_is_near_is_a_second_old_at_most_and_never_goes_back() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let freshness = read_while_written(&cluster, NEAR, 8_000);
    assert!(
        freshness.writes > 20 && freshness.hits > 1_000.0,
        "{freshness:?}"
    );
    assert!(freshness.oldest.as_millis() < 1_000, "{freshness:?}");
}

/// Kept because many ask for it, without being named, and let go when they do not any more.
#[test]
fn a_key_that_is_hot_is_kept_until_it_has_cooled() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = one_worker(&cluster, HOT);
    let [mut client, mut other] = [keyway.client(), keyway.client()];
    client.cmd(&["SET", "hot", "first"]);
    client.cmd(&["SET", "cold", "value"]);
    let mut burst = Vec::new();
    (0..50).for_each(|_| resp::write::request(&mut burst, &["GET", "hot"]));
    let mut read_often = |value: &str| {
        client.raw(&burst);
        (0..50).for_each(|_| assert_eq!(text(&client.read()), value));
    };
    let hits = || keyway.metric("keyway_near_reads_total", &["hit"]);
    let reads = || hits() + keyway.metric("keyway_near_reads_total", &["miss"]);
    wait_until("what is hot to be kept", 30, || {
        read_often("first");
        hits() > 0.0
    });
    // A client's own write is read at once, and by whoever shares the worker.
    for round in 0..100 {
        let value = format!("value {round}");
        other.cmd(&["SET", "hot", &value]);
        assert_eq!(text(&other.cmd(&["GET", "hot"])), value);
        read_often(&value);
    }
    // What is cold is not kept, however it is looked at.
    let before = reads();
    assert_eq!(text(&other.cmd(&["GET", "cold"])), "value");
    assert_eq!(reads(), before);
    let bytes = || keyway.metric("keyway_near_bytes", &[]);
    wait_until("a value that is kept", 30, || {
        read_often("value 99");
        bytes() > 0.0
    });
    wait_until("what has cooled to be gone", 30, || bytes() == 0.0);
    let before = reads();
    assert_eq!(text(&other.cmd(&["GET", "hot"])), "value 99");
    assert_eq!(reads(), before);
}

/// What is answered near is seen as hot as it is.
#[test]
fn a_key_that_is_kept_near_is_among_the_hottest() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = one_worker(&cluster, NEAR);
    let mut client = keyway.client();
    client.cmd(&["SET", "config:k", "value"]);
    client.cmd(&["SET", "other", "value"]);
    warm(&keyway, &mut client, "config:k");
    let before = keyway.metric("keyway_near_reads_total", &["hit"]);
    let mut burst = Vec::new();
    for number in 0..500 {
        let key = if number % 10 == 0 {
            "other"
        } else {
            "config:k"
        };
        resp::write::request(&mut burst, &["GET", key]);
    }
    let slot = keyway_tests::slot_of("config:k");
    let mut read = |times| {
        for _ in 0..times {
            client.raw(&burst);
            (0..500).for_each(|_| assert_eq!(text(&client.read()), "value"));
        }
    };
    // So many that a sample of those that nodes answer would have them as the hottest.
    read(100);
    wait_until("the hottest key", 10, || {
        read(1);
        let (_, heat) = keyway.http("/heat").expect("an answer");
        let heat: serde_json::Value = serde_json::from_str(&heat).expect("JSON");
        let hottest = &heat["keys"][0];
        // Nine of ten.
        hottest["slot"] == slot && hottest["percent"].as_f64() > Some(75.0)
    });
    assert!(keyway.metric("keyway_near_reads_total", &["hit"]) > before + 400.0);
    let shown = text(&client.cmd(&["KEYWAY", "HOTKEYS", "COUNT", "1"]));
    assert!(shown.contains("config:k"), "{shown}");
    // Slots are what nodes have to do: there the other one is hotter.
    let slots = client.cmd(&["KEYWAY", "HOTSLOTS", "COUNT", "1"]);
    let first = keyway_tests::slot_of("other").to_string();
    assert!(text(&slots).contains(&first), "{}", text(&slots));
}

/// As for keys that are named, with writers elsewhere.
#[test]
fn what_is_hot_is_a_second_old_at_most_and_never_goes_back() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let freshness = read_while_written(&cluster, HOT, 30_000);
    assert!(
        freshness.writes > 20 && freshness.hits > 1_000.0,
        "{freshness:?}"
    );
    // Without news of changes nearly all would be.
    assert!(freshness.old * 2 < freshness.reads, "{freshness:?}");
    assert!(freshness.oldest.as_millis() < 1_000, "{freshness:?}");
}

#[test]
fn own_writes_are_read_at_once() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = one_worker(&cluster, NEAR);
    let [mut one, mut other] = [keyway.client(), keyway.client()];
    one.cmd(&["SET", "config:own", "first"]);
    warm(&keyway, &mut one, "config:own");
    for round in 0..300 {
        let value = format!("value {round}");
        match round % 3 {
            0 => one.cmd(&["SET", "config:own", &value]),
            1 => one.cmd(&[
                "EVAL",
                "return redis.call('SET', KEYS[1], ARGV[1])",
                "1",
                "config:own",
                &value,
            ]),
            _ => {
                one.cmd(&["MULTI"]);
                one.cmd(&["SET", "config:own", &value]);
                one.cmd(&["EXEC"])
            }
        };
        assert_eq!(text(&one.cmd(&["GET", "config:own"])), value);
        // Who shares the worker reads it too, and has it kept again.
        (0..4).for_each(|_| assert_eq!(text(&other.cmd(&["GET", "config:own"])), value));
        // Behind a write that is on its way, in one go.
        let next = format!("next {round}");
        let mut bytes = Vec::new();
        resp::write::request(&mut bytes, &["SET", "config:own", &next]);
        resp::write::request(&mut bytes, &["GET", "config:own"]);
        one.raw(&bytes);
        assert_eq!(text(&one.read()), "OK");
        assert_eq!(text(&one.read()), next);
    }
    assert!(keyway.metric("keyway_near_reads_total", &["hit"]) > 0.0);
}

#[test]
fn nothing_is_kept_that_nobody_answers_for() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = one_worker(&cluster, NEAR);
    let mut client = keyway.client();
    let slot = keyway_tests::slot_of("config:k");
    let owner = cluster.owner(slot);
    let mut node = cluster.client(owner);
    let reads = |client: &mut Client, value: &str| {
        wait_until("the new value", 5, || {
            text(&client.cmd(&["GET", "config:k"])) == value
        });
    };
    node.cmd(&["SET", "config:k", "one"]);
    warm(&keyway, &mut client, "config:k");
    // The connection that tells of changes is gone.
    node.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_until("what it answered for dropped", 5, || {
        keyway.metric("keyway_near_dropped_total", &["lost"]) > 0.0
    });
    node.cmd(&["SET", "config:k", "two"]);
    assert_eq!(text(&client.cmd(&["GET", "config:k"])), "two");
    warm(&keyway, &mut client, "config:k");
    // Everything is flushed, past Keyway.
    node.cmd(&["FLUSHALL"]);
    wait_until("nothing", 5, || client.cmd(&["GET", "config:k"]).is_null());
    node.cmd(&["SET", "config:k", "three"]);
    reads(&mut client, "three");
    warm(&keyway, &mut client, "config:k");
    // The slot moves, and its new owner changes the key.
    let to = (owner + 1) % 3;
    cluster.migrate_slots_atomically(slot, slot, owner, to);
    wait_until("the slot has moved", 10, || cluster.owner(slot) == to);
    cluster.client(to).cmd(&["SET", "config:k", "four"]);
    reads(&mut client, "four");
    warm(&keyway, &mut client, "config:k");
    // Its time is over.
    let mut node = cluster.client(to);
    node.cmd(&["SET", "config:k", "five", "PX", "700"]);
    reads(&mut client, "five");
    warm(&keyway, &mut client, "config:k");
    wait_until("its end", 5, || node.cmd(&["GET", "config:k"]).is_null());
    assert!(client.cmd(&["GET", "config:k"]).is_null());
}

/// It still answers `PING`, and what it holds may have changed at its successor's.
#[test]
fn a_primary_that_has_lost_its_cluster_answers_for_nothing() {
    let mut cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = one_worker(&cluster, NEAR);
    let mut client = keyway.client();
    let owner = cluster.owner(keyway_tests::slot_of("config:k"));
    let mut node = cluster.client(owner);
    node.cmd(&["SET", "config:k", "one"]);
    warm(&keyway, &mut client, "config:k");
    (0..3)
        .filter(|other| *other != owner)
        .for_each(|other| cluster.node_mut(other).kill());
    let is_down = |client: &mut Client| {
        let answer = text(&client.cmd(&["GET", "config:k"]));
        answer.starts_with("-CLUSTERDOWN")
    };
    wait_until("the node to know that it is alone", 20, || {
        is_down(&mut node)
    });
    wait_until("what is kept to be given up", 5, || is_down(&mut client));
}

#[test]
fn users_share_nothing_and_transactions_that_watch_read_from_nodes() {
    let mut options = ClusterOptions::new(Version::V9_1, 1, 0);
    options.users = vec![("other".to_owned(), ">secret ~none:* +@all".to_owned())];
    let cluster = RealCluster::with(options);
    let keyway = one_worker(&cluster, NEAR);
    let mut client = keyway.client();
    client.cmd(&["SET", "config:k", "value"]);
    warm(&keyway, &mut client, "config:k");
    let mut other = keyway.client();
    assert_eq!(text(&other.cmd(&["AUTH", "other", "secret"])), "OK");
    for _ in 0..20 {
        let refused = other.cmd(&["GET", "config:k"]);
        let refused = refused.as_error().map(<[u8]>::to_vec).unwrap_or_default();
        assert!(refused.starts_with(b"NOPERM"), "{refused:?}");
    }
    let hits = keyway.metric("keyway_near_reads_total", &["hit"]);
    client.cmd(&["WATCH", "config:k"]);
    assert_eq!(text(&client.cmd(&["GET", "config:k"])), "value");
    assert_eq!(keyway.metric("keyway_near_reads_total", &["hit"]), hits);
    client.cmd(&["UNWATCH"]);
    warm(&keyway, &mut client, "config:k");
}

/// All say the same before any has its answer.
fn all_say(clients: &mut [Client], words: &[&str], answer: &str) {
    let mut request = Vec::new();
    resp::write::request(&mut request, words);
    clients.iter_mut().for_each(|client| client.raw(&request));
    for client in clients {
        assert_eq!(text(&client.read()), answer);
    }
}

#[test]
fn reads_of_one_key_that_may_be_old_are_spread_over_its_shard() {
    let cluster = RealCluster::start(Version::V9_1, 1, 2);
    let keyway = one_worker(&cluster, "");
    let mut clients: Vec<Client> = (0..24).map(|_| keyway.client()).collect();
    all_say(&mut clients, &["SET", "hot", "value"], "OK");
    // Replicas have it, or a client would miss it.
    assert_eq!(text(&cluster.client(0).cmd(&["WAIT", "2", "5000"])), "2");
    let gets = || -> Vec<u64> {
        let calls = |index: usize| {
            let stats = text(&cluster.client(index).cmd(&["INFO", "commandstats"]));
            let mut lines = stats.lines();
            let calls = lines.find_map(|line| line.strip_prefix("cmdstat_get:calls="));
            calls.and_then(|calls| calls.split(',').next()?.parse().ok())
        };
        (0..3).map(|index| calls(index).unwrap_or(0)).collect()
    };
    all_say(&mut clients, &["READONLY"], "OK");
    wait_until("both replicas read from", 10, || {
        let before = gets();
        all_say(&mut clients, &["GET", "hot"], "value");
        gets()
            .iter()
            .zip(before)
            .skip(1)
            .all(|(now, before)| *now > before)
    });
    let before = gets();
    for _ in 0..50 {
        all_say(&mut clients, &["GET", "hot"], "value");
    }
    let shares: Vec<u64> = gets()
        .iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect();
    assert_eq!(shares.iter().sum::<u64>(), 24 * 50);
    assert!(
        shares.iter().skip(1).all(|share| *share >= 24 * 50 / 3),
        "{shares:?}"
    );
}
