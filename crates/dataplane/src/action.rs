//! What the dataplane wants done by those who can.

use bytes::Bytes;
use session::local::Inquiry;
use topology::{NodeAddr, Slot};

use crate::{channel::Attempt, slots::Key};

/// Something to be done outside. Taken with [`Dataplane::take_actions`](crate::Dataplane::take_actions)
/// after every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to a node (and speak TLS, where the cluster does), then say how it went.
    Connect {
        /// Which attempt this is: later calls name it.
        attempt: Attempt,
        /// Where to.
        addr: NodeAddr,
    },
    /// Close the connection of an attempt; it is over.
    Drop(Attempt),
    /// There may be something to write to a node.
    WakeChannel(Attempt),
    /// There may be something to write to a client, to take from it, or to end it.
    WakeClient(Key),
    /// Call [`Dataplane::uncork`](crate::Dataplane::uncork), [`UNCORK_AFTER`](crate::UNCORK_AFTER) from now.
    Uncork,
    /// A client has shown a script that other workers may not have seen.
    Script(Bytes),
    /// Ask all other workers, and tell the dataplane what each answered.
    AskWorkers {
        /// Whose question it is.
        client: Key,
        /// The id of that client.
        id: u64,
        /// The question.
        inquiry: Box<Inquiry>,
    },
    /// A client has had all scripts forgotten: other workers forget theirs.
    ScriptsForgotten,
    /// Somebody wants to know what the nodes count: add it up again soon.
    Count,
    /// Somebody reads from replicas: watch over them for a while.
    WatchReaders,
    /// Find out the topology again; what is known may be old.
    Refresh,
    /// A node said that a slot has moved to a node that is known.
    Moved {
        /// The slot.
        slot: Slot,
        /// Its owner from now on.
        to: NodeAddr,
    },
}
