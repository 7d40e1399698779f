//! What becomes of commands that a node has sent elsewhere, or whose connection was lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use resp::OwnedRequest;
use routing::{
    ErrorClass, Slot,
    retry::{self, Verdict},
};
use session::{Conflict, Form, Held, OpState, Order, Place, Route, Target, Until};
use smallvec::SmallVec;
use topology::{NodeAddr, Role};

use crate::{
    action::Action,
    channel::{Lane, Profile},
    client::{State, Why},
    core::{Core, Signal},
    host::{ErrorKind, Host, Planted},
    plane::Dataplane,
    replies::{Named, SLOT_IS_MOVING, note_near, pass_on},
    slots::Key,
    ticket::Ticket,
};

/// A command that was sent on this often waits a little before every further time.
const HOPS_AT_ONCE: u8 = 5;
/// The first wait of a command that the cluster could not take.
const WAIT_MIN: Duration = Duration::from_millis(10);
/// The longest: a cluster that works again is not kept waiting.
const WAIT_MAX: Duration = Duration::from_millis(100);

impl<H: Host> Dataplane<H> {
    /// Looks at everything that happened to commands, then sends again what may be.
    pub(crate) fn settle(&mut self, now: Instant) {
        self.settle_messages(now);
        let mut touched: SmallVec<[Key; 8]> = SmallVec::new();
        while !self.core.signals.is_empty() {
            for signal in std::mem::take(&mut self.core.signals) {
                let key = signal.ticket.client;
                self.core.learn(&signal, now);
                let Some(client) = self.clients.get_mut(key) else {
                    continue;
                };
                let table = &self.table;
                self.core
                    .judge((&mut client.state, key), signal, table, now);
                if touched.last() != Some(&key) {
                    touched.push(key);
                }
            }
        }
        touched.sort_unstable_by_key(|key| key.index);
        touched.dedup();
        for key in touched {
            self.poke(key, now);
        }
        debug_assert!(
            self.core.signals.is_empty(),
            "sending again cannot fail at once"
        );
    }

    /// Sends again what is kept back for a client and may go now, oldest first.
    pub(crate) fn poke(&mut self, key: Key, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let state = &mut client.state;
        state.poke = false;
        let held: SmallVec<[(Place, u16); 16]> = state.session.order.held_parts().collect();
        for at in held {
            self.core
                .send_again((&mut *state, key), at, &self.table, now);
        }
        // An answer may have freed others, or made room.
        self.core.wake(state, key);
    }
}

/// Whether a command of this form has a connection to itself.
fn is_leased(form: Form) -> bool {
    matches!(form, Form::Leased(_) | Form::Watch)
}

/// What a client gets instead of having a command of this form sent again.
fn instead(form: Form, protocol: resp::Protocol) -> Option<Vec<u8>> {
    let mut reply = Vec::new();
    match form {
        // The keys are not watched anywhere else: that is as if one had been written to.
        Form::Leased(preludes) if preludes > 0 => {
            resp::write::null_array(&mut reply, protocol);
        }
        // What was written there may be elsewhere now.
        Form::Wait(_) => resp::write::error(
            &mut reply,
            "ERR KEYWAY.UNAVAILABLE a node was lost before its replicas confirmed",
        ),
        Form::Page(slot, _) => routing::Page::again(slot, &mut reply),
        _ => return None,
    }
    Some(reply)
}

/// What a client gets of this, if it gets it: never where a node is.
pub(crate) fn shown(signal: &Signal) -> Vec<u8> {
    if !matches!(signal.signal, retry::Signal::Error(ErrorClass::Redirect(_))) {
        return signal.reply.clone();
    }
    let mut error = Vec::new();
    resp::write::error(&mut error, SLOT_IS_MOVING.as_bytes());
    error
}

/// Whether a part that is kept back may go now, if there is a way.
enum Ripeness {
    Now,
    Later,
    Never(ErrorKind),
}

fn ripeness(
    order: &Order,
    (place, part): (Place, u16),
    held: &Held,
    looks: u64,
    now: Instant,
) -> Ripeness {
    if held.deadline <= now {
        return Ripeness::Never(ErrorKind::Unavailable);
    }
    let due = match held.until {
        Until::Turn => true,
        Until::Time(at) => at <= now,
        Until::NewerThan(known) => known < looks,
    };
    match order.conflict(place, part) {
        Conflict::None if due => Ripeness::Now,
        Conflict::Overtaken => Ripeness::Never(ErrorKind::Overtaken),
        Conflict::None | Conflict::Undecided => Ripeness::Later,
    }
}

impl<H: Host> Core<H> {
    /// What an answer teaches about the cluster, whoever it was for.
    fn learn(&mut self, signal: &Signal, now: Instant) {
        if signal.replica {
            // Its view of the cluster may be older than ours.
            self.refresh();
            let redirected = matches!(
                &signal.signal,
                retry::Signal::Error(ErrorClass::Redirect(_))
            );
            // Whose connection could not be made may only be its user's trouble, and shows itself.
            let fails = !matches!(
                signal.signal,
                retry::Signal::NotSent | retry::Signal::NoScript
            );
            if !redirected && fails {
                self.reads.leave_out(&signal.from, now);
            }
            return;
        }
        let retry::Signal::Error(class) = &signal.signal else {
            return;
        };
        let ErrorClass::Redirect(redirect) = class else {
            if *class != ErrorClass::TryAgain {
                self.refresh();
            }
            return;
        };
        if redirect.ask || signal.ticket.nature.script {
            return; // a script can make the words up
        }
        let known = redirect
            .address(&signal.from)
            .filter(|to| *to != signal.from);
        if !known.is_some_and(|to| self.slot_moved(redirect.slot, &to, now)) {
            self.refresh();
        }
    }

    /// A node says that a slot has moved. Returns whether the new owner is known.
    pub(crate) fn slot_moved(&mut self, slot: Slot, to: &NodeAddr, now: Instant) -> bool {
        let Some(current) = &self.view.topology else {
            return false;
        };
        let Some(next) = current.with_slot_moved(slot, to) else {
            return false;
        };
        if next.revision() != current.revision() {
            self.view.topology = Some(next.into());
            self.actions.push(Action::Moved {
                slot,
                to: to.clone(),
            });
            self.rerouted(now);
        }
        true
    }

    fn judge(
        &mut self,
        (client, key): Named<'_>,
        mut signal: Signal,
        table: &command::CommandTable,
        now: Instant,
    ) {
        let ticket = signal.ticket;
        let mut certain = self.is_certain(client, &signal, now);
        if ticket.confirms {
            match self.undoubt(client, &signal, now) {
                None => return,
                Some(Ok(of_script)) => (signal, certain) = (of_script, true),
                Some(Err(of_script)) => {
                    self.give_unconfirmed(client, &of_script, now);
                    return;
                }
            }
        }
        let Some(op) = client.session.order.op(ticket.place, ticket.part) else {
            debug_assert!(client.ending.is_some(), "a command without a place");
            return;
        };
        let (form, slot) = (op.form, op.slot);
        let verdict = self.verdict(&signal, certain, slot, now);
        let never_sent = signal.signal == retry::Signal::NotSent;
        if never_sent && self.host.has_planted(Planted::Forgets) {
            return;
        }
        // The primary answers what a replica does not, and whom a replica does not let in.
        let answers = matches!(verdict, Verdict::Deliver | Verdict::LoadScript);
        if signal.replica && form == Form::Read && (signal.deliver || !answers) {
            self.hold((client, key), signal, Until::Turn, Target::Owner, now);
            return;
        }
        if signal.deliver {
            self.give_up(client, ticket, &signal.reply, ErrorKind::Auth, now);
            return;
        }
        let again = !matches!(
            verdict,
            Verdict::Deliver | Verdict::OutcomeUnknown | Verdict::Close
        );
        if form == Form::Watch && again && client.loses_watch() {
            self.give(client, ticket, b"+OK\r\n", false, now);
            return;
        }
        let waits = matches!(form, Form::Page(..)) && verdict == Verdict::BackOff;
        if let Some(reply) = instead(form, client.session.protocol).filter(|_| again && !waits) {
            self.give(client, ticket, &reply, false, now);
            return;
        }
        match verdict {
            Verdict::Deliver => self.give(client, ticket, &signal.reply, true, now),
            Verdict::OutcomeUnknown if self.host.has_planted(Planted::SendsTwice) => {
                self.hold((client, key), signal, Until::Turn, Target::Owner, now);
            }
            Verdict::OutcomeUnknown => {
                self.host.error(ErrorKind::UnknownOutcome);
                self.give(client, ticket, &signal.reply, true, now);
            }
            Verdict::Close => client.end(Why::CutOff, true),
            Verdict::Resend => self.hold((client, key), signal, Until::Turn, Target::Owner, now),
            Verdict::Confirm => {
                if !self.doubt((client, key), &signal, table, now) {
                    self.give_unconfirmed(client, &signal, now);
                }
            }
            Verdict::BackOff => self.back_off((client, key), signal, now),
            Verdict::LoadScript => self.load_script((client, key), signal, now),
            Verdict::Follow => self.follow((client, key), signal, now),
        }
    }

    /// What the table says of a command; of a script what it says of any other, when the cluster is
    /// certain to have answered.
    fn verdict(
        &mut self,
        signal: &Signal,
        certain: bool,
        slot: Option<Slot>,
        now: Instant,
    ) -> Verdict {
        let nature = signal.ticket.nature;
        let verdict = retry::verdict(&signal.signal, nature);
        if verdict == Verdict::Confirm && certain {
            let nature = retry::Nature {
                script: false,
                ..nature
            };
            return retry::verdict(&signal.signal, nature);
        }
        if let retry::Signal::Error(class) = &signal.signal
            && certain
        {
            self.note_unrest(class, &signal.from, slot, now);
        }
        verdict
    }

    /// The node has not seen a script: it gets it first, if it is known here.
    fn load_script(&mut self, (client, key): Named<'_>, signal: Signal, now: Instant) {
        let ticket = signal.ticket;
        if self.load(&signal.request).is_none() {
            self.give(client, ticket, &signal.reply, true, now);
            return;
        }
        let order = &mut client.session.order;
        order.set_form(ticket.place, ticket.part, Form::Loaded);
        let target = if ticket.asked {
            Target::Ask(signal.from.clone())
        } else if signal.replica {
            Target::At(signal.from.clone()) // it has scripts of its own
        } else {
            Target::Owner
        };
        self.hold((client, key), signal, Until::Turn, target, now);
    }

    /// What gives a node the script that a request calls, if that is known.
    fn load(&self, request: &Bytes) -> Option<Vec<u8>> {
        let request = OwnedRequest::parse(request.clone()).ok()?;
        self.scripts.load(request.as_request())
    }

    /// A redirect: to the new owner, or once to the node that imports the slot.
    fn follow(&mut self, (client, key): Named<'_>, signal: Signal, now: Instant) {
        let retry::Signal::Error(ErrorClass::Redirect(redirect)) = &signal.signal else {
            return;
        };
        let at = (signal.ticket.place, signal.ticket.part);
        let slot = client.session.order.op(at.0, at.1).and_then(|op| op.slot);
        let to = redirect
            .address(&signal.from)
            .filter(|to| *to != signal.from);
        let known = to.filter(|to| {
            let topology = self.view.topology.as_deref();
            topology.is_some_and(|topology| topology.node_by_addr(to).is_some())
        });
        match known {
            Some(to) if slot == Some(redirect.slot) && signal.ticket.hops < HOPS_AT_ONCE => {
                let target = if redirect.ask {
                    Target::Ask(to)
                } else {
                    Target::Owner
                };
                self.hold((client, key), signal, Until::Turn, target, now);
            }
            _ => {
                self.refresh();
                self.back_off((client, key), signal, now);
            }
        }
    }

    fn back_off(&mut self, client: Named<'_>, signal: Signal, now: Instant) {
        let doubled = WAIT_MIN.saturating_mul(1 << signal.ticket.hops.min(6));
        let until = Until::Time(now + doubled.min(WAIT_MAX));
        self.hold(client, signal, until, Target::Owner, now);
    }

    fn hold(
        &mut self,
        (client, key): Named<'_>,
        signal: Signal,
        until: Until,
        target: Target,
        now: Instant,
    ) {
        let ticket = signal.ticket;
        let order = &mut client.session.order;
        let op = order.op(ticket.place, ticket.part);
        // A command that blocks may have blocked for longer than others may wait.
        let leased = op.is_some_and(|op| is_leased(op.form));
        let started = order.started(ticket.place).filter(|_| !leased);
        let started = started.unwrap_or(now);
        let error = shown(&signal);
        let held = Held {
            request: signal.request,
            until,
            target,
            hops: ticket.hops.saturating_add(1),
            error,
            deadline: started + self.settings.limits.deadline,
        };
        order.set_state(ticket.place, ticket.part, OpState::Held(Box::new(held)));
        self.list_as_held(client, key);
    }

    /// Sends a part again that is kept back, if it may go now.
    fn send_again(
        &mut self,
        (client, key): Named<'_>,
        (place, part): (Place, u16),
        table: &command::CommandTable,
        now: Instant,
    ) {
        let profile = self.profile(client);
        let order = &mut client.session.order;
        let Some((op, command)) = order.op(place, part).zip(order.command(place)) else {
            return;
        };
        let (OpState::Held(held), Some(command)) = (&op.state, table.get(command)) else {
            return;
        };
        let form = op.form;
        let mut ticket = Ticket::new(
            key,
            (place, part),
            command,
            (form, op.writes),
            profile.protocol,
        );
        let heats = op.slot.filter(|_| !op.keys.are_all());
        ticket.about = ticket.about.or_keys_of(heats);
        ticket.hops = held.hops;
        match ripeness(order, (place, part), held, self.view.looks, now) {
            Ripeness::Now => {}
            Ripeness::Later => return,
            Ripeness::Never(ErrorKind::Overtaken) if self.host.has_planted(Planted::NoBarrier) => {}
            Ripeness::Never(kind) => {
                let error = held.error.clone();
                client.forget_doubt((place, part));
                self.give_up(client, ticket, &error, kind, now);
                return;
            }
        }
        if let Form::Page(..) = form
            && let Some(reply) = instead(form, profile.protocol)
        {
            self.give(client, ticket, &reply, false, now);
            return;
        }
        let form = if held.hops > 0 && form == Form::Read {
            Form::Plain // a node has failed it
        } else {
            form
        };
        self.depart((client, key), ticket, form, now);
    }

    /// Sends a part that may go now, unless there is no way, or others are in it.
    fn depart(&mut self, (client, key): Named<'_>, mut ticket: Ticket, form: Form, now: Instant) {
        let (place, part) = (ticket.place, ticket.part);
        let Some(op) = client.session.order.op(place, part) else {
            return;
        };
        let OpState::Held(held) = &op.state else {
            return;
        };
        let (keys, target) = (op.keys.clone(), held.target.clone());
        let to = (op.slot, op.node.as_deref().cloned());
        let lane = Lane::of(held.request.len(), ticket.nature.script, client.bulky > 0);
        let (leased, about) = (is_leased(form), (&keys, op.writes));
        let Some((channel, route)) = self.way_again((client, key), (form, lane), &to, &target, now)
        else {
            self.refresh();
            return;
        };
        if !leased && client.session.order.must_wait(about, route, Some(place)) {
            return;
        }
        if !self.budget.spend(ticket.hops, now) {
            return; // the next tick sees to it
        }
        let sent = client
            .session
            .order
            .set_state(place, part, OpState::InFlight(route));
        let Some(OpState::Held(held)) = sent else {
            return;
        };
        client.calm = 0; // later commands on its key must look where it went
        let asking = matches!(target, Target::Ask(_));
        ticket.asked = asking;
        self.count_read(channel, form);
        if form == Form::Loaded
            && let Some(load) = self.load(&held.request)
            && let Some(channel) = self.channels.get_mut(channel)
        {
            let pipeline = channel.connection.pipeline_mut();
            pipeline.push_for_nobody(&load, now);
        }
        self.push_as(
            channel,
            ticket,
            (&held.request, Some(&held.request)),
            asking,
            now,
        );
    }

    /// The connection for a part that is sent again, if there is one with room.
    fn way_again(
        &mut self,
        (client, key): Named<'_>,
        (form, lane): (Form, Lane),
        (slot, node): &(Option<Slot>, Option<NodeAddr>),
        target: &Target,
        now: Instant,
    ) -> Option<(Key, Route)> {
        let profile = Profile {
            lane,
            ..self.profile(client)
        };
        let leased = is_leased(form);
        let channel = match target {
            Target::Ask(addr) if leased => self.lease_again((client, form), *slot, Some(addr), now),
            _ if leased => self.lease_again((client, form), *slot, None, now),
            Target::Ask(addr) => self.route_to(profile, addr, now),
            Target::At(addr) => {
                let topology = self.view.topology.as_deref();
                let node = topology.and_then(|topology| topology.node_by_addr(addr));
                let is_replica = node.is_some_and(|node| node.role == Role::Replica);
                // What a question about a slot is to show, a replica that reads hides.
                let replica = is_replica && form != Form::Confirm;
                self.route_to(Profile { replica, ..profile }, addr, now)
            }
            Target::Owner => match (node, slot) {
                (Some(node), _) => self.route_to(profile, node, now),
                (None, Some(slot)) if form == Form::Read => {
                    self.reader(profile, *slot, key.index, now)
                }
                (None, slot) => self.route(profile, *slot, key.index, now),
            },
        }?;
        let ready = self.channels.get(channel)?;
        ready.has_room().then_some((channel, ready.route))
    }

    /// The command will not be sent again; it certainly did not run since it was kept back.
    fn give_up(
        &mut self,
        client: &mut State,
        ticket: Ticket,
        error: &[u8],
        kind: ErrorKind,
        now: Instant,
    ) {
        self.host.error(kind);
        self.give(client, ticket, error, false, now);
    }

    pub(crate) fn give(
        &mut self,
        client: &mut State,
        ticket: Ticket,
        reply: &[u8],
        ran: bool,
        now: Instant,
    ) {
        if self.near.is_on() {
            note_near(&mut self.near, client, ticket, (None, reply));
        }
        if self.follows.any() {
            self.follows.erred(&ticket, reply);
            self.follows.answered(&ticket, None, (&self.host, now));
        }
        let output_max = self.settings.limits.client_output_bytes_max;
        let outside = (&mut self.spare, &mut self.host, now);
        pass_on(
            client,
            ticket,
            reply,
            (true, ran),
            output_max,
            outside,
            None,
        );
    }
}
