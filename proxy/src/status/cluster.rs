//! The cluster and Keyway's connections to it, as the reports show them.

use std::{collections::HashMap, time::Duration};

use dataplane::{Readers, Times};
use topology::{Health, NodeId, Role, Topology};

use crate::{
    report::{self, Live},
    worker::{Observer, Worked},
};

/// What the connections of all workers to one node show.
#[derive(Debug, Default)]
pub(super) struct Trips {
    pub(super) live: Live,
    pub(super) times: Times,
}

/// The same of every node that there are connections to.
pub(super) fn trips(observer: &Observer) -> HashMap<String, Trips> {
    let mut nodes: HashMap<String, Trips> = HashMap::new();
    for worker in observer.figures() {
        for figures in worker.iter() {
            let Trips { live, times } = nodes.entry(figures.addr.to_string()).or_default();
            live.in_flight += figures.in_flight;
            live.queued_bytes += figures.queued_bytes;
            times.merge(&figures.trips);
            if figures.ready {
                live.connections += 1;
            } else {
                live.connecting += 1;
                if figures.failures > 0 && !figures.trouble.is_empty() {
                    live.trouble = Some(figures.trouble.clone());
                }
            }
        }
    }
    for node in nodes.values_mut().filter(|node| node.live.connections > 0) {
        node.live.trouble = None; // another worker is through
    }
    nodes
}

/// The mean of what commands took a node. `None`: it ran none.
#[expect(clippy::cast_precision_loss, reason = "a time to look at")]
pub(super) fn mean_us(worked: Worked) -> Option<f64> {
    (worked.calls > 0).then(|| super::tenth(worked.micros as f64 / worked.calls as f64))
}

/// Attempts to connect that fail in a row before a node counts as out of reach: one that restarts its
/// connections is not.
const ATTEMPTS: u32 = 2;

/// Slots whose owner is well and can be reached. `lost`: no node tells of the cluster, so that only a
/// connection says that its node is there.
pub(super) fn slots_served(observer: &Observer, lost: bool) -> usize {
    let view = observer.view();
    let Some(topology) = view.topology.as_deref() else {
        return 0;
    };
    let all = observer.figures();
    let figures = || all.iter().flat_map(|worker| worker.iter());
    let serves = |node: &topology::Node| {
        let its = || figures().filter(|figures| figures.addr == node.addr);
        let failing = its().any(|figures| figures.failures >= ATTEMPTS);
        let connected = its().any(|figures| figures.ready);
        node.health == Health::Online && (connected || !(lost || failing))
    };
    let serving: Vec<bool> = topology.primaries().map(serves).collect();
    let served = topology
        .ranges()
        .into_iter()
        .filter(|(_, owner)| serving.get(owner.get()) == Some(&true));
    served
        .map(|(range, _)| usize::from(range.last().get() - range.first().get()) + 1)
        .sum()
}

/// The topology in force, without what the configuration and the events add.
pub(super) fn topology(observer: &Observer, live: &HashMap<String, Live>) -> report::Topology {
    let view = observer.view();
    match view.topology.as_deref() {
        Some(topology) => report_of(topology, &view.readers, &observer.lags(), live),
        None => report::Topology::default(),
    }
}

/// A topology and what else is known of its nodes.
pub(super) fn report_of(
    topology: &Topology,
    readers: &Readers,
    lags: &HashMap<NodeId, Duration>,
    live: &HashMap<String, Live>,
) -> report::Topology {
    let mut shards: Vec<report::Shard> = Vec::with_capacity(topology.shards().len());
    for (index, shard) in topology.shards().iter().enumerate() {
        let nodes = shard.nodes().map(|node| {
            let known = readers.get(&node.id);
            let zone = known.and_then(|known| known.zone.as_deref());
            let address = node.addr.to_string();
            let fit = node.role == Role::Primary || known.is_some_and(|known| known.fit);
            report::Node {
                id: node.id.to_string(),
                shard: index,
                role: role(node.role).to_owned(),
                zone: zone.or(node.zone.as_deref()).map(str::to_owned),
                health: health(node.health).to_owned(),
                readable: fit && node.health == Health::Online,
                lag_ms: lags
                    .get(&node.id)
                    .and_then(|lag| u64::try_from(lag.as_millis()).ok()),
                live: live.get(&address).cloned().unwrap_or_default(),
                address,
            }
        });
        shards.push(report::Shard {
            index,
            slots: 0,
            ranges: Vec::new(),
            nodes: nodes.collect(),
        });
    }
    for (range, owner) in topology.ranges() {
        if let Some(shard) = shards.get_mut(owner.get()) {
            let (first, last) = (range.first().get(), range.last().get());
            shard.slots += usize::from(last - first) + 1;
            shard.ranges.push((first, last));
        }
    }
    report::Topology {
        revision: topology.revision().get(),
        epoch: topology.epoch(),
        slots_covered: shards.iter().map(|shard| shard.slots).sum(),
        shards,
        ..report::Topology::default()
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Online => "online",
        Health::Loading => "loading",
        Health::Failed => "failed",
    }
}
