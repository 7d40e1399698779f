//! Reads of clients that have said `READONLY`, or come to the read port: in Keyway's own zone, and
//! only from replicas that are fit.

use keyway_tests::{
    Client, ClusterOptions, Keyway, RealCluster, Settings, Version, ports, show, text, wait_until,
};

/// Keys of every shard.
const KEYS: usize = 60;

fn settings(sections: &str) -> Settings {
    Settings {
        sections: format!("[reads]\n{sections}\n"),
        ..Settings::default()
    }
}

/// How often a node was asked to `GET`.
fn gets(cluster: &RealCluster, node: usize) -> u64 {
    let info = text(&cluster.client(node).cmd(&["INFO", "commandstats"]));
    let calls = info.split("cmdstat_get:calls=").nth(1);
    calls.map_or(0, |rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    })
}

fn zone(cluster: &RealCluster, node: usize) -> String {
    let zone = text(
        &cluster
            .client(node)
            .cmd(&["CONFIG", "GET", "availability-zone"]),
    );
    let start = zone.find("az-").expect("a zone");
    zone[start..start + 4].to_owned()
}

/// Writes every key, and waits until all replicas have them.
fn fill(client: &mut Client, round: &str) {
    for key in 0..KEYS {
        let value = format!("{round}-{key}");
        assert_eq!(
            text(&client.cmd(&["SET", &format!("key:{key}"), &value])),
            "OK"
        );
    }
    assert_eq!(text(&client.cmd(&["WAIT", "2", "5000"])), "2");
}

fn read_all(client: &mut Client, round: &str) {
    for key in 0..KEYS {
        let got = text(&client.cmd(&["GET", &format!("key:{key}")]));
        assert_eq!(got, format!("{round}-{key}"), "key:{key}");
    }
}

/// Reads until every one of a round was served in this zone.
fn wait_for_zone(keyway: &Keyway, client: &mut Client, round: &str) {
    wait_until("reads in the own zone alone", 20, || {
        let others = || {
            keyway.metric("keyway_reads_total", &["zone=\"other\""])
                + keyway.metric("keyway_reads_total", &["zone=\"unknown\""])
        };
        let before = others();
        read_all(client, round);
        others() - before < 0.5
    });
}

fn reads_stay_in_the_zone(version: Version) {
    let cluster = RealCluster::start(version, 3, 2);
    let keyway = Keyway::with(&cluster, &settings("zone = 'az-b'"));
    let mut client = keyway.client();
    fill(&mut client, "first");
    assert_eq!(text(&client.cmd(&["READONLY"])), "OK");
    wait_for_zone(&keyway, &mut client, "first");
    let count = cluster.nodes().len();
    let before: Vec<u64> = (0..count).map(|node| gets(&cluster, node)).collect();
    for _ in 0..5 {
        read_all(&mut client, "first");
    }
    let mut here = 0;
    for (node, before) in before.into_iter().enumerate() {
        let served = gets(&cluster, node) - before;
        if zone(&cluster, node) == "az-b" {
            assert!(served > 0, "node {node} in the own zone serves nothing");
            here += served;
        } else {
            assert_eq!(served, 0, "node {node} in another zone");
        }
    }
    assert_eq!(here, 5 * KEYS as u64);
    // Writes go on, and what is read behind one in a pipeline is what it wrote.
    let request = |args: &[&str]| {
        let mut frame = Vec::new();
        resp::write::request(&mut frame, args);
        frame
    };
    for round in 0..200 {
        let (key, value) = (format!("key:{}", round % KEYS), format!("own-{round}"));
        let replies = client.pipeline(&[request(&["SET", &key, &value]), request(&["GET", &key])]);
        assert_eq!(replies.iter().map(text).collect::<Vec<_>>(), ["OK", &value]);
    }
    // A client that has not said so reads at the primaries.
    let others = keyway.metric("keyway_reads_total", &[]);
    let mut fresh = keyway.client();
    assert_eq!(text(&fresh.cmd(&["SET", "key:0", "fresh"])), "OK");
    assert_eq!(text(&fresh.cmd(&["GET", "key:0"])), "fresh");
    assert_eq!(text(&client.cmd(&["READWRITE"])), "OK");
    assert_eq!(text(&client.cmd(&["GET", "key:0"])), "fresh");
    assert!((keyway.metric("keyway_reads_total", &[]) - others).abs() < 0.5);
}

#[test]
fn reads_stay_in_the_zone_9_1() {
    reads_stay_in_the_zone(Version::V9_1);
}

/// 8.0 tells its zone in `INFO` alone.
#[test]
fn reads_stay_in_the_zone_8_0_over_tls() {
    reads_stay_in_the_zone(Version::V8_0Tls);
}

/// A script that was loaded at the primaries alone is loaded at the replica that is to run it.
#[test]
fn scripts_that_only_read_run_at_replicas() {
    let cluster = RealCluster::start(Version::V9_1, 1, 2);
    let keyway = Keyway::with(&cluster, &settings("zone = 'az-b'"));
    let mut client = keyway.client();
    fill(&mut client, "first");
    assert_eq!(text(&client.cmd(&["READONLY"])), "OK");
    wait_for_zone(&keyway, &mut client, "first");
    let near = (1..3).find(|node| zone(&cluster, *node) == "az-b");
    let near = near.expect("a replica in az-b");
    let digest = text(&client.cmd(&["SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])"]));
    let known = |node: usize| text(&cluster.client(node).cmd(&["SCRIPT", "EXISTS", &digest]));
    assert!(!known(near).contains('1'), "{}", known(near));
    let before = gets(&cluster, near);
    for _ in 0..10 {
        let said = text(&client.cmd(&["EVALSHA_RO", &digest, "1", "key:7"]));
        assert_eq!(said, "first-7");
    }
    assert!(known(near).contains('1'), "{}", known(near));
    assert_eq!(gets(&cluster, near) - before, 10, "the replica runs each");
}

/// `READONLY` costs no right here, whatever the user may say to a node.
#[test]
fn who_may_not_say_readonly_to_a_node_reads_at_the_primary() {
    let cluster = RealCluster::with(ClusterOptions {
        users: vec![("plain".to_owned(), ">pw ~* +@all -readonly".to_owned())],
        ..ClusterOptions::new(Version::V9_1, 1, 2)
    });
    let keyway = Keyway::with(&cluster, &settings("zone = 'az-b'"));
    let (mut plain, mut other) = (keyway.client(), keyway.client());
    fill(&mut other, "first");
    assert_eq!(text(&other.cmd(&["READONLY"])), "OK");
    wait_for_zone(&keyway, &mut other, "first");
    assert_eq!(text(&plain.cmd(&["AUTH", "plain", "pw"])), "OK");
    assert_eq!(text(&plain.cmd(&["READONLY"])), "OK");
    read_all(&mut plain, "first");
    read_all(&mut plain, "first");
    // It keeps nobody else from the replica.
    wait_for_zone(&keyway, &mut other, "first");
}

#[test]
fn a_replica_that_is_unfit_is_left_out_and_comes_back() {
    let mut cluster = RealCluster::with(ClusterOptions {
        node_timeout_ms: 20_000,
        ..ClusterOptions::new(Version::V9_1, 1, 2)
    });
    let keyway = Keyway::with(&cluster, &settings("zone = 'az-b'"));
    let mut client = keyway.client();
    fill(&mut client, "first");
    assert_eq!(text(&client.cmd(&["READONLY"])), "OK");
    wait_for_zone(&keyway, &mut client, "first");
    let near = (1..3)
        .find(|node| zone(&cluster, *node) == "az-b")
        .expect("a replica in az-b");
    // Its link breaks: it answers, and has old data.
    let mut primary = cluster.client(0);
    let mut permit = |rules: [&str; 3]| {
        let args = [&["ACL", "SETUSER", "default"][..], &rules].concat();
        assert_eq!(text(&primary.cmd(&args)), "OK");
        text(&primary.cmd(&["CLIENT", "KILL", "TYPE", "replica"]))
    };
    assert_eq!(permit(["-psync", "-sync", "-replconf"]), "2");
    let mut writer = keyway.client();
    for key in 0..KEYS {
        let value = format!("second-{key}");
        assert_eq!(
            text(&writer.cmd(&["SET", &format!("key:{key}"), &value])),
            "OK"
        );
    }
    let fresh = |client: &mut Client| text(&client.cmd(&["GET", "key:0"])) == "second-0";
    wait_until("the replica without a link to be left out", 10, || {
        fresh(&mut client)
    });
    for _ in 0..10 {
        read_all(&mut client, "second");
    }
    let _ = permit(["+psync", "+sync", "+replconf"]);
    wait_for_zone(&keyway, &mut client, "second");
    // It hangs: reads wait a second at most, and none fails.
    cluster.nodes()[near].freeze();
    for _ in 0..3 {
        read_all(&mut client, "second");
    }
    cluster.nodes()[near].thaw();
    wait_for_zone(&keyway, &mut client, "second");
    // It dies.
    cluster.node_mut(near).kill();
    for _ in 0..20 {
        read_all(&mut client, "second");
    }
    cluster.node_mut(near).restart();
    wait_for_zone(&keyway, &mut client, "second");
}

#[test]
fn the_read_port_is_a_replica_to_cluster_clients() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let port = ports::reserve();
    let address = format!("127.0.0.1:{}", port.number());
    let sections = format!("address = '{address}'\nzone = 'az-b'\nreadonly_flag = false");
    let keyway = Keyway::with(&cluster, &settings(&sections));
    let mut main = keyway.client();
    let mut reads = Client::connect(&address, keyway.ca());
    let [main_id, read_id] =
        [&mut main, &mut reads].map(|client| text(&client.cmd(&["CLUSTER", "MYID"])));
    assert!(main_id.len() == 40 && read_id.len() == 40 && main_id != read_id);
    for client in [&mut main, &mut reads] {
        let slots = show(&client.cmd(&["CLUSTER", "SLOTS"]));
        let [first, second] =
            [&main_id, &read_id].map(|id| slots.find(id.as_str()).expect("an id"));
        assert!(first < second, "{slots}");
        assert!(slots.contains(&keyway.port().to_string()), "{slots}");
        assert!(slots.contains(&port.number().to_string()), "{slots}");
    }
    let myself = |client: &mut Client| {
        let nodes = text(&client.cmd(&["CLUSTER", "NODES"]));
        let mut lines = nodes.lines().filter(|line| line.contains("myself,"));
        lines.next().expect("a line").to_owned()
    };
    assert!(myself(&mut main).starts_with(&main_id) && myself(&mut main).contains("master - "));
    assert!(myself(&mut reads).starts_with(&read_id));
    assert!(myself(&mut reads).contains(&format!("slave {main_id} ")));
    assert!(text(&reads.cmd(&["INFO", "replication"])).contains("role:slave"));
    assert!(text(&main.cmd(&["INFO", "replication"])).contains("connected_slaves:1"));
    // All that comes there is flagged, and may write; the main port's READONLY does not count.
    assert_eq!(text(&reads.cmd(&["SET", "key:0", "written"])), "OK");
    assert_eq!(text(&main.cmd(&["READONLY"])), "OK");
    assert_eq!(text(&main.cmd(&["GET", "key:0"])), "written");
    let counted = || keyway.metric("keyway_reads_total", &[]);
    assert!(counted() < 0.5);
    wait_until("a read of what was written", 10, || {
        text(&reads.cmd(&["GET", "key:0"])) == "written"
    });
    assert!(counted() > 0.5);
}
