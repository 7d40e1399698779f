//! `MULTI`, `EXEC`, `WATCH`: a connection's queue of commands, and the keys it keeps an eye on.

use command::{Command, CommandTable};
use resp::{OwnedRequest, Request, Value};

use crate::{
    cluster::Cluster,
    commands::Outcome,
    execute::keys_of,
    node::{Connection, NodeIndex},
};

/// What a connection has under way.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Behind `MULTI`.
    pub(crate) open: bool,
    /// A command could not be queued: `EXEC` will refuse.
    pub(crate) failed: bool,
    queue: Vec<OwnedRequest>,
    watched: Vec<Vec<u8>>,
    /// A watched key was written to.
    touched: bool,
}

/// Handles the commands about transactions; `None`: the command is an ordinary one, to run now.
pub(crate) fn run(
    cluster: &mut Cluster,
    connection: &mut Connection,
    command: &Command,
    request: Request<'_>,
    asking: bool,
) -> Option<Outcome> {
    let ok = || Ok(Value::Simple("OK".into()));
    let name = command.name();
    let open = connection.transaction.open;
    Some(match (name, open) {
        ("multi" | "watch", true) => Err(format!(
            "ERR Command '{name}' not allowed inside a transaction"
        )),
        ("multi", false) => {
            connection.transaction.open = true;
            connection.transaction.failed = false;
            ok()
        }
        ("exec", true) => {
            let transaction = std::mem::take(&mut connection.transaction);
            execute(cluster, connection, &transaction, asking)
        }
        ("discard", true) => {
            connection.transaction = Transaction::default();
            ok()
        }
        ("exec" | "discard", false) => Err(format!("ERR {} without MULTI", name.to_uppercase())),
        ("unwatch", false) => {
            connection.transaction = Transaction::default();
            ok()
        }
        ("watch", false) => {
            let placed = cluster.check_place(connection, command, request, asking);
            placed.map(|()| {
                let keys = request.args().skip(1).map(<[u8]>::to_vec);
                connection.transaction.watched.extend(keys);
                Value::Simple("OK".into())
            })
        }
        ("quit" | "reset", _) => return None,
        (_, true) => {
            let placed = cluster.check_place(connection, command, request, asking);
            placed.map(|()| {
                let request = OwnedRequest::parse(request.bytes().to_vec());
                connection.transaction.queue.extend(request);
                Value::Simple("QUEUED".into())
            })
        }
        (_, false) => return None,
    })
}

fn execute(
    cluster: &mut Cluster,
    connection: &mut Connection,
    transaction: &Transaction,
    asking: bool,
) -> Outcome {
    if transaction.failed {
        return Err("EXECABORT Transaction discarded because of previous errors.".to_owned());
    }
    let table = CommandTable::builtin();
    let queue = transaction.queue.iter().map(OwnedRequest::as_request);
    let queue: Vec<_> = queue
        .filter_map(|request| Some((table.lookup(request).ok()?, request)))
        .collect();
    // All keys count as those of one command, which writes if one of them does.
    let keys: Vec<&[u8]> = queue
        .iter()
        .flat_map(|(command, request)| keys_of(command, *request))
        .collect();
    let writes = queue.iter().any(|(command, _)| command.is_write());
    cluster.check_keys(connection, &keys, !writes, asking)?;
    if transaction.touched {
        return Ok(Value::NullArray);
    }
    let mut replies = Vec::new();
    for (command, request) in queue {
        let reply = cluster.perform(connection, command, request);
        replies.push(reply.unwrap_or_else(|error| Value::Error(error.into())));
    }
    Ok(Value::Array(replies))
}

impl Cluster {
    /// Somebody wrote to these keys of a node: transactions that watch one will not run.
    pub(crate) fn touch(&mut self, node: NodeIndex, keys: &[&[u8]]) {
        let here = self.connections.values_mut().filter(|c| c.node == node);
        for connection in here {
            connection.transaction.touch(keys);
        }
    }
}

impl Transaction {
    /// Somebody wrote to these keys.
    pub(crate) fn touch(&mut self, keys: &[&[u8]]) {
        let watches = |key: &&[u8]| self.watched.iter().any(|watched| watched == key);
        self.touched |= !self.watched.is_empty() && (keys.is_empty() || keys.iter().any(watches));
    }
}
