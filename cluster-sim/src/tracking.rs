//! `CLIENT TRACKING ON BCAST`: connections that are told of every key that is set or removed.
//!
//! As a node does it at the end of a turn of its loop: behind the replies of the turn, its own
//! connection's too. A key that only gets another expiry is not told of, unlike on a server.

use resp::{Protocol, Request};

use crate::{cluster::Cluster, commands::Outcome, node::Connection};

/// Runs `CLIENT TRACKING`: `OFF`, or `ON BCAST` with the prefixes of keys.
pub(crate) fn run(connection: &mut Connection, request: Request<'_>) -> Outcome {
    let words: Vec<&[u8]> = request.args().skip(2).collect();
    let is = |at: usize, word: &[u8]| words.get(at).is_some_and(|w| w.eq_ignore_ascii_case(word));
    if is(0, b"off") && words.len() == 1 {
        connection.tracked.clear();
    } else if is(0, b"on") && is(1, b"bcast") && connection.protocol == Protocol::Resp3 {
        let prefixes = words.get(2..).unwrap_or_default().chunks(2);
        for pair in prefixes {
            match pair {
                [word, prefix] if word.eq_ignore_ascii_case(b"prefix") => {
                    connection.tracked.push(prefix.to_vec());
                }
                _ => return Err("ERR syntax error".to_owned()),
            }
        }
    } else {
        return Err("ERR only RESP3 connections, and only BCAST, are simulated".to_owned());
    }
    Ok(resp::Value::Simple("OK".into()))
}

impl Cluster {
    /// Tells connections of the keys that have changed on their nodes.
    pub(crate) fn tell_changes(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let Some(changes) = node.store.take_changes() else {
                continue;
            };
            let here = |connection: &&mut Connection| {
                connection.node == index && !connection.tracked.is_empty()
            };
            for connection in self.connections.values_mut().filter(here) {
                let mut push = b">2\r\n$10\r\ninvalidate\r\n".to_vec();
                if changes.all {
                    push.extend_from_slice(b"_\r\n");
                } else {
                    let tracked = |key: &&Vec<u8>| {
                        let mut prefixes = connection.tracked.iter();
                        prefixes.any(|prefix| key.starts_with(prefix))
                    };
                    let keys: Vec<&Vec<u8>> = changes.keys.iter().filter(tracked).collect();
                    if keys.is_empty() {
                        continue;
                    }
                    resp::write::request(&mut push, &keys);
                }
                let due = self.now + connection.latency;
                connection.output.push_back((due, push));
            }
        }
    }
}
