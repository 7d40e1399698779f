//! Commands about the connection itself.

use resp::{Protocol, Request, Value};

use crate::{
    cluster::Cluster,
    commands::{Outcome, args, glob},
    node::Connection,
    pubsub, tracking,
};

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

pub(crate) fn run(
    cluster: &mut Cluster,
    connection: &mut Connection,
    name: &str,
    request: Request<'_>,
) -> Option<Outcome> {
    let ok = || Ok(Value::Simple("OK".into()));
    Some(match name {
        "ping" => match (request.argc(), request.arg(1)) {
            (1, _) => Ok(Value::Simple("PONG".into())),
            (2, Some(text)) => Ok(Value::bulk(text)),
            _ => Err("ERR wrong number of arguments for 'ping' command".to_owned()),
        },
        "echo" => Ok(Value::bulk(request.arg(1).unwrap_or_default())),
        "hello" => hello(cluster, connection, request),
        "auth" => auth(cluster, connection, request),
        "quit" => {
            connection.closing = true;
            ok()
        }
        "reset" => {
            let open = cluster.layout.default_password.is_none();
            *connection = Connection {
                input: std::mem::take(&mut connection.input),
                output: std::mem::take(&mut connection.output),
                ..Connection::new(connection.id, connection.node, open, connection.latency)
            };
            Ok(Value::Simple("RESET".into()))
        }
        "select" => match args::integer(request.arg(1).unwrap_or_default()) {
            Some(0) => ok(),
            Some(_) => Err("ERR DB index is out of range".to_owned()),
            None => Err(args::NOT_AN_INTEGER.to_owned()),
        },
        "asking" => {
            connection.asking = true;
            ok()
        }
        "readonly" | "readwrite" => {
            connection.readonly = name == "readonly";
            ok()
        }
        name if name.starts_with("client|") => return client(connection, name, request),
        "config|get" => Ok(config(request)),
        "time" => {
            let ms = cluster.unix_ms();
            let parts = [(ms / 1000).to_string(), (ms % 1000 * 1000).to_string()];
            Ok(Value::Array(parts.iter().map(Value::bulk).collect()))
        }
        "publish" | "spublish" => pubsub::publish(cluster, connection, name == "spublish", request),
        "wait" => {
            let shard = cluster.nodes.get(connection.node).map(|node| node.shard);
            let replicas = shard.map_or(0, |shard| cluster.replicas(shard).len());
            Ok(Value::Integer(i64::try_from(replicas).unwrap_or(i64::MAX)))
        }
        _ => return None,
    })
}

fn client(connection: &mut Connection, name: &str, request: Request<'_>) -> Option<Outcome> {
    let ok = || Ok(Value::Simple("OK".into()));
    Some(match name {
        "client|id" => Ok(Value::Integer(
            i64::try_from(connection.id).unwrap_or(i64::MAX),
        )),
        "client|setname" => {
            let name = request.arg(2).unwrap_or_default();
            if name.iter().all(u8::is_ascii_graphic) {
                connection.name = name.to_vec();
                ok()
            } else {
                Err(
                    "ERR Client names cannot contain spaces, newlines or special characters."
                        .to_owned(),
                )
            }
        }
        "client|getname" if connection.name.is_empty() => Ok(Value::Null),
        "client|getname" => Ok(Value::bulk(&connection.name)),
        "client|setinfo" => {
            let option = request.arg(2).unwrap_or_default();
            let known = [&b"lib-name"[..], b"lib-ver"];
            if known.iter().any(|known| option.eq_ignore_ascii_case(known)) {
                ok()
            } else {
                let option = String::from_utf8_lossy(option);
                Err(format!("ERR Unrecognized option '{option}'"))
            }
        }
        "client|tracking" => tracking::run(connection, request),
        "client|no-evict" | "client|no-touch" => ok(),
        _ => return None,
    })
}

/// What clients probe for. Everything else has no value.
fn config(request: Request<'_>) -> Value {
    let known = [("appendonly", "no"), ("maxmemory", "0"), ("save", "")];
    let asked = |name: &str| {
        let mut patterns = request.args().skip(2);
        patterns.any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let shown = known.iter().filter(|(name, _)| asked(name));
    Value::Map(
        shown
            .map(|(name, value)| (Value::bulk(name), Value::bulk(value)))
            .collect(),
    )
}

fn is_right(cluster: &Cluster, user: &[u8], password: &[u8]) -> bool {
    if user == b"default" {
        let known = cluster.layout.default_password.as_deref();
        return known.is_none_or(|known| known.as_bytes() == password);
    }
    let mut users = cluster.layout.users.iter();
    users.any(|(name, known)| name.as_bytes() == user && known.as_bytes() == password)
}

fn auth(cluster: &Cluster, connection: &mut Connection, request: Request<'_>) -> Outcome {
    let (user, password) = match (request.argc(), request.arg(1), request.arg(2)) {
        (2, ..) if cluster.layout.default_password.is_none() => {
            return Err("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".to_owned());
        }
        (2, Some(password), _) => (&b"default"[..], password),
        (3, Some(user), Some(password)) => (user, password),
        _ => return Err("ERR syntax error".to_owned()),
    };
    if !is_right(cluster, user, password) {
        return Err(WRONGPASS.to_owned());
    }
    connection.authenticated = true;
    Ok(Value::Simple("OK".into()))
}

fn hello(cluster: &Cluster, connection: &mut Connection, request: Request<'_>) -> Outcome {
    let mut args = request.args().skip(1);
    let protocol = match args.next() {
        None => connection.protocol,
        Some(b"2") => Protocol::Resp2,
        Some(b"3") => Protocol::Resp3,
        Some(other) if other.iter().all(u8::is_ascii_digit) => {
            return Err("NOPROTO unsupported protocol version".to_owned());
        }
        Some(_) => return Err("ERR Protocol version is not an integer or out of range".to_owned()),
    };
    let mut authenticated = connection.authenticated;
    let mut name = None;
    while let Some(option) = args.next() {
        if option.eq_ignore_ascii_case(b"auth")
            && let (Some(user), Some(password)) = (args.next(), args.next())
        {
            if !is_right(cluster, user, password) {
                return Err(WRONGPASS.to_owned());
            }
            authenticated = true;
        } else if option.eq_ignore_ascii_case(b"setname")
            && let Some(given) = args.next()
        {
            name = Some(given.to_vec());
        } else {
            let option = String::from_utf8_lossy(option).into_owned();
            return Err(format!("ERR Syntax error in HELLO option '{option}'"));
        }
    }
    if !authenticated {
        return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time".to_owned());
    }
    connection.authenticated = true;
    connection.protocol = protocol;
    if let Some(name) = name {
        connection.name = name;
    }
    Ok(greeting(cluster, connection))
}

fn greeting(cluster: &Cluster, connection: &Connection) -> Value {
    let role = if cluster.is_primary(connection.node) {
        "master"
    } else {
        "replica"
    };
    let number = if connection.protocol == Protocol::Resp3 {
        3
    } else {
        2
    };
    let id = i64::try_from(connection.id).unwrap_or(i64::MAX);
    let mut pairs = vec![
        ("server", Value::bulk("valkey")),
        ("version", Value::bulk(cluster.layout.version.number())),
        ("proto", Value::Integer(number)),
        ("id", Value::Integer(id)),
        ("mode", Value::bulk("cluster")),
        ("role", Value::bulk(role)),
        ("modules", Value::Array(Vec::new())),
    ];
    let zone = cluster
        .nodes
        .get(connection.node)
        .map(|node| node.zone.clone());
    if let Some(zone) = zone.filter(|zone| !zone.is_empty() && cluster.shows_zones()) {
        pairs.push(("availability_zone", Value::bulk(zone)));
    }
    Value::Map(
        pairs
            .into_iter()
            .map(|(key, value)| (Value::bulk(key), value))
            .collect(),
    )
}
