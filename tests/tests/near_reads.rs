//! Which reads the near cache answers, and that they are answered as the node would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use keyway_tests::{Keyway, RealCluster, Settings, Version, show, text, wait_until};

type Words = &'static [&'static str];

/// Of each type: a command that makes a key, one that changes it, and reads whose answers it changes.
const CASES: [(Words, Words, &[Words]); 5] = [
    (
        &["SET", "config:s", "abc"],
        &["SET", "config:s", "\u{1}bcde"],
        &[
            &["GET", "config:s"],
            &["STRLEN", "config:s"],
            &["GETRANGE", "config:s", "0", "1"],
            &["GETBIT", "config:s", "1"],
            &["BITCOUNT", "config:s"],
            &["BITPOS", "config:s", "1"],
        ],
    ),
    (
        &["RPUSH", "config:l", "a", "b"],
        &["LPUSH", "config:l", "z"],
        &[&["LLEN", "config:l"], &["LINDEX", "config:l", "0"]],
    ),
    (
        &["SADD", "config:m", "a"],
        &["SADD", "config:m", "b"],
        &[&["SCARD", "config:m"], &["SISMEMBER", "config:m", "b"]],
    ),
    (
        &["ZADD", "config:z", "1", "a"],
        &["ZADD", "config:z", "1", "b"],
        &[
            &["ZCARD", "config:z"],
            &["ZCOUNT", "config:z", "1", "2"],
            &["ZLEXCOUNT", "config:z", "-", "+"],
        ],
    ),
    (
        &["XADD", "config:x", "*", "field", "value"],
        &["XADD", "config:x", "*", "field", "value"],
        &[&["XLEN", "config:x"]],
    ),
];

fn near(cluster: &RealCluster) -> Keyway {
    let settings = Settings {
        workers: 1,
        sections: "[hot_keys]\nnear_prefixes = ['config:']\n".to_owned(),
        ..Settings::default()
    };
    Keyway::with(cluster, &settings)
}

fn hits(keyway: &Keyway) -> f64 {
    keyway.metric("keyway_near_reads_total", &["hit"])
}

#[test]
fn what_follows_from_one_key_is_kept_until_the_key_changes() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = near(&cluster);
    let (mut node, mut client) = (cluster.client(0), keyway.client());
    let mut third = keyway.client();
    third.cmd(&["HELLO", "3"]);
    let mut kept = 0;
    for (make, change, reads) in CASES {
        node.cmd(make);
        let before: Vec<_> = reads.iter().map(|read| node.cmd(read)).collect();
        for (read, expected) in reads.iter().zip(&before) {
            let known = hits(&keyway);
            wait_until("an answer that is kept", 5, || {
                assert_eq!(show(&client.cmd(read)), show(expected), "{read:?}");
                hits(&keyway) > known
            });
        }
        // All at once, in either protocol.
        wait_until("all from what is kept", 10, || {
            let known = hits(&keyway);
            for (read, expected) in reads.iter().zip(&before) {
                assert_eq!(show(&client.cmd(read)), show(expected), "{read:?}");
                assert_eq!(show(&third.cmd(read)), show(expected), "{read:?}");
            }
            hits(&keyway) >= known + 2.0 * reads.len() as f64
        });
        node.cmd(change);
        for (read, before) in reads.iter().zip(before) {
            let after = node.cmd(read);
            assert_ne!(show(&after), show(&before), "{read:?}");
            wait_until("the news of the change", 5, || {
                show(&client.cmd(read)) == show(&after)
            });
        }
        kept += reads.len();
    }
    let all = command::CommandTable::builtin().iter();
    assert_eq!(kept, all.filter(|command| command.is_of_one_key()).count());
}

/// A flag that nobody has set is asked for as often as one that is.
#[test]
fn what_is_not_there_is_kept_until_it_is() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = near(&cluster);
    let (mut node, mut client) = (cluster.client(0), keyway.client());
    let mut third = keyway.client();
    third.cmd(&["HELLO", "3"]);
    let reads: [(Words, Words, &str); 3] = [
        (&["GET", "config:s"], &["SET", "config:s", "v"], "v"),
        (
            &["LINDEX", "config:l", "0"],
            &["RPUSH", "config:l", "e"],
            "e",
        ),
        (&["SCARD", "config:m"], &["SADD", "config:m", "a"], "1"),
    ];
    for (read, make, made) in reads {
        let mut of_none = String::new();
        for round in 0..3 {
            let missing = show(&node.cmd(read));
            wait_until("what is not there to be kept", 10, || {
                let known = hits(&keyway);
                let burst = (0..100).map(|_| {
                    let both = [client.cmd(read), third.cmd(read)];
                    both.map(|reply| show(&reply))
                });
                let seen: Vec<_> = burst.flatten().collect();
                assert!(seen.iter().all(|seen| *seen == missing), "{seen:?}");
                hits(&keyway) >= known + 150.0
            });
            assert!(round == 0 || of_none == missing);
            of_none = missing;
            node.cmd(make);
            wait_until("the news of its beginning", 5, || {
                text(&client.cmd(read)) == made && text(&third.cmd(read)) == made
            });
            node.cmd(&["DEL", read[1]]);
            wait_until("the news of its end", 5, || {
                show(&client.cmd(read)) == of_none && show(&third.cmd(read)) == of_none
            });
        }
    }
}

/// A field's time is not its key's, and nobody tells of its end.
#[test]
fn of_a_hash_nothing_is_kept() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = near(&cluster);
    let mut client = keyway.client();
    client.cmd(&["HSET", "config:h", "field", "value"]);
    client.cmd(&["HPEXPIRE", "config:h", "300", "FIELDS", "1", "field"]);
    let mut node = cluster.client(0);
    wait_until("the end of the field", 5, || {
        for read in [&["HGET", "config:h", "field"][..], &["HLEN", "config:h"]] {
            client.cmd(read);
        }
        node.cmd(&["HGET", "config:h", "field"]).is_null()
    });
    assert!(client.cmd(&["HGET", "config:h", "field"]).is_null());
    assert_eq!(hits(&keyway), 0.0);
}
