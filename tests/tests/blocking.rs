//! Commands that block: woken, timed out, left behind, and moved with their slot.

use keyway_tests::{
    ClusterOptions, Keyway, RealCluster, Settings, Version, show, slot_of, text, wait_until,
};

fn send(client: &mut keyway_tests::Client, line: &str) {
    let mut request = Vec::new();
    resp::write::request(&mut request, &line.split(' ').collect::<Vec<_>>());
    client.raw(&request);
}

/// Waits until this many clients are blocked on the cluster's nodes.
fn wait_blocked(cluster: &RealCluster, count: usize) {
    wait_until("the clients to be blocked", 10, || {
        let blocked = |index: usize| -> usize {
            let info = text(&cluster.client(index).cmd(&["INFO", "clients"]));
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix("blocked_clients:"));
            line.and_then(|count| count.trim().parse().ok())
                .unwrap_or(0)
        };
        (0..3).map(blocked).sum::<usize>() == count
    });
}

#[test]
fn every_blocking_command_is_woken() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut waiter, mut giver) = (keyway.client(), keyway.client());
    let cases = [
        ("BLPOP {b}l {b}m 0", "RPUSH {b}m one", "{b}m one"),
        ("BRPOP {b}l 0", "RPUSH {b}l two", "{b}l two"),
        ("BLMOVE {b}l {b}n LEFT RIGHT 0", "RPUSH {b}l three", "three"),
        ("BRPOPLPUSH {b}l {b}n 0", "RPUSH {b}l four", "four"),
        ("BLMPOP 0 2 {b}l {b}o LEFT", "RPUSH {b}o five", "{b}o five"),
        ("BZPOPMIN {b}z 0", "ZADD {b}z 1 six", "{b}z six 1"),
        ("BZPOPMAX {b}z 0", "ZADD {b}z 2 seven", "{b}z seven 2"),
        ("BZMPOP 0 1 {b}z MIN", "ZADD {b}z 3 eight", "{b}z eight 3"),
        (
            "XREAD BLOCK 0 STREAMS {b}s $",
            "XADD {b}s 7-1 f nine",
            "{b}s 7-1 f nine",
        ),
    ];
    for (wait, give, expected) in cases {
        send(&mut waiter, wait);
        wait_blocked(&cluster, 1);
        giver.cmd(&give.split(' ').collect::<Vec<_>>());
        assert_eq!(show(&waiter.read()), expected, "{wait}");
    }
    giver.cmd(&["XGROUP", "CREATE", "{b}s", "g", "$"]);
    send(&mut waiter, "XREADGROUP GROUP g c BLOCK 0 STREAMS {b}s >");
    wait_blocked(&cluster, 1);
    giver.cmd(&["XADD", "{b}s", "8-1", "f", "ten"]);
    assert_eq!(show(&waiter.read()), "{b}s 8-1 f ten");
    // With a time limit, and a command behind that waits for its turn.
    send(&mut waiter, "BLPOP {b}none 0.1");
    send(&mut waiter, "GET {b}none");
    send(&mut waiter, "BLPOP {b}none x");
    let replies: Vec<String> = (0..3).map(|_| show(&waiter.read())).collect();
    assert_eq!(
        replies,
        [
            "(nil)",
            "(nil)",
            "-ERR timeout is not a float or out of range"
        ]
    );
}

#[test]
fn a_client_that_leaves_consumes_nothing() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut giver = keyway.client();
    for (round, abort) in [(0, false), (1, true)] {
        let key = format!("left:{round}");
        let mut waiter = keyway.client();
        send(&mut waiter, &format!("BLPOP {key} 0"));
        wait_blocked(&cluster, 1);
        if abort {
            waiter.abort();
        } else {
            drop(waiter);
        }
        wait_blocked(&cluster, 0);
        giver.cmd(&["RPUSH", &key, "kept"]);
        assert_eq!(show(&giver.cmd(&["LRANGE", &key, "0", "-1"])), "kept");
    }
}

#[test]
fn leases_are_bounded_and_queued() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let settings = Settings {
        limits: "leases_max = 2\n".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut giver = keyway.client();
    let mut waiters: Vec<_> = (0..8).map(|_| keyway.client()).collect();
    for waiter in &mut waiters {
        send(waiter, "BLPOP queue 0");
    }
    // At most two are blocked at a time (one per worker), yet everyone is served.
    for item in 0..8 {
        giver.cmd(&["RPUSH", "queue", &item.to_string()]);
    }
    let mut items: Vec<String> = waiters
        .iter_mut()
        .map(|waiter| show(&waiter.read()))
        .collect();
    items.sort();
    let expected: Vec<String> = (0..8).map(|item| format!("queue {item}")).collect();
    assert_eq!(items, expected);
}

#[test]
fn a_blocked_client_moves_with_its_slot() {
    for atomic in [false, true] {
        let cluster = RealCluster::start(Version::V9_1, 3, 0);
        let keyway = Keyway::start(&cluster);
        let (mut waiter, mut giver) = (keyway.client(), keyway.client());
        let slot = slot_of("{moved}");
        send(&mut waiter, "BLPOP {moved} 0");
        wait_blocked(&cluster, 1);
        let from = cluster.owner(slot);
        if atomic {
            cluster.migrate_slots_atomically(slot, slot, from, (from + 1) % 3);
        } else {
            cluster.migrate_slot(slot, from, (from + 1) % 3, || {});
        }
        giver.cmd(&["RPUSH", "{moved}", "found"]);
        assert_eq!(show(&waiter.read()), "{moved} found");
    }
}

#[test]
fn a_blocked_client_follows_a_planned_failover() {
    let cluster = RealCluster::with(ClusterOptions::new(Version::V9_1, 3, 1));
    let keyway = Keyway::start(&cluster);
    let (mut waiter, mut giver) = (keyway.client(), keyway.client());
    let owner = cluster.owner(slot_of("{failed}"));
    send(&mut waiter, "BLPOP {failed} 0");
    wait_blocked(&cluster, 1);
    cluster.failover(3 + owner);
    giver.cmd(&["RPUSH", "{failed}", "found"]);
    assert_eq!(show(&waiter.read()), "{failed} found");
}

#[test]
fn neighbours_do_not_wait_for_blocked_clients() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut waiters: Vec<_> = (0..20).map(|_| keyway.client()).collect();
    for waiter in &mut waiters {
        send(waiter, "BLPOP never 0");
    }
    wait_blocked(&cluster, 20);
    // A reply that waits for theirs never comes, and the client's patience ends.
    let mut client = keyway.client();
    for number in 0..200 {
        let key = format!("neighbour:{number}");
        client.cmd(&["SET", &key, &key]);
        assert_eq!(show(&client.cmd(&["GET", &key])), key);
    }
}
