//! `HELLO`, `AUTH`, and what a client hears that must authenticate first.

use resp::{Protocol, Request, write};

use super::{AfterAuth, AuthRequest, Context, Facts, Outcome, client, number::integer};
use crate::state::{Session, User};

/// To every command but those that [`refuse_unauthenticated`] lets through.
const NOAUTH: &str = "NOAUTH Authentication required.";

const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client \
    and select the RESP protocol version at the same time";

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
    default user. Are you sure your configuration is correct?";

/// Whether the client has to authenticate before anything else: it is nobody yet, and Valkey's
/// `default` user has a password or is off, or is not for it.
#[must_use]
pub fn must_authenticate(session: &Session, facts: &Facts) -> bool {
    session.user == User::Default && (!facts.default_user_open || session.stranger)
}

/// Refuses a request whose client [must authenticate](must_authenticate) first, and says whether
/// it did. Call it before looking the command up: as on 9.1.2, an unknown command is refused like
/// any other. `AUTH`, `HELLO`, `QUIT` and `RESET` pass, to be looked up and answered as always.
#[must_use]
pub fn refuse_unauthenticated(
    request: Request<'_>,
    session: &Session,
    facts: &Facts,
    out: &mut Vec<u8>,
) -> bool {
    const ALLOWED: [&str; 4] = ["auth", "hello", "quit", "reset"];
    let refused = must_authenticate(session, facts)
        && !ALLOWED
            .iter()
            .any(|name| request.name().eq_ignore_ascii_case(name.as_bytes()));
    if refused {
        write::error(out, NOAUTH);
    }
    refused
}

/// `AUTH [user] password`.
pub(super) fn auth(request: Request<'_>, context: &Context<'_>, out: &mut Vec<u8>) -> Outcome {
    let (username, password) = match (request.argc(), request.arg(1), request.arg(2)) {
        (2, Some(_), _) if context.facts.default_user_open => {
            write::error(out, NO_PASSWORD);
            return Outcome::Replied;
        }
        (2, Some(password), _) => (None, password),
        (3, Some(username), Some(password)) => (Some(username.to_vec()), password),
        _ => {
            write::error(out, "ERR syntax error");
            return Outcome::Replied;
        }
    };
    Outcome::Authenticate(AuthRequest {
        username,
        password: password.to_vec(),
        then: AfterAuth::Ok,
        silent: false,
    })
}

/// The options of a `HELLO`.
#[derive(Default)]
struct Hello<'a> {
    protocol: Option<Protocol>,
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    /// Reads the version, then the options in the order given. The error is the reply.
    fn parse(request: Request<'a>) -> Result<Self, Vec<u8>> {
        let mut hello = Self::default();
        let mut args = request.args().skip(1);
        if let Some(version) = args.next() {
            hello.protocol = Some(match integer(version) {
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => return Err(b"NOPROTO unsupported protocol version".to_vec()),
                None => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return Err(text.into());
                }
            });
        }
        while let Some(option) = args.next() {
            let arguments = if option.eq_ignore_ascii_case(b"auth") {
                args.next().zip(args.next()).map(|credentials| {
                    hello.credentials = Some(credentials);
                })
            } else if option.eq_ignore_ascii_case(b"setname") {
                match args.next() {
                    Some(name) => {
                        client::check_name(name)?;
                        hello.name = Some(name);
                        Some(())
                    }
                    None => None,
                }
            } else {
                None
            };
            if arguments.is_none() {
                let mut text = b"ERR Syntax error in HELLO option '".to_vec();
                text.extend_from_slice(client::shown(option));
                text.push(b'\'');
                return Err(text);
            }
        }
        Ok(hello)
    }
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`. Whatever is wrong with it, nothing
/// changes.
pub(super) fn hello(
    request: Request<'_>,
    session: &mut Session,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) -> Outcome {
    let hello = match Hello::parse(request) {
        Ok(hello) => hello,
        Err(text) => {
            write::error(out, text);
            return Outcome::Replied;
        }
    };
    let name = hello.name.map(<[u8]>::to_vec);
    if let Some((username, password)) = hello.credentials {
        return Outcome::Authenticate(AuthRequest {
            username: Some(username.to_vec()),
            password: password.to_vec(),
            then: AfterAuth::Hello {
                protocol: hello.protocol,
                name,
            },
            silent: false,
        });
    }
    if must_authenticate(session, context.facts) {
        write::error(out, NOAUTH_HELLO);
    } else {
        switch(session, hello.protocol, name.as_deref());
        greet(session, context, out);
    }
    Outcome::Replied
}

/// Valkey has accepted an [`AuthRequest`]: the session is `user`'s now, and the reply is appended.
/// The caller leaves it away if the request was silent.
pub fn authenticated(
    session: &mut Session,
    then: &AfterAuth,
    user: User,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) {
    session.user = user;
    match then {
        AfterAuth::Ok => write::simple(out, "OK"),
        AfterAuth::Hello { protocol, name } => {
            switch(session, *protocol, name.as_deref());
            greet(session, context, out);
        }
    }
}

fn switch(session: &mut Session, protocol: Option<Protocol>, name: Option<&[u8]>) {
    if let Some(name) = name {
        name.clone_into(&mut session.name);
    }
    if let Some(protocol) = protocol {
        session.protocol = protocol;
    }
}

/// The map that answers `HELLO`, in the protocol just chosen.
fn greet(session: &Session, context: &Context<'_>, out: &mut Vec<u8>) {
    let protocol = session.protocol;
    write::map(
        out,
        protocol,
        7 + usize::from(context.named_zone().is_some()),
    );
    write::bulk(out, "server");
    write::bulk(out, "valkey");
    write::bulk(out, "version");
    write::bulk(out, &context.facts.version);
    write::bulk(out, "proto");
    write::integer(out, if protocol == Protocol::Resp3 { 3 } else { 2 });
    write::bulk(out, "id");
    write::integer(out, i64::try_from(session.id).unwrap_or(i64::MAX));
    write::bulk(out, "mode");
    write::bulk(out, "cluster");
    write::bulk(out, "role");
    write::bulk(
        out,
        if context.read_port {
            "replica"
        } else {
            "master"
        },
    );
    write::bulk(out, "modules");
    modules(context.facts, protocol, out);
    if let Some(zone) = context.named_zone() {
        write::bulk(out, "availability_zone");
        write::bulk(out, zone);
    }
}

/// From 9.1 on, the script engine is a module.
fn modules(facts: &Facts, protocol: Protocol, out: &mut Vec<u8>) {
    if !facts.at_least(9, 1) {
        write::array(out, 0);
        return;
    }
    write::array(out, 1);
    write::map(out, protocol, 4);
    write::bulk(out, "name");
    write::bulk(out, "lua");
    write::bulk(out, "ver");
    write::integer(out, 1);
    write::bulk(out, "path");
    write::bulk(out, "lua");
    write::bulk(out, "args");
    write::array(out, 0);
}
