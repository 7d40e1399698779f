//! Channels: who is subscribed to them, and who hears what is published.
//!
//! The bus between the nodes takes no time. What is said while a node stands still, that node's
//! subscribers never hear.

use std::collections::BTreeSet;

use command::{Command, Handling, Subscription, TopicKind};
use resp::{Protocol, Request};
use topology::Slot;

use crate::{
    cluster::Cluster,
    commands::{Outcome, glob, integer},
    layout::Version,
    node::{Connection, NodeIndex},
};

/// What a connection is subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    shards: BTreeSet<Vec<u8>>,
}

impl Subscriptions {
    fn of(&mut self, kind: TopicKind) -> &mut BTreeSet<Vec<u8>> {
        match kind {
            TopicKind::Channel => &mut self.channels,
            TopicKind::Pattern => &mut self.patterns,
            TopicKind::Shard => &mut self.shards,
        }
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }

    /// As confirmations tell it: sharded channels are counted apart.
    fn count(&self, kind: TopicKind) -> i64 {
        let count = match kind {
            TopicKind::Shard => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        };
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// The pushes for a message, each with its parts.
    fn heard(&self, sharded: bool, channel: &[u8], text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let push = |parts: &[&[u8]]| parts.iter().map(|part| part.to_vec()).collect();
        if sharded {
            let heard = self.shards.contains(channel);
            return heard
                .then(|| push(&[b"smessage", channel, text]))
                .into_iter()
                .collect();
        }
        let heard = self.channels.contains(channel);
        let own = heard.then(|| push(&[b"message", channel, text]));
        let matching = self
            .patterns
            .iter()
            .filter(|pattern| glob::matches(pattern, channel));
        let matching = matching.map(|pattern| push(&[b"pmessage", pattern, channel, text]));
        own.into_iter().chain(matching).collect()
    }
}

/// Runs `SUBSCRIBE` and its like, which write a confirmation for each name. `None`: it is none.
pub(crate) fn run(
    cluster: &mut Cluster,
    connection: &mut Connection,
    command: &Command,
    request: Request<'_>,
    out: &mut Vec<u8>,
) -> Option<Result<(), String>> {
    let Handling::Subscription(about) = command.handling(request) else {
        return None;
    };
    let mut names: Vec<Vec<u8>> = request.args().skip(1).map(<[u8]>::to_vec).collect();
    if about.kind == TopicKind::Shard
        && let Err(error) = cluster.check_channels(connection, &names, about.begin)
    {
        return Some(Err(error));
    }
    // 8.0 refuses to end what is not there at all.
    let nothing = connection.subscriptions.is_empty();
    if !about.begin && nothing && cluster.layout.version == Version::V8_0 {
        let name = command.name();
        return Some(Err(format!(
            "NOSUB '{name}' command executed not in subscribed mode"
        )));
    }
    if names.is_empty() {
        let all = connection.subscriptions.of(about.kind);
        names = all.iter().cloned().collect();
    }
    if names.is_empty() {
        confirm(connection, about, None, out);
    }
    for name in names {
        let names = connection.subscriptions.of(about.kind);
        if about.begin {
            names.insert(name.clone());
        } else {
            names.remove(&name);
        }
        confirm(connection, about, Some(&name), out);
    }
    Some(Ok(()))
}

fn confirm(connection: &Connection, about: Subscription, name: Option<&[u8]>, out: &mut Vec<u8>) {
    let word = match (about.kind, about.begin) {
        (TopicKind::Channel, true) => "subscribe",
        (TopicKind::Channel, false) => "unsubscribe",
        (TopicKind::Pattern, true) => "psubscribe",
        (TopicKind::Pattern, false) => "punsubscribe",
        (TopicKind::Shard, true) => "ssubscribe",
        (TopicKind::Shard, false) => "sunsubscribe",
    };
    let count = connection.subscriptions.count(about.kind);
    resp::write::push(out, connection.protocol, 3);
    resp::write::bulk(out, word);
    match name {
        Some(name) => resp::write::bulk(out, name),
        None => resp::write::null(out, connection.protocol),
    }
    resp::write::integer(out, count);
}

fn write_push(out: &mut Vec<u8>, protocol: Protocol, parts: &[Vec<u8>]) {
    resp::write::push(out, protocol, parts.len());
    for part in parts {
        resp::write::bulk(out, part);
    }
}

/// `PUBLISH` and `SPUBLISH`: the reply counts who hears it at this node.
pub(crate) fn publish(
    cluster: &mut Cluster,
    connection: &mut Connection,
    sharded: bool,
    request: Request<'_>,
) -> Outcome {
    let (Some(channel), Some(text)) = (request.arg(1), request.arg(2)) else {
        return Err("ERR wrong number of arguments".to_owned());
    };
    if sharded {
        cluster.check_channels(connection, &[channel.to_vec()], true)?;
    }
    // The connection itself is not among the others, and hears it behind the reply.
    let mut count = 0;
    for parts in connection.subscriptions.heard(sharded, channel, text) {
        write_push(&mut connection.heard, connection.protocol, &parts);
        count += 1;
    }
    count += cluster.tell(connection.node, sharded, channel, text);
    integer(count)
}

impl Cluster {
    /// Whether this node takes these sharded channels: it is of the shard that has their slot.
    /// A slot that is half moved is its old owner's, and a cluster that is down takes them too
    /// (`cluster-allow-pubsubshard-when-down`).
    fn check_channels(
        &mut self,
        connection: &Connection,
        names: &[Vec<u8>],
        begin: bool,
    ) -> Result<(), String> {
        let Some(slot) = names.first().map(|name| Slot::of_key(name)) else {
            return Ok(());
        };
        if names.iter().any(|name| Slot::of_key(name) != slot) {
            return Err("CROSSSLOT Keys in request don't hash to the same slot".to_owned());
        }
        // Who is sent away when it ends a subscription has none: that is never made up.
        if begin {
            self.misdirect(connection.node, slot)?;
        }
        let here = self.nodes.get(connection.node).map(|node| node.shard);
        let owner = self.owner(slot);
        if here == owner {
            return Ok(());
        }
        let owner = owner.and_then(|shard| self.nodes.get(self.primary(shard)?));
        let owner = owner.ok_or("CLUSTERDOWN Hash slot not served")?;
        Err(format!("MOVED {} {}", slot.get(), owner.addr))
    }

    /// All nodes tell their subscribers; those of the shard, when it is sharded. Returns how many
    /// at this node were told.
    fn tell(&mut self, here: NodeIndex, sharded: bool, channel: &[u8], text: &[u8]) -> usize {
        let shard = self.nodes.get(here).map(|node| node.shard);
        let alone = !self.is_whole(here);
        let mut count = 0;
        for connection in self.connections.values_mut() {
            let Some(node) = self.nodes.get(connection.node) else {
                continue;
            };
            let reached = connection.node == here || !alone && node.cut_off.is_none();
            let awake = node.alive && !node.frozen;
            let is_told = awake && reached && (!sharded || Some(node.shard) == shard);
            if !is_told {
                continue;
            }
            for parts in connection.subscriptions.heard(sharded, channel, text) {
                let mut push = Vec::new();
                write_push(&mut push, connection.protocol, &parts);
                let due = self.now + connection.latency;
                connection.output.push_back((due, push));
                count += usize::from(connection.node == here);
            }
        }
        count
    }

    /// A slot belongs to another shard: nodes end the subscriptions to its sharded channels.
    pub(crate) fn end_subscriptions(&mut self, slot: Slot) {
        let owner = self.owner(slot);
        for connection in self.connections.values_mut() {
            let shard = self.nodes.get(connection.node).map(|node| node.shard);
            if shard == owner {
                continue;
            }
            let shards = connection.subscriptions.shards.iter();
            let over = shards.filter(|name| Slot::of_key(name) == slot);
            for name in over.cloned().collect::<Vec<_>>() {
                connection.subscriptions.shards.remove(&name);
                let mut push = Vec::new();
                let about = Subscription {
                    kind: TopicKind::Shard,
                    begin: false,
                };
                confirm(connection, about, Some(&name), &mut push);
                let due = self.now + connection.latency;
                connection.output.push_back((due, push));
            }
        }
    }
}
