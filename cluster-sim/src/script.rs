//! Scripts, as far as they are a row of calls: `redis.call('NAME', KEYS[1], ARGV[1], 'text')`, each
//! perhaps behind `return`, and `return redis.error_reply(ARGV[1])`. Anything else of Lua is refused.

use std::fmt::Write;

use command::{Command, CommandTable};
use resp::{OwnedRequest, Request, Value};
use sha1::{Digest, Sha1};

use crate::{cluster::Cluster, commands::Outcome, node::Connection};

const NOSCRIPT: &str = "NOSCRIPT No matching script.";

/// Handles the commands about scripts; `None`: it is another one.
pub(crate) fn run(
    cluster: &mut Cluster,
    connection: &mut Connection,
    command: &Command,
    request: Request<'_>,
) -> Option<Outcome> {
    let arg = |at| String::from_utf8_lossy(request.arg(at).unwrap_or_default()).into_owned();
    let scripts = &mut cluster.nodes.get_mut(connection.node)?.scripts;
    let body = match command.name() {
        "script|load" => {
            let digest = digest(&arg(2));
            scripts.insert(digest.clone(), arg(2));
            return Some(Ok(Value::bulk(digest)));
        }
        "script|exists" => {
            let known = |name: &[u8]| {
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                Value::Integer(scripts.contains_key(&name).into())
            };
            return Some(Ok(Value::Array(
                request.args().skip(2).map(known).collect(),
            )));
        }
        "script|flush" => {
            scripts.clear();
            return Some(Ok(Value::Simple("OK".into())));
        }
        "eval" => {
            scripts.insert(digest(&arg(1)), arg(1));
            arg(1)
        }
        "evalsha" => match scripts.get(&arg(1).to_ascii_lowercase()) {
            Some(body) => body.clone(),
            None => return Some(Err(NOSCRIPT.to_owned())),
        },
        _ => return None,
    };
    let args: Vec<&[u8]> = request.args().skip(3).collect();
    let keys = arg(2).parse().unwrap_or_default();
    let (keys, args) = args.split_at_checked(keys)?;
    Some(execute(cluster, connection, &body, keys, args))
}

fn digest(body: &str) -> String {
    let mut hex = String::new();
    for byte in Sha1::digest(body.as_bytes()) {
        let _ = write!(hex, "{byte:02x}"); // a string takes everything
    }
    hex
}

fn execute(
    cluster: &mut Cluster,
    connection: &mut Connection,
    body: &str,
    keys: &[&[u8]],
    args: &[&[u8]],
) -> Outcome {
    let statements = body.split([';', '\n']).map(str::trim);
    for statement in statements.filter(|statement| !statement.is_empty()) {
        let (returns, call) = match statement.strip_prefix("return ") {
            Some(call) => (true, call.trim()),
            None => (false, statement),
        };
        let inside = |name: &str| call.strip_prefix(name)?.strip_suffix(')');
        let reply = if let Some(list) = inside("redis.call(") {
            let values = values(list, keys, args)?;
            let request = OwnedRequest::from_args(&values);
            let command = CommandTable::builtin().lookup(request.as_request());
            let command =
                command.map_err(|error| String::from_utf8_lossy(error.text()).into_owned())?;
            cluster.run(connection, command, request.as_request())?
        } else if let Some(list) = inside("redis.error_reply(") {
            let text = values(list, keys, args)?.pop().unwrap_or_default();
            return Err(String::from_utf8_lossy(&text).into_owned());
        } else {
            return Err(format!("ERR the simulator cannot run `{statement}`"));
        };
        if returns {
            return Ok(reply);
        }
    }
    Ok(Value::Null)
}

/// The values of a call's arguments.
fn values(list: &str, keys: &[&[u8]], args: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
    let numbered = |text: &str, name: &str, from: &[&[u8]]| {
        let at: usize = text.strip_prefix(name)?.strip_suffix(']')?.parse().ok()?;
        from.get(at.checked_sub(1)?).map(|value| value.to_vec())
    };
    let value = |text: &str| {
        let literal = text
            .strip_prefix('\'')
            .and_then(|rest| rest.strip_suffix('\''));
        let literal = literal.map(|literal| literal.as_bytes().to_vec());
        literal
            .or_else(|| numbered(text, "KEYS[", keys))
            .or_else(|| numbered(text, "ARGV[", args))
            .ok_or_else(|| format!("ERR the simulator cannot read `{text}`"))
    };
    list.split(',').map(|text| value(text.trim())).collect()
}
