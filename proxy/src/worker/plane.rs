//! The threads of one proxy: those of the workers, and one discovery for each cluster.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread::{self, JoinHandle},
};

use tokio::{runtime::LocalOptions, sync::mpsc};

use super::{Observer, Shared, counters::Counters, hall, hall::Errand, mix, shares::Shares, turns};
use crate::{
    acceptor::Accepted,
    config::{ClusterId, Config},
    contract::{self, DiscoveryContext, HallContext, WorkerContext},
    discovery,
    outlets::Outlets,
};

/// The workers and the discoveries of one proxy, as the server starts them.
#[derive(Clone, Debug)]
pub struct Plane(Arc<Grounds>);

#[derive(Debug)]
struct Grounds {
    seed: u64,
    /// Where some commands are told of.
    outlets: Outlets,
    shares: Shares,
    /// What is shared of each cluster.
    clusters: Mutex<BTreeMap<ClusterId, Arc<Shared>>>,
}

impl Plane {
    /// Nothing runs yet.
    #[must_use]
    pub fn new() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// The same, with a seed of which all that looks like chance is made.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::of(seed, Outlets::default())
    }

    /// The same as [`Plane::new`], whose workers tell some of their commands there.
    #[must_use]
    pub fn telling(outlets: Outlets) -> Self {
        Self::of(Self::new().0.seed, outlets)
    }

    fn of(seed: u64, outlets: Outlets) -> Self {
        Self(Arc::new(Grounds {
            seed,
            outlets,
            shares: Shares::default(),
            clusters: Mutex::default(),
        }))
    }

    /// What is shared of a cluster.
    pub(super) fn shared_of(&self, cluster: ClusterId) -> Option<Arc<Shared>> {
        let all = self.0.clusters.lock();
        let all = all.unwrap_or_else(PoisonError::into_inner);
        all.get(&cluster).cloned()
    }
}

impl Default for Plane {
    fn default() -> Self {
        Self::new()
    }
}

impl contract::DataPlane for Plane {
    type Worker = Handle;

    fn spawn_worker(&self, context: HallContext) -> io::Result<(Handle, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let handle = Handle {
            sender,
            counters: Arc::clone(&counters),
        };
        let plane = self.clone();
        let name = format!("worker-{}", context.index);
        let (started, starts) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Made here, for it cannot go to another thread.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_unpark(turns::turned)
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = started.send(Ok(())); // whoever waited for it has given up
                    runtime.block_on(hall::run(context, plane, counters, receiver));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        starts.recv().map_err(io::Error::other)??;
        Ok((handle, thread))
    }

    fn add_cluster(&self, cluster: ClusterId, config: &Arc<Config>) {
        let place = u64::try_from(cluster.place()).unwrap_or_default();
        let seed = match &config.tenant {
            Some(_) => mix(self.0.seed ^ (place + 1)),
            None => self.0.seed,
        };
        let common = (self.0.outlets.clone(), self.0.shares.clone());
        let shared = Shared::new(config, seed, common);
        self.0.shares.of(config); // the others make room before its clients come
        let all = self.0.clusters.lock();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        all.insert(cluster, Arc::new(shared));
    }

    fn outlets(&self) -> Outlets {
        self.0.outlets.clone()
    }

    fn forget_cluster(&self, cluster: ClusterId) {
        self.0.shares.leave(cluster);
        let all = self.0.clusters.lock();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        all.remove(&cluster);
    }

    fn spawn_discovery(
        &self,
        cluster: ClusterId,
        context: DiscoveryContext,
    ) -> io::Result<JoinHandle<()>> {
        discovery::spawn(context, self.shared(cluster)?)
    }

    fn observer(&self, cluster: ClusterId) -> io::Result<Observer> {
        Ok(Observer(self.shared(cluster)?))
    }
}

impl Plane {
    fn shared(&self, cluster: ClusterId) -> io::Result<Arc<Shared>> {
        let shared = self.shared_of(cluster);
        shared.ok_or_else(|| io::Error::other("no such cluster"))
    }
}

/// The acceptor's end of a worker's thread.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Bounded by `clients_max`: the acceptor gives no more.
    sender: mpsc::UnboundedSender<Errand>,
    counters: Arc<Counters>,
}

impl contract::WorkerHandle for Handle {
    fn give(&self, accepted: Accepted) {
        self.counters.connection_given();
        if self.sender.send(Errand::Client(accepted)).is_err() {
            self.counters.connection_gone(); // the worker has ended, and so will the process
        }
    }

    fn connections(&self) -> usize {
        self.counters.connections()
    }

    fn open(&self, context: WorkerContext, done: std_mpsc::Sender<()>) {
        // A worker that has ended needs no cluster.
        let _ = self.sender.send(Errand::Open(Box::new(context), done));
    }
}
