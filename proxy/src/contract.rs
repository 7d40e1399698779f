//! Between the server (sockets, threads, signals) and what runs on its threads.

use std::{io, sync::Arc, thread::JoinHandle};

use tokio::sync::watch;

use crate::{
    acceptor::Accepted,
    config::Live,
    dns,
    metrics::{ControlMetrics, WorkerMetrics},
    tls,
};

/// What the server starts: workers, and one discovery.
pub trait DataPlane: Send + Sync + 'static {
    /// The acceptor's end of a worker.
    type Worker: WorkerHandle;

    /// Starts the thread of one worker.
    ///
    /// # Errors
    /// The system has no thread or no descriptors left.
    fn spawn_worker(&self, context: WorkerContext) -> io::Result<(Self::Worker, JoinHandle<()>)>;

    /// Starts the thread that finds and follows the topology.
    ///
    /// # Errors
    /// The system has no thread or no descriptors left.
    fn spawn_discovery(&self, context: DiscoveryContext) -> io::Result<JoinHandle<()>>;
}

/// The acceptor's end of a worker.
pub trait WorkerHandle: Clone + Send + Sync + 'static {
    /// Hands a connection over. Never blocks; [`WorkerHandle::connections`] counts it at once.
    fn give(&self, accepted: Accepted);

    /// Connections that the worker has, those in their TLS handshake included.
    fn connections(&self) -> usize;
}

/// What a worker is given.
#[derive(Debug)]
pub struct WorkerContext {
    /// Which worker, from 0.
    pub index: usize,
    /// The configuration in force.
    pub config: Live,
    /// The clients' side of TLS.
    pub downstream_tls: tls::ServerTls,
    /// The nodes' side of TLS; `None` is plain TCP.
    pub upstream_tls: Option<tls::UpstreamTls>,
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
    /// From names to addresses.
    pub resolver: Arc<dyn dns::Resolve>,
    /// What is shown of the topology.
    pub metrics: ControlMetrics,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// When to end.
    pub shutdown: Shutdown,
}

/// Whether the process is to end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A switch and what it reaches.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits for the end.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // A sender that is gone is an end as well.
        let _ = receiver.wait_for(|requested| *requested).await;
    }

    /// Whether the end has come.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// Whether clients may be sent here; behind `/readyz`.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<Option<String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Some("starting".to_owned()))))
    }
}

impl Readiness {
    /// They may.
    pub fn ready(&self) {
        self.set(None);
    }

    /// They may not, for this reason.
    pub fn not_ready(&self, reason: &str) {
        self.set(Some(reason.to_owned()));
    }

    /// Why they may not; `None` when they may.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until they may.
    pub async fn wait(&self) {
        let mut receiver = self.0.subscribe();
        let _ = receiver.wait_for(Option::is_none).await; // the sender is ours, and lives
    }

    fn set(&self, reason: Option<String>) {
        self.0.send_if_modified(|current| {
            let changed = *current != reason;
            if changed {
                match &reason {
                    None => tracing::info!("ready: every slot has an owner that is known"),
                    Some(reason) => tracing::warn!(%reason, "not ready"),
                }
                *current = reason;
            }
            changed
        });
    }
}
