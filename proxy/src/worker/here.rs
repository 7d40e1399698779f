//! Workers on the runtime that they are begun on, with the discovery beside them: for simulations,
//! which bring their own clock, network and clients.

use std::{rc::Rc, sync::Arc};

use dataplane::Dataplane;
use tokio::sync::mpsc;

use super::{Clock, Counters, Plane, Worker, begin};
use crate::{
    acceptor::Accepted,
    contract::{DiscoveryContext, WorkerContext},
    discovery, downstream,
    net::Socket,
};

/// A worker without a thread of its own.
pub struct Here {
    worker: Rc<Worker>,
}

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").finish_non_exhaustive()
    }
}

impl Plane {
    /// Begins a worker, inside a tokio `LocalSet`.
    #[must_use]
    pub fn begin_here(&self, context: WorkerContext) -> Here {
        let counters = Arc::new(Counters::default());
        self.shared.add_counters(&counters);
        let (sender, mut mail) = mpsc::unbounded_channel();
        self.shared.add_worker(context.index, sender);
        let worker = begin(context, Arc::clone(&self.shared), counters, Clock::exact());
        let reader = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            while let Some(mail) = mail.recv().await {
                reader.read(mail);
            }
        });
        Here { worker }
    }

    /// Follows the topology until the end.
    pub fn discover_here(&self, context: DiscoveryContext) -> impl Future<Output = ()> + use<> {
        discovery::run(context, Arc::clone(&self.shared))
    }
}

impl Here {
    /// Serves a client.
    pub fn serve<S: Socket + 'static>(&self, accepted: Accepted<S>) {
        self.worker.counters.connection_given();
        let task = downstream::serve(Rc::clone(&self.worker), accepted);
        tokio::task::spawn_local(task);
    }

    /// Clients that are served.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.worker.counters.connections()
    }

    /// What is under way, kept back or lent; `None` at rest.
    #[must_use]
    pub fn unrest(&self) -> Option<String> {
        self.worker.ask(Dataplane::unrest)
    }
}
