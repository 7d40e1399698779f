use resp::Protocol;

use super::*;
use crate::handling::Disposition;
use crate::{CommandTable, Handling};

/// Every reply type seen on a 9.1.2: command, and the first bytes in RESP2 and RESP3. See
/// `data/README.md`.
const CAPTURED: &str = include_str!("../../data/captured/kinds.tsv");

#[test]
fn every_reply_seen_is_legal() {
    for line in CAPTURED.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, resp2, resp3] = fields[..] else {
            panic!("{line}")
        };
        let command = CommandTable::builtin().by_name(name).unwrap();
        for (protocol, seen) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            for byte in seen.bytes() {
                let kinds = command.reply_kinds(protocol);
                assert!(
                    kinds.contains(byte),
                    "{name} {protocol:?}: {} {kinds:?}",
                    char::from(byte)
                );
            }
        }
    }
}

/// What goes over shared connections has a set of its own, and was seen.
#[test]
fn every_forwarded_command_has_its_set() {
    let seen: Vec<&str> = CAPTURED
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    for command in CommandTable::builtin().iter() {
        let forwarded = matches!(
            command.disposition(),
            Disposition::Streams
                | Disposition::Always(
                    Handling::Shared
                        | Handling::AnyPrimary
                        | Handling::Split(_)
                        | Handling::FanOut(_)
                        | Handling::EveryNode(_)
                        | Handling::Scan
                        | Handling::Blocking
                )
        );
        let name = command.name();
        let narrow = command.reply_kinds(Protocol::Resp3) != KindSet::ANY;
        assert!(narrow || !forwarded, "{name} may answer anything");
        assert!(
            !forwarded || name.ends_with("|help") || seen.contains(&name),
            "{name} was not seen"
        );
    }
}

#[test]
fn names_are_listed_once() {
    let table = CommandTable::builtin();
    let names: Vec<&str> = TABLE
        .iter()
        .flat_map(|(_, _, names)| names.iter().copied())
        .collect();
    for name in &names {
        assert!(table.by_name(name).is_some(), "{name}");
        assert_eq!(
            names.iter().filter(|other| *other == name).count(),
            1,
            "{name}"
        );
    }
}

#[test]
fn sets_hold_what_they_say() {
    let set = KindSet::of(b"$_");
    assert!(set.contains(b'$') && set.contains(b'_') && set.contains(b'-'));
    assert!(!set.contains(b'*') && !set.contains(b'>') && !set.contains(b'\r') && !set.contains(0));
    assert!(!KindSet::ANY.contains(b'>') && KindSet::ANY.contains(b'%'));
    assert_eq!(set.bytes().collect::<Vec<_>>(), b"-$_");
}
