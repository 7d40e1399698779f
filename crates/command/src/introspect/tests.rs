use resp::Value;

use super::*;
use crate::testing::request;

/// Length and FNV-1a of `COMMAND INFO` and `COMMAND DOCS` of every command but containers, from a
/// 9.1.2 in both protocols. See `data/README.md`.
const CAPTURED: &str = include_str!("../../data/captured/replies.tsv");

fn ask(line: &str, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    reply(
        CommandTable::builtin(),
        request(line).as_request(),
        protocol,
        &mut out,
    );
    out
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn info_and_docs_are_the_servers_byte_for_byte() {
    let mut checked = 0;
    for line in CAPTURED.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, name, protocol, len, hash] = fields[..] else {
            panic!("{line}")
        };
        let protocol = if protocol == "2" {
            Protocol::Resp2
        } else {
            Protocol::Resp3
        };
        let reply = ask(&format!("COMMAND {kind} {name}"), protocol);
        let shown = String::from_utf8_lossy(&reply);
        assert_eq!(
            reply.len().to_string(),
            len,
            "{kind} {name} {protocol:?}: {shown}"
        );
        assert_eq!(
            format!("{:016x}", fnv(&reply)),
            hash,
            "{kind} {name} {protocol:?}: {shown}"
        );
        checked += 1;
    }
    assert_eq!(checked, 4 * (399 - 16));
}

#[test]
fn containers_hold_the_entries_of_their_subcommands() {
    let info = |name: &str| {
        let (value, _) =
            Value::parse(&ask(&format!("COMMAND INFO {name}"), Protocol::Resp3)).unwrap();
        value.as_array().unwrap()[0].clone()
    };
    let config = info("config");
    let subcommands = config.as_array().unwrap()[9].as_array().unwrap();
    assert_eq!(subcommands.len(), 5);
    for subcommand in subcommands {
        let name = subcommand.as_array().unwrap()[0].as_str().unwrap();
        assert_eq!(*subcommand, info(name));
    }
}

#[test]
fn all_commands_at_once() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let all = ask("COMMAND", protocol);
        assert_eq!(all, ask("COMMAND INFO", protocol));
        let (value, len) = Value::parse(&all).unwrap();
        assert_eq!(len, all.len());
        assert_eq!(value.as_array().unwrap().len(), 257);
        // As long as the server's, whose order is another.
        assert_eq!(all.len(), 98_135);
    }
    assert_eq!(ask("COMMAND DOCS", Protocol::Resp2).len(), 238_582);
    assert_eq!(ask("COMMAND DOCS", Protocol::Resp3).len(), 237_951);
    assert_eq!(ask("COMMAND COUNT", Protocol::Resp2), b":257\r\n");
}

#[test]
fn names_that_are_no_commands() {
    for (protocol, null) in [(Protocol::Resp2, "$-1\r\n"), (Protocol::Resp3, "_\r\n")] {
        let info = ask(
            "COMMAND INFO nosuch config|nosuch get|x config|get|x",
            protocol,
        );
        assert_eq!(
            String::from_utf8(info).unwrap(),
            format!("*4\r\n{}", null.repeat(4))
        );
    }
    assert_eq!(ask("COMMAND DOCS nosuch", Protocol::Resp2), b"*0\r\n");
    assert_eq!(ask("COMMAND DOCS nosuch", Protocol::Resp3), b"%0\r\n");
}

#[test]
fn lists() {
    let list = |filter: &str| {
        let (value, _) =
            Value::parse(&ask(&format!("COMMAND LIST{filter}"), Protocol::Resp2)).unwrap();
        let Value::Array(items) = value else {
            return vec![String::from_utf8_lossy(value.as_error().unwrap()).into_owned()];
        };
        items
            .iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(list("").len(), 399);
    let xinfo = [
        "xinfo",
        "xinfo|consumers",
        "xinfo|groups",
        "xinfo|help",
        "xinfo|stream",
    ];
    assert_eq!(list(" FILTERBY PATTERN XINF*"), xinfo);
    assert_eq!(list(" filterby aclcat Scripting").len(), 22);
    for none in [" FILTERBY ACLCAT nope", " FILTERBY MODULE json"] {
        assert_eq!(list(none), Vec::<String>::new());
    }
    for wrong in [
        " x",
        " FILTERBY",
        " FILTERBY PATTERN",
        " FILTERBY FOO x",
        " FILTERBY PATTERN a b",
    ] {
        assert_eq!(list(wrong), ["ERR syntax error"], "{wrong}");
    }
}

#[test]
fn help_and_get_keys() {
    let help = ask("COMMAND HELP", Protocol::Resp3);
    assert!(help.starts_with(
        b"*21\r\n+COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n"
    ));
    assert!(help.ends_with(b"+HELP\r\n+    Print this help.\r\n"));
    assert_eq!(
        ask("COMMAND GETKEYS mset a 1 b 2", Protocol::Resp2),
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    );
    assert_eq!(ask("COMMAND GETKEYS eval s 0", Protocol::Resp2), b"*0\r\n");
}

#[test]
fn too_many_names_are_refused() {
    let names = " get".repeat(NAMES_MAX);
    assert!(ask(&format!("COMMAND INFO{names}"), Protocol::Resp2).starts_with(b"*1024\r\n"));
    let refused = b"-ERR too many command names\r\n";
    assert_eq!(
        ask(&format!("COMMAND INFO{names} get"), Protocol::Resp2),
        refused
    );
    assert_eq!(
        ask(&format!("COMMAND DOCS{names} get"), Protocol::Resp3),
        refused
    );
}
