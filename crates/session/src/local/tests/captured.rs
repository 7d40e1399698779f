//! The same requests that a real server was asked, and its replies.

use std::collections::HashMap;

use command::{CommandTable, Handling};
use resp::{OwnedRequest, write};

use super::{
    Setup, context,
    script::{Step, steps},
};
use crate::{
    local::{Endpoint, Outcome, answer, authenticated, refuse_unauthenticated},
    state::{Session, User},
};

const CAPTURED: &str = include_str!("valkey-9.1.2.txt");

/// The password of the captured server that has one.
const PASSWORD: &[u8] = b"sekret";

#[test]
fn replies_are_those_of_a_server() {
    let mut setup = Setup::new();
    let mut exchanges = 0;
    for step in steps(CAPTURED) {
        match step {
            Step::Server(fields) => server(&mut setup, &fields),
            Step::Connection(fields) => connection(&mut setup, &fields),
            Step::Exchange {
                line,
                request,
                reply,
            } => {
                exchange(&mut setup, line, &request, &reply);
                exchanges += 1;
            }
        }
    }
    assert!(exchanges > 300, "{exchanges}");
}

fn server(setup: &mut Setup, fields: &HashMap<&str, &str>) {
    setup.facts.default_user_open = fields["open"] == "yes";
    setup.endpoint = Endpoint {
        host: fields["host"].into(),
        port: fields["port"].parse().unwrap(),
    };
    setup.zone = Some(fields["zone"])
        .filter(|zone| !zone.is_empty())
        .map(String::from);
    setup.node_id = fields["node"].into();
    setup.shard_id = fields["shard"].into();
}

fn connection(setup: &mut Setup, fields: &HashMap<&str, &str>) {
    setup.session = Session::new(
        fields["id"].parse().unwrap(),
        fields["peer"].parse().unwrap(),
        fields["local"].parse().unwrap(),
        User::Default,
        setup.now,
    );
}

fn exchange(setup: &mut Setup, line: usize, request: &[Vec<u8>], expected: &[u8]) {
    let request = OwnedRequest::from_args(request);
    let words = String::from_utf8_lossy(request.bytes()).into_owned();
    let reply = whole_reply(setup, &request);
    let name = request.as_request().name().to_ascii_lowercase();
    let second = request
        .as_request()
        .arg(1)
        .unwrap_or_default()
        .to_ascii_lowercase();
    match (name.as_slice(), second.as_slice()) {
        (b"client", b"info") if expected.first() != Some(&b'-') => same_line(&reply, expected),
        (b"info", b"everything" | b"") => same_fields(&reply, expected),
        (b"cluster", b"slots" | b"nodes") if setup.endpoint.host == "cache.example" => {
            assert_ne!(
                reply, expected,
                "a difference that the module tells of is gone"
            );
        }
        _ => assert_eq!(
            String::from_utf8_lossy(&reply),
            String::from_utf8_lossy(expected),
            "line {line}: {words}"
        ),
    }
}

/// Everything that the client gets, Valkey's judgement included.
fn whole_reply(setup: &mut Setup, request: &OwnedRequest) -> Vec<u8> {
    let request = request.as_request();
    let mut out = Vec::new();
    let open = setup.facts.default_user_open;
    let (context, session) = context(setup);
    if refuse_unauthenticated(request, session, context.facts, &mut out) {
        return out;
    }
    let command = match CommandTable::builtin().lookup(request) {
        Ok(command) => command,
        Err(error) => {
            if session.take_reply_wanted() {
                write::error(&mut out, error.text());
            }
            return out;
        }
    };
    let Handling::Local(kind) = command.handling(request) else {
        panic!("{} is not answered here", command.name());
    };
    match answer(kind, request, session, &context, &mut out) {
        Outcome::Replied => assert!(!out.is_empty()),
        Outcome::Silent => assert!(out.is_empty()),
        Outcome::Close => {}
        Outcome::Authenticate(auth) => {
            assert!(out.is_empty());
            let known = auth.username.is_none_or(|user| user == b"default");
            if known && (open || auth.password == PASSWORD) {
                let user = User::Named(b"default".as_slice().into());
                authenticated(session, &auth.then, user, &context, &mut out);
            } else {
                let text = "WRONGPASS invalid username-password pair or user is disabled.";
                write::error(&mut out, text);
            }
            if auth.silent {
                out.clear();
            }
        }
    }
    out
}

fn text(reply: &[u8]) -> String {
    let reply = std::str::from_utf8(reply).unwrap();
    let (header, text) = reply.split_once("\r\n").unwrap();
    let text = text.strip_suffix("\r\n").unwrap();
    assert_eq!(header[1..].parse(), Ok(text.len()));
    let verbatim = header.starts_with('=');
    assert_eq!(verbatim, text.starts_with("txt:"));
    text.strip_prefix("txt:").unwrap_or(text).into()
}

/// `CLIENT INFO`: the same fields in the same order, and their values but those of the server's
/// own inside, and of time.
fn same_line(reply: &[u8], expected: &[u8]) {
    const OTHER: [&str; 13] = [
        "fd",
        "age",
        "idle",
        "qbuf",
        "qbuf-free",
        "argv-mem",
        "rbs",
        "rbp",
        "tot-mem",
        "tot-net-in",
        "tot-net-out",
        "tot-cmds",
        "omem",
    ];
    let known = |reply| -> Vec<(String, String)> {
        text(reply)
            .strip_suffix('\n')
            .unwrap()
            .split(' ')
            .map(|field| field.split_once('=').unwrap())
            .map(|(name, value)| {
                (
                    name.into(),
                    if OTHER.contains(&name) { "" } else { value }.into(),
                )
            })
            .collect()
    };
    assert_eq!(reply.first(), expected.first());
    assert_eq!(known(reply), known(expected));
}

/// `INFO`: every field that is told is one of the server's, in the same section and order, and
/// where its value is fixed, it is the same.
fn same_fields(reply: &[u8], expected: &[u8]) {
    const FIXED: [&str; 14] = [
        "redis_version",
        "server_name",
        "valkey_version",
        "server_mode",
        "arch_bits",
        "loading",
        "availability_zone",
        "async_loading",
        "rdb_bgsave_in_progress",
        "role",
        "connected_slaves",
        "aof_rewrite_in_progress",
        "cluster_enabled",
        "maxclients",
    ];
    assert_eq!(reply.first(), expected.first());
    let expected = text(expected);
    let mut rest = expected.split("\r\n");
    let mut fixed = 0;
    let reply = text(reply);
    let (before, own) = reply.split_once("# Keyway").unwrap();
    let (_, after) = own.split_once("\r\n\r\n").unwrap();
    for line in format!("{before}{after}").split("\r\n") {
        let name = line.split(':').next().unwrap();
        let theirs = rest
            .find(|theirs| theirs.split(':').next() == Some(name))
            .unwrap_or_else(|| panic!("{line} is not the server's, or not in this place"));
        if FIXED.contains(&name) {
            assert_eq!(line, theirs);
            fixed += 1;
        }
    }
    assert_eq!(fixed, FIXED.len());
}
