//! One node connection as the dataplane keeps it: it outlives the attempts to connect.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use resp::Protocol;
use session::Route;
use topology::{NodeAddr, NodeId, Role, Topology};
use upstream::{Abandoned, Backoff, Connection, Phase};

use crate::{coalesce::Coalescer, figures::Times, reads::Zone, slots::Key, ticket::Ticket};

/// One attempt at one node connection. A channel that connects again has another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The channel.
    pub channel: Key,
    /// Which of its attempts; unique in this worker, never reused.
    pub number: u64,
}

/// A pipeline's class: what is big or slow must not be in the way of what is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Most commands.
    #[default]
    Fast,
    /// Slow commands, big requests, and the commands of clients that get big replies.
    Bulk,
}

/// A request of so many bytes takes the bulk lane.
const BULK_BYTES: usize = 64 * 1024;
/// After a reply that was too big to be passed on whole, so many of a client's commands take the
/// bulk lane.
pub(crate) const BULKY_FOR: u16 = 64;

impl Lane {
    /// The lane of a request: `slow` by its command, `bulky` by what its client got before.
    pub(crate) fn of(request: usize, slow: bool, bulky: bool) -> Self {
        if slow || bulky || request >= BULK_BYTES {
            Self::Bulk
        } else {
            Self::Fast
        }
    }
}

/// Whether a request of so many bytes takes the bulk lane whoever sends it; `slow` by its command.
#[must_use]
pub fn takes_bulk_lane(request: usize, slow: bool) -> bool {
    Lane::of(request, slow, false) == Lane::Bulk
}

/// What a connection was set up with. Shared only within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Profile {
    pub(crate) identity: Key,
    pub(crate) protocol: Protocol,
    pub(crate) database: u32,
    pub(crate) lane: Lane,
    /// Its node is a replica, asked to answer reads itself (`READONLY`).
    pub(crate) replica: bool,
}

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Commands.
    Commands,
    /// Commands of one client at a time.
    Lease,
    /// Messages of subscriptions.
    Messages,
    /// What a near cache asks and is told.
    Near,
    /// To hear Valkey's verdict about its identity's credentials; then it closes.
    Verdict,
}

/// Queued bytes beyond which a channel takes no more commands.
const QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Queued commands beyond which a channel takes no more.
const QUEUED_MAX: usize = 16 * 1024;
/// A node that owes an answer for longer may be slow, or gone. The cluster is asked.
pub(crate) const STALL: Duration = Duration::from_millis(500);
/// A channel without commands for so long is closed.
pub(crate) const IDLE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) addr: NodeAddr,
    pub(crate) node: Option<NodeId>,
    /// What the node was when the channel was last chosen.
    pub(crate) role: Option<Role>,
    pub(crate) profile: Profile,
    pub(crate) purpose: Purpose,
    pub(crate) zone: Zone,
    pub(crate) connection: Connection<Ticket>,
    /// Commands that get the reply of another.
    pub(crate) reads: Coalescer,
    /// The route of the current attempt, whose number it is.
    pub(crate) route: Route,
    pub(crate) backoff: Backoff,
    /// When the current attempt is to be started; `None` when it is.
    pub(crate) connect_at: Option<Instant>,
    /// The node has owed an answer for [`STALL`]: until it comes, nothing more is written, so that
    /// what is queued certainly has not run.
    pub(crate) stalled: bool,
    /// The shell knows that there is something to write.
    pub(crate) dirty: bool,
    /// The unfinished line at the end of what was read last.
    pub(crate) unread: BytesMut,
    pub(crate) used_at: Instant,
    /// Another takes its commands; it closes when it has nothing in flight, or no client.
    pub(crate) leaves: bool,
    /// Commands in flight, as the host was told.
    pub(crate) told: usize,
    /// Why the last attempt ended.
    pub(crate) trouble: String,
    /// How long the node's answers took.
    pub(crate) trips: Times,
}

impl Channel {
    pub(crate) fn attempt(&self, key: Key) -> Attempt {
        Attempt {
            channel: key,
            number: self.route.0,
        }
    }

    /// Whether its node is the one it was chosen for, and still what it was then.
    pub(crate) fn serves(&self, topology: &Topology) -> bool {
        topology
            .node_by_addr(&self.addr)
            .is_some_and(|node| Some(node.id) == self.node && Some(node.role) == self.role)
    }

    /// Everything without a whole reply, oldest first. The connection is over.
    pub(crate) fn abandon(&mut self) -> Vec<Abandoned<Ticket>> {
        let abandoned = self.connection.abandon();
        self.reads.spread(abandoned)
    }

    /// Whether another command may be queued.
    pub(crate) fn has_room(&self) -> bool {
        let pipeline = self.connection.pipeline();
        pipeline.queued_bytes() < QUEUED_BYTES_MAX && pipeline.in_flight() < QUEUED_MAX
    }

    /// How many commands more, or fewer, are in flight than was told last.
    pub(crate) fn in_flight_delta(&mut self) -> i64 {
        let now = self.connection.pipeline().in_flight();
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let delta = signed(now) - signed(self.told);
        self.told = now;
        delta
    }

    /// Whether the node has owed an answer for [`STALL`] at `now`.
    pub(crate) fn stalls(&self, now: Instant) -> bool {
        let owing = self.connection.pipeline().owing_since();
        self.is_ready() && owing.is_some_and(|since| since + STALL <= now)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.connection.phase() == Phase::Ready
    }
}
