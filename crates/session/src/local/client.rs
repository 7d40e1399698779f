//! `CLIENT` and its subcommands.
//!
//! Stricter than the server in two things. A name with a NUL in it is refused: the server's check
//! ends at the NUL, so that anything may follow it, line breaks included. And names are bounded,
//! as every session keeps its own.

use std::{io::Write as _, time::Instant};

use resp::{Protocol, Request, write};

use super::Context;
use crate::state::{ReplyMode, Session, User};

/// The longest name of a client or of its library. The server has no bound; the longest names in
/// use are host names with something before and behind.
pub(super) const NAME_BYTES_MAX: usize = 4096;

/// Of an argument that an error repeats.
const SHOWN_BYTES_MAX: usize = 128;

const OK: &str = "OK";

/// `CLIENT ID`.
pub(super) fn id(session: &Session, out: &mut Vec<u8>) {
    write::integer(out, i64::try_from(session.id).unwrap_or(i64::MAX));
}

/// `CLIENT GETNAME`.
pub(super) fn get_name(session: &Session, out: &mut Vec<u8>) {
    if session.name.is_empty() {
        write::null(out, session.protocol);
    } else {
        write::bulk(out, &session.name);
    }
}

/// `CLIENT SETNAME name`; an empty one takes the name away.
pub(super) fn set_name(request: Request<'_>, session: &mut Session, out: &mut Vec<u8>) {
    let name = request.arg(2).unwrap_or_default();
    match check_name(name) {
        Ok(()) => {
            name.clone_into(&mut session.name);
            write::simple(out, OK);
        }
        Err(text) => write::error(out, text),
    }
}

/// Whether this can be a client's name. The error is the reply.
pub(super) fn check_name(name: &[u8]) -> Result<(), Vec<u8>> {
    if !is_word(name) {
        let text = "ERR Client names cannot contain spaces, newlines or special characters.";
        return Err(text.into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(
            format!("ERR Client names cannot be longer than {NAME_BYTES_MAX} bytes.").into(),
        );
    }
    Ok(())
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER value`.
pub(super) fn set_info(request: Request<'_>, session: &mut Session, out: &mut Vec<u8>) {
    let attribute = request.arg(2).unwrap_or_default();
    let value = request.arg(3).unwrap_or_default();
    let place = if attribute.eq_ignore_ascii_case(b"lib-name") {
        &mut session.lib_name
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        &mut session.lib_ver
    } else {
        let text = [b"ERR Unrecognized option '", shown(attribute), b"'"].concat();
        write::error(out, text);
        return;
    };
    if !is_word(value) {
        let text = b" cannot contain spaces, newlines or special characters.";
        write::error(out, [b"ERR ", attribute, text].concat());
    } else if value.len() > NAME_BYTES_MAX {
        let text = format!(" cannot be longer than {NAME_BYTES_MAX} bytes.");
        write::error(out, [b"ERR ", attribute, text.as_bytes()].concat());
    } else {
        value.clone_into(place);
        write::simple(out, OK);
    }
}

/// `CLIENT NO-EVICT ON|OFF`, `CLIENT NO-TOUCH ON|OFF`.
pub(super) fn switch(request: Request<'_>, setting: &mut bool, out: &mut Vec<u8>) {
    let argument = request.arg(2).unwrap_or_default();
    if argument.eq_ignore_ascii_case(b"on") {
        *setting = true;
    } else if argument.eq_ignore_ascii_case(b"off") {
        *setting = false;
    } else {
        write::error(out, "ERR syntax error");
        return;
    }
    write::simple(out, OK);
}

/// `CLIENT IMPORT-SOURCE ON|OFF`: a server says so that is not in import mode, whatever the word.
pub(super) fn import_source(request: Request<'_>, out: &mut Vec<u8>) {
    let off = |word: &[u8]| word.eq_ignore_ascii_case(b"off");
    if request.arg(2).is_some_and(off) {
        write::simple(out, "OK");
    } else {
        write::error(out, "ERR Server is not in import mode");
    }
}

/// `CLIENT TRACKING`: off. A node tells of keys that it has shown to a connection; the connections
/// are shared here, so it could not be told whose they are.
pub(super) fn tracking(request: Request<'_>, out: &mut Vec<u8>) {
    let argument = request.arg(2).unwrap_or_default();
    if argument.eq_ignore_ascii_case(b"off") {
        write::simple(out, OK);
    } else if argument.eq_ignore_ascii_case(b"on") {
        write::error(
            out,
            "ERR CLIENT TRACKING is not supported by Keyway: connections to the nodes are shared",
        );
    } else {
        write::error(out, "ERR syntax error");
    }
}

/// `CLIENT TRACKINGINFO`: it is off.
pub(super) fn tracking_info(session: &Session, out: &mut Vec<u8>) {
    write::map(out, session.protocol, 3);
    write::bulk(out, "flags");
    write::set(out, session.protocol, 1);
    write::bulk(out, "off");
    write::bulk(out, "redirect");
    write::integer(out, -1);
    write::bulk(out, "prefixes");
    write::array(out, 0);
}

/// `CLIENT REPLY ON|OFF|SKIP`. Only `ON` has a reply; `SKIP` does nothing after `OFF`.
pub(super) fn reply(request: Request<'_>, session: &mut Session, out: &mut Vec<u8>) {
    let argument = request.arg(2).unwrap_or_default();
    if argument.eq_ignore_ascii_case(b"on") {
        session.reply_mode = ReplyMode::On;
        write::simple(out, OK);
    } else if argument.eq_ignore_ascii_case(b"off") {
        session.reply_mode = ReplyMode::Off;
    } else if argument.eq_ignore_ascii_case(b"skip") {
        if session.reply_mode != ReplyMode::Off {
            session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        write::error(out, "ERR syntax error");
    }
}

/// `CLIENT INFO`: the fields of 9.1.2 in its order. Those about the memory of a connection are 0,
/// and its descriptor is -1, as the server has it for connections that are not sockets of its own.
pub(super) fn info(session: &Session, context: &Context<'_>, out: &mut Vec<u8>) {
    let shown = Shown {
        command: Some("client|info"),
        ..Shown::default()
    };
    let line = client_line(session, &shown, context.now);
    write::verbatim(out, session.protocol, b"txt", line);
}

/// What a client's line shows that its session does not know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// The command it sent last.
    pub command: Option<&'a str>,
    /// Channels it is subscribed to.
    pub subscribed: usize,
    /// Patterns it is subscribed to.
    pub patterns: usize,
    /// Sharded channels it is subscribed to.
    pub sharded: usize,
    /// It watches keys.
    pub watching: bool,
    /// A command of its blocks.
    pub blocked: bool,
}

/// A line of `CLIENT LIST` or `CLIENT INFO`, with its line feed.
#[must_use]
pub fn client_line(session: &Session, shown: &Shown<'_>, now: Instant) -> Vec<u8> {
    let mut line = Vec::with_capacity(384);
    let age = now
        .saturating_duration_since(session.connected_at)
        .as_secs();
    let idle = now
        .saturating_duration_since(session.last_command_at)
        .as_secs();
    let user: &[u8] = match &session.user {
        // Which user the proxy lends is nothing that clients need to know.
        User::Default | User::Service => b"default",
        User::Named(name) => name,
    };
    let _ = write!(
        line,
        "id={} addr={} laddr={}",
        session.id, session.peer, session.local
    );
    line.extend_from_slice(b" fd=-1 name=");
    line.extend_from_slice(&session.name);
    let _ = write!(line, " age={age} idle={idle} flags=");
    flags(session, shown, &mut line);
    let multi = session.transaction.as_ref().map_or(-1, |transaction| {
        i64::try_from(transaction.count()).unwrap_or(-1)
    });
    let _ = write!(
        line,
        " capa= db={} sub={} psub={} ssub={} multi={multi} watch={}",
        session.database,
        shown.subscribed,
        shown.patterns,
        shown.sharded,
        u8::from(shown.watching)
    );
    line.extend_from_slice(b" qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0");
    let _ = write!(line, " obl={} oll=0 omem=0 tot-mem=0", session.output.len());
    let _ = write!(
        line,
        " events=r cmd={} user=",
        shown.command.unwrap_or("NULL")
    );
    line.extend_from_slice(user);
    let protocol = if session.protocol == Protocol::Resp3 {
        3
    } else {
        2
    };
    let _ = write!(line, " redir=-1 resp={protocol} lib-name=");
    line.extend_from_slice(&session.lib_name);
    line.extend_from_slice(b" lib-ver=");
    line.extend_from_slice(&session.lib_ver);
    let _ = writeln!(
        line,
        " tot-net-in={} tot-net-out={} tot-cmds={}",
        session.bytes_in, session.bytes_out, session.commands
    );
    line
}

fn flags(session: &Session, shown: &Shown<'_>, line: &mut Vec<u8>) {
    let subscribed = shown.subscribed + shown.patterns + shown.sharded > 0;
    let set = [
        (subscribed, b'P'),
        (session.transaction.is_some(), b'x'),
        (shown.blocked, b'b'),
        (session.readonly, b'r'),
        (session.no_evict, b'e'),
        (session.no_touch, b'T'),
    ];
    let before = line.len();
    line.extend(set.iter().filter(|(on, _)| *on).map(|(_, flag)| flag));
    if line.len() == before {
        line.push(b'N');
    }
}

/// Printable ASCII without spaces, so that the fields of a line can be told apart.
fn is_word(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// What an error repeats of an argument: bounded, and up to a NUL, as the server prints it.
pub(super) fn shown(text: &[u8]) -> &[u8] {
    let text = text.get(..SHOWN_BYTES_MAX).unwrap_or(text);
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}
