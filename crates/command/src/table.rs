//! The table of commands.

use std::sync::LazyLock;

use crate::builtin;
use crate::category::Categories;
use crate::flags::{Flags, KeyFlags};
use crate::handling::{Disposition, Handling};
use crate::index::NameIndex;
use crate::keys::{self, ByHand};
use crate::kinds::{self, KindSet};
use crate::nature;
use crate::spec::{BeginSearch, FindKeys, KeySpec};

/// The metric label of whatever is no command of the table.
pub const LABEL_OTHER: &str = "other";

/// A command's place in its table: dense from 0, containers and subcommands included. Extending a
/// table keeps the ids of the commands that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(u16);

impl CommandId {
    pub(crate) fn new(index: u16) -> Self {
        Self(index)
    }

    /// The index, below [`CommandTable::len`].
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What is known of a command before it has a place in a table: one row of the built-in data, or
/// one entry of a `COMMAND` reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// The full name in lower case: `get`, `client|setname`.
    pub(crate) name: Box<str>,
    pub(crate) arity: i16,
    pub(crate) flags: Flags,
    pub(crate) legacy_range: LegacyRange,
    pub(crate) key_specs: Box<[KeySpec]>,
    pub(crate) tips: Box<[Box<str>]>,
    pub(crate) categories: Categories,
    pub(crate) group: Box<str>,
    pub(crate) since: Box<str>,
    /// Flags and categories that this crate has no bit for, as the server prints them.
    pub(crate) other_flags: Box<[Box<str>]>,
    pub(crate) other_categories: Box<[Box<str>]>,
    /// Learned from a cluster, not built in: its replies may have any shape.
    pub(crate) learned: bool,
}

/// First key, last key and step, as in the days before key specs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LegacyRange {
    pub(crate) first: i16,
    pub(crate) last: i16,
    pub(crate) step: i16,
}

/// One command, container or subcommand.
#[derive(Clone, Debug)]
pub struct Command {
    id: CommandId,
    row: Row,
    /// Subcommands by the part of their names behind the `|`; empty if it is no container.
    subcommands: Option<Box<Subcommands>>,
    /// When set: the one key is argument 1, always, with these flags. Most commands are so.
    only_first: Option<KeyFlags>,
    by_hand: Option<ByHand>,
    kinds: [KindSet; 2],
    disposition: Disposition,
    slow: bool,
    alike: bool,
    of_one_key: bool,
}

#[derive(Clone, Debug)]
struct Subcommands {
    index: NameIndex,
    ids: Vec<CommandId>,
}

impl Command {
    fn new(id: CommandId, row: Row) -> Self {
        let only_first = match row.key_specs.as_ref() {
            [
                KeySpec {
                    begin: BeginSearch::Index(1),
                    find: FindKeys::Range { last: 0, .. },
                    flags,
                    ..
                },
            ] if row.arity.unsigned_abs() >= 2
                && !flags.intersects(KeyFlags::VARIABLE_FLAGS.with(KeyFlags::INCOMPLETE)) =>
            {
                Some(*flags)
            }
            _ => None,
        };
        let disposition = Disposition::of(&row);
        let kinds = if row.learned {
            [KindSet::ANY; 2]
        } else {
            kinds::of(&row.name)
        };
        Self {
            id,
            subcommands: None,
            only_first,
            by_hand: keys::by_hand(&row),
            kinds,
            slow: disposition.is_script() || nature::SLOW.contains(&&*row.name),
            alike: nature::answers_alike(&row, disposition),
            of_one_key: !row.learned && nature::OF_ONE_KEY.contains(&&*row.name),
            disposition,
            row,
        }
    }

    /// Its place in the table.
    #[inline]
    #[must_use]
    pub fn id(&self) -> CommandId {
        self.id
    }

    /// The full name in lower case: `get`, `client|setname`. Also its metric label: the names of a
    /// table are a closed set.
    #[inline]
    #[must_use]
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// The number of arguments, the name (or names) included; negative: at least as many.
    #[must_use]
    pub fn arity(&self) -> i16 {
        self.row.arity
    }

    /// Whether a request may have this many arguments.
    #[inline]
    pub(crate) fn accepts_argc(&self, argc: usize) -> bool {
        let arity = usize::from(self.row.arity.unsigned_abs());
        if self.row.arity < 0 {
            argc >= arity
        } else {
            argc == arity
        }
    }

    /// What the server says of it.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.row.flags
    }

    /// Where its keys are. [`Command::keys`] finds them.
    #[must_use]
    pub fn key_specs(&self) -> &[KeySpec] {
        &self.row.key_specs
    }

    /// The server's tips for clients: `request_policy:all_shards`, `nondeterministic_output`...
    pub fn tips(&self) -> impl ExactSizeIterator<Item = &str> {
        self.row.tips.iter().map(AsRef::as_ref)
    }

    /// The tip of this name: `policy("request_policy")` is `Some("all_shards")` for `DBSIZE`.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&str> {
        self.tips()
            .find_map(|tip| tip.strip_prefix(name)?.strip_prefix(':'))
    }

    /// Its ACL categories.
    #[must_use]
    pub fn categories(&self) -> Categories {
        self.row.categories
    }

    /// Its group in the documentation: `string`, `server`... Empty for a command learned from a
    /// cluster.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.row.group
    }

    /// The version that brought it. Empty for a command learned from a cluster.
    #[must_use]
    pub fn since(&self) -> &str {
        &self.row.since
    }

    /// The server knows that it changes data.
    #[inline]
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.row.flags.contains(Flags::WRITE)
    }

    /// The server knows that it changes no data.
    #[inline]
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.row.flags.contains(Flags::READONLY)
    }

    /// It may change data, or anything else that a second run would not leave as it is: whatever
    /// is not known to be read-only. `EVAL` and `SPUBLISH` may write.
    #[inline]
    #[must_use]
    pub fn may_write(&self) -> bool {
        !self.is_readonly()
    }

    /// It may take long, or answer a lot, by what it is: a script, or work on all of a value or of
    /// several.
    #[inline]
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Two of its requests that are the same, with nothing between them, have the same reply: it
    /// only reads the keys that it names, and what it says is not chance.
    #[inline]
    #[must_use]
    pub fn answers_alike(&self) -> bool {
        self.alike
    }

    /// It reads one key, and its reply follows from what the key holds, until the key is changed or
    /// has expired: a string or a number, the same in both protocols.
    #[inline]
    #[must_use]
    pub fn is_of_one_key(&self) -> bool {
        self.of_one_key
    }

    /// Some of its requests may keep their connection waiting.
    #[inline]
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.row.flags.contains(Flags::BLOCKING)
    }

    /// `PUBLISH`, whose channel chooses a node where nothing else does, for the order of messages
    /// alone. (`SPUBLISH` has a slot.)
    #[must_use]
    pub fn is_publish(&self) -> bool {
        self.name() == "publish"
    }

    /// It cannot stand between `MULTI` and `EXEC`.
    #[must_use]
    pub fn is_barred_from_transactions(&self) -> bool {
        self.row.flags.contains(Flags::NO_MULTI)
    }

    /// Whether requests of this command can name keys, sharded channels included.
    #[inline]
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.row.key_specs.is_empty()
    }

    /// It runs a script or a function, which may answer with any text, redirects included.
    #[inline]
    #[must_use]
    pub fn is_script(&self) -> bool {
        self.disposition.is_script()
    }

    /// The legal first bytes of its reply, always with `-`. Only commands of
    /// [`Handling::Shared`](crate::Handling::Shared), `AnyPrimary` and `Split` have a narrow set;
    /// the others, and those learned from a cluster, have [`KindSet::ANY`].
    #[inline]
    #[must_use]
    pub fn reply_kinds(&self, protocol: resp::Protocol) -> KindSet {
        match protocol {
            resp::Protocol::Resp2 => self.kinds[0],
            resp::Protocol::Resp3 => self.kinds[1],
        }
    }

    /// The container's subcommands, in the table's order.
    pub(crate) fn subcommand_ids(&self) -> &[CommandId] {
        self.subcommands
            .as_deref()
            .map_or(&[], |subcommands| &subcommands.ids)
    }

    /// Whether it only holds subcommands. (`COMMAND` does, and is a command of its own too.)
    #[must_use]
    pub fn is_container(&self) -> bool {
        self.subcommands.is_some()
    }

    /// Whether it is a container's subcommand.
    #[must_use]
    pub fn is_subcommand(&self) -> bool {
        self.row.name.contains('|')
    }

    /// Whether it is Keyway's own, which no server has.
    #[must_use]
    pub fn is_own(&self) -> bool {
        &*self.row.group == "keyway"
    }

    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    #[inline]
    pub(crate) fn only_first(&self) -> Option<KeyFlags> {
        self.only_first
    }

    pub(crate) fn extraction_by_hand(&self) -> Option<ByHand> {
        self.by_hand
    }

    #[inline]
    pub(crate) fn disposition(&self) -> Disposition {
        self.disposition
    }
}

/// All commands that Keyway knows.
#[derive(Clone, Debug)]
pub struct CommandTable {
    commands: Vec<Command>,
    /// Top-level names.
    top: NameIndex,
}

impl CommandTable {
    /// No table grows beyond this: ids are 16 bits, and a cluster must not make us hold more.
    pub const COMMANDS_MAX: usize = 16_384;

    /// Valkey 9.1.2's own table, parsed on first use.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static TABLE: LazyLock<CommandTable> =
            LazyLock::new(|| CommandTable::from_rows(builtin::rows()));
        &TABLE
    }

    /// Gives every row its id, in order. Rows beyond [`Self::COMMANDS_MAX`] and second rows of one
    /// name are left out.
    pub(crate) fn from_rows(rows: Vec<Row>) -> Self {
        let mut commands: Vec<Command> = (0_u16..)
            .zip(rows)
            .take(Self::COMMANDS_MAX)
            .map(|(id, row)| Command::new(CommandId::new(id), row))
            .collect();
        let top = NameIndex::new(
            commands
                .iter()
                .filter(|command| !command.is_subcommand())
                .map(|command| (command.name(), command.id)),
        );
        let mut families: Vec<(CommandId, Vec<CommandId>)> = Vec::new();
        for command in &commands {
            let Some((parent, _)) = command.name().split_once('|') else {
                continue;
            };
            let Some(parent) = top.get(parent.as_bytes()) else {
                continue;
            };
            match families.iter_mut().find(|(id, _)| *id == parent) {
                Some((_, ids)) => ids.push(command.id),
                None => families.push((parent, vec![command.id])),
            }
        }
        for (parent, ids) in families {
            let index = NameIndex::new(ids.iter().filter_map(|id| {
                let (_, name) = commands.get(id.index())?.name().split_once('|')?;
                Some((name, *id))
            }));
            if let Some(parent) = commands.get_mut(parent.index()) {
                parent.subcommands = Some(Box::new(Subcommands { index, ids }));
            }
        }
        Self { commands, top }
    }

    /// The command of this id; `None` when the id is of a larger table.
    #[inline]
    #[must_use]
    pub fn get(&self, id: CommandId) -> Option<&Command> {
        self.commands.get(id.index())
    }

    pub(crate) fn set_handling(&mut self, id: CommandId, handling: Handling) {
        if let Some(command) = self.commands.get_mut(id.index()) {
            command.disposition = Disposition::Always(handling);
            command.kinds = [KindSet::ANY; 2];
        }
    }

    /// The command of this full name, in any case: `get`, `client|setname`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Command> {
        match name.split_once('|') {
            None => self.resolve(name.as_bytes(), None),
            Some((container, name)) => {
                let container = self.resolve(container.as_bytes(), None)?;
                self.get(container.subcommands.as_ref()?.index.get(name.as_bytes())?)
            }
        }
    }

    /// The command of these first two arguments. A container without a second argument is meant
    /// itself; with one that is no subcommand, there is no command.
    #[inline]
    pub(crate) fn resolve(&self, name: &[u8], second: Option<&[u8]>) -> Option<&Command> {
        let command = self.get(self.top.get(name)?)?;
        match (&command.subcommands, second) {
            (Some(subcommands), Some(second)) => self.get(subcommands.index.get(second)?),
            _ => Some(command),
        }
    }

    /// All commands, containers and subcommands included, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Command> {
        self.commands.iter()
    }

    /// Those of the servers: what `COMMAND` tells of, by id.
    pub(crate) fn of_servers(&self) -> impl Iterator<Item = &Command> + Clone {
        self.commands.iter().filter(|command| !command.is_own())
    }

    /// The same without subcommands.
    pub(crate) fn top_level(&self) -> impl Iterator<Item = &Command> + Clone {
        self.of_servers().filter(|command| !command.is_subcommand())
    }

    /// How many there are; ids are below.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

#[cfg(test)]
mod tests;
