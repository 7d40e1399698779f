//! What the admin port shows of the cluster and of what happens: `/topology` and `/status`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails; a missing field is null"
)]

use keyway_tests::{Client, Keyway, RealCluster, Settings, Version, slot_of, text, wait_until};
use serde_json::Value;

fn page(keyway: &Keyway, path: &str) -> Value {
    let (status, body) = keyway.http(path).expect("the admin port");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn all<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    let list = value[name].as_array();
    list.unwrap_or_else(|| panic!("no list {name:?} in {value}"))
}

/// The nodes that `/topology` shows, of all shards.
fn nodes(topology: &Value) -> Vec<Value> {
    let shards = all(topology, "shards").iter();
    shards
        .flat_map(|shard| all(shard, "nodes").clone())
        .collect()
}

fn events(topology: &Value, kind: &str) -> Vec<Value> {
    let events = all(topology, "events").iter();
    events
        .filter(|event| event["kind"] == kind)
        .cloned()
        .collect()
}

#[test]
fn topology_shows_slots_roles_addresses_and_zones() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let keyway = Keyway::start(&cluster);
    let topology = page(&keyway, "/topology");
    assert_eq!(number(&topology["slots_covered"]), 16_384);
    assert_eq!(all(&topology, "shards").len(), 3);
    let shown = nodes(&topology);
    for (index, address) in cluster.addrs().iter().enumerate() {
        let node = shown.iter().find(|node| node["address"] == **address);
        let node = node.unwrap_or_else(|| panic!("no {address} in {topology}"));
        assert_eq!(node["id"], cluster.id(index));
        assert_eq!(node["zone"], cluster.zone(index));
        assert_eq!(node["health"], "online");
        let role = if index < 3 { "primary" } else { "replica" };
        assert_eq!(node["role"], role, "{address}");
        if index < 3 {
            let shard = &all(&topology, "shards")[usize::try_from(number(&node["shard"])).unwrap()];
            let (first, last) = cluster.slots_of(index);
            assert_eq!(shard["ranges"], serde_json::json!([[first, last]]));
            assert_eq!(number(&shard["slots"]), u64::from(last - first) + 1);
        }
    }
    assert_eq!(events(&topology, "found").len(), 1);
    // Asking is what has the nodes asked how far they are behind.
    wait_until("replicas that are known to follow", 20, || {
        let topology = page(&keyway, "/topology");
        let shown = nodes(&topology);
        let mut replicas = shown.iter().filter(|node| node["role"] == "replica");
        replicas.all(|node| node["readable"] == true && node["lag_ms"].as_u64().is_some())
    });
}

#[test]
fn slots_that_move_and_primaries_that_step_down_are_events() {
    let cluster = RealCluster::start(Version::V9_1, 2, 1);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let before = number(&page(&keyway, "/topology")["revision"]);
    let (first, _) = cluster.slots_of(0);
    let mut keys = (0..).map(|number| number.to_string());
    let moved_key = keys.find(|key| (first..first + 100).contains(&slot_of(key)));
    let moved_key = moved_key.unwrap();
    cluster.migrate_slots_atomically(first, first + 99, 0, 1);
    wait_until("an event of 100 slots", 30, || {
        let _ = client.cmd(&["SET", &moved_key, "v"]);
        let moved = events(&page(&keyway, "/topology"), "slots");
        moved
            .iter()
            .filter_map(|event| event["slots"].as_u64())
            .sum::<u64>()
            == 100
    });
    let topology = page(&keyway, "/topology");
    assert!(number(&topology["revision"]) > before);
    let moved = &events(&topology, "slots")[0];
    assert_eq!(moved["node"], *cluster.addrs()[1], "{moved}");
    assert!(!moved["why"].as_str().unwrap().is_empty());
    assert!(number(&topology["changed_at_ms"]) >= number(&moved["at_ms"]));

    let (_, last) = cluster.slots_of(0);
    let mut keys = (0..).map(|number| number.to_string());
    let stayed_key = keys.find(|key| (first + 100..=last).contains(&slot_of(key)));
    let stayed_key = stayed_key.unwrap();
    cluster.failover(2);
    let promoted = cluster.addrs()[2].clone();
    wait_until("an event of the new primary", 30, || {
        let _ = client.cmd(&["SET", &stayed_key, "v"]);
        let topology = page(&keyway, "/topology");
        let told = events(&topology, "failover");
        let told = told.iter().any(|event| event["node"] == *promoted);
        let shown = nodes(&topology);
        let mut shown = shown.iter().filter(|node| node["address"] == *promoted);
        told && shown.all(|node| node["role"] == "primary")
    });
}

#[test]
fn status_shows_what_happens_and_no_keys_or_values() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    let keyway = Keyway::start(&cluster);
    let mut clients: Vec<Client> = (0..3).map(|_| keyway.client()).collect();
    for round in 0..200 {
        for client in &mut clients {
            let key = format!("secretkey:{round}");
            assert_eq!(text(&client.cmd(&["SET", &key, "secretvalue"])), "OK");
        }
    }
    let _ = clients[0].cmd(&["LPUSH", "secretkey:1", "secretvalue"]); // WRONGTYPE
    wait_until("a second with requests", 10, || {
        let status = page(&keyway, "/status");
        let seconds = all(&status, "history").iter();
        number(&status["requests"]["total"]) >= 601
            && seconds
                .map(|second| number(&second["requests"]))
                .sum::<u64>()
                > 0
    });
    let status = page(&keyway, "/status");
    assert_eq!(number(&status["clients"]["now"]), 3);
    assert_eq!(status["ready"], true);
    for of in ["request", "server"] {
        let latency = &status["latency"][of];
        assert!(number(&latency["samples"]) > 0, "{of}: {status}");
        let [p50, p99, p999] = ["p50_us", "p99_us", "p999_us"].map(|name| number(&latency[name]));
        assert!(p50 > 0 && p50 <= p99 && p99 <= p999, "{of}: {latency}");
    }
    let phases = &status["latency"]["phases"];
    for of in ["client_tls", "queue", "node"] {
        let latency = &phases[of];
        assert!(number(&latency["samples"]) > 0, "{of}: {phases}");
        let [p50, p99, p999] = ["p50_us", "p99_us", "p999_us"].map(|name| number(&latency[name]));
        assert!(p50 > 0 && p50 <= p99 && p99 <= p999, "{of}: {latency}");
    }
    wait_until("what the nodes say of themselves", 30, || {
        let _ = clients[0].cmd(&["GET", "secretkey:2"]);
        let status = page(&keyway, "/status");
        let phases = &status["latency"]["phases"];
        let mean = |name: &str| phases[name].as_f64();
        let (node, wire) = (mean("node_mean_us"), mean("wire_mean_us"));
        let known = all(&status, "nodes")
            .iter()
            .any(|node| node["server_mean_us"].is_f64());
        mean("server_mean_us").is_some_and(|server| server > 0.0) && known && wire <= node
    });
    // The node's part is within the whole, as far as buckets tell.
    for node in all(&status, "nodes") {
        assert!(number(&node["connections"]) > 0, "{node}");
        assert!(number(&node["latency"]["samples"]) > 0, "{node}");
        assert_eq!(number(&node["in_flight"]), 0, "{node}");
    }
    let certificate = &all(&status, "certificates")[0];
    assert_eq!(certificate["key"], "listen.tls.certificate");
    assert!(certificate["days_left"].as_i64().unwrap() > 0);
    assert!(certificate["names"].to_string().contains("127.0.0.1"));
    let topology = page(&keyway, "/topology");
    for page in [status.to_string(), topology.to_string()] {
        assert!(!page.contains("secret"), "{page}");
    }
}

#[test]
fn a_node_that_is_gone_shows_why() {
    let mut cluster = RealCluster::start(Version::V9_1, 2, 0);
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    for key in 0..20 {
        let _ = client.cmd(&["SET", &key.to_string(), "v"]);
    }
    let address = cluster.addrs()[1].clone();
    cluster.node_mut(1).kill();
    let node = |page: &Value| {
        let mut found = all(page, "nodes").iter();
        let found = found.find(|node| node["address"] == *address);
        found.cloned().unwrap_or_default() // the cluster is not found yet
    };
    wait_until("trouble with the node that is gone", 20, || {
        let node = node(&page(&keyway, "/status"));
        node["connections"] == 0 && node["trouble"].as_str().is_some_and(|why| !why.is_empty())
    });
}

#[test]
fn pages_are_for_looking_only() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    let (status, body) = keyway.http("/nothing").unwrap();
    assert_eq!(status, 404);
    for path in ["/topology", "/status", "/metrics"] {
        assert!(body.contains(path), "{body}");
    }
}

#[test]
fn the_status_page_loads_nothing_from_elsewhere() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    let pages = [(); 2].map(|()| keyway_tests::http_answer(&keyway.admin(), "/").unwrap());
    let nonces = pages.map(|(head, body)| {
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let policy = head
            .lines()
            .find_map(|line| line.strip_prefix("content-security-policy: "))
            .unwrap_or_else(|| panic!("no policy in {head}"));
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe-"), "{policy}");
        let nonce = policy.split("'nonce-").nth(1).unwrap();
        let nonce = nonce.split('\'').next().unwrap().to_owned();
        assert!(nonce.len() >= 32, "{policy}");
        assert_eq!(body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        for elsewhere in ["src=", "@import", "url(http", "{{nonce}}", "innerHTML"] {
            assert!(!body.contains(elsewhere), "{elsewhere}");
        }
        nonce
    });
    assert_ne!(nonces[0], nonces[1]);
}
