//! Some commands are followed on their way: when they came, when their bytes left for a node, when
//! the node's answer was there, and when their client had it.
//!
//! Owns the choice of the commands, and what is noted of those that are on their way. A command that
//! Keyway answers itself is followed from its answer on. One that is not followed costs a decrement, and a
//! look at whether any is. Never here: the clock (a
//! [`Host`] is asked for a moment, a few times for each command that is followed), keys, values,
//! and what is made of what was noted.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use command::CommandId;
use routing::Slot;
use session::Place;
use topology::NodeAddr;

use crate::{client::State, core::Core, host::Host, slots::Key, ticket::Ticket};

/// Commands followed at a time. One that finds no room is not followed.
const OPEN_MAX: usize = 256;
/// One that has no end after so long is forgotten.
const LONGEST: Duration = Duration::from_secs(60);
/// The number of those that are timed is looked at so often.
const ADJUST_EVERY: Duration = Duration::from_millis(100);
/// So many are timed in that while at most; below the other number, more are.
const TIMED_MAX: u32 = 64;
const TIMED_MIN: u32 = 16;
/// Of so many commands one is timed at least.
const ONE_IN_MAX: u32 = 1 << 16;
/// While nothing is to be followed, it is looked again after so many commands.
const NEVER: u32 = u32::MAX;
/// Words that errors begin with. Any other may be a script's, and hold what nobody should read.
const ERRORS: [&str; 26] = [
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "ERR",
    "EXECABORT",
    "INPROG",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGROUP",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];
/// What stands for them.
const ERROR_OTHER: &str = "_OTHER";

/// What a command is followed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purposes {
    /// To know where the time goes.
    pub timed: bool,
    /// To be told of as a trace.
    pub traced: bool,
}

/// Who answers a command in place of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// Keyway, because it is Keyway's to answer, or to refuse.
    Itself,
    /// What it asks for is kept near.
    Near,
}

/// A command that was followed to its end. The moments never go back.
#[derive(Clone, Debug)]
pub struct Followed {
    /// What for.
    pub purposes: Purposes,
    /// Which command; `None` is one that the table does not know.
    pub command: Option<CommandId>,
    /// Whose.
    pub client: SocketAddr,
    /// Where that client came to.
    pub local: SocketAddr,
    /// The client's database.
    pub database: u32,
    /// Its slot, if it is about one.
    pub slot: Option<Slot>,
    /// Who answered, the last of several; `None` is Keyway itself.
    pub node: Option<NodeAddr>,
    /// No node was to be asked.
    pub here: Option<Here>,
    /// The word that its error begins with.
    pub error: Option<&'static str>,
    /// How often it was sent again.
    pub resent: u32,
    /// The loop had looked at the sockets: it was there then.
    pub arrived: Instant,
    /// It was decrypted and read, and has its place.
    pub taken: Instant,
    /// Its last byte was written to the node's socket. `None`: it got another's answer.
    pub sent: Option<Instant>,
    /// The answer was read, the last one of several.
    pub answered: Instant,
    /// The client's socket had the last byte of its reply.
    pub written: Instant,
}

#[derive(Debug)]
struct Follow {
    /// `None` is one that is answered: only its client's own number is known there.
    client: Option<Key>,
    id: u64,
    place: Place,
    slot: Option<Slot>,
    purposes: Purposes,
    command: Option<CommandId>,
    database: u32,
    node: Option<NodeAddr>,
    here: Option<Here>,
    error: Option<&'static str>,
    pushes: u32,
    arrived: Instant,
    taken: Instant,
    /// The node connection, and the bytes that are written there until it is gone.
    leaves: Option<(Key, usize)>,
    sent: Option<Instant>,
    answered: Option<Instant>,
}

impl Follow {
    fn is_of(&self, key: Key, client: &State) -> bool {
        match self.client {
            Some(of) => of == key,
            None => self.id == client.session.id,
        }
    }
}

/// Chooses one in so many.
#[derive(Debug, Default)]
struct Lot {
    /// 0 is none.
    one_in: u32,
    /// Until the next.
    left: u32,
}

impl Lot {
    fn is_on(&self) -> bool {
        self.one_in > 0
    }

    /// So many commands have passed. Returns whether the last one is chosen.
    fn passed(&mut self, commands: u32, state: &mut u64) -> bool {
        if !self.is_on() {
            return false;
        }
        self.left = self.left.saturating_sub(commands);
        if self.left > 0 {
            return false;
        }
        self.draw(state);
        true
    }

    /// Anything from 1 to twice as many: no rhythm of a client's escapes or is always met.
    fn draw(&mut self, state: &mut u64) {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let range = u64::from(self.one_in) * 2 - 1;
        self.left = u32::try_from(1 + (*state >> 33) % range).unwrap_or(NEVER);
    }

    fn draw_if_on(&mut self, state: &mut u64) {
        if self.is_on() {
            self.draw(state);
        }
    }
}

/// What is followed.
#[derive(Debug)]
pub(crate) struct Follows {
    /// Commands until the next that is followed for anything, and how many those were.
    until: u32,
    gap: u32,
    timed: Lot,
    traced: Lot,
    state: u64,
    /// Commands timed since then.
    begun: u32,
    adjusted_at: Option<Instant>,
    open: Vec<Follow>,
}

impl Follows {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            until: NEVER,
            gap: NEVER,
            timed: Lot::default(),
            traced: Lot::default(),
            state: seed,
            begun: 0,
            adjusted_at: None,
            open: Vec::new(),
        }
    }

    /// From now on some commands are timed, or none; and one in so many is traced, 0 is none.
    fn choose(&mut self, timed: bool, traced_one_in: u32) {
        if timed != self.timed.is_on() {
            self.timed.one_in = u32::from(timed);
            self.timed.draw_if_on(&mut self.state);
        }
        if traced_one_in != self.traced.one_in {
            self.traced.one_in = traced_one_in;
            self.traced.draw_if_on(&mut self.state);
        }
        self.renew();
    }

    /// Another command goes to a node, or is answered here. Returns whether it is to be followed.
    #[inline]
    pub(crate) fn takes_next(&mut self) -> bool {
        self.until = self.until.wrapping_sub(1);
        self.until == 0
    }

    /// Whether any command is followed now.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    fn renew(&mut self) {
        let lots = [&self.timed, &self.traced].into_iter();
        let next = lots.filter(|lot| lot.is_on()).map(|lot| lot.left).min();
        self.gap = next.unwrap_or(NEVER);
        self.until = self.gap;
    }

    /// What the command is followed for that [`Follows::takes_next`] has found.
    fn purposes(&mut self) -> Purposes {
        let purposes = Purposes {
            timed: self.timed.passed(self.gap, &mut self.state),
            traced: self.traced.passed(self.gap, &mut self.state),
        };
        self.renew();
        purposes
    }

    /// One more is timed. While there are too many commands, fewer of them are.
    fn note_timed(&mut self) {
        self.begun += 1;
        if self.begun >= TIMED_MAX && self.timed.is_on() {
            self.begun = 0;
            self.timed.one_in = (self.timed.one_in * 2).min(ONE_IN_MAX);
        }
    }

    /// Forgets what has no end, and times more commands when there are few.
    pub(crate) fn tick(&mut self, now: Instant) {
        let passed = |since: Instant| now.saturating_duration_since(since);
        self.open.retain(|follow| passed(follow.arrived) < LONGEST);
        if self.adjusted_at.is_some_and(|at| passed(at) < ADJUST_EVERY) {
            return;
        }
        self.adjusted_at = Some(now);
        if self.begun < TIMED_MIN && self.timed.one_in > 1 {
            self.timed.one_in /= 2;
            self.timed.left = self.timed.left.min(self.timed.one_in);
            self.renew();
        }
        self.begun = 0;
    }

    fn find(&mut self, client: Key, place: Place) -> Option<&mut Follow> {
        let mut open = self.open.iter_mut();
        open.find(|follow| follow.place == place && follow.client == Some(client))
    }

    /// A part of a command is queued for a node: it is gone with this many bytes.
    #[cold]
    #[inline(never)]
    pub(crate) fn queued(&mut self, ticket: &Ticket, channel: Key, unwritten: usize) {
        // Of several parts the first stands for all; the answers are those of all.
        if ticket.part == 0
            && let Some(follow) = self.find(ticket.client, ticket.place)
        {
            follow.pushes += 1;
            follow.leaves = Some((channel, unwritten));
            follow.sent = None;
        }
    }

    /// A node's socket took so many bytes of commands.
    #[cold]
    #[inline(never)]
    pub(crate) fn wrote(&mut self, channel: Key, bytes: usize, host: &impl Host, now: Instant) {
        for follow in &mut self.open {
            let leaves = follow.leaves.as_mut().filter(|(to, _)| *to == channel);
            let Some((_, unwritten)) = leaves else {
                continue;
            };
            *unwritten = unwritten.saturating_sub(bytes);
            if *unwritten == 0 {
                follow.leaves = None;
                follow.sent = Some(host.moment(now));
            }
        }
    }

    /// The last bytes of a reply have come, from a node or from Keyway itself.
    #[cold]
    #[inline(never)]
    pub(crate) fn answered(
        &mut self,
        ticket: &Ticket,
        node: Option<&NodeAddr>,
        (host, now): (&impl Host, Instant),
    ) {
        if let Some(follow) = self.find(ticket.client, ticket.place) {
            follow.answered = Some(host.moment(now));
            follow.node = node.cloned();
        }
    }

    /// The reply is an error, if this whole one is.
    #[cold]
    #[inline(never)]
    pub(crate) fn erred(&mut self, ticket: &Ticket, reply: &[u8]) {
        if let Some(follow) = self.find(ticket.client, ticket.place) {
            follow.error = follow.error.or_else(|| error_of(reply));
        }
    }

    /// A client is gone.
    #[cold]
    #[inline(never)]
    pub(crate) fn forget(&mut self, key: Key, client: &State) {
        self.open.retain(|follow| !follow.is_of(key, client));
    }

    /// Those of a client that have their whole reply.
    fn done(&mut self, key: Key, state: &State) -> impl Iterator<Item = Follow> {
        let order = &state.session.order;
        self.open.extract_if(.., move |follow| {
            follow.is_of(key, state)
                && follow.answered.is_some()
                && order.started(follow.place).is_none()
        })
    }
}

/// The word that an error begins with, if it is one that no script has made up.
fn error_of(reply: &[u8]) -> Option<&'static str> {
    let line = reply.strip_prefix(b"-")?;
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\r'));
    let word = line.get(..end.unwrap_or(line.len()))?;
    let known = ERRORS.iter().find(|known| known.as_bytes() == word);
    Some(known.copied().unwrap_or(ERROR_OTHER))
}

impl<H: Host> Core<H> {
    /// From now on some commands are timed, or none; and one in so many is traced, 0 is none.
    pub(crate) fn choose_followed(&mut self, timed: bool, traced_one_in: u32) {
        self.follows.choose(timed, traced_one_in);
    }

    /// A command has its place, and goes to a node. Some are followed from there.
    #[inline]
    pub(crate) fn follow_some(&mut self, of: (&State, Key), at: (Place, bool), now: Instant) {
        if self.follows.takes_next() {
            self.begin_to_follow(of, at, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_to_follow(
        &mut self,
        (client, key): (&State, Key),
        (place, silent): (Place, bool),
        now: Instant,
    ) {
        let Some(purposes) = self.purposes_of_next() else {
            return;
        };
        let order = &client.session.order;
        let (op, command) = (order.op(place, 0), order.command(place));
        let (Some(op), Some(_), false) = (op, command, silent) else {
            return;
        };
        self.open_follow(Follow {
            client: Some(key),
            id: client.session.id,
            place,
            slot: op.slot,
            purposes,
            command,
            database: client.session.database,
            node: None,
            here: None,
            error: None,
            pushes: 0,
            arrived: now,
            taken: self.host.moment(now),
            leaves: None,
            sent: None,
            answered: None,
        });
    }

    /// A command that is to be followed has its place, and its answer, which was made here.
    #[cold]
    #[inline(never)]
    pub(crate) fn follow_here(&mut self, client: &State, place: Place, here: Here, now: Instant) {
        let Some(purposes) = self.purposes_of_next() else {
            return;
        };
        let order = &client.session.order;
        let (Some(started), false) = (order.started(place), order.is_silent(place)) else {
            return;
        };
        let answered = self.host.moment(now);
        // What came only now was read and answered since; what has waited was read then.
        let taken = if started == now { answered } else { started };
        self.open_follow(Follow {
            client: None,
            id: client.session.id,
            place,
            slot: None,
            purposes,
            command: order.command(place),
            database: client.session.database,
            node: None,
            here: Some(here),
            error: error_of(&self.scratch),
            pushes: 0,
            arrived: started,
            taken,
            leaves: None,
            sent: None,
            answered: Some(answered),
        });
    }

    /// What the command is followed for that was chosen.
    fn purposes_of_next(&mut self) -> Option<Purposes> {
        let purposes = self.follows.purposes();
        if purposes.timed {
            self.follows.note_timed();
        }
        (purposes != Purposes::default()).then_some(purposes)
    }

    fn open_follow(&mut self, follow: Follow) {
        if self.follows.open.len() < OPEN_MAX {
            self.follows.open.push(follow);
        } else if follow.purposes.traced {
            self.host.unfollowed();
        }
    }

    /// A client's socket has taken all that there was for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn client_has_all(&mut self, key: Key, client: &State, now: Instant) {
        let mut open = self.follows.open.iter();
        if !open.any(|follow| follow.is_of(key, client)) {
            return;
        }
        let written = self.host.moment(now);
        for follow in self.follows.done(key, client) {
            let Some(answered) = follow.answered else {
                continue;
            };
            self.host.followed(Followed {
                purposes: follow.purposes,
                command: follow.command,
                client: client.session.peer,
                local: client.session.local,
                database: follow.database,
                slot: follow.slot,
                node: follow.node,
                here: follow.here,
                error: follow.error,
                resent: follow.pushes.saturating_sub(1),
                arrived: follow.arrived,
                taken: follow.taken,
                sent: follow.sent.map(|sent| sent.clamp(follow.taken, answered)),
                answered,
                written: written.max(answered),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many commands are chosen for each.
    fn chosen(follows: &mut Follows, commands: u32) -> (u32, u32) {
        let (mut timed, mut traced) = (0, 0);
        for _ in 0..commands {
            if follows.takes_next() {
                let purposes = follows.purposes();
                timed += u32::from(purposes.timed);
                traced += u32::from(purposes.traced);
            }
        }
        (timed, traced)
    }

    #[test]
    fn one_in_so_many_is_traced() {
        for one_in in [1_u32, 2, 10, 1000] {
            let mut follows = Follows::new(7);
            follows.choose(false, one_in);
            let (timed, traced) = chosen(&mut follows, 100_000);
            let expected = 100_000 / one_in;
            assert_eq!(timed, 0);
            assert!(
                traced.abs_diff(expected) <= expected / 5,
                "{traced} of {expected}"
            );
        }
        let mut follows = Follows::new(7);
        assert_eq!(chosen(&mut follows, 1000), (0, 0));
        follows.choose(true, 10);
        let (timed, traced) = chosen(&mut follows, 1000);
        assert_eq!(timed, 1000, "each has its own lot");
        assert!((70..130).contains(&traced), "{traced} of 100");
        follows.choose(false, 0);
        assert_eq!(chosen(&mut follows, 1000), (0, 0));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn few_commands_are_all_timed_and_of_many_only_some() {
        let start = Instant::now();
        let mut follows = Follows::new(7);
        follows.choose(true, 0);
        let mut second = |per_tick: u32, begins: Instant| {
            let mut timed = 0;
            for tick in 0..10 {
                for _ in 0..per_tick {
                    if follows.takes_next() && follows.purposes().timed {
                        follows.note_timed();
                        timed += 1;
                    }
                }
                follows.tick(begins + ADJUST_EVERY * tick);
            }
            timed
        };
        assert_eq!(second(TIMED_MIN, start), TIMED_MIN * 10);
        let burst = second(100_000, start + Duration::from_secs(1));
        assert!((100..3_000).contains(&burst), "{burst} of a million");
        let steady = second(100_000, start + Duration::from_secs(2));
        assert!((100..1_000).contains(&steady), "{steady} of a million");
        (3..9).for_each(|later| {
            second(10, start + Duration::from_secs(later));
        });
        assert_eq!(second(10, start + Duration::from_secs(9)), 100);
    }

    #[test]
    fn of_an_error_only_a_known_word_is_told() {
        for (reply, word) in [
            (&b"-WRONGTYPE Operation against a key\r\n"[..], "WRONGTYPE"),
            (b"-ERR\r\n", "ERR"),
            (b"-secret of a script\r\n", ERROR_OTHER),
        ] {
            assert_eq!(error_of(reply), Some(word));
        }
        assert_eq!(error_of(b"+OK\r\n"), None);
        assert!(ERRORS.is_sorted());
    }
}
