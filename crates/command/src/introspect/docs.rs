//! `COMMAND DOCS`.
//!
//! The documentation is Valkey's own (see `data/README.md`), kept as one line of text for each
//! top-level command and read when somebody asks.

use std::sync::LazyLock;

use resp::write::{self, Sink};
use resp::{Protocol, Request, Value};

use super::named;
use crate::notation;
use crate::table::{Command, CommandTable};

/// Names and the texts of their entries, in the order of the names.
static DOCS: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    include_str!("../../data/docs.txt")
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .collect()
});

/// All commands, or those asked for that there are.
pub(super) fn reply(
    table: &CommandTable,
    request: Request<'_>,
    protocol: Protocol,
    out: &mut impl Sink,
) {
    let wanted: Vec<&Command> = if request.argc() == 2 {
        table.top_level().collect()
    } else {
        request
            .args()
            .skip(2)
            .filter_map(|name| named(table, name))
            .collect()
    };
    write::map(out, protocol, wanted.len());
    let mut bytes = Vec::new();
    for command in wanted {
        write::bulk(out, command.name());
        bytes.clear();
        entry(command).encode(protocol, &mut bytes);
        out.put(&bytes);
    }
}

/// A command of which we only know that it is there has a group and nothing else, as a module's
/// command without documentation.
fn entry(command: &Command) -> Value {
    find(command).unwrap_or_else(|| {
        let group = if command.group().is_empty() {
            "module"
        } else {
            command.group()
        };
        Value::Map(vec![(Value::bulk("group"), Value::bulk(group))])
    })
}

/// A subcommand's entry lies in that of its container.
fn find(command: &Command) -> Option<Value> {
    let name = command.name();
    let top = name
        .split_once('|')
        .map_or(name, |(container, _)| container);
    let at = DOCS.binary_search_by_key(&top, |(name, _)| name).ok()?;
    let entry = notation::parse(DOCS.get(at)?.1)?;
    if top == name {
        return Some(entry);
    }
    entry.map_get("subcommands")?.map_get(name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_entry() {
        let table = CommandTable::builtin();
        for command in table.of_servers() {
            assert!(find(command).is_some(), "{}", command.name());
        }
        assert_eq!(DOCS.len(), table.top_level().count());
    }
}
