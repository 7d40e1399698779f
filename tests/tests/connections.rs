//! Commands about connections act on Keyway's own clients, whichever worker has them, and on nobody
//! else's.

use std::time::Duration;

use keyway_tests::{
    Client, ClusterOptions, Keyway, RealCluster, Version, frame, show, slot_of, text, wait_until,
};

fn send(client: &mut Client, line: &str) {
    client.raw(&frame(line));
}

fn id(client: &mut Client) -> u64 {
    client.ask("CLIENT ID").parse().expect("a number")
}

#[test]
fn clients_of_all_workers_are_listed_and_killed() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut clients: Vec<Client> = (0..8).map(|_| keyway.client()).collect();
    let mut ids = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ask(&format!("CLIENT SETNAME c{number}"));
        ids.push(id(client));
    }
    let mut asker = keyway.client();
    let own = id(&mut asker);
    let list = asker.ask("CLIENT LIST");
    let listed: Vec<u64> = list
        .lines()
        .filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok())
        .collect();
    let mut expected = ids.clone();
    expected.push(own);
    // Numbers are given when Keyway has seen the end of a handshake, not in the order of connects.
    expected.sort_unstable();
    assert_eq!(listed, expected, "in the order of their ids: {list}");
    assert!(
        list.contains(" name=c3 ") && list.contains(" cmd=client|list "),
        "{list}"
    );
    let some = asker.ask(&format!("CLIENT LIST ID {} {}", ids[2], ids[5]));
    assert_eq!(some.lines().count(), 2);
    assert_eq!(asker.ask("CLIENT LIST TYPE pubsub"), "");
    assert_eq!(asker.ask(&format!("CLIENT KILL ID {}", ids[4])), "1");
    assert_eq!(asker.ask(&format!("CLIENT KILL ID {}", ids[4])), "0");
    assert_eq!(
        clients[4].read_to_end(Duration::from_secs(5)),
        Some(Vec::new())
    );
    assert_eq!(asker.ask("CLIENT KILL TYPE normal"), "7", "all but oneself");
    assert_eq!(asker.ask("PING"), "PONG");
    assert_eq!(asker.ask(&format!("CLIENT KILL ID {own} SKIPME no")), "1");
    assert_eq!(asker.read_to_end(Duration::from_secs(5)), Some(Vec::new()));
}

#[test]
fn a_blocked_client_is_unblocked() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut waiter, mut asker) = (keyway.client(), keyway.client());
    let number = id(&mut waiter);
    for (reason, reply) in [
        ("", "(nil)"),
        (" TIMEOUT", "(nil)"),
        (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK"),
    ] {
        send(&mut waiter, "BLPOP never 0");
        wait_until("the client to be unblocked", 10, || {
            asker.ask(&format!("CLIENT UNBLOCK {number}{reason}")) == "1"
        });
        assert_eq!(show(&waiter.read()), reply);
        // What it waited for is still there for others.
        asker.ask("RPUSH never kept");
        assert_eq!(waiter.ask("LPOP never"), "kept");
    }
    assert_eq!(asker.ask(&format!("CLIENT UNBLOCK {number}")), "0");
}

/// Its node would not unblock it for this user, so Keyway does.
#[test]
fn whose_user_may_not_unblock_is_unblocked_all_the_same() {
    let mut options = ClusterOptions::new(Version::V9_1, 1, 0);
    let rules = ">secret ~* +@all -client|unblock";
    options.users.push(("worker".to_owned(), rules.to_owned()));
    let cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let (mut waiter, mut asker) = (keyway.client(), keyway.client());
    assert_eq!(waiter.ask("AUTH worker secret"), "OK");
    let number = id(&mut waiter);
    let error = "-UNBLOCKED client unblocked via CLIENT UNBLOCK";
    for (reason, reply) in [("", "(nil)"), (" ERROR", error)] {
        send(&mut waiter, "BLPOP never 0");
        wait_until("the client to be unblocked", 10, || {
            asker.ask(&format!("CLIENT UNBLOCK {number}{reason}")) == "1"
        });
        assert_eq!(show(&waiter.read()), reply);
        assert_eq!(waiter.ask("PING"), "PONG");
    }
}

/// Only the node knows whether a command that blocks has taken something already.
#[test]
fn what_a_client_takes_while_it_is_unblocked_is_not_lost() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut asker = keyway.client();
    for shard in 0..3 {
        let key = (0..).map(|number| format!("taken:{number}"));
        let mut of_shard = key.filter(|key| cluster.owner(slot_of(key)) == shard);
        let key = of_shard.next().expect("a key");
        let mut waiter = keyway.client();
        let number = id(&mut waiter);
        send(&mut waiter, &format!("BLPOP {key} 0"));
        let mut node = cluster.client(shard);
        wait_until("a client that blocks", 10, || {
            text(&node.cmd(&["INFO", "clients"])).contains("blocked_clients:1")
        });
        // The element comes first, but the node is slow: another one is asked whether the asker may.
        cluster.nodes()[shard].freeze();
        node.raw(&frame(&format!("RPUSH {key} {key}-kept")));
        send(&mut asker, &format!("CLIENT UNBLOCK {number}"));
        asker.set_patience(Duration::from_millis(300));
        let asked = asker.try_read().ok();
        cluster.nodes()[shard].thaw();
        asker.set_patience(Duration::from_secs(10));
        assert_eq!(show(&node.read()), "1");
        let answer = asked.unwrap_or_else(|| asker.read());
        let reply = show(&waiter.read());
        let left = waiter.ask(&format!("LPOP {key}"));
        let taken = reply == format!("{key} {key}-kept") && left == "(nil)";
        let kept = reply == "(nil)" && left == format!("{key}-kept");
        assert!(taken || kept, "{answer:?}: {reply}, and then {left}");
    }
}

#[test]
fn a_pause_holds_commands_back() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut reader, mut writer, mut asker) = (keyway.client(), keyway.client(), keyway.client());
    asker.ask("SET paused one");
    assert_eq!(asker.ask("CLIENT PAUSE 600 WRITE"), "OK");
    assert_eq!(writer.ask("SET paused two"), "OK", "it ends by itself");
    let block = ["MULTI", "SET paused four", "EXEC"];
    let alone = ["SET paused three"];
    for (writes, before, after) in [(&alone[..], "two", "three"), (&block, "three", "four")] {
        assert_eq!(asker.ask("CLIENT PAUSE 600000 WRITE"), "OK");
        for line in writes {
            send(&mut writer, line);
        }
        for _ in 0..50 {
            assert_eq!(
                reader.ask("GET paused"),
                before,
                "reads go on, and see no write"
            );
        }
        assert_eq!(asker.ask("CLIENT UNPAUSE"), "OK");
        for _ in writes {
            assert!(!show(&writer.read()).starts_with('-'));
        }
        assert_eq!(reader.ask("GET paused"), after);
    }
}

#[test]
fn who_may_not_is_refused_by_valkey() {
    let mut options = ClusterOptions::new(Version::V9_1, 3, 0);
    let rules = ">secret ~* +@all -@dangerous";
    options.users.push(("modest".to_owned(), rules.to_owned()));
    let cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let (mut modest, mut other) = (keyway.client(), keyway.client());
    let victim = id(&mut other);
    assert_eq!(modest.ask("AUTH modest secret"), "OK");
    for (line, name) in [
        ("CLIENT LIST", "list"),
        (&format!("CLIENT KILL ID {victim}"), "kill"),
        ("CLIENT PAUSE 60000", "pause"),
    ] {
        let refused =
            format!("-NOPERM User modest has no permissions to run the 'client|{name}' command");
        assert_eq!(modest.ask(line), refused);
    }
    assert_eq!(modest.ask("GET none"), "(nil)");
    assert_eq!(other.ask("PING"), "PONG");
}

/// Whatever a client says of itself, another one sees nothing of it.
#[test]
fn what_a_client_sets_is_its_own() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let observe = |client: &mut Client| {
        let looks = [
            "CLIENT GETNAME",
            "GET seen",
            "PING",
            "CLIENT TRACKINGINFO",
            "DBSIZE",
            "EXEC",
            "DISCARD",
            "LRANGE list 0 -1",
        ];
        looks.map(|line| client.ask(line)).join("|")
    };
    let words = [
        "CLIENT SETNAME noisy",
        "CLIENT REPLY OFF",
        "CLIENT REPLY ON",
        "CLIENT REPLY SKIP",
        "HELLO 3",
        "HELLO 2",
        "MULTI",
        "SET other 1",
        "EXEC",
        "DISCARD",
        "WATCH seen",
        "UNWATCH",
        "READONLY",
        "READWRITE",
        "RESET",
        "SELECT 0",
        "SUBSCRIBE news",
        "UNSUBSCRIBE",
        "CLIENT NO-EVICT ON",
        "CLIENT SETINFO LIB-NAME x",
        "CLIENT NO-TOUCH ON",
        "ASKING",
        "AUTH wrong password",
        "QUIT",
        "BLPOP list2 0.001",
        "NOSUCH",
        "SSUBSCRIBE news",
        "SCAN 0",
        "DEL other",
    ];
    let mut observer = keyway.client();
    observer.ask("SET seen value");
    observer.ask("RPUSH list a b");
    let before = observe(&mut observer);
    let mut state = 7_u64;
    for _ in 0..40 {
        let mut noisy = keyway.client();
        for _ in 0..25 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = usize::try_from(state >> 33).unwrap_or_default() % words.len();
            if noisy.try_raw(&frame(words[at])).is_err() {
                break; // it has left
            }
        }
        let after = observe(&mut observer);
        let after = after.replace("|3|", "|2|"); // while `other` is there
        assert_eq!(after, before);
    }
}
