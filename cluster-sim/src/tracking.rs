//! `CLIENT TRACKING`: connections that are told of keys that change, in either of the server's two ways.
//!
//! Without `BCAST` a connection is told of what it has read itself, of each key once until it reads it
//! again, at once and key by key. With `BCAST` it is told of every key that begins so, at the end of a
//! turn of the node's loop: behind the replies of the turn, its own connection's too. As captured from
//! valkey-server 9.1 (`tests/tests/tracking.rs` holds both against each other). `OPTIN`, `OPTOUT`,
//! `NOLOOP` and `REDIRECT` are not simulated.

use std::collections::{BTreeMap, BTreeSet};

use command::Command;
use resp::{Protocol, Request, Value};

use crate::{
    cluster::Cluster,
    commands::Outcome,
    execute::keys_of,
    node::{Connection, NodeIndex},
};

const MODE: &str = "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.";
const SYNTAX: &str = "ERR syntax error";
/// What all news begins with.
const NEWS: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// What a connection is told of.
#[derive(Debug, Default)]
pub(crate) enum Tracking {
    #[default]
    Off,
    /// Changes to keys that begin like one of these.
    Prefixes(Vec<Vec<u8>>),
    /// The next change to each of these keys: those that it has read.
    Read(BTreeSet<Vec<u8>>),
}

impl Tracking {
    fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// A command on a connection has read.
    pub(crate) fn reads(&mut self, command: &Command, request: Request<'_>) {
        if let Self::Read(known) = self
            && command.is_readonly()
        {
            known.extend(keys_of(command, request).into_iter().map(<[u8]>::to_vec));
        }
    }

    /// What it is to be told of these keys, in the order in which they changed.
    fn news_of_read(&mut self, keys: &[Vec<u8>]) -> Vec<u8> {
        let Self::Read(known) = self else {
            return Vec::new();
        };
        let mut news = Vec::new();
        for key in keys.iter().filter(|key| known.remove(*key)) {
            news.extend_from_slice(NEWS);
            resp::write::request(&mut news, &[key]);
        }
        news
    }

    fn news_of_prefixes(&self, keys: &BTreeSet<Vec<u8>>) -> Vec<u8> {
        let Self::Prefixes(prefixes) = self else {
            return Vec::new();
        };
        let tracked = |key: &&Vec<u8>| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let keys: Vec<&Vec<u8>> = keys.iter().filter(tracked).collect();
        if keys.is_empty() {
            return Vec::new();
        }
        let mut news = NEWS.to_vec();
        resp::write::request(&mut news, &keys);
        news
    }
}

/// Runs `CLIENT TRACKING`: `OFF`, `ON`, or `ON BCAST` with the prefixes of keys.
pub(crate) fn run(connection: &mut Connection, request: Request<'_>) -> Outcome {
    let words: Vec<&[u8]> = request.args().skip(2).collect();
    let is = |at: usize, word: &[u8]| words.get(at).is_some_and(|w| w.eq_ignore_ascii_case(word));
    if is(0, b"off") && words.len() == 1 {
        connection.tracking = Tracking::Off;
        return Ok(Value::Simple("OK".into()));
    }
    if !is(0, b"on") {
        return Err(SYNTAX.to_owned());
    }
    if connection.protocol != Protocol::Resp3 {
        return Err("ERR only RESP3 connections are simulated".to_owned());
    }
    let broadcast = (1..words.len()).any(|at| is(at, b"bcast"));
    let mut prefixes = Vec::new();
    let mut options = words.get(1..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match rest {
            [prefix, rest @ ..] if option.eq_ignore_ascii_case(b"prefix") => {
                prefixes.push(prefix.to_vec());
                rest
            }
            _ if option.eq_ignore_ascii_case(b"bcast") => rest,
            _ => return Err(SYNTAX.to_owned()),
        };
    }
    match (&mut connection.tracking, broadcast) {
        (Tracking::Read(_), true) | (Tracking::Prefixes(_), false) => return Err(MODE.to_owned()),
        (_, false) if !prefixes.is_empty() => {
            return Err("ERR PREFIX option requires BCAST mode to be enabled".to_owned());
        }
        (Tracking::Prefixes(known), true) => known.extend(prefixes),
        (tracking @ Tracking::Off, true) => {
            if prefixes.is_empty() {
                prefixes.push(Vec::new()); // every key
            }
            *tracking = Tracking::Prefixes(prefixes);
        }
        (Tracking::Read(_), false) => {}
        (tracking @ Tracking::Off, false) => *tracking = Tracking::Read(BTreeSet::new()),
    }
    Ok(Value::Simple("OK".into()))
}

impl Cluster {
    /// Tells connections of the keys that they have read and that have changed since, and everybody
    /// of all keys. `running` is a connection that runs a command just now: it hears behind the reply.
    pub(crate) fn tell_readers(&mut self, mut running: Option<&mut Connection>) {
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(index) else {
                continue;
            };
            let Some(changes) = node.store.take_unsaid() else {
                continue;
            };
            let now = self.now;
            let news_for = |connection: &mut Connection| {
                if changes.all && connection.tracking.is_on() {
                    if let Tracking::Read(known) = &mut connection.tracking {
                        known.clear();
                    }
                    return [NEWS, b"_\r\n"].concat();
                }
                connection.tracking.news_of_read(&changes.keys)
            };
            for connection in here(&mut self.connections, index) {
                let news = news_for(connection);
                if !news.is_empty() {
                    let due = now + connection.latency;
                    connection.output.push_back((due, news));
                }
            }
            if let Some(running) = running.as_deref_mut().filter(|c| c.node == index) {
                let news = news_for(running);
                running.heard.extend_from_slice(&news);
            }
        }
    }

    /// A turn of the nodes' loops ends.
    pub(crate) fn tell_changes(&mut self) {
        self.tell_readers(None);
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let changed = node.store.take_changed();
            if changed.is_empty() {
                continue;
            }
            for connection in here(&mut self.connections, index) {
                let news = connection.tracking.news_of_prefixes(&changed);
                if !news.is_empty() {
                    let due = self.now + connection.latency;
                    connection.output.push_back((due, news));
                }
            }
        }
    }
}

/// A node's connections.
fn here(
    connections: &mut BTreeMap<u64, Connection>,
    node: NodeIndex,
) -> impl Iterator<Item = &mut Connection> {
    connections.values_mut().filter(move |c| c.node == node)
}
