//! What is started, in which order, and how it ends.
//!
//! Everything that can be wrong is found before anything is bound: certificates are loaded first,
//! then both ports are bound, then threads start.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    acceptor::Acceptor,
    config::{Live, Lives},
    contract::{DataPlane, HallContext, Part, Readiness, Shutdown, Stage, Stages, WorkerHandle},
    metrics::{ControlMetrics, Metrics},
    reload::{self, Reloader, Reloads, Side},
    tls::AllLoaded,
};

mod doors;
mod ready;
mod sites;

pub use doors::Bound;
pub(crate) use doors::entrances;
use sites::{Foundation, Sites};

/// How long threads may take to end.
const END: Duration = Duration::from_secs(5);

/// Why nothing could be started; one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{key}: cannot listen on {address}: {error}{advice}")]
    Bind {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The service manager's sockets cannot be used.
    #[error("LISTEN_FDS: {0}; the sockets given must be TCP and listen")]
    Given(io::Error),
    /// The service manager has bound an address that the configuration does not name.
    #[error(
        "LISTEN_FDS: nothing in the configuration listens on {0}; write it there, or take it from the socket unit"
    )]
    Unused(SocketAddr),
    /// The system has no threads or descriptors left.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// How many clients there are.
struct Clients(Box<dyn Fn() -> usize + Send + Sync>);

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", (self.0)())
    }
}

/// A proxy whose threads run.
#[derive(Debug)]
pub struct Running {
    threads: Threads,
    stages: Stages,
    /// The workers' threads.
    _end: Part,
    reloads: Reloads,
    clients: Clients,
    /// What `/readyz` says.
    pub readiness: Readiness,
}

/// Starts everything on the sockets, inside a tokio runtime that drives the acceptor and the admin
/// port. `file` is where the configuration came from, and is read from again.
///
/// # Errors
/// The system has no threads or descriptors left.
pub fn start(
    config: &Lives,
    loaded: AllLoaded,
    bound: Bound,
    plane: &impl DataPlane,
    file: Option<PathBuf>,
) -> Result<Running, StartError> {
    let stages = Stages::default();
    let process = config.process.get();
    let names = command::CommandTable::builtin()
        .iter()
        .map(|command| command.name().into());
    let metrics = if process.clusters.is_empty() {
        Metrics::new(names)
    } else {
        Metrics::of_process(names)
    }
    .tracing(plane.outlets().metrics());
    let threads = Threads::default();
    let mut workers = Vec::new();
    // They end with the process, after all of its parts.
    let (end, shutdown) = stages.part();
    for index in 0..process.listen.workers {
        let (worker, thread) = plane.spawn_worker(HallContext {
            index,
            config: config.process.clone(),
            downstream_tls: loaded.process.downstream.clone(),
            metrics: metrics.worker(),
            shutdown: shutdown.clone(),
            clusters: Vec::new(),
        })?;
        workers.push(worker);
        threads.add(thread);
    }
    let acceptor = Acceptor::new(workers.clone(), &process.limits, metrics.worker());
    let acceptor = Arc::new(acceptor);
    tokio::spawn(follow_limits(Arc::clone(&acceptor), config.process.clone()));
    if !process.clusters.is_empty() {
        let shown = metrics.control();
        shown.clients_max(process.limits.clients_max);
        tokio::spawn(follow_clients_max(config.process.clone(), shown, shutdown));
    }
    let reloads = metrics.reloads();
    let readiness = Readiness::default();
    let mut sites = Sites::new(Foundation {
        plane: plane.clone(),
        workers,
        acceptor: Arc::clone(&acceptor),
        metrics,
        readiness: readiness.clone(),
        stages: stages.clone(),
        threads: threads.clone(),
        process: config.process.clone(),
    });
    let sides = sites.begin(config, &loaded, bound)?;
    let process_side = Side::new(None, loaded.process, reloads.clone());
    let sides = (process_side, sides);
    let reloader =
        Reloader::new(config.clone(), file, sides, reloads, sites).telling(plane.outlets());
    let reloads = reload::start(reloader)?;
    Ok(Running {
        threads,
        _end: end,
        stages,
        reloads,
        clients: Clients(Box::new(move || acceptor.clients())),
        readiness,
    })
}

/// Threads that have been started.
#[derive(Clone, Debug, Default)]
struct Threads(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Threads {
    fn add(&self, thread: JoinHandle<()>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|thread| !thread.is_finished());
        all.push(thread);
    }

    /// How many have not ended.
    fn left(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|thread| !thread.is_finished()).count()
    }
}

async fn follow_clients_max(config: Live, shown: ControlMetrics, shutdown: Shutdown) {
    let mut changes = config.changes();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = shutdown.requested() => return,
        }
        shown.clients_max(changes.borrow_and_update().limits.clients_max);
    }
}

async fn follow_limits<W: WorkerHandle>(acceptor: Arc<Acceptor<W>>, config: Live) {
    let mut changes = config.changes();
    while changes.changed().await.is_ok() {
        acceptor.set_limits(&changes.borrow_and_update().limits);
    }
}

async fn report(task: impl Future<Output = io::Result<()>>, name: &'static str) {
    if let Err(error) = task.await {
        tracing::error!(%error, "{name} failed; restart Keyway");
    }
}

impl Running {
    /// Has files read again on every SIGHUP, from now on.
    ///
    /// # Errors
    /// The system does not let us listen to signals.
    pub fn reload_on_signal(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup())?;
        let reloads = self.reloads.clone();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                reloads.ask();
            }
        });
        Ok(())
    }

    /// Clients that there are, with those in their handshake.
    #[must_use]
    pub fn clients(&self) -> usize {
        (self.clients.0)()
    }

    /// Goes on to a later stage.
    pub(crate) fn enter(&self, stage: Stage) {
        self.stages.enter(stage);
    }

    /// Ends everything: connections close, threads end. Waits for them, but not for ever.
    pub async fn stop(self) {
        self.stages.enter(Stage::Over);
        let until = Instant::now() + END;
        while self.threads.left() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let late = self.threads.left();
        if late > 0 {
            tracing::warn!(late, "threads did not end in time; ending all the same");
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
///
/// # Errors
/// The system does not let us listen to signals.
pub async fn ended_by_signal() -> io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
