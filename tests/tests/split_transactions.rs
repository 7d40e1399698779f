//! `MULTI` to `EXEC` over several slots, with `cross_slot = "split_transactions"`, before real clusters
//! that stay and that change.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use keyway_tests::{
    Client, ClusterOptions, Keyway, RealCluster, Settings, Version, run_to_end, show, slot_of,
    text, tools, wait_until, within,
};
use resp::Value;

fn splitting(cluster: &RealCluster) -> Keyway {
    let settings = Settings {
        cluster: "cross_slot = 'split_transactions'\n".to_owned(),
        ..Settings::default()
    };
    Keyway::with(cluster, &settings)
}

/// A transaction in one piece; what `EXEC` says.
fn transact(client: &mut Client, commands: &[Vec<String>]) -> Value {
    let mut requests = vec![vec!["MULTI".to_owned()]];
    requests.extend_from_slice(commands);
    requests.push(vec!["EXEC".to_owned()]);
    let write = |words: &Vec<String>| {
        let mut request = Vec::new();
        resp::write::request(&mut request, words);
        request
    };
    let requests: Vec<Vec<u8>> = requests.iter().map(write).collect();
    client.pipeline(&requests).pop().expect("a reply to EXEC")
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn elements(reply: &Value) -> Vec<String> {
    match reply {
        Value::Array(elements) => elements.iter().map(text).collect(),
        other => vec![text(other)],
    }
}

#[test]
fn a_transaction_over_several_slots_is_one_for_each() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = splitting(&cluster);
    let mut client = keyway.client();
    for hello in ["HELLO 2", "HELLO 3"] {
        client.ask_all(&[hello, "FLUSHALL", "CLIENT SETNAME me"]);
        // In the order in which they were sent; what has no key, and what Keyway answers, too.
        let replies = client.ask_all(&[
            "MULTI",
            "PING",
            "SET a one",
            "INCR b",
            "CLIENT GETNAME",
            "APPEND a +",
            "HSET c f v",
            "INCR a",
            "HGETALL c",
            "BLPOP d 0",
            "ECHO hi",
            "GET a",
            "INCR b",
            "MSET a x b y e z",
            "MGET e none b a",
            "DEL a b c e none",
            "EXEC",
        ]);
        let (exec, queued) = replies.split_last().expect("replies");
        assert!(queued[1..].iter().all(|reply| reply == "QUEUED"));
        let expected = "PONG OK 1 me 4 1 -ERR value is not an integer or out of range f v (nil) hi \
                        one+ 2 OK z (nil) y x 4";
        assert_eq!(exec, expected, "{hello}");
        client.ask_all(&["MSET a one+ b 2"]);
        // What one server refuses is refused before anything runs.
        let replies = client.ask_all(&["MULTI", "SET a two", "GET", "SET b two", "EXEC"]);
        assert!(replies[4].starts_with("-EXECABORT"), "{replies:?}");
        // Watched keys are for all or nothing, which this is not.
        let replies = client.ask_all(&[
            "WATCH a",
            "MULTI",
            "SET a two",
            "SET b two",
            "EXEC",
            "MGET a b",
        ]);
        assert!(replies[4].starts_with("-CROSSSLOT"), "{replies:?}");
        assert_eq!(replies[5], "one+ 2");
        // One slot alone is one transaction, as ever.
        let replies = client.ask_all(&["MULTI", "SET {t}a 1", "SET {t}b 2", "EXEC"]);
        assert_eq!(replies[3], "OK OK");
    }
}

/// And Django's cache, which writes several keys so.
#[test]
fn pipelines_of_libraries_need_not_be_told_that_they_are_none() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = splitting(&cluster);
    let mut python = Command::new(tools::tool("KEYWAY_PYTHON"));
    let script = tools::root().join("tests/clients/python/pipelines.py");
    let port = keyway.port().to_string();
    python.arg("-B").arg(script).arg(port).arg(keyway.ca());
    let output = run_to_end(&mut python, Duration::from_secs(60));
    let said = output.stdout + &output.stderr;
    let right = said.lines().filter(|line| line.ends_with(" ok")).count();
    assert_eq!((output.code, right), (Some(0), 4), "{said}");
}

/// More slots than nodes by far, each reply in its place, whoever else is there.
#[test]
fn a_thousand_keys_come_back_in_their_order() {
    let cluster = RealCluster::start(Version::V8_0Tls, 3, 0);
    let keyway = splitting(&cluster);
    std::thread::scope(|scope| {
        for client in 0..3 {
            let keyway = &keyway;
            scope.spawn(move || {
                let mut connection = keyway.client();
                for round in 0..5 {
                    let keys = 0..1000;
                    let value = |key| format!("{client}:{round}:{key}");
                    let name = |key| format!("client{client}:{key}");
                    let set = |key| words(["SET", &name(key), &value(key)]);
                    let sets: Vec<_> = keys.clone().map(set).collect();
                    let replies = elements(&transact(&mut connection, &sets));
                    assert_eq!(replies, vec!["OK"; 1000]);
                    let gets: Vec<_> = keys.clone().map(|key| words(["GET", &name(key)])).collect();
                    let replies = elements(&transact(&mut connection, &gets));
                    assert_eq!(replies, keys.map(value).collect::<Vec<_>>());
                }
            });
        }
    });
}

/// Counters in many slots that transactions raise, while one of the slots goes back and forth.
fn while_a_slot_moves(version: Version) {
    let cluster = RealCluster::start(version, 3, 0);
    let keyway = splitting(&cluster);
    let slot = slot_of("{moving}");
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (keyway, stop, rounds) = (&keyway, &stop, &rounds);
            scope.spawn(move || {
                let mut client = keyway.client();
                let names = ["{moving}:a", "one:", "{moving}:b", "two:", "three:"];
                let keys = names.map(|name| format!("{name}{number}"));
                let raise = keys.each_ref().map(|key| words(["INCR", key]));
                let mut count = 0;
                while !stop.load(SeqCst) {
                    count += 1;
                    let replies = elements(&transact(&mut client, &raise));
                    assert_eq!(replies, vec![count.to_string(); names.len()]);
                    rounds.fetch_add(1, SeqCst);
                }
                for key in &keys {
                    assert_eq!(show(&client.cmd(&["GET", key])), count.to_string());
                }
            });
        }
        let wait = |count: u64| {
            let goal = rounds.load(SeqCst) + count;
            assert!(within(Duration::from_secs(30), || rounds.load(SeqCst) >= goal));
        };
        wait(20);
        for _ in 0..2 {
            let from = cluster.owner(slot);
            cluster.migrate_slot(slot, from, (from + 1) % 3, || {});
            wait(20);
        }
        stop.store(true, SeqCst);
    });
}

#[test]
fn they_follow_a_slot_before_9_1() {
    while_a_slot_moves(Version::V9_1);
}

#[test]
fn they_follow_a_slot_before_8_0_over_tls() {
    while_a_slot_moves(Version::V8_0Tls);
}

/// The others' replies are there, and nothing runs twice.
#[test]
fn what_a_lost_node_had_is_an_error_in_its_place() {
    let mut cluster = RealCluster::with(ClusterOptions::new(Version::V9_1, 3, 1));
    let keyway = splitting(&cluster);
    let mut client = keyway.client();
    let owner = cluster.owner(slot_of("lost"));
    let mut keys = (0..).map(|number| format!("kept{number}"));
    let kept = keys
        .find(|key| cluster.owner(slot_of(key)) != owner)
        .expect("keys without end");
    let raise = [words(["INCR", "lost"]), words(["INCR", &kept])];
    assert_eq!(elements(&transact(&mut client, &raise)), ["1", "1"]);
    let (mut count, mut raised, mut unknown) = (1, 1, 0);
    cluster.node_mut(owner).kill();
    wait_until("the shard to have a primary", 30, || {
        count += 1;
        let replies = elements(&transact(&mut client, &raise));
        assert_eq!(replies.len(), 2, "{replies:?}");
        assert_eq!(replies[1], count.to_string());
        if let Ok(number) = replies[0].parse::<u64>() {
            raised += 1;
            assert!((raised..=raised + unknown).contains(&number), "{replies:?}");
            return true;
        }
        let error = &replies[0];
        unknown += u64::from(error.starts_with("-ERR KEYWAY.UNKNOWN_OUTCOME"));
        assert!(
            error.starts_with("-ERR KEYWAY.UN") || error.starts_with("-CLUSTERDOWN"),
            "{error}"
        );
        false
    });
}
