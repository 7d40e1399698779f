//! What the proxy's discovery does: it asks one node at a time what the cluster looks like, and
//! believes it or not. Some nodes tell what was true long ago.

use std::{sync::Arc, time::Duration};

use dataplane::{Fitness, View};
use resp::{Value, write};
use topology::{Candidate, NodeAddr, Slot, Topology};

use crate::{agenda::Event, history::Violation, identities::DATABASES, pure::Pure, world::World};

/// Between two looks, however many are asked for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Between two looks that nobody asked for.
const REGULAR: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Discovery {
    topology: Option<Arc<Topology>>,
    looks: u64,
    looked_at: Option<Duration>,
    /// One is on the agenda before the regular one.
    due: bool,
    pub(crate) moved: Vec<(Slot, NodeAddr)>,
    /// What the cluster looked like once: the view of a node that was cut off since.
    old: Option<Candidate>,
    /// What the last look read, when the cluster had changed so often.
    seen: Option<String>,
}

impl World<Pure> {
    pub(crate) fn look_soon(&mut self) {
        if !self.proxy.discovery.due {
            self.proxy.discovery.due = true;
            let jitter = self.rng.ms(0, 50);
            let earliest = self
                .proxy
                .discovery
                .looked_at
                .map_or(self.now, |at| at + INTERVAL_MIN);
            self.at(earliest.max(self.now) + jitter, Event::Look);
        }
    }

    pub(crate) fn look(&mut self) -> Result<(), Violation> {
        self.proxy.discovery.due = false;
        self.proxy.discovery.looked_at = Some(self.now);
        for (slot, to) in std::mem::take(&mut self.proxy.discovery.moved) {
            let next = self.proxy.discovery.topology.as_ref();
            if let Some(next) = next.and_then(|known| known.with_slot_moved(slot, &to)) {
                self.proxy.discovery.topology = Some(Arc::new(next));
                self.proxy.discovery.seen = None;
            }
        }
        let living: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.cluster.is_alive(*node))
            .filter(|node| {
                let state = &self.nodes[*node];
                !state.frozen && !state.silent && !state.alone
            })
            .collect();
        let Some(node) = self.rng.pick(&living).copied() else {
            self.proxy.discovery.due = true;
            self.after(Duration::from_secs(1), Event::Look);
            return Ok(());
        };
        if self.weather.old_views && self.rng.chance(30) && self.proxy.discovery.old.is_some() {
            self.hear_old_view()?;
        } else {
            self.read_view(node)?;
        }
        self.proxy.discovery.looks += 1;
        let nodes = self.proxy.discovery.topology.iter();
        let nodes = nodes.flat_map(|topology| topology.nodes());
        let fitness = Fitness {
            zone: None,
            fit: true,
        };
        let readers = nodes.map(|node| (node.id, fitness.clone())).collect();
        let mut unknown = View::unknown(true);
        if self.weather.users {
            Arc::make_mut(&mut unknown.facts).databases = DATABASES;
        }
        let view = View {
            topology: self.proxy.discovery.topology.clone(),
            readers: Arc::new(readers),
            looks: self.proxy.discovery.looks,
            ..unknown
        };
        self.note(&[], format_args!("look {} by node {node}", view.looks));
        let now = self.instant();
        self.proxy.plane.set_view(view, now);
        self.after(REGULAR, Event::Look);
        self.obey()
    }

    /// A node that was cut off tells what it knew. Nobody may believe it.
    fn hear_old_view(&mut self) -> Result<(), Violation> {
        let (old, known) = (
            self.proxy.discovery.old.clone(),
            self.proxy.discovery.topology.clone(),
        );
        let (Some(old), Some(known)) = (old, known) else {
            return Ok(());
        };
        match topology::accept(Some(&known), old) {
            Ok(Some(next)) => Err(format!("a view of epoch {:?} was believed", next.epoch())),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Asks a node, as discovery does, if the cluster has changed since.
    fn read_view(&mut self, node: usize) -> Result<(), Violation> {
        let info = self.ask(node, &["CLUSTER", "INFO"])?;
        let epoch = info.as_str().and_then(|info| {
            let line = info
                .lines()
                .find(|l| l.starts_with("cluster_current_epoch:"))?;
            line.split(':').nth(1)?.parse().ok()
        });
        let epoch: u64 = epoch.ok_or("CLUSTER INFO has no epoch")?;
        let alive: String = (0..self.nodes.len())
            .map(|node| {
                if self.cluster.is_alive(node) {
                    '1'
                } else {
                    '0'
                }
            })
            .collect();
        let seen = Some(format!("{epoch} {alive}"));
        if seen == self.proxy.discovery.seen {
            return Ok(()); // reading it again takes most of a run's time
        }
        let shards = self.ask(node, &["CLUSTER", "SHARDS"])?;
        let addr = &self.addresses[node];
        let candidate = topology::parse_shards(&shards, addr, false);
        let candidate = candidate.map_err(|error| format!("CLUSTER SHARDS: {error}"))?;
        let candidate = candidate.with_epoch(epoch);
        let current = self.proxy.discovery.topology.as_deref();
        match topology::accept(current, candidate.clone()) {
            Ok(Some(next)) => self.proxy.discovery.topology = Some(Arc::new(next)),
            Ok(None) => {}
            Err(refusal) => return Err(format!("a true view was refused: {refusal}")),
        }
        self.proxy.discovery.seen = seen;
        if self.proxy.discovery.old.is_none() || self.rng.chance(20) {
            self.proxy.discovery.old = Some(candidate.with_epoch(epoch.saturating_sub(1)));
        }
        Ok(())
    }

    fn ask(&mut self, node: usize, args: &[&str]) -> Result<Value, Violation> {
        let connection = self.cluster.connect(node, "", self.now);
        let connection = connection.ok_or("a living node refuses a connection")?;
        let mut request = Vec::new();
        write::request(&mut request, args);
        self.cluster.received(connection, &request, self.now);
        let reply = self.cluster.output(connection, self.now);
        self.cluster.disconnect(connection);
        let (value, _) = Value::parse(&reply).map_err(|error| format!("{args:?}: {error}"))?;
        Ok(value)
    }
}
