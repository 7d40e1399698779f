//! The connections of a near cache, and what is asked on them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use command::Command;
use resp::{Protocol, Request};
use routing::{Keys, Slot};
use session::Sharing;
use upstream::CloseReason;

use crate::{
    channel::{Channel, Lane, Profile, Purpose},
    client::State,
    coalesce::REQUEST_BYTES_MAX,
    core::Core,
    follow::Here,
    host::Host,
    slots::Key,
    ticket::Ticket,
};

use super::{FIRST, Home, Known, LAST, NOTHING, Near, REFUSED, What, Why, store::Realm};

/// A proof is asked for this often.
const PROBE: Duration = Duration::from_millis(200);
/// A connection that was lost is made again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// What nobody has asked for so long is given up, with its connections.
const IDLE: Duration = Duration::from_secs(300);
/// Values asked for and not there yet.
const FETCHES_MAX: usize = 4096;

impl<H: Host> Core<H> {
    /// Answers a read of what is kept near. What is not will be, soon.
    #[inline(never)]
    pub(crate) fn answer_near(
        &mut self,
        client: &mut State,
        (command, request): (&Command, Request<'_>),
        (slot, keys): (Slot, &Keys),
        now: Instant,
    ) -> bool {
        let Some((name, fingerprint)) = request.arg(1).zip(keys.single()) else {
            return false;
        };
        let asked = request.bytes();
        let kept = self.near.keeps(command.id()) && asked.len() <= REQUEST_BYTES_MAX;
        if !kept || client.watch.is_some() {
            return false;
        }
        let Some(why) = self.near.covers(fingerprint, name) else {
            return false;
        };
        let order = &client.session.order;
        if order.open() > 0 && order.sharing((keys, false), None) != Sharing::Nothing {
            return false;
        }
        let database = client.session.database;
        let Some(realm) = self.near.realm(client.identity, database, now) else {
            return false;
        };
        let reply = self.near.find(realm, (fingerprint, asked), now);
        self.host.near(reply.is_some());
        if let Some(reply) = reply {
            self.heat.served_near(name, asked.len() + reply.len());
            if reply == NOTHING {
                resp::write::null(&mut self.scratch, client.session.protocol);
            } else {
                self.scratch.extend_from_slice(reply);
            }
            let silent = !client.session.take_reply_wanted();
            if why == Why::Hot {
                self.near.hot.found(fingerprint);
            }
            self.reply_as(client, (Some(command.id()), Here::Near), silent, now);
            return true;
        }
        let profile = Profile {
            protocol: Protocol::Resp3,
            lane: Lane::Fast,
            replica: false,
            ..self.profile(client)
        };
        self.fetch((realm, why, profile), slot, (fingerprint, name, asked), now);
        false
    }

    /// Asks what a client asks, unless something about the key is asked already.
    fn fetch(
        &mut self,
        (realm, why, profile): (Realm, Why, Profile),
        slot: Slot,
        (fingerprint, name, asked): (u32, &[u8], &[u8]),
        now: Instant,
    ) {
        let known = self.near.fetching.contains_key(&(realm, fingerprint));
        let has_room = self.near.store.has_room(realm, fingerprint, now);
        if known || !has_room || self.near.fetching.len() >= FETCHES_MAX {
            return;
        }
        let Some(channel) = self.near_home((realm, why), profile, slot, now) else {
            return;
        };
        let has_room = |channel: &Channel| channel.is_ready() && channel.has_room();
        if !self.channels.get(channel).is_some_and(has_room) {
            return;
        }
        let what = What::Fetch {
            realm,
            fingerprint,
            key: name.into(),
            request: asked.into(),
            left_ms: None,
            told: None,
            spoiled: false,
        };
        let number = self.near.number(channel, what, now);
        self.near.fetching.insert((realm, fingerprint), number);
        self.ask_near(channel, (number, FIRST), &[b"PTTL", name], now);
        let ticket = Ticket::of_near((number, LAST));
        self.push(channel, ticket, asked, None, now);
    }

    fn ask_near(&mut self, channel: Key, at: (u32, u16), words: &[&[u8]], now: Instant) {
        let mut request = Vec::with_capacity(64);
        resp::write::request(&mut request, words);
        self.push(channel, Ticket::of_near(at), &request, None, now);
    }

    /// The connection that tells of changes to a slot's keys, if it does already; made, if there is
    /// none.
    fn near_home(
        &mut self,
        (realm, why): (Realm, Why),
        profile: Profile,
        slot: Slot,
        now: Instant,
    ) -> Option<Key> {
        let node = self.view.topology.as_deref()?.primary(slot)?;
        let (addr, id) = (node.addr.clone(), node.id);
        let mut homes = self.near.homes.iter();
        let known =
            homes.position(|home| (home.realm, home.why) == (realm, why) && home.addr == addr);
        let home = known.and_then(|at| self.near.homes.get(at));
        if let Some(home) = home
            && (home.channel.is_some() || home.again_at > now)
        {
            return home.channel.filter(|_| home.tracks);
        }
        let channel = self.open(&addr, Some(id), profile, Purpose::Near, now);
        let home = Home {
            realm,
            why,
            addr,
            channel: Some(channel),
            tracks: false,
            proved_at: None,
            probing: false,
            sample: None,
            disowned: false,
            again_at: now,
        };
        match known.and_then(|at| self.near.homes.get_mut(at)) {
            Some(known) => *known = home,
            None => self.near.homes.push(home),
        }
        let number = self.near.number(channel, What::Track, now);
        let prefixes = Arc::clone(&self.near.prefixes);
        let mut words: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON"];
        if why == Why::Named {
            words.push(b"BCAST");
            for prefix in prefixes.iter() {
                words.extend([&b"PREFIX"[..], prefix]);
            }
        }
        self.ask_near(channel, (number, LAST), &words, now);
        None
    }

    /// A connection of a cache is over, and all that it answered for.
    pub(crate) fn lose_near(&mut self, key: Key, reason: &CloseReason, now: Instant) {
        if !self.discard(key, reason) {
            return;
        }
        let again = if matches!(reason, CloseReason::Handshake(_)) {
            REFUSED
        } else {
            AGAIN
        };
        let dropped = self.near.lost(key, now + again);
        self.host.near_dropped(dropped);
    }

    /// Has connections prove that they live, and gives up those that nobody needs.
    pub(crate) fn tick_near(&mut self, now: Instant) {
        if self.near.homes.is_empty() {
            return;
        }
        let topology = self.view.topology.clone();
        let (mut over, mut probed) = (Vec::new(), Vec::new());
        let idle = |known: &Known| known.used_at + IDLE <= now;
        let near = &mut self.near;
        for home in &mut near.homes {
            let Some(channel) = home.channel else {
                continue;
            };
            let mut realms = near.realms.iter();
            let unused = realms.any(|known| known.realm == home.realm && idle(known));
            let mut primaries = topology.iter().flat_map(|topology| topology.primaries());
            let owns = primaries.any(|node| node.addr == home.addr);
            let due = home.proved_at.is_some_and(|at| at + PROBE <= now);
            if unused || !owns || home.disowned {
                over.push(channel);
            } else if home.tracks && due && !home.probing {
                home.probing = true;
                probed.push((channel, home.sample.clone()));
            }
        }
        near.realms.retain(|known| !idle(known));
        for (channel, sample) in probed {
            let number = self.near.number(channel, What::Probe, now);
            match sample {
                Some(key) => self.ask_near(channel, (number, LAST), &[b"PTTL", &key], now),
                None => self.ask_near(channel, (number, LAST), &[b"PING"], now),
            }
        }
        for channel in over {
            self.lose_near(channel, &CloseReason::Retired, now);
        }
        let Near { homes, realms, .. } = &mut self.near;
        homes.retain(|home| {
            let lives = home.channel.is_some() || home.again_at > now;
            lives && realms.iter().any(|known| known.realm == home.realm)
        });
        self.host.near_bytes(self.near.bytes());
    }

    /// Other prefixes, or room for more or less: everything begins anew.
    pub(crate) fn renew_near(&mut self, now: Instant) {
        let homes = std::mem::take(&mut self.near.homes);
        for channel in homes.into_iter().filter_map(|home| home.channel) {
            self.lose_near(channel, &CloseReason::Retired, now);
        }
        let own = &self.settings;
        let (prefixes, bytes_max) = (Arc::clone(&own.near_prefixes), own.near_bytes_max);
        self.near = Near::new(prefixes, own.near_ops_min, bytes_max, self.hasher.clone());
    }

    /// Keys that have become hot are kept from now on, and those that have cooled are not.
    pub(crate) fn tick_hot(&mut self, now: Instant) {
        if self.near.hot.is_on() {
            let age = self.heat.age(now);
            self.near.follow(self.heat.keys(), age, now);
            self.host.near_bytes(self.near.bytes());
        }
    }

    /// A slot has another owner, or a node another place.
    pub(crate) fn forget_near(&mut self) {
        if self.near.is_on() {
            let dropped = self.near.forget_all();
            self.host.near_dropped(dropped);
        }
    }
}
