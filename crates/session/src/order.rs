//! The order of one client's replies, and of its commands on one key.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use command::CommandId;
use routing::{Keys, Merge, NodeAddr, Slot};

use crate::output::{Output, Spare};

/// A place in a client's reply order. Wraps; only ever compared with places in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(pub u32);

impl Place {
    /// How many commands there are from an earlier place to this one.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// The upstream connection that a command was given to, as an opaque number that is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route(pub u64);

/// What a command that is kept back waits for, besides its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing else.
    Turn,
    /// A time.
    Time(Instant),
    /// A topology newer than this revision, or its deadline.
    NewerThan(u64),
}

/// Where a command that is kept back is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the owner of its slot.
    Owner,
    /// To this node, behind an `ASKING`.
    Ask(NodeAddr),
    /// To this node.
    At(NodeAddr),
}

/// A command kept back: waiting for another node, for a newer topology, or for its turn.
#[derive(Debug)]
pub struct Held {
    /// The request to send.
    pub request: Bytes,
    /// What it waits for.
    pub until: Until,
    /// Where it goes.
    pub target: Target,
    /// How often it was sent already.
    pub hops: u8,
    /// The error that the client gets if it cannot be sent again.
    pub error: Vec<u8>,
    /// When the client is to be answered at the latest.
    pub deadline: Instant,
}

/// How far one part of a command is.
#[derive(Debug)]
pub enum OpState {
    /// Given to a connection.
    InFlight(Route),
    /// Kept back.
    Held(Box<Held>),
    /// Its reply is whole.
    Done {
        /// Whether a node (may have) run it.
        ran: bool,
    },
}

/// One part of a command: the whole of it, unless it was split over slots.
#[derive(Debug)]
pub struct Op {
    /// The slot of its keys.
    pub slot: Option<Slot>,
    /// The node it is for; without one, whoever owns the slot.
    pub node: Option<Box<NodeAddr>>,
    /// Its keys.
    pub keys: Keys,
    /// It may change them.
    pub writes: bool,
    /// What is sent, and how.
    pub form: Form,
    /// How far it is.
    pub state: OpState,
}

/// What a part of a command is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One request with one reply, on a shared connection.
    #[default]
    Plain,
    /// The same, and any node of the slot's shard may answer it.
    Read,
    /// One request behind a `SCRIPT LOAD` of the script that it calls.
    Loaded,
    /// Several requests in a row; the last one's reply counts, after this many others.
    Block(u16),
    /// The same on a connection that is the client's alone. What is sent there may block.
    Leased(u16),
    /// `WATCH`, on the connection that the client's transaction will be on.
    Watch,
    /// `WAIT` on a connection that is the client's alone, behind this many others.
    Wait(u16),
    /// A command of Keyway's own, to learn whether the user may do what the client asked for.
    Probe,
    /// A question about the keys of a script, in its place.
    Confirm,
    /// A page of `SCAN` from this slot on, perhaps behind others' replies, as in a block. What it
    /// says depends on the node, so it is not sent to another one: the client asks again.
    Page(Slot, u16),
}

#[derive(Debug)]
enum Ops {
    /// Answered here.
    Local,
    One(Op),
    Many(Box<(Vec<Op>, Merge)>),
}

impl Ops {
    fn as_slice(&self) -> &[Op] {
        match self {
            Self::Local => &[],
            Self::One(op) => std::slice::from_ref(op),
            Self::Many(many) => &many.0,
        }
    }

    fn get_mut(&mut self, part: u16) -> Option<&mut Op> {
        match self {
            Self::Local => None,
            Self::One(op) => (part == 0).then_some(op),
            Self::Many(many) => many.0.get_mut(usize::from(part)),
        }
    }
}

#[derive(Debug)]
struct Entry {
    command: Option<CommandId>,
    started: Instant,
    silent: bool,
    ops: Ops,
    /// Reply bytes that came before it was this entry's turn.
    early: Vec<u8>,
    /// Some of its reply is here.
    begun: bool,
    done: bool,
}

/// A command whose whole reply is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Which command; `None` for one that the table does not know.
    pub command: Option<CommandId>,
    /// When it was taken from the client.
    pub started: Instant,
    /// Its slot, if it was for one.
    pub slot: Option<Slot>,
}

/// What stands between a command that wants to be sent again and its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Nothing.
    None,
    /// A later command on one of its keys is in flight; its outcome decides.
    Undecided,
    /// A later command on one of its keys has run, and one of the two writes: sending this one now
    /// would reorder them.
    Overtaken,
}

/// Where the commands are that a client has in flight on some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// There are none.
    Nothing,
    /// All on this connection.
    One(Route),
    /// On several connections, kept back, or such that nothing can go behind.
    Apart,
}

/// Room for so many entries is kept while there are none.
const KEEP_ENTRIES_MAX: usize = 64;

/// Replies owed to a client, in request order.
///
/// Invariants: an entry leaves only from the front and only with its whole reply; bytes reach the
/// output in the order of the entries; an entry's reply is passed on once.
#[derive(Debug, Default)]
pub struct Order {
    entries: VecDeque<Entry>,
    /// The place of the first entry.
    first: u32,
    /// Parts given to a connection or kept back.
    open: usize,
    /// Parts kept back.
    held: usize,
    /// Open parts on several keys.
    several: usize,
    early_bytes: usize,
    merging_bytes: usize,
}

impl Order {
    /// The place that the next command gets.
    #[must_use]
    pub fn next_place(&self) -> Place {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        Place(self.first.wrapping_add(count))
    }

    /// Whether all before a place is answered.
    #[must_use]
    pub fn has_passed(&self, place: Place) -> bool {
        Place(self.first).since(place) <= u32::MAX / 2
    }

    /// The oldest part without an outcome.
    #[must_use]
    pub fn open_part(&self) -> Option<(Place, u16)> {
        let open = |op: &Op| !matches!(op.state, OpState::Done { .. });
        let mut entries = self.entries.iter().enumerate();
        entries.find_map(|(index, entry)| {
            let part = entry.ops.as_slice().iter().position(open)?;
            let place = self.first.wrapping_add(u32::try_from(index).ok()?);
            Some((Place(place), u16::try_from(part).ok()?))
        })
    }

    /// Reads a little of what the reply that is due next will change, and returns it for no other use.
    #[inline]
    #[must_use]
    pub fn touch(&self) -> usize {
        let Some(front) = self.entries.front() else {
            return 0;
        };
        let writes = match &front.ops {
            Ops::One(op) => op.writes,
            Ops::Local | Ops::Many(_) => false,
        };
        front.early.len() ^ usize::from(front.done ^ writes)
    }

    /// Replies owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Parts of commands without an outcome.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Parts of commands kept back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether there are parts without an outcome that are on several keys.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.several > 0
    }

    /// Reply bytes that wait for earlier replies.
    #[must_use]
    pub fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    /// Reply bytes of split commands whose other parts are still awaited.
    #[must_use]
    pub fn merging_bytes(&self) -> usize {
        self.merging_bytes
    }

    /// Whether some of the reply at a place is here already.
    #[must_use]
    pub fn has_begun(&self, place: Place) -> bool {
        self.entries
            .get(self.index(place))
            .is_some_and(|entry| entry.begun)
    }

    /// Whether the client has the beginning of a reply, but not its end: nothing else may come
    /// between.
    #[must_use]
    pub fn front_is_begun(&self) -> bool {
        let front = self.entries.front();
        front.is_some_and(|front| front.begun && !matches!(front.ops, Ops::Many(..)))
    }

    /// Takes the next place for a command that is answered by [`Order::complete_local`]; `None` is
    /// one that the table does not know.
    pub fn reserve_local(
        &mut self,
        command: Option<CommandId>,
        silent: bool,
        now: Instant,
    ) -> Place {
        self.reserve(command, silent, Ops::Local, now)
    }

    /// Takes the next place for a command that goes to one node.
    pub fn reserve_one(&mut self, command: CommandId, silent: bool, op: Op, now: Instant) -> Place {
        self.reserve(Some(command), silent, Ops::One(op), now)
    }

    /// Takes the next place for a command that goes to several nodes. Replies of parts may be there already.
    pub fn reserve_many(
        &mut self,
        command: CommandId,
        silent: bool,
        ops: Vec<Op>,
        merge: Merge,
        now: Instant,
    ) -> Place {
        self.merging_bytes += merge.held_bytes();
        self.reserve(
            Some(command),
            silent,
            Ops::Many(Box::new((ops, merge))),
            now,
        )
    }

    fn reserve(
        &mut self,
        command: Option<CommandId>,
        silent: bool,
        ops: Ops,
        now: Instant,
    ) -> Place {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let place = Place(self.first.wrapping_add(count));
        self.open += ops.as_slice().len();
        self.held += ops.as_slice().iter().filter(|op| is_held(op)).count();
        let several = ops.as_slice().iter().filter(|op| op.keys.are_several());
        self.several += several.count();
        self.entries.push_back(Entry {
            command,
            started: now,
            silent,
            ops,
            early: Vec::new(),
            begun: false,
            done: false,
        });
        self.check_invariants();
        place
    }

    fn index(&self, place: Place) -> usize {
        usize::try_from(place.0.wrapping_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// The part of a command that is still open, to look at or change. Counts stay right only
    /// through [`Order::set_state`].
    #[must_use]
    pub fn op(&self, place: Place, part: u16) -> Option<&Op> {
        self.entries
            .get(self.index(place))?
            .ops
            .as_slice()
            .get(usize::from(part))
    }

    /// The command at a place, if the table knows it.
    #[must_use]
    pub fn command(&self, place: Place) -> Option<CommandId> {
        self.entries
            .get(self.index(place))
            .and_then(|entry| entry.command)
    }

    /// Whether nobody gets the reply of the command at a place.
    #[must_use]
    pub fn is_silent(&self, place: Place) -> bool {
        self.entries
            .get(self.index(place))
            .is_some_and(|entry| entry.silent)
    }

    /// When the command at a place was taken from the client.
    #[must_use]
    pub fn started(&self, place: Place) -> Option<Instant> {
        self.entries
            .get(self.index(place))
            .map(|entry| entry.started)
    }

    /// Moves one part of a command to another state and returns the former one.
    pub fn set_state(&mut self, place: Place, part: u16, state: OpState) -> Option<OpState> {
        let index = self.index(place);
        let op = self.entries.get_mut(index)?.ops.get_mut(part)?;
        let before = std::mem::replace(&mut op.state, state);
        self.held -= usize::from(matches!(before, OpState::Held(_)));
        self.held += usize::from(is_held(op));
        let was_open = usize::from(!matches!(before, OpState::Done { .. }));
        let is_open = usize::from(!matches!(op.state, OpState::Done { .. }));
        self.open = self.open + is_open - was_open;
        if op.keys.are_several() {
            self.several = self.several + is_open - was_open;
        }
        self.check_invariants();
        Some(before)
    }

    /// What is sent for one part of a command is another thing from now on.
    pub fn set_form(&mut self, place: Place, part: u16, form: Form) {
        let index = self.index(place);
        if let Some(op) = self
            .entries
            .get_mut(index)
            .and_then(|entry| entry.ops.get_mut(part))
        {
            op.form = form;
        }
    }

    /// Passes on the next bytes of one part's reply; `done` with its last byte. `ran` is false
    /// when it is certain that no node ran the part.
    ///
    /// Returns the command when this completes it.
    pub fn piece(
        &mut self,
        (place, part): (Place, u16),
        bytes: &[u8],
        done: bool,
        ran: bool,
        (output, spare): (&mut Output, &mut Spare),
    ) -> Option<Completed> {
        if done {
            self.set_state(place, part, OpState::Done { ran });
        }
        let index = self.index(place);
        let entry = self.entries.get_mut(index)?;
        debug_assert!(!entry.done, "a reply was passed on twice");
        entry.begun = true;
        // Nobody will see the bytes of a silent entry, so they are not kept either.
        let bytes = if entry.silent { &[] } else { bytes };
        let early_before = entry.early.len();
        match &mut entry.ops {
            Ops::Many(many) => {
                let merge = &mut many.1;
                let held_before = merge.held_bytes();
                let complete = merge.piece(part, bytes, done);
                self.merging_bytes += merge.held_bytes() - held_before;
                if !complete {
                    return None;
                }
                self.merging_bytes -= merge.held_bytes();
                if !entry.silent {
                    merge.finish(if index == 0 {
                        output.buffer()
                    } else {
                        &mut entry.early
                    });
                }
                entry.done = true;
            }
            Ops::One(_) | Ops::Local => {
                entry.done = done;
                if index == 0 {
                    output.buffer().extend_from_slice(bytes);
                } else if !bytes.is_empty() {
                    if entry.early.capacity() == 0 {
                        entry.early = spare.early();
                    }
                    entry.early.extend_from_slice(bytes);
                }
            }
        }
        self.early_bytes += entry.early.len() - early_before;
        let completed = entry.done.then_some(Completed {
            command: entry.command,
            started: entry.started,
            slot: match &entry.ops {
                Ops::One(op) => op.slot,
                Ops::Local | Ops::Many(_) => None,
            },
        });
        if index == 0 && entry.done {
            self.release(output, spare);
        }
        self.check_invariants();
        completed
    }

    /// Completes a command that is answered here, or refused after it had its place (but not one
    /// in several parts: each of them has to be answered).
    pub fn complete_local(
        &mut self,
        place: Place,
        reply: &[u8],
        to: (&mut Output, &mut Spare),
    ) -> Option<Completed> {
        self.piece((place, 0), reply, true, false, to)
    }

    /// Lets out what the front owes, as far as it is known.
    fn release(&mut self, output: &mut Output, spare: &mut Spare) {
        while let Some(front) = self.entries.front_mut() {
            if !front.early.is_empty() {
                self.early_bytes -= front.early.len();
                output.buffer().extend_from_slice(&front.early);
                spare.keep_early(std::mem::take(&mut front.early));
            }
            if !front.done {
                return;
            }
            self.entries.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.entries.capacity() > KEEP_ENTRIES_MAX {
            self.entries = VecDeque::new();
        } else {
            self.entries.clear(); // the next one begins at the front again, which the cache has
        }
    }

    /// Whether a command on `keys` that would go to `route` must wait, as [`Order::sharing`] has it.
    #[must_use]
    pub fn must_wait(
        &self,
        (keys, writes): (&Keys, bool),
        route: Route,
        place: Option<Place>,
    ) -> bool {
        match self.sharing((keys, writes), place) {
            Sharing::Nothing => false,
            Sharing::One(other) => other != route,
            Sharing::Apart => true,
        }
    }

    /// Where the commands are that share a key with one on `keys`, of those before `place` (of all,
    /// without one).
    ///
    /// One on several keys, when it or the new one writes, is waited for even on the same
    /// connection: of a slot that is half moved, a node refuses it (`TRYAGAIN`), and would run the
    /// new one, which it then could not be sent again behind.
    #[must_use]
    pub fn sharing(&self, (keys, writes): (&Keys, bool), place: Option<Place>) -> Sharing {
        let earlier = place.map_or(self.entries.len(), |place| self.index(place));
        let mut found = Sharing::Nothing;
        let entries = self
            .entries
            .iter()
            .take(earlier)
            .filter(|entry| !entry.done);
        for op in entries.flat_map(|entry| entry.ops.as_slice()) {
            let here = match op.state {
                OpState::Done { .. } => continue,
                _ if !op.keys.conflicts(keys) => continue,
                OpState::Held(_) => return Sharing::Apart,
                _ if op.keys.are_several() && (op.writes || writes) => return Sharing::Apart,
                OpState::InFlight(route) => Sharing::One(route),
            };
            if found != Sharing::Nothing && found != here {
                return Sharing::Apart;
            }
            found = here;
        }
        found
    }

    /// Whether the part at `place` may be sent again without changing the order of commands on
    /// its keys.
    #[must_use]
    pub fn conflict(&self, place: Place, part: u16) -> Conflict {
        let Some(op) = self.op(place, part) else {
            return Conflict::None;
        };
        let mut found = Conflict::None;
        for entry in self
            .entries
            .iter()
            .skip(self.index(place).saturating_add(1))
        {
            let later = entry.ops.as_slice().iter();
            for later in later.filter(|later| later.keys.conflicts(&op.keys)) {
                match later.state {
                    OpState::Done { ran: true } if later.writes || op.writes => {
                        return Conflict::Overtaken;
                    }
                    OpState::InFlight(_) => found = Conflict::Undecided,
                    OpState::Held(_) | OpState::Done { .. } => {}
                }
            }
        }
        found
    }

    /// Parts given to connections, with their routes, oldest first.
    pub fn in_flight_routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.entries
            .iter()
            .flat_map(|entry| entry.ops.as_slice())
            .filter_map(|op| match op.state {
                OpState::InFlight(route) => Some(route),
                _ => None,
            })
    }

    /// Every part that is kept back, oldest first.
    pub fn held_parts(&self) -> impl Iterator<Item = (Place, u16)> + '_ {
        self.entries.iter().enumerate().flat_map(|(index, entry)| {
            let place = Place(
                self.first
                    .wrapping_add(u32::try_from(index).unwrap_or(u32::MAX)),
            );
            let parts = entry
                .ops
                .as_slice()
                .iter()
                .enumerate()
                .filter(|(_, op)| is_held(op));
            parts.map(move |(part, _)| (place, u16::try_from(part).unwrap_or(u16::MAX)))
        })
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.entries.len() <= 64 {
            let ops = || self.entries.iter().flat_map(|entry| entry.ops.as_slice());
            let open = ops()
                .filter(|op| !matches!(op.state, OpState::Done { .. }))
                .count();
            debug_assert_eq!(open, self.open, "open parts are miscounted");
            debug_assert_eq!(
                ops().filter(|op| is_held(op)).count(),
                self.held,
                "held parts are"
            );
            let early: usize = self.entries.iter().map(|entry| entry.early.len()).sum();
            debug_assert_eq!(early, self.early_bytes, "early bytes are miscounted");
            let merging = self
                .entries
                .iter()
                .filter(|entry| !entry.done)
                .filter_map(|entry| match &entry.ops {
                    Ops::Many(many) => Some(many.1.held_bytes()),
                    _ => None,
                });
            debug_assert_eq!(
                merging.sum::<usize>(),
                self.merging_bytes,
                "merging bytes are"
            );
            debug_assert!(
                self.entries.front().is_none_or(|front| !front.done),
                "a done front stays"
            );
        }
    }
}

fn is_held(op: &Op) -> bool {
    matches!(op.state, OpState::Held(_))
}

#[cfg(test)]
mod tests;
