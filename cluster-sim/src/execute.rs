//! From bytes on a connection to replies: who may run what where.

use std::time::Duration;

use command::{Command, CommandTable, KeyRefs, introspect};
use resp::{OwnedRequest, Protocol, Request, Value};
use topology::Slot;

use crate::{
    blocking,
    cluster::{Cluster, Ran},
    commands::{self, Call, Outcome},
    connection, introspection,
    node::{Connection, ConnectionId, NodeIndex},
    pubsub, script, transaction,
};

const TRYAGAIN: &str = "TRYAGAIN Multiple keys request during rehashing of slot";
const CROSSSLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

impl Cluster {
    /// Bytes came from a client. What the node answers is taken with [`Cluster::output`].
    pub fn received(&mut self, connection: ConnectionId, bytes: &[u8], now: Duration) {
        self.tick(now);
        if let Some(connection) = self.connections.get_mut(&connection.0) {
            connection.input.extend_from_slice(bytes);
        }
        self.work(connection.0);
    }

    /// Runs every whole request of a connection, and what others have waited for.
    pub(crate) fn work(&mut self, id: u64) {
        self.run_requests(id);
        self.serve_blocked();
        self.tell_changes();
    }

    pub(crate) fn run_requests(&mut self, id: u64) {
        self.tell_readers(None);
        // The connection is out of the map while its requests change the cluster.
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        let awake = |cluster: &Self, node: NodeIndex| {
            cluster
                .nodes
                .get(node)
                .is_some_and(|node| node.alive && !node.frozen)
        };
        let input = std::mem::take(&mut connection.input);
        let mut used = 0;
        let mut replies = Vec::new();
        while awake(self, connection.node) && !connection.closing && connection.blocked.is_none() {
            let rest = input.get(used..).unwrap_or_default();
            match connection.decoder.decode(rest) {
                Ok(None) => break,
                Ok(Some(len)) => {
                    if !connection.decoder.is_empty() {
                        let frame = rest.get(..len).unwrap_or_default();
                        let bytes = connection.decoder.request(frame).bytes().to_vec();
                        connection.decoder.next();
                        if let Ok(request) = OwnedRequest::parse(bytes) {
                            self.answer(&mut connection, request.as_request(), &mut replies);
                        }
                    } else {
                        connection.decoder.next();
                    }
                    used += len;
                }
                Err(error) => {
                    if let Some(text) = error.reply() {
                        resp::write::error(&mut replies, text.as_bytes());
                    }
                    connection.closing = true;
                }
            }
        }
        connection.input = input.get(used..).unwrap_or_default().to_vec();
        if !replies.is_empty() {
            connection
                .output
                .push_back((self.now + connection.latency, replies));
        }
        self.connections.insert(id, connection);
    }

    fn answer(&mut self, connection: &mut Connection, request: Request<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let reply = self.execute(connection, request, out);
        match reply {
            Ok(Some(_)) if connection.blocked.is_some() => {} // when there is something
            Ok(Some(value)) => value.encode(connection.protocol, out),
            Ok(None) => {} // written already
            Err(error) => resp::write::error(out, error.as_bytes()),
        }
        if let Some(node) = self
            .nodes
            .get_mut(connection.node)
            .filter(|node| node.swallow > 0)
        {
            node.swallow -= 1;
            out.truncate(start);
        }
        self.tell_readers(Some(connection));
        out.append(&mut connection.heard);
    }

    fn execute(
        &mut self,
        connection: &mut Connection,
        request: Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Value>, String> {
        let open = ["auth", "hello", "quit", "reset"];
        let name = request.name();
        if !connection.authenticated
            && !open.iter().any(|o| name.eq_ignore_ascii_case(o.as_bytes()))
        {
            return Err("NOAUTH Authentication required.".to_owned());
        }
        let table = CommandTable::builtin();
        let command = table.lookup(request);
        let command = command.map_err(|error| {
            connection.transaction.failed = true; // `MULTI` and `EXEC` start afresh
            String::from_utf8_lossy(error.text()).into_owned()
        })?;
        if command.name() == "command" || command.name().starts_with("command|") {
            introspect::reply(table, request, connection.protocol, out);
            return Ok(None);
        }
        let node = self
            .nodes
            .get_mut(connection.node)
            .ok_or("ERR no such node")?;
        if let Some(error) = node.answers.pop_front() {
            return Err(error);
        }
        let asking = connection.asking;
        if !connection.transaction.open
            && let Some(done) = pubsub::run(self, connection, command, request, out)
        {
            return done.map(|()| None);
        }
        let outcome = transaction::run(self, connection, command, request, asking)
            .or_else(|| self.about(connection, command, request))
            .unwrap_or_else(|| {
                self.check_loaded(connection.node)?;
                self.check_place(connection, command, request, asking)?;
                script::run(self, connection, command, request)
                    .or_else(|| blocking::run(self, connection, command, request))
                    .unwrap_or_else(|| self.run(connection, command, request))
            });
        connection.transaction.failed |= outcome.is_err();
        // `ASKING` holds for one command, or for one transaction.
        if !connection.transaction.open && command.name() != "asking" {
            connection.asking = false;
        }
        outcome.map(Some)
    }

    /// Runs a command whose place has been checked.
    pub(crate) fn perform(
        &mut self,
        connection: &mut Connection,
        command: &Command,
        request: Request<'_>,
    ) -> Outcome {
        self.about(connection, command, request)
            .unwrap_or_else(|| self.run(connection, command, request))
    }

    /// Commands about the connection, the node or the cluster, rather than its keys.
    fn about(
        &mut self,
        connection: &mut Connection,
        command: &Command,
        request: Request<'_>,
    ) -> Option<Outcome> {
        connection::run(self, connection, command.name(), request)
            .or_else(|| introspection::run(self, connection, command.name(), request))
    }

    fn check_loaded(&self, node: NodeIndex) -> Result<(), String> {
        let node = self.nodes.get(node);
        if node.is_some_and(|node| node.loading_until.is_some()) {
            return Err("LOADING Valkey is loading the dataset in memory".to_owned());
        }
        Ok(())
    }

    /// Whether this node may run the command, as `getNodeByQuery` of the server decides.
    pub(crate) fn check_place(
        &mut self,
        connection: &Connection,
        command: &Command,
        request: Request<'_>,
        asking: bool,
    ) -> Result<(), String> {
        let keys = keys_of(command, request);
        if keys.is_empty() && command.is_write() && !self.is_primary(connection.node) {
            return Err("READONLY You can't write against a read only replica.".to_owned());
        }
        self.check_keys(connection, &keys, command.is_readonly(), asking)
    }

    /// Whether this node may serve these keys.
    pub(crate) fn check_keys(
        &mut self,
        connection: &Connection,
        keys: &[&[u8]],
        only_reads: bool,
        asking: bool,
    ) -> Result<(), String> {
        let here = connection.node;
        let Some(first) = keys.first() else {
            return Ok(());
        };
        let slot = Slot::of_key(first);
        if keys.iter().any(|key| Slot::of_key(key) != slot) {
            return Err(CROSSSLOT.to_owned());
        }
        if self.now < self.down_until || self.has_lost_cluster(here) {
            return Err("CLUSTERDOWN The cluster is down".to_owned());
        }
        self.misdirect(here, slot)?;
        let owner = self.owner(slot).and_then(|shard| self.primary(shard));
        let owner = owner.ok_or("CLUSTERDOWN Hash slot not served")?;
        let now = self.unix_ms();
        let shown = |cluster: &Self, node: NodeIndex| {
            cluster
                .nodes
                .get(node)
                .map(|node| node.addr.to_string())
                .unwrap_or_default()
        };
        let moved = Err(format!("MOVED {} {}", slot.get(), shown(self, owner)));
        let Some(node) = self.nodes.get_mut(here) else {
            return moved;
        };
        // What has moved is looked for when a transaction runs, not while it is queued.
        let missing = if connection.transaction.open {
            0
        } else {
            let missing = keys.iter().filter(|key| !node.store.exists(key, now));
            missing.count()
        };
        if here == owner {
            return match node.migrating.get(&slot.get()).copied() {
                Some(target) if missing == keys.len() => {
                    Err(format!("ASK {} {}", slot.get(), shown(self, target)))
                }
                Some(_) if missing > 0 => Err(TRYAGAIN.to_owned()),
                _ => Ok(()),
            };
        }
        if node.importing.contains_key(&slot.get()) && asking {
            let torn = keys.len() > 1 && missing > 0;
            return if torn {
                Err(TRYAGAIN.to_owned())
            } else {
                Ok(())
            };
        }
        let (follows, down) = (node.shard, node.master_down);
        if self.owner(slot) == Some(follows) && connection.readonly && only_reads {
            if down {
                return Err("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.".to_owned());
            }
            // The replica has heard where the primary is moving the slot to.
            let leaving = self.nodes.get(owner);
            let target = leaving.and_then(|owner| owner.migrating.get(&slot.get()).copied());
            return match target {
                Some(target) if missing > 0 => {
                    Err(format!("ASK {} {}", slot.get(), shown(self, target)))
                }
                _ => Ok(()),
            };
        }
        moved
    }

    /// What the node was told to say instead of the truth.
    pub(crate) fn misdirect(&mut self, here: NodeIndex, slot: Slot) -> Result<(), String> {
        let node = self.nodes.get_mut(here);
        match node.and_then(|node| node.misdirections.pop_front()) {
            Some((true, to)) => Err(format!("ASK {} {to}", slot.get())),
            Some((false, to)) => Err(format!("MOVED {} {to}", slot.get())),
            None => Ok(()),
        }
    }

    pub(crate) fn run(
        &mut self,
        connection: &mut Connection,
        command: &Command,
        request: Request<'_>,
    ) -> Outcome {
        let (here, protocol) = (connection.node, connection.protocol);
        let now = self.unix_ms();
        let args: Vec<&[u8]> = request.args().collect();
        let node = self.nodes.get_mut(here).ok_or("ERR no such node")?;
        let resp3 = protocol == Protocol::Resp3;
        connection.tracking.reads(command, request);
        let unsaid = node.store.unsaid();
        let mut call = Call {
            store: &mut node.store,
            args: &args,
            now,
            resp3,
        };
        let Some(outcome) = commands::run(command.name(), &mut call) else {
            return Err(unknown(request));
        };
        let value = outcome?;
        let keys = keys_of(command, request);
        if command.is_write() && node.store.unsaid() == unsaid {
            // It has changed what is there in its place.
            keys.iter().for_each(|key| node.store.note_changed(key));
        }
        if let Some(journal) = &mut self.journal {
            journal.push(Ran {
                user: connection.user.clone(),
                database: connection.database,
                args: args.iter().map(|arg| arg.to_vec()).collect(),
            });
        }
        if command.is_write() && self.is_primary(here) {
            self.log(here, args.iter().map(|arg| arg.to_vec()).collect());
            connection.transaction.touch(&keys);
            self.touch(here, &keys);
        }
        Ok(value)
    }
}

/// The command's keys; none where its arguments are wrong, which it will say itself.
pub(crate) fn keys_of<'a>(command: &Command, request: Request<'a>) -> Vec<&'a [u8]> {
    let mut refs = KeyRefs::new();
    if command.keys(request, &mut refs).is_err() {
        return Vec::new();
    }
    refs.iter()
        .filter_map(|key| request.arg(key.index()))
        .collect()
}

/// What the simulator does not know, it has never heard of.
pub(crate) fn unknown(request: Request<'_>) -> String {
    let name = String::from_utf8_lossy(request.name()).into_owned();
    let args = request
        .args()
        .skip(1)
        .map(|arg| format!("'{}' ", String::from_utf8_lossy(arg)));
    format!(
        "ERR unknown command '{name}', with args beginning with: {}",
        args.collect::<String>()
    )
}
