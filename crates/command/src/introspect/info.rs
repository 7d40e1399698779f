//! `COMMAND` and `COMMAND INFO`.

use resp::Protocol;
use resp::write::{self, Sink};

use super::named;
use crate::spec::{BeginSearch, FindKeys, KeySpec};
use crate::table::{Command, CommandTable};

/// Every command, without names asked for.
pub(super) fn all(table: &CommandTable, protocol: Protocol, out: &mut impl Sink) {
    write::array(out, table.top_level().count());
    for command in table.top_level() {
        entry(table, command, protocol, out);
    }
}

/// The commands of these names; a null for what is none.
pub(super) fn some<'a>(
    table: &CommandTable,
    wanted: impl ExactSizeIterator<Item = &'a [u8]>,
    protocol: Protocol,
    out: &mut impl Sink,
) {
    write::array(out, wanted.len());
    for name in wanted {
        match named(table, name) {
            Some(command) => entry(table, command, protocol, out),
            None => write::null(out, protocol),
        }
    }
}

/// A set of simple strings.
pub(super) fn names<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    protocol: Protocol,
    out: &mut impl Sink,
) {
    write::set(out, protocol, names.clone().count());
    names.for_each(|name| write::simple(out, name));
}

/// A container's subcommands nest one deep.
fn entry(table: &CommandTable, command: &Command, protocol: Protocol, out: &mut impl Sink) {
    let row = command.row();
    write::array(out, 10);
    write::bulk(out, &*row.name);
    write::integer(out, row.arity.into());
    let flags = row.flags.names().map(as_str);
    names(
        flags.chain(row.other_flags.iter().map(|name| &**name)),
        protocol,
        out,
    );
    write::integer(out, row.legacy_range.first.into());
    write::integer(out, row.legacy_range.last.into());
    write::integer(out, row.legacy_range.step.into());
    let categories = row.categories.names().map(as_str);
    let categories = categories.chain(row.other_categories.iter().map(|name| &**name));
    write::set(out, protocol, categories.clone().count());
    categories.for_each(|name| write::simple(out, &format!("@{name}")));
    write::set(out, protocol, row.tips.len());
    row.tips.iter().for_each(|tip| write::bulk(out, &**tip));
    write::set(out, protocol, row.key_specs.len());
    row.key_specs
        .iter()
        .for_each(|spec| key_spec(spec, protocol, out));
    let subcommands = command.subcommand_ids();
    write::array(out, subcommands.len());
    for subcommand in subcommands.iter().filter_map(|id| table.get(*id)) {
        entry(table, subcommand, protocol, out);
    }
}

/// Lets the names of known flags stand in one line with those of unknown ones.
fn as_str<'a>(name: &'static str) -> &'a str {
    name
}

fn key_spec(spec: &KeySpec, protocol: Protocol, out: &mut impl Sink) {
    write::map(out, protocol, 3 + usize::from(spec.notes.is_some()));
    if let Some(notes) = &spec.notes {
        write::bulk(out, "notes");
        write::bulk(out, &**notes);
    }
    write::bulk(out, "flags");
    names(spec.flags.names(), protocol, out);
    write::bulk(out, "begin_search");
    match &spec.begin {
        BeginSearch::Index(index) => {
            search("index", &[("index", i64::from(*index))], protocol, out);
        }
        BeginSearch::Keyword { word, start_from } => {
            header("keyword", 2, protocol, out);
            write::bulk(out, "keyword");
            write::bulk(out, &**word);
            write::bulk(out, "startfrom");
            write::integer(out, i64::from(*start_from));
        }
        BeginSearch::Unknown => search("unknown", &[], protocol, out),
    }
    write::bulk(out, "find_keys");
    match spec.find {
        FindKeys::Range { last, step, limit } => {
            let (last, step, limit) = (last.into(), step.into(), limit.into());
            search(
                "range",
                &[("lastkey", last), ("keystep", step), ("limit", limit)],
                protocol,
                out,
            );
        }
        FindKeys::KeyNum {
            num_index,
            first,
            step,
        } => {
            let (index, first, step) = (num_index.into(), first.into(), step.into());
            let fields = [("keynumidx", index), ("firstkey", first), ("keystep", step)];
            search("keynum", &fields, protocol, out);
        }
        FindKeys::Unknown => search("unknown", &[], protocol, out),
    }
}

fn search(kind: &str, fields: &[(&str, i64)], protocol: Protocol, out: &mut impl Sink) {
    header(kind, fields.len(), protocol, out);
    for (name, value) in fields {
        write::bulk(out, name);
        write::integer(out, *value);
    }
}

fn header(kind: &str, fields: usize, protocol: Protocol, out: &mut impl Sink) {
    write::map(out, protocol, 2);
    write::bulk(out, "type");
    write::bulk(out, kind);
    write::bulk(out, "spec");
    write::map(out, protocol, fields);
}
