//! The simulator tells of changed keys (`CLIENT TRACKING`) as a real node does, frame by frame: who
//! hears what behind which reply, as a near cache relies on it.
#![allow(clippy::indexing_slicing, reason = "a failing test panics")]

use std::{net::SocketAddr, time::Duration};

use cluster_sim::{Cluster, ConnectionId, Layout};
use keyway_tests::{Client, RealCluster, Standalone, Version, slot_of};
use resp::{OwnedRequest, Value};
use topology::Slot;

/// Who writes, who is told of what it has read, who of all keys that begin with `k`.
const NAMES: [&str; 3] = ["writer", "reader", "listener"];

/// Connections, and what each hears.
trait Server {
    /// Sends these at once, and returns everything that was said by then.
    fn say(&mut self, who: usize, requests: &[String]) -> Vec<Value>;

    /// The same, and what the others have heard because of it.
    fn step(&mut self, number: usize, who: usize, requests: &[String]) -> Vec<(String, Value)> {
        let mut heard = Vec::new();
        for at in [who].into_iter().chain((0..3).filter(|at| *at != who)) {
            let mut said = Vec::new();
            if at == who {
                said = self.say(who, requests);
            }
            said.extend(self.say(at, &[format!("ECHO {number}:{at}")]));
            heard.extend(said.into_iter().map(|value| (NAMES[at].to_owned(), value)));
        }
        heard
    }
}

struct Real(Vec<Client>);

impl Server for Real {
    fn say(&mut self, who: usize, requests: &[String]) -> Vec<Value> {
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend_from_slice(OwnedRequest::from_args(request.split(' ')).bytes());
        }
        self.0[who].raw(&bytes);
        let (mut replies, mut heard) = (0, Vec::new());
        while replies < requests.len() {
            let value = self.0[who].read();
            replies += usize::from(!matches!(value, Value::Push(_)));
            heard.push(value);
        }
        heard
    }
}

struct Simulated(Cluster, Vec<ConnectionId>);

impl Server for Simulated {
    fn say(&mut self, who: usize, requests: &[String]) -> Vec<Value> {
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend_from_slice(OwnedRequest::from_args(request.split(' ')).bytes());
        }
        self.0.received(self.1[who], &bytes, Duration::ZERO);
        let mut said = &self.0.output(self.1[who], Duration::ZERO)[..];
        let mut heard = Vec::new();
        while !said.is_empty() {
            let (value, used) = Value::parse(said).expect("a frame");
            heard.push(value);
            said = &said[used..];
        }
        heard
    }
}

fn simulated(shards: usize) -> Simulated {
    let layout = Layout {
        shards,
        replicas: 0,
        ..Layout::default()
    };
    let addresses = [7001, 7002].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut cluster = Cluster::new(layout, &addresses);
    let connections = NAMES.map(|_| cluster.connect(0, "", Duration::ZERO));
    Simulated(cluster, connections.into_iter().flatten().collect())
}

/// What is said, one connection after the other.
const STEPS: [(usize, &str); 42] = [
    (0, "HELLO 3"),
    (1, "HELLO 3|CLIENT TRACKING ON"),
    (2, "HELLO 3|CLIENT TRACKING ON BCAST PREFIX k PREFIX list"),
    (0, "SET k 1"),
    (1, "GET k|PTTL k"),
    (0, "SET k 2"),
    (0, "SET k 3"),
    (1, "GET k|SET k 4|GET k"),
    (0, "SET k 5|SET k 6"),
    (1, "GET k"),
    (0, "EXPIRE k 100"),
    (1, "EXISTS k"),
    (0, "PERSIST k"),
    (1, "GET none|GET k"),
    (0, "DEL none|DEL other"),
    (0, "SET none 1|SET another 2"),
    (0, "MSET k{k} 1 k 8"),
    (1, "MGET k k{k}"),
    (0, "MSET k{k} 1 k 8"),
    (1, "GET k"),
    (0, "MULTI|SET k 1|SET k 2|EXEC"),
    (1, "LRANGE list 0 -1"),
    (0, "RPUSH list 1"),
    (1, "LRANGE list 0 -1"),
    (0, "LPOP list 5"),
    (1, "GET k"),
    (2, "SET k 9|GET k"),
    (1, "SET k 10|GET k|SET another 1"),
    (0, "FLUSHALL|FLUSHALL"),
    (0, "SET k 11"),
    (1, "CLIENT TRACKING ON|GET k"),
    (1, "CLIENT TRACKING ON BCAST"),
    (2, "CLIENT TRACKING ON"),
    (0, "SET k 12"),
    (1, "GET k|CLIENT TRACKING OFF"),
    (0, "SET k 13"),
    (
        1,
        "CLIENT TRACKING ON|CLIENT TRACKING maybe|CLIENT TRACKING ON MAYBE",
    ),
    (0, "SET k 14|SET q 1"),
    (1, "GET k|GET k"),
    (0, "DEL k"),
    (2, "CLIENT TRACKING OFF|CLIENT TRACKING ON BCAST"),
    (0, "SET any 1"),
];

fn heard(server: &mut impl Server) -> Vec<Vec<(String, Value)>> {
    let steps = STEPS.iter().enumerate();
    let run = steps.map(|(number, (who, requests))| {
        let requests: Vec<String> = requests.split('|').map(str::to_owned).collect();
        let mut heard = server.step(number, *who, &requests);
        // Who the server is differs.
        heard.retain(|(_, value)| !matches!(value, Value::Map(_)));
        heard
    });
    run.collect()
}

#[test]
fn the_simulator_tells_of_changes_as_a_node_does() {
    let node = Standalone::start_9_1();
    let real = heard(&mut Real(NAMES.map(|_| node.node().client()).into()));
    let simulated = heard(&mut simulated(1));
    for ((step, real), simulated) in STEPS.iter().zip(real).zip(simulated) {
        assert_eq!(simulated, real, "after {step:?}");
    }
}

#[test]
fn a_key_that_leaves_with_its_slot_is_told_of() {
    let tell = ["HELLO 3", "CLIENT TRACKING ON", "GET k"].map(str::to_owned);
    let slot = slot_of("k");
    let pushed = |heard: Vec<(String, Value)>| -> Vec<(String, Value)> {
        let pushes = heard.into_iter();
        pushes
            .filter(|(_, value)| matches!(value, Value::Push(_)))
            .collect()
    };
    for at_once in [true, false] {
        let cluster = RealCluster::start(Version::V9_1, 2, 0);
        let (from, to) = (cluster.owner(slot), 1 - cluster.owner(slot));
        let mut real = Real(NAMES.map(|_| cluster.client(from)).into());
        let mut sim = simulated(2);
        let source = sim.0.owner(Slot::of_key(b"k")).expect("an owner");
        sim.1 = NAMES
            .iter()
            .flat_map(|_| sim.0.connect(source, "", Duration::ZERO))
            .collect();
        for server in [&mut real as &mut dyn Server, &mut sim] {
            server.say(0, &["SET k 1".to_owned()]);
            server.say(1, &tell);
        }
        if at_once {
            cluster.migrate_slots_atomically(slot, slot, from, to);
            sim.0.migrate_atomically(Slot::new(slot), 1 - source);
        } else {
            cluster.migrate_slot(slot, from, to, || {});
            let slot = Slot::of_key(b"k");
            sim.0.begin_migration(slot, 1 - source);
            sim.0.finish_migration(slot);
        }
        let real = pushed(real.step(0, 0, &[]));
        assert_eq!(real.len(), 1, "{real:?}");
        assert_eq!(pushed(sim.step(0, 0, &[])), real);
    }
}
