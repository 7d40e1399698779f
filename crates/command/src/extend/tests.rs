use resp::{Protocol, Value};

use super::*;
use crate::testing::request;
use crate::{Handling, KeyRefs, KindSet, NotBuilt, Refusal, introspect, notation};

fn extended(entries: &str) -> Result<CommandTable, ExtendError> {
    CommandTable::builtin().extended(&notation::parse(entries).unwrap())
}

const SPEC: &str = "{flags <+RW +access> begin_search {type index spec {index 1}} \
                    find_keys {type range spec {lastkey 0 keystep 1 limit 0}}}";

fn entry(name: &str, flags: &str, specs: &str) -> String {
    format!("[{name} -2 <{flags}> 1 1 1 <+@read +@json> <tip> <{specs}> []]")
}

#[test]
fn the_tables_own_reply_adds_nothing() {
    let mut all = Vec::new();
    let table = CommandTable::builtin();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        all.clear();
        introspect::reply(table, request("COMMAND").as_request(), protocol, &mut all);
        let again = table.extended(&Value::parse(&all).unwrap().0).unwrap();
        assert_eq!(again.len(), table.len());
        // And a table that knew nothing would learn all of it.
        let learned = CommandTable::from_rows(Vec::new()).extended(&Value::parse(&all).unwrap().0);
        let learned = learned.unwrap();
        assert_eq!(learned.len(), table.of_servers().count());
        for command in table.of_servers() {
            let twin = learned.by_name(command.name()).unwrap();
            assert_eq!(twin.arity(), command.arity());
            assert_eq!(twin.flags(), command.flags());
            assert_eq!(twin.key_specs(), command.key_specs(), "{}", command.name());
            assert_eq!(twin.categories(), command.categories());
        }
    }
}

#[test]
fn a_module_command_is_routed_by_its_specs() {
    let entries = format!("[{}]", entry("Json.Get", "+readonly +module +future", SPEC));
    let table = extended(&entries).unwrap();
    let builtin = CommandTable::builtin();
    assert_eq!(table.len(), builtin.len() + 1);
    assert_eq!(
        table.by_name("get").unwrap().id(),
        builtin.by_name("get").unwrap().id()
    );
    let request = request("JSON.get doc $");
    let command = table.lookup(request.as_request()).unwrap();
    assert_eq!(command.id().index(), builtin.len());
    assert!(command.is_readonly());
    assert_eq!(command.handling(request.as_request()), Handling::Shared);
    assert_eq!(command.reply_kinds(Protocol::Resp3), KindSet::ANY);
    let mut keys = KeyRefs::new();
    command.keys(request.as_request(), &mut keys).unwrap();
    assert_eq!(keys.iter().map(|key| key.index).collect::<Vec<_>>(), [1]);
    // It is shown with what we have no word for.
    let mut out = Vec::new();
    introspect::reply(
        &table,
        super::tests::request("COMMAND INFO json.get").as_request(),
        Protocol::Resp2,
        &mut out,
    );
    let shown = String::from_utf8(out).unwrap();
    assert!(
        shown.contains("+future\r\n") && shown.contains("+@json\r\n"),
        "{shown}"
    );
}

#[test]
fn what_cannot_be_routed_is_refused() {
    let unknown =
        "{flags <+RW> begin_search {type unknown spec {}} find_keys {type unknown spec {}}}";
    let future = "{flags <+RW> begin_search {type oracle spec {}} find_keys {type oracle spec {}}}";
    let other = Handling::Refused(Refusal::NotBuilt(NotBuilt::Other));
    let lease = Handling::Refused(Refusal::NotBuilt(NotBuilt::Lease));
    for (flags, specs, expected) in [
        ("+readonly", "", other),
        ("+readonly", unknown, other),
        ("+readonly", future, other),
        ("+write +blocking", SPEC, lease),
        ("+admin", SPEC, other),
        ("+pubsub", SPEC, other),
    ] {
        let table = extended(&format!("[{}]", entry("x.y", flags, specs))).unwrap();
        let request = request("x.y a");
        let command = table.lookup(request.as_request()).unwrap();
        assert_eq!(
            command.handling(request.as_request()),
            expected,
            "{flags} {specs}"
        );
    }
}

#[test]
fn a_known_command_stays_as_it_is() {
    let table = extended(&format!("[{}]", entry("flushall", "+readonly", SPEC))).unwrap();
    assert_eq!(table.len(), CommandTable::builtin().len());
    assert!(table.by_name("flushall").unwrap().is_write());
    let sub = "[[client -2 <> 0 0 0 <> <> <> [[client|new 3 <> 0 0 0 <> <> <> []]]]]";
    let table = extended(sub).unwrap();
    assert_eq!(table.by_name("client|new").unwrap().arity(), 3);
    assert_eq!(table.by_name("client|id").unwrap().name(), "client|id");
}

#[test]
fn malformed_replies_change_nothing() {
    assert_eq!(extended("1").unwrap_err(), ExtendError::NotAList);
    for entry in [
        "get",
        "[]",
        "[x]",
        "[x -2 <> 1 1]",
        "[x 0 <> 0 0 0 <> <> <> []]",
        "[x 99999 <> 0 0 0 <> <> <> []]",
        "[\"x y\" -2 <> 0 0 0 <> <> <> []]",
        "[x|y -2 <> 0 0 0 <> <> <> []]",
        "[x -2 <> 0 0 0 <> <> <> [[y|z -2 <> 0 0 0 <> <> <> []]]]",
        "[x -2 <> 0 0 0 <> <> <{flags <> begin_search {type index spec {index -1}}}> []]",
    ] {
        assert_eq!(
            extended(&format!("[[get 2 <> 0 0 0 <> <> <> []] {entry}]")).unwrap_err(),
            ExtendError::Entry(1),
            "{entry}"
        );
    }
    let many: Vec<Value> = (0..=CommandTable::COMMANDS_MAX)
        .map(|number| notation::parse(&format!("[x{number} -2 <> 0 0 0 <> <> <> []]")).unwrap())
        .collect();
    assert_eq!(
        CommandTable::builtin()
            .extended(&Value::Array(many))
            .unwrap_err(),
        ExtendError::TooMany
    );
}
