//! Who runs a dataplane: what it is told for metrics and logs, and what it is asked.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use command::CommandId;
use resp::Protocol;
use routing::Slot;
use session::{User, local::keyway::Question};
use topology::NodeAddr;

use upstream::{CloseReason, Phase};

use crate::{follow::Followed, reads::Zone};

/// Which kind of answer sent a command elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectKind {
    /// `MOVED`
    Moved,
    /// `ASK`
    Ask,
    /// `TRYAGAIN`
    TryAgain,
    /// `CLUSTERDOWN`
    ClusterDown,
    /// `LOADING`
    Loading,
    /// `MASTERDOWN`
    MasterDown,
    /// `READONLY`
    ReadOnly,
}

/// Which kind of error the proxy itself gave to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The client broke the protocol.
    Protocol,
    /// The command is unknown, malformed, or refused.
    Refused,
    /// The client has to authenticate first, or its credentials were refused.
    Auth,
    /// A write may or may not have run.
    UnknownOutcome,
    /// No node could take the command in time.
    Unavailable,
    /// A redirected command was overtaken by a later one on its key.
    Overtaken,
}

/// Numbers of the whole process, for `INFO` and its like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Client connections now.
    pub clients: usize,
    /// Client connections since the start.
    pub connections: u64,
    /// Commands since the start.
    pub commands: u64,
    /// Memory in use, in bytes.
    pub used_memory: u64,
    /// Since the start.
    pub uptime: Duration,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// A fault that a test plants, each where a real one would be and against one invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// I1: what is in flight for a client that has left goes to whoever has its position now.
    NoTombstone,
    /// I2: a command does not wait for earlier ones on its keys that are on their way elsewhere,
    /// and they do not mind that it has run.
    NoBarrier,
    /// I3: a write whose outcome is unknown is sent again.
    SendsTwice,
    /// I7: a client that has authenticated as somebody else goes on as who it was.
    StaysWho,
    /// I4: a command that never left is forgotten when its connection is lost.
    Forgets,
    /// I2: a read joins one that is before a write to its key.
    JoinsBeforeWrites,
    /// I2: what is kept near stays when a client has written something else there.
    KeepsNear,
    /// What a node tells of changed keys is not heard.
    IgnoresNews,
}

/// What a log may tell of a command that has its whole reply: no keys, no values.
#[derive(Clone, Copy, Debug)]
pub struct Done<'a> {
    /// `None` is one that the table does not know.
    pub command: Option<CommandId>,
    /// From its arrival to its whole reply.
    pub took: Duration,
    /// Whose it was.
    pub client: SocketAddr,
    /// As whom it ran.
    pub user: &'a User,
    /// Its slot; `None` for one about no key, or about several slots.
    pub slot: Option<Slot>,
    /// Who gave the last of its reply; `None` is Keyway itself.
    pub node: Option<&'a NodeAddr>,
}

/// The outside of a dataplane.
pub trait Host {
    /// A command has its whole reply; `None` is one that the table does not know.
    fn request(&mut self, command: Option<CommandId>, took: Duration);
    /// Whether a command that took so long is to be told by [`Host::done`]. Asked once for each.
    #[inline]
    fn notes(&mut self, took: Duration) -> bool {
        let _ = took;
        false
    }
    /// More of a command that is to be told.
    fn done(&mut self, done: &Done<'_>) {
        let _ = done; // not everyone keeps a log
    }
    /// The time, more exact than `now` where the host has a better one. Asked for commands that are
    /// followed, and for no others.
    fn moment(&self, now: Instant) -> Instant {
        now
    }
    /// A command that was followed has its reply, and its client has that.
    fn followed(&mut self, followed: Followed) {
        let _ = followed; // not everyone wants to know
    }
    /// A command that was to be traced cannot be followed.
    fn unfollowed(&mut self) {}
    /// A node sent a command elsewhere.
    fn redirect(&mut self, kind: RedirectKind);
    /// A client's credentials were refused, for this reason: an error line.
    fn credentials_refused(&mut self, client: SocketAddr, username: &[u8], reason: &str) {
        let _ = (client, username, reason); // not everyone keeps a log
    }
    /// A command was not sent: it gets the reply of another that asks the same.
    fn coalesced(&mut self) {}
    /// A read of a key that may be kept near was answered from there, or was not.
    fn near(&mut self, hit: bool) {
        let _ = hit; // not everyone counts
    }
    /// So many values that were kept near were dropped because nodes told of changes.
    fn near_invalidated(&mut self, count: usize) {
        let _ = count;
    }
    /// So many because nobody could tell any more: a connection was lost, a slot has moved.
    fn near_dropped(&mut self, count: usize) {
        let _ = count;
    }
    /// What is kept near takes so many bytes.
    fn near_bytes(&mut self, bytes: usize) {
        let _ = bytes;
    }
    /// All clients were looked at: so many bytes of replies and half sent commands wait for them here, of so
    /// many that may.
    fn waiting_bytes(&mut self, bytes: usize, max: usize) {
        let _ = (bytes, max);
    }
    /// A read was sent that may go to a replica.
    fn read(&mut self, zone: Zone);
    /// The proxy gave an error of its own.
    fn error(&mut self, kind: ErrorKind);
    /// Commands without a reply on all node connections: this many more, or fewer.
    fn in_flight(&mut self, delta: i64);
    /// Bytes came from a node, or went to it, on the way of commands.
    fn node_bytes(&mut self, zone: Zone, received: usize, sent: usize);
    /// A node connection went from one phase to another. `None` is not there.
    fn channel_phase(&mut self, from: Option<Phase>, to: Option<Phase>);
    /// A node connection is ready; `failures` attempts before it failed.
    fn channel_ready(&mut self, addr: &NodeAddr, failures: u32);
    /// A node connection ended, or could not be made; `failures` in a row now.
    fn channel_lost(&mut self, addr: &NodeAddr, reason: &CloseReason, failures: u32);
    /// A node has owed an answer for so long that nothing more is sent to it until it comes.
    fn channel_stalled(&mut self, addr: &NodeAddr);
    /// Writes the answer to a question about the whole proxy.
    fn keyway(&mut self, question: Question, protocol: Protocol, out: &mut Vec<u8>) {
        let _ = question; // not everyone keeps count
        resp::write::null_array(out, protocol);
    }
    /// Numbers that are not this worker's alone.
    fn totals(&self) -> Totals;
    /// Whether this fault is planted. Only the simulation says so, to show that it finds it: for
    /// every other host this is a constant, and the branches that ask are compiled away.
    #[inline(always)]
    fn has_planted(&self, _: Planted) -> bool {
        false
    }
}
