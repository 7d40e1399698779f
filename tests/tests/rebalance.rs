//! `keyway rebalance`: slots of a real cluster move under verified load, and whatever ends it, the
//! next run goes on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails; a missing field is null"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use keyway_tests::{
    ClusterOptions, Keyway, Load, LoadOptions, Output, RealCluster, Settings, Signal, Version,
    run_to_end, signal, slot_of, text, tools, wait_until,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const CLIENTS: usize = 10;
const PASSWORD: &str = "rebalanced";
/// Keys that nobody touches while slots move.
const KEPT: usize = 3_000;

/// A cluster, Keyway before it, load on it, and keys that must stay.
struct Ground {
    cluster: RealCluster,
    keyway: Keyway,
    load: Load,
}

impl Ground {
    fn new(version: Version, shards: usize, replicas: usize, lossy: bool) -> Self {
        let protected = version == Version::V8_0Tls;
        // A node of 8.0.1 that counts crashes when its primary was lost while slots moved (an
        // assertion in cluster_slot_stats.c), so none counts where one is going to be lost.
        let counts = !(lossy && version == Version::V8_0Tls);
        let stats = ["--cluster-slot-stats-enabled", "yes"].map(str::to_owned);
        let cluster = RealCluster::with(ClusterOptions {
            password: protected.then(|| PASSWORD.to_owned()),
            extra: stats.into_iter().filter(|_| counts).collect(),
            ..ClusterOptions::new(version, shards, replicas)
        });
        let settings = Settings {
            cluster: match protected {
                true => "password_env = 'REBALANCED'\nunauthenticated = 'service'".to_owned(),
                false => String::new(),
            },
            environment: vec![("REBALANCED".to_owned(), PASSWORD.to_owned())],
            ..Settings::default()
        };
        let keyway = Keyway::with(&cluster, &settings);
        let mut client = keyway.client();
        for number in 0..KEPT {
            let key = format!("kept:{number}");
            assert_eq!(text(&client.cmd(&["SET", &key, &key])), "OK");
        }
        let options = LoadOptions {
            pause: Duration::from_millis(20),
            pairs: 1,
            lossy,
            ..LoadOptions::new(CLIENTS)
        };
        let load = Load::start(&keyway.addr(), keyway.ca(), &options);
        Self {
            cluster,
            keyway,
            load,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tools::keyway());
        command.args([
            "rebalance",
            "--over",
            "0.3",
            "--config",
            &self.keyway.config(),
        ]);
        command.args(arguments).env("REBALANCED", PASSWORD);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run_to_end(&mut self.command(arguments), LIMIT)
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Starts a run and waits until it has said so many lines of JSON.
    fn begun(&self, arguments: &[&str], lines: usize) -> (Child, BufReader<ChildStdout>) {
        let mut command = self.command(arguments);
        let mut child = command
            .args(["--apply", "--wait", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..lines {
            said.read_line(&mut String::new()).unwrap();
        }
        (child, said)
    }

    /// Slots by node, by each node's own word: every slot has one owner, and none is half moved.
    fn slots(&self) -> Vec<usize> {
        let mut all = BTreeSet::new();
        let mut counts = Vec::new();
        for (index, node) in self.cluster.nodes().iter().enumerate() {
            if !node.runs() {
                continue;
            }
            let nodes = text(&self.cluster.client(index).cmd(&["CLUSTER", "NODES"]));
            let own = nodes.lines().find(|line| line.contains("myself")).unwrap();
            assert!(
                !own.contains("[") || own.contains("slave"),
                "a slot is half moved: {own}"
            );
            if own.contains("slave") {
                continue;
            }
            let ranges = self.cluster.ranges_of(index);
            let slots: Vec<u16> = ranges
                .iter()
                .flat_map(|(first, last)| *first..=*last)
                .collect();
            counts.push(slots.len());
            for slot in slots {
                assert!(all.insert(slot), "slot {slot} has two owners");
            }
        }
        assert_eq!(all.len(), 16_384, "slots without an owner");
        counts
    }

    fn addr(&self, index: usize) -> String {
        self.cluster.addrs()[index].clone()
    }

    /// Everything that was there is there.
    fn assert_kept(&self) {
        let mut client = self.keyway.client();
        for number in 0..KEPT {
            let key = format!("kept:{number}");
            assert_eq!(text(&client.cmd(&["GET", &key])), key, "{key} is lost");
        }
    }

    fn end_clean(self) {
        self.assert_kept();
        let report = self.load.stop();
        assert!(report.verified > 0);
        assert!(
            report.is_clean(),
            "{:?}, {} closed\n{}",
            report.errors,
            report.closed,
            report.told(20)
        );
    }
}

fn even(slots: &[usize]) -> bool {
    let mean = slots.iter().sum::<usize>() / slots.len();
    slots.iter().all(|slots| slots.abs_diff(mean) < mean / 2)
}

#[test]
fn slots_move_to_where_there_is_room_9_1() {
    slots_move_to_where_there_is_room(Version::V9_1);
}

#[test]
fn slots_move_to_where_there_is_room_8_0_over_tls() {
    slots_move_to_where_there_is_room(Version::V8_0Tls);
}

fn slots_move_to_where_there_is_room(version: Version) {
    let replicas = usize::from(version == Version::V9_1);
    let mut ground = Ground::new(version, 2, replicas, false);
    let new = ground.cluster.add_primary();
    let before = ground.slots();
    let plan = ground.done(&[]);
    assert!(plan.contains("nothing was changed"), "{plan}");
    for index in [0, 1, new] {
        assert!(plan.contains(&ground.addr(index)), "{plan}");
    }
    let told: Value = serde_json::from_str(&ground.done(&["--json"])).unwrap();
    assert_eq!(told["weighed_by"], "cpu", "{told}");
    assert_eq!(ground.slots(), before, "a plan changes nothing");
    let planned = told["nodes"].as_array().unwrap().iter();
    let after: f64 = planned
        .map(|node| node["after"]["load"].as_f64().unwrap())
        .sum();
    assert!((after - 1.0).abs() < 0.01, "{told}");

    // Slots by their load; a node that is hot has few.
    let said = ground.done(&["--apply"]);
    assert!(!ground.cluster.ranges_of(new).is_empty(), "{said}");
    // Slots by their number.
    let said = ground.done(&["--apply", "--by", "slots"]);
    let slots = ground.slots();
    assert!(even(&slots), "{slots:?}\n{said}");
    ground.cluster.wait_healthy();
    // A node that shall have none gives all away, and the replicas have what their primaries have.
    let last = ground.addr(new);
    ground.done(&["--apply", "--empty", &last]);
    ground.slots();
    assert_eq!(ground.cluster.ranges_of(new), []);
    ground.cluster.wait_healthy();
    let missing = ground.run(&["--empty", "127.0.0.1:1"]);
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("no primary of the cluster"),
        "{}",
        missing.stderr
    );
    ground.end_clean();
}

#[test]
fn killed_anywhere_it_goes_on_9_1() {
    killed_anywhere_it_goes_on(Version::V9_1);
}

#[test]
fn killed_anywhere_it_goes_on_8_0_over_tls() {
    killed_anywhere_it_goes_on(Version::V8_0Tls);
}

fn killed_anywhere_it_goes_on(version: Version) {
    let ground = Ground::new(version, 2, 0, false);
    for turn in 0..8_usize {
        // There and back, killed after so many events and a moment that differs.
        let empty = ground.addr(turn % 2);
        let arguments = ["--empty", empty.as_str()];
        let (mut child, _said) = ground.begun(&arguments, 1 + turn * 5 % 7);
        ground.load.wait_rounds(turn as u64);
        signal(&child, Signal::KILL);
        child.wait().unwrap();
    }
    let (mut child, _said) = ground.begun(&["--empty", &ground.addr(0)], 2);
    signal(&child, Signal::INT);
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
    ground.slots();

    ground.done(&["--apply", "--wait", "--by", "slots"]);
    let slots = ground.slots();
    assert!(slots.len() == 1 || even(&slots), "{slots:?}");
    ground.end_clean();
}

/// A source that has granted its slots must not take them back: the target may have them already.
#[test]
fn stopped_while_slots_are_handed_over_no_write_is_lost() {
    let ground = Ground::new(Version::V9_1, 2, 0, false);
    let held = |on| {
        let mut target = ground.cluster.client(1);
        let hold = ["DEBUG", "SLOTMIGRATION", "PREVENT-FAILOVER", on];
        assert_eq!(text(&target.cmd(&hold)), "OK");
    };
    held("1");
    let (mut child, mut said) = ground.begun(&["--empty", &ground.addr(0)], 0);
    let mut source = ground.cluster.client(0);
    let mut granted = || {
        let jobs = source.cmd(&["CLUSTER", "GETSLOTMIGRATIONS"]);
        let jobs = jobs.as_array().unwrap().iter();
        jobs.filter_map(|job| job.map_get("state"))
            .any(|state| text(state) == "failover-granted")
    };
    wait_until("slots that are granted", 30, &mut granted);
    signal(&child, Signal::INT);
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ends too early");
    }
    // It has looked twice since, so what it does about the signal is done.
    let looks = || {
        let stats = text(&ground.cluster.client(0).cmd(&["INFO", "commandstats"]));
        let line = stats
            .lines()
            .find(|line| line.contains("|getslotmigrations:"));
        let calls = line
            .unwrap()
            .split("calls=")
            .nth(1)
            .unwrap()
            .split(',')
            .next();
        calls.unwrap().parse::<u64>().unwrap()
    };
    let before = looks();
    wait_until("two looks", 10, || looks() >= before + 2);
    assert!(granted(), "it has cancelled what was granted");
    held("0");
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains(r#""event":"moved""#), "{rest}");
    ground.slots();
    ground.done(&["--apply", "--by", "slots"]);
    ground.end_clean();
}

#[test]
fn a_primary_lost_on_the_way_ends_it_and_the_next_run_goes_on_9_1() {
    a_primary_lost_on_the_way(Version::V9_1);
}

#[test]
fn a_primary_lost_on_the_way_ends_it_and_the_next_run_goes_on_8_0_over_tls() {
    a_primary_lost_on_the_way(Version::V8_0Tls);
}

fn a_primary_lost_on_the_way(version: Version) {
    let mut ground = Ground::new(version, 3, 1, true);
    let empty = ground.addr(0);
    let (mut child, mut said) = ground.begun(&["--empty", &empty], 2);
    let lost = ground.cluster.id(0);
    ground.cluster.node_mut(0).kill();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {rest}");
    // Until its replica has its place.
    let refused = ground.run(&["--apply"]);
    if refused.code != Some(0) {
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(!refused.stderr.trim().is_empty(), "it says why");
    }
    wait_until("a successor for what the lost node had", 30, || {
        let nodes = text(&ground.cluster.client(1).cmd(&["CLUSTER", "NODES"]));
        let line = nodes.lines().find(|line| line.starts_with(&lost));
        line.is_none_or(|line| line.contains("fail") && line.split(' ').count() == 8)
    });
    ground.cluster.node_mut(0).restart();
    ground.cluster.wait_healthy();
    let mut last = String::new();
    wait_until("a run to its end", 60, || {
        let output = ground.run(&["--apply", "--by", "slots"]);
        last = output.stdout + &output.stderr;
        output.code == Some(0)
    });
    let slots = ground.slots();
    assert!(even(&slots), "{slots:?}\n{last}");
    ground.assert_kept();
    let report = ground.load.stop();
    assert!(report.verified > 0);
    assert!(
        report.is_right(),
        "{:?}, {:?}\n{}",
        report.errors,
        report.faults,
        report.told(20)
    );
}

/// Two at once: one does it and the other is told; when the first is killed, the next has it.
#[test]
fn one_at_a_time_9_1() {
    one_at_a_time(Version::V9_1);
}

#[test]
fn one_at_a_time_8_0_over_tls() {
    one_at_a_time(Version::V8_0Tls);
}

fn one_at_a_time(version: Version) {
    let ground = Ground::new(version, 3, 0, false);
    let mut client = ground.keyway.client();
    let mut claimed = || text(&client.cmd(&["GET", "keyway:fleet"])).contains("rebalance");
    // The node with the slot of the claim, so that it moves while it is held.
    let empty = ground.addr(ground.cluster.owner(slot_of("keyway:fleet")));
    let mut started = |arguments: &[&str]| {
        let mut command = Command::new(tools::keyway());
        let config = ground.keyway.config();
        command.args(["rebalance", "--apply", "--config", &config]);
        command.args(arguments).env("REBALANCED", PASSWORD);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().unwrap();
        wait_until("a claim", 30, &mut claimed);
        child
    };
    let mut first = started(&["--over", "4", "--empty", &empty]);
    let second = ground.run(&["--apply", "--by", "slots"]);
    assert_eq!(second.code, Some(1), "{}\n{}", second.stdout, second.stderr);
    let holder = format!("(pid {})", first.id());
    for told in ["keyway rebalance on", &holder, "--wait"] {
        assert!(second.stderr.contains(told), "{told}: {}", second.stderr);
    }
    assert_eq!(second.stdout, "", "it has done nothing");
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(ground.cluster.ranges_of(1), []);

    // One that ends gives it up at once, and one that is seen to be gone has lost it.
    let mut killed = started(&["--over", "100"]);
    signal(&killed, Signal::KILL);
    killed.wait().unwrap();
    ground.done(&["--apply", "--by", "slots"]);
    // Of one on another machine nobody knows until its time is over.
    let mut client = ground.keyway.client();
    let elsewhere = "rebalance elsewhere 1 another/1 0 0";
    let set = ["SET", "keyway:fleet", elsewhere, "PX", "5000"];
    assert_eq!(text(&client.cmd(&set)), "OK");
    let refused = ground.run(&["--apply", "--by", "slots"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let waited = ground.run(&["--apply", "--wait", "--by", "slots"]);
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
    assert!(waited.stderr.contains("waiting for keyway rebalance"));
    let slots = ground.slots();
    assert!(even(&slots), "{slots:?}");
    assert_eq!(text(&client.cmd(&["EXISTS", "keyway:fleet"])), "0");
    ground.end_clean();
}

/// Whose user may not say who it is does nothing, unless it is told to.
#[test]
fn a_user_without_the_key_is_told_what_it_needs() {
    let ground = Ground::new(Version::V9_1, 2, 0, false);
    for node in [0, 1] {
        let rules = [
            "ACL", "SETUSER", "mover", "on", ">moved", "~kept:*", "+@all",
        ];
        assert_eq!(text(&ground.cluster.client(node).cmd(&rules)), "OK");
    }
    let config = std::fs::read_to_string(ground.keyway.config()).unwrap();
    let path = format!("{}.mover", ground.keyway.config());
    let user = "[cluster]\nusername = 'mover'\npassword_env = 'REBALANCED'";
    std::fs::write(&path, config.replace("[cluster]", user)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(tools::keyway());
        command.args([
            "rebalance",
            "--over",
            "0.1",
            "--by",
            "slots",
            "--config",
            &path,
        ]);
        command.args(arguments).env("REBALANCED", "moved");
        run_to_end(&mut command, LIMIT)
    };
    let empty = ground.addr(0);
    let refused = run(&["--apply", "--empty", &empty]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    for told in ["NOPERM", "~keyway:fleet", "--no-claim"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    assert_ne!(ground.cluster.ranges_of(0), [], "nothing has moved");
    let done = run(&["--apply", "--no-claim", "--empty", &empty]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(ground.cluster.ranges_of(0), []);
    ground.end_clean();
}

#[test]
fn nothing_moves_in_a_cluster_that_is_not_well() {
    let ground = Ground::new(Version::V9_1, 2, 0, true);
    let mut client = ground.cluster.client(0);
    assert_eq!(text(&client.cmd(&["CLUSTER", "DELSLOTS", "0"])), "OK");
    for arguments in [&["--plan"][..], &["--apply"]] {
        let output = ground.run(arguments);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(1), ""),
            "{}",
            output.stderr
        );
        assert!(
            output.stderr.contains("cluster_state is not ok"),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn where_no_node_counts_a_keyway_tells_which_slots_are_busy() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    let keyway = Keyway::start(&cluster);
    let plan = || {
        let mut command = Command::new(tools::keyway());
        let arguments = ["rebalance", "--over", "0.1", "--json", "--config"];
        command.args(arguments).arg(keyway.config());
        let output = run_to_end(&mut command, LIMIT);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        serde_json::from_str::<Value>(&output.stdout).unwrap()
    };
    let mut client = keyway.client();
    wait_until("its counts in a plan", 30, || {
        for _ in 0..200 {
            // Two slots of one node: 12182 and 12539.
            for key in ["foo", "hello:7"] {
                let _ = client.cmd(&["GET", key]);
            }
        }
        plan()["weighed_by"] == "commands"
    });
    let told = plan();
    let note = told["note"].as_str().unwrap();
    assert!(note.contains(&keyway.admin()), "{told}");
}
