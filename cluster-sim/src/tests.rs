//! What happens to a cluster, as its clients see it. What commands reply is in `tests/captured.rs`.

use std::{net::SocketAddr, time::Duration};

use resp::OwnedRequest;
use topology::Slot;

use crate::{Cluster, ConnectionId, Layout, NodeIndex};

const MS: Duration = Duration::from_millis(1);

struct Client {
    cluster: Cluster,
    now: Duration,
}

impl Client {
    fn new(layout: Layout) -> Self {
        let addresses: Vec<SocketAddr> = (7001..7007)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
        Self {
            cluster: Cluster::new(layout, &addresses),
            now: MS,
        }
    }

    fn connect(&mut self, node: NodeIndex) -> ConnectionId {
        self.cluster.connect(node, "zone-a", self.now).unwrap()
    }

    fn send(&mut self, connection: ConnectionId, words: &str) {
        let request = OwnedRequest::from_args(words.split(' '));
        self.cluster.received(connection, request.bytes(), self.now);
    }

    fn take(&mut self, connection: ConnectionId) -> String {
        let bytes = self.cluster.output(connection, self.now);
        String::from_utf8(bytes).unwrap()
    }

    fn ask(&mut self, connection: ConnectionId, words: &str) -> String {
        self.send(connection, words);
        self.take(connection)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.cluster.tick(self.now);
    }

    /// The primary of a key's slot.
    fn home(&self, key: &str) -> NodeIndex {
        let shard = self.cluster.owner(Slot::of_key(key.as_bytes())).unwrap();
        self.cluster.primary(shard).unwrap()
    }
}

#[test]
fn a_killed_primary_is_replaced_after_the_node_timeout() {
    let mut client = Client::new(Layout::default());
    let old = client.home("k");
    let connection = client.connect(old);
    assert_eq!(client.ask(connection, "SET k one"), "+OK\r\n");
    client.cluster.kill(old);
    assert!(client.cluster.is_closed(connection));
    assert!(client.cluster.connect(old, "zone-a", client.now).is_none());
    client.pass(Duration::from_millis(1999));
    assert_eq!(client.home("k"), old);
    client.pass(MS);
    let new = client.home("k");
    assert_ne!(new, old);
    let connection = client.connect(new);
    assert_eq!(
        client.ask(connection, "GET k"),
        "-CLUSTERDOWN The cluster is down\r\n"
    );
    client.pass(Duration::from_millis(50));
    assert_eq!(client.ask(connection, "GET k"), "$3\r\none\r\n");

    // It comes back as a replica, loads, and sends writers away.
    client.cluster.restart(old, Duration::from_millis(10));
    let connection = client.connect(old);
    assert_eq!(
        client.ask(connection, "GET k"),
        "-LOADING Valkey is loading the dataset in memory\r\n"
    );
    client.pass(Duration::from_millis(10));
    let there = client.cluster.address(new).unwrap();
    let slot = Slot::of_key(b"k").get();
    assert_eq!(
        client.ask(connection, "SET k two"),
        format!("-MOVED {slot} {there}\r\n")
    );
    assert_eq!(client.ask(connection, "READONLY"), "+OK\r\n");
    assert_eq!(client.ask(connection, "GET k"), "$3\r\none\r\n");
}

#[test]
fn a_lagging_replica_shows_the_past_and_loses_it_when_promoted() {
    let mut client = Client::new(Layout {
        replica_lag: Duration::from_millis(100),
        node_timeout: Duration::from_millis(10),
        ..Layout::default()
    });
    let primary = client.home("k");
    let replica = primary + 3;
    let (writer, reader) = (client.connect(primary), client.connect(replica));
    client.ask(reader, "READONLY");
    client.ask(writer, "SET k one");
    client.pass(Duration::from_millis(100));
    client.ask(writer, "SET k two");
    client.pass(Duration::from_millis(99));
    assert_eq!(client.ask(reader, "GET k"), "$3\r\none\r\n");
    client.pass(MS);
    assert_eq!(client.ask(reader, "GET k"), "$3\r\ntwo\r\n");
    client.ask(writer, "SET k three");
    client.cluster.kill(primary);
    client.pass(Duration::from_millis(10));
    client.pass(Duration::from_millis(50));
    assert_eq!(client.home("k"), replica);
    assert_eq!(client.ask(reader, "GET k"), "$3\r\ntwo\r\n");
}

#[test]
fn what_a_dead_primary_had_not_sent_is_lost_however_late_its_place_is_taken() {
    let mut client = Client::new(Layout {
        replica_lag: Duration::from_millis(10),
        node_timeout: Duration::from_millis(500),
        ..Layout::default()
    });
    let primary = client.home("k");
    let writer = client.connect(primary);
    client.ask(writer, "SET k one");
    client.pass(Duration::from_millis(10));
    client.ask(writer, "SET k two");
    client.cluster.kill(primary);
    client.pass(Duration::from_millis(500));
    client.pass(Duration::from_millis(50));
    let new = client.home("k");
    assert_ne!(new, primary);
    let reader = client.connect(new);
    assert_eq!(client.ask(reader, "GET k"), "$3\r\none\r\n");
}

#[test]
fn a_primary_that_is_cut_off_loses_what_it_is_told() {
    let mut client = Client::new(Layout {
        node_timeout: Duration::from_millis(500),
        ..Layout::default()
    });
    let primary = client.home("k");
    let writer = client.connect(primary);
    client.ask(writer, "SET k one");
    client.pass(MS);
    client.cluster.isolate(primary);
    client.pass(Duration::from_millis(499));
    assert_eq!(client.ask(writer, "SET k two"), "+OK\r\n");
    client.pass(MS);
    let new = client.home("k");
    assert_ne!(new, primary);
    client.pass(Duration::from_millis(50));
    assert!(client.ask(writer, "GET k").starts_with("-CLUSTERDOWN"));
    let other = client.connect(new);
    assert_eq!(client.ask(other, "GET k"), "$3\r\none\r\n");
    client.cluster.rejoin(primary);
    client.ask(writer, "READONLY");
    assert_eq!(client.ask(writer, "GET k"), "$3\r\none\r\n");
}

#[test]
fn a_slot_moves_key_by_key() {
    let mut client = Client::new(Layout::default());
    let source = client.home("{s}1");
    let target = (source + 1) % 3;
    let slot = Slot::of_key(b"s");
    let (here, there) = (client.connect(source), client.connect(target));
    client.ask(here, "MSET {s}1 one {s}2 two");
    client.cluster.begin_migration(slot, target);
    assert_eq!(client.cluster.move_keys(slot, 1), 1);
    let ask = format!(
        "-ASK {} {}\r\n",
        slot.get(),
        client.cluster.address(target).unwrap()
    );
    assert_eq!(client.ask(here, "GET {s}1"), ask);
    assert_eq!(client.ask(here, "GET {s}2"), "$3\r\ntwo\r\n");
    assert!(client.ask(here, "MGET {s}1 {s}2").starts_with("-TRYAGAIN"));
    assert_eq!(client.ask(there, "ASKING"), "+OK\r\n");
    assert_eq!(client.ask(there, "GET {s}1"), "$3\r\none\r\n");
    assert!(client.ask(there, "GET {s}1").starts_with("-MOVED"));
    client.cluster.finish_migration(slot);
    assert_eq!(
        client.ask(there, "MGET {s}1 {s}2"),
        "*2\r\n$3\r\none\r\n$3\r\ntwo\r\n"
    );
    assert!(client.ask(here, "GET {s}1").starts_with("-MOVED"));
}

#[test]
fn slots_move_at_once_and_back() {
    let mut client = Client::new(Layout::default());
    let keys: Vec<String> = (0..300).map(|i| format!("key:{i}")).collect();
    for key in &keys {
        let home = client.home(key);
        let connection = client.connect(home);
        assert_eq!(
            client.ask(connection, &format!("SET {key} {key}")),
            "+OK\r\n"
        );
    }
    for to in [2, 0, 1] {
        let all = (0..Slot::COUNT).filter_map(Slot::new);
        client.cluster.migrate_atomically(all, to);
        let (primary, replica) = (client.connect(to), client.connect(to + 3));
        client.ask(replica, "READONLY");
        assert_eq!(client.ask(primary, "DBSIZE"), ":300\r\n");
        for key in &keys {
            let expected = format!("${}\r\n{key}\r\n", key.len());
            assert_eq!(client.ask(primary, &format!("GET {key}")), expected);
            assert_eq!(client.ask(replica, &format!("GET {key}")), expected);
        }
    }
}

#[test]
fn a_frozen_node_answers_when_it_goes_on() {
    let mut client = Client::new(Layout::default());
    let home = client.home("n");
    let connection = client.connect(home);
    client.cluster.freeze(home);
    assert_eq!(client.ask(connection, "INCR n"), "");
    assert_eq!(client.ask(connection, "INCR n"), "");
    client.cluster.thaw(home);
    assert_eq!(client.take(connection), ":1\r\n:2\r\n");
}

#[test]
fn scripted_faults_do_what_they_say() {
    let mut client = Client::new(Layout::default());
    let home = client.home("n");
    let connection = client.connect(home);
    client.cluster.swallow_next(home, 1);
    assert_eq!(client.ask(connection, "INCR n"), "");
    client.cluster.answer_next(home, 1, "ERR as told");
    assert_eq!(client.ask(connection, "INCR n"), "-ERR as told\r\n");
    assert_eq!(client.ask(connection, "INCR n"), ":2\r\n");
    client.cluster.drop_connections(home);
    assert!(client.cluster.is_closed(connection));
}

#[test]
fn zones_are_far_from_each_other() {
    let mut client = Client::new(Layout::default());
    client.cluster.set_latency("zone-a", "zone-b", MS);
    let near = client.connect(0);
    let far = client.connect(1);
    assert_eq!(client.ask(near, "PING"), "+PONG\r\n");
    assert_eq!(client.ask(far, "PING"), "");
    assert_eq!(client.cluster.output_due(far), Some(client.now + MS));
    client.pass(MS);
    assert_eq!(client.take(far), "+PONG\r\n");
}

#[test]
fn a_watched_key_that_another_writes_ends_the_transaction() {
    let mut client = Client::new(Layout::default());
    let home = client.home("k");
    let (one, other) = (client.connect(home), client.connect(home));
    client.ask(one, "WATCH k");
    client.ask(other, "SET elsewhere{k} 1");
    client.ask(one, "MULTI");
    client.ask(one, "INCR n{k}");
    assert_eq!(client.ask(one, "EXEC"), "*1\r\n:1\r\n");
    client.ask(one, "WATCH k");
    client.ask(other, "SET k 1");
    client.ask(one, "MULTI");
    client.ask(one, "INCR n{k}");
    assert_eq!(client.ask(one, "EXEC"), "*-1\r\n");
    assert_eq!(client.ask(one, "GET n{k}"), "$1\r\n1\r\n");
}

#[test]
fn a_list_is_waited_for_until_there_is_something_or_the_time_is_over() {
    let mut client = Client::new(Layout::default());
    let home = client.home("q");
    let (first, second, other) = (
        client.connect(home),
        client.connect(home),
        client.connect(home),
    );
    assert_eq!(client.ask(first, "BLPOP q 0"), "");
    assert_eq!(client.ask(second, "BRPOP q 0.005"), "");
    client.send(first, "PING");
    assert_eq!(client.ask(other, "RPUSH q one"), ":1\r\n");
    let one = "*2\r\n$1\r\nq\r\n$3\r\none\r\n";
    assert_eq!(client.take(first), format!("{one}+PONG\r\n"));
    client.pass(MS * 4);
    assert_eq!(client.take(second), "");
    client.pass(MS);
    assert_eq!(client.take(second), "*-1\r\n");
    assert_eq!(client.ask(other, "LLEN q"), ":0\r\n");
}

#[test]
fn who_waits_is_sent_after_a_slot_that_leaves_and_away_from_a_primary_that_steps_down() {
    let mut client = Client::new(Layout::default());
    let slot = Slot::of_key(b"q");
    let shard = client.cluster.owner(slot).unwrap();
    let home = client.home("q");
    let connection = client.connect(home);
    client.ask(connection, "BLPOP q 0");
    client.cluster.fail_over(shard);
    client.pass(MS);
    assert_eq!(
        client.take(connection),
        "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n"
    );
    let home = client.home("q");
    let connection = client.connect(home);
    client.ask(connection, "BLPOP q 0");
    client.cluster.migrate_atomically([slot], (shard + 1) % 3);
    client.pass(MS);
    let there = client.cluster.address(client.home("q")).unwrap();
    let moved = format!("-MOVED {} {there}\r\n", slot.get());
    assert_eq!(client.take(connection), moved);
}

#[test]
fn a_script_is_a_row_of_calls_that_one_node_remembers() {
    let mut client = Client::new(Layout::default());
    let home = client.home("k");
    let connection = client.connect(home);
    let eval = |client: &mut Client, words: &[&str]| {
        let request = OwnedRequest::from_args(words);
        client
            .cluster
            .received(connection, request.bytes(), client.now);
        client.take(connection)
    };
    let push = "redis.call('RPUSH', KEYS[1], ARGV[1]); return redis.call('LLEN', KEYS[1])";
    let digest = "f6fa22f5b6e0abbb2a30ed4b1f3b0f0ab8b9a3a5";
    let unseen = eval(&mut client, &["EVALSHA", digest, "1", "k", "a"]);
    assert_eq!(unseen, "-NOSCRIPT No matching script.\r\n");
    assert_eq!(eval(&mut client, &["EVAL", push, "1", "k", "a"]), ":1\r\n");
    let loaded = eval(&mut client, &["SCRIPT", "LOAD", push]);
    let digest = loaded.split("\r\n").nth(1).unwrap();
    let again = eval(&mut client, &["EVALSHA", digest, "1", "k", "b"]);
    assert_eq!(again, ":2\r\n");
    let forges = "return redis.error_reply(ARGV[1])";
    let forged = eval(&mut client, &["EVAL", forges, "1", "k", "MOVED 1 a:1"]);
    assert_eq!(forged, "-MOVED 1 a:1\r\n");
}

#[test]
fn a_node_sends_commands_where_it_is_told_to() {
    let mut client = Client::new(Layout::default());
    let home = client.home("k");
    let connection = client.connect(home);
    let stranger: SocketAddr = ([10, 9, 9, 9], 1).into();
    client.cluster.misdirect_next(home, 1, true, stranger);
    assert_eq!(client.ask(connection, "PING"), "+PONG\r\n");
    let slot = Slot::of_key(b"k").get();
    let ask = format!("-ASK {slot} 10.9.9.9:1\r\n");
    assert_eq!(client.ask(connection, "GET k"), ask);
    assert_eq!(client.ask(connection, "GET k"), "$-1\r\n");
}

#[test]
fn a_new_primary_goes_on_with_the_migrations_of_the_old_one() {
    let mut client = Client::new(Layout::default());
    let slot = Slot::of_key(b"k");
    let shard = client.cluster.owner(slot).unwrap();
    client.cluster.begin_migration(slot, (shard + 1) % 3);
    client.cluster.fail_over(shard);
    let connection = client.connect(client.home("k"));
    assert!(client.ask(connection, "GET k").starts_with("-ASK "));
    client.cluster.finish_migration(slot);
    assert_eq!(client.cluster.owner(slot), Some((shard + 1) % 3));
}

fn push(parts: &[&str]) -> String {
    let bulks = parts.iter().map(|part| match part.strip_prefix(':') {
        Some(number) => format!(":{number}\r\n"),
        None => format!("${}\r\n{part}\r\n", part.len()),
    });
    format!(">{}\r\n{}", parts.len(), bulks.collect::<String>())
}

#[test]
fn what_is_published_is_heard_once_by_who_is_subscribed_to_it() {
    let mut client = Client::new(Layout::default());
    let home = client.home("k");
    let (near, far) = (client.connect(home), client.connect((home + 1) % 3));
    let replica = client.connect(home + 3);
    for connection in [near, far, replica] {
        client.ask(connection, "HELLO 3");
    }
    assert_eq!(
        client.ask(near, "SUBSCRIBE k other"),
        push(&["subscribe", "k", ":1"]) + &push(&["subscribe", "other", ":2"])
    );
    assert_eq!(
        client.ask(far, "PSUBSCRIBE [kl]"),
        push(&["psubscribe", "[kl]", ":1"])
    );
    assert_eq!(
        client.ask(replica, "SSUBSCRIBE k"),
        push(&["ssubscribe", "k", ":1"])
    );
    // Who says it hears it behind the reply, which counts who is at this node.
    assert_eq!(
        client.ask(near, "PUBLISH k one"),
        ":1\r\n".to_owned() + &push(&["message", "k", "one"])
    );
    assert_eq!(client.take(far), push(&["pmessage", "[kl]", "k", "one"]));
    assert_eq!(client.ask(near, "SPUBLISH k two"), ":0\r\n");
    assert_eq!(client.take(replica), push(&["smessage", "k", "two"]));
    assert_eq!(client.take(far), "");
    assert_eq!(
        client.ask(near, "UNSUBSCRIBE k"),
        push(&["unsubscribe", "k", ":1"])
    );
    assert_eq!(client.ask(near, "PUBLISH k three"), ":0\r\n");
    assert_eq!(
        client.ask(near, "SUNSUBSCRIBE"),
        ">3\r\n$12\r\nsunsubscribe\r\n_\r\n:0\r\n"
    );
}

#[test]
fn a_sharded_channel_goes_with_its_slot() {
    let mut client = Client::new(Layout::default());
    let (slot, old) = (Slot::of_key(b"k"), client.home("k"));
    let new = (old + 1) % 3;
    let (before, after) = (client.connect(old), client.connect(new));
    client.ask(before, "HELLO 3");
    client.ask(after, "HELLO 3");
    let there = |client: &Client, node| {
        let addr = client.cluster.address(node).unwrap();
        format!("-MOVED {} {addr}\r\n", slot.get())
    };
    assert_eq!(client.ask(after, "SSUBSCRIBE k"), there(&client, old));
    client.ask(before, "SSUBSCRIBE k");
    // Half moved, it is still the old owner's, though no key is there.
    client.cluster.begin_migration(slot, new);
    assert_eq!(
        client.ask(before, "SPUBLISH k one"),
        ":1\r\n".to_owned() + &push(&["smessage", "k", "one"])
    );
    client.cluster.finish_migration(slot);
    assert_eq!(client.take(before), push(&["sunsubscribe", "k", ":0"]));
    assert_eq!(client.ask(before, "SPUBLISH k two"), there(&client, new));
    assert_eq!(
        client.ask(after, "SSUBSCRIBE k"),
        push(&["ssubscribe", "k", ":1"])
    );
}
