//! Reads in the own zone: how many, and what they cost beside a direct read.

use std::time::{Duration, Instant};

use super::row::{Allowed, Row};
use crate::client::{Client, text};
use crate::cluster::{ClusterOptions, RealCluster, slot_of};
use crate::keyway::{Keyway, Settings};
use crate::load::Report;
use crate::node::{Node, Version};
use crate::wait::wait_until;

/// Where Keyway is.
const OWN: &str = "az-b";
/// Every byte's way to a node in the same zone, and back: 0.3 ms for a round trip.
const WITHIN: Duration = Duration::from_micros(150);
/// The same to another zone: a millisecond more for a round trip.
const BETWEEN: Duration = Duration::from_micros(650);
/// What a read through Keyway may cost, as a multiple of a direct one.
const RATIO_MAX: f64 = 1.5;

/// A key, its value, the node of its shard in the own zone.
struct Known {
    key: String,
    value: String,
    near: usize,
}

/// Three shards with a node in each of three zones; a read-only connection reads `rounds` times each
/// of 60 keys, and so does a client of the near node itself.
///
/// # Panics
/// The cluster does not come up, or a value is not what was written.
#[must_use]
pub fn zones(version: Version, rounds: usize) -> Row {
    let cluster = RealCluster::with(ClusterOptions {
        relayed: true,
        ..ClusterOptions::new(version, 3, 2)
    });
    for index in 0..cluster.nodes().len() {
        let latency = if cluster.zone(index) == OWN {
            WITHIN
        } else {
            BETWEEN
        };
        cluster.relay(index).set_latency(latency);
    }
    let settings = Settings {
        sections: format!("[reads]\nzone = '{OWN}'\n"),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    let known = fill(&cluster, &mut client);
    assert_eq!(text(&client.cmd(&["READONLY"])), "OK");
    let reads = |zone: &str| keyway.metric("keyway_reads_total", &[&format!("zone=\"{zone}\"")]);
    let elsewhere = || reads("other") + reads("unknown");
    wait_until("reads in the own zone", 20, || {
        let before = elsewhere();
        known.iter().for_each(|known| read(&mut client, known));
        elsewhere() - before < 0.5
    });
    let mut direct = direct_clients(&cluster);
    let (own, others) = (reads("own"), elsewhere());
    let (mut through, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for known in &known {
            beside.push(timed(|| read(&mut direct[known.near], known)));
            through.push(timed(|| read(&mut client, known)));
        }
    }
    let ([through, beside], own, others) = (
        [through, beside].map(median),
        reads("own") - own,
        elsewhere() - others,
    );
    row((own, others), (through, beside), rounds * known.len())
}

fn row((own, others): (f64, f64), (through, beside): (Duration, Duration), reads: usize) -> Row {
    let ratio = through.as_secs_f64() / beside.as_secs_f64();
    let mut short = Vec::new();
    if others > 0.5 {
        short.push(format!("{others} reads left the zone"));
    }
    if ratio >= RATIO_MAX {
        short.push(format!(
            "a read takes {ratio:.2} times as long as a direct one"
        ));
    }
    Row {
        case: "reads with 1 ms between zones".to_owned(),
        done: format!(
            "{:.0} % in the own zone, p50 {} us, direct {} us ({ratio:.2}x)",
            100.0 * own / (own + others).max(1.0),
            through.as_micros(),
            beside.as_micros()
        ),
        allowed: Allowed::Nothing,
        report: Report {
            verified: reads as u64,
            ..Report::default()
        },
        outages: Vec::new(),
        short,
    }
}

/// A client of each node, by the way that Keyway has to it.
fn direct_clients(cluster: &RealCluster) -> Vec<Client> {
    let nodes = cluster.nodes().iter().enumerate();
    let client = |(index, node): (usize, &Node)| {
        let addr = cluster.relay(index).addr();
        let mut client = match node.ca() {
            Some(ca) => Client::connect(&addr, ca),
            None => Client::try_plain(&addr).expect("a node"),
        };
        assert_eq!(text(&client.cmd(&["READONLY"])), "OK");
        client
    };
    nodes.map(client).collect()
}

/// Writes keys of every shard, and waits until all replicas have them.
fn fill(cluster: &RealCluster, client: &mut Client) -> Vec<Known> {
    let known: Vec<Known> = (0..60)
        .map(|number| {
            let key = format!("zones:{number}");
            let slot = slot_of(&key);
            let shard = (0..3).find(|shard| {
                let (first, last) = cluster.slots_of(*shard);
                (first..=last).contains(&slot)
            });
            let shard = shard.expect("a shard");
            let replicas = 3 + 2 * shard..5 + 2 * shard;
            let mut members = std::iter::once(shard).chain(replicas);
            let near = members.find(|index| cluster.zone(*index) == OWN);
            Known {
                value: format!("{key}-{slot}"),
                near: near.expect("a node in the zone"),
                key,
            }
        })
        .collect();
    for known in &known {
        assert_eq!(text(&client.cmd(&["SET", &known.key, &known.value])), "OK");
    }
    assert_eq!(text(&client.cmd(&["WAIT", "2", "10000"])), "2");
    known
}

fn read(client: &mut Client, known: &Known) {
    assert_eq!(text(&client.cmd(&["GET", &known.key])), known.value);
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
