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
    acceptor::{self, Acceptor, Door, Entrance},
    admin::{self, Shown},
    config::{Config, Live, Lives},
    contract::{
        DataPlane, DiscoveryContext, HallContext, Readiness, Shutdown, Stage, WorkerContext,
        WorkerHandle,
    },
    metrics::{ControlMetrics, Metrics},
    net::Reach,
    reload::{self, Reloader, Reloads, Side},
    status::Board,
    systemd::Given,
    tls::{AllLoaded, Loaded},
};

mod ready;

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

/// The listening sockets.
#[derive(Debug)]
pub struct Bound {
    clients: Vec<(Entrance, TcpListener)>,
    admin: TcpListener,
}

/// Where clients come, with the key that says so. The first is `listen.address`.
pub(crate) fn entrances(config: &Config) -> Vec<(Entrance, &'static str, SocketAddr)> {
    // To everyone's ports, if there are several clusters.
    let of_all = config.clusters.is_empty().then_some(0);
    let mut all = vec![(
        (Door::Main, of_all),
        "listen.address",
        config.listen.address,
    )];
    let reads = config.reads.address;
    all.extend(reads.map(|address| ((Door::Reads, of_all), "reads.address", address)));
    for (place, own) in config.clusters.iter().enumerate() {
        let Some(tenant) = &own.tenant else { continue };
        if tenant.own_port {
            let door = (Door::Main, Some(place));
            all.push((door, "cluster.listen.address", own.listen.address));
        }
        let reads = own.reads.address.filter(|_| tenant.own_read_port);
        let door = (Door::Reads, Some(place));
        all.extend(reads.map(|address| (door, "cluster.reads.address", address)));
    }
    all
}

impl Bound {
    /// Binds all, or none.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let mut given = Given::take().map_err(StartError::Given)?;
        let mut bind = |key, address| {
            if let Some(listener) = given.bound_to(address) {
                return Ok(listener);
            }
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
        let mut clients = Vec::new();
        for (entrance, key, address) in entrances(config) {
            clients.push((entrance, bind(key, address)?));
        }
        let admin = bind("admin.address", config.admin.address)?;
        if let Some(address) = given.left().next() {
            return Err(StartError::Unused(address));
        }
        Ok(Self { clients, admin })
    }

    /// Writes the ports that the system chose into the configuration.
    ///
    /// # Errors
    /// The system does not say.
    pub fn tell(&self, config: &mut Config) -> io::Result<()> {
        for ((door, cluster), listener) in &self.clients {
            let address = listener.local_addr()?;
            let of_all = cluster.is_none() || config.clusters.is_empty();
            if of_all {
                tell_one(config, *door, address);
            }
            for (place, own) in config.clusters.iter_mut().enumerate() {
                let shared = own.tenant.as_ref().is_some_and(|tenant| match door {
                    Door::Main => !tenant.own_port,
                    Door::Reads => !tenant.own_read_port && own.reads.address.is_some(),
                });
                if *cluster == Some(place) || (of_all && shared) {
                    tell_one(Arc::make_mut(own), *door, address);
                }
            }
        }
        Ok(())
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The system does not say.
    pub fn clients_address(&self) -> io::Result<SocketAddr> {
        let first = self.clients.first();
        let (_, listener) = first.ok_or_else(|| io::Error::other("nothing is bound"))?;
        listener.local_addr()
    }

    /// Where metrics and probes are.
    ///
    /// # Errors
    /// The system does not say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

fn tell_one(config: &mut Config, door: Door, address: SocketAddr) {
    match door {
        Door::Main => config.listen.address = address,
        Door::Reads => config.reads.address = Some(address),
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

/// What is started for one cluster.
struct Site {
    config: Live,
    tls: Loaded,
    metrics: Metrics,
    readiness: Readiness,
    reach: Reach,
}

impl Site {
    /// One for each cluster; with one cluster, its metrics and readiness are the process's.
    fn all(
        config: &Lives,
        loaded: &AllLoaded,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Vec<Self> {
        let clusters = config.clusters.iter().zip(&loaded.clusters);
        let sites = clusters.map(|(config, tls)| {
            let now = config.get();
            let (metrics, readiness) = match &now.tenant {
                Some(tenant) => (
                    metrics.of_cluster(&tenant.name),
                    Readiness::of(&tenant.name),
                ),
                None => (metrics.clone(), readiness.clone()),
            };
            metrics.control().clients_max(now.limits.clients_max);
            Self {
                config: config.clone(),
                tls: tls.clone(),
                metrics,
                readiness,
                reach: Reach::system(&now.cluster.name_servers),
            }
        });
        sites.collect()
    }

    fn name(&self) -> Option<Box<str>> {
        let config = self.config.get();
        config.tenant.as_ref().map(|tenant| tenant.name.clone())
    }

    fn worker(&self, index: usize, shutdown: &Shutdown) -> WorkerContext {
        WorkerContext {
            index,
            config: self.config.clone(),
            downstream_tls: self.tls.downstream.clone(),
            upstream_tls: self.tls.upstream.clone(),
            reach: self.reach.clone(),
            metrics: self.metrics.worker(),
            shutdown: shutdown.clone(),
        }
    }

    fn discovery(&self, shutdown: &Shutdown) -> DiscoveryContext {
        DiscoveryContext {
            config: self.config.clone(),
            upstream_tls: self.tls.upstream.clone(),
            reach: self.reach.clone(),
            metrics: self.metrics.control(),
            readiness: self.readiness.clone(),
            shutdown: shutdown.clone(),
        }
    }
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
    let (stop, shutdown) = Shutdown::new();
    let process = config.process.get();
    let names = command::CommandTable::builtin()
        .iter()
        .map(|command| command.name().into());
    let metrics = if process.clusters.is_empty() {
        Metrics::new(names)
    } else {
        Metrics::of_process(names)
    }
    .tracing(plane.traces());
    let readiness = Readiness::default();
    let sites = Site::all(config, &loaded, &metrics, &readiness);
    let (mut threads, mut workers) = (Vec::new(), Vec::new());
    for index in 0..process.listen.workers {
        let (worker, thread) = plane.spawn_worker(HallContext {
            index,
            config: config.process.clone(),
            downstream_tls: loaded.process.downstream.clone(),
            metrics: metrics.worker(),
            shutdown: shutdown.clone(),
            clusters: sites
                .iter()
                .map(|site| site.worker(index, &shutdown))
                .collect(),
        })?;
        workers.push(worker);
        threads.push(thread);
    }
    for (place, site) in sites.iter().enumerate() {
        threads.push(plane.spawn_discovery(place, site.discovery(&shutdown))?);
        tokio::spawn(follow_clients_max(
            site.config.clone(),
            site.metrics.control(),
        ));
    }
    if !process.clusters.is_empty() {
        let shown = metrics.control();
        shown.clients_max(process.limits.clients_max);
        tokio::spawn(follow_clients_max(config.process.clone(), shown));
        let all = sites.iter().map(|site| site.readiness.clone());
        tokio::spawn(ready::gather(readiness.clone(), all.collect()));
    }
    let reloads = reload::start(reloader(config, loaded.process, file, &sites, &metrics))?;
    let acceptor = Arc::new(Acceptor::new(workers, &process.limits));
    tokio::spawn(follow_limits(Arc::clone(&acceptor), config.process.clone()));
    for (entrance, listener) in bound.clients {
        let counters = metrics.worker();
        let accepting = Arc::clone(&acceptor).run(listener, entrance, counters, shutdown.clone());
        tokio::spawn(report(accepting, "the acceptor"));
    }
    show(
        bound.admin,
        sites,
        plane,
        (metrics, readiness.clone()),
        &shutdown,
    )?;
    Ok(Running {
        threads,
        stop,
        reloads,
        clients: Clients(Box::new(move || acceptor.clients())),
        readiness,
    })
}

/// Starts the admin port and what it shows.
fn show(
    listener: TcpListener,
    sites: Vec<Site>,
    plane: &impl DataPlane,
    (metrics, readiness): (Metrics, Readiness),
    shutdown: &Shutdown,
) -> io::Result<()> {
    let (mut clusters, mut all) = (Vec::new(), vec![metrics]);
    let names: Arc<[Box<str>]> = sites.iter().filter_map(Site::name).collect();
    for (place, site) in sites.into_iter().enumerate() {
        let observer = plane.observer(place)?;
        let board = Board::new(&site.config, &names, observer, site.readiness.clone());
        tokio::spawn(board.clone().run(site.metrics.clone(), shutdown.clone()));
        let name = site.name();
        if name.is_some() {
            all.push(site.metrics);
        }
        clusters.push(Shown::new(name, site.readiness, board));
    }
    let pages = admin::Pages {
        metrics: all.into(),
        readiness,
        clusters: clusters.into(),
    };
    tokio::spawn(report(
        admin::run(listener, pages, shutdown.clone()),
        "the admin port",
    ));
    Ok(())
}

fn reloader(
    config: &Lives,
    process: Loaded,
    file: Option<PathBuf>,
    sites: &[Site],
    metrics: &Metrics,
) -> Reloader {
    let mut sides = vec![Side::new(None, process, metrics.reloads())];
    sides.extend(sites.iter().filter_map(|site| {
        let name = site.name()?;
        Some(Side::new(
            Some(&name),
            site.tls.clone(),
            site.metrics.reloads(),
        ))
    }));
    Reloader::new(config.clone(), file, sides, metrics.reloads())
}

async fn follow_clients_max(config: Live, shown: ControlMetrics) {
    let mut changes = config.changes();
    while changes.changed().await.is_ok() {
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
