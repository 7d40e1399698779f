//! Completing the table from a cluster's own `COMMAND` reply: modules, and newer servers.

use std::collections::BTreeSet;
use std::fmt;

use resp::Value;

use crate::category::Categories;
use crate::flags::{Flags, KeyFlags};
use crate::spec::{BeginSearch, FindKeys, KeySpec};
use crate::table::{CommandTable, LegacyRange, Row};

/// A longer name is refused; the longest of Valkey has 26 bytes.
const NAME_BYTES_MAX: usize = 128;

/// A command with more key specs, flags, categories, tips or subcommands is refused.
const LIST_MAX: usize = 1024;

/// A `COMMAND` reply that makes no sense. The table stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtendError {
    /// The reply is no array.
    NotAList,
    /// There would be more commands than [`CommandTable::COMMANDS_MAX`].
    TooMany,
    /// The entry of this number, from 0, cannot be read.
    Entry(usize),
}

impl fmt::Display for ExtendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAList => f.write_str("the reply to COMMAND is no list"),
            Self::TooMany => write!(f, "more than {} commands", CommandTable::COMMANDS_MAX),
            Self::Entry(index) => write!(f, "entry {index} of the reply to COMMAND is malformed"),
        }
    }
}

impl std::error::Error for ExtendError {}

impl CommandTable {
    /// This table and whatever `commands`, the reply to `COMMAND` in either protocol, has beyond
    /// it. Commands that are known already stay as they are, and keep their ids; new ones may
    /// have replies of any shape, and are shared when all their keys can be found by key specs.
    ///
    /// # Errors
    /// [`ExtendError`]: the reply cannot be read, or is too long.
    pub fn extended(&self, commands: &Value) -> Result<Self, ExtendError> {
        let entries = commands.as_array().ok_or(ExtendError::NotAList)?;
        let mut learned = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            read(entry, None, &mut learned).ok_or(ExtendError::Entry(index))?;
            if learned.len() > Self::COMMANDS_MAX {
                return Err(ExtendError::TooMany);
            }
        }
        let mut rows: Vec<Row> = self.iter().map(|command| command.row().clone()).collect();
        let mut names: BTreeSet<Box<str>> = rows.iter().map(|row| row.name.clone()).collect();
        rows.extend(
            learned
                .into_iter()
                .filter(|row| names.insert(row.name.clone())),
        );
        if rows.len() > Self::COMMANDS_MAX {
            return Err(ExtendError::TooMany);
        }
        Ok(Self::from_rows(rows))
    }
}

/// One entry and its subcommands, `container` being the name of what holds it.
fn read(entry: &Value, container: Option<&str>, rows: &mut Vec<Row>) -> Option<()> {
    let fields = entry.as_array()?;
    let name = name(fields.first()?.as_str()?, container)?;
    let number = |index: usize| small(fields.get(index)?);
    let list = |index: usize| fields.get(index).map_or(Some(&[][..]), bounded);
    let (flags, other_flags) = sort_out(list(2)?, Flags::NONE, |set, name| {
        Some(set.with(Flags::from_name(name)?))
    })?;
    let (categories, other_categories) = sort_out(list(6)?, Categories::NONE, |set, name| {
        Some(set.with(Categories::from_name(name)?))
    })?;
    let subcommands = list(9)?;
    rows.push(Row {
        arity: number(1).filter(|arity| *arity != 0 && *arity != i16::MIN)?,
        flags,
        legacy_range: LegacyRange {
            first: number(3)?,
            last: number(4)?,
            step: number(5)?,
        },
        key_specs: list(8)?.iter().map(key_spec).collect::<Option<_>>()?,
        tips: list(7)?
            .iter()
            .map(|tip| tip.as_str().map(Into::into))
            .collect::<Option<_>>()?,
        categories,
        other_flags,
        other_categories,
        learned: true,
        name: name.clone(),
        ..Row::default()
    });
    // A subcommand has none of its own.
    match container {
        None => subcommands
            .iter()
            .try_for_each(|entry| read(entry, Some(&name), rows)),
        Some(_) => subcommands.is_empty().then_some(()),
    }
}

/// Lower case, printable, and of a subcommand `container|name` as the server sends it.
fn name(text: &str, container: Option<&str>) -> Option<Box<str>> {
    let printable = |byte: u8| byte.is_ascii_graphic() && byte != b'|';
    let name = text.to_ascii_lowercase();
    let own = match container {
        Some(container) => name.strip_prefix(container)?.strip_prefix('|')?,
        None => &name,
    };
    let sound = !own.is_empty() && name.len() <= NAME_BYTES_MAX && own.bytes().all(printable);
    sound.then(|| name.into())
}

fn small(value: &Value) -> Option<i16> {
    value.as_int()?.try_into().ok()
}

fn bounded(value: &Value) -> Option<&[Value]> {
    value.as_array().filter(|items| items.len() <= LIST_MAX)
}

/// Names into a set of those that are known and a list of those that are not; without the `@` of
/// categories.
fn sort_out<T: Copy>(
    names: &[Value],
    none: T,
    add: impl Fn(T, &str) -> Option<T>,
) -> Option<(T, Box<[Box<str>]>)> {
    let (mut set, mut others) = (none, Vec::new());
    for name in names {
        let name = name.as_str()?;
        let name = name.strip_prefix('@').unwrap_or(name);
        match add(set, name) {
            Some(more) => set = more,
            None => others.push(name.into()),
        }
    }
    Some((set, others.into()))
}

/// A spec of a kind that we do not know is one that the server cannot say: its command is not
/// routed by it.
fn key_spec(value: &Value) -> Option<KeySpec> {
    let (flags, _) = sort_out(
        bounded(value.map_get("flags")?)?,
        KeyFlags::NONE,
        |set, name| Some(set.with(KeyFlags::from_name(name)?)),
    )?;
    let part = |name| {
        let part = value.map_get(name)?;
        Some((part.map_get("type")?.as_str()?, part.map_get("spec")?))
    };
    let (begin, find) = (part("begin_search")?, part("find_keys")?);
    let begin = match begin.0 {
        "index" => BeginSearch::Index(field(begin.1, "index")?),
        "keyword" => BeginSearch::Keyword {
            word: begin.1.map_get("keyword")?.as_str()?.into(),
            start_from: small(begin.1.map_get("startfrom")?).filter(|start| *start != 0)?,
        },
        _ => BeginSearch::Unknown,
    };
    let find = match find.0 {
        "range" => FindKeys::Range {
            last: small(find.1.map_get("lastkey")?)?,
            step: field(find.1, "keystep")?.max(1),
            limit: field(find.1, "limit")?,
        },
        "keynum" => FindKeys::KeyNum {
            num_index: field(find.1, "keynumidx")?,
            first: field(find.1, "firstkey")?,
            step: field(find.1, "keystep")?.max(1),
        },
        _ => FindKeys::Unknown,
    };
    let notes = value
        .map_get("notes")
        .and_then(Value::as_str)
        .map(Into::into);
    Some(KeySpec {
        notes,
        flags,
        begin,
        find,
    })
}

fn field(spec: &Value, name: &str) -> Option<u16> {
    spec.map_get(name)?.as_int()?.try_into().ok()
}

#[cfg(test)]
mod tests;
