//! `SUBSCRIBE` and its like, as a client sends them and as it gets them confirmed.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use command::{Command, Handling, LocalKind, Subscription, TopicKind};
use resp::{Protocol, Request};
use routing::Plan;
use session::Place;

use crate::{
    client::{Blocked, State},
    core::Core,
    host::{ErrorKind, Host},
    messages::{Event, split_push},
    plane::Dataplane,
    replies::deliver,
    slots::Key,
};

/// Channels and patterns of one client.
const SUBSCRIPTIONS_MAX: usize = 65_536;

/// What a client is subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: BTreeMap<Bytes, Key>,
    patterns: BTreeMap<Bytes, Key>,
    shards: BTreeMap<Bytes, Key>,
}

impl Subscriptions {
    pub(crate) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }

    fn of(&mut self, kind: TopicKind) -> &mut BTreeMap<Bytes, Key> {
        match kind {
            TopicKind::Channel => &mut self.channels,
            TopicKind::Pattern => &mut self.patterns,
            TopicKind::Shard => &mut self.shards,
        }
    }

    /// The count in a confirmation: sharded channels are counted apart.
    fn count(&self, kind: TopicKind) -> i64 {
        let count = match kind {
            TopicKind::Shard => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        };
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    fn len(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shards.len()
    }

    fn topics(&self) -> Vec<Key> {
        let all = [&self.channels, &self.patterns, &self.shards];
        all.iter()
            .flat_map(|names| names.values().copied())
            .collect()
    }
}

/// A `SUBSCRIBE` that waits for a node's confirmation.
#[derive(Debug)]
pub(crate) struct Pending {
    place: Place,
    kind: TopicKind,
    topics: Vec<Key>,
    since: Instant,
}

fn word(about: Subscription) -> &'static str {
    match (about.kind, about.begin) {
        (TopicKind::Channel, true) => "subscribe",
        (TopicKind::Channel, false) => "unsubscribe",
        (TopicKind::Pattern, true) => "psubscribe",
        (TopicKind::Pattern, false) => "punsubscribe",
        (TopicKind::Shard, true) => "ssubscribe",
        (TopicKind::Shard, false) => "sunsubscribe",
    }
}

fn confirm(out: &mut Vec<u8>, protocol: Protocol, word: &str, name: Option<&[u8]>, count: i64) {
    resp::write::push(out, protocol, 3);
    resp::write::bulk(out, word);
    match name {
        Some(name) => resp::write::bulk(out, name),
        None => resp::write::null(out, protocol),
    }
    resp::write::integer(out, count);
}

impl<H: Host> Core<H> {
    /// What a RESP2 client gets that has subscriptions and sends another command.
    pub(crate) fn restrict_subscriber(
        &mut self,
        client: &mut State,
        command: &Command,
        request: Request<'_>,
        plan: &Plan,
        now: Instant,
    ) -> bool {
        let subscribed = client
            .subscriptions
            .as_ref()
            .is_some_and(|subs| !subs.is_empty());
        if !subscribed || client.session.protocol == Protocol::Resp3 {
            return false;
        }
        if matches!(command.handling(request), Handling::Subscription(_)) {
            return false;
        }
        match plan {
            Plan::Local(LocalKind::Quit | LocalKind::Reset) => false,
            Plan::Local(LocalKind::Ping) => {
                resp::write::array(&mut self.scratch, 2);
                resp::write::bulk(&mut self.scratch, "pong");
                resp::write::bulk(&mut self.scratch, request.arg(1).unwrap_or_default());
                let silent = !client.session.take_reply_wanted();
                self.reply_here(client, Some(command.id()), silent, now);
                true
            }
            _ => {
                let text = format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
                     QUIT / RESET are allowed in this context",
                    command.name()
                );
                self.refuse(client, Some(command.id()), text.as_bytes(), now);
                true
            }
        }
    }

    /// Begins or ends subscriptions.
    pub(crate) fn subscribe(
        &mut self,
        (client, key): (&mut State, Key),
        (command, about): (&Command, Subscription),
        request: Request<'_>,
        now: Instant,
    ) {
        // Confirmations are heard whatever CLIENT REPLY says; a SKIP is used up all the same.
        let _ = client.session.take_reply_wanted();
        if !about.begin {
            self.unsubscribe((client, key), (command, about), request, now);
            return;
        }
        let held = client.subscriptions.as_ref().map_or(0, |subs| subs.len());
        if held + request.argc() > SUBSCRIPTIONS_MAX {
            let text = format!("ERR Keyway allows {SUBSCRIPTIONS_MAX} subscriptions per client");
            self.refuse(client, Some(command.id()), text.as_bytes(), now);
            return;
        }
        let order = &mut client.session.order;
        let place = order.reserve_local(Some(command.id()), false, now);
        let identity = client.identity;
        let mut topics = Vec::with_capacity(request.argc());
        for name in request.args().skip(1) {
            let topic = self.messages.find(identity, about.kind, name, now);
            self.messages.wait_for(topic, key);
            topics.push(topic);
        }
        client.subscribing = Some(Box::new(Pending {
            place,
            kind: about.kind,
            topics,
            since: now,
        }));
        self.finish_subscribing((client, key), now);
        self.subscribe_wanted(now);
    }

    /// Confirms what a client waits for, if all of it is confirmed.
    pub(crate) fn finish_subscribing(&mut self, (client, key): (&mut State, Key), now: Instant) {
        let confirmed = |topic: &Key| self.messages.is_confirmed(*topic);
        let done = client
            .subscribing
            .as_ref()
            .is_some_and(|pending| pending.topics.iter().all(confirmed));
        let Some(pending) = client.subscribing.take_if(|_| done) else {
            return;
        };
        let protocol = client.session.protocol;
        let subscriptions = client.subscriptions.get_or_insert_default();
        let about = Subscription {
            kind: pending.kind,
            begin: true,
        };
        for topic in pending.topics {
            let Some(name) = self.messages.topic(topic).map(|topic| topic.name.clone()) else {
                continue;
            };
            subscriptions.of(pending.kind).insert(name.clone(), topic);
            let count = subscriptions.count(pending.kind);
            confirm(&mut self.scratch, protocol, word(about), Some(&name), count);
            self.messages.add(topic, key, &self.settings.audience);
        }
        self.complete_here(client, pending.place, now);
    }

    /// Nothing of what a client waits for begins.
    pub(crate) fn fail_subscribing(
        &mut self,
        (client, key): (&mut State, Key),
        line: &[u8],
        kind: ErrorKind,
        now: Instant,
    ) {
        let Some(pending) = client.subscribing.take() else {
            return;
        };
        for topic in pending.topics {
            let name = self.messages.topic(topic).map(|topic| topic.name.clone());
            let subscriptions = client.subscriptions.as_mut();
            let before = subscriptions
                .zip(name)
                .is_some_and(|(subscriptions, name)| {
                    subscriptions.of(pending.kind).contains_key(&name)
                });
            if !before {
                self.leave_topic(topic, key, now);
            }
        }
        self.host.error(kind);
        resp::write::error(&mut self.scratch, line);
        self.complete_here(client, pending.place, now);
    }

    fn unsubscribe(
        &mut self,
        (client, key): (&mut State, Key),
        (command, about): (&Command, Subscription),
        request: Request<'_>,
        now: Instant,
    ) {
        let protocol = client.session.protocol;
        let subscriptions = client.subscriptions.get_or_insert_default();
        let names: Vec<Bytes> = if request.argc() > 1 {
            request.args().skip(1).map(Bytes::copy_from_slice).collect()
        } else {
            subscriptions.of(about.kind).keys().cloned().collect()
        };
        let mut left = Vec::new();
        for name in &names {
            left.extend(subscriptions.of(about.kind).remove(name));
            let count = subscriptions.count(about.kind);
            confirm(&mut self.scratch, protocol, word(about), Some(name), count);
        }
        if names.is_empty() {
            let count = subscriptions.count(about.kind);
            confirm(&mut self.scratch, protocol, word(about), None, count);
        }
        if subscriptions.is_empty() {
            client.subscriptions = None;
        }
        self.reply_here(client, Some(command.id()), false, now);
        for topic in left {
            self.leave_topic(topic, key, now);
        }
    }

    /// Ends all subscriptions of a client, without a word.
    pub(crate) fn leave_topics(&mut self, (client, key): (&mut State, Key), now: Instant) {
        let waits = client.subscribing.take().map(|pending| pending.topics);
        let has = client.subscriptions.take().map(|subs| subs.topics());
        for topic in waits.into_iter().chain(has).flatten() {
            self.leave_topic(topic, key, now);
        }
    }
}

impl State {
    pub(crate) fn is_subscriber(&self) -> bool {
        self.subscriptions.is_some()
    }

    /// Channels, patterns, sharded channels.
    pub(crate) fn subscription_counts(&self) -> [usize; 3] {
        self.subscriptions.as_ref().map_or([0; 3], |subscriptions| {
            [
                subscriptions.channels.len(),
                subscriptions.patterns.len(),
                subscriptions.shards.len(),
            ]
        })
    }

    /// Why nothing more is taken while a subscription is not confirmed.
    pub(crate) fn waits_for_subscription(&self) -> Option<Blocked> {
        self.subscribing.is_some().then_some(Blocked::Subscription)
    }
}

impl<H: Host> Dataplane<H> {
    /// What nodes said about subscriptions becomes their clients' replies.
    pub(crate) fn settle_messages(&mut self, now: Instant) {
        while !self.core.messages.events.is_empty() {
            for event in std::mem::take(&mut self.core.messages.events) {
                match event {
                    Event::Confirmed(channel, topic) => {
                        if !self.core.messages.confirm(topic, channel) {
                            continue;
                        }
                        for key in self.core.messages.take_waiters(topic) {
                            self.with_waiter(key, |core, client| {
                                core.finish_subscribing((client, key), now);
                            });
                        }
                    }
                    Event::Refused(topic, line) => {
                        for key in self.core.messages.take_waiters(topic) {
                            self.with_waiter(key, |core, client| {
                                core.fail_subscribing(
                                    (client, key),
                                    &line,
                                    ErrorKind::Refused,
                                    now,
                                );
                            });
                        }
                        self.core.topic_again(topic, None, now);
                    }
                    Event::Moved(topic, redirect, from) => {
                        self.core.topic_again(topic, Some((&redirect, &from)), now);
                    }
                    Event::Message(kind, channel, frame) => {
                        self.deliver_late(kind, channel, &frame);
                    }
                    Event::Ended(channel, topic) => {
                        if self.core.messages.is_confirmed_on(topic, channel) {
                            self.core.topic_again(topic, None, now);
                        }
                    }
                    Event::Allowed(ticket) => self.allowed(ticket, now),
                    Event::Again(topic) => self.core.topic_again(topic, None, now),
                }
            }
            self.core.subscribe_wanted(now);
        }
    }

    /// A message that came right behind the confirmation of a subscription to it.
    fn deliver_late(&mut self, kind: TopicKind, channel: Key, frame: &[u8]) {
        let Some((_, name)) = split_push(frame) else {
            return;
        };
        let messages = &self.core.messages;
        let subscribers = messages.subscribers(channel, kind, name).to_vec();
        let output_max = self.core.settings.limits.client_output_bytes_max;
        for key in subscribers {
            if let Some(client) = self.clients.get_mut(key) {
                deliver(&mut client.state, frame, output_max, &mut self.core.spare);
                self.core.wake(&mut client.state, key);
            }
        }
    }

    fn with_waiter(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut crate::core::Core<H>, &mut State),
    ) {
        if let Some(client) = self.clients.get_mut(key) {
            change(&mut self.core, &mut client.state);
            self.core.wake(&mut client.state, key);
        }
    }

    /// Gives up on subscriptions that nobody has confirmed in time.
    pub(crate) fn tick_subscribing(&mut self, now: Instant) {
        let deadline = self.core.settings.limits.deadline;
        let late = |state: &State| {
            let pending = state.subscribing.as_ref();
            pending.is_some_and(|pending| pending.since + deadline <= now)
        };
        let late = self
            .clients
            .iter()
            .filter(|(_, client)| late(&client.state));
        for key in late.map(|(key, _)| key).collect::<Vec<_>>() {
            let line = b"ERR KEYWAY.UNAVAILABLE no node confirmed the subscription in time";
            self.with_waiter(key, |core, client| {
                core.fail_subscribing((client, key), line, ErrorKind::Unavailable, now);
            });
        }
    }
}
