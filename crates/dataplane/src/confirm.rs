//! Scripts whose answers look like the cluster's.
//!
//! A script can return any text as its error, a redirect too, and then it has run. So before one is
//! sent again, the node that answered is asked about the same keys with a command that cannot make
//! words up (`EXISTS`): if that is redirected too, both to nodes of the cluster, or refused for the same
//! reason, the slot is on the move, or the node unwell, and the script did not run. What was learned is
//! believed for a while, for scripts on the same slot. (A script that names a node in a redirect that it makes
//! up, on a slot that is not there, gets its way: nothing can tell.) When nothing is confirmed, a script that
//! may have written has an unknown outcome.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use command::{CommandTable, KeyRefs};
use resp::OwnedRequest;
use routing::{ErrorClass, Slot, retry};
use session::{Form, Held, OpState, Place, Target, Until};
use smallvec::SmallVec;
use topology::NodeAddr;

use crate::{
    client::State,
    core::{Core, Signal},
    host::{ErrorKind, Host},
    replies::Named,
    retry::shown,
};

/// For so long a slot that was on the move, or a cluster that was unwell, may still be.
const BELIEVED: Duration = Duration::from_secs(5);

/// Places that a slot was said to be at, of which so many are believed: where it comes from, and where
/// it goes.
const PLACES_MAX: usize = 2;

/// A script that waits for the answer about its keys.
#[derive(Debug)]
pub(crate) struct Doubted {
    place: Place,
    part: u16,
    form: Form,
    request: Bytes,
    /// What it answered.
    reply: Vec<u8>,
    signal: retry::Signal,
}

impl State {
    /// A script's keys will not be asked about: it is given up.
    pub(crate) fn forget_doubt(&mut self, at: (Place, u16)) {
        self.doubted.retain(|known| (known.place, known.part) != at);
    }
}

/// What nodes have said of slots, and of themselves, to commands that cannot make words up.
#[derive(Debug, Default)]
pub(crate) struct Unrest {
    /// Until when a slot may be on the move, and where it was said to be.
    slots: HashMap<Slot, (Instant, SmallVec<[NodeAddr; 2]>)>,
    /// Until when a node may refuse whatever comes.
    nodes: Option<Instant>,
}

impl Unrest {
    /// A node has answered so about a slot.
    pub(crate) fn note(
        &mut self,
        class: &ErrorClass,
        from: &NodeAddr,
        slot: Option<Slot>,
        now: Instant,
    ) {
        let until = now + BELIEVED;
        match (class, slot) {
            (ErrorClass::Redirect(_) | ErrorClass::TryAgain, Some(slot)) => {
                let (believed, places) = self.slots.entry(slot).or_insert((until, SmallVec::new()));
                *believed = until;
                let to = place_in(class, from);
                places.retain(|known| Some(&*known) != to.as_ref());
                places.extend(to);
                if places.len() > PLACES_MAX {
                    places.remove(0);
                }
            }
            (
                ErrorClass::Other
                | ErrorClass::Demoted
                | ErrorClass::Redirect(_)
                | ErrorClass::TryAgain,
                _,
            ) => {}
            _ => self.nodes = Some(until),
        }
    }

    /// Whether a script may well be answered so now.
    fn explains(
        &self,
        class: &ErrorClass,
        from: &NodeAddr,
        slot: Option<Slot>,
        now: Instant,
    ) -> bool {
        let slot = slot.and_then(|slot| self.slots.get(&slot));
        let slot = slot.filter(|(until, _)| *until > now);
        match class {
            ErrorClass::Redirect(_) => place_in(class, from)
                .is_some_and(|to| slot.is_some_and(|(_, places)| places.contains(&to))),
            ErrorClass::TryAgain => slot.is_some(),
            ErrorClass::Other | ErrorClass::Demoted => false,
            _ => self.nodes.is_some_and(|at| at > now),
        }
    }

    /// Forgets what is no longer believed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.slots.retain(|_, (until, _)| *until > now);
    }
}

impl<H: Host> Core<H> {
    /// A node has answered so to a command that cannot make words up. Where no node is known to be,
    /// nobody is believed to be sent.
    pub(crate) fn note_unrest(
        &mut self,
        class: &ErrorClass,
        from: &NodeAddr,
        slot: Option<Slot>,
        now: Instant,
    ) {
        if place_in(class, from).is_none_or(|to| self.knows(&to)) {
            self.unrest.note(class, from, slot, now);
        }
    }

    fn knows(&self, addr: &NodeAddr) -> bool {
        let topology = self.view.topology.as_deref();
        topology.is_some_and(|topology| topology.node_by_addr(addr).is_some())
    }

    /// Whether what a script answered is the cluster's for certain. If not, its keys are asked
    /// about first, or, if it has none, the answer is the client's.
    pub(crate) fn is_certain(&self, client: &State, signal: &Signal, now: Instant) -> bool {
        let ticket = signal.ticket;
        let retry::Signal::Error(class) = &signal.signal else {
            return true;
        };
        let slot = client
            .session
            .order
            .op(ticket.place, ticket.part)
            .and_then(|op| op.slot);
        !ticket.nature.script || self.unrest.explains(class, &signal.from, slot, now)
    }

    /// Asks the node about the keys of a script. Returns false when there are none.
    pub(crate) fn doubt(
        &mut self,
        (client, key): Named<'_>,
        signal: &Signal,
        table: &CommandTable,
        now: Instant,
    ) -> bool {
        let ticket = signal.ticket;
        let Some(question) = question(&signal.request, table) else {
            return false;
        };
        let (place, part) = (ticket.place, ticket.part);
        // A node that has just joined is not known before the next look.
        let to = match &signal.signal {
            retry::Signal::Error(class) => place_in(class, &signal.from),
            _ => None,
        };
        let until = if to.is_none_or(|to| self.knows(&to)) {
            Until::Turn
        } else {
            self.refresh();
            Until::NewerThan(self.view.looks)
        };
        let order = &mut client.session.order;
        let op = order.op(place, part);
        let (form, writes) = op.map_or((Form::Plain, true), |op| (op.form, op.writes));
        client.doubted.push(Doubted {
            place,
            part,
            form,
            request: signal.request.clone(),
            reply: signal.reply.clone(),
            signal: signal.signal.clone(),
        });
        let target = if ticket.asked {
            Target::Ask(signal.from.clone())
        } else {
            Target::At(signal.from.clone())
        };
        order.set_form(place, part, Form::Confirm);
        let started = order.started(place).unwrap_or(now);
        let held = Held {
            request: question,
            until,
            target,
            hops: ticket.hops,
            error: unconfirmed(signal, writes),
            deadline: started + self.settings.limits.deadline,
        };
        order.set_state(place, part, OpState::Held(Box::new(held)));
        self.list_as_held(client, key);
        true
    }

    /// The answer about a script's keys has come, or its node was lost: gives the script's own signal
    /// back: in `Ok`, if the cluster has said it.
    pub(crate) fn undoubt(
        &mut self,
        client: &mut State,
        answer: &Signal,
        now: Instant,
    ) -> Option<Result<Signal, Signal>> {
        let ticket = answer.ticket;
        let at = (ticket.place, ticket.part);
        let index = client
            .doubted
            .iter()
            .position(|of| (of.place, of.part) == at)?;
        let doubted = client.doubted.swap_remove(index);
        let order = &mut client.session.order;
        order.set_form(at.0, at.1, doubted.form);
        let op = order.op(at.0, at.1)?;
        let (slot, writes) = (op.slot, op.writes);
        let lost = !matches!(answer.signal, retry::Signal::Error(_));
        let mut confirmed = lost && !writes; // it may run twice
        if let (retry::Signal::Error(said), retry::Signal::Error(of_script)) =
            (&answer.signal, &doubted.signal)
        {
            self.note_unrest(said, &answer.from, slot, now);
            confirmed = match (of_script, said) {
                // Not always to the same: the slot may have moved on.
                (ErrorClass::Redirect(_), ErrorClass::Redirect(_)) => [of_script, said]
                    .iter()
                    .all(|class| place_in(class, &answer.from).is_some_and(|to| self.knows(&to))),
                (ErrorClass::TryAgain, ErrorClass::Redirect(_)) => true,
                (ErrorClass::Other, _) => false,
                (of_script, said) => of_script == said,
            };
        }
        let signal = Signal {
            ticket,
            signal: doubted.signal,
            reply: doubted.reply,
            request: doubted.request,
            from: answer.from.clone(),
            replica: answer.replica,
            deliver: false,
        };
        Some(if confirmed { Ok(signal) } else { Err(signal) })
    }

    /// The client is answered what the script answered, if that can be told.
    pub(crate) fn give_unconfirmed(
        &mut self,
        client: &mut State,
        of_script: &Signal,
        now: Instant,
    ) {
        let ticket = of_script.ticket;
        let op = client.session.order.op(ticket.place, ticket.part);
        let writes = op.is_none_or(|op| op.writes);
        if writes && redirects(of_script) {
            self.host.error(ErrorKind::UnknownOutcome);
        }
        self.give(client, ticket, &unconfirmed(of_script, writes), true, now);
    }
}

fn redirects(of_script: &Signal) -> bool {
    matches!(
        of_script.signal,
        retry::Signal::Error(ErrorClass::Redirect(_))
    )
}

/// What a client gets of a script when it is not known whether the cluster or the script itself has
/// answered so. One that writes may have done so.
fn unconfirmed(of_script: &Signal, writes: bool) -> Vec<u8> {
    if !redirects(of_script) || !writes {
        return shown(of_script);
    }
    let text = format!(
        "ERR KEYWAY.UNKNOWN_OUTCOME {} answered as for a slot that is moving, and has not confirmed it: the \
         script may or may not have run",
        of_script.from
    );
    let mut error = Vec::new();
    resp::write::error(&mut error, text.as_bytes());
    error
}

/// Where a redirect points; `None` if it is none.
fn place_in(class: &ErrorClass, from: &NodeAddr) -> Option<NodeAddr> {
    match class {
        ErrorClass::Redirect(redirect) => redirect.address(from),
        _ => None,
    }
}

/// `EXISTS` of the keys that a script names.
fn question(request: &Bytes, table: &CommandTable) -> Option<Bytes> {
    let request = OwnedRequest::parse(request.to_vec()).ok()?;
    let request = request.as_request();
    let command = table.lookup(request).ok()?;
    let mut refs = KeyRefs::new();
    command.keys(request, &mut refs).ok()?;
    let mut words: Vec<&[u8]> = vec![b"EXISTS"];
    words.extend(refs.iter().filter_map(|key| request.arg(key.index())));
    if words.len() == 1 {
        return None;
    }
    let mut bytes = Vec::new();
    resp::write::request(&mut bytes, &words);
    Some(bytes.into())
}
