//! Node connections lent to one client for a while: for commands that block, and for `WATCH`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use command::{Command, FanOut};
use resp::Request;
use routing::{Keys, Merge};
use session::{Form, Op, OpState, Route, Until};
use topology::{NodeAddr, NodeId, Slot};
use upstream::{CloseReason, Phase};

use crate::{
    action::Action,
    channel::{Profile, Purpose},
    client::{Blocked, State},
    core::{Core, signal_of},
    forward::Sending,
    host::Host,
    slots::Key,
    ticket::Ticket,
};

/// A lease that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Leases that wait for the next client are kept warm, but not more than this.
const WARM_MAX: usize = 64;

/// What `FUNCTION DUMP` of Valkey 8.0 replies where there are no functions: newer servers take it.
const EMPTY_DUMP: &[u8] = b"\x0b\x00\x34\x44\xe1\x33\xf2\xe0\x4b\x53";

/// Replies made here, with their places.
pub(crate) type Lent = Vec<(usize, Vec<u8>)>;

/// What a client has a connection of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loan {
    /// One command.
    Command,
    /// To watch keys on, from now on.
    Watch,
    /// What ends the watching.
    Watched,
}

/// Keys that a client watches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) channel: Key,
    /// The attempt of the channel on which they are watched; on another one they are not.
    pub(crate) route: Route,
    pub(crate) slot: Slot,
    /// A `WATCH` has been answered: what it was answered for is on this attempt or nowhere.
    pub(crate) firm: bool,
}

/// No attempt has it: the keys are not watched any more.
const NOWHERE: Route = Route(0);

/// Leases that wait for a client, and how many there are in all.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    warm: Vec<Key>,
    count: usize,
}

impl Leases {
    /// Leases that a client has.
    pub(crate) fn lent(&self) -> usize {
        self.count.saturating_sub(self.warm.len())
    }
}

impl State {
    /// A further `WATCH` could not be sent where the others are. Returns whether there are others:
    /// then no transaction of these keys can run any more.
    pub(crate) fn loses_watch(&mut self) -> bool {
        let firm = self.watch.as_mut().filter(|watch| watch.firm);
        firm.map(|watch| watch.route = NOWHERE).is_some()
    }
}

impl<H: Host> Core<H> {
    /// Sends a command on a connection that is the client's alone until it has the reply. Nothing
    /// more is taken from the client before. Returns why the command cannot be taken yet.
    pub(crate) fn lend(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        sending: Sending<'_>,
        loan: Loan,
        now: Instant,
    ) -> Option<Blocked> {
        if client.session.order.open() > 0 {
            return Some(Blocked::Barrier);
        }
        let profile = self.profile(client);
        let channel = match (loan, &client.watch) {
            (Loan::Watch | Loan::Watched, Some(watch)) => Some(watch.channel),
            _ => match self.owner_of(sending.slot) {
                Some((addr, id)) => match self.lease(&addr, id, profile, now) {
                    Some(channel) => Some(channel),
                    None => {
                        self.waiting_for_room.push(key);
                        return Some(Blocked::Room);
                    }
                },
                None => None,
            },
        };
        let route = channel.and_then(|channel| Some(self.channels.get(channel)?.route));
        let state = match route {
            Some(route) => OpState::InFlight(route),
            None => {
                self.refresh();
                let until = Until::NewerThan(self.view.looks);
                self.held(until, Bytes::copy_from_slice(sending.request), now)
            }
        };
        match (loan, channel.zip(route), sending.slot) {
            (Loan::Watch, Some((channel, route)), Some(slot)) => {
                client.watch.get_or_insert(Watch {
                    channel,
                    route,
                    slot,
                    firm: false,
                });
            }
            (Loan::Watched, ..) => {
                client.watch = None;
                client.lease = channel;
            }
            _ => client.lease = channel,
        }
        client.leasing = true;
        let silent = !client.session.take_reply_wanted();
        let heats = sending.slot.filter(|_| !sending.keys.is_empty());
        let op = Op {
            node: None,
            slot: sending.slot,
            keys: sending.keys,
            writes: sending.writes,
            form: sending.form,
            state,
        };
        let order = &mut client.session.order;
        let place = match sending.merge {
            None => order.reserve_one(command.id(), silent, op, now),
            Some(merge) => order.reserve_many(command.id(), silent, vec![op], merge, now),
        };
        self.follow_some((client, key), (place, silent), now);
        match channel.filter(|_| route.is_some()) {
            Some(channel) => {
                let how = (sending.form, sending.writes);
                let mut ticket = Ticket::new(key, (place, 0), command, how, profile.protocol);
                ticket.about = ticket.about.or_keys_of(heats);
                self.push(channel, ticket, sending.request, None, now);
            }
            None => self.list_as_held(client, key),
        }
        None
    }

    fn owner_of(&self, slot: Option<Slot>) -> Option<(NodeAddr, NodeId)> {
        let node = self.view.topology.as_deref()?.primary(slot?)?;
        Some((node.addr.clone(), node.id))
    }

    /// A connection to the owner of a slot (or to `addr`) for one client. `None`: the owner is not
    /// known, or all leases are lent.
    pub(crate) fn lease_again(
        &mut self,
        (client, form): (&mut State, Form),
        slot: Option<Slot>,
        addr: Option<&NodeAddr>,
        now: Instant,
    ) -> Option<Key> {
        let (addr, id) = match addr {
            None => self.owner_of(slot)?,
            Some(addr) => {
                let node = self.view.topology.as_deref()?.node_by_addr(addr)?;
                (addr.clone(), node.id)
            }
        };
        // Before it takes another: clients that hold one and wait for one would wait for each other.
        // Nothing is watched where the first WATCH was sent before.
        let watch = client.watch.take_if(|_| form == Form::Watch);
        let watched = watch.map(|watch| watch.channel);
        for old in client.lease.take().into_iter().chain(watched) {
            self.give_back(old, now);
        }
        let lease = self.lease(&addr, id, self.profile(client), now)?;
        if form != Form::Watch {
            client.lease = Some(lease);
            return Some(lease);
        }
        let route = self.channels.get(lease).map(|channel| channel.route);
        client.watch = Some(Watch {
            channel: lease,
            route: route.unwrap_or(NOWHERE),
            slot: slot?,
            firm: false,
        });
        Some(lease)
    }

    fn lease(
        &mut self,
        addr: &NodeAddr,
        id: NodeId,
        profile: Profile,
        now: Instant,
    ) -> Option<Key> {
        let fits = |core: &Self, key: &Key| {
            core.channels.get(*key).is_some_and(|channel| {
                channel.addr == *addr
                    && channel.node == Some(id)
                    && channel.profile == profile
                    && channel.is_ready()
            })
        };
        let found = self.leases.warm.iter().rposition(|key| fits(self, key));
        if let Some(at) = found {
            return Some(self.leases.warm.swap_remove(at));
        }
        if self.leases.count >= self.settings.limits.leases_max {
            // The one that has waited longest gives way.
            let oldest = (!self.leases.warm.is_empty()).then(|| self.leases.warm.remove(0))?;
            self.end_lease(oldest);
        }
        self.leases.count += 1;
        Some(self.open(addr, Some(id), profile, Purpose::Lease, now))
    }

    /// After a leased command's reply, or before its client takes the next one: the lease may go.
    pub(crate) fn settle_lease(&mut self, client: &mut State, now: Instant) {
        if client.leasing && client.session.order.open() == 0 {
            client.leasing = false;
            client.unblocking = None;
            if let Some(watch) = &mut client.watch {
                watch.firm = true;
            }
            for lease in client
                .lease
                .take()
                .into_iter()
                .chain(client.waits.drain(..))
            {
                self.give_back(lease, now);
            }
        }
    }

    /// `WAIT` and `WAITAOF`: on a connection to the primary of every shard. A node waits for the
    /// last write of the connection that asks. So each connection makes one that changes nothing,
    /// behind everything that was written before: it restores functions from an empty dump.
    pub(crate) fn wait(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        request: Request<'_>,
        now: Instant,
    ) -> Option<Blocked> {
        if client.session.order.open() > 0 {
            return Some(Blocked::Barrier);
        }
        let slots = self.slot_of_each_shard();
        if slots.is_empty() {
            self.no_cluster(client, command, now);
            return None;
        }
        let profile = self.profile(client);
        for slot in &slots {
            let owner = self.owner_of(Some(*slot));
            let lease = owner.and_then(|(addr, id)| self.lease(&addr, id, profile, now));
            client.waits.extend(lease);
        }
        if client.waits.len() < slots.len() {
            for lease in std::mem::take(&mut client.waits) {
                self.give_back(lease, now);
            }
            self.waiting_for_room.push(key);
            return Some(Blocked::Room);
        }
        let mut bytes = Vec::with_capacity(request.bytes().len() + 64);
        resp::write::request(&mut bytes, &[&b"FUNCTION"[..], b"RESTORE", EMPTY_DUMP]);
        bytes.extend_from_slice(request.bytes());
        let kind = if command.name() == "wait" {
            FanOut::Min
        } else {
            FanOut::And
        };
        let form = Form::Wait(1);
        let routes = client
            .waits
            .iter()
            .filter_map(|lease| Some(self.channels.get(*lease)?.route));
        let ops = routes.zip(&slots).map(|(route, slot)| Op {
            node: None,
            slot: Some(*slot),
            keys: Keys::all(),
            writes: false,
            form,
            state: OpState::InFlight(route),
        });
        let ops: Vec<Op> = ops.collect();
        client.leasing = true;
        let silent = !client.session.take_reply_wanted();
        let merge = Merge::fan_out(kind, ops.len(), 0);
        let order = &mut client.session.order;
        let place = order.reserve_many(command.id(), silent, ops, merge, now);
        for (part, lease) in (0..).zip(client.waits.clone()) {
            let ticket = Ticket::new(key, (place, part), command, (form, false), profile.protocol);
            self.push(lease, ticket, &bytes, None, now);
        }
        None
    }

    fn give_back(&mut self, key: Key, now: Instant) {
        let clean = self.channels.get(key).is_some_and(|channel| {
            channel.is_ready() && !channel.leaves && channel.connection.pipeline().in_flight() == 0
        });
        if !clean || self.leases.warm.len() >= WARM_MAX {
            self.end_lease(key);
            return;
        }
        if let Some(channel) = self.channels.get_mut(key) {
            channel.used_at = now;
        }
        self.leases.warm.push(key);
    }

    /// Whether the keys that a client watches are still watched.
    pub(crate) fn is_watched(&self, watch: &Watch) -> bool {
        let channel = self.channels.get(watch.channel);
        channel.is_some_and(|channel| channel.is_ready() && channel.route == watch.route)
    }

    /// Stops watching by closing the connection.
    pub(crate) fn break_watch(&mut self, client: &mut State) {
        if let Some(watch) = client.watch.take() {
            self.end_lease(watch.channel);
        }
    }

    /// A client is gone: what it has blocked consumes nothing for it.
    pub(crate) fn take_leases(&mut self, client: &mut State, now: Instant) {
        self.break_watch(client);
        for lease in client
            .lease
            .take()
            .into_iter()
            .chain(client.waits.drain(..))
        {
            self.give_back(lease, now);
        }
    }

    /// Closes leases that nobody has needed for a while.
    pub(crate) fn tick_leases(&mut self, now: Instant) {
        let old = |core: &Self, key: &Key| {
            let channel = core.channels.get(*key);
            channel.is_none_or(|channel| channel.used_at + IDLE <= now)
        };
        let warm = std::mem::take(&mut self.leases.warm);
        let (old, young): (Vec<Key>, Vec<Key>) = warm.into_iter().partition(|key| old(self, key));
        self.leases.warm = young;
        old.into_iter().for_each(|key| self.end_lease(key));
    }

    /// The connection of a lease is over. Its command, if it has one, becomes a signal.
    pub(crate) fn lose_lease(&mut self, key: Key, reason: &CloseReason) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        channel.trouble = reason.to_string();
        let refused = match reason {
            CloseReason::Handshake(upstream::HandshakeError::Refused(text)) => Some(text.as_str()),
            _ => None,
        };
        let from = channel.addr.clone();
        let before = channel.connection.phase();
        for abandoned in channel.connection.abandon() {
            self.signals.push(signal_of(
                abandoned,
                (&from, false),
                &channel.trouble,
                refused,
            ));
        }
        self.host.channel_lost(&from, reason, 1);
        self.remove_lease(key, before);
        if refused.is_none() {
            self.refresh();
        }
    }

    /// Closes a lease as soon as no client has it.
    pub(crate) fn end_when_free(&mut self, key: Key) {
        if self.leases.warm.contains(&key) {
            self.end_lease(key);
        } else if let Some(channel) = self.channels.get_mut(key) {
            channel.leaves = true;
        }
    }

    /// Closes a lease; whatever is on it is nobody's any more.
    fn end_lease(&mut self, key: Key) {
        if let Some(channel) = self.channels.get(key) {
            let phase = channel.connection.phase();
            self.remove_lease(key, phase);
        }
    }

    fn remove_lease(&mut self, key: Key, phase: Phase) {
        self.leases.warm.retain(|warm| *warm != key);
        if let Some(mut channel) = self.channels.remove(key) {
            channel.connection.abandon();
            let delta = channel.in_flight_delta();
            self.host.in_flight(delta);
            self.host.channel_phase(Some(phase), None);
            self.actions.push(Action::Drop(channel.attempt(key)));
            self.leases.count = self.leases.count.saturating_sub(1);
        }
    }
}
