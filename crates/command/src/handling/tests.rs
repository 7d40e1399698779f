use std::collections::BTreeMap;

use super::*;
use crate::CommandTable;
use crate::testing::request;

fn handling(line: &str) -> Handling {
    let request = request(line);
    let command = CommandTable::builtin()
        .lookup(request.as_request())
        .unwrap();
    command.handling(request.as_request())
}

/// Every command on its list, so that a changed rule or a new row is seen. Shared are the
/// commands with keys that have one reply and leave the connection as it was.
#[test]
fn every_command_is_on_the_list_it_belongs_to() {
    let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for command in CommandTable::builtin().iter() {
        let list = match command.disposition() {
            Disposition::Script => "script",
            Disposition::ConfigGet => "config get",
            Disposition::Always(Handling::BySlot) => "by slot",
            Disposition::Always(Handling::Probed) => "config get",
            Disposition::Always(Handling::Clients) => "clients",
            Disposition::Always(Handling::Wait) => "wait",
            Disposition::Always(Handling::Guarded) => "guarded",
            Disposition::Streams => "streams",
            Disposition::Always(Handling::Shared) => "shared",
            Disposition::Always(Handling::AnyPrimary) => "any primary",
            Disposition::Always(Handling::Split(_)) => "split",
            Disposition::Always(Handling::FanOut(_) | Handling::EveryNode(_)) => "fan out",
            Disposition::Always(Handling::Subscription(_)) => "subscription",
            Disposition::Always(Handling::Scan) => "scan",
            Disposition::Always(Handling::Blocking) => "blocking",
            Disposition::Always(Handling::Transaction(_)) => "transaction",
            Disposition::Always(Handling::Local(_)) => "local",
            Disposition::Always(Handling::Refused(Refusal::Harmful)) => "harmful",
            Disposition::Always(Handling::Refused(Refusal::NotBuilt(needs))) => match needs {
                NotBuilt::Lease => "not built: lease",
                NotBuilt::Other => "other",
            },
        };
        lists.entry(list).or_default().push(command.name());
    }
    let actual: String = lists
        .iter()
        .map(|(list, names)| format!("{list}: {}\n", names.join(" ")))
        .collect();
    let expected = include_str!("lists.txt");
    assert_eq!(actual, expected, "\n{actual}");
}

/// Every name in the tables of this crate is a command's.
#[test]
fn no_name_is_misspelt() {
    for name in HARMFUL {
        assert!(CommandTable::builtin().by_name(name).is_some(), "{name}");
    }
}

#[test]
fn a_stream_is_shared_unless_it_blocks() {
    let lease = Handling::Blocking;
    let cases = [
        ("XREAD STREAMS s 0", Handling::Shared),
        ("XREAD COUNT 2 STREAMS block 0", Handling::Shared),
        ("XREADGROUP GROUP block block STREAMS s >", Handling::Shared),
        ("XREAD BLOCK 0 STREAMS s 0", lease),
        ("xreadgroup group g c count 1 block 5 streams s >", lease),
        ("XREAD FOO BLOCK 0 STREAMS s 0", lease),
        ("XREAD FOO STREAMS s 0", Handling::Shared),
        ("BLPOP k 0", lease),
    ];
    for (line, expected) in cases {
        assert_eq!(handling(line), expected, "{line}");
        let request = request(line);
        let command = CommandTable::builtin()
            .lookup(request.as_request())
            .unwrap();
        assert_eq!(
            command.blocks(request.as_request()),
            expected == lease,
            "{line}"
        );
    }
}

#[test]
fn refusals_name_the_command() {
    let refusal = |line: &str| {
        let request = request(line);
        let command = CommandTable::builtin()
            .lookup(request.as_request())
            .unwrap();
        match command.handling(request.as_request()) {
            Handling::Refused(refusal) => refusal.reply(command),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refusal("CONFIG SET a b"),
        "ERR command 'config|set' is not allowed through Keyway"
    );
}
