//! Messages: subscribed to once per worker, delivered to every client, before clusters that change.

use std::time::Duration;

use keyway_tests::{
    Client, ClusterOptions, Keyway, RealCluster, Settings, Version, frame, show, slot_of, text,
    wait_until, within,
};
use resp::Value;

fn send(client: &mut Client, line: &str) {
    client.raw(&frame(line));
}

fn ask(client: &mut Client, line: &str) -> String {
    send(client, line);
    next(client)
}

/// The next reply or push.
fn next(client: &mut Client) -> String {
    match client.read() {
        Value::Push(parts) => format!("> {}", show(&Value::Array(parts))),
        other => show(&other),
    }
}

#[test]
fn messages_reach_every_subscriber_in_both_protocols() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut resp2, mut resp3, mut sender) = (keyway.client(), keyway.client(), keyway.client());
    send(&mut resp2, "SUBSCRIBE news sport");
    assert_eq!(next(&mut resp2), "subscribe news 1");
    assert_eq!(next(&mut resp2), "subscribe sport 2");
    assert_eq!(ask(&mut resp2, "PSUBSCRIBE n*"), "psubscribe n* 3");
    assert_eq!(ask(&mut resp2, "SSUBSCRIBE shard"), "ssubscribe shard 1");
    ask(&mut resp3, "HELLO 3");
    assert_eq!(ask(&mut resp3, "SUBSCRIBE news"), "> subscribe news 1");
    assert_eq!(ask(&mut resp3, "SUBSCRIBE news"), "> subscribe news 1");
    ask(&mut sender, "PUBLISH news one");
    let mut both = [next(&mut resp2), next(&mut resp2)];
    both.sort();
    assert_eq!(both, ["message news one", "pmessage n* news one"]);
    assert_eq!(next(&mut resp3), "> message news one");
    ask(&mut sender, "SPUBLISH shard two");
    assert_eq!(next(&mut resp2), "smessage shard two");
    // RESP2 allows only what a subscriber needs; RESP3 everything.
    assert_eq!(ask(&mut resp2, "PING"), "pong ");
    assert_eq!(ask(&mut resp2, "PING hello"), "pong hello");
    let refused = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT \
                   / RESET are allowed in this context";
    assert_eq!(ask(&mut resp2, "GET k"), refused);
    assert_eq!(ask(&mut resp3, "PING"), "PONG");
    assert_eq!(ask(&mut resp3, "GET none"), "(nil)");
    assert_eq!(
        ask(&mut sender, "PUBSUB NUMSUB news sport none"),
        "news 2 sport 1 none 0"
    );
    assert_eq!(ask(&mut sender, "PUBSUB CHANNELS"), "news sport");
    assert_eq!(ask(&mut sender, "PUBSUB SHARDCHANNELS"), "shard");
    // And out again.
    assert_eq!(ask(&mut resp2, "UNSUBSCRIBE sport"), "unsubscribe sport 2");
    assert_eq!(ask(&mut resp2, "UNSUBSCRIBE"), "unsubscribe news 1");
    assert_eq!(ask(&mut resp2, "PUNSUBSCRIBE"), "punsubscribe n* 0");
    assert_eq!(ask(&mut resp2, "SUNSUBSCRIBE"), "sunsubscribe shard 0");
    assert_eq!(ask(&mut resp2, "UNSUBSCRIBE"), "unsubscribe (nil) 0");
    assert_eq!(ask(&mut resp2, "GET none"), "(nil)");
    drop(resp3);
    wait_until("nobody to be subscribed", 10, || {
        ask(&mut sender, "PUBSUB CHANNELS").is_empty()
    });
}

#[test]
fn many_clients_share_one_subscription() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut clients: Vec<Client> = (0..100).map(|_| keyway.client()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, "SUBSCRIBE shared"), "subscribe shared 1");
    }
    let mut sender = keyway.client();
    assert_eq!(ask(&mut sender, "PUBSUB NUMSUB shared"), "shared 100");
    let at_nodes = (0..3).map(|index| ask(&mut cluster.client(index), "PUBSUB NUMSUB shared"));
    let at_nodes: Vec<String> = at_nodes.filter(|counts| counts != "shared 0").collect();
    assert_eq!(at_nodes, ["shared 1"]);
    for number in 0..20 {
        ask(&mut sender, &format!("PUBLISH shared {number}"));
    }
    for client in &mut clients {
        for number in 0..20 {
            assert_eq!(next(client), format!("message shared {number}"));
        }
    }
}

/// Frameworks wait for as many answers: a count of connections to nodes would have them wait for one.
#[test]
fn subscribers_are_counted_as_one_server_counts_them() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let settings = Settings {
        workers: 2,
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut asker = keyway.client();
    let mut listeners: Vec<Client> = (0..7).map(|_| keyway.client()).collect();
    for listener in &mut listeners {
        assert_eq!(ask(listener, "SUBSCRIBE a b"), "subscribe a 1");
        assert_eq!(next(listener), "subscribe b 2");
        assert_eq!(ask(listener, "SSUBSCRIBE a"), "ssubscribe a 1");
    }
    let count = |asker: &mut Client| {
        let channels = ask(asker, "PUBSUB NUMSUB a none b");
        format!("{channels}, {}", ask(asker, "PUBSUB SHARDNUMSUB a b"))
    };
    assert_eq!(count(&mut asker), "a 7 none 0 b 7, a 7 b 0");
    assert_eq!(ask(&mut asker, "PUBSUB NUMSUB"), "");
    ask(&mut listeners[0], "UNSUBSCRIBE a");
    ask(&mut listeners[1], "SUNSUBSCRIBE a");
    assert_eq!(count(&mut asker), "a 6 none 0 b 7, a 6 b 0");
    listeners.truncate(2);
    wait_until("those who left to be counted no more", 10, || {
        count(&mut asker) == "a 1 none 0 b 2, a 1 b 0"
    });
    listeners.clear();
    wait_until("nobody to be counted", 10, || {
        count(&mut asker) == "a 0 none 0 b 0, a 0 b 0"
    });
}

#[test]
fn replies_and_messages_do_not_mix() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut client, mut sender) = (keyway.client(), keyway.client());
    ask(&mut client, "HELLO 3");
    assert_eq!(ask(&mut client, "SUBSCRIBE busy"), "> subscribe busy 1");
    let value = "v".repeat(300_000);
    ask(&mut sender, &format!("SET big {value}"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..300 {
                ask(&mut sender, &format!("PUBLISH busy {number}"));
            }
        });
        let (mut messages, mut replies) = (0, 0);
        for _ in 0..50 {
            send(&mut client, "GET big");
        }
        while messages < 300 || replies < 50 {
            let got = next(&mut client);
            if got == value {
                replies += 1;
            } else {
                assert_eq!(got, format!("> message busy {messages}"));
                messages += 1;
            }
        }
    });
}

/// Publishes until a subscriber hears it again.
fn wait_heard(subscriber: &mut Client, sender: &mut Client, publish: &str, heard: &str) {
    subscriber.set_patience(Duration::from_millis(200));
    let mut said = String::new();
    let ok = within(Duration::from_secs(20), || {
        send(sender, publish);
        let _ = sender.read(); // an error while nobody owns the slot
        match subscriber.try_read() {
            Ok(value) => {
                said = show(&value);
                said == heard
            }
            Err(_) => false,
        }
    });
    assert!(ok, "the last heard: {said}");
}

#[test]
fn sharded_channels_follow_their_slot() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut subscriber, mut sender) = (keyway.client(), keyway.client());
    assert_eq!(ask(&mut subscriber, "SSUBSCRIBE {s}c"), "ssubscribe {s}c 1");
    let slot = slot_of("{s}c");
    for atomic in [true, false] {
        let from = cluster.owner(slot);
        let to = (from + 1) % 3;
        if atomic {
            cluster.migrate_slots_atomically(slot, slot, from, to);
        } else {
            cluster.migrate_slot(slot, from, to, || {});
        }
        wait_heard(
            &mut subscriber,
            &mut sender,
            "SPUBLISH {s}c again",
            "smessage {s}c again",
        );
    }
}

#[test]
fn subscriptions_survive_a_lost_node_and_a_failover() {
    let mut cluster = RealCluster::start(Version::V9_1, 3, 1);
    let keyway = Keyway::start(&cluster);
    let mut sender = keyway.client();
    let mut subscribers: Vec<Client> = (0..2).map(|_| keyway.client()).collect();
    for subscriber in &mut subscribers {
        ask(subscriber, "SUBSCRIBE all");
        ask(subscriber, "SSUBSCRIBE {f}c");
    }
    let planned = cluster.owner(slot_of("{f}c"));
    cluster.failover(3 + planned);
    for subscriber in &mut subscribers {
        wait_heard(
            subscriber,
            &mut sender,
            "SPUBLISH {f}c planned",
            "smessage {f}c planned",
        );
    }
    // Whichever node has the subscription: all primaries are replaced, one after another.
    for node in 0..3 {
        if node != planned {
            cluster.node_mut(node).kill();
            for subscriber in &mut subscribers {
                let text = format!("killed{node}");
                let publish = format!("PUBLISH all {text}");
                wait_heard(
                    subscriber,
                    &mut sender,
                    &publish,
                    &format!("message all {text}"),
                );
            }
        }
    }
}

#[test]
fn a_slow_subscriber_is_cut_alone() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let settings = Settings {
        limits: "client_output_bytes_max = 1048576\n".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let (mut slow, mut good, mut sender) = (keyway.client(), keyway.client(), keyway.client());
    ask(&mut slow, "SUBSCRIBE flood");
    ask(&mut good, "SUBSCRIBE flood");
    let text = "m".repeat(100_000);
    for number in 0..200 {
        ask(&mut sender, &format!("PUBLISH flood {number}:{text}"));
        assert!(next(&mut good).starts_with(&format!("message flood {number}:")));
    }
    keyway.wait_logged("replies waited for a client that does not read them");
}

#[test]
fn what_a_user_may_not_hear_is_refused() {
    let mut options = ClusterOptions::new(Version::V9_1, 3, 0);
    let rules = ">secret +@all ~* resetchannels &open";
    options
        .users
        .push(("listener".to_owned(), rules.to_owned()));
    let cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let (mut client, mut sender) = (keyway.client(), keyway.client());
    ask(&mut client, "AUTH listener secret");
    let refused = "-NOPERM No permissions to access a channel";
    assert_eq!(ask(&mut client, "SUBSCRIBE closed"), refused);
    assert_eq!(ask(&mut client, "SUBSCRIBE open closed"), refused);
    assert_eq!(ask(&mut client, "GET none"), "(nil)");
    assert_eq!(ask(&mut client, "SUBSCRIBE open"), "subscribe open 1");
    ask(&mut sender, "PUBLISH closed no");
    ask(&mut sender, "PUBLISH open yes");
    assert_eq!(next(&mut client), "message open yes");
}

/// Whoever is told that somebody got its message is right: a subscription that a node has counted
/// misses nothing that follows, however close behind.
#[test]
fn a_message_right_behind_the_subscription_arrives() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let (mut subscriber, mut publisher) = (keyway.client(), keyway.client());
    for round in 0..500 {
        let channel = format!("soon:{round}");
        let mut subscribe = Vec::new();
        resp::write::request(&mut subscribe, &["SUBSCRIBE", &channel]);
        subscriber.raw(&subscribe);
        // A burst, so that some are right behind.
        let publish = |number: usize| {
            let mut frame = Vec::new();
            resp::write::request(&mut frame, &["PUBLISH", &channel, &number.to_string()]);
            frame
        };
        let mut first = None;
        for burst in 0.. {
            let numbers = burst * 20..burst * 20 + 20;
            let frames: Vec<_> = numbers.clone().map(publish).collect();
            let replies = publisher.pipeline(&frames);
            let mut heard = numbers
                .zip(&replies)
                .filter(|(_, reply)| text(reply) == "1");
            first = first.or(heard.next().map(|(number, _)| number));
            if first.is_some() {
                break;
            }
        }
        let confirmed = show(&subscriber.read());
        assert!(confirmed.contains("subscribe"), "{confirmed}");
        let message = show(&subscriber.read());
        let expected = first.expect("a message that was heard").to_string();
        assert!(
            message.ends_with(&format!("{channel} {expected}")),
            "round {round}: {message:?} instead of {expected}"
        );
        let mut unsubscribe = Vec::new();
        resp::write::request(&mut unsubscribe, &["UNSUBSCRIBE", &channel]);
        subscriber.raw(&unsubscribe);
        while !show(&subscriber.read()).contains("unsubscribe") {}
    }
}
