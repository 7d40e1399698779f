//! The clusters that are served: what is started for each of them, how one comes while Keyway runs, and how
//! it goes without anybody losing a reply. What they are is the configuration's business.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::watch};

use super::{
    Bound, Threads,
    doors::{self, Doors, Fresh},
    follow_clients_max, ready, report,
};
use crate::{
    acceptor::Acceptor,
    admin::{self, Shelf, Shown},
    config::{ClusterId, Config, Live, Lives},
    contract::{
        DataPlane, DiscoveryContext, Part, Readiness, Shutdown, Stage, Stages, WorkerContext,
        WorkerHandle as _,
    },
    drain,
    metrics::{Metrics, ReloadMetrics},
    net::Reach,
    reload::{Ground, Side},
    server::StartError,
    status::Board,
    tls::{AllLoaded, Loaded},
};

/// Workers have a new cluster within this, or it is served as soon as they have.
const WORKERS_OPEN: Duration = Duration::from_secs(5);

/// What all clusters stand on.
pub(super) struct Foundation<P: DataPlane> {
    pub(super) plane: P,
    pub(super) workers: Vec<P::Worker>,
    pub(super) acceptor: Arc<Acceptor<P::Worker>>,
    /// The process's, as the readiness is.
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) stages: Stages,
    pub(super) threads: Threads,
    pub(super) process: Live,
}

/// The clusters that are served, the ports, and the pages about them.
pub(super) struct Sites<P: DataPlane> {
    base: Foundation<P>,
    /// Drives what has no thread of its own.
    runtime: Handle,
    all: BTreeMap<ClusterId, Site>,
    doors: Doors,
    admin: Option<(SocketAddr, Part)>,
    shelf: Shelf,
    ready: watch::Sender<Vec<Readiness>>,
    coming: Coming,
}

/// What is ready for the next configuration.
#[derive(Default)]
struct Coming {
    sites: BTreeMap<ClusterId, Site>,
    doors: Fresh,
    admin: Option<TcpListener>,
}

/// What is started for one cluster. It is over when this is dropped.
struct Site {
    config: Live,
    tls: Loaded,
    metrics: Metrics,
    readiness: Readiness,
    reach: Reach,
    shutdown: Shutdown,
    part: Part,
}

impl Site {
    fn worker(&self, cluster: ClusterId, index: usize) -> WorkerContext {
        WorkerContext {
            cluster,
            index,
            config: self.config.clone(),
            downstream_tls: self.tls.downstream.clone(),
            upstream_tls: self.tls.upstream.clone(),
            reach: self.reach.clone(),
            metrics: self.metrics.worker(),
            shutdown: self.shutdown.clone(),
        }
    }

    fn discovery(&self) -> DiscoveryContext {
        DiscoveryContext {
            config: self.config.clone(),
            upstream_tls: self.tls.upstream.clone(),
            reach: self.reach.clone(),
            metrics: self.metrics.control(),
            readiness: self.readiness.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

impl<P: DataPlane> Sites<P> {
    /// None yet, inside a tokio runtime.
    pub(super) fn new(base: Foundation<P>) -> Self {
        let (ready, gathered) = watch::channel(Vec::new());
        if !base.process.get().clusters.is_empty() {
            tokio::spawn(ready::gather(base.readiness.clone(), gathered));
        }
        Self {
            base,
            runtime: Handle::current(),
            all: BTreeMap::new(),
            doors: Doors::default(),
            admin: None,
            shelf: Shelf::default(),
            ready,
            coming: Coming::default(),
        }
    }

    /// Begins with these.
    pub(super) fn begin(
        &mut self,
        lives: &Lives,
        loaded: &AllLoaded,
        bound: Bound,
    ) -> Result<BTreeMap<ClusterId, Side>, StartError> {
        let mut sides = BTreeMap::new();
        for ((id, live), tls) in lives.clusters.iter().zip(&loaded.clusters) {
            let (site, _) = self.open(*id, live.clone(), tls.clone())?;
            if let Some(tenant) = &live.get().tenant {
                let side = Side::new(Some(&tenant.name), tls.clone(), site.metrics.reloads());
                sides.insert(*id, side);
            }
            self.coming.sites.insert(*id, site);
        }
        self.coming.doors = bound.clients;
        self.coming.admin = Some(bound.admin);
        self.serve(&lives.process.get())?;
        Ok(sides)
    }

    /// Starts what a cluster needs, but for clients. Each worker says when it has it.
    fn open(
        &self,
        id: ClusterId,
        config: Live,
        tls: Loaded,
    ) -> io::Result<(Site, mpsc::Receiver<()>)> {
        let (base, now) = (&self.base, config.get());
        let (metrics, readiness) = match &now.tenant {
            Some(tenant) => (
                base.metrics.of_cluster(&tenant.name),
                Readiness::of(&tenant.name),
            ),
            None => (base.metrics.clone(), base.readiness.clone()),
        };
        metrics.control().clients_max(now.limits.clients_max);
        let (part, shutdown) = base.stages.part();
        let site = Site {
            reach: Reach::system(&now.cluster.name_servers),
            config,
            tls,
            metrics,
            readiness,
            shutdown,
            part,
        };
        base.plane.add_cluster(id, &now);
        match base.plane.spawn_discovery(id, site.discovery()) {
            Ok(thread) => base.threads.add(thread),
            Err(error) => {
                base.plane.forget_cluster(id);
                return Err(error);
            }
        }
        let (done, opened) = mpsc::channel();
        for (index, worker) in base.workers.iter().enumerate() {
            worker.open(site.worker(id, index), done.clone());
        }
        Ok((site, opened))
    }

    /// Lets clients in to what is new.
    fn serve(&mut self, config: &Config) -> io::Result<()> {
        let _inside = self.runtime.enter();
        let coming = std::mem::take(&mut self.coming);
        for (id, site) in coming.sites {
            let shown = self.show(id, &site)?;
            self.shelf.add(id, shown);
            self.all.insert(id, site);
        }
        let accept = |listener, whose, shutdown| {
            let accepting = Arc::clone(&self.base.acceptor).run(listener, whose, shutdown);
            tokio::spawn(report(accepting, "the acceptor"));
        };
        let stages = &self.base.stages;
        self.doors.settle(config, coming.doors, stages, accept)?;
        if let Some(listener) = coming.admin {
            let pages = admin::Pages {
                metrics: self.base.metrics.clone(),
                readiness: self.base.readiness.clone(),
                clusters: self.shelf.clone(),
            };
            let (address, (part, shutdown)) = (listener.local_addr()?, stages.part());
            let page = admin::run(listener, pages, shutdown);
            tokio::spawn(report(page, "the admin port"));
            self.admin = Some((address, part));
        }
        let all = self.all.values().map(|site| site.readiness.clone());
        self.ready.send_replace(all.collect());
        Ok(())
    }

    /// What the admin port shows of a cluster.
    fn show(&self, id: ClusterId, site: &Site) -> io::Result<Shown> {
        let observer = self.base.plane.observer(id)?;
        let board = Board::new(
            &site.config,
            &self.base.process,
            observer,
            site.readiness.clone(),
        );
        let running = board.clone();
        tokio::spawn(running.run(site.metrics.clone(), site.shutdown.clone()));
        tokio::spawn(follow_clients_max(
            site.config.clone(),
            site.metrics.control(),
            site.shutdown.clone(),
        ));
        let tenant = site.config.get().tenant.clone();
        let several = tenant.map(|tenant| (tenant.name, site.metrics.clone()));
        Ok(Shown::new(several, site.readiness.clone(), board))
    }

    /// Lets the clients of a cluster go that is not served any more, and forgets it.
    fn dismiss(&self, id: ClusterId, site: Site, config: &Config) {
        let (drain, shelf, plane) = (
            config.drain.clone(),
            self.shelf.clone(),
            self.base.plane.clone(),
        );
        let name = site.config.get().tenant.clone().map(|tenant| tenant.name);
        shelf.leave(id);
        let observer = plane.observer(id);
        self.runtime.spawn(async move {
            let began = Instant::now();
            let clients = || observer.as_ref().map_or(0, |observer| observer.clients());
            tracing::info!(
                cluster = name.as_deref(),
                clients = clients(),
                "the cluster is not served any more; its clients leave"
            );
            drain::dismiss(&drain, &|stage| site.part.enter(stage), &clients).await;
            let left = clients();
            site.part.enter(Stage::Over);
            shelf.gone(id);
            plane.forget_cluster(id);
            let (cluster, after_ms) = (name.as_deref(), began.elapsed().as_millis());
            tracing::info!(cluster, left, after_ms, "the cluster is gone");
        });
    }
}

impl<P: DataPlane> Ground for Sites<P> {
    fn prepare(
        &mut self,
        config: &mut Config,
        added: Vec<(ClusterId, Live, Loaded)>,
    ) -> Result<Vec<(ClusterId, ReloadMetrics)>, String> {
        let mut coming = Coming {
            doors: self
                .doors
                .prepare(config)
                .map_err(|error| error.to_string())?,
            ..Coming::default()
        };
        let address = config.admin.address;
        if self
            .admin
            .as_ref()
            .is_none_or(|(bound, _)| *bound != address)
        {
            let listener = doors::bind_again(address, config.listen.reuse_port);
            let at = |error| format!("admin.address: cannot listen on {address}: {error}");
            let listener = listener.map_err(at)?;
            config.admin.address = listener.local_addr().map_err(at)?;
            coming.admin = Some(listener);
        }
        let mut metrics = Vec::new();
        for (id, live, tls) in added {
            let (site, opened) = match self.open(id, live, tls) {
                Ok(opened) => opened,
                Err(error) => {
                    let begun = coming.sites.into_keys();
                    begun.for_each(|id| self.base.plane.forget_cluster(id));
                    return Err(format!("cannot start a cluster: {error}"));
                }
            };
            let workers = self.base.workers.len();
            let until = Instant::now() + WORKERS_OPEN;
            let left = || until.saturating_duration_since(Instant::now());
            if (0..workers).any(|_| opened.recv_timeout(left()).is_err()) {
                tracing::warn!("a worker is busy; it serves the new cluster when it has time");
            }
            metrics.push((id, site.metrics.reloads()));
            coming.sites.insert(id, site);
        }
        self.coming = coming;
        Ok(metrics)
    }

    fn settle(&mut self, config: &Config) {
        if let Err(error) = self.serve(config) {
            tracing::error!(%error, "a port or page is not served; restart Keyway");
        }
        if config.clusters.is_empty() {
            return;
        }
        let stays = |id: &ClusterId| config.of_each().any(|(own, _)| own == *id);
        let gone: Vec<ClusterId> = self.all.keys().copied().filter(|id| !stays(id)).collect();
        for id in gone {
            if let Some(site) = self.all.remove(&id) {
                self.dismiss(id, site, config);
            }
        }
        let order: Vec<ClusterId> = config.of_each().map(|(id, _)| id).collect();
        self.shelf.arrange(&order);
        let all = self.all.values().map(|site| site.readiness.clone());
        self.ready.send_replace(all.collect());
    }
}
