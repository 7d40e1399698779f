//! The threads of one proxy: those of the workers, and one discovery for each cluster.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::{runtime::LocalOptions, sync::mpsc};

use super::{Observer, Shared, counters::Counters, hall, mix, turns};
use crate::{
    acceptor::Accepted,
    access::AccessLog,
    config::Config,
    contract::{self, DiscoveryContext, HallContext},
    discovery,
    metrics::TraceMetrics,
    traces::Traces,
};

/// The workers and the discoveries of one proxy, as the server starts them.
#[derive(Debug)]
pub struct Plane {
    /// What is shared of each cluster.
    pub(super) clusters: Vec<Arc<Shared>>,
}

impl Plane {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Self::seeded(config, RandomState::new().build_hasher().finish())
    }

    /// The same, with a seed of which all that looks like chance is made.
    #[must_use]
    pub fn seeded(config: &Arc<Config>, seed: u64) -> Self {
        let shared = |(seed, config)| Arc::new(Shared::new(config, seed));
        let clusters = if config.clusters.is_empty() {
            vec![shared((seed, config))]
        } else {
            let seeds = (1..).map(|place: u64| mix(seed ^ place));
            seeds.zip(&config.clusters).map(shared).collect()
        };
        Self { clusters }
    }

    /// The same, whose workers write some of their commands to this log.
    #[must_use]
    pub fn logging(self, access: Option<AccessLog>) -> Self {
        for shared in &self.clusters {
            if let Some(access) = &access {
                let _ = shared.access.set(access.clone()); // it is new, and has none
            }
        }
        self
    }

    /// The same, whose workers have some of their commands traced.
    #[must_use]
    pub fn traced(self, traces: Option<Traces>) -> Self {
        for shared in &self.clusters {
            if let Some(traces) = &traces {
                let _ = shared.traces.set(traces.clone()); // it is new, and has none
            }
        }
        self
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
        let letters = hall::letters(context.index, &self.clusters);
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
                    runtime.block_on(hall::run(context, letters, counters, receiver));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        starts.recv().map_err(io::Error::other)??;
        Ok((handle, thread))
    }

    fn spawn_discovery(
        &self,
        cluster: usize,
        context: DiscoveryContext,
    ) -> io::Result<JoinHandle<()>> {
        discovery::spawn(context, Arc::clone(self.shared(cluster)?))
    }

    fn traces(&self) -> TraceMetrics {
        let traces = self.clusters.first().and_then(|shared| shared.traces.get());
        traces.map(Traces::metrics).unwrap_or_default()
    }

    fn observer(&self, cluster: usize) -> io::Result<Observer> {
        Ok(Observer(Arc::clone(self.shared(cluster)?)))
    }
}

impl Plane {
    fn shared(&self, cluster: usize) -> io::Result<&Arc<Shared>> {
        let shared = self.clusters.get(cluster);
        shared.ok_or_else(|| io::Error::other("no such cluster"))
    }
}

/// The acceptor's end of a worker's thread.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Bounded by `clients_max`: the acceptor gives no more.
    sender: mpsc::UnboundedSender<Accepted>,
    counters: Arc<Counters>,
}

impl contract::WorkerHandle for Handle {
    fn give(&self, accepted: Accepted) {
        self.counters.connection_given();
        if self.sender.send(accepted).is_err() {
            self.counters.connection_gone(); // the worker has ended, and so will the process
        }
    }

    fn connections(&self) -> usize {
        self.counters.connections()
    }
}
