use super::*;

#[test]
fn ids_are_dense_and_names_distinct() {
    let table = CommandTable::builtin();
    assert_eq!(table.len(), 399 + 6);
    assert_eq!(table.of_servers().count(), 399);
    assert_eq!(table.top_level().count(), 257);
    for (index, command) in table.iter().enumerate() {
        assert_eq!(command.id().index(), index);
        assert_eq!(
            table.get(command.id()).map(Command::name),
            Some(command.name())
        );
    }
    let names: std::collections::HashSet<_> = table.iter().map(Command::name).collect();
    assert_eq!(names.len(), table.len());
    assert!(!names.contains(LABEL_OTHER));
}

#[test]
fn containers_hold_their_subcommands() {
    let table = CommandTable::builtin();
    let containers: Vec<_> = table
        .iter()
        .filter(|command| command.is_container())
        .collect();
    assert_eq!(containers.len(), 17);
    let held: usize = containers
        .iter()
        .map(|container| container.subcommand_ids().len())
        .sum();
    assert_eq!(
        held,
        table
            .iter()
            .filter(|command| command.is_subcommand())
            .count()
    );
}

#[test]
fn what_one_key_answers_is_a_string_or_a_number() {
    let all = CommandTable::builtin().iter();
    let of_one_key: Vec<_> = all.filter(|command| command.is_of_one_key()).collect();
    assert_eq!(of_one_key.len(), nature::OF_ONE_KEY.len());
    for command in of_one_key {
        assert!(command.answers_alike(), "{}", command.name());
        assert!(command.only_first().is_some(), "{}", command.name());
        assert_ne!(command.group(), "hash", "{}", command.name());
        for protocol in [resp::Protocol::Resp2, resp::Protocol::Resp3] {
            let kinds = command.reply_kinds(protocol).bytes();
            let other: Vec<u8> = kinds.filter(|kind| !b"-:$_".contains(kind)).collect();
            assert_eq!(other, b"", "{}", command.name());
        }
    }
}

#[test]
fn what_a_command_may_do() {
    let command = |name| CommandTable::builtin().by_name(name).unwrap();
    assert!(command("get").is_readonly() && !command("get").may_write());
    assert!(command("set").is_write() && command("set").may_write());
    // Neither flag: the cautious answer.
    for name in ["eval", "fcall", "spublish", "publish", "ping"] {
        assert!(
            !command(name).is_write() && command(name).may_write(),
            "{name}"
        );
    }
    assert!(command("eval").is_script() && command("fcall_ro").is_script());
    assert!(!command("get").is_script());
    assert_eq!(
        command("dbsize").policy("request_policy"),
        Some("all_shards")
    );
    assert_eq!(command("get").policy("request_policy"), None);
}
