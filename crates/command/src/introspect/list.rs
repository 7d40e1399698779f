//! `COMMAND LIST`.

use resp::Request;
use resp::write::{self, Sink};

use super::glob;
use crate::category::Categories;
use crate::table::{Command, CommandTable};

enum Filter<'a> {
    None,
    /// No command of the table says which module it is from.
    Module,
    Category(Option<Categories>, &'a [u8]),
    Pattern(&'a [u8]),
}

/// `COMMAND LIST [FILTERBY MODULE name|ACLCAT category|PATTERN glob]`: full names, subcommands
/// included.
pub(super) fn reply(table: &CommandTable, request: Request<'_>, out: &mut impl Sink) {
    let Some(filter) = filter(request) else {
        return write::error(out, "ERR syntax error");
    };
    let names: Vec<&str> = table
        .of_servers()
        .filter(|command| passes(command, &filter))
        .map(Command::name)
        .collect();
    write::array(out, names.len());
    names.iter().for_each(|name| write::bulk(out, name));
}

fn filter(request: Request<'_>) -> Option<Filter<'_>> {
    if request.argc() == 2 {
        return Some(Filter::None);
    }
    let arg = |index| request.arg(index).unwrap_or_default();
    if request.argc() != 5 || !arg(2).eq_ignore_ascii_case(b"filterby") {
        return None;
    }
    let (kind, value) = (arg(3), arg(4));
    if kind.eq_ignore_ascii_case(b"module") {
        Some(Filter::Module)
    } else if kind.eq_ignore_ascii_case(b"aclcat") {
        let known = std::str::from_utf8(value)
            .ok()
            .and_then(|name| Categories::from_name(&name.to_ascii_lowercase()));
        Some(Filter::Category(known, value))
    } else if kind.eq_ignore_ascii_case(b"pattern") {
        Some(Filter::Pattern(value))
    } else {
        None
    }
}

fn passes(command: &Command, filter: &Filter<'_>) -> bool {
    match filter {
        Filter::None => true,
        Filter::Module => false,
        Filter::Category(Some(category), _) => command.categories().contains(*category),
        Filter::Category(None, name) => command
            .row()
            .other_categories
            .iter()
            .any(|other| other.as_bytes().eq_ignore_ascii_case(name)),
        Filter::Pattern(pattern) => glob::matches(pattern, command.name().as_bytes()),
    }
}
