//! `BLPOP` and `BRPOP`: connections that wait until there is something in a list.

use std::time::Duration;

use command::{Command, CommandTable};
use resp::{OwnedRequest, Request, Value};

use crate::{
    cluster::Cluster,
    commands::{Outcome, args},
    execute::keys_of,
    node::Connection,
};

const UNBLOCKED: &str = "UNBLOCKED force unblock from blocking operation, instance state changed \
                         (master -> replica?)";

/// What a connection waits with.
#[derive(Debug)]
pub(crate) struct Blocked {
    request: OwnedRequest,
    until: Option<Duration>,
}

/// Runs a command that may block. Where it does, the connection says so, and there is no reply yet.
pub(crate) fn run(
    cluster: &mut Cluster,
    connection: &mut Connection,
    command: &Command,
    request: Request<'_>,
) -> Option<Outcome> {
    let pop = match command.name() {
        "blpop" => "LPOP",
        "brpop" => "RPOP",
        _ => return None,
    };
    for key in keys_of(command, request) {
        match pop_from(cluster, connection, pop, key) {
            Ok(Value::Null | Value::NullBulk) => {}
            Ok(value) => return Some(Ok(Value::Array(vec![Value::bulk(key), value]))),
            Err(error) => return Some(Err(error)),
        }
    }
    let timeout = args::float(request.arg(request.argc() - 1)?);
    let Some(timeout) = timeout.filter(|seconds| (0.0..1e9).contains(seconds)) else {
        return Some(Err("ERR timeout is not a float or out of range".to_owned()));
    };
    let until = (timeout > 0.0).then(|| cluster.now + Duration::from_secs_f64(timeout));
    let request = request.to_owned_request();
    connection.blocked = Some(Blocked { request, until });
    Some(Ok(Value::NullArray))
}

fn pop_from(cluster: &mut Cluster, connection: &mut Connection, pop: &str, key: &[u8]) -> Outcome {
    let request = OwnedRequest::from_args([pop.as_bytes(), key]);
    let command = CommandTable::builtin().lookup(request.as_request());
    let command = command.map_err(|error| String::from_utf8_lossy(error.text()).into_owned())?;
    cluster.run(connection, command, request.as_request())
}

impl Cluster {
    /// Connections that wait get what has come for them, longest connected first.
    pub(crate) fn serve_blocked(&mut self) {
        loop {
            let waiting = |(id, connection): (&u64, &Connection)| {
                let node = self.nodes.get(connection.node)?;
                let awake = node.alive && !node.frozen;
                (awake && connection.blocked.is_some()).then_some(*id)
            };
            let waiting: Vec<u64> = self.connections.iter().filter_map(waiting).collect();
            let served = waiting.into_iter().filter(|id| self.serve(*id));
            let served: Vec<u64> = served.collect();
            if served.is_empty() {
                return;
            }
            for id in served {
                self.run_requests(id);
            }
        }
    }

    /// Returns whether the connection waits no more.
    fn serve(&mut self, id: u64) -> bool {
        let Some(mut connection) = self.connections.remove(&id) else {
            return false;
        };
        let Some(blocked) = connection.blocked.take() else {
            self.connections.insert(id, connection);
            return false;
        };
        let mut outcome = self.serve_request(&mut connection, &blocked);
        if connection.blocked.is_some() {
            let over = blocked.until.is_some_and(|until| until <= self.now);
            connection.blocked = (!over).then_some(blocked);
            outcome = Ok(Value::NullArray);
        }
        let served = connection.blocked.is_none();
        if served {
            let mut reply = Vec::new();
            match outcome {
                Ok(value) => value.encode(connection.protocol, &mut reply),
                Err(error) => resp::write::error(&mut reply, error.as_bytes()),
            }
            let due = self.now + connection.latency;
            connection.output.push_back((due, reply));
        }
        self.connections.insert(id, connection);
        served
    }

    fn serve_request(&mut self, connection: &mut Connection, blocked: &Blocked) -> Outcome {
        if self.has_lost_cluster(connection.node) {
            return Err("CLUSTERDOWN The cluster is down".to_owned());
        }
        if !self.is_primary(connection.node) {
            return Err(UNBLOCKED.to_owned());
        }
        let request = blocked.request.as_request();
        let command = CommandTable::builtin().lookup(request);
        let command =
            command.map_err(|error| String::from_utf8_lossy(error.text()).into_owned())?;
        self.still_here(connection, &keys_of(command, request))?;
        run(self, connection, command, request).unwrap_or(Ok(Value::NullArray))
    }

    /// Who waits for a slot that has left is sent after it.
    fn still_here(&self, connection: &Connection, keys: &[&[u8]]) -> Result<(), String> {
        let Some(slot) = keys.first().map(|key| topology::Slot::of_key(key)) else {
            return Ok(());
        };
        let owner = self.owner(slot).and_then(|shard| self.primary(shard));
        let here = self.nodes.get(connection.node);
        let imports = here.is_some_and(|node| node.importing.contains_key(&slot.get()));
        match owner.and_then(|owner| self.nodes.get(owner)) {
            Some(to) if owner != Some(connection.node) && !imports => {
                Err(format!("MOVED {} {}", slot.get(), to.addr))
            }
            _ => Ok(()),
        }
    }
}
