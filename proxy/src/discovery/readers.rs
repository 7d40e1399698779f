//! Watching over the nodes that clients read from, while they do.
//!
//! Every node is asked for its `INFO` each second, on a connection that stays: a replica whose link
//! to its primary is down, that is loading, or that is behind by more than the bound is not read
//! from until it has recovered. The same answer tells its zone where the topology does not (before
//! 9.1). Without a read port, nothing is asked while nobody reads.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{Fitness, Readers};
use resp::Value;
use tokio::time::{sleep_until, timeout};
use topology::{NodeAddr, NodeId, Offsets, Role};

use super::node::{LookError, Node};
use crate::{clock, config::ZoneOf, contract::DiscoveryContext, worker::Shared};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// One node's time to answer. One that takes longer is no node to read from.
const PATIENCE: Duration = Duration::from_millis(800);
/// Rounds go on for so long after somebody was last said to read.
const INTEREST: Duration = Duration::from_secs(60);
/// Nodes asked at a time.
const AT_ONCE: usize = 64;

/// What a node says of itself.
#[derive(Debug, Default)]
struct State {
    zone: Option<Arc<str>>,
    /// A replica's link is up, and it has all data.
    sound: bool,
    offset: Option<u64>,
}

/// Asks until the end.
pub(super) async fn watch(context: DiscoveryContext, shared: Arc<Shared>) {
    let mut watcher = Watcher {
        context,
        shared,
        connections: BTreeMap::new(),
        offsets: HashMap::new(),
    };
    // Who gave reads a port of their own wants replicas to be known before the first read.
    let always = watcher.context.config.get().reads.address.is_some();
    let mut interest = Interest {
        always,
        until: None,
    };
    if always {
        watcher.topology_known().await;
    }
    loop {
        if !interest.lasts(clock::now()) {
            watcher.rest();
            watcher.shared.readers_wanted().await;
            interest.note(clock::now());
        }
        let began = tokio::time::Instant::now();
        watcher.round().await;
        let next = sleep_until(began + EVERY);
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                () = &mut next => break,
                () = watcher.shared.readers_wanted() => interest.note(clock::now()),
            }
        }
    }
}

/// Whether rounds are to go on.
struct Interest {
    always: bool,
    until: Option<Instant>,
}

impl Interest {
    /// Somebody reads.
    fn note(&mut self, now: Instant) {
        self.until = Some(now + INTEREST);
    }

    fn lasts(&self, now: Instant) -> bool {
        self.always || self.until.is_some_and(|until| until > now)
    }
}

struct Watcher {
    context: DiscoveryContext,
    shared: Arc<Shared>,
    connections: BTreeMap<NodeAddr, Node>,
    /// By primary.
    offsets: HashMap<NodeId, Offsets>,
}

impl Watcher {
    async fn topology_known(&self) {
        let mut changes = self.shared.changes();
        while self.shared.view().topology.is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Nobody reads any more: what is known grows old, so it is not believed.
    fn rest(&mut self) {
        self.connections.clear();
        self.offsets.clear();
        self.shared.set_lags(HashMap::new());
        self.shared.publish_readers(Readers::new());
    }

    async fn round(&mut self) {
        let Some(topology) = self.shared.view().topology.clone() else {
            return;
        };
        let nodes: Vec<_> = topology.nodes().map(|node| node.addr.clone()).collect();
        let states = self.ask_all(&nodes).await;
        let now = clock::now();
        let mut readers = Readers::new();
        let mut lags = HashMap::new();
        let config = self.context.config.get();
        let zones = &config.reads.zones;
        for shard in topology.shards() {
            let offsets = self.offsets.entry(shard.primary.id).or_default();
            let state = states.get(&shard.primary.addr);
            if let Some(offset) = state.and_then(|state| state.offset) {
                offsets.note(now, offset);
            }
            for node in shard.nodes() {
                let state = states.get(&node.addr);
                let caught_up = |offset| offsets.behind(now, offset) <= config.reads.max_lag;
                let fit = node.role == Role::Primary
                    || state
                        .is_some_and(|state| state.sound && state.offset.is_some_and(caught_up));
                let offset = state.and_then(|state| state.offset);
                if let Some(offset) = offset.filter(|_| node.role == Role::Replica) {
                    lags.insert(node.id, offsets.behind(now, offset));
                }
                let told = state.and_then(|state| state.zone.clone());
                let known = zone_by_address(zones, &node.addr);
                let zone = known.or_else(|| node.zone.clone()).or(told);
                readers.insert(node.id, Fitness { zone, fit });
            }
        }
        let primaries: Vec<NodeId> = topology.primaries().map(|node| node.id).collect();
        self.offsets.retain(|id, _| primaries.contains(id));
        self.connections.retain(|addr, _| nodes.contains(addr));
        self.shared.set_lags(lags);
        self.shared.publish_readers(readers);
    }

    /// Who does not answer is not in the result, and is connected to anew the next time.
    async fn ask_all(&mut self, nodes: &[NodeAddr]) -> HashMap<NodeAddr, State> {
        let mut states = HashMap::new();
        for some in nodes.chunks(AT_ONCE) {
            let mut tasks = tokio::task::JoinSet::new();
            for addr in some {
                let (context, addr) = (self.context.clone(), addr.clone());
                let open = self.connections.remove(&addr);
                tasks.spawn(async move {
                    let asked = timeout(PATIENCE, ask(&context, &addr, open)).await;
                    (addr, asked)
                });
            }
            while let Some(done) = tasks.join_next().await {
                if let Ok((addr, Ok(Ok((node, state))))) = done {
                    self.connections.insert(addr.clone(), node);
                    states.insert(addr, state);
                }
            }
        }
        states
    }
}

async fn ask(
    context: &DiscoveryContext,
    addr: &NodeAddr,
    open: Option<Node>,
) -> Result<(Node, State), LookError> {
    let mut node = match open {
        Some(node) => node,
        None => Node::connect(context, addr).await?,
    };
    let info = node
        .call(&[b"INFO", b"server", b"replication", b"persistence"])
        .await?;
    let state = state_in(&info);
    Ok((node, state))
}

fn state_in(info: &Value) -> State {
    let text = String::from_utf8_lossy(info.as_bytes().unwrap_or_default());
    let fields: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    let get = |name: &str| fields.get(name).map(|value| value.trim());
    let replica = get("role") == Some("slave");
    let offset = if replica {
        "slave_repl_offset"
    } else {
        "master_repl_offset"
    };
    State {
        zone: get("availability_zone")
            .filter(|zone| !zone.is_empty())
            .map(Into::into),
        sound: replica
            && get("master_link_status") == Some("up")
            && get("master_sync_in_progress") != Some("1")
            && get("loading") != Some("1"),
        offset: get(offset).and_then(|offset| offset.parse().ok()),
    }
}

/// The zone of the smallest network that a node's address is in; the networks are sorted.
fn zone_by_address(zones: &[ZoneOf], addr: &NodeAddr) -> Option<Arc<str>> {
    let address: IpAddr = addr.host.parse().ok()?;
    let zone = zones.iter().find(|zone| zone.contains(address))?;
    Some(Arc::from(&*zone.zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_when_nobody_has_read_for_a_while() {
        let now = clock::now();
        let mut interest = Interest {
            always: false,
            until: None,
        };
        assert!(!interest.lasts(now));
        interest.note(now);
        assert!(interest.lasts(now + INTEREST - Duration::from_millis(1)));
        assert!(!interest.lasts(now + INTEREST));
        interest.always = true;
        assert!(interest.lasts(now + INTEREST));
    }

    #[test]
    fn a_replica_is_sound_when_its_link_is_up_and_it_has_loaded() {
        let state = |replication: &str| {
            let text = format!(
                "# Server\r\navailability_zone:eu-1a\r\n# Persistence\r\nloading:0\r\n\
                 # Replication\r\n{replication}\r\n"
            );
            state_in(&Value::Bulk(text.into()))
        };
        let up = "role:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0\r\n\
                  slave_repl_offset:77\r\nmaster_repl_offset:77";
        let well = state(up);
        assert!(well.sound);
        assert_eq!(well.offset, Some(77));
        assert_eq!(well.zone.as_deref(), Some("eu-1a"));
        assert!(!state(&up.replace("status:up", "status:down")).sound);
        assert!(!state(&up.replace("progress:0", "progress:1")).sound);
        let primary = state("role:master\r\nmaster_repl_offset:99");
        assert!(!primary.sound);
        assert_eq!(primary.offset, Some(99));
    }

    #[test]
    fn the_smallest_network_decides() {
        let zone = |address: &str, bits, zone: &str| ZoneOf {
            address: address.parse().unwrap(),
            bits,
            zone: zone.into(),
        };
        let zones = [
            zone("10.0.1.0", 24, "b"),
            zone("10.0.0.0", 16, "a"),
            zone("fd00::", 8, "c"),
        ];
        let found = |host: &str| zone_by_address(&zones, &NodeAddr::new(host, 1).unwrap());
        assert_eq!(found("10.0.1.7").as_deref(), Some("b"));
        assert_eq!(found("10.0.2.7").as_deref(), Some("a"));
        assert_eq!(found("fd12::1").as_deref(), Some("c"));
        assert_eq!(found("10.1.0.1"), None);
        assert_eq!(found("node.example"), None);
    }
}
