//! Counters that each worker owns, and the prometheus collector that sums them at scrape.
//!
//! A worker's counters are written by that worker alone, with a load and a store: no locked
//! instruction, no cache line that two workers write. Every label is from a closed set.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use dataplane::Times;

mod collector;
mod heat;
mod labels;
mod listing;
mod nodes;
mod phases;
mod process;
mod reloads;
mod totals;
mod traces;

pub use heat::{HeatFigures, HeatMetrics, KEYS_TOP, SLOTS_TOP};
pub use labels::{
    ConnectResult, Direction, ErrorKind, HandshakeResult, NearDrop, NearEnd, Phase, PoisonReason,
    RedirectKind, ReloadResult, TlsFile, TraceEnd, UpstreamState, Zone,
};
pub use listing::Listing;
use nodes::NodeFigures;
pub use nodes::NodeWork;
use phases::PhaseCells;
pub use phases::PhaseTotals;
pub use reloads::ReloadMetrics;
pub use totals::Totals;
pub use traces::TraceMetrics;

/// Upper bounds of the latency histogram's buckets, in nanoseconds: from 50 microseconds to 10 s.
const BUCKETS_NS: [u64; 14] = [
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    2_000_000_000,
    10_000_000_000,
];

/// One worker's counters.
#[derive(Debug)]
#[repr(align(128))] // no two workers write one cache line
struct Cells {
    connections_opened: AtomicU64,
    connections_closed: AtomicU64,
    handshakes: [AtomicU64; HandshakeResult::COUNT],
    /// One for each command of the table, and one for all others.
    requests: Box<[AtomicU64]>,
    latency: [AtomicU64; BUCKETS_NS.len() + 1],
    latency_sum_ns: AtomicU64,
    /// The same in finer steps, for quantiles of a few seconds.
    times: [AtomicU64; Times::BUCKETS],
    phases: [PhaseCells; Phase::COUNT],
    client_bytes: [AtomicU64; Direction::COUNT],
    waiting_bytes: AtomicU64,
    waiting_bytes_max: AtomicU64,
    coalesced: AtomicU64,
    near: [AtomicU64; NearEnd::COUNT],
    near_dropped: [AtomicU64; NearDrop::COUNT],
    near_bytes: AtomicU64,
    reads: [AtomicU64; Zone::COUNT],
    node_received: [AtomicU64; Zone::COUNT],
    node_sent: [AtomicU64; Zone::COUNT],
    upstream: [AtomicI64; UpstreamState::COUNT],
    connects: [AtomicU64; ConnectResult::COUNT],
    in_flight: AtomicI64,
    redirects: [AtomicU64; RedirectKind::COUNT],
    errors: [AtomicU64; ErrorKind::COUNT],
    stalls: AtomicU64,
    poisoned: [AtomicU64; PoisonReason::COUNT],
}

impl Cells {
    fn new(commands: usize) -> Self {
        Self {
            connections_opened: AtomicU64::default(),
            connections_closed: AtomicU64::default(),
            handshakes: Default::default(),
            requests: std::iter::repeat_with(AtomicU64::default)
                .take(commands + 1)
                .collect(),
            latency: Default::default(),
            latency_sum_ns: AtomicU64::default(),
            times: std::array::from_fn(|_| AtomicU64::default()),
            phases: Default::default(),
            client_bytes: Default::default(),
            coalesced: AtomicU64::default(),
            near: Default::default(),
            near_dropped: Default::default(),
            near_bytes: AtomicU64::default(),
            waiting_bytes: AtomicU64::default(),
            waiting_bytes_max: AtomicU64::default(),
            reads: Default::default(),
            node_received: Default::default(),
            node_sent: Default::default(),
            upstream: Default::default(),
            connects: Default::default(),
            in_flight: AtomicI64::default(),
            redirects: Default::default(),
            errors: Default::default(),
            stalls: AtomicU64::default(),
            poisoned: Default::default(),
        }
    }
}

/// What the server and the discovery show.
#[derive(Debug, Default)]
struct Control {
    clients_max: AtomicU64,
    revision: AtomicU64,
    looks: AtomicU64,
    failed_looks: AtomicU64,
    /// In a row, until now.
    failing_looks: AtomicU64,
    slots_covered: AtomicU64,
    slots_served: AtomicU64,
    nodes: NodeFigures,
}

/// Of what they are the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Scope {
    /// The process and its only cluster.
    #[default]
    Whole,
    /// What several clusters have in common.
    Process,
    /// This one of several: its name is a label of all.
    Cluster(Arc<str>),
}

/// All metrics of the process, or of a part of it.
#[derive(Clone, Debug)]
pub struct Metrics {
    scope: Scope,
    /// Label values of `command`, by the command's index.
    commands: Arc<[Box<str>]>,
    workers: Arc<Mutex<Vec<Arc<Cells>>>>,
    control: Arc<Control>,
    reloads: ReloadMetrics,
    heat: HeatMetrics,
    traces: TraceMetrics,
}

impl Metrics {
    /// Metrics whose `command` label has these values, and `other`.
    #[must_use]
    pub fn new(commands: impl IntoIterator<Item = Box<str>>) -> Self {
        Self {
            scope: Scope::Whole,
            commands: commands.into_iter().collect(),
            workers: Arc::default(),
            control: Arc::default(),
            reloads: ReloadMetrics::default(),
            heat: HeatMetrics::default(),
            traces: TraceMetrics::default(),
        }
    }

    /// The same, with what becomes of traces.
    #[must_use]
    pub fn tracing(self, traces: TraceMetrics) -> Self {
        Self { traces, ..self }
    }

    /// The same for what several clusters have in common.
    #[must_use]
    pub fn of_process(commands: impl IntoIterator<Item = Box<str>>) -> Self {
        Self {
            scope: Scope::Process,
            ..Self::new(commands)
        }
    }

    /// Metrics of one of several clusters, beside these.
    #[must_use]
    pub fn of_cluster(&self, name: &str) -> Self {
        Self {
            scope: Scope::Cluster(name.into()),
            commands: Arc::clone(&self.commands),
            workers: Arc::default(),
            control: Arc::default(),
            reloads: ReloadMetrics::default(),
            heat: HeatMetrics::default(),
            traces: TraceMetrics::default(),
        }
    }

    /// Counters for one more worker.
    #[must_use]
    pub fn worker(&self) -> WorkerMetrics {
        let cells = Arc::new(Cells::new(self.commands.len()));
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(Arc::clone(&cells));
        WorkerMetrics {
            cells,
            one_thread: PhantomData,
        }
    }

    /// What the server and the discovery write.
    #[must_use]
    pub fn control(&self) -> ControlMetrics {
        ControlMetrics(Arc::clone(&self.control))
    }

    /// What is written when files are read again.
    #[must_use]
    pub fn reloads(&self) -> ReloadMetrics {
        self.reloads.clone()
    }

    /// What is written where the load is added up.
    #[must_use]
    pub fn heat(&self) -> HeatMetrics {
        self.heat.clone()
    }

    fn cells(&self) -> Vec<Arc<Cells>> {
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the server and the discovery write.
#[derive(Clone, Debug)]
pub struct ControlMetrics(Arc<Control>);

impl ControlMetrics {
    /// How many clients there may be at a time.
    pub fn clients_max(&self, clients: usize) {
        let clients = u64::try_from(clients).unwrap_or(u64::MAX);
        self.0.clients_max.store(clients, Relaxed);
    }

    /// The revision of the topology in force.
    pub fn topology_revision(&self, revision: u64) {
        self.0.revision.store(revision, Relaxed);
    }

    /// The cluster was asked for its topology; `found` if a node gave one that is believed.
    pub fn looked(&self, found: bool) {
        let counter = if found {
            &self.0.looks
        } else {
            &self.0.failed_looks
        };
        counter.fetch_add(1, Relaxed);
        if found {
            self.0.failing_looks.store(0, Relaxed);
        } else {
            self.0.failing_looks.fetch_add(1, Relaxed);
        }
    }

    /// How often in a row, until now, no node gave a topology that is believed.
    #[must_use]
    pub fn failing_looks(&self) -> u64 {
        self.0.failing_looks.load(Relaxed)
    }

    /// Slots whose owner is well and can be reached, as far as is known.
    pub fn slots_served(&self, slots: usize) {
        let slots = u64::try_from(slots).unwrap_or(u64::MAX);
        self.0.slots_served.store(slots, Relaxed);
    }

    /// Slots that have an owner.
    pub fn slots_covered(&self, slots: u16) {
        self.0.slots_covered.store(slots.into(), Relaxed);
    }
}

/// One worker's counters, for that worker alone.
#[derive(Debug)]
pub struct WorkerMetrics {
    cells: Arc<Cells>,
    one_thread: PhantomData<Cell<()>>,
}

/// One writer: a load and a store are enough.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

fn add_to(counters: &[AtomicU64], index: usize, n: u64) {
    if let Some(counter) = counters.get(index).or_else(|| counters.last()) {
        add(counter, n);
    }
}

fn shift(gauge: &AtomicI64, delta: i64) {
    gauge.store(gauge.load(Relaxed).wrapping_add(delta), Relaxed);
}

impl WorkerMetrics {
    /// A client has finished its TLS handshake.
    pub fn connection_opened(&self) {
        add(&self.cells.connections_opened, 1);
    }

    /// A client that was counted by [`WorkerMetrics::connection_opened`] is gone.
    pub fn connection_closed(&self) {
        add(&self.cells.connections_closed, 1);
    }

    /// A TLS handshake ended so.
    pub fn handshake(&self, result: HandshakeResult) {
        add_to(&self.cells.handshakes, result as usize, 1);
    }

    /// A command has its whole reply; an index beyond the table is counted as `other`.
    pub fn request(&self, command_index: usize, duration_ns: u64) {
        add_to(&self.cells.requests, command_index, 1);
        let bucket = BUCKETS_NS.partition_point(|bound| *bound < duration_ns);
        add_to(&self.cells.latency, bucket, 1);
        add(&self.cells.latency_sum_ns, duration_ns);
        add_to(&self.cells.times, Times::bucket(duration_ns), 1);
    }

    /// Plain bytes from or to clients.
    pub fn client_bytes(&self, direction: Direction, n: u64) {
        add_to(&self.cells.client_bytes, direction as usize, n);
    }

    /// A command gets the reply of another.
    pub fn coalesced(&self) {
        add(&self.cells.coalesced, 1);
    }

    /// A read of a key that may be kept near.
    pub fn near(&self, end: NearEnd) {
        add_to(&self.cells.near, end as usize, 1);
    }

    /// So many values that were kept near are gone.
    pub fn near_dropped(&self, why: NearDrop, count: u64) {
        add_to(&self.cells.near_dropped, why as usize, count);
    }

    /// What is kept near takes so many bytes.
    pub fn near_bytes(&self, bytes: u64) {
        self.cells.near_bytes.store(bytes, Relaxed);
    }

    /// So many bytes wait for clients, of so many that may.
    pub fn waiting_bytes(&self, bytes: u64, max: u64) {
        self.cells.waiting_bytes.store(bytes, Relaxed);
        self.cells.waiting_bytes_max.store(max, Relaxed);
    }

    /// A read was sent that may go to a replica.
    pub fn read(&self, zone: Zone) {
        add_to(&self.cells.reads, zone as usize, 1);
    }

    /// Plain bytes from or to a node.
    pub fn node_bytes(&self, zone: Zone, received: u64, sent: u64) {
        add_to(&self.cells.node_received, zone as usize, received);
        add_to(&self.cells.node_sent, zone as usize, sent);
    }

    /// A node connection came, changed, or went (`to` is `None`).
    pub fn upstream_moved(&self, from: Option<UpstreamState>, to: Option<UpstreamState>) {
        for (state, delta) in [(from, -1), (to, 1)] {
            if let Some(gauge) = state.and_then(|state| self.cells.upstream.get(state as usize)) {
                shift(gauge, delta);
            }
        }
    }

    /// An attempt to connect to a node ended so.
    pub fn upstream_connect(&self, result: ConnectResult) {
        add_to(&self.cells.connects, result as usize, 1);
    }

    /// Commands sent to nodes and not answered: this many more, or fewer.
    pub fn upstream_in_flight(&self, delta: i64) {
        shift(&self.cells.in_flight, delta);
    }

    /// A node has owed an answer for long. Returns how often that was.
    pub fn upstream_stalled(&self) -> u64 {
        add(&self.cells.stalls, 1);
        self.cells.stalls.load(Relaxed)
    }

    /// A node sent a command elsewhere.
    pub fn redirect(&self, kind: RedirectKind) {
        add_to(&self.cells.redirects, kind as usize, 1);
    }

    /// A client got an error that the proxy made.
    pub fn error(&self, kind: ErrorKind) {
        add_to(&self.cells.errors, kind as usize, 1);
    }

    /// A node connection was closed because its replies could not be trusted.
    pub fn poisoned(&self, reason: PoisonReason) {
        add_to(&self.cells.poisoned, reason as usize, 1);
    }
}

#[cfg(test)]
mod tests;
