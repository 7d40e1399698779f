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
use crate::{
    clock,
    config::ZoneOf,
    contract::DiscoveryContext,
    metrics::NodeWork,
    worker::{Shared, Worked},
};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// One node's time to answer. One that takes longer is no node to read from.
const PATIENCE: Duration = Duration::from_millis(800);
/// Rounds go on for so long after somebody was last said to read.
const INTEREST: Duration = Duration::from_secs(60);
/// After so many rounds nodes are asked what they have done.
const WORK_EVERY: u32 = 5;
/// Commands that are not counted as such.
const OWN_AFFAIRS: [&str; 10] = [
    "asking", "auth", "client", "cluster", "command", "config", "hello", "info", "psync",
    "replconf",
];
/// Nodes asked at a time.
const AT_ONCE: usize = 64;

/// What a node says of itself.
#[derive(Debug, Default)]
struct State {
    zone: Option<Arc<str>>,
    /// A replica's link is up, and it has all data.
    sound: bool,
    offset: Option<u64>,
    /// What it has done since it was started, if that was asked.
    worked: Option<Worked>,
}

/// Asks until the end.
pub(super) async fn watch(context: DiscoveryContext, shared: Arc<Shared>) {
    let mut watcher = Watcher {
        context,
        shared,
        connections: BTreeMap::new(),
        offsets: HashMap::new(),
        rounds: 0,
        worked: HashMap::new(),
        told: BTreeMap::new(),
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
    rounds: u32,
    /// What each node had done when it was asked before.
    worked: HashMap<NodeAddr, Worked>,
    /// The same of those that have not answered since, too.
    told: BTreeMap<NodeAddr, Worked>,
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
        self.worked.clear();
        self.told.clear();
        self.show_told();
        self.rounds = 0;
        self.shared.set_worked(HashMap::new());
        self.shared.set_lags(HashMap::new());
        self.shared.publish_readers(Readers::new());
    }

    async fn round(&mut self) {
        let Some(topology) = self.shared.view().topology.clone() else {
            return;
        };
        let nodes: Vec<_> = topology.nodes().map(|node| node.addr.clone()).collect();
        let asks_work = self.rounds.is_multiple_of(WORK_EVERY);
        self.rounds = self.rounds.wrapping_add(1);
        let states = self.ask_all(&nodes, asks_work).await;
        if asks_work {
            self.note_work(&states);
            self.told.retain(|addr, _| nodes.contains(addr));
            self.show_told();
        }
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

    /// What nodes have done since the last time that they were asked.
    fn note_work(&mut self, states: &HashMap<NodeAddr, State>) {
        let now: HashMap<NodeAddr, Worked> = states
            .iter()
            .filter_map(|(addr, state)| Some((addr.clone(), state.worked?)))
            .collect();
        let news = now.iter().filter_map(|(addr, now)| {
            let before = self.worked.get(addr)?;
            let calls = now.calls.checked_sub(before.calls)?; // or it was started anew
            let micros = now.micros.checked_sub(before.micros)?;
            Some((addr.clone(), Worked { calls, micros }))
        });
        self.shared.set_worked(news.collect());
        self.told
            .extend(now.iter().map(|(addr, worked)| (addr.clone(), *worked)));
        self.worked = now;
    }

    /// Counters do not go away while a node is silent.
    fn show_told(&self) {
        let told = self.told.iter().map(|(addr, worked)| NodeWork {
            node: addr.to_string(),
            commands: worked.calls,
            micros: worked.micros,
        });
        self.context.metrics.nodes_worked(told.collect());
    }

    /// Who does not answer is not in the result, and is connected to anew the next time.
    async fn ask_all(&mut self, nodes: &[NodeAddr], work: bool) -> HashMap<NodeAddr, State> {
        let mut states = HashMap::new();
        for some in nodes.chunks(AT_ONCE) {
            let mut tasks = tokio::task::JoinSet::new();
            for addr in some {
                let (context, addr) = (self.context.clone(), addr.clone());
                let open = self.connections.remove(&addr);
                tasks.spawn(async move {
                    let asked = timeout(PATIENCE, ask(&context, &addr, open, work)).await;
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
    work: bool,
) -> Result<(Node, State), LookError> {
    let mut node = match open {
        Some(node) => node,
        None => Node::connect(context, addr).await?,
    };
    let mut sections: Vec<&[u8]> = vec![b"INFO", b"server", b"replication", b"persistence"];
    if work {
        sections.push(b"commandstats");
    }
    let info = node.call(&sections).await?;
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
        worked: worked_in(&text),
    }
}

/// What a node has done for clients: its own affairs, and what Keyway asks for itself, are no such.
fn worked_in(info: &str) -> Option<Worked> {
    let mut worked = Worked::default();
    let lines = info
        .lines()
        .filter_map(|line| line.trim().strip_prefix("cmdstat_"));
    let mut known = info.contains("# Commandstats");
    for (name, figures) in lines.filter_map(|line| line.split_once(':')) {
        known = true;
        let family = name.split('|').next().unwrap_or(name);
        if OWN_AFFAIRS.contains(&family) {
            continue;
        }
        let figure = |name: &str| -> u64 {
            let mut figures = figures.split(',').filter_map(|one| one.split_once('='));
            let found = figures.find(|(known, _)| *known == name);
            found
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or_default()
        };
        worked.calls += figure("calls");
        worked.micros += figure("usec");
    }
    known.then_some(worked)
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
    fn a_node_tells_what_clients_commands_took_it() {
        let info = "# Commandstats\r\ncmdstat_get:calls=10,usec=25,usec_per_call=2.50\r\n\
                    cmdstat_info:calls=9,usec=900,usec_per_call=100.00\r\n\
                    cmdstat_cluster|slots:calls=9,usec=900\r\n\
                    cmdstat_config|get:calls=1,usec=7\r\ncmdstat_set:calls=2,usec=5\r\n";
        let worked = Worked {
            calls: 12,
            micros: 30,
        };
        assert_eq!(worked_in(info), Some(worked));
        assert_eq!(worked_in("# Server\r\nrole:master\r\n"), None);
        assert_eq!(worked_in("# Commandstats\r\n"), Some(Worked::default()));
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
