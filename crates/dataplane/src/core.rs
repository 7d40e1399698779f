//! What all clients of a worker share: the view of the cluster, the node connections, and which
//! of them a command takes.

use std::{collections::HashMap, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use routing::retry;
use session::{Route, Spare};
use topology::{Health, Node, NodeAddr, NodeId, Role, Slot};
use upstream::{Backoff, CloseReason, Connection, HandshakeError, Phase, Setup, Timeouts};

use crate::{
    action::Action,
    budget::Budget,
    channel::{Channel, Profile, Purpose, STALL},
    coalesce::Coalescer,
    confirm::Unrest,
    cork::Corks,
    figures::Times,
    follow::Follows,
    heat::Heat,
    host::Host,
    identity::Identities,
    inquiry::Pause,
    lease::Leases,
    messages::Messages,
    near::Near,
    reads::Reads,
    scripts::Scripts,
    settings::Settings,
    slots::{Key, Slots},
    ticket::Ticket,
    view::View,
};

/// Something other than a reply happened to a command.
#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) ticket: Ticket,
    pub(crate) signal: retry::Signal,
    /// What the client gets when the command is not sent again: a whole error reply.
    pub(crate) reply: Vec<u8>,
    pub(crate) request: Bytes,
    /// Who answered, or did not.
    pub(crate) from: NodeAddr,
    /// That is a replica.
    pub(crate) replica: bool,
    /// The reply is the client's, whatever the retry table says.
    pub(crate) deliver: bool,
}

/// The channels that one profile uses, by the shards of the current topology.
#[derive(Debug)]
struct Routes {
    profile: Profile,
    by_shard: Vec<Option<Key>>,
}

#[derive(Debug)]
pub(crate) struct Core<H> {
    pub(crate) settings: Settings,
    pub(crate) view: View,
    pub(crate) channels: Slots<Channel>,
    by_node: HashMap<(NodeAddr, Profile), Key>,
    routes: Vec<Routes>,
    pub(crate) leases: Leases,
    pub(crate) messages: Messages,
    pub(crate) near: Near,
    pub(crate) budget: Budget,
    /// Connections that are to tell of credentials.
    pub(crate) verdicts: usize,
    pub(crate) reads: Reads,
    pub(crate) unrest: Unrest,
    pub(crate) scripts: Scripts,
    pub(crate) heat: Box<Heat>,
    pub(crate) follows: Follows,
    pub(crate) pause: Option<Pause>,
    pub(crate) identities: Identities,
    /// Changes whenever the way of any command may: a new topology, a lost connection.
    pub(crate) epoch: u64,
    attempts: u64,
    pub(crate) actions: Vec<Action>,
    refresh_asked: bool,
    /// When the cluster was last asked because of a node that owes an answer.
    pub(crate) looked_at: Option<Instant>,
    pub(crate) signals: Vec<Signal>,
    /// Clients with parts that are kept back.
    pub(crate) held_clients: Vec<Key>,
    pub(crate) corks: Corks,
    /// Clients that wait for room in a channel.
    pub(crate) waiting_for_room: Vec<Key>,
    /// Emptied output buffers.
    pub(crate) spare: Spare,
    pub(crate) hasher: foldhash::fast::FixedState,
    /// For replies made here; empty between calls.
    pub(crate) scratch: Vec<u8>,
    pub(crate) host: H,
}

impl<H: Host> Core<H> {
    pub(crate) fn new(settings: Settings, host: H) -> Self {
        Self {
            identities: Identities::new(settings.service.clone(), settings.seed),
            hasher: foldhash::fast::FixedState::with_seed(settings.seed),
            heat: Box::new(Heat::new(settings.seed)),
            follows: Follows::new(settings.seed),
            near: Near::new(
                Arc::clone(&settings.near_prefixes),
                settings.near_ops_min,
                settings.near_bytes_max,
                foldhash::fast::FixedState::with_seed(settings.seed),
            ),
            view: View::unknown(!settings.users.has_default()),
            settings,
            leases: Leases::default(),
            messages: Messages::default(),
            budget: Budget::default(),
            verdicts: 0,
            reads: Reads::default(),
            unrest: Unrest::default(),
            scripts: Scripts::default(),
            pause: None,
            channels: Slots::default(),
            by_node: HashMap::new(),
            routes: Vec::new(),
            epoch: 1,
            attempts: 0,
            actions: Vec::new(),
            refresh_asked: false,
            looked_at: None,
            signals: Vec::new(),
            held_clients: Vec::new(),
            corks: Corks::default(),
            waiting_for_room: Vec::new(),
            spare: Spare::default(),
            scratch: Vec::new(),
            host,
        }
    }

    pub(crate) fn take_actions(&mut self, into: &mut Vec<Action>) {
        self.refresh_asked = false;
        into.append(&mut self.actions);
    }

    /// Asks for a new look at the cluster.
    pub(crate) fn refresh(&mut self) {
        if !self.refresh_asked {
            self.refresh_asked = true;
            self.actions.push(Action::Refresh);
        }
    }

    /// The channel for a slot, or for no slot in particular; then `any` chooses the shard.
    /// `None`: nobody owns the slot, as far as is known.
    #[inline]
    pub(crate) fn route(
        &mut self,
        profile: Profile,
        slot: Option<Slot>,
        any: u32,
        now: Instant,
    ) -> Option<Key> {
        let topology = self.view.topology.as_deref()?;
        let shard = match slot {
            Some(slot) => topology.owner_index(slot)?.get(),
            None => any_shard(topology.shards().iter().map(|shard| &shard.primary), any)?,
        };
        if let Some(key) = self.known_route(profile, shard) {
            return Some(key);
        }
        let node = topology.primaries().nth(shard)?;
        let (addr, id, shards) = (node.addr.clone(), node.id, topology.shards().len());
        let key = self.channel_to(&addr, Some(id), profile, now);
        let at = self
            .routes
            .iter()
            .position(|routes| routes.profile == profile);
        let at = at.unwrap_or_else(|| {
            self.routes.push(Routes {
                profile,
                by_shard: vec![None; shards],
            });
            self.routes.len() - 1
        });
        let place = self
            .routes
            .get_mut(at)
            .and_then(|routes| routes.by_shard.get_mut(shard));
        if let Some(place) = place {
            *place = Some(key);
        }
        Some(key)
    }

    /// The channel to a shard's primary, if one was made.
    #[inline]
    pub(crate) fn known_route(&self, profile: Profile, shard: usize) -> Option<Key> {
        let known = self
            .routes
            .iter()
            .find(|routes| routes.profile == profile)?;
        known.by_shard.get(shard).copied().flatten()
    }

    /// The channel to the node at an address. `None`: no such node is known.
    pub(crate) fn route_to(
        &mut self,
        profile: Profile,
        addr: &NodeAddr,
        now: Instant,
    ) -> Option<Key> {
        let node = self.view.topology.as_deref()?.node_by_addr(addr)?.id;
        Some(self.channel_to(addr, Some(node), profile, now))
    }

    pub(crate) fn channel_to(
        &mut self,
        addr: &NodeAddr,
        node: Option<NodeId>,
        profile: Profile,
        now: Instant,
    ) -> Key {
        if let Some(key) = self.by_node.get(&(addr.clone(), profile)).copied() {
            let role = self.role_of(addr);
            // The address may have gone over to another node.
            let same = self.channels.get_mut(key);
            if let Some(channel) = same.filter(|channel| channel.node == node) {
                channel.role = role;
                return key;
            }
            self.by_node.remove(&(addr.clone(), profile));
        }
        let key = self.open(addr, node, profile, Purpose::Commands, now);
        self.by_node.insert((addr.clone(), profile), key);
        key
    }

    fn role_of(&self, addr: &NodeAddr) -> Option<Role> {
        let topology = self.view.topology.as_deref()?;
        topology.node_by_addr(addr).map(|node| node.role)
    }

    /// Makes a channel and has it connected at once.
    pub(crate) fn open(
        &mut self,
        addr: &NodeAddr,
        node: Option<NodeId>,
        profile: Profile,
        purpose: Purpose,
        now: Instant,
    ) -> Key {
        let seed = self.fresh_seed();
        let connection = self.connection(profile, node, now);
        let route = self.fresh_route();
        let (zone, role) = (self.zone_to(addr), self.role_of(addr));
        let key = self.channels.insert_with(|_| Channel {
            zone,
            addr: addr.clone(),
            node,
            role,
            profile,
            purpose,
            connection,
            reads: Coalescer::default(),
            route,
            backoff: Backoff::new(seed),
            connect_at: None,
            stalled: false,
            dirty: false,
            unread: BytesMut::new(),
            used_at: now,
            leaves: false,
            told: 0,
            trouble: String::new(),
            trips: Times::default(),
        });
        self.host.channel_phase(None, Some(Phase::Connecting));
        if let Some(channel) = self.channels.get(key) {
            let attempt = channel.attempt(key);
            self.actions.push(Action::Connect {
                attempt,
                addr: addr.clone(),
            });
        }
        key
    }

    fn connection(
        &mut self,
        profile: Profile,
        node: Option<NodeId>,
        at: Instant,
    ) -> Connection<Ticket> {
        let setup = Setup {
            protocol: profile.protocol,
            credentials: self.identities.credentials(profile.identity).cloned(),
            database: profile.database,
            readonly: profile.replica,
            node_id: node.map(|id| Arc::from(id.as_str())),
            version: self.settings.version,
        };
        let limits = self.settings.limits;
        let timeouts = Timeouts {
            connect: limits.connect,
            reply: if profile.replica {
                limits.read_reply
            } else {
                limits.reply
            },
        };
        Connection::new(setup, timeouts, self.fresh_seed(), at)
    }

    fn fresh_seed(&self) -> u64 {
        (self.settings.seed ^ self.attempts).wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fresh_route(&mut self) -> Route {
        self.attempts += 1;
        Route(self.attempts)
    }

    /// The connection of a channel's attempt is over. What was queued on it becomes signals; the
    /// channel connects again after a while.
    pub(crate) fn lose(&mut self, key: Key, reason: &CloseReason, now: Instant) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let before = channel.connection.phase();
        let attempt = channel.attempt(key);
        channel.trouble = reason.to_string();
        let refused = match reason {
            CloseReason::Handshake(HandshakeError::Refused(text)) => Some(text.as_str()),
            _ => None,
        };
        let from = channel.addr.clone();
        for abandoned in channel.abandon() {
            self.signals.push(signal_of(
                abandoned,
                (&from, channel.profile.replica),
                &channel.trouble,
                refused,
            ));
        }
        let wait = channel.backoff.next_wait();
        let failures = channel.backoff.attempts();
        let delta = channel.in_flight_delta();
        let (profile, node) = (channel.profile, channel.node);
        self.host.in_flight(delta);
        self.host.channel_lost(&from, reason, failures);
        self.host
            .channel_phase(Some(before), Some(Phase::Connecting));
        self.actions.push(Action::Drop(attempt));
        self.epoch += 1;
        let (connection, route) = (
            self.connection(profile, node, now + wait),
            self.fresh_route(),
        );
        if let Some(channel) = self.channels.get_mut(key) {
            channel.connection = connection;
            channel.route = route;
            channel.connect_at = Some(now + wait);
            channel.stalled = false;
            channel.dirty = false;
            channel.unread = BytesMut::new();
        }
        if refused.is_none() {
            self.refresh();
        }
    }

    /// Takes back what is queued on a channel that is not ready; its commands find another way, or
    /// the end of their time.
    pub(crate) fn requeue(&mut self, key: Key, now: Instant) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let from = channel.addr.clone();
        let before = channel.connection.phase();
        let abandoned = channel.abandon();
        let (profile, node) = (channel.profile, channel.node);
        for abandoned in abandoned {
            self.signals.push(signal_of(
                abandoned,
                (&from, profile.replica),
                &channel.trouble,
                None,
            ));
        }
        let delta = channel.in_flight_delta();
        let started = channel.connect_at.is_none();
        let attempt = channel.attempt(key);
        self.host.in_flight(delta);
        self.host
            .channel_phase(Some(before), Some(Phase::Connecting));
        if started {
            self.actions.push(Action::Drop(attempt));
        }
        self.epoch += 1;
        let (connection, route) = (self.connection(profile, node, now), self.fresh_route());
        if let Some(channel) = self.channels.get_mut(key) {
            channel.connection = connection;
            channel.route = route;
            channel.connect_at = Some(now);
            channel.stalled = false;
            channel.dirty = false;
            channel.unread = BytesMut::new();
        }
    }

    /// Takes away a channel of Keyway's own, with what it asked for itself. Returns whether there is one.
    pub(crate) fn discard(&mut self, key: Key, reason: &CloseReason) -> bool {
        let Some(mut channel) = self.channels.remove(key) else {
            return false;
        };
        let phase = channel.connection.phase();
        channel.connection.abandon();
        let delta = channel.in_flight_delta();
        self.host.in_flight(delta);
        if *reason != CloseReason::Retired {
            self.host.channel_lost(&channel.addr, reason, 1);
        }
        self.host.channel_phase(Some(phase), None);
        self.actions.push(Action::Drop(channel.attempt(key)));
        true
    }

    /// Closes a channel that has nothing in flight, for good.
    pub(crate) fn retire(&mut self, key: Key) {
        let Some(channel) = self.channels.remove(key) else {
            return;
        };
        debug_assert_eq!(
            channel.connection.pipeline().in_flight(),
            0,
            "retired with commands"
        );
        self.forget_ways_to(key);
        self.host
            .channel_phase(Some(channel.connection.phase()), None);
        self.actions.push(Action::Drop(channel.attempt(key)));
        self.epoch += 1;
    }

    /// No command takes this channel any more.
    pub(crate) fn forget_ways_to(&mut self, key: Key) {
        self.by_node.retain(|_, known| *known != key);
        self.reads.forget(key);
        for routes in &mut self.routes {
            routes
                .by_shard
                .iter_mut()
                .filter(|known| **known == Some(key))
                .for_each(|k| *k = None);
        }
    }

    /// Another topology is in force.
    pub(crate) fn rerouted(&mut self, now: Instant) {
        self.routes.clear();
        self.renew_reads();
        self.forget_near();
        self.epoch += 1;
        let Some(topology) = self.view.topology.clone() else {
            return;
        };
        let keys: Vec<Key> = self.channels.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(channel) = self.channels.get(key) else {
                continue;
            };
            if channel.is_ready() || channel.serves(&topology) {
                continue; // what a ready connection carries, its node will answer
            }
            match channel.purpose {
                Purpose::Commands => {
                    self.requeue(key, now);
                    self.retire(key);
                }
                Purpose::Lease => self.lose_lease(key, &CloseReason::Silent(STALL)),
                Purpose::Messages | Purpose::Verdict | Purpose::Near => {}
            }
        }
    }

    /// Tells the shell that a channel has something to write.
    pub(crate) fn dirty(&mut self, key: Key) {
        if let Some(channel) = self.channels.get_mut(key) {
            let delta = channel.in_flight_delta();
            self.host.in_flight(delta);
            if !channel.dirty && channel.is_ready() && !channel.stalled {
                channel.dirty = true;
                self.actions.push(Action::WakeChannel(channel.attempt(key)));
            }
        }
    }
}

/// A shard for a command that any can take: one that is well, if there is one.
fn any_shard<'a>(
    primaries: impl ExactSizeIterator<Item = &'a Node> + Clone,
    any: u32,
) -> Option<usize> {
    let count = primaries.len();
    let first = usize::try_from(any)
        .unwrap_or_default()
        .checked_rem(count)?;
    let well = primaries
        .enumerate()
        .filter(|(_, node)| node.health == Health::Online);
    let well: Vec<usize> = well.map(|(index, _)| index).collect();
    Some(
        well.iter()
            .copied()
            .find(|index| *index >= first)
            .or(well.first().copied())
            .unwrap_or(first),
    )
}

pub(crate) fn signal_of(
    abandoned: upstream::Abandoned<Ticket>,
    (from, replica): (&NodeAddr, bool),
    trouble: &str,
    refused: Option<&str>,
) -> Signal {
    let signal = match (abandoned.answered_in_part, abandoned.touched) {
        (true, _) => retry::Signal::CutOff,
        (false, true) => retry::Signal::Lost,
        (false, false) => retry::Signal::NotSent,
    };
    let text = match (refused, &signal) {
        (Some(text), _) => text.to_owned(),
        (None, retry::Signal::NotSent) => unavailable(from, trouble, "was not run"),
        (None, _) if abandoned.ticket.nature.may_write => format!(
            "ERR KEYWAY.UNKNOWN_OUTCOME the connection to {from} was lost ({trouble}) before its \
             reply: the command may or may not have run"
        ),
        (None, _) => unavailable(from, trouble, "got no reply"),
    };
    let mut reply = Vec::new();
    resp::write::error(&mut reply, text.as_bytes());
    Signal {
        ticket: abandoned.ticket,
        signal,
        reply,
        request: abandoned.request,
        from: from.clone(),
        replica,
        deliver: refused.is_some(),
    }
}

fn unavailable(from: &NodeAddr, trouble: &str, outcome: &str) -> String {
    let trouble = if trouble.is_empty() {
        "not connected yet"
    } else {
        trouble
    };
    format!(
        "ERR KEYWAY.UNAVAILABLE no answer from {from} in time ({trouble}): the command {outcome}"
    )
}
