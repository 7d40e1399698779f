//! Commands about the whole keyspace: every shard is asked, and one answer comes back.

use std::collections::BTreeSet;

use keyway_tests::{Client, Keyway, RealCluster, Version, show, slot_of, text};
use resp::Value;

fn names(value: &Value) -> Vec<String> {
    value
        .as_array()
        .unwrap_or_default()
        .iter()
        .map(text)
        .collect()
}

/// Walks through the keyspace; `between` runs after every page.
fn scan(client: &mut Client, options: &[&str], mut between: impl FnMut(usize)) -> Vec<String> {
    let (mut cursor, mut found, mut pages) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let mut words = vec!["SCAN", &cursor];
        words.extend(options);
        let reply = client.cmd(&words);
        let [next, page] = reply.as_array().unwrap_or_default() else {
            assert_eq!(show(&reply), "a page");
            return found;
        };
        found.extend(names(page));
        cursor = text(next);
        if cursor == "0" {
            return found;
        }
        assert!(
            cursor.parse::<u64>().is_ok_and(|cursor| cursor < 1 << 63),
            "{cursor}"
        );
        between(pages);
        pages += 1;
    }
}

fn fill(client: &mut Client, count: usize) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..count).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        client.cmd(&["SET", key, key]);
    }
    keys
}

#[test]
fn every_shard_counts() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let keys = fill(&mut client, 300);
    let ask = |client: &mut Client, line: &str| client.cmd(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(text(&ask(&mut client, "DBSIZE")), "300");
    let found: BTreeSet<String> = names(&ask(&mut client, "KEYS key:*")).into_iter().collect();
    assert_eq!(found, keys);
    assert!(names(&ask(&mut client, "KEYS none*")).is_empty());
    let random: BTreeSet<String> = (0..50)
        .map(|_| text(&ask(&mut client, "RANDOMKEY")))
        .collect();
    let shards: BTreeSet<usize> = random
        .iter()
        .map(|key| cluster.owner(slot_of(key)))
        .collect();
    assert!(random.is_subset(&keys) && shards.len() == 3, "{random:?}");
    // A command behind sees what one before did, on every shard.
    let requests: Vec<Vec<u8>> = [
        &["SET", "one", "1"][..],
        &["FLUSHALL"],
        &["DBSIZE"],
        &["GET", "one"],
    ]
    .iter()
    .map(|words| {
        let mut request = Vec::new();
        resp::write::request(&mut request, words);
        request
    })
    .collect();
    let replies: Vec<String> = client.pipeline(&requests).iter().map(show).collect();
    assert_eq!(replies, ["OK", "OK", "0", "(nil)"]);
    assert_eq!(show(&ask(&mut client, "RANDOMKEY")), "(nil)");
}

#[test]
fn scripts_and_functions_are_on_every_shard() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let sha = text(&client.cmd(&["SCRIPT", "LOAD", "return KEYS[1]"]));
    let known = client.cmd(&["SCRIPT", "EXISTS", &sha, "0000"]);
    assert_eq!(names(&known), ["1", "0"]);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(text(&client.cmd(&["EVALSHA", &sha, "1", key])), key);
    }
    let library =
        "#!lua name=lib\nserver.register_function('echo', function(keys) return keys[1] end)";
    assert_eq!(text(&client.cmd(&["FUNCTION", "LOAD", library])), "lib");
    for key in ["a", "b", "c", "d"] {
        assert_eq!(text(&client.cmd(&["FCALL", "echo", "1", key])), key);
    }
    assert!(text(&client.cmd(&["FUNCTION", "LOAD", library])).starts_with("-ERR Library 'lib'"));
    let dump = client.cmd(&["FUNCTION", "DUMP"]);
    let Value::Bulk(dump) = dump else {
        panic!("{dump:?}")
    };
    assert_eq!(text(&client.cmd(&["FUNCTION", "FLUSH"])), "OK");
    assert!(text(&client.cmd(&["FCALL", "echo", "1", "a"])).starts_with("-ERR"));
    assert_eq!(
        text(&client.cmd(&[&b"FUNCTION"[..], b"RESTORE", &dump])),
        "OK"
    );
    assert_eq!(text(&client.cmd(&["FCALL", "echo", "1", "d"])), "d");
    assert_eq!(
        text(&client.cmd(&["SCRIPT", "KILL"])),
        "-NOTBUSY No scripts in execution right now."
    );
    assert_eq!(text(&client.cmd(&["SCRIPT", "FLUSH"])), "OK");
    assert_eq!(names(&client.cmd(&["SCRIPT", "EXISTS", &sha])), ["0"]);
}

fn scan_finds_everything(version: Version) {
    let cluster = RealCluster::start(version, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    assert!(scan(&mut client, &[], |_| {}).is_empty());
    let keys = fill(&mut client, 2_000);
    for key in 0..50 {
        client.cmd(&["HSET", &format!("hash:{key}"), "f", "v"]);
        client.cmd(&["SET", &format!("{{one slot}}:{key}"), "v"]);
    }
    for count in ["1000000", "100", "7"] {
        let found = scan(&mut client, &["COUNT", count, "MATCH", "key:*"], |_| {});
        assert_eq!(
            found.len(),
            keys.len(),
            "COUNT {count}: nothing twice while nothing changes"
        );
        assert_eq!(BTreeSet::from_iter(found), keys, "COUNT {count}");
    }
    let hashes = scan(&mut client, &["TYPE", "hash", "COUNT", "100"], |_| {});
    assert_eq!(hashes.len(), 50);
    let one_slot = scan(&mut client, &["MATCH", "{one slot}*", "COUNT", "5"], |_| {});
    assert_eq!(BTreeSet::from_iter(one_slot).len(), 50);
    for (words, error) in [
        (&["SCAN", "x"][..], "-ERR invalid cursor"),
        (&["SCAN", "0", "COUNT", "0"], "-ERR syntax error"),
    ] {
        assert_eq!(text(&client.cmd(words)), error);
    }
}

#[test]
fn scan_finds_everything_before_9_1() {
    scan_finds_everything(Version::V9_1);
}

#[test]
fn scan_finds_everything_before_8_0_over_tls() {
    scan_finds_everything(Version::V8_0Tls);
}

#[test]
fn scan_misses_nothing_while_slots_move() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let keys = fill(&mut client, 1_000);
    // Many keys in one slot, so that it moves while the scan is within it.
    let deep: BTreeSet<String> = (0..1_000).map(|key| format!("{{deep}}:{key}")).collect();
    for key in &deep {
        client.cmd(&["SET", key, "v"]);
    }
    let slot = slot_of("{deep}");
    let mut moves = 0;
    let found = scan(&mut client, &["COUNT", "20"], |page| {
        if page % 15 == 0 && moves < 12 {
            moves += 1;
            let from = cluster.owner(slot);
            cluster.migrate_slots_atomically(slot, slot, from, (from + 1) % 3);
        }
    });
    assert!(moves > 5, "{moves}");
    let found = BTreeSet::from_iter(found);
    let missed: Vec<&String> = keys
        .union(&deep)
        .filter(|key| !found.contains(*key))
        .collect();
    assert!(
        missed.is_empty(),
        "{} missed: {:?}",
        missed.len(),
        &missed[..1]
    );
}
