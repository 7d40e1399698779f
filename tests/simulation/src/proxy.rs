//! What is tried: the proxy, as the world deals with it.

use std::fmt::Debug;

use crate::{history::Violation, world::World};

/// The proxy between the clients and the cluster.
pub(crate) trait Proxy: Sized {
    /// One try to connect to a node.
    type Attempt: Copy + Debug + PartialEq;

    // ---- the clients' side; `at` is the client's place ----

    /// A client connects.
    fn opened(world: &mut World<Self>, at: usize);
    /// Whether there is something that has not arrived at the proxy.
    fn is_sending(world: &World<Self>, at: usize) -> bool;
    /// Some of what the client sends arrives.
    fn arrive(world: &mut World<Self>, at: usize);
    /// The driver of the client's connection runs.
    fn turn(world: &mut World<Self>, at: usize) -> Result<(), Violation>;
    /// The client reads.
    fn client_reads(world: &mut World<Self>, at: usize) -> Result<(), Violation>;
    /// The client closes its side, and waits for the other.
    fn leaves(world: &mut World<Self>, at: usize);
    /// The client's connection is gone.
    fn gone(world: &mut World<Self>, at: usize) -> Result<(), Violation>;

    /// The worker that serves the client at a place.
    fn worker_of_client(_: &World<Self>, _: usize) -> usize {
        0
    }

    // ---- the nodes' side ----

    /// The worker that has asked for a connection.
    fn worker_of(&self, _: Self::Attempt) -> usize {
        0
    }

    /// Whether a connection is still wanted.
    fn wants(&self, attempt: Self::Attempt) -> bool;
    /// A connection is made, as link `id`; `None`: it is refused.
    fn connected(
        world: &mut World<Self>,
        attempt: Self::Attempt,
        id: Option<u64>,
    ) -> Result<(), Violation>;
    /// The driver of a link runs.
    fn drive(world: &mut World<Self>, id: u64) -> Result<(), Violation>;
    /// A node has taken so many bytes of a link: there is room for as many others.
    fn has_room(world: &mut World<Self>, id: u64, count: usize);
    /// Bytes come from a node.
    fn bring(world: &mut World<Self>, id: u64, bytes: &[u8]) -> Result<(), Violation>;
    /// The system says that a link is over: by its end, or by an error.
    fn lost(world: &mut World<Self>, id: u64, in_order: bool) -> Result<(), Violation>;

    /// What nodes tell of changed keys gets lost, so that there is something to find.
    fn loses_news(&self) -> bool {
        false
    }

    // ---- the rest ----

    /// Time passes.
    fn tick(world: &mut World<Self>) -> Result<(), Violation>;
    /// The topology is looked at.
    fn look(world: &mut World<Self>) -> Result<(), Violation>;

    /// What was kept back for a moment leaves.
    fn uncork(world: &mut World<Self>) -> Result<(), Violation>;
    /// What is under way; `None` at rest.
    fn unrest(&self) -> Option<String>;
    /// The first gauge that is not zero; `None` at rest.
    fn in_flight(&mut self) -> Option<String>;
}
