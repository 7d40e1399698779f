//! Commands about all clients of the proxy: asked of every worker, once Valkey has said that the user
//! may.

use std::time::{Duration, Instant};

use command::{Command, CommandTable};
use resp::Request;
use routing::Keys;
use session::{
    Form, OpState, Place,
    local::{
        self, Inquiry, Shown,
        keyway::{HELP, Question},
    },
};

use crate::{
    action::Action,
    client::{Blocked, State, Unblocking, Why},
    core::Core,
    forward::{Sending, Took},
    host::Host,
    plane::Dataplane,
    slots::Key,
    ticket::Ticket,
};

/// A node that was asked to end a command that blocks has so long to do it.
const UNBLOCK_LIMIT: Duration = Duration::from_secs(1);

/// What a worker says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Ids of the clients that are meant, with their lines.
    pub lines: Vec<(u64, Vec<u8>)>,
    /// Clients that something was done to.
    pub count: u64,
}

/// A client's question, until every worker has answered.
#[derive(Debug)]
pub(crate) struct Pending {
    inquiry: Inquiry,
    place: Place,
    left: usize,
    answer: Answer,
}

/// For whom commands are held back, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    until: Instant,
    all: bool,
}

impl Pause {
    pub(crate) fn holds(self, writes: bool, now: Instant) -> bool {
        now < self.until && (self.all || writes)
    }
}

impl<H: Host> Core<H> {
    /// Asks Valkey whether the client's user may ask.
    pub(crate) fn inquire(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        request: Request<'_>,
        now: Instant,
    ) -> Option<Blocked> {
        if client.session.order.open() > 0 {
            return Some(Blocked::Barrier);
        }
        let subcommand = command.name().split('|').nth(1).unwrap_or_default();
        let inquiry = match Inquiry::parse(subcommand, request) {
            Ok(inquiry) => inquiry,
            Err(text) => {
                self.refuse(client, Some(command.id()), text.as_bytes(), now);
                return None;
            }
        };
        if inquiry == Inquiry::Keyway(Question::Help) {
            resp::write::array(&mut self.scratch, HELP.len());
            for line in HELP {
                resp::write::simple(&mut self.scratch, line);
            }
            let silent = !client.session.take_reply_wanted();
            self.reply_here(client, Some(command.id()), silent, now);
            return None;
        }
        let mut probe = Vec::new();
        resp::write::request(&mut probe, inquiry.probe());
        let sending = Sending {
            request: &probe,
            slot: None,
            keys: Keys::none(),
            writes: false,
            form: Form::Probe,
            merge: None,
        };
        let place = client.session.order.next_place();
        if self.forward((client, key), command, sending, now) == Took::NoRoom {
            self.waiting_for_room.push(key);
            return Some(Blocked::Room);
        }
        client.inquiry = Some(Box::new(Pending {
            inquiry,
            place,
            left: 0,
            answer: Answer::default(),
        }));
        None
    }

    fn finish_inquiry(
        &mut self,
        (client, key): (&mut State, Key),
        table: &command::CommandTable,
        now: Instant,
    ) {
        let Some(pending) = client.inquiry.take() else {
            return;
        };
        let Pending {
            inquiry,
            place,
            answer: Answer { mut lines, count },
            ..
        } = *pending;
        let protocol = client.session.protocol;
        let mut reply = Vec::new();
        match inquiry {
            Inquiry::List(_) => {
                lines.sort_unstable_by_key(|(id, _)| *id);
                let text: Vec<u8> = lines.into_iter().flat_map(|(_, line)| line).collect();
                resp::write::verbatim(&mut reply, protocol, b"txt", text);
            }
            Inquiry::Keyway(question) => self.host.keyway(question, protocol, &mut reply),
            Inquiry::Kill { strict: true, .. } if count == 0 => {
                resp::write::error(&mut reply, "ERR No such client");
            }
            Inquiry::Kill { strict: true, .. } | Inquiry::Pause { .. } | Inquiry::Unpause => {
                resp::write::simple(&mut reply, "OK");
            }
            Inquiry::Kill { .. } | Inquiry::Unblock { .. } => {
                resp::write::integer(&mut reply, i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let command = client.session.order.command(place);
        if let Some(command) = command.and_then(|command| table.get(command)) {
            let how = (Form::Probe, false);
            let ticket = Ticket::new(key, (place, 0), command, how, protocol);
            self.give(client, ticket, &reply, true, now);
        }
        self.wake(client, key);
    }
}

impl<H: Host> Dataplane<H> {
    /// Valkey does not mind: the workers are asked.
    pub(crate) fn allowed(&mut self, ticket: Ticket, now: Instant) {
        let key = ticket.client;
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let id = client.state.session.id;
        let Some(pending) = client.state.inquiry.as_deref_mut() else {
            return;
        };
        let inquiry = pending.inquiry.clone();
        let others = match inquiry {
            Inquiry::Keyway(_) => 0,
            _ => self.core.settings.workers.saturating_sub(1),
        };
        pending.left = others;
        if others > 0 {
            self.core.actions.push(Action::AskWorkers {
                client: key,
                id,
                inquiry: Box::new(inquiry.clone()),
            });
        }
        let answer = self.answer(&inquiry, id, now);
        self.add_answer(key, answer, now);
    }

    /// Another worker has answered a client's question.
    pub fn answered(&mut self, key: Key, answer: Answer, now: Instant) {
        if let Some(client) = self.clients.get_mut(key)
            && let Some(pending) = client.state.inquiry.as_deref_mut()
        {
            pending.left = pending.left.saturating_sub(1);
        }
        self.add_answer(key, answer, now);
    }

    fn add_answer(&mut self, key: Key, mut answer: Answer, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let Some(pending) = client.state.inquiry.as_deref_mut() else {
            return;
        };
        pending.answer.lines.append(&mut answer.lines);
        pending.answer.count += answer.count;
        if pending.left == 0 {
            self.core
                .finish_inquiry((&mut client.state, key), &self.table, now);
        }
    }

    /// What this worker's clients have to do with an inquiry of the client with this id.
    pub fn answer(&mut self, inquiry: &Inquiry, asker: u64, now: Instant) -> Answer {
        let mut answer = Answer::default();
        match inquiry {
            Inquiry::List(filter) => {
                for (_, client) in self.clients.iter() {
                    let state = &client.state;
                    if filter.means(
                        &state.session,
                        state.is_subscriber(),
                        state.age_s(now),
                        asker,
                    ) {
                        let line = self.line(state, now);
                        answer.lines.push((state.session.id, line));
                    }
                }
            }
            Inquiry::Kill { filter, .. } => {
                let keys: Vec<Key> = self.clients.iter().map(|(key, _)| key).collect();
                for key in keys {
                    let Some(client) = self.clients.get_mut(key) else {
                        continue;
                    };
                    let state = &mut client.state;
                    if filter.means(
                        &state.session,
                        state.is_subscriber(),
                        state.age_s(now),
                        asker,
                    ) {
                        // Whoever kills itself gets the reply first.
                        let at_once = state.session.id != asker;
                        state.end(Why::Killed, at_once);
                        self.core.wake(state, key);
                        answer.count += 1;
                    }
                }
            }
            Inquiry::Pause { time, all } => {
                self.core.pause = Some(Pause {
                    until: now + *time,
                    all: *all,
                });
            }
            Inquiry::Unpause => self.core.pause = None,
            Inquiry::Keyway(_) => {} // the host knows
            Inquiry::Unblock { id, error } => answer.count = self.unblock(*id, *error, now),
        }
        answer
    }

    fn line(&self, state: &State, now: Instant) -> Vec<u8> {
        let [subscribed, patterns, sharded] = state.subscription_counts();
        let shown = Shown {
            command: state
                .session
                .last_command
                .and_then(|id| Some(self.table.get(id)?.name())),
            subscribed,
            patterns,
            sharded,
            watching: state.watch.is_some(),
            blocked: state.leasing && state.session.order.open() > 0,
        };
        local::client_line(&state.session, &shown, now)
    }

    /// Ends the blocking of a client's command, if it blocks.
    fn unblock(&mut self, id: u64, error: bool, now: Instant) -> u64 {
        let blocked = |state: &State| {
            state.session.id == id && state.leasing && state.session.order.open() > 0
        };
        let found = self
            .clients
            .iter()
            .find(|(_, client)| blocked(&client.state));
        let Some(key) = found.map(|(key, _)| key) else {
            return 0;
        };
        let Some(client) = self.clients.get_mut(key) else {
            return 0;
        };
        let state = &mut client.state;
        let Some(open) = blocking(state, &self.table) else {
            return 0; // UNWATCH has a connection to itself too
        };
        if state.unblocking.is_some() {
            return 0;
        }
        if self.core.unblock_there(state, open, error, now) {
            let until = now + UNBLOCK_LIMIT;
            state.unblocking = Some(Box::new(Unblocking { until, error }));
        } else {
            self.unblock_here(key, error, now);
        }
        1
    }

    /// The node has not done it: it may not for this user, it does not answer, or it was asked before it had
    /// the command.
    pub(crate) fn unblock_late(&mut self, key: Key, now: Instant) {
        let client = self.clients.get_mut(key);
        let asked = client.and_then(|client| client.state.unblocking.take());
        if let Some(asked) = asked {
            self.unblock_here(key, asked.error, now);
        }
    }

    /// Replies in the node's place. Its connection ends, and what the command may have taken meanwhile with it.
    fn unblock_here(&mut self, key: Key, error: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let state = &mut client.state;
        let Some((place, part, command)) = blocking(state, &self.table) else {
            return;
        };
        let mut reply = Vec::new();
        if error {
            let text = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
            resp::write::error(&mut reply, text);
        } else {
            resp::write::null_array(&mut reply, state.session.protocol);
        }
        let how = (Form::Leased(0), false);
        let ticket = Ticket::new(key, (place, part), command, how, state.session.protocol);
        self.core.give(state, ticket, &reply, true, now);
        self.core.settle_lease(state, now);
        self.core.wake(state, key);
    }
}

/// A client's command that blocks, and that alone is open.
fn blocking<'a>(state: &State, table: &'a CommandTable) -> Option<(Place, u16, &'a Command)> {
    let order = &state.session.order;
    let (place, part) = order.open_part()?;
    let form = order.op(place, part).map(|op| op.form);
    if form != Some(Form::Leased(0)) || state.watch.is_some() {
        return None;
    }
    let command = table.get(order.command(place)?)?;
    command.is_blocking().then_some((place, part, command))
}

impl<H: Host> Core<H> {
    /// Asks the node that has a client's command to end it, on another connection: only the node knows
    /// whether the command has taken anything yet. `false` when no node has it.
    fn unblock_there(
        &mut self,
        client: &State,
        (place, part, _): (Place, u16, &Command),
        error: bool,
        now: Instant,
    ) -> bool {
        let op = client.session.order.op(place, part);
        let lease = client.lease.and_then(|lease| self.channels.get(lease));
        let Some((op, lease)) = op.zip(lease) else {
            return false;
        };
        let id = lease.connection.greeting().client_id;
        let is_there = matches!(op.state, OpState::InFlight(route) if route == lease.route);
        let Some(id) = id.filter(|_| is_there && lease.is_ready()) else {
            return false;
        };
        let (addr, node) = (lease.addr.clone(), lease.node);
        let how = if error { "ERROR" } else { "TIMEOUT" };
        let mut request = Vec::new();
        resp::write::request(&mut request, &["CLIENT", "UNBLOCK", &id.to_string(), how]);
        let channel = self.channel_to(&addr, node, self.profile(client), now);
        self.push(channel, Ticket::of_nobody(), &request, None, now);
        true
    }
}

impl State {
    fn age_s(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.session.connected_at)
            .as_secs()
    }
}
