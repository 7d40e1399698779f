//! `keyway autoscale`: nodes of a warm pool come when load rises and go when it falls, and the
//! clients of a Keyway in front notice nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use keyway_tests::{
    ClusterOptions, Keyway, Load, LoadOptions, Node, RealCluster, Report, Settings, Signal,
    Version, run_to_end, signal, slot_of, text, tools, wait_until,
};

/// Long enough for slow machines; the test ends when it is done.
const PATIENCE_S: u64 = 150;
const PASSWORD: &str = "scaled";

/// A cluster of one shard, three empty nodes beside it and one that is not, and Keyway before it.
struct Ground {
    cluster: RealCluster,
    spares: Vec<Node>,
    keyway: Keyway,
}

impl Ground {
    /// `lines` are of `[autoscale]`.
    fn new(lines: &str) -> Self {
        let stats = ["--cluster-slot-stats-enabled", "yes"].map(str::to_owned);
        Self::with(
            lines,
            ClusterOptions {
                extra: stats.to_vec(),
                ..ClusterOptions::new(Version::V9_1, 1, 0)
            },
        )
    }

    fn with(lines: &str, options: ClusterOptions) -> Self {
        let password = options.password.clone().unwrap_or_default();
        let cluster = RealCluster::with(options);
        let spares: Vec<Node> = (0..4).map(|_| cluster.spare_node()).collect();
        // Somebody's: it has a key, and must never be taken nor emptied.
        let mut other = spares[0].client();
        let slot = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
        assert_eq!(text(&other.cmd(&slot)), "OK");
        wait_until("a node that serves", 10, || {
            text(&other.cmd(&["SET", "other", "1"])) == "OK"
        });
        let warm: Vec<String> = spares.iter().map(Node::addr).collect();
        let settings = Settings {
            cluster: match password.as_str() {
                "" => String::new(),
                _ => "password_env = 'SCALED'\nunauthenticated = 'service'".to_owned(),
            },
            environment: vec![("SCALED".to_owned(), password)],
            sections: format!(
                "[autoscale]\nwarm = {warm:?}\ninterval_ms = 200\nahead_ms = 1000\n\
                 growth_period_ms = 1000\nshrink_after_ms = 1000\nshards_max = 4\n{lines}\n\
                 [log]\nformat = 'human'"
            ),
            ..Settings::default()
        };
        let keyway = Keyway::with(&cluster, &settings);
        Self {
            cluster,
            spares,
            keyway,
        }
    }

    fn load(&self, prefix: &str, clients: usize, pause_ms: u64) -> Load {
        self.load_that(prefix, clients, pause_ms, false)
    }

    /// `lossy`: a primary is going to be lost, and what it alone knew with it.
    fn load_that(&self, prefix: &str, clients: usize, pause_ms: u64, lossy: bool) -> Load {
        let options = LoadOptions {
            lossy,
            prefix: prefix.to_owned(),
            pause: Duration::from_millis(pause_ms),
            watches: true,
            ..LoadOptions::new(clients)
        };
        Load::start(&self.keyway.addr(), self.keyway.ca(), &options)
    }

    /// Primaries with slots, by the word of the first node.
    fn shards(&self) -> usize {
        let nodes = text(&self.cluster.client(0).cmd(&["CLUSTER", "NODES"]));
        let with_slots = nodes.lines().filter(|line| line.split(' ').count() > 8);
        with_slots.filter(|line| line.contains("master")).count()
    }

    /// No slot is on its way, key by key: a command with several of its keys would have to wait for all
    /// of them, and nobody moves them who has ended.
    fn is_settled(&self) -> bool {
        let mut all = self.cluster.nodes().iter().chain(&self.spares);
        all.all(|node| {
            let nodes = text(&node.client().cmd(&["CLUSTER", "NODES"]));
            let own = nodes.lines().find(|line| line.contains("myself"));
            own.is_some_and(|own| !own.contains("->-") && !own.contains("-<-"))
        })
    }

    fn known(&self) -> usize {
        text(&self.cluster.client(0).cmd(&["CLUSTER", "NODES"]))
            .lines()
            .count()
    }
}

/// A running `keyway autoscale`; killed when dropped.
struct Autoscale {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Autoscale {
    fn start(ground: &Ground, arguments: &[&str]) -> Self {
        let mut child = Command::new(tools::keyway())
            .args(["autoscale", "--config", &ground.keyway.config()])
            .args(arguments)
            .env("SCALED", PASSWORD)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, into) = (
            BufReader::new(child.stderr.take().unwrap()).lines(),
            log.clone(),
        );
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let mut ended = false;
        let end = std::time::Instant::now() + Duration::from_secs(PATIENCE_S);
        while !condition() && !ended {
            ended = std::time::Instant::now() > end;
            thread::sleep(Duration::from_millis(50));
        }
        assert!(!ended, "waited in vain for {what}:\n{}", self.log());
    }

    fn kill(mut self) -> String {
        signal(&self.child, Signal::KILL);
        self.child.wait().unwrap();
        self.log()
    }

    /// Ends it by SIGTERM.
    fn stop(mut self) -> String {
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.log()
    }
}

impl Drop for Autoscale {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn assert_clean(report: &Report, log: &str) {
    assert!(report.verified > 0);
    assert!(
        report.is_clean(),
        "{:?}, {} closed\n{}\n{log}",
        report.errors,
        report.closed,
        report.told(20)
    );
}

#[test]
fn one_shard_becomes_four_and_one_again_by_itself() {
    let ground = Ground::new("node_ops_max = 1000");
    let light = ground.load("light", 2, 300);
    let scaling = Autoscale::start(&ground, &[]);
    scaling.wait("its start", || scaling.log().contains("scaling"));
    let heavy = ground.load("heavy", 12, 40);
    scaling.wait("four shards", || ground.shards() == 4);
    heavy.wait_rounds(100);
    // Whoever did it may die; the next one goes on.
    let mut log = scaling.kill();
    let scaling = Autoscale::start(&ground, &[]);
    heavy.wait_rounds(100);
    let report = heavy.stop();
    assert_clean(&report, &log);

    scaling.wait("a node that is emptied", || {
        scaling.log().contains("given back")
    });
    log += &scaling.kill();
    let scaling = Autoscale::start(&ground, &[]);
    scaling.wait("one shard", || ground.known() == 1);
    light.wait_rounds(20);
    log += &scaling.stop();
    assert_clean(&light.stop(), &log);

    assert_eq!(ground.cluster.ranges_of(0), [(0, 16_383)]);
    for spare in &ground.spares[1..] {
        let nodes = text(&spare.client().cmd(&["CLUSTER", "NODES"]));
        let alone = nodes.lines().count() == 1;
        assert!(
            alone,
            "not back in the pool: {nodes}\n{log}\n{}",
            spare.log()
        );
        assert_eq!(text(&spare.client().cmd(&["DBSIZE"])), "0");
    }
    assert_eq!(text(&ground.spares[0].client().cmd(&["GET", "other"])), "1");
    for line in [
        "scale out: nodes",
        "slots move",
        "back in the pool",
        "is not empty",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    // The second run may come so late that what it finds is already too much for the load.
    let given_back = ["scale in", "given back, or is not needed"];
    let begun = given_back.iter().any(|line| log.contains(line));
    assert!(begun, "nothing was given back in\n{log}");
    println!("{} + light replies verified\n{log}", report.verified);
}

/// A node gives up on another that does not answer within the node timeout, and nobody but the scaler knows.
#[test]
fn a_node_that_misses_its_introduction_is_introduced_again() {
    let ground = Ground::new("node_ops_max = 1000\nshards_min = 2");
    // The packets that introduce (CLUSTERMSG_TYPE_MEET) get lost; -1 is none.
    let lose = |packets| {
        for spare in &ground.spares[1..] {
            let lose = ["DEBUG", "DROP-CLUSTER-PACKET-FILTER", packets];
            assert_eq!(text(&spare.client().cmd(&lose)), "OK");
        }
    };
    lose("2");
    let scaling = Autoscale::start(&ground, &[]);
    let introduced = || {
        let nodes = ground.cluster.client(0).cmd(&["CLUSTER", "NODES"]);
        text(&nodes).contains("handshake")
    };
    scaling.wait("an introduction", introduced);
    scaling.wait("its end", || !introduced());
    lose("-1");
    scaling.wait("two shards", || {
        scaling.log().contains("all nodes know them")
    });
    let log = scaling.stop();
    assert!(!log.contains("are not known to all"), "{log}");
}

/// Killed where it hurts: a slot half moved to a node that has just joined, and a node that was
/// forgotten and not yet made new.
#[test]
fn what_an_earlier_run_left_is_finished() {
    let ground = Ground::new("");
    let mut first = ground.cluster.client(0);
    assert_eq!(text(&first.cmd(&["SET", "kept", "1"])), "OK");
    let slot = slot_of("kept").to_string();
    let ids = [&ground.spares[1], &ground.spares[2]].map(|spare| {
        let (port, bus) = (spare.port().to_string(), spare.bus_port().to_string());
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
        assert_eq!(text(&first.cmd(&meet)), "OK");
        text(&spare.client().cmd(&["CLUSTER", "MYID"]))
    });
    wait_until("nodes that know each other", 20, || {
        let all = [&ground.spares[1], &ground.spares[2]].map(|spare| {
            let nodes = text(&spare.client().cmd(&["CLUSTER", "NODES"]));
            nodes.lines().count() == 3 && !nodes.contains("handshake")
        });
        ground.known() == 3 && all == [true, true]
    });
    let own = ground.cluster.id(0);
    let mut joined = ground.spares[1].client();
    for (node, state, other) in [
        (&mut joined, "IMPORTING", &own),
        (&mut first, "MIGRATING", &ids[0]),
    ] {
        let set = ["CLUSTER", "SETSLOT", &slot, state, other];
        assert_eq!(text(&node.cmd(&set)), "OK");
    }
    for node in [&mut first, &mut joined] {
        assert_eq!(text(&node.cmd(&["CLUSTER", "FORGET", &ids[1]])), "OK");
    }

    let scaling = Autoscale::start(&ground, &[]);
    let alone = |spare: &Node| {
        text(&spare.client().cmd(&["CLUSTER", "NODES"]))
            .lines()
            .count()
            == 1
    };
    scaling.wait("nodes that are back in the pool", || {
        ground.known() == 1 && alone(&ground.spares[1]) && alone(&ground.spares[2])
    });
    let log = scaling.stop();
    assert!(log.contains("1 slots were left half moved"), "{log}");
    assert_eq!(ground.cluster.ranges_of(0), [(0, 16_383)], "{log}");
    assert_eq!(text(&first.cmd(&["GET", "kept"])), "1", "{log}");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let ground = Ground::new("node_ops_max = 1");
    let load = ground.load("dry", 2, 50);
    let scaling = Autoscale::start(&ground, &["--dry-run"]);
    scaling.wait("a decision", || scaling.log().contains("scale out"));
    load.wait_rounds(20);
    // What cannot be taken is said once, and when it can be.
    let times = |what: &str| scaling.log().matches(what).count();
    scaling.wait("some looks", || times("scale out: nodes") > 4);
    assert_eq!(times("cannot be taken"), 1, "{}", scaling.log());
    let mut other = ground.spares[0].client();
    other.cmd(&["FLUSHALL"]);
    other.cmd(&["CLUSTER", "RESET"]);
    scaling.wait("its end", || times("can be taken again") == 1);
    let log = scaling.stop();
    assert_eq!(ground.known(), 1, "{log}");
    assert_clean(&load.stop(), &log);
}

/// A shard comes with its replica, in another zone, and goes with it.
#[test]
fn a_shard_comes_and_goes_with_its_replica() {
    let ground = Ground::new("node_ops_max = 1000\nreplicas = 1");
    for (spare, zone) in ground.spares[1..].iter().zip(["a", "a", "b"]) {
        let set = ["CONFIG", "SET", "availability-zone", zone];
        assert_eq!(text(&spare.client().cmd(&set)), "OK");
    }
    let dry = Autoscale::start(&ground, &["--dry-run"]);
    let light = ground.load("light", 2, 300);
    let heavy = ground.load("heavy", 12, 40);
    let (primary, replica) = (ground.spares[1].addr(), ground.spares[3].addr());
    let shard = format!("{primary} (replicas {replica})");
    dry.wait("the plan", || dry.log().contains(&shard));
    dry.stop();
    let mut scaling = Autoscale::start(&ground, &[]);
    scaling.wait("a node that joins", || ground.known() > 1);
    // Whoever did it may die; the next one goes on.
    let mut log = scaling.kill();
    scaling = Autoscale::start(&ground, &[]);
    let id = text(&ground.spares[1].client().cmd(&["CLUSTER", "MYID"]));
    scaling.wait("two shards, one with a replica", || {
        let nodes = text(&ground.cluster.client(0).cmd(&["CLUSTER", "NODES"]));
        let of_it = |line: &&str| line.contains("slave") && line.contains(&id);
        ground.shards() == 2 && nodes.lines().filter(of_it).count() == 1
    });
    scaling.wait("a pool with too few nodes", || {
        scaling
            .log()
            .contains("has not as many nodes as are needed")
    });
    heavy.wait_rounds(50);
    assert_eq!(ground.known(), 3, "one node alone is no shard");
    let info = text(&ground.spares[3].client().cmd(&["INFO", "replication"]));
    assert!(info.contains("master_link_status:up"), "{info}");
    assert_clean(&heavy.stop(), &log);
    scaling.wait("one shard", || ground.known() == 1);
    light.wait_rounds(20);
    log += &scaling.stop();
    assert_clean(&light.stop(), &log);
    for spare in &ground.spares[1..] {
        let nodes = text(&spare.client().cmd(&["CLUSTER", "NODES"]));
        assert_eq!(nodes.lines().count(), 1, "{nodes}\n{log}");
        assert_eq!(text(&spare.client().cmd(&["DBSIZE"])), "0");
    }
    assert!(log.contains("it is a replica with all data"), "{log}");
}

/// Before 9.0 slots move key by key, and no node counts what they cost.
#[test]
fn one_shard_becomes_several_and_one_again_8_0_over_tls() {
    let ground = Ground::with(
        "node_ops_max = 2000",
        ClusterOptions {
            password: Some(PASSWORD.to_owned()),
            ..ClusterOptions::new(Version::V8_0Tls, 1, 0)
        },
    );
    let light = ground.load("light", 2, 300);
    let scaling = Autoscale::start(&ground, &[]);
    let heavy = ground.load("heavy", 12, 40);
    scaling.wait("two shards", || ground.shards() >= 2);
    heavy.wait_rounds(100);
    let mut log = scaling.kill();
    let scaling = Autoscale::start(&ground, &[]);
    heavy.wait_rounds(50);
    assert_clean(&heavy.stop(), &log);
    scaling.wait("one shard", || ground.known() == 1);
    light.wait_rounds(20);
    log += &scaling.stop();
    assert_clean(&light.stop(), &log);
    assert!(log.contains("all slots weigh the same"), "{log}");
}

/// A primary with a replica is killed when slots are to move to a new node: it goes on when the
/// cluster is well again.
#[test]
fn a_primary_that_fails_on_the_way_holds_it_up_and_no_more() {
    let stats = ["--cluster-slot-stats-enabled", "yes"].map(str::to_owned);
    let options = ClusterOptions {
        extra: stats.to_vec(),
        ..ClusterOptions::new(Version::V9_1, 3, 1)
    };
    fails_on_the_way(options, "all nodes know them");
}

/// The same before 9.0, while slots move key by key.
#[test]
fn a_primary_that_fails_on_the_way_8_0_over_tls() {
    let options = ClusterOptions {
        password: Some(PASSWORD.to_owned()),
        ..ClusterOptions::new(Version::V8_0Tls, 3, 1)
    };
    fails_on_the_way(options, "slots move");
}

/// The owner of a slot is killed when this was said.
fn fails_on_the_way(options: ClusterOptions, when: &str) {
    let options = ClusterOptions {
        node_timeout_ms: 1_000,
        ..options
    };
    let mut ground = Ground::with("node_ops_max = 1000", options);
    let lost = ground.cluster.owner(slot_of("keyway:fleet"));
    let load = ground.load_that("heavy", 12, 40, true);
    let scaling = Autoscale::start(&ground, &[]);
    scaling.wait(when, || scaling.log().contains(when));
    let id = ground.cluster.id(lost);
    ground.cluster.node_mut(lost).kill();
    let other = (lost + 1) % 3;
    scaling.wait("its successor", || {
        let nodes = text(&ground.cluster.client(other).cmd(&["CLUSTER", "NODES"]));
        let line = nodes.lines().find(|line| line.starts_with(&id));
        line.is_none_or(|line| line.contains("fail") && line.split(' ').count() == 8)
    });
    ground.cluster.node_mut(lost).restart();
    let with_slots = || {
        let nodes = text(&ground.cluster.client(other).cmd(&["CLUSTER", "NODES"]));
        let masters = nodes.lines().filter(|line| line.contains("master"));
        masters.filter(|line| line.split(' ').count() > 8).count()
    };
    scaling.wait("four shards", || with_slots() == 4 && ground.is_settled());
    load.wait_rounds(50);
    let log = scaling.stop();
    let report = load.stop();
    // While the mover waits for a successor for longer than a command may, a slot stays half moved: one with
    // several of its keys cannot be done, and is told so.
    let half_moved = report.errors.get("TRYAGAIN").copied().unwrap_or(0);
    let beyond = report.errors_beyond_failure().saturating_sub(half_moved);
    assert!(
        report.verified > 0 && report.faults.is_empty() && beyond == 0,
        "{:?}, {:?}\n{}\n{log}",
        report.errors,
        report.faults,
        report.told(20)
    );
    assert_eq!(report.closed, 0, "{}\n{log}", report.told(20));
}

/// A second one stands by and goes on when the first is killed; `rebalance` is sent away meanwhile.
#[test]
fn a_second_one_stands_by_until_the_first_is_gone() {
    let ground = Ground::new("node_ops_max = 1000");
    let first = Autoscale::start(&ground, &[]);
    let mut client = ground.keyway.client();
    wait_until("a claim", 30, || {
        text(&client.cmd(&["GET", "keyway:fleet"])).contains("autoscale")
    });
    let second = Autoscale::start(&ground, &[]);
    second.wait("the second to stand by", || {
        second.log().contains("standing by: keyway autoscale on")
    });
    let config = ground.keyway.config();
    let mut command = Command::new(tools::keyway());
    command.args(["rebalance", "--apply", "--by", "slots", "--config", &config]);
    let output = run_to_end(&mut command, Duration::from_secs(30));
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(
        output.stderr.contains("keyway autoscale on"),
        "{}",
        output.stderr
    );
    let log = first.kill();
    let load = ground.load("heavy", 12, 40);
    second.wait("two shards", || ground.shards() > 1);
    assert_clean(&load.stop(), &(log + &second.stop()));
    assert_eq!(text(&client.cmd(&["EXISTS", "keyway:fleet"])), "0");
}

#[test]
fn nothing_begins_in_a_cluster_that_is_not_well() {
    let ground = Ground::new("");
    let mut client = ground.cluster.client(0);
    assert_eq!(text(&client.cmd(&["CLUSTER", "DELSLOTS", "7"])), "OK");
    let config = ground.keyway.config();
    let mut command = Command::new(tools::keyway());
    let output = run_to_end(
        command.args(["autoscale", "--config", &config]),
        Duration::from_secs(30),
    );
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(
        output.stderr.contains("cluster_state is not ok"),
        "{}",
        output.stderr
    );
}
