//! `MULTI`, `EXEC`, `DISCARD`, `WATCH` through Keyway, before real clusters that stay and that change.

use std::time::Duration;

use keyway_tests::{
    ClusterOptions, Keyway, RealCluster, Version, show, slot_of, wait_until, within,
};

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.";
const CROSSED: &str = "-CROSSSLOT Keys in request don't hash to the same slot";

/// What a client sends, a line each, and what it gets.
const CASES: [(&[&str], &[&str]); 13] = [
    (
        &["MULTI", "SET {t}1 one", "INCR {t}n", "GET {t}1", "EXEC"],
        &["OK", "QUEUED", "QUEUED", "QUEUED", "OK 1 one"],
    ),
    (
        &["MULTI", "EXEC", "EXEC"],
        &["OK", "", "-ERR EXEC without MULTI"],
    ),
    (
        &["MULTI", "SET {t}1 two", "DISCARD", "GET {t}1", "DISCARD"],
        &["OK", "QUEUED", "OK", "one", "-ERR DISCARD without MULTI"],
    ),
    // An error while it runs is its own; the others are done.
    (
        &["MULTI", "INCR {t}1", "INCR {t}n", "EXEC"],
        &[
            "OK",
            "QUEUED",
            "QUEUED",
            "-ERR value is not an integer or out of range 2",
        ],
    ),
    (
        &["MULTI", "INCR {t}n", "GET", "EXEC", "GET {t}n"],
        &[
            "OK",
            "QUEUED",
            "-ERR wrong number of arguments for 'get' command",
            ABORTED,
            "2",
        ],
    ),
    (
        &["MULTI", "INCR {t}n", "INCR other", "EXEC", "GET {t}n"],
        &["OK", "QUEUED", "QUEUED", CROSSED, "2"],
    ),
    (
        &["MULTI", "WATCH {t}n", "EXEC"],
        &[
            "OK",
            "-ERR Command 'watch' not allowed inside a transaction",
            ABORTED,
        ],
    ),
    // What Keyway answers itself has its place among the others.
    (
        &[
            "CLIENT SETNAME me",
            "MULTI",
            "CLIENT GETNAME",
            "GET {t}n",
            "PING",
            "ECHO hi",
            "EXEC",
        ],
        &[
            "OK",
            "OK",
            "QUEUED",
            "QUEUED",
            "QUEUED",
            "QUEUED",
            "me 2 PONG hi",
        ],
    ),
    (
        &["MULTI", "BLPOP {t}none 0", "EXEC"],
        &["OK", "QUEUED", "(nil)"],
    ),
    // A message goes with any keys, or alone; one to a shard has a slot of its own.
    (
        &[
            "MULTI",
            "PUBLISH one 1",
            "INCR {t}n",
            "PUBLISH two 2",
            "EXEC",
        ],
        &["OK", "QUEUED", "QUEUED", "QUEUED", "0 3 0"],
    ),
    (
        &["MULTI", "PUBLISH one 1", "PUBLISH two 2", "EXEC"],
        &["OK", "QUEUED", "QUEUED", "0 0"],
    ),
    (
        &["WATCH {t}n", "MULTI", "PUBLISH one 1", "EXEC"],
        &["OK", "OK", "QUEUED", "0"],
    ),
    (
        &["MULTI", "INCR {t}n", "SPUBLISH one 1", "EXEC"],
        &["OK", "QUEUED", "QUEUED", CROSSED],
    ),
];

#[test]
fn commands_are_gathered_and_run_together() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    for (lines, expected) in CASES {
        assert_eq!(client.ask_all(lines), expected, "{lines:?}");
    }
    assert_eq!(
        keyway.metric("keyway_upstream_connects_total", &["result=\"ok\""]),
        keyway.metric("keyway_upstream_connections", &["state=\"ready\""]),
        "no transaction opened a connection"
    );
}

#[test]
fn a_watched_key_that_changes_ends_the_transaction() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut one, mut other) = (keyway.client(), keyway.client());
    let nil = "(nil)";
    assert_eq!(one.ask_all(&["WATCH {w}k", "GET {w}k"]), ["OK", nil]);
    other.ask_all(&["SET {w}k changed"]);
    assert_eq!(
        one.ask_all(&["MULTI", "SET {w}k mine", "EXEC", "GET {w}k"]),
        ["OK", "QUEUED", nil, "changed"]
    );
    one.ask_all(&["WATCH {w}k"]);
    other.ask_all(&["SET {w}k changed"]);
    assert_eq!(
        one.ask_all(&["MULTI", "EXEC"]),
        ["OK", nil],
        "also an empty one"
    );
    // The next one is not concerned, nor is one after UNWATCH or DISCARD.
    for ends in [&["UNWATCH"][..], &["MULTI", "DISCARD"]] {
        one.ask_all(&["WATCH {w}k"]);
        one.ask_all(ends);
        other.ask_all(&["SET {w}k again"]);
        assert_eq!(
            one.ask_all(&["MULTI", "GET {w}k", "EXEC"]),
            ["OK", "QUEUED", "again"]
        );
    }
    assert_eq!(
        one.ask_all(&["WATCH {w}k", "MULTI", "SET {w}k mine", "EXEC"]),
        ["OK", "OK", "QUEUED", "OK"]
    );
    assert_eq!(
        one.ask_all(&["WATCH {w}k {x}k"]),
        ["-CROSSSLOT Keys in request don't hash to the same slot"]
    );
    // A connection that was lent once is lent again.
    let before = keyway.metric("keyway_upstream_connects_total", &["result=\"ok\""]);
    for _ in 0..200 {
        let done = one.ask_all(&["WATCH {w}k", "MULTI", "APPEND {w}k .", "EXEC"]);
        assert!(!done[3].contains(nil));
    }
    let after = keyway.metric("keyway_upstream_connects_total", &["result=\"ok\""]);
    assert!(after - before <= 2.0, "{before} {after}");
}

/// Counters that transactions raise together, while their slot goes back and forth.
fn transactions_while_a_slot_moves(version: Version, watched: bool) {
    let cluster = RealCluster::start(version, 3, 0);
    let keyway = Keyway::start(&cluster);
    let slot = slot_of("{moving}");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let rounds = std::sync::atomic::AtomicU64::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        let raise = |number: usize| {
            let (keyway, stop, rounds) = (&keyway, &stop, &rounds);
            scope.spawn(move || {
                let mut client = keyway.client();
                let (a, b) = (
                    format!("{{moving}}:a{number}"),
                    format!("{{moving}}:b{number}"),
                );
                let mut count = 0;
                while !stop.load(order) {
                    if watched {
                        assert_eq!(show(&client.cmd(&["WATCH", &a])), "OK");
                    }
                    let mut requests: Vec<Vec<u8>> = Vec::new();
                    for words in [&["MULTI"][..], &["INCR", &a], &["INCR", &b], &["EXEC"]] {
                        let mut request = Vec::new();
                        resp::write::request(&mut request, words);
                        requests.push(request);
                    }
                    let replies = client.pipeline(&requests);
                    let exec = replies.last().map(show).unwrap_or_default();
                    if watched && exec == "(nil)" {
                        continue; // the slot moved: nobody can say what became of the key
                    }
                    count += 1;
                    assert_eq!(exec, format!("{count} {count}"));
                    rounds.fetch_add(1, order);
                }
                let counts = show(&client.cmd(&["MGET", &a, &b]));
                assert_eq!(counts, format!("{count} {count}"));
            });
        };
        (0..3).for_each(raise);
        let wait = |count: u64| {
            let goal = rounds.load(order) + count;
            assert!(within(Duration::from_secs(20), || rounds.load(order) >= goal));
        };
        wait(20);
        for _ in 0..2 {
            let from = cluster.owner(slot);
            cluster.migrate_slot(slot, from, (from + 1) % 3, || {});
            wait(20);
        }
        stop.store(true, order);
    });
}

#[test]
fn transactions_follow_a_slot_before_9_1() {
    transactions_while_a_slot_moves(Version::V9_1, false);
}

#[test]
fn transactions_follow_a_slot_before_8_0_over_tls() {
    transactions_while_a_slot_moves(Version::V8_0Tls, false);
}

#[test]
fn watched_transactions_follow_a_slot() {
    transactions_while_a_slot_moves(Version::V9_1, true);
}

#[test]
fn what_a_user_may_not_do_ends_the_transaction_with_the_reason() {
    let mut options = ClusterOptions::new(Version::V9_1, 3, 0);
    options.users.push((
        "reader".to_owned(),
        ">secret ~* +@read +@transaction +@connection".to_owned(),
    ));
    let cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let replies = client.ask_all(&[
        "AUTH reader secret",
        "MULTI",
        "GET k",
        "SET k v",
        "EXEC",
        "GET k",
    ]);
    assert_eq!(
        replies[2..],
        [
            "QUEUED",
            "QUEUED",
            "-EXECABORT Transaction discarded because of: NOPERM User reader has no permissions \
             to run the 'set' command",
            "(nil)"
        ]
    );
}

#[test]
fn a_lost_node_never_runs_a_transaction_twice() {
    let mut cluster = RealCluster::start(Version::V9_1, 3, 1);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let owner = cluster.owner(slot_of("{lost}"));
    assert_eq!(
        client.ask_all(&["MULTI", "INCR {lost}", "EXEC"]),
        ["OK", "QUEUED", "1"]
    );
    cluster.node_mut(owner).kill();
    // Nothing was sent to a node that is known to be gone, so it runs when there is another.
    wait_until("the shard to have a primary", 30, || {
        let reply = client.ask_all(&["MULTI", "INCR {lost}", "EXEC"]).pop();
        let reply = reply.unwrap_or_default();
        assert!(
            reply.starts_with("-ERR KEYWAY.UN")
                || reply.starts_with("-CLUSTERDOWN")
                || reply == "2",
            "{reply}"
        );
        reply == "2"
    });
}

/// A node connection that is lost takes the watched keys with it, whatever is watched or waited for
/// afterwards.
#[test]
fn a_lost_watch_is_never_forgotten() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut one, mut other) = (keyway.client(), keyway.client());
    let owner = cluster.owner(slot_of("{w}"));
    for between in ["WATCH {w}b", "BLPOP {w}none 0.01", "GET {w}b", "UNWATCH"] {
        assert_eq!(one.ask_all(&["WATCH {w}a"]), ["OK"]);
        let node = &mut cluster.client(owner);
        node.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
        wait_until("the shard to answer again", 10, || {
            other.ask_all(&["SET {w}a changed"]) == ["OK"]
        });
        one.ask_all(&[between]);
        let expected = if between == "UNWATCH" {
            "changed"
        } else {
            "(nil)"
        };
        assert_eq!(
            one.ask_all(&["MULTI", "GET {w}a", "EXEC"]),
            ["OK", "QUEUED", expected],
            "{between}"
        );
    }
}
