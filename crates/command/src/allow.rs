//! Commands that are refused unless whoever runs Keyway allows them by name.

use std::fmt;

use crate::flags::Flags;
use crate::handling::{Disposition, FanOut, Handling, Refusal};
use crate::table::{Command, CommandTable};

/// Why naming a command allows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAllowed {
    /// The table has no such command. The cluster may have it.
    Unknown,
    /// It only holds subcommands.
    Container,
    /// It is not refused.
    NotRefused,
    /// It is about one node or one connection, and Keyway stands for a whole cluster.
    OneNode,
    /// It is a module's, and where its keys are is not told: no node can be chosen for it.
    NoKeys,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no command has this name",
            Self::Container => "it has subcommands; name those that are meant",
            Self::NotRefused => "it is not refused anyway",
            Self::OneNode => "it is about one node or one connection; send it to that node",
            Self::NoKeys => "the cluster does not tell where its keys are",
        })
    }
}

impl CommandTable {
    /// Allows a refused command, named as a client or as `COMMAND` has it (`CONFIG SET`,
    /// `config|set`). What administers the servers then goes to all of them or, if all would say
    /// the same, to any; a module's command that blocks or has to do with its connection gets a
    /// connection to itself.
    ///
    /// # Errors
    /// [`NotAllowed`]: nothing has changed.
    pub fn allow(&mut self, name: &str) -> Result<(), NotAllowed> {
        let full = name.trim().to_ascii_lowercase().replace(' ', "|");
        let command = self.by_name(&full).ok_or(NotAllowed::Unknown)?;
        if command.is_container() {
            return Err(NotAllowed::Container);
        }
        let Disposition::Always(Handling::Refused(refusal)) = command.disposition() else {
            return Err(NotAllowed::NotRefused);
        };
        let handling = match refusal {
            Refusal::Harmful => administers(&full).ok_or(NotAllowed::OneNode)?,
            Refusal::NotBuilt(_) => foreign(command)?,
        };
        let id = command.id();
        self.set_handling(id, handling);
        Ok(())
    }
}

/// As the table's policies have it; where it has none, what makes sense.
fn administers(name: &str) -> Option<Handling> {
    Some(match name {
        "acl|deluser" | "acl|load" | "acl|save" | "acl|setuser" | "bgrewriteaof" | "bgsave"
        | "config|resetstat" | "config|rewrite" | "config|set" | "module|load"
        | "module|loadex" | "module|unload" | "save" => Handling::EveryNode(FanOut::Same),
        "acl|getuser" | "acl|list" | "acl|users" => Handling::AnyPrimary,
        "swapdb" => Handling::FanOut(FanOut::Same),
        _ => return None,
    })
}

fn foreign(command: &Command) -> Result<Handling, NotAllowed> {
    let many = command.policy("request_policy");
    if command.flags().contains(Flags::ADMIN) && !command.has_keys() {
        let kind = match command.policy("response_policy") {
            Some("agg_sum") => FanOut::Sum,
            Some("one_succeeded") => FanOut::OneSucceeds,
            _ => FanOut::Same,
        };
        return Ok(match many {
            Some("all_nodes") => Handling::EveryNode(kind),
            Some("all_shards") => Handling::FanOut(kind),
            _ => Handling::AnyPrimary,
        });
    }
    if crate::handling::keys_are_known(command.row()) {
        Ok(Handling::Blocking)
    } else {
        Err(NotAllowed::NoKeys)
    }
}

#[cfg(test)]
mod tests {
    use resp::OwnedRequest;

    use crate::notation;

    use super::*;

    fn handling(table: &CommandTable, line: &str) -> Handling {
        let request = OwnedRequest::from_args(line.split(' '));
        let request = request.as_request();
        table.lookup(request).unwrap().handling(request)
    }

    #[test]
    fn what_is_named_is_allowed_and_nothing_else() {
        let mut table = CommandTable::builtin().clone();
        assert_eq!(table.allow("CONFIG SET"), Ok(()));
        assert_eq!(table.allow("acl|list"), Ok(()));
        assert_eq!(
            handling(&table, "CONFIG SET maxmemory 1"),
            Handling::EveryNode(FanOut::Same)
        );
        assert_eq!(handling(&table, "ACL LIST"), Handling::AnyPrimary);
        assert!(matches!(
            handling(&table, "ACL SETUSER x"),
            Handling::Refused(_)
        ));
        for (name, why) in [
            ("CONFIG", NotAllowed::Container),
            ("CONFIG GET", NotAllowed::NotRefused),
            ("GET", NotAllowed::NotRefused),
            ("SHUTDOWN", NotAllowed::OneNode),
            ("MONITOR", NotAllowed::OneNode),
            ("CLUSTER FORGET", NotAllowed::OneNode),
            ("CONFIG SETT", NotAllowed::Unknown),
            ("", NotAllowed::Unknown),
        ] {
            assert_eq!(table.allow(name), Err(why), "{name}");
        }
    }

    #[test]
    fn a_modules_command_is_allowed_by_what_it_does() {
        let key = "{flags <RO> begin_search {type index spec {index 1}} \
                   find_keys {type range spec {lastkey 0 keystep 1 limit 0}}}";
        let entry = |name: &str, flags: &str, tips: &str, spec: &str| {
            format!("[{name} -2 <{flags}> 0 0 0 <> <{tips}> <{spec}> []]")
        };
        let entries = format!(
            "[{} {} {} {}]",
            entry("mod.wait", "+blocking", "", key),
            entry("mod.odd", "+blocking", "", ""),
            entry("mod.tune", "+admin", "request_policy:all_nodes", ""),
            entry("mod.see", "+admin", "", ""),
        );
        let mut table = CommandTable::builtin()
            .extended(&notation::parse(&entries).unwrap())
            .unwrap();
        assert!(matches!(
            handling(&table, "MOD.WAIT k"),
            Handling::Refused(_)
        ));
        assert_eq!(table.allow("MOD.WAIT"), Ok(()));
        assert_eq!(handling(&table, "MOD.WAIT k"), Handling::Blocking);
        assert_eq!(table.allow("mod.odd"), Err(NotAllowed::NoKeys));
        assert_eq!(table.allow("mod.tune"), Ok(()));
        assert_eq!(
            handling(&table, "MOD.TUNE x"),
            Handling::EveryNode(FanOut::Same)
        );
        assert_eq!(table.allow("mod.see"), Ok(()));
        assert_eq!(handling(&table, "MOD.SEE x"), Handling::AnyPrimary);
    }
}
