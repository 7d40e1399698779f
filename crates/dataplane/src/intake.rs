//! From a client's bytes to commands that have a place.

use std::{sync::Arc, time::Instant};

use command::{Command, CommandTable, LocalKind, TransactionKind};
use resp::{ProtocolError, Request, RequestLimits};
use routing::{Keys, Merge, Plan};
use session::{
    Form,
    local::{self, Context, Endpoint, Outcome},
};

use crate::{
    action::Action,
    client::{Blocked, Client, State, Why},
    core::Core,
    forward::{Sending, Took},
    host::{ErrorKind, Host},
    lease::Loan,
    settings::Limits,
    slots::Key,
};

/// While so many bytes wait for a client to read them, nothing more is taken from it.
pub(crate) const OUTPUT_PAUSES_BYTES: usize = 1024 * 1024;

/// A command whose keys a node does not look for when it looks for their owner, in a transaction with
/// one whose keys it does look for.
fn guarded(request: Request<'_>, command: &Command) -> Vec<u8> {
    let mut refs = command::KeyRefs::new();
    let mut exists: Vec<&[u8]> = vec![b"EXISTS"];
    if command.keys(request, &mut refs).is_ok() {
        exists.extend(refs.iter().filter_map(|key| request.arg(key.index())));
    }
    let mut out = Vec::with_capacity(2 * request.bytes().len() + 64);
    resp::write::request(&mut out, &["MULTI"]);
    resp::write::request(&mut out, &exists);
    out.extend_from_slice(request.bytes());
    resp::write::request(&mut out, &["EXEC"]);
    out
}

/// Whether a command writes when it is taken: what is queued in a transaction does with `EXEC`.
fn writes_now(client: &State, command: &Command) -> bool {
    match &client.session.transaction {
        Some(transaction) => transaction.writes() && command.name() == "exec",
        None => command.is_write(),
    }
}

/// Whether a `SELECT` chooses the database that the client is in.
pub(crate) fn stays_in_database(request: Request<'_>, client: &State) -> bool {
    let number = request.arg(1).and_then(|arg| std::str::from_utf8(arg).ok());
    number.and_then(|number| number.parse().ok()) == Some(client.session.database)
}

/// Whether a command may begin now. What is about all keys has those before it done, and those behind
/// it not begun: half of either could not be sent again without being seen in another order.
fn may_begin(client: &mut State, plan: &Plan) -> bool {
    if matches!(plan, Plan::FanOut(_) | Plan::EveryNode(_) | Plan::Scan) {
        if client.session.order.open() > 0 {
            return false;
        }
        client.alone = Some(client.session.order.next_place());
    }
    true
}

/// What is not queued behind `MULTI`.
fn ends_transaction(plan: &Plan) -> bool {
    matches!(
        plan,
        Plan::Local(LocalKind::Quit | LocalKind::Reset)
            | Plan::Transaction {
                kind: TransactionKind::Exec | TransactionKind::Discard,
                ..
            }
    )
}

/// The limits of a client's requests.
pub(crate) fn request_limits(limits: &Limits, authenticated: bool) -> RequestLimits {
    if authenticated {
        let request_bytes_max = limits.request_bytes_max;
        RequestLimits {
            request_bytes_max,
            bulk_bytes_max: RequestLimits::AUTHENTICATED
                .bulk_bytes_max
                .min(request_bytes_max),
            ..RequestLimits::AUTHENTICATED
        }
    } else {
        RequestLimits::UNAUTHENTICATED
    }
}

impl<H: Host> Core<H> {
    /// Takes as many commands out of `buf` as it can, and returns how many bytes they had.
    pub(crate) fn run(
        &mut self,
        client: &mut Client,
        key: Key,
        buf: &[u8],
        table: &CommandTable,
        now: Instant,
    ) -> usize {
        let Client { decoder, state, .. } = client;
        let mut used = 0;
        while !state.session.closing {
            self.settle_lease(state, now);
            state.blocked = self.must_pause(state, key, now);
            if state.blocked.is_some() {
                break;
            }
            if !state.trusted && !local::must_authenticate(&state.session, &self.view.facts) {
                state.trusted = true;
                decoder.set_limits(request_limits(&self.settings.limits, true));
            }
            let rest = buf.get(used..).unwrap_or_default();
            let len = match decoder.decode(rest) {
                Ok(Some(len)) => len,
                Ok(None) => break,
                Err(error) => {
                    self.broke_protocol(state, error, now);
                    return buf.len();
                }
            };
            if !decoder.is_empty() {
                let frame = rest.get(..len).unwrap_or_default();
                state.blocked = self.take((state, key), decoder.request(frame), table, now);
                if state.blocked.is_some() {
                    break;
                }
                if let Some(seat) = &state.seat {
                    seat.charge_request(len, now);
                }
                self.settings.seats.charge_request(len, now);
                state.session.commands += 1;
                state.session.last_command_at = now;
            }
            used += len;
            decoder.next();
        }
        if state.session.closing {
            buf.len()
        } else {
            used
        }
    }

    fn must_pause(&mut self, client: &mut State, key: Key, now: Instant) -> Option<Blocked> {
        if client.auth.is_some() {
            return Some(Blocked::Auth);
        }
        if client.leasing {
            return Some(Blocked::Lease);
        }
        if client.inquiry.is_some() {
            if client.session.order.open() > 0 {
                return Some(Blocked::Inquiry);
            }
            client.inquiry = None; // it was refused
        }
        if self.pause.is_some_and(|pause| pause.holds(false, now)) {
            self.waiting_for_room.push(key);
            return Some(Blocked::Paused);
        }
        if let Some(blocked) = client.waits_for_subscription() {
            return Some(blocked);
        }
        let order = &client.session.order;
        if client.alone.is_some() {
            if order.open_part().map(|(place, _)| place) == client.alone {
                return Some(Blocked::Barrier);
            }
            client.alone = None;
        }
        if order.len() >= self.settings.limits.in_flight_max {
            return Some(Blocked::InFlight);
        }
        let waiting = client.session.output.len() + order.early_bytes();
        (waiting > OUTPUT_PAUSES_BYTES).then_some(Blocked::Output)
    }

    fn broke_protocol(&mut self, client: &mut State, error: ProtocolError, now: Instant) {
        let text = error.reply();
        let why = text
            .as_deref()
            .unwrap_or("not a Valkey client (HTTP?)")
            .to_owned();
        if let Some(text) = text {
            self.host.error(ErrorKind::Protocol);
            resp::write::error(&mut self.scratch, text.as_bytes());
            self.reply_here(client, None, false, now);
        }
        client.end(Why::Protocol(why), false);
    }

    /// Takes one command. Returns why it cannot be taken yet.
    fn take(
        &mut self,
        (client, key): (&mut State, Key),
        request: Request<'_>,
        table: &CommandTable,
        now: Instant,
    ) -> Option<Blocked> {
        let session = &mut client.session;
        if local::refuse_unauthenticated(request, session, &self.view.facts, &mut self.scratch) {
            let silent = !session.take_reply_wanted();
            self.host.error(ErrorKind::Auth);
            self.reply_here(client, None, silent, now);
            return None;
        }
        let command = match table.lookup(request) {
            Ok(command) => command,
            Err(error) => {
                if let Some(transaction) = client.session.transaction.as_deref_mut() {
                    transaction.fail();
                }
                self.refuse(client, None, error.text(), now);
                return None;
            }
        };
        if self.refuse_hasty(client, command, now) {
            return None;
        }
        if command.is_script() || command.name() == "script|load" {
            let shown = self.scripts.note(command, request, &self.hasher);
            self.actions.extend(shown.map(Action::Script));
        }
        if command.name() == "script|flush" {
            self.scripts.forget();
            self.actions.push(Action::ScriptsForgotten);
        }
        client.session.last_command = Some(command.id());
        let paused = self.pause.is_some_and(|pause| pause.holds(true, now));
        if paused && writes_now(client, command) {
            self.waiting_for_room.push(key);
            return Some(Blocked::Paused);
        }
        let plan = routing::plan(command, request, self.settings.cross_slot, &self.hasher);
        if self.restrict_subscriber(client, command, request, &plan, now) {
            return None;
        }
        if client.session.transaction.is_some() && !ends_transaction(&plan) {
            self.queue(client, command, request, &plan, now);
            return None;
        }
        self.carry_out((client, key), command, request, plan, table, now)
    }

    /// Refuses a command of a user that asks for more than it may; never one that ends something.
    fn refuse_hasty(&mut self, client: &mut State, command: &Command, now: Instant) -> bool {
        let of_user = client.seat.as_ref().and_then(|seat| seat.exceeds(now));
        let (whose, rate, what) = match (of_user, self.settings.seats.exceed(now)) {
            (Some((rate, what)), _) => ("this user", rate, what),
            (None, Some((rate, what))) => ("this cluster's clients", rate, what),
            (None, None) => return false,
        };
        if matches!(
            command.name(),
            "exec"
                | "discard"
                | "unwatch"
                | "reset"
                | "quit"
                | "auth"
                | "hello"
                | "unsubscribe"
                | "punsubscribe"
                | "sunsubscribe"
        ) {
            return false;
        }
        if let Some(transaction) = client.session.transaction.as_deref_mut() {
            transaction.fail();
        }
        let text = format!(
            "ERR KEYWAY.TOO_FAST {whose} may have {rate} {what} in a second; nothing was done, try again later"
        );
        self.refuse(client, Some(command.id()), text.as_bytes(), now);
        true
    }

    /// Does what was planned. Returns why it cannot be done yet.
    fn carry_out(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        request: Request<'_>,
        plan: Plan,
        table: &CommandTable,
        now: Instant,
    ) -> Option<Blocked> {
        if let Some(blocked) = self.cannot_begin((client, key), request, &plan, now) {
            return Some(blocked);
        }
        let client = (client, key);
        let took = match plan {
            Plan::Slot { slot, keys } => {
                let near = self.near.is_on();
                if near && self.answer_near(client.0, (command, request), (slot, &keys), now) {
                    return None;
                }
                let sending = Sending::plain(command, request, Some(slot), keys);
                self.forward(client, command, sending, now)
            }
            Plan::Any => {
                let sending = Sending::plain(command, request, None, Keys::none());
                self.forward(client, command, sending, now)
            }
            Plan::Instead(other) => {
                let sending = Sending {
                    request: &other,
                    ..Sending::plain(command, request, None, Keys::none())
                };
                self.forward(client, command, sending, now)
            }
            Plan::Split(split) => self.forward_split(client, command, *split, now),
            Plan::FanOut(kind) => self.fan_out(client, command, request, kind, now),
            Plan::EveryNode(kind) => self.every_node(client, command, request, kind, now),
            Plan::Scan => self.scan(client, command, request, now),
            Plan::Guarded { slot, keys } => {
                let block = guarded(request, command);
                let sending = Sending {
                    request: &block,
                    form: Form::Block(3),
                    merge: Some(Merge::last()),
                    ..Sending::plain(command, request, Some(slot), keys)
                };
                self.forward(client, command, sending, now)
            }
            Plan::Clients => return self.inquire(client, command, request, now),
            Plan::Wait => return self.wait(client, command, request, now),
            Plan::Blocking { slot, keys } => {
                let sending = Sending {
                    form: Form::Leased(0),
                    ..Sending::plain(command, request, Some(slot), keys)
                };
                return self.lend(client, command, sending, Loan::Command, now);
            }
            Plan::Transaction { kind, slot, keys } => {
                let (about, place) = ((command, kind), (slot, keys));
                return self.transact(client, about, request, place, table, now);
            }
            Plan::Subscription(about) => {
                self.subscribe(client, (command, about), request, now);
                return None;
            }
            Plan::Refuse(text) => {
                self.refuse(client.0, Some(command.id()), text.as_bytes(), now);
                return None;
            }
            Plan::Local(kind) => {
                return self.take_local(client, command, kind, request, table, now);
            }
        };
        if took == Took::NoRoom {
            self.waiting_for_room.push(key);
            return Some(Blocked::Room);
        }
        None
    }

    /// Why a command waits before it has a place.
    fn cannot_begin(
        &mut self,
        (client, key): (&mut State, Key),
        request: Request<'_>,
        plan: &Plan,
        now: Instant,
    ) -> Option<Blocked> {
        if self.must_know_the_cluster(client, request, plan, now) {
            self.waiting_for_room.push(key);
            return Some(Blocked::Room);
        }
        (!may_begin(client, plan)).then_some(Blocked::Barrier)
    }

    /// Whether a command is to wait for the first look at the cluster. Those for the owner of a slot
    /// wait in their place.
    fn must_know_the_cluster(
        &self,
        client: &mut State,
        request: Request<'_>,
        plan: &Plan,
        now: Instant,
    ) -> bool {
        if self.view.topology.is_some() {
            return false;
        }
        let asks = match plan {
            Plan::FanOut(_) | Plan::EveryNode(_) | Plan::Scan | Plan::Wait => true,
            Plan::Local(LocalKind::Select) => !stays_in_database(request, client),
            _ => false,
        };
        let since = *client.asks_since.get_or_insert(now);
        let waits = asks && now.saturating_duration_since(since) < self.settings.limits.deadline;
        if !waits {
            client.asks_since = None;
        }
        waits
    }

    /// Takes a command that is answered here.
    fn take_local(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        kind: LocalKind,
        request: Request<'_>,
        table: &CommandTable,
        now: Instant,
    ) -> Option<Blocked> {
        // What changes who a client is, or how it is spoken to, must not change that for commands
        // that are still on their way.
        let changes = match kind {
            LocalKind::Auth | LocalKind::Hello | LocalKind::Reset => true,
            LocalKind::Select => !stays_in_database(request, client),
            _ => false,
        };
        if changes && client.session.order.open() > 0 {
            return Some(Blocked::Barrier);
        }
        self.answer((client, key), (kind, command.id()), request, table, now);
        None
    }

    pub(crate) fn refuse(
        &mut self,
        client: &mut State,
        command: Option<command::CommandId>,
        text: &[u8],
        now: Instant,
    ) {
        self.host.error(ErrorKind::Refused);
        resp::write::error(&mut self.scratch, text);
        let silent = !client.session.take_reply_wanted();
        self.reply_here(client, command, silent, now);
    }

    /// An error of the proxy's own, of another kind.
    pub(crate) fn fail(
        &mut self,
        client: &mut State,
        command: &Command,
        text: &[u8],
        kind: ErrorKind,
        now: Instant,
    ) {
        self.host.error(kind);
        resp::write::error(&mut self.scratch, text);
        let silent = !client.session.take_reply_wanted();
        self.reply_here(client, Some(command.id()), silent, now);
    }

    /// Answers a command that no node is needed for.
    fn answer(
        &mut self,
        (client, key): (&mut State, Key),
        (kind, command): (LocalKind, command::CommandId),
        request: Request<'_>,
        table: &CommandTable,
        now: Instant,
    ) {
        let mut out = std::mem::take(&mut self.scratch);
        let outcome = self.with_context(client, table, now, |session, context| {
            local::answer(kind, request, session, context, &mut out)
        });
        self.scratch = out;
        if kind == LocalKind::Info {
            self.actions.push(Action::Count);
        }
        if kind == LocalKind::Reset {
            self.break_watch(client);
            self.leave_topics((&mut *client, key), now);
            let initial = client.session.initial_user.clone();
            let identity = self.initial_identity(&initial);
            self.change_identity(client, identity);
            client.seat = match &initial {
                session::User::Named(name) => self.settings.seats.keep(name),
                _ => None,
            };
        }
        match outcome {
            Outcome::Replied => self.reply_here(client, Some(command), false, now),
            Outcome::Silent => self.reply_here(client, Some(command), true, now),
            Outcome::Close => {
                self.reply_here(client, Some(command), false, now);
                client.end(Why::Quit, false);
            }
            Outcome::Authenticate(request) => {
                self.authenticate((client, key), command, request, table, now);
            }
        }
    }

    /// Everything that an answer may tell of the proxy and the cluster.
    pub(crate) fn with_context<R>(
        &self,
        client: &mut State,
        table: &CommandTable,
        now: Instant,
        use_it: impl FnOnce(&mut session::Session, &Context<'_>) -> R,
    ) -> R {
        let totals = self.host.totals();
        let facts = Arc::clone(&self.view.facts);
        let session = &mut client.session;
        let dialled = Endpoint {
            host: session.local.ip().to_string(),
            port: self.settings.port,
        };
        let endpoint = self.settings.advertise.as_ref().unwrap_or(&dialled);
        let read_port = self.settings.read_port.as_ref();
        let beside = read_port.map(|reads| Endpoint {
            host: endpoint.host.clone(),
            port: reads.port,
        });
        let replica = read_port.zip(beside.as_ref()).map(|(reads, beside)| {
            let endpoint = reads.advertise.as_ref().unwrap_or(beside);
            (endpoint, reads.node_id.as_str())
        });
        let context = Context {
            now,
            unix_ms: totals.unix_ms,
            facts: &facts,
            table,
            endpoint,
            node_id: &self.settings.node_id,
            shard_id: &self.settings.shard_id,
            replica,
            read_port: session.read_port,
            zone: self.settings.zone.as_deref(),
            uptime: totals.uptime,
            clients: totals.clients,
            clients_max: self.settings.limits.clients_max,
            clients_blocked: 0,
            commands_processed: totals.commands,
            connections_received: totals.connections,
            used_memory: totals.used_memory,
            process_id: self.settings.process_id,
            run_id: &self.settings.run_id,
            keyway_version: self.settings.version,
        };
        use_it(session, &context)
    }
}
