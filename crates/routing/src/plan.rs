//! What becomes of a command.

use command::{
    Command, FanOut, Handling, KeyFlags, KeyRefs, LocalKind, SplitKind, Subscription,
    TransactionKind,
};
use resp::Request;
use topology::Slot;

use crate::{
    keys::Keys,
    split::{SPLIT_KEYS_MAX, Split},
};

const CROSSSLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// What becomes of `MGET`, `MSET`, `DEL`, `UNLINK`, `EXISTS` and `TOUCH` over several slots, and of
/// transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossSlot {
    /// One command for each slot, the replies merged. Not atomic.
    #[default]
    Split,
    /// The same, and one transaction for each slot of `MULTI` to `EXEC`.
    SplitTransactions,
    /// `CROSSSLOT`, as a node says.
    Refuse,
}

/// What becomes of one command.
#[derive(Debug)]
pub enum Plan {
    /// It goes to the owner of this slot.
    Slot {
        /// The slot of all its keys.
        slot: Slot,
        /// Its keys.
        keys: Keys,
    },
    /// Any primary does.
    Any,
    /// Any primary does, with this request instead.
    Instead(Vec<u8>),
    /// It is cut into parts for several slots.
    Split(Box<Split>),
    /// It goes to every shard.
    FanOut(FanOut),
    /// It goes to every node, replicas too.
    EveryNode(FanOut),
    /// It looks through one shard after the other.
    Scan,
    /// It waits for the replicas of every shard.
    Wait,
    /// It goes to the owner of this slot, in a transaction with a command whose keys a node looks for.
    Guarded {
        /// The slot of all its keys.
        slot: Slot,
        /// Its keys.
        keys: Keys,
    },
    /// It may block: it goes to the owner of this slot, on a connection of its own.
    Blocking {
        /// The slot of all its keys.
        slot: Slot,
        /// Its keys.
        keys: Keys,
    },
    /// It is about a transaction. `WATCH` has keys, and they are in one slot.
    Transaction {
        /// What it does.
        kind: TransactionKind,
        /// The slot of its keys.
        slot: Option<Slot>,
        /// Its keys.
        keys: Keys,
    },
    /// It begins or ends subscriptions.
    Subscription(Subscription),
    /// The proxy answers for all its workers.
    Clients,
    /// The proxy answers.
    Local(LocalKind),
    /// It goes nowhere. The error line, without `-` and CRLF.
    Refuse(String),
}

/// Decides what becomes of `request`, which is a well-formed call of `command`. `hasher` makes the
/// fingerprints of the keys; it must be the same for every command of one client.
#[must_use]
pub fn plan(
    command: &Command,
    request: Request<'_>,
    cross_slot: CrossSlot,
    hasher: &foldhash::fast::FixedState,
) -> Plan {
    match command.handling(request) {
        Handling::Shared => whole(command, request, hasher),
        // The order of messages on one channel is the order in which one node sees them.
        Handling::AnyPrimary if command.is_publish() => {
            let channel = request.arg(1).unwrap_or_default();
            let mut keys = Keys::none();
            keys.push_channel(channel, hasher);
            Plan::Slot {
                slot: Slot::of_key(channel),
                keys,
            }
        }
        Handling::AnyPrimary => Plan::Any,
        Handling::Probed => Plan::Instead(probe(request)),
        Handling::BySlot => by_number(request),
        // A key without its value: no part of it may run.
        Handling::Split(SplitKind::Mset) if request.argc().is_multiple_of(2) => {
            Plan::Refuse("ERR wrong number of arguments for 'mset' command".to_owned())
        }
        Handling::Split(kind) => match cross_slot {
            CrossSlot::Refuse => whole(command, request, hasher),
            CrossSlot::Split | CrossSlot::SplitTransactions => {
                match Split::cut(kind, request, hasher) {
                    None => whole(command, request, hasher),
                    Some(_) if request.argc() > SPLIT_KEYS_MAX => Plan::Refuse(format!(
                        "ERR '{}' over several slots is limited to {SPLIT_KEYS_MAX} arguments",
                        command.name()
                    )),
                    Some(split) => Plan::Split(Box::new(split)),
                }
            }
        },
        Handling::FanOut(kind) => Plan::FanOut(kind),
        Handling::EveryNode(kind) => Plan::EveryNode(kind),
        Handling::Scan => Plan::Scan,
        Handling::Clients => Plan::Clients,
        Handling::Wait => Plan::Wait,
        Handling::Guarded => match whole(command, request, hasher) {
            Plan::Slot { slot, keys } => Plan::Guarded { slot, keys },
            other => other,
        },
        Handling::Subscription(about) => match whole(command, request, hasher) {
            Plan::Refuse(text) => Plan::Refuse(text),
            _ => Plan::Subscription(about),
        },
        Handling::Blocking => match whole(command, request, hasher) {
            Plan::Slot { slot, keys } => Plan::Blocking { slot, keys },
            other => other, // malformed: nothing to wait for
        },
        Handling::Transaction(kind) => match whole(command, request, hasher) {
            Plan::Slot { slot, keys } => Plan::Transaction {
                kind,
                slot: Some(slot),
                keys,
            },
            Plan::Refuse(text) => Plan::Refuse(text),
            _ => Plan::Transaction {
                kind,
                slot: None,
                keys: Keys::none(),
            },
        },
        Handling::Local(kind) => Plan::Local(kind),
        Handling::Refused(refusal) => Plan::Refuse(refusal.reply(command)),
    }
}

/// `CONFIG GET` of what may be seen.
fn probe(request: Request<'_>) -> Vec<u8> {
    let mut words = vec!["CONFIG", "GET"];
    words.extend(command::probed(request));
    let mut other = Vec::new();
    resp::write::request(&mut other, &words);
    other
}

/// A command whose second argument is the number of a slot.
fn by_number(request: Request<'_>) -> Plan {
    let number = request
        .arg(2)
        .and_then(|arg| std::str::from_utf8(arg).ok()?.parse().ok());
    match number.and_then(Slot::new) {
        Some(slot) => Plan::Slot {
            slot,
            keys: Keys::all(),
        },
        None => Plan::Any, // a node says what is wrong with it
    }
}

/// A command that goes to one node as it is.
fn whole(command: &Command, request: Request<'_>, hasher: &foldhash::fast::FixedState) -> Plan {
    let mut refs = KeyRefs::new();
    if command.keys(request, &mut refs).is_err() {
        // Malformed in a way that a node says best; it runs nothing.
        return Plan::Any;
    }
    let mut found = None;
    let mut keys = Keys::none();
    for key in refs {
        let name = request.arg(key.index()).unwrap_or_default();
        let slot = Slot::of_key(name);
        if *found.get_or_insert(slot) != slot {
            return Plan::Refuse(CROSSSLOT.to_owned());
        }
        if key.flags.contains(KeyFlags::NOT_KEY) {
            keys.push_channel(name, hasher);
        } else {
            keys.push(name, hasher);
        }
    }
    found.map_or(Plan::Any, |slot| Plan::Slot { slot, keys })
}

#[cfg(test)]
mod tests {
    use command::CommandTable;
    use resp::OwnedRequest;

    use super::*;

    fn planned(line: &str, cross_slot: CrossSlot) -> Plan {
        let request = OwnedRequest::from_args(line.split(' '));
        let table = CommandTable::builtin();
        let command = table.lookup(request.as_request()).unwrap();
        let hasher = foldhash::fast::FixedState::with_seed(3);
        plan(command, request.as_request(), cross_slot, &hasher)
    }

    fn slot_of(line: &str) -> Slot {
        match planned(line, CrossSlot::Split) {
            Plan::Slot { slot, .. } => slot,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_command_goes_where_its_keys_are() {
        let of = Slot::of_key;
        assert_eq!(slot_of("GET a"), of(b"a"));
        assert_eq!(slot_of("SET x{tag}y 1"), of(b"tag"));
        assert_eq!(slot_of("MSETNX a{1} x b{1} y"), of(b"1"));
        assert_eq!(slot_of("MGET a{1} b{1}"), of(b"1"));
        assert_eq!(slot_of("EVAL return 2 a{1} b{1} b"), of(b"1"));
        assert_eq!(slot_of("XREAD COUNT 1 STREAMS s 0"), of(b"s"));
        assert_eq!(slot_of("PUBLISH news hello"), of(b"news"));
        assert_eq!(slot_of("SPUBLISH news hello"), of(b"news"));
    }

    #[test]
    fn a_channel_has_no_order_with_a_key_of_its_name() {
        let keys = |line| match planned(line, CrossSlot::Split) {
            Plan::Slot { keys, .. } => keys,
            other => panic!("{line}: {other:?}"),
        };
        for said in ["SPUBLISH x m", "PUBLISH x m"] {
            assert!(!keys("GET x").conflicts(&keys(said)), "{said}");
            assert!(keys("SPUBLISH x n").conflicts(&keys(said)), "{said}");
        }
        assert!(keys("GET x").conflicts(&keys("SET x 1")));
    }

    #[test]
    fn keys_in_several_slots_are_split_or_refused() {
        let crossed = |line| match planned(line, CrossSlot::Split) {
            Plan::Refuse(text) => assert_eq!(text, CROSSSLOT, "{line}"),
            other => panic!("{line}: {other:?}"),
        };
        crossed("MSETNX a 1 b 2");
        crossed("RENAME a b");
        crossed("SUNIONSTORE a b c");
        for line in [
            "MGET a b",
            "MSET a 1 b 2",
            "DEL a b",
            "UNLINK a b",
            "EXISTS a b",
            "TOUCH a b",
        ] {
            assert!(
                matches!(planned(line, CrossSlot::Split), Plan::Split(s) if s.parts.len() == 2)
            );
            assert!(matches!(planned(line, CrossSlot::Refuse), Plan::Refuse(t) if t == CROSSSLOT));
        }
    }

    #[test]
    fn what_has_no_keys_goes_anywhere_or_nowhere() {
        assert!(matches!(planned("TIME", CrossSlot::Split), Plan::Any));
        assert!(matches!(
            planned("EVAL return 0", CrossSlot::Split),
            Plan::Any
        ));
        assert!(matches!(
            planned("PING", CrossSlot::Split),
            Plan::Local(LocalKind::Ping)
        ));
        let Plan::Refuse(text) = planned("SHUTDOWN", CrossSlot::Split) else {
            panic!()
        };
        assert!(text.contains("shutdown"), "{text}");
        assert!(matches!(
            planned("SUBSCRIBE a b", CrossSlot::Split),
            Plan::Subscription(_)
        ));
        assert!(matches!(
            planned("SSUBSCRIBE a b", CrossSlot::Split),
            Plan::Refuse(_)
        ));
    }

    #[test]
    fn a_split_keeps_order_and_values() {
        let Plan::Split(split) = planned("MSET a 1 b 2 x{a} 3", CrossSlot::Split) else {
            panic!()
        };
        let requests: Vec<_> = split
            .parts
            .iter()
            .map(|part| split.request(part).to_vec())
            .collect();
        let expected = |args: &[&str]| {
            OwnedRequest::from_args(args.iter().copied())
                .bytes()
                .to_vec()
        };
        assert!(requests.contains(&expected(&["MSET", "a", "1", "x{a}", "3"])));
        assert!(requests.contains(&expected(&["MSET", "b", "2"])));
        assert!(matches!(
            planned("MSET a 1 b", CrossSlot::Split),
            Plan::Refuse(_)
        ));
    }
}
