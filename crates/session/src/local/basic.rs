//! `PING`, `ECHO`, `SELECT`, `QUIT`, `RESET`, `READONLY` and `READWRITE`.

use resp::{Request, write};

use super::{Context, Outcome, number::integer};
use crate::state::Session;

/// `PING [message]`.
pub(super) fn ping(request: Request<'_>, out: &mut Vec<u8>) {
    match (request.arg(1), request.argc()) {
        (None, _) => write::simple(out, "PONG"),
        (Some(message), 2) => write::bulk(out, message),
        // More arguments than the table's arity forbids.
        _ => write::error(out, "ERR wrong number of arguments for 'ping' command"),
    }
}

/// `ECHO message`, of any bytes.
pub(super) fn echo(request: Request<'_>, out: &mut Vec<u8>) {
    write::bulk(out, request.arg(1).unwrap_or_default());
}

/// `SELECT database`: one of those that the cluster has, which is 1 unless it is configured to more
/// (`cluster-databases` of 9.x).
pub(super) fn select(
    request: Request<'_>,
    session: &mut Session,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) {
    let number = integer(request.arg(1).unwrap_or_default());
    let known = number.and_then(|number| u32::try_from(number).ok());
    if let Some(database) = known.filter(|known| *known < context.facts.databases.max(1)) {
        session.database = database;
        write::simple(out, "OK");
        return;
    }
    match number {
        None => write::error(out, "ERR value is not an integer or out of range"),
        Some(other) if i32::try_from(other).is_err() => write::error(
            out,
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ),
        Some(_) if context.facts.at_least(9, 0) => {
            write::error(out, "ERR DB index is out of range");
        }
        Some(_) => write::error(out, "ERR SELECT is not allowed in cluster mode"),
    }
}

/// `ROLE`: of the virtual node that the client is connected to. The cluster's own replicas are
/// none of the client's.
pub(super) fn role(context: &Context<'_>, out: &mut Vec<u8>) {
    if context.read_port {
        write::array(out, 5);
        write::bulk(out, "slave");
        write::bulk(out, &context.endpoint.host);
        write::integer(out, context.endpoint.port.into());
        write::bulk(out, "connected");
        write::integer(out, 0);
        return;
    }
    write::array(out, 3);
    write::bulk(out, "master");
    write::integer(out, 0);
    write::array(out, context.replica.iter().len());
    if let Some((endpoint, _)) = context.replica {
        write::array(out, 3);
        write::bulk(out, &endpoint.host);
        write::bulk(out, endpoint.port.to_string());
        write::bulk(out, "0");
    }
}

/// `QUIT`. After a `CLIENT REPLY OFF` Valkey 9.1.2 says nothing and keeps the connection; this
/// says nothing and closes it, which is what the client asked for.
pub(super) fn quit(out: &mut Vec<u8>) -> Outcome {
    write::simple(out, "OK");
    Outcome::Close
}

/// `RESET`, also without having authenticated.
pub(super) fn reset(session: &mut Session, out: &mut Vec<u8>) {
    session.reset();
    write::simple(out, "RESET");
}

/// `READONLY` and `READWRITE`.
pub(super) fn readonly(on: bool, session: &mut Session, out: &mut Vec<u8>) {
    session.readonly = on;
    write::simple(out, "OK");
}
