//! Commands about the whole keyspace: every shard is asked, and one answer comes back.

use std::collections::BTreeSet;

use keyway_tests::{
    Client, ClusterOptions, Keyway, RealCluster, Version, show, slot_of, text, wait_until,
};
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

#[test]
fn a_script_is_known_where_a_node_has_forgotten_it() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut loader = keyway.client();
    let sha = text(&loader.cmd(&["SCRIPT", "LOAD", "return {KEYS[1], 'known'}"]));
    let forget = || {
        for node in 0..3 {
            cluster.client(node).cmd(&["SCRIPT", "FLUSH"]);
        }
    };
    // Also for clients of another worker, and for scripts that EVAL has shown.
    let mut clients: Vec<Client> = (0..4).map(|_| keyway.client()).collect();
    for round in 0..3 {
        forget();
        for client in &mut clients {
            for key in ["a", "b", "c", "d"] {
                let reply = show(&client.cmd(&["EVALSHA", &sha, "1", key]));
                assert_eq!(reply, format!("{key} known"), "round {round}");
            }
        }
    }
    assert_eq!(show(&loader.cmd(&["EVAL", "return 'shown'", "0"])), "shown");
    forget();
    let shown = "9fd5a7c4b7ba4d0e4c8f8a9a7a7d5d5d5d5d5d5d";
    let unknown = "-NOSCRIPT No matching script.";
    // What a client has had forgotten stays so.
    let known = text(&loader.cmd(&["SCRIPT", "LOAD", "return 'gone'"]));
    assert_eq!(show(&loader.cmd(&["SCRIPT", "FLUSH"])), "OK");
    assert_eq!(show(&loader.cmd(&["EVALSHA", &known, "0"])), unknown);
    loader.cmd(&["EVAL", "return 'shown'", "0"]);
    forget();
    assert_eq!(show(&loader.cmd(&["EVALSHA", shown, "0"])), unknown);
    let sha = text(&cluster.client(0).cmd(&["SCRIPT", "LOAD", "return 'shown'"]));
    forget();
    assert_eq!(show(&loader.cmd(&["EVALSHA", &sha, "0"])), "shown");
}

#[test]
fn several_keys_are_set_at_their_owner() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let mut ask = |line: &str| client.ask(line);
    assert_eq!(ask("MSETEX 2 {e}1 one {e}2 two EX 100"), "1");
    assert_eq!(ask("MSETEX 2 {e}1 other {e}3 three NX"), "0");
    assert_eq!(ask("MGET {e}1 {e}2 {e}3"), "one two (nil)");
    assert_eq!(
        ask("MSETEX 2 a 1 b 2"),
        "-CROSSSLOT Keys in request don't hash to the same slot"
    );
    // A node that has just lost the slot would take it without a word.
    let slot = slot_of("{e}");
    let from = cluster.owner(slot);
    cluster.migrate_slots_atomically(slot, slot, from, (from + 1) % 3);
    assert_eq!(ask("MSETEX 2 {e}1 moved {e}2 too"), "1");
    assert_eq!(ask("MGET {e}1 {e}2"), "moved too");
}

#[test]
fn a_client_waits_for_the_replicas_of_every_shard() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let mut ask = |line: &str| client.ask(line);
    for key in ["a", "b", "c", "d"] {
        ask(&format!("SET {key} 1"));
    }
    assert_eq!(ask("WAIT 1 5000"), "1");
    assert_eq!(ask("WAITAOF 0 0 100"), "0 0");
    // One replica stands still: its shard's writes are not confirmed.
    let stopped = cluster.owner(slot_of("a"));
    cluster.nodes()[3 + stopped].freeze();
    ask("SET a 2");
    assert_eq!(ask("WAIT 1 200"), "0");
    cluster.nodes()[3 + stopped].thaw();
    assert_eq!(ask("WAIT 1 5000"), "1");
    assert_eq!(
        ask("WAIT x 1"),
        "-ERR value is not an integer or out of range"
    );
}

#[test]
fn databases_are_apart() {
    let mut options = ClusterOptions::new(Version::V9_1, 3, 0);
    options.extra = vec!["--cluster-databases".to_owned(), "4".to_owned()];
    let cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let mut ask = |line: &str| client.ask(line);
    assert_eq!(ask("SET k zero"), "OK");
    assert_eq!(ask("SELECT 3"), "OK");
    assert_eq!(ask("GET k"), "(nil)");
    assert_eq!(ask("SET k three"), "OK");
    assert_eq!(ask("DBSIZE"), "1");
    assert_eq!(ask("SELECT 0"), "OK");
    assert_eq!(ask("GET k"), "zero");
    assert_eq!(ask("COPY k k DB 1"), "1");
    assert_eq!(ask("MOVE k 2"), "1");
    assert_eq!(ask("GET k"), "(nil)");
    assert_eq!(ask("SELECT 1"), "OK");
    assert_eq!(ask("GET k"), "zero");
    assert_eq!(ask("SELECT 4"), "-ERR DB index is out of range");
    assert_eq!(ask("FLUSHDB"), "OK");
    assert_eq!(ask("RESET"), "RESET");
    assert_eq!(ask("DBSIZE"), "0");
    assert_eq!(ask("SELECT 3"), "OK");
    assert_eq!(ask("GET k"), "three");
}

#[test]
fn info_adds_up_what_the_shards_count() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    fill(&mut client, 200);
    client.cmd(&["EXPIRE", "key:1", "1000"]);
    wait_until("INFO to count the keys", 10, || {
        let info = text(&client.cmd(&["INFO"]));
        info.contains("db0:keys=200,expires=1,avg_ttl=0\r\n")
    });
    let info = text(&client.cmd(&["INFO", "memory"]));
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let used: u64 = used.and_then(|used| used.trim().parse().ok()).unwrap_or(0);
    assert!(used > 3_000_000, "three servers: {info}");
}
