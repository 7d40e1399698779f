//! Many clients share few connections to the nodes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::sync::Barrier;
use std::thread;

use keyway_tests::{Client, Keyway, RealCluster, Settings, Version, slot_of, text, wait_until};
use rustix::process::{Resource, getrlimit, setrlimit};

const CLIENTS: usize = 1_000;
const THREADS: usize = 8;
const WORKERS: usize = 2;
const SHARDS: usize = 3;
/// Rounds of eight pipelined commands per client.
const ROUNDS: usize = 10;

#[test]
fn a_thousand_clients_share_a_dozen_upstream_connections() {
    raise_file_limit();
    let cluster = RealCluster::start(Version::V9_1, SHARDS, 0);
    let before = upstream_connections(&cluster);
    let keyway = Keyway::with(
        &cluster,
        &Settings {
            workers: WORKERS,
            ..Settings::default()
        },
    );
    let connected = Barrier::new(THREADS + 1);

    let most = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (keyway, connected) = (&keyway, &connected);
                scope.spawn(move || {
                    let mut clients: Vec<_> =
                        (0..CLIENTS / THREADS).map(|_| keyway.client()).collect();
                    connected.wait();
                    (0..ROUNDS).for_each(|round| all_ask(&mut clients, thread, round));
                })
            })
            .collect();
        connected.wait();
        // A client's handshake is over a moment before the server's.
        wait_until("a thousand clients counted", 5, || {
            keyway.metric("keyway_client_connections", &[]) >= 1_000.0
        });
        let mut most = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            most = most.max(upstream_connections(&cluster) - before);
            thread::sleep(std::time::Duration::from_millis(50));
        }
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        most
    });

    let bound = WORKERS * SHARDS * 2;
    assert!(
        most >= SHARDS,
        "only {most} upstream connections seen: was there load?"
    );
    assert!(
        most <= bound,
        "{most} upstream connections for {CLIENTS} clients, at most {bound} allowed"
    );
}

/// Every client writes its pipeline before the first one reads, and every reply must be its own.
fn all_ask(clients: &mut [Client], thread: usize, round: usize) {
    let name = |client: usize, i: usize| format!("{thread}-{client}-{round}-{i}");
    for (client, connection) in clients.iter_mut().enumerate() {
        let mut bytes = Vec::new();
        for i in 0..4 {
            let (key, value) = (
                format!("key {}", name(client, i)),
                format!("value {}", name(client, i)),
            );
            resp::write::request(&mut bytes, &["SET", &key, &value]);
            resp::write::request(&mut bytes, &["GET", &key]);
        }
        connection.raw(&bytes);
    }
    for (client, connection) in clients.iter_mut().enumerate() {
        for i in 0..4 {
            assert_eq!(text(&connection.read()), "OK");
            assert_eq!(
                text(&connection.read()),
                format!("value {}", name(client, i))
            );
        }
    }
}

/// Client connections that all nodes hold, without the one that asks.
fn upstream_connections(cluster: &RealCluster) -> usize {
    let count = |index: usize| {
        text(
            &cluster
                .client(index)
                .cmd(&["CLIENT", "LIST", "TYPE", "normal"]),
        )
        .lines()
        .count()
            - 1
    };
    (0..cluster.nodes().len()).map(count).sum()
}

/// A thousand sockets and more in this one process.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Big values and scripts take connections of their own; what one client sends on a key still takes
/// effect in the order sent, whichever connection each command would prefer.
#[test]
fn commands_on_a_key_keep_their_order_in_both_lanes() {
    const SCRIPT: &str = "return redis.call('append', KEYS[1], ARGV[1])";
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let ready = || keyway.metric("keyway_upstream_connections", &["state=\"ready\""]);
    thread::scope(|scope| {
        for number in 0_usize..6 {
            let keyway = &keyway;
            scope.spawn(move || {
                let mut client = keyway.client();
                let big = "x".repeat(100_000);
                for round in 0_usize..40 {
                    let key = format!("lanes:{number}:{}", round % 7);
                    let small = format!("{number}-{round}-");
                    let value = if round % 2 == 0 { &big } else { &small };
                    let whole = format!("{value}{small}{small}");
                    let requests = [
                        vec!["SET", &key, value],
                        vec!["GET", &key],
                        vec!["EVAL", SCRIPT, "1", &key, &small],
                        vec!["APPEND", &key, &small],
                        vec!["STRLEN", &key],
                        vec!["GET", &key],
                        vec!["SET", &key, &small],
                        vec!["GETDEL", &key],
                    ]
                    .map(|args| {
                        let mut frame = Vec::new();
                        resp::write::request(&mut frame, &args);
                        frame
                    });
                    let replies: Vec<_> = client.pipeline(&requests).iter().map(text).collect();
                    let [first, second] =
                        [1, 2].map(|parts| (value.len() + parts * small.len()).to_string());
                    let expected = ["OK", value, &first, &second, &second, &whole, "OK", &small];
                    assert!(replies == expected, "client {number}, round {round}");
                }
            });
        }
    });
    assert!(
        (ready() - 6.0).abs() < 0.5,
        "two lanes to each of three nodes: {}",
        ready()
    );
}

/// The replies of a pipeline leave together when that takes no time. What is in front of a command
/// that takes long comes without it, the first time and when it is known that there is one.
#[test]
fn what_is_in_front_of_a_slow_command_does_not_wait_for_it() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    let keyway = Keyway::start(&cluster);
    let owned = |shard: usize| {
        let mut names = (0..).map(|i| format!("cork:{i}"));
        names.find(|name| cluster.owner(slot_of(name)) == shard)
    };
    let [quick, slow] = [0, 1].map(|shard| owned(shard).unwrap());
    let mut slow_node = cluster.client(1);
    let mut client = keyway.client();
    for round in 0..3 {
        slow_node.cmd(&["CLIENT", "PAUSE", "600000", "WRITE"]);
        let mut bytes = Vec::new();
        for i in 0..10 {
            resp::write::request(
                &mut bytes,
                &["SETRANGE", &quick, "0", &"x".repeat(round * 20 + i)],
            );
        }
        resp::write::request(&mut bytes, &["SET", &slow, "at last"]);
        resp::write::request(&mut bytes, &["ECHO", &format!("behind it {round}")]);
        client.raw(&bytes);
        for i in 0..10 {
            assert_eq!(text(&client.read()), (round * 20 + i).to_string());
        }
        slow_node.cmd(&["CLIENT", "UNPAUSE"]);
        assert_eq!(text(&client.read()), "OK");
        assert_eq!(text(&client.read()), format!("behind it {round}"));
    }
}

#[test]
fn the_parts_of_a_command_are_short_and_long() {
    let cluster = RealCluster::start(Version::V9_1, SHARDS, 0);
    let keyway = Keyway::start(&cluster);
    // Short ones are copied, longer ones sent where they lie; the longest go by a lane of their own.
    let sizes = [10, 20_000, 12, 16_384, 200_000, 15, 40_000, 100_000];
    let pairs: Vec<[String; 2]> = (0_u8..)
        .zip(sizes)
        .map(|(number, size)| [format!("key {number}"), number.to_string().repeat(size)])
        .collect();
    let mut set = vec!["MSET"];
    set.extend(pairs.iter().flatten().map(String::as_str));
    assert_eq!(text(&keyway.client().cmd(&set)), "OK");
    let mut get = vec!["MGET"];
    get.extend(pairs.iter().rev().map(|[key, _]| key.as_str()));
    let resp::Value::Array(values) = keyway.client().cmd(&get) else {
        panic!("no array")
    };
    assert_eq!(values.len(), pairs.len());
    for ([key, expected], value) in pairs.iter().rev().zip(&values) {
        assert!(text(value) == *expected, "{key} has another value");
    }
}
