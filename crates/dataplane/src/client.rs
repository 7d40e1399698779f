//! One client as the dataplane keeps it.

use std::{fmt, hint::black_box, sync::Arc, time::Instant};

use bytes::BytesMut;
use resp::RequestDecoder;
use routing::Slot;
use session::{Place, Session, local::AfterAuth};

use crate::{
    confirm::Doubted,
    cork::Cork,
    inquiry,
    lease::Watch,
    seats::Seat,
    slots::Key,
    subscribe::{Pending, Subscriptions},
};

/// Why a client connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// `QUIT`.
    Quit,
    /// `CLIENT KILL`
    Killed,
    /// Who vouched for its certificate is not trusted any more, or has revoked it.
    Untrusted,
    /// The configuration names its user no more.
    UserGone,
    /// Its user has as many clients as it may have.
    UserFull,
    /// It has sent nothing for long.
    Idle,
    /// It has been here for long.
    Age,
    /// All clients together kept too much waiting, and this one the most.
    Memory {
        /// Bytes that waited for it.
        waiting: usize,
    },
    /// The process ends.
    Leaving,
    /// The client closed its side.
    Eof,
    /// The client broke the protocol; what it was told, if anything.
    Protocol(String),
    /// Replies piled up: the client reads too slowly, or not at all.
    Output {
        /// Bytes that waited.
        waiting: usize,
    },
    /// A command was half sent and never finished.
    HalfRequest,
    /// No whole command came.
    NoCommand,
    /// A node's connection ended within a reply that the client has the beginning of.
    CutOff,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("QUIT"),
            Self::Killed => f.write_str("CLIENT KILL"),
            Self::Untrusted => f.write_str("its certificate is not trusted any more"),
            Self::UserGone => f.write_str("its user is not in the configuration any more"),
            Self::Leaving => f.write_str("Keyway is ending"),
            Self::UserFull => f.write_str("its user has limits.clients_per_user_max clients"),
            Self::Idle => f.write_str("no command for limits.idle_timeout_ms"),
            Self::Age => f.write_str("connected for limits.max_connection_age_ms"),
            Self::Memory { waiting } => write!(
                f,
                "limits.memory_bytes_max is reached, and {waiting} bytes that waited are the most of any client"
            ),
            Self::Eof => f.write_str("closed by the client"),
            Self::Protocol(text) => write!(f, "protocol error: {text}"),
            Self::Output { waiting } => {
                write!(
                    f,
                    "{waiting} bytes of replies waited for a client that does not read them"
                )
            }
            Self::HalfRequest => f.write_str("a command was half sent and never finished"),
            Self::NoCommand => f.write_str("no command came in time"),
            Self::CutOff => f.write_str("a node's connection ended within a reply"),
        }
    }
}

/// How a client connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub why: Why,
    /// At once, whatever is still owed. Otherwise after the last reply.
    pub at_once: bool,
}

/// Why nothing more is taken from a client for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// Valkey judges its credentials.
    Auth,
    /// A command that changes who it is or how it speaks waits for those before it.
    Barrier,
    /// A command of its has a node connection of its own.
    Lease,
    /// The workers have not all answered.
    Inquiry,
    /// `CLIENT PAUSE`
    Paused,
    /// A subscription is not confirmed.
    Subscription,
    /// Too many replies are owed.
    InFlight,
    /// Too many bytes wait for it to read them.
    Output,
    /// A node connection's queue is full.
    Room,
}

/// A node was asked to end a command that blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unblocking {
    /// What is not ended then is ended here.
    pub(crate) until: Instant,
    /// The reply is an error.
    pub(crate) error: bool,
}

/// Credentials that Valkey judges now.
#[derive(Debug)]
pub(crate) struct PendingAuth {
    pub(crate) place: Place,
    pub(crate) then: AfterAuth,
    pub(crate) identity: Key,
    /// The configuration knows the user.
    pub(crate) mapped: bool,
    pub(crate) username: Arc<[u8]>,
    pub(crate) since: Instant,
}

/// Where a client's `SCAN` is sent without a keyed command that makes sure of the slot's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unguarded {
    /// The client's user may not run it.
    Everywhere,
    /// The slot is being moved key by key: its owner would send the guard elsewhere.
    In(Slot),
}

impl Unguarded {
    pub(crate) fn covers(self, slot: Slot) -> bool {
        self == Self::Everywhere || self == Self::In(slot)
    }
}

/// Everything about a client but its unread bytes and its decoder.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) session: Session,
    pub(crate) identity: Key,
    /// Its place among the clients of its user.
    pub(crate) seat: Option<Seat>,
    /// The routing epoch when its first command in flight went out; while that is still the
    /// epoch, and nothing is held, no barrier can be needed.
    pub(crate) calm: u64,
    pub(crate) blocked: Option<Blocked>,
    pub(crate) auth: Option<PendingAuth>,
    /// The node connection that its command in flight has to itself.
    pub(crate) lease: Option<Key>,
    /// One to each shard, for `WAIT`.
    pub(crate) waits: Vec<Key>,
    /// Its node was asked to end the command that blocks (`CLIENT UNBLOCK`).
    pub(crate) unblocking: Option<Box<Unblocking>>,
    /// Its command in flight is to have one, or has it.
    pub(crate) leasing: bool,
    pub(crate) watch: Option<Watch>,
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// A command about all keys, which has no other in flight beside it.
    pub(crate) alone: Option<Place>,
    /// The one that waits to be confirmed.
    pub(crate) subscribing: Option<Box<Pending>>,
    pub(crate) inquiry: Option<Box<inquiry::Pending>>,
    /// Its scripts whose answers look like the cluster's.
    pub(crate) doubted: Vec<Doubted>,
    /// Where its `SCAN` cannot have a guard.
    pub(crate) unguarded: Option<Unguarded>,
    /// Its user may not ask for the epoch.
    pub(crate) uninformed: bool,
    /// What it is about to get waits for more.
    pub(crate) cork: Cork,
    pub(crate) woken: bool,
    /// One of its parts has got its outcome, and others are kept back.
    pub(crate) poke: bool,
    pub(crate) listed_as_held: bool,
    /// So many of its next commands take the bulk lane.
    pub(crate) bulky: u16,
    pub(crate) ending: Option<Ending>,
    pub(crate) half_since: Option<Instant>,
    /// Its next command waits for the first look at the cluster since then.
    pub(crate) asks_since: Option<Instant>,
    /// It sends no more.
    pub(crate) eof: bool,
    /// Its requests have the limits of those who have authenticated.
    pub(crate) trusted: bool,
    /// When it last took bytes that waited for it.
    pub(crate) drained_at: Instant,
}

impl State {
    /// Whether a reply that has come is more than one that waits for its turn or for its other parts:
    /// there is something to write, or what the client waits for may have happened.
    pub(crate) fn has_news(&self) -> bool {
        !self.session.output.is_empty() || self.waits() || self.session.order.is_empty()
    }

    /// What comes next has moved on from this place: commands were taken, all in one piece.
    #[inline]
    pub(crate) fn took_since(&mut self, place: Place) {
        let next = self.session.order.next_place();
        self.cork.took(next.since(place), next);
    }

    /// Whether a reply may be what something waits for, beside whoever reads it.
    pub(crate) fn waits(&self) -> bool {
        let blocked = self.blocked.is_some() || self.leasing || self.lease.is_some();
        blocked || self.poke || self.ending.is_some()
    }

    /// Ends the connection, unless it ends at once already.
    pub(crate) fn end(&mut self, why: Why, at_once: bool) {
        if self
            .ending
            .as_ref()
            .is_none_or(|ending| at_once && !ending.at_once)
        {
            self.ending = Some(Ending { why, at_once });
        }
        self.session.closing = true;
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) decoder: RequestDecoder,
    /// Bytes of requests that were not taken yet.
    pub(crate) pending: BytesMut,
    pub(crate) state: State,
}

impl Client {
    /// Reads a little of everything that its next command or reply will need. With thousands of clients
    /// the caches have lost most of that: reads that do not depend on each other are waited for
    /// together, those on the way of a command one after the other.
    #[inline]
    pub(crate) fn touch(&self) {
        let state = &self.state;
        let session = &state.session;
        black_box(self.pending.len() ^ session.output.len() ^ session.order.touch());
        black_box(state.calm ^ session.bytes_in ^ session.bytes_out ^ session.commands);
        black_box(state.blocked.is_some() ^ state.seat.is_some() ^ state.ending.is_some());
    }
}
