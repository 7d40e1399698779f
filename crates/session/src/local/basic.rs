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

/// `SELECT database`. There is one, as in a cluster by default: 9.x can be configured to more,
/// which the proxy does not offer.
pub(super) fn select(request: Request<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    let database = integer(request.arg(1).unwrap_or_default());
    match database {
        Some(0) => write::simple(out, "OK"),
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

/// `ROLE`: a primary. Its replicas are the cluster's, and none of the client's.
pub(super) fn role(out: &mut Vec<u8>) {
    write::array(out, 3);
    write::bulk(out, "master");
    write::integer(out, 0);
    write::array(out, 0);
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
