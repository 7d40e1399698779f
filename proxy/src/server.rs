//! What is started, in which order, and how it ends.
//!
//! Everything that can be wrong is found before anything is bound: certificates are loaded first,
//! then both ports are bound, then threads start.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    acceptor::{self, Acceptor, Door},
    admin,
    config::{Config, Live},
    contract::{
        DataPlane, DiscoveryContext, Readiness, Shutdown, Stage, WorkerContext, WorkerHandle,
    },
    metrics::{ControlMetrics, Metrics},
    net::Reach,
    reload::{self, Reloader, Reloads},
    status::Board,
    tls::Loaded,
};

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
    /// The system has no threads or descriptors left.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// The listening sockets.
#[derive(Debug)]
pub struct Bound {
    clients: TcpListener,
    reads: Option<TcpListener>,
    admin: TcpListener,
}

impl Bound {
    /// Binds all, or none.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = |key, address| {
            acceptor::bind(address, config.listen.reuse_port).map_err(|error| StartError::Bind {
                key,
                address,
                advice: match error.kind() {
                    io::ErrorKind::AddrInUse => "; end what listens there, or choose another port",
                    io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
                    io::ErrorKind::AddrNotAvailable => "; no interface of this machine has it",
                    _ => "",
                },
                error,
            })
        };
        Ok(Self {
            clients: bind("listen.address", config.listen.address)?,
            reads: config
                .reads
                .address
                .map(|address| bind("reads.address", address))
                .transpose()?,
            admin: bind("admin.address", config.admin.address)?,
        })
    }

    /// Writes the ports that the system chose into the configuration.
    ///
    /// # Errors
    /// The system does not say.
    pub fn tell(&self, config: &mut Config) -> io::Result<()> {
        config.listen.address = self.clients.local_addr()?;
        if let Some(reads) = &self.reads {
            config.reads.address = Some(reads.local_addr()?);
        }
        Ok(())
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The system does not say.
    pub fn clients_address(&self) -> io::Result<SocketAddr> {
        self.clients.local_addr()
    }

    /// Where metrics and probes are.
    ///
    /// # Errors
    /// The system does not say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
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
    threads: Vec<JoinHandle<()>>,
    stop: tokio::sync::watch::Sender<Stage>,
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
    config: &Live,
    loaded: Loaded,
    bound: Bound,
    plane: &impl DataPlane,
    file: Option<PathBuf>,
) -> Result<Running, StartError> {
    let (stop, shutdown) = Shutdown::new();
    let names = command::CommandTable::builtin()
        .iter()
        .map(|command| command.name().into());
    let metrics = Metrics::new(names);
    let shown = metrics.control();
    shown.clients_max(config.get().limits.clients_max);
    let readiness = Readiness::default();
    let reach = Reach::system(&config.get().cluster.name_servers);
    let mut threads = Vec::new();
    let mut workers = Vec::new();
    for index in 0..config.get().listen.workers {
        let (worker, thread) = plane.spawn_worker(WorkerContext {
            index,
            config: config.clone(),
            downstream_tls: loaded.downstream.clone(),
            upstream_tls: loaded.upstream.clone(),
            reach: reach.clone(),
            metrics: metrics.worker(),
            shutdown: shutdown.clone(),
        })?;
        workers.push(worker);
        threads.push(thread);
    }
    threads.push(plane.spawn_discovery(DiscoveryContext {
        config: config.clone(),
        upstream_tls: loaded.upstream.clone(),
        reach,
        metrics: metrics.control(),
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
    })?);
    let reloads = reload::start(Reloader::new(
        config.clone(),
        file,
        loaded,
        metrics.reloads(),
    ))?;
    let accepting = [metrics.worker(), metrics.worker()];
    let board = Board::new(config, plane.observer(), readiness.clone());
    tokio::spawn(board.clone().run(metrics.clone(), shutdown.clone()));
    let pages = admin::Pages {
        metrics,
        readiness: readiness.clone(),
        board,
        bodies: admin::Bodies::default(),
    };
    tokio::spawn(report(
        admin::run(bound.admin, pages, shutdown.clone()),
        "the admin port",
    ));
    let acceptor = Arc::new(Acceptor::new(workers, &config.get().limits));
    tokio::spawn(follow_limits(Arc::clone(&acceptor), config.clone(), shown));
    let doors = [
        (Some(bound.clients), Door::Main),
        (bound.reads, Door::Reads),
    ];
    for ((listener, door), counters) in doors.into_iter().zip(accepting) {
        let Some(listener) = listener else { continue };
        let accepting = Arc::clone(&acceptor).run(listener, door, counters, shutdown.clone());
        tokio::spawn(report(accepting, "the acceptor"));
    }
    Ok(Running {
        threads,
        stop,
        reloads,
        clients: Clients(Box::new(move || acceptor.clients())),
        readiness,
    })
}

async fn follow_limits<W: WorkerHandle>(
    acceptor: Arc<Acceptor<W>>,
    config: Live,
    shown: ControlMetrics,
) {
    let mut changes = config.changes();
    while changes.changed().await.is_ok() {
        let config = changes.borrow_and_update();
        acceptor.set_limits(&config.limits);
        shown.clients_max(config.limits.clients_max);
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
        self.stop.send_replace(stage);
    }

    /// Ends everything: connections close, threads end. Waits for them, but not for ever.
    pub async fn stop(self) {
        self.stop.send_replace(Stage::Over);
        let until = Instant::now() + END;
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let late = self
            .threads
            .iter()
            .filter(|thread| !thread.is_finished())
            .count();
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
