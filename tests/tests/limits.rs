//! Bounds on clients: how many, how long, and how much may wait for them.

use std::{fs, sync::Barrier, thread, time::Duration};

use keyway_tests::{
    Certificates, Client, ClusterOptions, Keyway, RealCluster, Settings, Version, frame, show,
    text, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);

fn is_closed(client: &mut Client) -> bool {
    client.read_to_end(LIMIT) == Some(Vec::new())
}

fn with(cluster: &RealCluster, limits: &str) -> Keyway {
    let settings = Settings {
        workers: 1,
        limits: limits.to_owned(),
        ..Settings::default()
    };
    Keyway::with(cluster, &settings)
}

#[test]
fn who_is_idle_is_closed_and_who_waits_is_not() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = with(&cluster, "idle_timeout_ms = 300");
    let [mut idle, mut topic, mut blocked] = [(); 3].map(|()| keyway.client());
    assert_eq!(topic.ask("SUBSCRIBE news"), "subscribe news 1");
    blocked.raw(&frame("BLPOP queue 0"));
    assert_eq!(idle.ask("PING"), "PONG");
    assert!(is_closed(&mut idle));
    keyway.wait_logged("limits.idle_timeout_ms");
    let mut node = cluster.client(0);
    // They have been silent for longer than the one that was closed.
    assert_eq!(text(&node.cmd(&["PUBLISH", "news", "late"])), "1");
    assert_eq!(show(&topic.read()), "message news late");
    assert_eq!(text(&node.cmd(&["RPUSH", "queue", "one"])), "1");
    assert_eq!(show(&blocked.read()), "queue one");
}

#[test]
fn old_connections_end_between_two_replies() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = with(&cluster, "max_connection_age_ms = 400");
    let mut multi = keyway.client();
    assert_eq!(multi.ask("MULTI"), "OK");
    assert_eq!(multi.ask("SET multi 1"), "QUEUED");
    let mut done = 0;
    for _ in 0..3 {
        let mut client = keyway.client();
        loop {
            let batch: Vec<u8> = (done..done + 5)
                .flat_map(|number| frame(&format!("RPUSH list {number}")))
                .collect();
            if client.try_raw(&batch).is_err() {
                break;
            }
            let replies = (0..5).map_while(|_| client.try_read().ok());
            let lengths: Vec<String> = replies.map(|reply| text(&reply)).collect();
            let expected = (done + 1..=done + 5).map(|length| length.to_string());
            assert_eq!(lengths, expected.take(lengths.len()).collect::<Vec<_>>());
            done += lengths.len();
            if lengths.len() < 5 {
                break; // what had no reply did not run, and is sent again
            }
        }
    }
    assert!(is_closed(&mut multi), "nobody stays for ever");
    let mut client = keyway.client();
    assert_eq!(client.ask("GET multi"), "(nil)");
    keyway.wait_logged("limits.max_connection_age_ms");
}

#[test]
fn one_address_has_so_many_connections() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = with(&cluster, "clients_per_address_max = 2");
    let (first, mut second) = (keyway.client(), keyway.client());
    let third = || Client::try_connect(&keyway.addr(), keyway.ca());
    assert!(third().is_err());
    let full = keyway.metric("keyway_handshakes_total", &["result=\"address_full\""]);
    assert!(full > 0.5);
    assert_eq!(second.ask("PING"), "PONG");
    drop(first);
    wait_until("a place", 10, || third().is_ok());
}

/// What a container's memory comes to is nowhere else.
#[test]
fn the_log_begins_with_the_limits_that_came_out() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let told = |limits: &str, key: &str| -> usize {
        let keyway = with(&cluster, limits);
        let log = keyway.log();
        let mut lines = log.lines().filter(|line| line.contains("serving Valkey"));
        let line = lines.next().expect("the line of the start");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let value = line[key].as_u64().and_then(|value| value.try_into().ok());
        value.unwrap_or_else(|| panic!("no {key} in {line}"))
    };
    assert_eq!(
        told("memory_bytes_max = 77777777", "memory_bytes_max"),
        77_777_777
    );
    assert_eq!(told("clients_max = 77", "clients_max"), 77);
    let machine = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let total = machine.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kib.parse::<usize>().ok()
    });
    let usual = told("", "memory_bytes_max");
    let most = total.expect("MemTotal") * 1024 / 8 * 3;
    assert!(usual > 0 && usual <= most, "{usual} of {most}");
}

#[test]
fn what_waits_for_clients_is_told_beside_what_may() {
    const MIB: usize = 1024 * 1024;
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = with(&cluster, &format!("memory_bytes_max = {}", 77 * MIB));
    let waits = |of: &str| keyway.metric(&format!("keyway_client_waiting_bytes{of}"), &[]);
    let is_near = |bytes: f64, mib: u32| (bytes / f64::from(1 << 20) - f64::from(mib)).abs() < 1.0;
    wait_until("the bound", 10, || is_near(waits("_max"), 77));
    let mut good = keyway.client();
    let value = "v".repeat(8 * MIB);
    assert_eq!(text(&good.cmd(&["SET", "big", &value])), "OK");
    wait_until("nothing waits", 10, || is_near(waits(""), 0));
    let mut deaf = keyway.client();
    deaf.raw(&frame("GET big").repeat(4));
    // Some of it is with the kernel.
    wait_until("replies", 10, || waits("") > f64::from(20 << 20));
    drop(deaf);
    wait_until("it has left", 10, || is_near(waits(""), 0));
    let mut half = keyway.client();
    half.raw(format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", 8 * MIB).as_bytes());
    half.raw(&vec![b'h'; 6 * MIB]);
    wait_until("half a command", 10, || waits("") >= f64::from(6 << 20));
    assert!(waits("") < f64::from(20 << 20));
    drop(half);
    wait_until("it has left", 10, || is_near(waits(""), 0));
    assert_eq!(good.ask("PING"), "PONG");
}

#[test]
fn beyond_the_memory_budget_the_largest_is_closed() {
    const MIB: usize = 1024 * 1024;
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let limits = format!(
        "memory_bytes_max = {}\nclient_output_bytes_max = {}",
        64 * MIB,
        512 * MIB
    );
    let keyway = with(&cluster, &limits);
    let mut good = keyway.client();
    let value = "v".repeat(8 * MIB);
    assert_eq!(text(&good.cmd(&["SET", "big", &value])), "OK");
    let [mut modest, mut greedy] = [(); 2].map(|()| keyway.client());
    let ask_for = |client: &mut Client, count: usize| client.raw(&frame("GET big").repeat(count));
    ask_for(&mut modest, 4);
    ask_for(&mut greedy, 12);
    keyway.wait_logged("limits.memory_bytes_max");
    for _ in 0..4 {
        assert_eq!(modest.read().as_bytes().map(<[u8]>::len), Some(8 * MIB));
    }
    let got = greedy.read_to_end(LIMIT).map_or(0, |bytes| bytes.len());
    assert!(got < 12 * 8 * MIB, "{got} bytes");
    assert_eq!(good.ask("PING"), "PONG");
    assert_eq!(keyway.log().matches("limits.memory_bytes_max").count(), 1);
}

/// A crowd that sends most of a big value each does so faster than looks by time would see it.
#[test]
fn values_that_are_half_sent_take_no_more_memory_than_they_may() {
    const MIB: usize = 1024 * 1024;
    const CLIENTS: usize = 30;
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = with(&cluster, &format!("memory_bytes_max = {}", 64 * MIB));
    let mut good = keyway.client();
    let begun = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (begun, mut client) = (&begun, keyway.client());
            scope.spawn(move || {
                begun.wait();
                client.raw(format!("*3\r\n$3\r\nSET\r\n$4\r\nb:{number:02}\r\n").as_bytes());
                client.raw(format!("${}\r\n", 16 * MIB).as_bytes());
                let piece = vec![b'b'; MIB / 8];
                // Who is closed has no more to send.
                (0..15 * 8).all(|_| client.try_raw(&piece).is_ok())
            });
        }
    });
    let status = fs::read_to_string(format!("/proc/{}/status", keyway.pid())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most = most.and_then(|most| most.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    let most = most.expect("VmHWM");
    assert!(
        most < 4 * 64 * 1024,
        "{most} KiB of {}",
        15 * CLIENTS * 1024
    );
    let closed = keyway.log().matches("limits.memory_bytes_max").count();
    assert!(closed > 0, "nobody had to go");
    assert_eq!(good.ask("PING"), "PONG");
}

#[test]
fn one_user_has_so_many_connections_over_all_workers() {
    let cluster = RealCluster::with(ClusterOptions {
        users: vec![("blue".to_owned(), ">pw ~* +@all".to_owned())],
        ..ClusterOptions::new(Version::V9_1, 1, 0)
    });
    let authority = Certificates::loopback();
    let settings = Settings {
        workers: 3,
        limits: "clients_per_user_max = 2".to_owned(),
        listen_tls: format!("client_ca = {:?}\nclient_auth = 'optional'", authority.ca),
        sections: "[users.one]\ncertificate = 'one'\ncluster_username = 'blue'\n\
                   cluster_password_env = 'BLUE'"
            .to_owned(),
        environment: vec![("BLUE".to_owned(), "pw".to_owned())],
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let [mut first, mut second, mut third] = [(); 3].map(|()| keyway.client());
    assert_eq!(first.ask("AUTH blue pw"), "OK");
    assert_eq!(second.ask("AUTH blue pw"), "OK");
    assert_eq!(second.ask("AUTH blue pw"), "OK", "it has its place");
    let full = third.ask("AUTH blue pw");
    assert!(full.starts_with("-ERR KEYWAY.TOO_MANY_CLIENTS "), "{full}");
    assert_eq!(third.ask("ACL WHOAMI"), "default", "and stays who it was");
    assert_eq!(second.ask("RESET"), "RESET");
    assert_eq!(
        third.ask("AUTH blue pw"),
        "OK",
        "the place of who has become another"
    );
    drop(first);
    wait_until("the place of who has left", 10, || {
        second.ask("AUTH blue pw") == "OK"
    });

    let identity = authority.identity("one", &[]);
    let connect =
        || Client::try_connect_as(&keyway.addr(), keyway.ca(), Some(&identity)).expect("TLS");
    let mut named = [(); 2].map(|()| connect());
    for client in &mut named {
        assert_eq!(client.ask("RESET"), "RESET");
        assert_eq!(client.ask("ACL WHOAMI"), "blue");
    }
    assert!(is_closed(&mut connect()), "nobody can tell it so in time");
    keyway.wait_logged("limits.clients_per_user_max");
}

#[test]
fn a_user_that_asks_for_too_much_is_told_so_and_others_are_not_slowed() {
    let user = |name: &str| (name.to_owned(), ">pw ~* +@all".to_owned());
    let cluster = RealCluster::with(ClusterOptions {
        users: vec![user("hasty"), user("calm")],
        ..ClusterOptions::new(Version::V9_1, 1, 0)
    });
    let keyway = with(&cluster, "user_commands_per_second_max = 100");
    let [mut hasty, mut also, mut calm] = [(); 3].map(|()| keyway.client());
    for (client, name) in [
        (&mut hasty, "hasty"),
        (&mut also, "hasty"),
        (&mut calm, "calm"),
    ] {
        assert_eq!(client.ask(&format!("AUTH {name} pw")), "OK");
    }
    let frames: Vec<Vec<u8>> = (0..5000).map(|_| frame("INCR count")).collect();
    let replies = hasty.pipeline(&frames);
    let refused = |reply: &str| reply.starts_with("-ERR KEYWAY.TOO_FAST ");
    let done = replies.iter().map(text).filter(|reply| !refused(reply));
    let done: Vec<String> = done.collect();
    assert!(
        done.len() >= 100 && done.len() < 4000,
        "{} of 5000",
        done.len()
    );
    assert_eq!(
        calm.ask("GET count"),
        done.len().to_string(),
        "what was refused did not run"
    );
    // One connection's haste is the other's, and a transaction is whole or not at all. The other
    // asks in the middle of the haste: 10 ms behind it the next command is in time.
    let haste = frames.concat();
    let mut meanwhile = |asked: &str| {
        hasty.raw(&haste);
        let reply = also.ask(asked);
        frames.iter().for_each(|_| drop(hasty.read()));
        reply
    };
    wait_until("a refusal", 10, || refused(&meanwhile("PING")));
    wait_until("a command in time", 10, || meanwhile("MULTI") == "OK");
    wait_until("another refusal", 10, || refused(&meanwhile("SET whole 1")));
    assert!(also.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(calm.ask("GET whole"), "(nil)");
}
