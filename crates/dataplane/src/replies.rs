//! From a node's bytes to the clients that wait for them.

use std::time::Instant;

use bytes::Bytes;
use command::{CommandTable, TopicKind};
use resp::Protocol;
use routing::{
    ErrorClass, Page, Slot,
    retry::{self, Verdict},
};
use session::{Completed, Session, Spare};
use topology::NodeAddr;
use upstream::{Replies, Retained};

use crate::{
    action::Action,
    budget::Budget,
    channel::BULKY_FOR,
    client::{Client, State, Unguarded, Why},
    coalesce::{Coalescer, Group},
    core::Signal,
    cork::Corks,
    follow::Follows,
    heat::Heat,
    host::{Done, Host, Planted, RedirectKind},
    messages::{Event, Messages, event_of, split_push},
    near::Near,
    scripts::is_noscript,
    slots::{Key, Slots},
    ticket::{About, Ticket},
};

/// How a node tells of changes to keys.
const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";
/// The most that the parts of one split command's reply may hold until the last one is there.
const MERGING_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Where a pipeline's replies go.
pub(crate) struct Sink<'a, H> {
    pub(crate) clients: &'a mut Slots<Client>,
    pub(crate) actions: &'a mut Vec<Action>,
    pub(crate) signals: &'a mut Vec<Signal>,
    pub(crate) spare: &'a mut Spare,
    pub(crate) host: &'a mut H,
    pub(crate) from: &'a NodeAddr,
    pub(crate) reads: &'a mut Coalescer,
    pub(crate) messages: &'a mut Messages,
    pub(crate) near: &'a mut Near,
    pub(crate) corks: &'a mut Corks,
    pub(crate) replica: bool,
    pub(crate) budget: &'a mut Budget,
    /// The connection they come from.
    pub(crate) channel: Key,
    pub(crate) heat: &'a mut Heat,
    pub(crate) follows: &'a mut Follows,
    pub(crate) table: &'a CommandTable,
    pub(crate) output_max: usize,
    pub(crate) now: Instant,
    /// Whose reply was announced last.
    pub(crate) ahead: Option<Key>,
}

impl<H: Host> Sink<'_, H> {
    /// The guard of a `SCAN` cannot pass: the client asks again, and gets the page without.
    fn scan_unguarded(&mut self, ticket: Ticket, slot: Slot, everywhere: bool) {
        if let Some(client) = self.clients.get_mut(ticket.client) {
            let state = &mut client.state;
            match everywhere {
                false => state.unguarded = Some(Unguarded::In(slot)),
                // First it goes without the epoch, then without any guard.
                true if !state.uninformed => state.uninformed = true,
                true => state.unguarded = Some(Unguarded::Everywhere),
            }
        }
        let mut again = Vec::new();
        Page::again(slot, &mut again);
        self.pass_on(ticket, None, &again, (true, false));
    }

    /// A node has answered to a question in place of a script.
    fn answered(&mut self, ticket: Ticket, class: ErrorClass) {
        self.signals.push(Signal {
            ticket,
            signal: retry::Signal::Error(class),
            reply: Vec::new(),
            request: Bytes::new(),
            from: self.from.clone(),
            replica: self.replica,
            deliver: false,
        });
    }

    /// Bytes of a reply that others may wait for as well, or a cache.
    #[inline(never)]
    fn pass_on_to_all(&mut self, ticket: Ticket, request: &Retained<'_>, bytes: &[u8], done: bool) {
        if ticket.group == Group::NEAR {
            self.near.answered(&ticket, bytes, done, self.now);
            return;
        }
        let asked = Some(request.bytes());
        self.pass_on(ticket, asked, bytes, (done, true));
        let others = self.reads.take(ticket.group);
        for other in &others {
            self.pass_on(*other, asked, bytes, (done, true));
        }
        self.reads.give_back(ticket.group, others, done);
    }

    /// An error for one of those who asked.
    fn error_to(&mut self, ticket: Ticket, reply: &[u8], request: &Retained<'_>) {
        let line = reply
            .strip_prefix(b"-")
            .and_then(|line| line.strip_suffix(b"\r\n"));
        if ticket.probe && !line.is_some_and(|line| line.starts_with(b"NO")) {
            self.messages.events.push(Event::Allowed(ticket));
            return;
        }
        if let Some(topic) = ticket.topic {
            if let (Some(topic), Some(line)) = (topic, line) {
                self.messages.events.push(event_of(topic, line, self.from));
            }
            return;
        }
        let class = line.map_or(ErrorClass::Other, ErrorClass::of);
        if let Some(kind) = kind_of(&class) {
            self.host.redirect(kind);
        }
        if ticket.confirms {
            self.answered(ticket, class);
            return;
        }
        let ask = matches!(&class, ErrorClass::Redirect(redirect) if redirect.ask);
        let barred = line.is_some_and(|line| line.starts_with(b"NOPERM "));
        if let About::Page(slot) = ticket.about
            && ticket.is_block()
            && (ask || barred)
        {
            self.scan_unguarded(ticket, slot, barred);
            return;
        }
        let may_load = ticket.nature.script && !ticket.is_block() && !ticket.loaded;
        let unseen = may_load && line.is_some_and(is_noscript);
        let signal = if unseen {
            retry::Signal::NoScript
        } else {
            retry::Signal::Error(class)
        };
        if retry::verdict(&signal, ticket.nature) == Verdict::Deliver {
            let mut shown = Vec::new();
            let own = [&b"EXECABORT "[..], b"CROSSSLOT "];
            if matches!(signal, retry::Signal::Error(ErrorClass::Redirect(_))) {
                resp::write::error(&mut shown, SLOT_IS_MOVING.as_bytes());
            } else if let Some(line) =
                line.filter(|line| ticket.is_exec() && !own.iter().any(|own| line.starts_with(own)))
            {
                // One of its commands could not be queued, which the client was told it was.
                let mut text = b"EXECABORT Transaction discarded because of: ".to_vec();
                text.extend_from_slice(line);
                resp::write::error(&mut shown, &text);
            }
            let reply = if shown.is_empty() { reply } else { &shown };
            let about = (self.table, self.now);
            self.heat
                .answered(&ticket, request.bytes(), reply.len(), about);
            if self.follows.any() {
                self.follows.erred(&ticket, reply);
            }
            self.pass_on(ticket, Some(request.bytes()), reply, (true, true));
            return;
        }
        self.signals.push(Signal {
            ticket,
            signal,
            reply: reply.to_vec(),
            request: request.to_bytes(),
            from: self.from.clone(),
            replica: self.replica,
            deliver: false,
        });
    }

    fn pass_on(
        &mut self,
        mut ticket: Ticket,
        asked: Option<&[u8]>,
        bytes: &[u8],
        (done, ran): (bool, bool),
    ) {
        if self.host.has_planted(Planted::NoTombstone) {
            ticket.client = self.clients.whoever_is_at(ticket.client);
        }
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        }; // it has left
        let state = &mut client.state;
        if self.near.is_on() && done && !self.host.has_planted(Planted::KeepsNear) {
            note_near(self.near, state, ticket, (asked, bytes));
        }
        if done && self.follows.any() {
            let at = (&*self.host, self.now);
            self.follows.answered(&ticket, Some(self.from), at);
        }
        pass_on(
            state,
            ticket,
            bytes,
            (done, ran),
            self.output_max,
            (self.spare, self.host, self.now),
            Some(self.from),
        );
        let news = state.has_news() && !state.woken;
        if news
            && !self
                .corks
                .hold((state, ticket.client), self.actions, self.now)
        {
            state.woken = true;
            self.actions.push(Action::WakeClient(ticket.client));
        }
    }
}

/// What a command's outcome tells of what is kept near: what was asked, if that is known, and the last
/// bytes of the reply.
#[inline(never)]
pub(crate) fn note_near(
    near: &mut Near,
    state: &State,
    ticket: Ticket,
    (asked, bytes): (Option<&[u8]>, &[u8]),
) {
    let session = &state.session;
    let Some(op) = session.order.op(ticket.place, ticket.part) else {
        return;
    };
    if op.writes {
        near.wrote(&op.keys);
    } else if let Some(key) = op.keys.single()
        && let Some(command) = session.order.command(ticket.place)
        && near.keeps(command)
    {
        let whole = !session.order.has_begun(ticket.place);
        // The end of a big one is no value that could be kept.
        let reply = if whole { bytes } else { &[] };
        near.told((state.identity, session.database), key, (asked, reply));
    }
}

/// Puts bytes of a reply at their place. A client for which too much waits already when a reply
/// begins is ended: its neighbours must not pay for it.
pub(crate) fn pass_on<H: Host>(
    state: &mut State,
    ticket: Ticket,
    bytes: &[u8],
    (done, ran): (bool, bool),
    output_max: usize,
    (spare, host, now): (&mut Spare, &mut H, Instant),
    node: Option<&NodeAddr>,
) {
    let session = &mut state.session;
    let waiting = session.output.len() + session.order.early_bytes();
    let too_much = waiting > output_max && !session.order.has_begun(ticket.place);
    if too_much || session.order.merging_bytes() > MERGING_BYTES_MAX {
        let waiting = waiting + session.order.merging_bytes();
        state.end(Why::Output { waiting }, true);
        return;
    }
    // Only what is big comes in pieces.
    state.bulky = if done {
        state.bulky.saturating_sub(1)
    } else {
        BULKY_FOR
    };
    session.output.equip(spare);
    let at = (ticket.place, ticket.part);
    let completed = session
        .order
        .piece(at, bytes, done, ran, (&mut session.output, spare));
    if !session.deferred.is_empty() && !session.order.front_is_begun() {
        session.output.buffer().append(&mut session.deferred);
    }
    if done && session.order.held() > 0 {
        state.poke = true;
    }
    if let Some(completed) = completed {
        count(host, completed, now, session, node);
    }
}

/// Counts a command that has its whole reply, and tells more of it where that is wanted.
#[inline]
pub(crate) fn count<H: Host>(
    host: &mut H,
    completed: Completed,
    now: Instant,
    session: &Session,
    node: Option<&NodeAddr>,
) {
    let took = now.saturating_duration_since(completed.started);
    host.request(completed.command, took);
    if host.notes(took) {
        host.done(&Done {
            command: completed.command,
            took,
            client: session.peer,
            user: &session.user,
            slot: completed.slot,
            node,
        });
    }
}

impl<H: Host> Replies<Ticket> for Sink<'_, H> {
    fn piece(&mut self, ticket: Ticket, request: Retained<'_>, bytes: &[u8], done: bool) {
        if ticket.probe {
            if done {
                self.messages.events.push(Event::Allowed(ticket));
            }
            return;
        }
        if ticket.confirms {
            if done {
                self.answered(ticket, ErrorClass::Other);
            }
            return;
        }
        if ticket.topic.is_some() {
            return; // what was asked behind the end of a subscription
        }
        if done {
            self.budget.earn();
        }
        if ticket.group.is_some() {
            self.pass_on_to_all(ticket, &request, bytes, done);
        } else {
            self.pass_on(ticket, Some(request.bytes()), bytes, (done, true));
        }
    }

    #[inline]
    fn ahead(&mut self, ticket: &Ticket) {
        if self.ahead == Some(ticket.client) {
            return; // a pipeline's
        }
        self.ahead = Some(ticket.client);
        if let Some(client) = self.clients.get(ticket.client) {
            client.touch();
        }
    }

    #[inline(always)]
    fn replied(&mut self, ticket: &Ticket, request: Retained<'_>, bytes: usize) {
        let about = (self.table, self.now);
        self.heat.answered(ticket, request.bytes(), bytes, about);
        if ticket.group.is_some() {
            for _ in 0..self.reads.joined(ticket.group) {
                self.heat.answered(ticket, request.bytes(), bytes, about);
            }
        }
    }

    fn error(&mut self, mut ticket: Ticket, reply: &[u8], request: Retained<'_>) {
        let group = std::mem::replace(&mut ticket.group, Group::NONE);
        if group == Group::NEAR {
            self.near.refused(&ticket, self.now);
        }
        self.error_to(ticket, reply, &request);
        if group.is_some() && group != Group::NEAR {
            let others = self.reads.take(group);
            for other in &others {
                self.error_to(*other, reply, &request);
            }
            self.reads.give_back(group, others, true);
        }
    }

    fn push(&mut self, frame: &[u8], head: Option<(Ticket, Retained<'_>)>) -> bool {
        if self.near.is_on()
            && let Some(news) = frame.strip_prefix(INVALIDATE)
        {
            if self.host.has_planted(Planted::IgnoresNews) {
                return false;
            }
            let dropped = self.near.invalidated(news);
            self.host.near_invalidated(dropped);
            return false;
        }
        let Some((kind, name)) = split_push(frame) else {
            return false;
        };
        let topic_kind = match kind {
            b"message" => TopicKind::Channel,
            b"pmessage" => TopicKind::Pattern,
            b"smessage" => TopicKind::Shard,
            b"subscribe" | b"psubscribe" | b"ssubscribe" => {
                let Some(Some(topic)) = asked_for(kind, name, head) else {
                    return false;
                };
                self.messages
                    .events
                    .push(Event::Confirmed(self.channel, topic));
                return true;
            }
            b"sunsubscribe" => {
                self.messages.ended(self.channel, name);
                return false;
            }
            _ => return false,
        };
        if !self.messages.events.is_empty() {
            let frame = Bytes::copy_from_slice(frame);
            let message = Event::Message(topic_kind, self.channel, frame);
            self.messages.events.push(message);
            return false;
        }
        for key in self.messages.subscribers(self.channel, topic_kind, name) {
            if let Some(client) = self.clients.get_mut(*key) {
                let state = &mut client.state;
                deliver(state, frame, self.output_max, self.spare);
                if !state.woken {
                    state.woken = true;
                    self.actions.push(Action::WakeClient(*key));
                }
            }
        }
        false
    }
}

/// Appends a message to what a client gets, behind a reply that it has the beginning of.
pub(crate) fn deliver(state: &mut State, frame: &[u8], output_max: usize, spare: &mut Spare) {
    let session = &mut state.session;
    let waiting = session.output.len() + session.order.early_bytes() + session.deferred.len();
    if waiting > output_max {
        state.end(Why::Output { waiting }, true);
        return;
    }
    session.output.equip(spare);
    let resp3 = session.protocol == Protocol::Resp3;
    let out = if session.order.front_is_begun() {
        &mut session.deferred
    } else {
        session.output.buffer()
    };
    out.push(if resp3 { b'>' } else { b'*' });
    out.extend_from_slice(frame.get(1..).unwrap_or_default());
}

/// Instead of a redirect that cannot be followed.
pub(crate) const SLOT_IS_MOVING: &str =
    "TRYAGAIN the slot is moving to another node: the command was not run, send it again";

fn kind_of(class: &ErrorClass) -> Option<RedirectKind> {
    Some(match class {
        ErrorClass::Redirect(redirect) if redirect.ask => RedirectKind::Ask,
        ErrorClass::Redirect(_) => RedirectKind::Moved,
        ErrorClass::TryAgain => RedirectKind::TryAgain,
        ErrorClass::ClusterDown => RedirectKind::ClusterDown,
        ErrorClass::Loading => RedirectKind::Loading,
        ErrorClass::MasterDown => RedirectKind::MasterDown,
        ErrorClass::ReadOnly => RedirectKind::ReadOnly,
        ErrorClass::Demoted | ErrorClass::Other => return None,
    })
}

/// A client's key beside the state it leads to.
pub(crate) type Named<'a> = (&'a mut State, Key);

/// The topic of the request that a push answers: the same word about the same name.
fn asked_for(
    kind: &[u8],
    name: &[u8],
    head: Option<(Ticket, Retained<'_>)>,
) -> Option<Option<Key>> {
    let (ticket, request) = head?;
    let topic = ticket.topic?;
    let mut asked = Vec::with_capacity(name.len() + 48);
    resp::write::request(&mut asked, &[&kind.to_ascii_uppercase()[..], name]);
    (request.to_bytes() == asked).then_some(topic)
}
