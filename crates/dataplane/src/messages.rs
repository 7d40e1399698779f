//! Messages: one subscription on a node for any number of clients.
//!
//! What a user's clients are subscribed to is subscribed to once per worker, as that user, on
//! connections of their own to the node that owns the name's slot, which is where Keyway publishes to
//! a channel of that name. They speak RESP3, so that messages and confirmations cannot be
//! taken for each other; messages are turned into RESP2 for clients that speak it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use command::TopicKind;
use resp::Protocol;
use routing::{ErrorClass, Redirect};
use topology::{NodeAddr, Slot};
use upstream::{CloseReason, HandshakeError};

use crate::{
    audience::Audience,
    channel::{Lane, Profile, Purpose},
    core::Core,
    host::Host,
    slots::{Key, Slots},
    ticket::Ticket,
};

/// After a refusal that will pass, or a lost connection.
const AGAIN: Duration = Duration::from_millis(100);
/// A connection that carries nothing is asked for an echo this often, so that it is known to live.
const ECHO: Duration = Duration::from_secs(1);

/// Goes out right behind the end of a subscription, whose reply is the reply to this: what the node
/// says to the end itself cannot be counted. A node that loses a slot ends the subscriptions to its
/// sharded channels by itself, with a push that is no different from an answer, and then answers
/// `SUNSUBSCRIBE` with `MOVED`; when the slot has come back meanwhile, with another push; when
/// nothing else is subscribed to on the connection, with a push (9.1) or with `NOSUB` (8.0).
/// `HELLO` is allowed to everybody, whatever the ACL (`ECHO` is not), and is neither a push nor an
/// error.
const LAST: &[u8] = b"*1\r\n$5\r\nHELLO\r\n";

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent from then on.
    Wanted(Instant),
    /// On this connection, perhaps not yet confirmed.
    On { channel: Key, confirmed: bool },
}

#[derive(Debug)]
pub(crate) struct Topic {
    identity: Key,
    kind: TopicKind,
    pub(crate) name: Bytes,
    /// Clients that get its messages.
    subscribers: Vec<Key>,
    /// Clients that wait for it to be confirmed.
    waiters: Vec<Key>,
    state: State,
}

/// Something happened to a subscription.
#[derive(Debug)]
pub(crate) enum Event {
    /// On this connection.
    Confirmed(Key, Key),
    /// A node has ended it by itself, on this connection.
    Ended(Key, Key),
    /// The error line, without `-` and CRLF.
    Refused(Key, Vec<u8>),
    /// It is at another node.
    Moved(Key, Redirect, NodeAddr),
    /// It is to be tried again.
    Again(Key),
    /// A whole message that came on this connection right behind one of these: who is confirmed
    /// first gets it.
    Message(TopicKind, Key, Bytes),
    /// Not of a subscription: a user may do what it asked for.
    Allowed(Ticket),
}

/// A connection that carries messages.
#[derive(Clone, Copy, Debug)]
struct Home {
    channel: Key,
    identity: Key,
    /// Since when nobody is subscribed to anything on it.
    idle_since: Option<Instant>,
    echoed_at: Instant,
}

/// What clients are subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    topics: Slots<Topic>,
    by_name: HashMap<(Key, TopicKind), HashMap<Bytes, Key>>,
    homes: Vec<Home>,
    wanted: Vec<Key>,
    pub(crate) events: Vec<Event>,
}

impl Messages {
    pub(crate) fn topic(&self, key: Key) -> Option<&Topic> {
        self.topics.get(key)
    }

    /// Who gets a message that came on a connection; nobody, when nobody is subscribed (any more),
    /// or not there: the end of an older subscription to the same topic may still be on its way to
    /// another node, and who heard both would hear all twice.
    pub(crate) fn subscribers(&self, channel: Key, kind: TopicKind, name: &[u8]) -> &[Key] {
        let topic = self
            .named(channel, kind, name)
            .filter(|key| self.is_confirmed_on(*key, channel))
            .and_then(|key| self.topics.get(key));
        topic.map_or(&[], |topic| &topic.subscribers)
    }

    /// A node says that a subscription is over: because it was asked to end it, or because its slot
    /// has moved. Which of the two does not matter: whoever is subscribed there anew is not yet
    /// confirmed when the first is said.
    pub(crate) fn ended(&mut self, channel: Key, name: &[u8]) {
        if let Some(key) = self.named(channel, TopicKind::Shard, name) {
            self.events.push(Event::Ended(channel, key));
        }
    }

    /// The topic of this name of those whose messages the connection carries.
    fn named(&self, channel: Key, kind: TopicKind, name: &[u8]) -> Option<Key> {
        let mut homes = self.homes.iter();
        let home = homes.find(|home| home.channel == channel)?;
        let names = self.by_name.get(&(home.identity, kind))?;
        names.get(name).copied()
    }

    pub(crate) fn is_confirmed(&self, key: Key) -> bool {
        self.topics
            .get(key)
            .is_some_and(|topic| matches!(topic.state, State::On { confirmed, .. } if confirmed))
    }

    pub(crate) fn is_confirmed_on(&self, key: Key, channel: Key) -> bool {
        let on = State::On {
            channel,
            confirmed: true,
        };
        self.topics.get(key).is_some_and(|topic| topic.state == on)
    }

    /// A subscription was confirmed on a connection. Returns whether that is where it is.
    pub(crate) fn confirm(&mut self, key: Key, channel: Key) -> bool {
        if let Some(topic) = self.topics.get_mut(key)
            && let State::On {
                channel: on,
                confirmed,
            } = &mut topic.state
            && *on == channel
        {
            *confirmed = true;
            return true;
        }
        false
    }

    /// The topic of this name, made when it is new.
    pub(crate) fn find(
        &mut self,
        identity: Key,
        kind: TopicKind,
        name: &[u8],
        now: Instant,
    ) -> Key {
        let names = self.by_name.entry((identity, kind)).or_default();
        if let Some(key) = names.get(name) {
            return *key;
        }
        let name = Bytes::copy_from_slice(name);
        let key = self.topics.insert_with(|_| Topic {
            identity,
            kind,
            name: name.clone(),
            subscribers: Vec::new(),
            waiters: Vec::new(),
            state: State::Wanted(now),
        });
        names.insert(name, key);
        self.wanted.push(key);
        key
    }

    pub(crate) fn wait_for(&mut self, key: Key, client: Key) {
        if let Some(topic) = self.topics.get_mut(key)
            && !topic.waiters.contains(&client)
        {
            topic.waiters.push(client);
        }
    }

    pub(crate) fn add(&mut self, key: Key, client: Key, audience: &Audience) {
        if let Some(topic) = self.topics.get_mut(key)
            && !topic.subscribers.contains(&client)
        {
            if !topic.subscribers.is_empty() {
                audience.joins(topic.kind, &topic.name);
            }
            topic.subscribers.push(client);
        }
    }

    pub(crate) fn take_waiters(&mut self, key: Key) -> Vec<Key> {
        let topic = self.topics.get_mut(key);
        topic.map_or_else(Vec::new, |topic| std::mem::take(&mut topic.waiters))
    }

    fn want(&mut self, key: Key, at: Instant) {
        if let Some(topic) = self.topics.get_mut(key) {
            topic.state = State::Wanted(at);
            if !self.wanted.contains(&key) {
                self.wanted.push(key);
            }
        }
    }

    fn on(&self, channel: Key) -> Vec<Key> {
        let here =
            |topic: &Topic| matches!(topic.state, State::On { channel: on, .. } if on == channel);
        let topics = self.topics.iter().filter(|(_, topic)| here(topic));
        topics.map(|(key, _)| key).collect()
    }
}

impl<H: Host> Core<H> {
    /// A client does not want a topic any more, neither its messages nor its confirmation.
    pub(crate) fn leave_topic(&mut self, key: Key, client: Key, now: Instant) {
        let Some(topic) = self.messages.topics.get_mut(key) else {
            return;
        };
        let before = topic.subscribers.len();
        topic.subscribers.retain(|subscriber| *subscriber != client);
        if topic.subscribers.len() < before && before > 1 {
            self.settings.audience.leaves(topic.kind, &topic.name);
        }
        topic.waiters.retain(|waiter| *waiter != client);
        if !topic.subscribers.is_empty() || !topic.waiters.is_empty() {
            return;
        }
        let Some(topic) = self.messages.topics.remove(key) else {
            return;
        };
        if let Some(names) = self.messages.by_name.get_mut(&(topic.identity, topic.kind)) {
            names.remove(&topic.name);
        }
        if let State::On { channel, .. } = topic.state {
            let word = match topic.kind {
                TopicKind::Channel => "UNSUBSCRIBE",
                TopicKind::Pattern => "PUNSUBSCRIBE",
                TopicKind::Shard => "SUNSUBSCRIBE",
            };
            let mut request = Vec::with_capacity(topic.name.len() + 64);
            resp::write::request(&mut request, &[word.as_bytes(), &topic.name]);
            request.extend_from_slice(LAST);
            self.push(channel, Ticket::of_topic(None), &request, None, now);
        }
    }

    /// Sends every subscription that is due.
    pub(crate) fn subscribe_wanted(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.messages.wanted) {
            let Some(topic) = self.messages.topics.get(key) else {
                continue;
            };
            let State::Wanted(at) = topic.state else {
                continue;
            };
            let (identity, kind, name) = (topic.identity, topic.kind, topic.name.clone());
            let home = (at <= now).then(|| self.home(identity, &name, now));
            let Some(Some(channel)) = home else {
                if home.is_some() {
                    self.refresh(); // nobody is known to take it
                }
                self.messages.wanted.push(key);
                continue;
            };
            if let Some(topic) = self.messages.topics.get_mut(key) {
                topic.state = State::On {
                    channel,
                    confirmed: false,
                };
            }
            let word = match kind {
                TopicKind::Channel => "SUBSCRIBE",
                TopicKind::Pattern => "PSUBSCRIBE",
                TopicKind::Shard => "SSUBSCRIBE",
            };
            let mut request = Vec::with_capacity(name.len() + 48);
            resp::write::request(&mut request, &[word.as_bytes(), &name]);
            self.push(channel, Ticket::of_topic(Some(key)), &request, None, now);
        }
    }

    /// The connection for a topic; opened, when there is none.
    fn home(&mut self, identity: Key, name: &[u8], now: Instant) -> Option<Key> {
        let node = self.view.topology.as_deref()?.primary(Slot::of_key(name))?;
        let (addr, id) = (node.addr.clone(), node.id);
        let fits = |core: &Self, home: &Home| {
            let channel = core.channels.get(home.channel);
            home.identity == identity && channel.is_some_and(|channel| channel.addr == addr)
        };
        let known = (0..self.messages.homes.len()).find(|at| {
            let home = self.messages.homes.get(*at);
            home.is_some_and(|home| fits(self, home))
        });
        if let Some(home) = known.and_then(|at| self.messages.homes.get_mut(at)) {
            home.idle_since = None;
            return Some(home.channel);
        }
        let profile = Profile {
            identity,
            protocol: Protocol::Resp3,
            database: 0,
            lane: Lane::Fast,
            replica: false,
        };
        let channel = self.open(&addr, Some(id), profile, Purpose::Messages, now);
        self.messages.homes.push(Home {
            channel,
            identity,
            idle_since: None,
            echoed_at: now,
        });
        Some(channel)
    }

    /// What a node said of a subscription that is not its end.
    pub(crate) fn topic_again(
        &mut self,
        key: Key,
        moved: Option<(&Redirect, &NodeAddr)>,
        now: Instant,
    ) {
        let mut at = now + AGAIN;
        if let Some((redirect, from)) = moved {
            let to = redirect.address(from).filter(|to| to != from);
            if to.is_some_and(|to| self.slot_moved(redirect.slot, &to, now)) {
                at = now;
            }
        }
        self.refresh();
        self.messages.want(key, at);
    }

    /// A connection that carried messages is over: what was on it is asked for again.
    pub(crate) fn lose_home(&mut self, key: Key, reason: &CloseReason, now: Instant) {
        if !self.discard(key, reason) {
            return;
        }
        self.messages.homes.retain(|home| home.channel != key);
        for topic in self.messages.on(key) {
            self.messages.want(topic, now + AGAIN);
            if let CloseReason::Handshake(HandshakeError::Refused(text)) = reason {
                let text = text.clone().into_bytes();
                self.messages.events.push(Event::Refused(topic, text));
            }
        }
        self.refresh();
    }

    /// Looks after the connections that carry messages.
    pub(crate) fn tick_messages(&mut self, now: Instant) {
        self.subscribe_wanted(now);
        let mut homes = std::mem::take(&mut self.messages.homes);
        let mut over = Vec::new();
        for home in &mut homes {
            if now.saturating_duration_since(home.echoed_at) < ECHO {
                continue;
            }
            home.echoed_at = now;
            if self.messages.on(home.channel).is_empty() {
                let since = *home.idle_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= crate::channel::IDLE {
                    over.push(home.channel);
                }
            } else {
                home.idle_since = None;
            }
            if let Some(channel) = self.channels.get_mut(home.channel)
                && channel.is_ready()
                && channel.connection.pipeline().in_flight() == 0
            {
                channel.connection.pipeline_mut().push_sentinel(now);
                self.dirty(home.channel);
            }
        }
        self.messages.homes = homes;
        for key in over {
            self.lose_home(key, &CloseReason::Retired, now);
        }
    }
}

/// What an error that a node answers to a subscription means.
pub(crate) fn event_of(key: Key, line: &[u8], from: &NodeAddr) -> Event {
    match ErrorClass::of(line) {
        ErrorClass::Redirect(redirect) => Event::Moved(key, redirect, from.clone()),
        ErrorClass::Other => Event::Refused(key, line.to_vec()),
        _ => Event::Again(key),
    }
}

/// The kind and the name in a push about subscriptions.
pub(crate) fn split_push(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = frame.strip_prefix(b">")?;
    let (_, rest) = split_line(rest)?;
    let (kind, rest) = split_bulk(rest)?;
    let (name, _) = split_bulk(rest)?;
    Some((kind, name))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}

fn split_bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digits, rest) = split_line(bytes.strip_prefix(b"$")?)?;
    let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (bulk, rest) = rest.split_at_checked(len)?;
    Some((bulk, rest.strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_of_a_kind_and_about_a_name() {
        let message = b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\n\r\n\r\n";
        assert_eq!(split_push(message), Some((&b"message"[..], &b"news"[..])));
        let confirmed = b">3\r\n$9\r\nsubscribe\r\n$0\r\n\r\n:1\r\n";
        assert_eq!(split_push(confirmed), Some((&b"subscribe"[..], &b""[..])));
        let nobody = b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n";
        assert_eq!(split_push(nobody), None);
        assert_eq!(split_push(b">2\r\n$10\r\ninvalidate\r\n*0\r\n"), None);
        assert_eq!(split_push(b">3\r\n$7\r\nmess"), None);
    }
}
