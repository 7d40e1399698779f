//! `docs/commands.md` says of every command what Keyway does with it, as the table has it.
//! `UPDATE_DOCS=1 cargo test -p keyway-tests --test commands_doc` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use command::{Command, CommandTable, FanOut, Handling, Refusal, SplitKind};
use keyway_tests::tools::root;
use resp::OwnedRequest;

const HEAD: &str = "# Commands

Every command of Valkey 9.1, what Keyway does with it, and [its own](#keyway). Written by a test from the table that Keyway routes by; do not edit.
`./tests/compat` compares each of them with one real server that has all slots; [the differences](../tests/rows/differences.txt) that
remain are listed with a reason.

What the words mean:

| word | what happens |
|---|---|
| by key | goes to the primary that owns the slot of its keys; keys of several slots get `CROSSSLOT`, as from a node |
| split | as by key; over several slots it is cut into one command for each, and the replies are put together (`cross_slot`) |
| any primary | goes to a primary, whichever |
| every shard | goes to all primaries; the replies become one |
| every node | the same with replicas, for what each node keeps for itself |
| own connection | goes to the owner of its keys on a connection that is the client's alone while it waits |
| session | Keyway keeps it for the client and sends it when its time comes |
| subscription | one subscription on a node serves all clients of a worker |
| here | Keyway answers, as a server that owns every slot would |
| refused | an error that names the command |

Commands that the cluster knows and this list does not (modules, newer servers) are routed by their key specs; those that block,
administrate, or have to do with the connection are refused.

";

/// What is worth knowing beside the way.
const NOTES: &[(&str, &str)] = &[
    ("acl|whoami", "as the client's own user"),
    ("asking", "no slot ever migrates here"),
    ("auth", "Valkey judges the credentials"),
    (
        "client|pause",
        "of Keyway's clients; the nodes are not paused",
    ),
    (
        "client|tracking",
        "`ON` is refused: connections to the nodes are shared",
    ),
    ("cluster|info", "one virtual primary that owns every slot"),
    ("cluster|nodes", "one virtual primary that owns every slot"),
    ("cluster|shards", "one virtual primary that owns every slot"),
    ("cluster|slots", "one virtual primary that owns every slot"),
    ("cluster|slot-stats", "`ORDERBY` orders within each shard"),
    (
        "clusterscan",
        "by the slot in its cursor; `SCAN` goes through the whole cluster too",
    ),
    (
        "config|get",
        "what clients probe for, from any primary; nothing for everything else",
    ),
    (
        "evalsha",
        "a script that any client has shown is loaded where it is missing",
    ),
    (
        "exec",
        "the transaction is sent as one block; all keys in one slot, else `CROSSSLOT`, or one block for each (`cross_slot`)",
    ),
    ("fcall", "functions are loaded on every shard"),
    ("flushall", "not at one moment: each shard for itself"),
    ("flushdb", "not at one moment: each shard for itself"),
    ("function|list", "all shards have the same"),
    (
        "keyway|bigkeys",
        "`[COUNT n]`: keys whose values were seen to be big, of 16 KiB or more",
    ),
    (
        "keyway|hotkeys",
        "`[COUNT n] [BY OPS\\|BYTES]`: from a sample; what is ten seconds old counts half",
    ),
    (
        "keyway|hotslots",
        "`[COUNT n] [BY OPS\\|BYTES]`: rates, and exact counts since the start",
    ),
    (
        "keyway|slowlog",
        "`GET [n]`, `LEN`, `RESET`: commands that took long for Keyway's clients",
    ),
    ("info", "of Keyway and the cluster's size"),
    ("latency|histogram", "of one node"),
    ("memory|stats", "of one node"),
    ("memory|doctor", "of one node"),
    (
        "msetex",
        "in a transaction with `EXISTS` of its keys: 9.1.2 does not look for their owner",
    ),
    (
        "multi",
        "commands about every shard, and subscriptions, cannot be in it",
    ),
    (
        "publish",
        "the count is of the node that owns the channel's slot",
    ),
    (
        "pubsub|numsub",
        "clients of this Keyway and of nodes; those of another Keyway count once for each of its workers",
    ),
    (
        "pubsub|shardnumsub",
        "clients of this Keyway and of nodes; those of another Keyway count once for each of its workers",
    ),
    (
        "readonly",
        "reads go to a fit node in Keyway's own zone, writes to the primary",
    ),
    (
        "scan",
        "cursors are integers and go through all slots; nothing is missed while slots move at once",
    ),
    (
        "select",
        "as many databases as the cluster has (`cluster-databases`)",
    ),
    (
        "subscribe",
        "asked for again after a node is lost; messages until then are lost, as on a server",
    ),
    (
        "slowlog|get",
        "as many of each node as are asked for; `KEYWAY SLOWLOG` for the time that clients waited",
    ),
    ("ssubscribe", "follows its slot"),
    (
        "wait",
        "the least of all shards; needs the right to `FUNCTION RESTORE`, whose empty form is the write that a shard waits for",
    ),
    ("waitaof", "the least of all shards; see `WAIT`"),
    (
        "watch",
        "all watched keys in one slot; on a connection of its own until `EXEC`, `DISCARD` or `UNWATCH`",
    ),
    ("xread", "with `BLOCK` on a connection of its own"),
    ("xreadgroup", "with `BLOCK` on a connection of its own"),
];

/// A request that has nothing but the name: enough to know the way.
fn way(command: &Command) -> &'static str {
    let request = OwnedRequest::from_args(command.name().split('|'));
    match command.handling(request.as_request()) {
        Handling::Shared | Handling::Guarded | Handling::BySlot => "by key",
        Handling::AnyPrimary | Handling::Probed => "any primary",
        Handling::Split(SplitKind::Mget | SplitKind::Mset | SplitKind::Sum) => "split",
        Handling::FanOut(kind) => fan_out(kind),
        Handling::EveryNode(FanOut::Newest) => "every node: all elements, the newest first",
        Handling::EveryNode(FanOut::Sum) => "every node: the sum",
        Handling::EveryNode(_) => "every node: the first reply, when all succeed",
        Handling::Scan => "every shard, one after the other",
        Handling::Blocking => "own connection",
        Handling::Wait => "every shard: the least, on own connections",
        Handling::Transaction(_) => "session",
        Handling::Subscription(_) => "subscription",
        Handling::Local(_) => "here",
        Handling::Clients if command.name() == "keyway|help" => "here",
        Handling::Clients if command.is_own() => "here, when Valkey lets the user `SLOWLOG GET`",
        Handling::Clients => "here, for the clients of all workers, when Valkey lets the user",
        Handling::Refused(Refusal::Harmful)
            if CommandTable::builtin()
                .clone()
                .allow(command.name())
                .is_ok() =>
        {
            "refused, unless `[admin_commands]` allows it: it would harm the cluster or tell of it"
        }
        Handling::Refused(Refusal::Harmful) => "refused: it would harm the cluster or tell of it",
        Handling::Refused(Refusal::NotBuilt(_)) => "refused: not built yet",
    }
}

fn fan_out(kind: FanOut) -> &'static str {
    match kind {
        FanOut::Sum => "every shard: the sum",
        FanOut::SumPairs => "every shard: the sums",
        FanOut::Same => "every shard: the first reply, when all succeed",
        FanOut::And | FanOut::Min => "every shard: the least",
        FanOut::Concatenate | FanOut::Newest => "every shard: all elements",
        FanOut::Union => "every shard: all elements, each once",
        FanOut::OneSucceeds => "every shard: a success, if there is one",
        FanOut::Random => "every shard: one that is there",
    }
}

fn document() -> String {
    let mut groups: BTreeMap<String, Vec<&Command>> = BTreeMap::new();
    for command in CommandTable::builtin().iter() {
        if !command.is_container() || command.name() == "command" {
            let group = command.group().to_owned();
            groups.entry(group).or_default().push(command);
        }
    }
    let mut text = HEAD.to_owned();
    for (group, mut commands) in groups {
        commands.sort_by_key(|command| command.name().to_owned());
        let _ = write!(
            text,
            "## {group}\n\n| command | Keyway | note |\n|---|---|---|\n"
        );
        for command in commands {
            let name = command.name();
            let note = NOTES.iter().find(|(known, _)| *known == name);
            let note = note.map_or("", |(_, note)| note);
            let shown = name.replace('|', " ").to_uppercase();
            let _ = writeln!(text, "| `{shown}` | {} | {note} |", way(command));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[test]
fn the_commands_page_is_true() {
    let path = root().join("docs/commands.md");
    let text = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).expect("the page can be written");
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == text,
        "docs/commands.md is old: run UPDATE_DOCS=1 cargo test -p keyway-tests --test commands_doc"
    );
    for (name, _) in NOTES {
        assert!(CommandTable::builtin().by_name(name).is_some(), "{name}");
    }
}
