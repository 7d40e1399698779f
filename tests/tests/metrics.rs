//! What Keyway says about itself, from outside: probes and counters that equal what happened.

use keyway_tests::{Keyway, RealCluster, Version, text, wait_until};

#[test]
fn counters_equal_what_the_test_did() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let requests = |command: &str| {
        keyway.metric(
            "keyway_requests_total",
            &[&format!("command=\"{command}\"")],
        )
    };
    let (set, get, ping) = (requests("set"), requests("get"), requests("ping"));

    let mut clients: Vec<_> = (0..5).map(|_| keyway.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        for j in 0..10 {
            let key = format!("{i}:{j}");
            assert_eq!(text(&client.cmd(&["SET", &key, "v"])), "OK");
            assert_eq!(text(&client.cmd(&["get", &key])), "v");
            assert_eq!(text(&client.cmd(&["Get", &key])), "v");
        }
        assert_eq!(text(&client.cmd(&["PING"])), "PONG");
    }
    assert!((keyway.metric("keyway_client_connections", &[]) - 5.0).abs() < 0.1);
    assert!(
        (requests("set") - set - 50.0).abs() < 0.1,
        "SET was counted {} times",
        requests("set") - set
    );
    assert!(
        (requests("get") - get - 100.0).abs() < 0.1,
        "GET was counted {} times",
        requests("get") - get
    );
    assert!(
        (requests("ping") - ping - 5.0).abs() < 0.1,
        "PING was counted {} times",
        requests("ping") - ping
    );
    assert!(keyway.metric("keyway_upstream_connections", &[]) >= 3.0);
    assert!(keyway.metric("keyway_topology_revision", &[]) >= 1.0);
    drop(clients);
    wait_until("no client connections", 5, || {
        keyway.metric("keyway_client_connections", &[]) < 0.1
    });
}

#[test]
fn what_nodes_have_done_is_counted_while_they_are_watched() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    for number in 0..200 {
        let key = format!("k{number}");
        assert_eq!(text(&client.cmd(&["SET", &key, "v"])), "OK");
    }
    let (_, page) = keyway.http("/metrics").expect("/metrics");
    assert!(!page.contains("keyway_node_"), "nobody looks");
    wait_until("what nodes say of themselves", 20, || {
        let _ = keyway.http("/status").expect("/status");
        let (_, page) = keyway.http("/metrics").expect("/metrics");
        page.contains("keyway_node_commands_total{")
    });
    let of = |name: &str, node: &str| keyway.metric(name, &[&format!("node=\"{node}\"")]);
    let nodes = cluster.addrs();
    let commands = nodes.iter().map(|node| {
        let seconds = of("keyway_node_command_seconds_total", node);
        assert!(seconds > 0.0 && seconds < 1.0, "{node}: {seconds} s");
        of("keyway_node_commands_total", node)
    });
    let commands: Vec<f64> = commands.collect();
    assert!(commands.iter().all(|count| *count > 50.0), "{commands:?}");
    assert!(
        (commands.iter().sum::<f64>() - 200.0).abs() < 20.0,
        "what is Keyway's own is not counted: {commands:?}"
    );
}

#[test]
fn the_time_is_said_to_go_where_it_goes() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
    let spent = |phase: &str| {
        let label = format!("phase=\"{phase}\"");
        keyway.metric("keyway_request_phase_seconds_sum", &[&label])
    };
    let count = || keyway.metric("keyway_request_phase_seconds_count", &["phase=\"node\""]);
    wait_until("the first command", 10, || count() > 0.0);
    let (queue, before) = (spent("queue"), count());
    assert!(spent("client_tls") > 0.0 && spent("node") > 0.0);
    // The node takes what is written to it, and answers later.
    let paused = cluster.client(0).cmd(&["CLIENT", "PAUSE", "300", "WRITE"]);
    assert_eq!(text(&paused), "OK");
    assert_eq!(text(&client.cmd(&["SET", "k", "w"])), "OK");
    wait_until("the command that was slow", 10, || count() > before);
    let (node, queue) = (spent("node"), spent("queue") - queue);
    assert!(node >= 0.25 && node > queue, "node {node}, queue {queue}");
    // What Keyway answers itself, and what is to wait, is not in it.
    let before = count();
    assert_eq!(text(&client.cmd(&["PING"])), "PONG");
    let _ = client.cmd(&["BLPOP", "nothing", "0.01"]);
    assert_eq!(text(&client.cmd(&["GET", "k"])), "w");
    wait_until("the next one", 10, || count() > before);
    assert!((count() - before - 1.0).abs() < 0.1, "{}", count() - before);
}

#[test]
fn names_that_clients_invent_make_no_series() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    let series = || {
        keyway.http("/metrics").map_or(0, |(_, page)| {
            page.lines().filter(|line| !line.starts_with('#')).count()
        })
    };
    let mut client = keyway.client();
    let _ = client.cmd(&["NOSUCH"]);
    let _ = client.cmd(&["SET", "k", "v"]);
    let before = series();
    let frames: Vec<Vec<u8>> = (0..2_000)
        .map(|i| {
            let mut frame = Vec::new();
            resp::write::request(&mut frame, &[format!("NOSUCH{i}"), "x".to_owned()]);
            frame
        })
        .collect();
    let replies = client.pipeline(&frames);
    assert!(
        replies
            .iter()
            .all(|reply| text(reply).starts_with("-ERR unknown command"))
    );
    assert_eq!(
        series(),
        before,
        "the number of series grew with invented names"
    );
}

#[test]
fn probes_tell_living_from_ready() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(
            keyway
                .http(path)
                .map(|(status, _)| status)
                .unwrap_or_default(),
            200,
            "{path}"
        );
    }
    assert_eq!(
        keyway
            .http("/nothing")
            .map(|(status, _)| status)
            .unwrap_or_default(),
        404
    );
    let (_, page) = keyway.http("/metrics").unwrap_or_default();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let value = line
            .rsplit_once(' ')
            .and_then(|(_, value)| value.parse::<f64>().ok());
        assert!(value.is_some(), "no metric: {line:?}");
        assert!(
            page.contains(&format!(
                "# TYPE {}",
                line.split(['{', ' '])
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches("_bucket")
                    .trim_end_matches("_sum")
                    .trim_end_matches("_count")
            )),
            "no TYPE for {line:?}"
        );
    }
}

#[test]
fn a_cluster_that_lost_some_slots_is_still_served() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    let keyway = Keyway::start(&cluster);
    for node in 0..2 {
        let mut client = cluster.client(node);
        assert_eq!(text(&client.cmd(&["CLUSTER", "DELSLOTS", "0", "1"])), "OK");
        let all = "cluster-require-full-coverage";
        assert_eq!(text(&client.cmd(&["CONFIG", "SET", all, "no"])), "OK");
    }
    wait_until("a topology without them", 30, || {
        let (_, page) = keyway.http("/metrics").unwrap_or_default();
        page.contains("keyway_topology_slots_covered 16382")
    });
    wait_until("/readyz", 5, || keyway.is_ready());
    let mut client = keyway.client();
    // The key's slot is 12182.
    assert_eq!(text(&client.cmd(&["SET", "foo", "still served"])), "OK");
}

#[test]
fn slots_are_served_while_their_owner_is_there() {
    let mut cluster = RealCluster::start(Version::V9_1, 3, 1);
    let keyway = Keyway::start(&cluster);
    let all = |name: &str| keyway.metric(&format!("keyway_topology_slots_{name}"), &[]) > 16383.5;
    wait_until("all to be served", 10, || all("served"));
    let mut client = keyway.client();
    for key in ["{a}", "{b}", "{c}", "{d}"] {
        client.cmd(&["SET", key, "1"]);
    }
    // One fails over: it is missed at once, and once only.
    cluster.node_mut(0).kill();
    let mut seen = vec![true];
    wait_until("the failover", 30, || {
        let now = all("served");
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        seen.len() > 2
    });
    assert_eq!(seen, [true, false, true]);
    // No node is left, and nobody asks for anything.
    (1..6).for_each(|index| cluster.node_mut(index).kill());
    wait_until("none to be served", 40, || {
        keyway.metric("keyway_topology_slots_served", &[]) < 0.5
    });
    assert!(all("covered"), "nobody has told otherwise");
}

#[test]
fn log_lines_are_json_and_carry_no_keys() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let secret = "a-key-nobody-may-log";
    assert_eq!(
        text(&client.cmd(&["SET", secret, "a-value-nobody-may-log"])),
        "OK"
    );
    assert_eq!(
        text(&client.cmd(&["CLIENT", "SETNAME", "evil\u{1b}[31m"])).get(..4),
        Some("-ERR")
    );
    let _ = client.cmd(&["NOSUCH\r\n{\"level\":\"forged\"}", secret]);
    client.raw(b"*1\r\n$bad\r\n");
    let _ = client.read();
    let log = keyway.log();
    assert!(!log.is_empty(), "nothing was logged at start");
    for line in log.lines() {
        let parsed = serde_json::from_str::<serde_json::Value>(line);
        assert!(
            parsed.is_ok_and(|value| value.is_object()),
            "no JSON object: {line:?}"
        );
    }
    assert!(
        !log.contains("nobody-may-log"),
        "keys or values in the log:\n{log}"
    );
    assert!(log.lines().count() < 50, "a line per request?\n{log}");
}
