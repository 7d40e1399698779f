//! The replies of `COMMAND` and its subcommands, as a Valkey 9.1.2 gives them.
//!
//! Only the order of commands differs: the server's is that of a hash table with a random seed.

mod docs;
pub(crate) mod glob;
mod info;
mod list;

use resp::write::{self, Sink};
use resp::{Protocol, Request};

use crate::keys::{Args, KeyRefs};
use crate::table::{Command, CommandTable};

/// More names in one `COMMAND INFO` or `COMMAND DOCS` are refused. The server has no limit, but
/// names of a few bytes have replies of a few thousand.
pub const NAMES_MAX: usize = 1024;

const HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Return details about all commands.",
    "COUNT",
    "    Return the total number of commands in this server.",
    "LIST",
    "    Return a list of all commands in this server.",
    "INFO [<command-name> ...]",
    "    Return details about multiple commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "GETKEYS <full-command>",
    "    Return the keys from a full command.",
    "GETKEYSANDFLAGS <full-command>",
    "    Return the keys and the access flags from a full command.",
    "HELP",
    "    Print this help.",
];

/// Appends the reply to a request that [`CommandTable::lookup`] found to be `COMMAND` or a
/// subcommand of it; to any other request, an error.
pub fn reply(table: &CommandTable, request: Request<'_>, protocol: Protocol, out: &mut impl Sink) {
    let command = table
        .resolve(request.name(), request.arg(1))
        .map_or("", Command::name);
    if matches!(command, "command|info" | "command|docs") && request.argc() > NAMES_MAX + 2 {
        return write::error(out, "ERR too many command names");
    }
    match command {
        "command" => info::all(table, protocol, out),
        "command|count" => {
            let count = i64::try_from(table.top_level().count()).unwrap_or(i64::MAX);
            write::integer(out, count);
        }
        "command|docs" => docs::reply(table, request, protocol, out),
        "command|getkeys" => get_keys(table, request, out, |key, _, out| write::bulk(out, key)),
        "command|getkeysandflags" => get_keys(table, request, out, |key, flags, out| {
            write::array(out, 2);
            write::bulk(out, key);
            info::names(flags.names(), protocol, out);
        }),
        "command|help" => {
            write::array(out, HELP.len());
            HELP.iter().for_each(|line| write::simple(out, line));
        }
        "command|info" if request.argc() == 2 => info::all(table, protocol, out),
        "command|info" => info::some(table, request.args().skip(2), protocol, out),
        "command|list" => list::reply(table, request, out),
        _ => write::error(out, "ERR unknown command"),
    }
}

/// `COMMAND GETKEYS name arguments...`, and with flags.
fn get_keys<S: Sink>(
    table: &CommandTable,
    request: Request<'_>,
    out: &mut S,
    each: impl Fn(&[u8], crate::KeyFlags, &mut S),
) {
    let args = Args::behind(request, 2);
    let Some(command) = table.resolve(args.get(0).unwrap_or_default(), args.get(1)) else {
        return write::error(out, "ERR Invalid command specified");
    };
    if !command.has_documented_keys() {
        return write::error(out, "ERR The command has no key arguments");
    }
    if !command.accepts_argc(args.count()) {
        return write::error(out, "ERR Invalid number of arguments specified for command");
    }
    let mut keys = KeyRefs::new();
    command.documented_keys(args, &mut keys);
    if keys.is_empty() && !command.flags().contains(crate::Flags::NO_MANDATORY_KEYS) {
        return write::error(out, crate::KeyError.to_string());
    }
    write::array(out, keys.len());
    for key in keys {
        each(args.get(key.index()).unwrap_or_default(), key.flags, out);
    }
}

/// The command of a full name as these subcommands take it: `get`, `client|setname`.
fn named<'a>(table: &'a CommandTable, name: &[u8]) -> Option<&'a Command> {
    table.by_name(std::str::from_utf8(name).ok()?)
}

#[cfg(test)]
mod tests;
