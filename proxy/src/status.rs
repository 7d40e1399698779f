//! What happens now: once a second, everything that workers have counted is added up, and kept for
//! whoever asks. However many ask, the work is the same.
//!
//! Owns the windows and the history. Never here: HTTP, and anything that a worker would wait for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dataplane::Times;
use tokio::time::{Instant, MissedTickBehavior, interval};
use topology::Topology;

use crate::{
    clock,
    config::{self, Config, CrossSlot},
    contract::{Readiness, Shutdown},
    events::unix_ms,
    expiry, heat,
    metrics::{Metrics, PhaseTotals, Totals},
    report::{self, Latency, Live, Second},
    slow::Slow,
    worker::{Observer, Worked},
};

mod cluster;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);
/// Times are of this many samples at least, and of twice as many at most.
const WINDOW: u32 = 10;
/// Seconds that are remembered.
const HISTORY_MAX: usize = 120;
/// When so many looks in a row found nothing, the cluster may be gone.
const LOOKS_LOST: u64 = 2;
/// Certificates are read again after so many samples.
const CERTIFICATES_EVERY: u32 = 60;

/// The last sample, and what pages are made of it.
#[derive(Clone, Debug)]
pub struct Board {
    observer: Observer,
    config: config::Live,
    /// The process's.
    process: config::Live,
    readiness: Readiness,
    last: Arc<Mutex<Arc<report::Status>>>,
}

impl Board {
    /// Nothing is sampled yet.
    #[must_use]
    pub fn new(
        config: &config::Live,
        process: &config::Live,
        observer: Observer,
        readiness: Readiness,
    ) -> Self {
        Self {
            process: process.clone(),
            observer,
            config: config.clone(),
            readiness,
            last: Arc::default(),
        }
    }

    /// `/status`
    #[must_use]
    pub fn status(&self) -> report::Status {
        self.observer.look();
        let reason = self.readiness.reason();
        report::Status {
            ready: reason.is_none(),
            not_ready_because: reason,
            ..(*self.last()).clone()
        }
    }

    /// The names of all clusters, if there are several.
    fn names(&self) -> Vec<String> {
        let process = self.process.get();
        let tenants = process
            .clusters
            .iter()
            .filter_map(|own| own.tenant.as_ref());
        tenants.map(|tenant| tenant.name.to_string()).collect()
    }

    fn last(&self) -> Arc<report::Status> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `/slowlog`
    #[must_use]
    pub fn slow(&self) -> Vec<Slow> {
        self.observer.slow()
    }

    /// `/heat`, with so many slots.
    #[must_use]
    pub fn heat(&self, slots: usize) -> heat::report::Report {
        let view = self.observer.view();
        let show_keys = self.config.get().admin.show_keys;
        let nodes = self.observer.heat().node_counts();
        let sum = self.observer.heat().sum();
        let topology = view.topology.as_deref();
        heat::report::Report::of(&sum, topology, &nodes, (slots, show_keys))
    }

    /// `/topology`
    #[must_use]
    pub fn topology(&self) -> report::Topology {
        self.observer.look();
        let status = self.last();
        let live = status.nodes.iter();
        let live = live
            .map(|node| (node.address.clone(), node.live.clone()))
            .collect();
        let events = self.observer.events().all();
        let changed = events.last();
        let mut topology = cluster::topology(&self.observer, &live);
        topology.changed_at_ms = changed.map(|event| event.until_ms);
        topology.changed = changed.map(|event| format!("{}: {}", event.what, event.why));
        topology.events = events;
        configured(&mut topology, &self.config.get());
        topology
    }

    /// Samples until the end.
    pub async fn run(self, metrics: Metrics, shutdown: Shutdown) {
        let mut sampler = Sampler::new(self, metrics);
        let mut turns = interval(EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = shutdown.requested() => return,
            }
            if sampler.turn.is_multiple_of(CERTIFICATES_EVERY) {
                let config = sampler.board.config.get();
                let read = tokio::task::spawn_blocking(move || expiry::of(&config, unix_ms()));
                sampler.certificates = read.await.unwrap_or_default();
            }
            sampler.sample();
        }
    }
}

/// What the configuration says about where commands go.
fn configured(topology: &mut report::Topology, config: &Config) {
    let reads = &config.reads;
    topology.reads = report::Reads {
        zone: reads.zone.as_deref().map(str::to_owned),
        port: reads.address.map(|address| address.port()),
        readonly_flag: reads.readonly_flag,
    };
    topology.cross_slot = match config.cluster.cross_slot {
        CrossSlot::Split => "split",
        CrossSlot::SplitTransactions => "split_transactions",
        CrossSlot::Refuse => "refuse",
    }
    .to_owned();
}

/// A topology that no Keyway serves yet.
pub(crate) fn bare_topology(topology: &Topology, config: &Config) -> report::Topology {
    let nothing = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut report = cluster::report_of(topology, &nothing.0, &nothing.1, &nothing.2);
    configured(&mut report, config);
    report
}

/// The times of a while: since a moment that lies one to two windows back.
#[derive(Debug, Default)]
struct Window {
    older: Times,
    newer: Times,
}

impl Window {
    fn of(&self, now: &Times) -> Latency {
        latency(&now.since(&self.older))
    }

    fn turn(&mut self, now: &Times) {
        self.older = std::mem::replace(&mut self.newer, now.clone());
    }
}

/// The same of a phase, with the mean.
#[derive(Debug, Default)]
struct PhaseWindow {
    times: Window,
    older_ns: u64,
    newer_ns: u64,
}

impl PhaseWindow {
    fn of(&self, now: &PhaseTotals) -> Latency {
        self.times.of(&now.times)
    }

    #[expect(clippy::cast_precision_loss, reason = "a time to look at")]
    fn mean_us(&self, now: &PhaseTotals) -> Option<f64> {
        let count = now.times.since(&self.times.older).count();
        let sum_us = now.sum_ns.saturating_sub(self.older_ns) as f64 / 1000.0;
        (count > 0).then(|| tenth(sum_us / count as f64))
    }

    fn turn(&mut self, now: &PhaseTotals) {
        self.times.turn(&now.times);
        self.older_ns = std::mem::replace(&mut self.newer_ns, now.sum_ns);
    }
}

/// To one digit.
fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn latency(times: &Times) -> Latency {
    let micros = |permille| {
        let quantile = times.quantile(permille)?;
        u64::try_from(quantile.as_micros()).ok()
    };
    Latency {
        samples: times.count(),
        p50_us: micros(500),
        p99_us: micros(990),
        p999_us: micros(999),
    }
}

struct Sampler {
    board: Board,
    metrics: Metrics,
    started: Instant,
    sampled_at: Instant,
    turn: u32,
    before: Totals,
    request: Window,
    server: Window,
    phases: [PhaseWindow; 3],
    nodes: HashMap<String, Window>,
    certificates: Vec<report::Certificate>,
    history: VecDeque<Second>,
}

impl Sampler {
    fn new(board: Board, metrics: Metrics) -> Self {
        Self {
            board,
            metrics,
            started: Instant::now(),
            sampled_at: Instant::now(),
            turn: 0,
            before: Totals::default(),
            request: Window::default(),
            server: Window::default(),
            phases: Default::default(),
            nodes: HashMap::new(),
            certificates: Vec::new(),
            history: VecDeque::new(),
        }
    }

    fn sample(&mut self) {
        self.add_up_heat();
        self.count_served();
        let now = self.metrics.totals();
        let at = Instant::now();
        let seconds = at.duration_since(self.sampled_at).as_secs_f64().max(0.001);
        self.sampled_at = at;
        let trips = cluster::trips(&self.board.observer);
        let live = self.live(&trips);
        let mut server = Times::default();
        trips.values().for_each(|node| server.merge(&node.times));
        self.remember(&now);
        let status = self.status(&now, seconds, &server, &live);
        if self.turn.is_multiple_of(WINDOW) {
            self.request.turn(&now.times);
            self.server.turn(&server);
            let phases = self.phases.iter_mut().zip(&now.phases);
            phases.for_each(|(window, now)| window.turn(now));
            self.nodes.retain(|addr, _| trips.contains_key(addr));
            for (addr, node) in &trips {
                self.nodes
                    .entry(addr.clone())
                    .or_default()
                    .turn(&node.times);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        self.before = now;
        let mut last = self
            .board
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Arc::new(status);
    }

    fn count_served(&self) {
        let shown = self.metrics.control();
        let lost = shown.failing_looks() >= LOOKS_LOST;
        shown.slots_served(cluster::slots_served(&self.board.observer, lost));
    }

    fn add_up_heat(&self) {
        let observer = &self.board.observer;
        observer.heat().add_up(clock::now());
        let view = observer.view();
        let figures = heat::report::figures_of(&observer.heat().sum(), view.topology.as_deref());
        self.metrics.heat().set(figures);
    }

    fn live(&self, trips: &HashMap<String, cluster::Trips>) -> HashMap<String, Live> {
        let worked = self.board.observer.worked();
        let worked: HashMap<String, Worked> = worked
            .iter()
            .map(|(addr, worked)| (addr.to_string(), *worked))
            .collect();
        let all = trips.iter().map(|(addr, node)| {
            let window = self.nodes.get(addr);
            let latency = window.map_or_else(|| latency(&node.times), |w| w.of(&node.times));
            let live = Live {
                latency,
                server_mean_us: worked
                    .get(addr.as_str())
                    .copied()
                    .and_then(cluster::mean_us),
                ..node.live.clone()
            };
            (addr.clone(), live)
        });
        all.collect()
    }

    fn remember(&mut self, now: &Totals) {
        if self.turn == 0 {
            return; // nothing to compare with
        }
        let news = latency(&now.times.since(&self.before.times));
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Second {
            at_ms: unix_ms(),
            requests: now.requests.saturating_sub(self.before.requests),
            errors: all(&now.errors).saturating_sub(all(&self.before.errors)),
            p50_us: news.p50_us,
            p99_us: news.p99_us,
            p999_us: news.p999_us,
        });
    }

    fn phases(&self, now: &Totals) -> report::Phases {
        let [client_tls, queue, node] = &self.phases;
        let [of_client_tls, of_queue, of_node] = &now.phases;
        let worked = self.board.observer.worked();
        let sum = worked.values().fold(Worked::default(), |sum, one| Worked {
            calls: sum.calls + one.calls,
            micros: sum.micros + one.micros,
        });
        let node_mean_us = node.mean_us(of_node);
        let server_mean_us = cluster::mean_us(sum);
        let wire = |(node, server): (f64, f64)| tenth((node - server).max(0.0));
        report::Phases {
            client_tls: client_tls.of(of_client_tls),
            queue: queue.of(of_queue),
            node: node.of(of_node),
            node_mean_us,
            server_mean_us,
            wire_mean_us: node_mean_us.zip(server_mean_us).map(wire),
        }
    }

    fn status(
        &self,
        now: &Totals,
        seconds: f64,
        server: &Times,
        live: &HashMap<String, Live>,
    ) -> report::Status {
        let config = &self.board.config.get();
        let rate = |now: u64, before: u64| {
            let news = if self.turn == 0 {
                0
            } else {
                now.saturating_sub(before)
            };
            per_second(news, seconds)
        };
        let bytes = |direction: &str| {
            let of = |totals: &Totals| {
                let mut all = totals.client_bytes.iter();
                all.find(|(name, _)| *name == direction)
                    .map_or(0, |(_, count)| *count)
            };
            rate(of(now), of(&self.before))
        };
        let topology = cluster::topology(&self.board.observer, live);
        let view = self.board.observer.view();
        report::Status {
            at_ms: unix_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            name: config.tenant.as_ref().map(|tenant| tenant.name.to_string()),
            names: self.board.names(),
            workers: config.listen.workers,
            zone: config.reads.zone.as_deref().map(str::to_owned),
            clients: report::Clients {
                now: now.clients,
                max: config.limits.clients_max,
                total: now.clients_ever,
            },
            requests: report::Requests {
                total: now.requests,
                per_second: rate(now.requests, self.before.requests),
                bytes_in_per_second: bytes("in"),
                bytes_out_per_second: bytes("out"),
            },
            latency: report::Latencies {
                request: self.request.of(&now.times),
                server: self.server.of(server),
                phases: self.phases(now),
            },
            in_flight: now.in_flight,
            errors: counts(&now.errors),
            handshakes: counts(&now.handshakes),
            redirects: counts(&now.redirects),
            cluster: report::Cluster {
                revision: topology.revision,
                epoch: topology.epoch,
                slots_covered: topology.slots_covered,
                shards: topology.shards.len(),
                version: view.facts.version.clone(),
            },
            nodes: topology
                .shards
                .into_iter()
                .flat_map(|shard| shard.nodes)
                .collect(),
            certificates: self.certificates.clone(),
            history: self.history.iter().copied().collect(),
            ..report::Status::default()
        }
    }
}

fn all(counts: &[(&str, u64)]) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

fn counts(counts: &[(&'static str, u64)]) -> Vec<report::Count> {
    let named = counts.iter().map(|(name, count)| report::Count {
        name: (*name).to_owned(),
        count: *count,
    });
    named.collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate to look at; beyond 2^53 a second nobody counts"
)]
fn per_second(count: u64, seconds: f64) -> f64 {
    ((count as f64) / seconds * 10.0).round() / 10.0
}
