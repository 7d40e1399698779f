//! A command on its way to one node or to several.

use std::{ops::Range, time::Instant};

use bytes::Bytes;
use command::Command;
use resp::Request;
use routing::{Keys, Merge, Part, Slot, Split};
use session::{Completed, Form, Held, Op, OpState, Place, Sharing, Target, Until};
use smallvec::SmallVec;
use topology::NodeAddr;

use crate::{
    channel::{Lane, Profile},
    client::State,
    coalesce::{Group, REQUEST_BYTES_MAX},
    core::Core,
    follow::Here,
    host::{Host, Planted},
    replies::count,
    slots::Key,
    ticket::Ticket,
};

/// Whether a command was taken, or has to wait where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    Yes,
    NoRoom,
}

/// One request for one node.
pub(crate) struct Sending<'a> {
    pub(crate) request: &'a [u8],
    /// The slot whose owner it is for; any primary's, without one.
    pub(crate) slot: Option<Slot>,
    pub(crate) keys: Keys,
    pub(crate) writes: bool,
    pub(crate) form: Form,
    /// What makes the client's reply of the node's, unless they are the same.
    pub(crate) merge: Option<Merge>,
}

impl<'a> Sending<'a> {
    /// A request as the client sent it.
    pub(crate) fn plain(
        command: &Command,
        request: Request<'a>,
        slot: Option<Slot>,
        keys: Keys,
    ) -> Self {
        Self {
            request: request.bytes(),
            slot,
            keys,
            writes: command.may_write(),
            form: Form::Plain,
            merge: None,
        }
    }
}

/// Commands on a key are on one connection only while all take the fast lane to the owner of its
/// slot.
fn is_plain(form: Form, lane: Lane) -> bool {
    form != Form::Read && lane == Lane::Fast
}

/// What a part of this command is on its way, and whether it may write.
fn part_form(part: &Part, command: &Command) -> (Form, bool) {
    part.block.map_or_else(
        || (Form::Plain, command.may_write()),
        |block| (Form::Block(block.preludes), block.writes),
    )
}

/// One part of a command on its way.
struct Leg {
    way: Way,
    slot: Slot,
    /// Its request, within those of all parts.
    request: Range<usize>,
    /// What it is, and whether it may write.
    nature: (Form, bool),
}

/// So many parts are sent without an allocation for where they go.
const FEW_PARTS: usize = 16;

/// Where one part of a command goes now.
enum Way {
    /// To this channel.
    Channel(Key),
    /// It is kept back: for its turn, or for a topology that knows the owner.
    Held(Until),
}

impl<H: Host> Core<H> {
    pub(crate) fn profile(&self, client: &State) -> Profile {
        Profile {
            identity: client.identity,
            protocol: client.session.protocol,
            database: client.session.database,
            lane: Lane::Fast,
            replica: false,
        }
    }

    /// Gives a command a place, and sends it to the owner of its slot (of any, without one) or
    /// keeps it back.
    pub(crate) fn forward(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        sending: Sending<'_>,
        now: Instant,
    ) -> Took {
        let Sending {
            request,
            slot,
            keys,
            writes,
            form,
            merge,
        } = sending;
        let form = self.form_of(client, form, slot, writes);
        let lane = Lane::of(request.len(), command.is_slow(), client.bulky > 0);
        let way = self.way(
            (client, key),
            (slot, None),
            (form, lane),
            (&keys, writes),
            now,
        );
        let state = match &way {
            Way::Channel(channel) => match self.channels.get(*channel) {
                Some(channel) if channel.has_room() => OpState::InFlight(channel.route),
                _ => return Took::NoRoom,
            },
            Way::Held(until) => self.held(*until, Bytes::copy_from_slice(request), now),
        };
        let alike = match &way {
            Way::Channel(channel) if self.settings.coalesce => {
                self.joinable(*channel, (command, request), &keys, merge.is_none())
            }
            _ => None,
        };
        let silent = !client.session.take_reply_wanted();
        let heats = slot.filter(|_| !keys.are_all());
        let op = Op {
            slot,
            node: None,
            keys,
            writes,
            form,
            state,
        };
        let order = &mut client.session.order;
        let place = match merge {
            None => order.reserve_one(command.id(), silent, op, now),
            Some(merge) => order.reserve_many(command.id(), silent, vec![op], merge, now),
        };
        self.follow_some((client, key), (place, silent), now);
        match way {
            Way::Channel(channel) => {
                let protocol = client.session.protocol;
                let mut ticket = Ticket::new(key, (place, 0), command, (form, writes), protocol);
                ticket.about = ticket.about.or_keys_of(heats);
                if let Some(alike) = alike {
                    match self.join(channel, alike, request, ticket) {
                        Some(group) => ticket.group = group,
                        None => return Took::Yes,
                    }
                }
                self.count_read(channel, form);
                self.enqueue(channel, ticket, (request, None), false, now);
            }
            Way::Held(_) => self.list_as_held(client, key),
        }
        Took::Yes
    }

    /// The same for a command in parts.
    pub(crate) fn forward_split(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        split: Split,
        now: Instant,
    ) -> Took {
        let Split {
            parts,
            bytes,
            merge,
        } = split;
        let mut ops = Vec::with_capacity(parts.len());
        let mut legs: SmallVec<[Leg; FEW_PARTS]> = SmallVec::with_capacity(parts.len());
        let mut plain = true;
        let mut about_keys = true;
        for part in parts {
            let slot = Some(part.slot);
            let (form, writes) = part_form(&part, command);
            let form = self.form_of(client, form, slot, writes || part.keys.are_all());
            let lane = Lane::of(part.request.len(), command.is_slow(), client.bulky > 0);
            plain &= is_plain(form, lane);
            let to = (slot, part.node.as_deref());
            let about = (&part.keys, writes);
            let way = self.way((client, key), to, (form, lane), about, now);
            let state = match &way {
                Way::Channel(channel) => match self.channels.get(*channel) {
                    Some(channel) if channel.has_room() => OpState::InFlight(channel.route),
                    _ => return Took::NoRoom,
                },
                Way::Held(until) => self.held(*until, bytes.slice(part.request.clone()), now),
            };
            // What goes to every shard is about no slot in particular.
            about_keys &= !part.keys.are_all();
            legs.push(Leg {
                way,
                slot: part.slot,
                request: part.request,
                nature: (form, writes),
            });
            ops.push(Op {
                slot,
                node: part.node,
                keys: part.keys,
                writes,
                form,
                state,
            });
        }
        if !plain {
            client.calm = 0; // whatever the last part found
        }
        let silent = !client.session.take_reply_wanted();
        let place = client
            .session
            .order
            .reserve_many(command.id(), silent, ops, merge, now);
        self.follow_some((client, key), (place, silent), now);
        let protocol = client.session.protocol;
        let mut holds = false;
        for (number, leg) in (0..).zip(legs) {
            let Way::Channel(channel) = leg.way else {
                holds = true;
                continue;
            };
            let (form, _) = leg.nature;
            self.count_read(channel, form);
            let mut ticket = Ticket::new(key, (place, number), command, leg.nature, protocol);
            ticket.about = ticket.about.or_keys_of(about_keys.then_some(leg.slot));
            let request = bytes.get(leg.request).unwrap_or_default();
            self.push(channel, ticket, request, Some(&bytes), now);
        }
        if holds {
            self.list_as_held(client, key);
        }
        Took::Yes
    }

    /// Where a command on these keys goes now, behind everything that its client has sent.
    fn way(
        &mut self,
        (client, key): (&mut State, Key),
        (slot, node): (Option<Slot>, Option<&NodeAddr>),
        (form, lane): (Form, Lane),
        about: (&Keys, bool),
        now: Instant,
    ) -> Way {
        let profile = Profile {
            lane,
            ..self.profile(client)
        };
        let channel = match (node, slot) {
            (Some(node), _) => self.route_to(profile, node, now),
            (None, Some(slot)) if form == Form::Read => self.reader(profile, slot, key.index, now),
            (None, slot) => self.route(profile, slot, key.index, now),
        };
        let Some(channel) = channel else {
            self.refresh();
            return Way::Held(Until::NewerThan(self.view.looks));
        };
        let plain = is_plain(form, lane);
        let order = &client.session.order;
        if order.open() == 0 {
            client.calm = if plain { self.epoch } else { 0 };
            return Way::Channel(channel);
        }
        if plain && client.calm == self.epoch && order.held() == 0 && !order.has_several() {
            return Way::Channel(channel);
        }
        if !plain {
            client.calm = 0;
        }
        if self.host.has_planted(Planted::NoBarrier) {
            return Way::Channel(channel);
        }
        let route = self.channels.get(channel).map(|channel| channel.route);
        match (order.sharing(about, None), slot) {
            (Sharing::Nothing, _) => Way::Channel(channel),
            (Sharing::One(other), _) if Some(other) == route => Way::Channel(channel),
            // Behind another command on its key it stays on that one's connection, if it may.
            (Sharing::One(other), Some(slot)) => self
                .channel_on(other, profile, slot, form)
                .map_or(Way::Held(Until::Turn), Way::Channel),
            _ => Way::Held(Until::Turn),
        }
    }

    /// Whether a command is one that any node of its slot's shard may answer.
    fn form_of(&self, client: &State, form: Form, slot: Option<Slot>, writes: bool) -> Form {
        let reads = form == Form::Plain && !writes && slot.is_some() && self.reads_anywhere(client);
        if reads { Form::Read } else { form }
    }

    pub(crate) fn held(&self, until: Until, request: Bytes, now: Instant) -> OpState {
        let mut error = Vec::new();
        resp::write::error(
            &mut error,
            b"ERR KEYWAY.UNAVAILABLE no node is known to own the slot: the command was not run",
        );
        OpState::Held(Box::new(Held {
            request,
            until,
            target: Target::Owner,
            hops: 0,
            error,
            deadline: now + self.settings.limits.deadline,
        }))
    }

    /// The key by which a command can join one that asks the same. The other commands on its keys
    /// cannot be joined any more, unless it asks the same as they.
    #[inline(never)]
    fn joinable(
        &mut self,
        channel: Key,
        (command, request): (&Command, &[u8]),
        keys: &Keys,
        plain: bool,
    ) -> Option<u32> {
        let reads = plain && command.answers_alike() && request.len() <= REQUEST_BYTES_MAX;
        let key = keys.single().filter(|_| reads);
        if key.is_none()
            && !self.host.has_planted(Planted::JoinsBeforeWrites)
            && let Some(channel) = self.channels.get_mut(channel)
        {
            // What a script does is known to nobody.
            if keys.are_all() || keys.is_empty() || command.is_script() {
                channel.reads.close_all();
            } else {
                channel.reads.close(keys.fingerprints());
            }
        }
        key
    }

    /// Has a read wait for the reply of one that asks the same. If there is none, it is the one
    /// that others can join, in this group.
    #[inline(never)]
    fn join(&mut self, channel: Key, key: u32, request: &[u8], ticket: Ticket) -> Option<Group> {
        let Some(channel) = self.channels.get_mut(channel) else {
            return Some(Group::NONE);
        };
        if channel.reads.join(key, request, ticket) {
            self.host.coalesced();
            return None;
        }
        Some(channel.reads.lead(key, request))
    }

    /// Queues a command on a channel. The request is all of `owned` or lies in it.
    pub(crate) fn push(
        &mut self,
        key: Key,
        ticket: Ticket,
        request: &[u8],
        owned: Option<&Bytes>,
        now: Instant,
    ) {
        self.push_as(key, ticket, (request, owned), false, now);
    }

    /// Queues a command on a channel, perhaps behind an `ASKING`.
    pub(crate) fn push_as(
        &mut self,
        key: Key,
        ticket: Ticket,
        (request, owned): (&[u8], Option<&Bytes>),
        asking: bool,
        now: Instant,
    ) {
        if let Some(channel) = self.channels.get_mut(key) {
            channel.reads.close_all();
        }
        self.enqueue(key, ticket, (request, owned), asking, now);
    }

    /// The same for a command that others may have joined, or after which they may not join those
    /// that they may not.
    fn enqueue(
        &mut self,
        key: Key,
        ticket: Ticket,
        (request, owned): (&[u8], Option<&Bytes>),
        asking: bool,
        now: Instant,
    ) {
        if let Some(channel) = self.channels.get_mut(key) {
            channel.used_at = now;
            let shared = || {
                Some(owned.map_or_else(
                    || Bytes::copy_from_slice(request),
                    |owned| owned.slice_ref(request),
                ))
            };
            channel
                .connection
                .pipeline_mut()
                .push(ticket, request, shared, asking, now);
            if self.follows.any() {
                let unwritten = channel.connection.pipeline().unwritten();
                self.follows.queued(&ticket, key, unwritten);
            }
        }
        self.dirty(key);
    }

    /// Remembers that a client has parts that are kept back.
    pub(crate) fn list_as_held(&mut self, client: &mut State, key: Key) {
        if !client.listed_as_held {
            client.listed_as_held = true;
            self.held_clients.push(key);
        }
    }

    /// A reply that is made here, at the command's place; it is in `scratch`, which is emptied. Not inlined:
    /// it would cost those who do not come here.
    #[inline(never)]
    pub(crate) fn reply_here(
        &mut self,
        client: &mut State,
        command: Option<command::CommandId>,
        silent: bool,
        now: Instant,
    ) {
        self.reply_as(client, (command, Here::Itself), silent, now);
    }

    /// The same, by whom it is made.
    pub(crate) fn reply_as(
        &mut self,
        client: &mut State,
        (command, here): (Option<command::CommandId>, Here),
        silent: bool,
        now: Instant,
    ) {
        let followed = self.follows.takes_next();
        let session = &mut client.session;
        if session.order.is_empty() && !followed {
            if !silent {
                session.output.equip(&mut self.spare);
                session.output.buffer().extend_from_slice(&self.scratch);
            }
            let completed = Completed {
                command,
                started: now,
                slot: None,
            };
            count(&mut self.host, completed, now, session, None);
            self.scratch.clear();
        } else {
            let place = session.order.reserve_local(command, silent, now);
            self.complete(client, place, followed.then_some(here), now);
        }
    }

    /// The same for a place that is reserved already.
    pub(crate) fn complete_here(&mut self, client: &mut State, place: Place, now: Instant) {
        let followed = self.follows.takes_next();
        self.complete(client, place, followed.then_some(Here::Itself), now);
    }

    fn complete(&mut self, client: &mut State, place: Place, followed: Option<Here>, now: Instant) {
        if let Some(here) = followed {
            self.follow_here(client, place, here, now);
        }
        let session = &mut client.session;
        session.output.equip(&mut self.spare);
        let completed = session.order.complete_local(
            place,
            &self.scratch,
            (&mut session.output, &mut self.spare),
        );
        if let Some(completed) = completed {
            count(&mut self.host, completed, now, session, None);
        }
        self.scratch.clear();
    }
}
