//! Between the server (sockets, threads, signals) and what runs on its threads.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    acceptor::Accepted,
    config::{ClusterId, Config, Live},
    metrics::{ControlMetrics, WorkerMetrics},
    net::Reach,
    outlets::Outlets,
    tls,
    worker::Observer,
};

/// What the server starts: workers, and one discovery for each cluster.
pub trait DataPlane: Clone + Send + Sync + 'static {
    /// The acceptor's end of a worker.
    type Worker: WorkerHandle;

    /// Starts a thread with a worker for each cluster that it is given.
    ///
    /// # Errors
    /// The system has no thread or no descriptors left.
    fn spawn_worker(&self, context: HallContext) -> io::Result<(Self::Worker, JoinHandle<()>)>;

    /// Makes room for one more cluster. Workers, discovery and observer of it come after.
    fn add_cluster(&self, cluster: ClusterId, config: &Arc<Config>);

    /// A cluster is gone, with all that was about it.
    fn forget_cluster(&self, cluster: ClusterId);

    /// Starts the thread that finds and follows the topology of a cluster.
    ///
    /// # Errors
    /// The system has no thread or no descriptors left, or there is no such cluster.
    fn spawn_discovery(
        &self,
        cluster: ClusterId,
        context: DiscoveryContext,
    ) -> io::Result<JoinHandle<()>>;

    /// What the admin port sees of a cluster's.
    ///
    /// # Errors
    /// There is no such cluster.
    fn observer(&self, cluster: ClusterId) -> io::Result<Observer>;

    /// Where some commands are told of.
    fn outlets(&self) -> Outlets {
        Outlets::default()
    }
}

/// The acceptor's end of a worker's thread.
pub trait WorkerHandle: Clone + Send + Sync + 'static {
    /// Hands a connection over. Never blocks; [`WorkerHandle::connections`] counts it at once.
    fn give(&self, accepted: Accepted);

    /// Has it begin a worker for one more cluster, which ends by itself when its shutdown says so. Says
    /// `done` when clients of that cluster can be given.
    fn open(&self, context: WorkerContext, done: mpsc::Sender<()>);

    /// Connections that the worker has, those in their TLS handshake included.
    fn connections(&self) -> usize;
}

/// What a thread of workers is given.
#[derive(Debug)]
pub struct HallContext {
    /// Which thread, from 0.
    pub index: usize,
    /// The configuration of the process in force.
    pub config: Live,
    /// TLS for clients that have not named a cluster.
    pub downstream_tls: tls::ServerTls,
    /// Counts those.
    pub metrics: WorkerMetrics,
    /// When to end.
    pub shutdown: Shutdown,
    /// What its worker of each cluster is given.
    pub clusters: Vec<WorkerContext>,
}

/// What a worker is given.
#[derive(Debug)]
pub struct WorkerContext {
    /// Of which cluster it is.
    pub cluster: ClusterId,
    /// Which worker, from 0.
    pub index: usize,
    /// The configuration in force.
    pub config: Live,
    /// The clients' side of TLS.
    pub downstream_tls: tls::ServerTls,
    /// The nodes' side of TLS; `None` is plain TCP.
    pub upstream_tls: Option<tls::UpstreamTls>,
    /// How nodes are reached.
    pub reach: Reach,
    /// The worker's own counters.
    pub metrics: WorkerMetrics,
    /// When to end.
    pub shutdown: Shutdown,
}

/// What the discovery is given.
#[derive(Clone, Debug)]
pub struct DiscoveryContext {
    /// The configuration in force.
    pub config: Live,
    /// The nodes' side of TLS; `None` is plain TCP.
    pub upstream_tls: Option<tls::UpstreamTls>,
    /// How nodes are reached.
    pub reach: Reach,
    /// What is shown of the topology.
    pub metrics: ControlMetrics,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// When to end.
    pub shutdown: Shutdown,
}

/// How far the process is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Clients come and stay.
    Serving,
    /// None come any more.
    Shut,
    /// Those that are here leave when they lose nothing by it, spread over this time.
    Leaving {
        /// After this, whoever can leave is asked to.
        within: Duration,
    },
    /// They leave with the last reply that they are owed.
    LastChance,
    /// Everything ends.
    Over,
}

/// How far the process is, and parts of it that may be further: a cluster, or a port.
#[derive(Clone, Debug)]
pub struct Stages(Arc<Mutex<Parts>>);

#[derive(Debug)]
struct Parts {
    stage: Stage,
    all: Vec<Weak<watch::Sender<Stage>>>,
}

/// A part of the process; when it is dropped, it is over.
#[derive(Debug)]
pub struct Part(Arc<watch::Sender<Stage>>);

impl Part {
    /// Goes on to a later stage.
    pub fn enter(&self, stage: Stage) {
        self.0.send_if_modified(|current| {
            let later = stage > *current;
            if later {
                *current = stage;
            }
            later
        });
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Parts {
            stage: Stage::Serving,
            all: Vec::new(),
        })))
    }
}

impl Stages {
    /// One more part, as far as the process is.
    #[must_use]
    pub fn part(&self) -> (Part, Shutdown) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, receiver) = watch::channel(parts.stage);
        let part = Part(Arc::new(sender));
        parts.all.retain(|part| part.strong_count() > 0);
        parts.all.push(Arc::downgrade(&part.0));
        (part, Shutdown(receiver))
    }

    /// The process goes on to a later stage, and all of its parts.
    pub fn enter(&self, stage: Stage) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.stage = parts.stage.max(stage);
        for part in parts.all.iter().filter_map(Weak::upgrade) {
            Part(part).enter(stage);
        }
    }
}

/// Whether the process is to end, or a part of it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

impl Shutdown {
    /// A switch and what it reaches.
    #[must_use]
    pub fn new() -> (watch::Sender<Stage>, Self) {
        let (sender, receiver) = watch::channel(Stage::Serving);
        (sender, Self(receiver))
    }

    /// Waits for the end.
    pub async fn requested(&self) {
        self.reached(Stage::Over).await;
    }

    /// Waits until no more clients are to come.
    pub async fn shut(&self) {
        self.reached(Stage::Shut).await;
    }

    async fn reached(&self, stage: Stage) {
        let mut receiver = self.0.clone();
        // A sender that is gone is an end as well.
        let _ = receiver.wait_for(|current| *current >= stage).await;
    }

    /// Says when the stage is another.
    #[must_use]
    pub fn stages(&self) -> watch::Receiver<Stage> {
        self.0.clone()
    }
}

/// Whether clients may be sent here; behind `/readyz`.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// The cluster, if it is one of several.
    name: Option<Arc<str>>,
    reason: Arc<watch::Sender<Option<String>>>,
    draining: Arc<AtomicBool>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            name: None,
            reason: Arc::new(watch::Sender::new(Some("starting".to_owned()))),
            draining: Arc::default(),
        }
    }
}

impl Readiness {
    /// That of one of several clusters.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let starting = Some(format!("{name}: starting"));
        Self {
            name: Some(name.into()),
            reason: Arc::new(watch::Sender::new(starting)),
            ..Self::default()
        }
    }

    /// Says when [`Readiness::reason`] is another, but for the end.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Option<String>> {
        self.reason.subscribe()
    }

    /// They may.
    pub fn ready(&self) {
        self.set(None);
    }

    /// They may not, for this reason.
    pub fn not_ready(&self, reason: &str) {
        self.set(Some(match &self.name {
            Some(name) => format!("{name}: {reason}"),
            None => reason.to_owned(),
        }));
    }

    /// They may not, and never again: the process ends.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the process ends.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Why they may not; `None` when they may.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        if self.draining.load(Relaxed) {
            return Some("ending".to_owned());
        }
        self.reason.borrow().clone()
    }

    /// Waits until they may.
    pub async fn wait(&self) {
        let mut receiver = self.reason.subscribe();
        let _ = receiver.wait_for(Option::is_none).await; // the sender is ours, and lives
    }

    fn set(&self, reason: Option<String>) {
        self.reason.send_if_modified(|current| {
            let changed = *current != reason;
            if changed {
                let cluster = self.name.as_deref();
                match &reason {
                    None => {
                        tracing::info!(cluster, "ready: every slot has an owner that is known");
                    }
                    Some(reason) => tracing::warn!(%reason, "not ready"),
                }
                *current = reason;
            }
            changed
        });
    }
}
