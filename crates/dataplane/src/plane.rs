//! The dataplane's face: what the shell tells it, and what it asks.

use std::{io::IoSlice, net::SocketAddr, sync::Arc, time::Instant};

use bytes::{Buf, BytesMut};
use command::CommandTable;
use resp::RequestDecoder;
use session::{Session, User, local};
use upstream::{CloseReason, Phase};

use crate::{
    action::Action,
    channel::{Attempt, Purpose},
    client::{Client, Ending, State, Why},
    core::Core,
    cork::Cork,
    heat::Heat,
    host::Host,
    intake::{OUTPUT_PAUSES_BYTES, request_limits},
    replies::Sink,
    settings::Settings,
    slots::{Key, Slots},
    sweep::Round,
    view::View,
};

/// A client that has connected.
#[derive(Clone, Debug)]
pub struct Opening {
    /// `CLIENT ID`: unique in this process, never reused, grows with time.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that it dialled.
    pub local: SocketAddr,
    /// The user of [`Settings::users`] that its certificate names.
    pub user: Option<Arc<[u8]>>,
    /// It has come to the read port: its reads may go to replicas.
    pub read_port: bool,
    /// It is here because of the user that it is about to name: it must authenticate, whatever the
    /// cluster lets those do who do not.
    pub stranger: bool,
}

/// Bytes kept of what a client sends while a command of its blocks.
const BLOCKED_PENDING_MAX: usize = 64 * 1024;

/// One worker: its clients, its node connections, and what it knows of the cluster.
///
/// After every call that takes `&mut self`, [`Dataplane::take_actions`] has what is to be done.
#[derive(Debug)]
pub struct Dataplane<H> {
    pub(crate) clients: Slots<Client>,
    pub(crate) core: Core<H>,
    pub(crate) table: Arc<CommandTable>,
    pub(crate) ticked_at: Instant,
    pub(crate) swept_at: Instant,
    pub(crate) round: Round,
}

impl<H: Host> Dataplane<H> {
    /// A dataplane without clients that knows nothing of the cluster yet.
    #[must_use]
    pub fn new(settings: Settings, table: Arc<CommandTable>, host: H, now: Instant) -> Self {
        Self {
            clients: Slots::default(),
            core: Core::new(settings, host),
            table,
            ticked_at: now,
            swept_at: now,
            round: Round::new(now),
        }
    }

    /// Appends what is to be done outside to `into`, oldest first.
    pub fn take_actions(&mut self, into: &mut Vec<Action>) {
        self.core.take_actions(into);
    }

    /// Who runs this.
    pub fn host(&mut self) -> &mut H {
        &mut self.core.host
    }

    /// From now on some commands are timed, or none; and one in so many is traced, 0 is none. The
    /// host is told of each ([`Host::followed`]).
    pub fn follow(&mut self, timed: bool, traced_one_in: u32) {
        self.core.choose_followed(timed, traced_one_in);
    }

    /// What this worker's commands weigh.
    #[must_use]
    pub fn heat(&mut self) -> &mut Heat {
        &mut self.core.heat
    }

    /// Clients now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// A new look at the cluster.
    pub fn set_view(&mut self, view: View, now: Instant) {
        let revision = |view: &View| view.topology.as_ref().map(|topology| topology.revision());
        let changed = match (&self.core.view.topology, &view.topology) {
            (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
            (before, after) => before.is_some() != after.is_some(),
        };
        debug_assert!(revision(&view).is_some() || revision(&self.core.view).is_none());
        if let Some(table) = &view.table {
            self.table = Arc::clone(table);
        }
        let news = !Arc::ptr_eq(&self.core.view.readers, &view.readers);
        self.core.view = view;
        if changed {
            self.core.rerouted(now);
        } else if news {
            self.core.renew_reads();
        }
        self.settle(now);
        self.tick_held(now);
        if changed {
            self.tick_auth(now);
        }
        self.check_invariants();
    }

    /// The configuration has changed. Clients that are here stay who they are, but for those of a
    /// user whom it names no more.
    pub fn set_settings(&mut self, settings: Settings, now: Instant) {
        let before = std::mem::replace(&mut self.core.settings, settings);
        let users = &self.core.settings.users;
        let gone = |user: &User| match user {
            User::Named(name) => before.users.get(name).is_some() && users.get(name).is_none(),
            _ => false,
        };
        let clients = self.clients.iter();
        let gone: Vec<Key> = clients
            .filter(|(_, client)| gone(&client.state.session.user))
            .map(|(key, _)| key)
            .collect();
        for key in gone {
            self.client_ends(key, Why::UserGone, true);
            self.core.actions.push(Action::WakeClient(key));
        }
        self.core.renew_service(now);
        self.core.renew_reads();
        let own = &self.core.settings;
        let changed = own.near_prefixes != before.near_prefixes
            || own.near_ops_min != before.near_ops_min
            || own.near_bytes_max != before.near_bytes_max;
        if changed {
            self.core.renew_near(now);
        }
        self.settle(now);
        self.check_invariants();
    }

    /// Another worker's client has shown a script.
    pub fn script_shown(&mut self, body: &[u8]) {
        let Core {
            scripts, hasher, ..
        } = &mut self.core;
        scripts.keep(body, hasher);
    }

    /// Another worker's client has had all scripts forgotten.
    pub fn scripts_forgotten(&mut self) {
        self.core.scripts.forget();
    }

    // ---- clients ----

    /// A client has connected, and may speak.
    pub fn client_opened(&mut self, opening: Opening, now: Instant) -> Key {
        let Opening {
            id,
            peer,
            local,
            user,
            read_port,
            stranger,
        } = opening;
        let user = match user {
            Some(name) => User::Named(name),
            None if stranger => User::Default,
            None => self.core.initial_user(),
        };
        let identity = self.core.initial_identity(&user);
        let seat = match &user {
            User::Named(name) => Some(self.core.settings.seats.take(name)),
            _ => None,
        };
        let mut session = Session::new(id, peer, local, user, now);
        session.stranger = stranger;
        session.read_port = read_port;
        session.readonly = read_port;
        let trusted = !local::must_authenticate(&session, &self.core.view.facts);
        let decoder = RequestDecoder::new(request_limits(&self.core.settings.limits, trusted));
        if let Some(identity) = self.core.identities.get_mut(identity) {
            identity.clients += 1;
        }
        let full = matches!(seat, Some(None));
        let key = self.clients.insert_with(|_| Client {
            decoder,
            pending: BytesMut::new(),
            state: State {
                session,
                identity,
                seat: seat.flatten(),
                calm: 0,
                blocked: None,
                auth: None,
                lease: None,
                waits: Vec::new(),
                leasing: false,
                unblocking: None,
                watch: None,
                unguarded: None,
                uninformed: false,
                cork: Cork::default(),
                doubted: Vec::new(),
                subscriptions: None,
                alone: None,
                subscribing: None,
                inquiry: None,
                woken: false,
                poke: false,
                listed_as_held: false,
                bulky: 0,
                ending: None,
                half_since: None,
                asks_since: None,
                eof: false,
                trusted,
                drained_at: now,
            },
        });
        if full {
            self.client_ends(key, Why::UserFull, true);
        }
        key
    }

    /// Bytes came from a client.
    pub fn client_received(&mut self, key: Key, bytes: &[u8], now: Instant) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let before = client.pending.capacity();
        let after;
        client.state.session.bytes_in = client.state.session.bytes_in.saturating_add(length);
        if client.pending.is_empty() && client.state.blocked.is_none() {
            let next = client.state.session.order.next_place();
            let used = self.core.run(client, key, bytes, &self.table, now);
            client.state.took_since(next);
            client
                .pending
                .extend_from_slice(bytes.get(used..).unwrap_or_default());
            after = client.pending.capacity();
            after_run(client, now);
        } else {
            client.pending.extend_from_slice(bytes);
            after = client.pending.capacity();
            self.client_resumed(key, now);
        }
        if after > before {
            self.half_sent_grew(after - before, now);
        }
        self.check_invariants();
    }

    /// A client was woken: whatever it waited for may have happened.
    pub fn client_resumed(&mut self, key: Key, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.touch();
        if client.state.poke {
            self.poke(key, now);
        }
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.state.woken = false;
        self.core.settle_lease(&mut client.state, now);
        if client.pending.is_empty() {
            client.state.blocked = None;
            end_after_eof(client);
            return;
        }
        let mut pending = std::mem::take(&mut client.pending);
        let next = client.state.session.order.next_place();
        let used = self.core.run(client, key, &pending, &self.table, now);
        client.state.took_since(next);
        pending.advance(used.min(pending.len()));
        if !pending.is_empty() {
            client.pending = pending;
        }
        after_run(client, now);
        end_after_eof(client);
    }

    /// Whether bytes are wanted from a client. If not, it is woken when they are.
    #[must_use]
    pub fn client_wants_read(&self, key: Key) -> bool {
        let Some(client) = self.clients.get(key) else {
            return false;
        };
        let state = &client.state;
        // Whoever leaves while it is blocked shows itself only by being read.
        let blocked = state.leasing && client.pending.len() < BLOCKED_PENDING_MAX;
        (blocked || state.blocked.is_none()) && !state.session.closing
    }

    /// Bytes to write to a client now.
    #[must_use]
    pub fn client_output(&self, key: Key) -> &[u8] {
        self.clients
            .get(key)
            .map_or(&[], |client| client.state.session.output.pending())
    }

    /// A client took the first `count` bytes of its output.
    pub fn client_wrote(&mut self, key: Key, count: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let state = &mut client.state;
        let session = &mut state.session;
        let length = u64::try_from(count).unwrap_or(u64::MAX);
        session.bytes_out = session.bytes_out.saturating_add(length);
        session.output.wrote(count, &mut self.core.spare);
        if let Some(seat) = &state.seat {
            seat.charge(0, count, now);
        }
        self.core.settings.seats.charge(0, count, now);
        state.drained_at = now;
        if state.blocked.is_some() && session.output.len() <= OUTPUT_PAUSES_BYTES / 2 {
            self.core.wake(state, key);
        }
        if state.session.output.is_empty() {
            state.cork.wrote_all();
            if self.core.follows.any() {
                self.core.client_has_all(key, state, now);
            }
        }
    }

    /// A client has closed its side. What it sent is taken and answered, then it ends.
    pub fn client_eof(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.state.eof = true;
            if client.state.leasing && client.state.session.order.open() > 0 {
                client.state.end(Why::Eof, true);
            }
            end_after_eof(client);
        }
    }

    /// How a client's connection is to be ended, once it is to be ended now.
    #[must_use]
    pub fn client_ending(&self, key: Key) -> Option<&Ending> {
        let client = self.clients.get(key)?;
        let session = &client.state.session;
        let nothing_owed = session.output.is_empty() && session.order.is_empty();
        client
            .state
            .ending
            .as_ref()
            .filter(|ending| ending.at_once || nothing_owed)
    }

    /// A client is gone. What it has in flight is answered to nobody.
    pub fn client_closed(&mut self, key: Key, now: Instant) {
        if let Some(mut client) = self.clients.remove(key) {
            if self.core.follows.any() {
                self.core.follows.forget(key, &client.state);
            }
            self.core.take_leases(&mut client.state, now);
            self.core.leave_topics((&mut client.state, key), now);
            self.core.leave_identity(client.state.identity);
        }
        self.check_invariants();
    }

    // ---- node connections ----

    fn current(&mut self, attempt: Attempt) -> Option<&mut crate::channel::Channel> {
        let channel = self.core.channels.get_mut(attempt.channel)?;
        (channel.route.0 == attempt.number).then_some(channel)
    }

    /// Whether an attempt is still wanted.
    #[must_use]
    pub fn is_current(&self, attempt: Attempt) -> bool {
        let channel = self.core.channels.get(attempt.channel);
        channel.is_some_and(|channel| channel.route.0 == attempt.number)
    }

    /// The transport to the node is up.
    pub fn channel_connected(&mut self, attempt: Attempt) {
        let Some(channel) = self.current(attempt) else {
            return;
        };
        let before = channel.connection.phase();
        channel.connection.connected();
        let after = channel.connection.phase();
        self.core.host.channel_phase(Some(before), Some(after));
    }

    /// Bytes came from a node.
    pub fn channel_received(&mut self, attempt: Attempt, bytes: &[u8], now: Instant) {
        let Some(channel) = self.current(attempt) else {
            return;
        };
        let before = channel.connection.phase();
        let zone = channel.zone;
        let oldest = channel.connection.pipeline().oldest_queued_at();
        let stalled = std::mem::take(&mut channel.stalled);
        let mut unread = std::mem::take(&mut channel.unread);
        let result = if unread.is_empty() {
            let result = self.replies(attempt.channel, bytes, now);
            let used = result.as_ref().copied().unwrap_or(bytes.len());
            unread.extend_from_slice(bytes.get(used..).unwrap_or_default());
            result
        } else {
            unread.extend_from_slice(bytes);
            let result = self.replies(attempt.channel, &unread, now);
            unread.advance(
                result
                    .as_ref()
                    .copied()
                    .unwrap_or(unread.len())
                    .min(unread.len()),
            );
            result
        };
        if let Some(channel) = self.current(attempt) {
            if !unread.is_empty() {
                channel.unread = unread;
            }
            let delta = channel.in_flight_delta();
            if let Some(since) = oldest.filter(|_| delta < 0) {
                channel.trips.add(now.saturating_duration_since(since));
            }
            self.core.host.in_flight(delta);
        }
        self.core.host.node_bytes(zone, bytes.len(), 0);
        if stalled {
            self.core.dirty(attempt.channel);
        }
        match result {
            Err(reason) => self.end_attempt(attempt.channel, &reason, now),
            Ok(_) => self.phase_after(attempt, before, now),
        }
        self.settle(now);
        self.check_invariants();
    }

    fn replies(&mut self, key: Key, bytes: &[u8], now: Instant) -> Result<usize, CloseReason> {
        let Core {
            channels,
            actions,
            signals,
            spare,
            host,
            settings,
            messages,
            near,
            corks,
            budget,
            heat,
            follows,
            ..
        } = &mut self.core;
        let Some(channel) = channels.get_mut(key) else {
            return Ok(bytes.len());
        };
        let mut sink = Sink {
            clients: &mut self.clients,
            actions,
            signals,
            spare,
            host,
            from: &channel.addr,
            reads: &mut channel.reads,
            replica: channel.profile.replica,
            budget,
            messages,
            channel: key,
            heat,
            follows,
            table: &self.table,
            near,
            corks,
            output_max: settings.limits.client_output_bytes_max,
            now,
            ahead: None,
        };
        channel.connection.received(bytes, now, &mut sink)
    }

    /// The setup may have been completed.
    fn phase_after(&mut self, attempt: Attempt, before: Phase, now: Instant) {
        let Some(channel) = self.current(attempt) else {
            return;
        };
        let after = channel.connection.phase();
        if before == after {
            return;
        }
        let failures = channel.backoff.attempts();
        channel.backoff.reset();
        let (addr, purpose) = (channel.addr.clone(), channel.purpose);
        self.core.host.channel_phase(Some(before), Some(after));
        self.core.host.channel_ready(&addr, failures);
        if purpose == Purpose::Verdict {
            self.verdict(attempt.channel, None, now);
        } else {
            self.core.dirty(attempt.channel);
        }
    }

    /// Fills `slices` with what is to be written to a node now and returns how many it used. The
    /// shell is not woken again for it until it has asked here.
    pub fn channel_slices<'a>(&'a mut self, attempt: Attempt, slices: &mut [IoSlice<'a>]) -> usize {
        match self.current(attempt) {
            Some(channel) => {
                channel.dirty = false;
                if channel.stalled {
                    return 0;
                }
                let channel: &'a _ = channel;
                channel.connection.slices(slices)
            }
            None => 0,
        }
    }

    /// The transport took the first `count` bytes of what was to be written.
    pub fn channel_wrote(&mut self, attempt: Attempt, count: usize, now: Instant) {
        if let Some(channel) = self.current(attempt) {
            let before = channel.connection.pipeline().unwritten();
            channel.connection.written(count, now);
            channel.reads.close_all();
            let (zone, left) = (channel.zone, channel.connection.pipeline().unwritten());
            let Core { follows, host, .. } = &mut self.core;
            if follows.any() {
                follows.wrote(attempt.channel, before.saturating_sub(left), host, now);
            }
            host.node_bytes(zone, 0, count);
        }
    }

    /// The transport could not be made, or has ended.
    pub fn channel_lost(&mut self, attempt: Attempt, reason: &CloseReason, now: Instant) {
        if self.is_current(attempt) {
            self.end_attempt(attempt.channel, reason, now);
            self.settle(now);
            self.check_invariants();
        }
    }

    pub(crate) fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            for (_, client) in self.clients.iter().take(64) {
                let state = &client.state;
                debug_assert!(
                    state.session.order.held() == 0 || state.listed_as_held,
                    "a client with commands kept back is forgotten"
                );
            }
            debug_assert!(
                self.core.signals.is_empty(),
                "a command's fate is undecided"
            );
        }
    }
}

/// Notes since when nothing more has come of a command that is half there.
fn after_run(client: &mut Client, now: Instant) {
    let half = !client.pending.is_empty() && client.state.blocked.is_none();
    client.state.half_since = half.then_some(now);
}

/// A client that sends no more ends when all it sent was taken.
fn end_after_eof(client: &mut Client) {
    if client.state.eof && client.state.blocked.is_none() {
        client.state.end(Why::Eof, false);
    }
}
