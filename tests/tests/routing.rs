//! Change behind Keyway is invisible to its clients: slots move and primaries change while clients
//! check every reply. MOVED and ASK are never shown.

use std::time::Duration;

use keyway_tests::{
    ClusterOptions, Keyway, RealCluster, Traffic, Version, show, slot_of, text, wait_until, within,
};

const CLIENTS: usize = 4;

/// Texts of a cluster's inner life, which no client may ever see.
const HIDDEN: [&str; 4] = ["-MOVED", "-ASK", "-TRYAGAIN", "-CLUSTERDOWN"];

fn assert_invisible(traffic: Traffic) {
    let (problems, longest) = traffic.stop();
    assert!(
        problems.is_empty(),
        "replies that were not as expected: {problems:#?}"
    );
    assert!(
        longest < Duration::from_secs(10),
        "a round took {longest:?}"
    );
}

/// How often Keyway asks the cluster for its topology: not more than twice for a change.
struct Looks<'a> {
    keyway: &'a Keyway,
    before: f64,
    since: std::time::Instant,
}

impl<'a> Looks<'a> {
    fn count(keyway: &'a Keyway) -> Self {
        Self {
            keyway,
            before: Self::now(keyway),
            since: std::time::Instant::now(),
        }
    }

    fn now(keyway: &Keyway) -> f64 {
        keyway.metric("keyway_topology_looks_total", &[])
    }

    #[track_caller]
    fn assert_no_more_than(&self, most: u32) {
        let looks = Self::now(self.keyway) - self.before;
        // Those that come every ten seconds, whatever happens.
        let regular = 1.0 + self.since.elapsed().as_secs_f64() / 10.0;
        assert!(looks <= f64::from(most) + regular, "{looks} looks");
    }
}

/// Moves the slot of `{moving}` with its keys, back and forth, under the traffic of clients that
/// use nothing else.
fn legacy_migration(version: Version) {
    let cluster = RealCluster::start(version, 3, 0);
    let keyway = Keyway::start(&cluster);
    let slot = slot_of("{moving}");
    let traffic = Traffic::start(&keyway.addr(), keyway.ca(), CLIENTS, "{moving}");
    for _ in 0..3 {
        let from = cluster.owner(slot);
        let to = (from + 1) % 3;
        // A pause after each key, so that many requests meet a slot that is half here, half there.
        cluster.migrate_slot(slot, from, to, || traffic.wait_rounds(2));
        traffic.wait_rounds(100);
        assert_eq!(cluster.owner(slot), to, "the slot moved");
    }
    assert_invisible(traffic);
    let redirects = keyway.metric("keyway_redirects_total", &[]);
    assert!(
        redirects > 0.0,
        "the nodes redirected Keyway, or nothing was tested"
    );
}

#[test]
fn slot_by_slot_migration_is_invisible_before_9_1() {
    legacy_migration(Version::V9_1);
}

#[test]
fn slot_by_slot_migration_is_invisible_before_8_0_over_tls() {
    legacy_migration(Version::V8_0Tls);
}

#[test]
fn several_keys_of_a_half_moved_slot_are_answered() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let keys: Vec<String> = (0..10).map(|i| format!("{{half}}:{i}")).collect();
    for key in &keys {
        assert_eq!(text(&client.cmd(&["SET", key, key])), "OK");
    }
    let slot = slot_of("{half}");
    let from = cluster.owner(slot);
    let mut asked = 0;
    cluster.migrate_slot(slot, from, (from + 1) % 3, || {
        // TRYAGAIN for MGET ends only with the migration, so a patient proxy may not answer now;
        // single keys must be answered at once, wherever they are.
        for key in &keys {
            assert_eq!(&text(&client.cmd(&["GET", key])), key);
        }
        asked += 1;
    });
    assert_eq!(asked, keys.len());
    let mut mget = vec!["MGET"];
    mget.extend(keys.iter().map(String::as_str));
    let values = client.cmd(&mget);
    let values: Vec<String> = values
        .as_array()
        .unwrap_or_default()
        .iter()
        .map(text)
        .collect();
    assert_eq!(values, keys);
}

#[test]
fn a_slot_moves_to_a_node_without_scripts_9_1() {
    a_slot_moves_to_a_node_without_scripts(Version::V9_1);
}

#[test]
fn a_slot_moves_to_a_node_without_scripts_8_0_over_tls() {
    a_slot_moves_to_a_node_without_scripts(Version::V8_0Tls);
}

/// `ASKING` is for one command: the script has to be there before it.
fn a_slot_moves_to_a_node_without_scripts(version: Version) {
    let cluster = RealCluster::start(version, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let keys: Vec<String> = (0..5).map(|i| format!("{{half}}:{i}")).collect();
    for key in &keys {
        assert_eq!(text(&client.cmd(&["SET", key, key])), "OK");
    }
    let read = "return redis.call('GET', KEYS[1]) .. ' ' .. ARGV[1]";
    let write = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    let [read, write] = [read, write].map(|body| text(&client.cmd(&["SCRIPT", "LOAD", body])));
    let slot = slot_of("{half}");
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    let forget = || assert_eq!(text(&cluster.client(to).cmd(&["SCRIPT", "FLUSH"])), "OK");
    let mut counted = 0;
    cluster.migrate_slot(slot, from, to, || {
        for (number, key) in keys.iter().enumerate() {
            forget();
            let mark = format!("{counted}:{number}");
            let got = client.cmd(&["EVALSHA", &read, "1", key, &mark]);
            assert_eq!(text(&got), format!("{key} {mark}"));
        }
        forget();
        counted += 7;
        // It is at the new node from the beginning.
        let got = client.cmd(&["EVALSHA", &write, "1", "{half}:counted", "7"]);
        assert_eq!(show(&got), format!("{counted}"));
    });
    assert!(counted >= 5 * 7, "{counted}");
}

#[test]
fn atomic_migration_is_invisible() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let traffic = Traffic::start(&keyway.addr(), keyway.ca(), CLIENTS, "atomic");
    let looks = Looks::count(&keyway);
    for shard in 0..3 {
        let (first, last) = cluster.slots_of(shard);
        cluster.migrate_slots_atomically(first, last - 1_000, shard, (shard + 1) % 3);
        traffic.wait_rounds(100);
    }
    looks.assert_no_more_than(2 * 3);
    assert_invisible(traffic);
}

#[test]
fn planned_failover_is_invisible() {
    let cluster = RealCluster::start(Version::V9_1, 3, 1);
    let keyway = Keyway::start(&cluster);
    let traffic = Traffic::start(&keyway.addr(), keyway.ca(), CLIENTS, "planned");
    let looks = Looks::count(&keyway);
    for shard in 0..3 {
        cluster.failover(3 + shard);
        traffic.wait_rounds(100);
    }
    looks.assert_no_more_than(2 * 3);
    assert_invisible(traffic);
    wait_until("the new primaries in the topology", 10, || {
        keyway.metric("keyway_topology_revision", &[]) >= 2.0
    });
}

#[test]
fn a_killed_primary_costs_clients_its_shard_for_a_while_and_nothing_else() {
    let options = ClusterOptions {
        node_timeout_ms: 1_000,
        ..ClusterOptions::new(Version::V9_1, 3, 1)
    };
    let mut cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let traffic = Traffic::start(&keyway.addr(), keyway.ca(), CLIENTS, "killed");
    cluster.node_mut(0).kill();
    let promoted = within(Duration::from_secs(20), || {
        text(&cluster.client(3).cmd(&["ROLE"])).contains("master")
    });
    assert!(promoted, "the replica was not promoted");
    let mut client = keyway.client();
    let lost: Vec<String> = (0..)
        .map(|i| format!("after:{i}"))
        .filter(|key| slot_of(key) <= cluster.slots_of(0).1)
        .take(5)
        .collect();
    for key in &lost {
        wait_until("a key of the shard that lost its primary", 15, || {
            text(&client.cmd(&["SET", key, key])) == "OK"
        });
        assert_eq!(&text(&client.cmd(&["GET", key])), key);
    }
    traffic.wait_rounds(100);
    let (problems, _) = traffic.stop();
    let shown: Vec<_> = problems
        .iter()
        .filter(|problem| HIDDEN.iter().any(|text| problem.got.starts_with(text)))
        .collect();
    assert!(
        shown.is_empty(),
        "the cluster's inner life was shown: {shown:?}"
    );
    let closed: Vec<_> = problems.iter().filter(|problem| problem.closed).collect();
    assert!(
        closed.is_empty(),
        "client connections were closed: {closed:?}"
    );
    cluster.node_mut(0).restart();
    cluster.wait_healthy();
}

/// What a frozen primary was not sent yet goes to its successor: no error, and nothing done twice.
#[test]
fn commands_for_a_frozen_primary_wait_for_its_successor() {
    let options = ClusterOptions {
        node_timeout_ms: 2_000,
        ..ClusterOptions::new(Version::V9_1, 3, 1)
    };
    let cluster = RealCluster::with(options);
    let settings = keyway_tests::Settings {
        workers: 1,
        ..keyway_tests::Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let keys: Vec<String> = (0..)
        .map(|i| format!("waits:{i}"))
        .filter(|key| slot_of(key) <= cluster.slots_of(0).1)
        .take(50)
        .collect();
    let mut client = keyway.client();
    for key in &keys {
        assert_eq!(text(&client.cmd(&["SET", key, "1"])), "OK");
    }
    assert_eq!(text(&client.cmd(&["WAIT", "1", "5000"])), "1");
    cluster.nodes()[0].freeze();
    let mut lost = keyway.client();
    let mut bytes = Vec::new();
    resp::write::request(&mut bytes, &["INCR", &keys[0]]);
    lost.raw(&bytes);
    wait_until("an answer that is owed for long", 10, || {
        keyway.metric("keyway_upstream_stalls_total", &[]) > 0.5
    });
    for key in &keys[1..] {
        let mut bytes = Vec::new();
        resp::write::request(&mut bytes, &["INCR", key]);
        resp::write::request(&mut bytes, &["GET", key]);
        client.raw(&bytes);
    }
    for key in &keys[1..] {
        assert_eq!(text(&client.read()), "2", "INCR {key}");
        assert_eq!(text(&client.read()), "2", "GET {key}");
    }
    // Nobody knows what became of the one that it had been sent.
    let said = text(&lost.read());
    assert!(said.starts_with("-ERR KEYWAY.UNKNOWN_OUTCOME"), "{said}");
    cluster.nodes()[0].thaw();
    cluster.wait_healthy();
    for key in &keys[1..] {
        assert_eq!(text(&client.cmd(&["GET", key])), "2");
    }
    let first = text(&client.cmd(&["GET", &keys[0]]));
    assert!(first == "1" || first == "2", "{first}");
}

#[test]
fn a_frozen_node_delays_only_its_own_keys() {
    let options = ClusterOptions {
        node_timeout_ms: 30_000,
        ..ClusterOptions::new(Version::V9_1, 3, 0)
    };
    let cluster = RealCluster::with(options);
    let keyway = Keyway::start(&cluster);
    let others: Vec<String> = (0..)
        .map(|i| format!("other:{i}"))
        .filter(|key| slot_of(key) > cluster.slots_of(0).1)
        .take(50)
        .collect();
    let frozen = (0..)
        .map(|i| format!("frozen:{i}"))
        .find(|key| slot_of(key) <= cluster.slots_of(0).1)
        .unwrap_or_default();
    let (mut waiting, mut client) = (keyway.client(), keyway.client());
    cluster.nodes()[0].freeze();
    let mut bytes = Vec::new();
    resp::write::request(&mut bytes, &["SET", &frozen, "1"]);
    waiting.raw(&bytes);
    let begin = std::time::Instant::now();
    for key in &others {
        assert_eq!(text(&client.cmd(&["SET", key, key])), "OK");
    }
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(1),
        "{} keys of other nodes took {took:?}",
        others.len()
    );
    // Nobody knows whether the frozen node will run it: an error, in bounded time.
    let reply = text(&waiting.read());
    assert!(
        reply.starts_with('-'),
        "the frozen node cannot have answered {reply}"
    );
    cluster.nodes()[0].thaw();
    wait_until("the thawed node's keys", 15, || {
        text(&client.cmd(&["SET", &frozen, "2"])) == "OK"
    });
}
