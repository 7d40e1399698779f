//! Workers on the runtime that they are begun on, with the discovery beside them: for simulations,
//! which bring their own clock, network and clients.

use std::{rc::Rc, sync::Arc};

use dataplane::Dataplane;

use super::{
    Plane,
    counters::Counters,
    hall::{self, Hall},
    turns::Clock,
};
use crate::{
    acceptor::Accepted,
    config::ClusterId,
    contract::{DiscoveryContext, HallContext},
    discovery, downstream,
    net::Socket,
};

/// A worker without a thread of its own.
pub struct Here {
    hall: Rc<Hall>,
}

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").finish_non_exhaustive()
    }
}

impl Plane {
    /// Begins a worker, inside a tokio `LocalSet`.
    #[must_use]
    pub fn begin_here(&self, context: HallContext) -> Here {
        let counters = Arc::new(Counters::default());
        Here {
            hall: hall::open(context, self.clone(), counters, Clock::exact),
        }
    }

    /// Follows the topology of the first cluster until the end.
    pub fn discover_here(&self, context: DiscoveryContext) -> impl Future<Output = ()> + use<> {
        let shared = self.shared_of(ClusterId::FIRST);
        async {
            if let Some(shared) = shared {
                discovery::run(context, shared).await;
            }
        }
    }
}

impl Here {
    /// Serves a client.
    pub fn serve<S: Socket + 'static>(&self, accepted: Accepted<S>) {
        self.hall.counters.connection_given();
        let task = downstream::serve(Rc::clone(&self.hall), accepted);
        tokio::task::spawn_local(task);
    }

    /// Clients that are served.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.hall.counters.connections()
    }

    /// What is under way, kept back or lent; `None` at rest.
    #[must_use]
    pub fn unrest(&self) -> Option<String> {
        let worker = self.hall.worker(ClusterId::FIRST)?;
        worker.ask(Dataplane::unrest)
    }
}
