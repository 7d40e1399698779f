//! Plans in words.

use command::{Command, TransactionKind};
use routing::Plan;

/// In one line, where a command goes.
pub(super) fn goes_to(plan: &Plan, command: &Command) -> String {
    match plan {
        Plan::Slot { .. } => "the owner of the slot".to_owned(),
        Plan::Any | Plan::Instead(_) => "any primary".to_owned(),
        Plan::Split(split) => format!("the owners of {} slots", split.parts.len()),
        Plan::FanOut(_) | Plan::Wait => "every shard's primary".to_owned(),
        Plan::EveryNode(_) => "every node, replicas too".to_owned(),
        Plan::Scan => "one shard after the other".to_owned(),
        Plan::Guarded { .. } => "the owner of the slot, in a transaction".to_owned(),
        Plan::Blocking { .. } => "the owner of the slot, on a connection of its own".to_owned(),
        Plan::Transaction {
            kind: TransactionKind::Watch,
            ..
        } => "the owner of the slot, on a connection of its own until EXEC".to_owned(),
        Plan::Transaction { .. } => "Keyway, which gathers the transaction".to_owned(),
        Plan::Subscription(_) => {
            "Keyway, which subscribes once for all clients of a worker".to_owned()
        }
        Plan::Clients | Plan::Local(_) => "Keyway, which answers itself".to_owned(),
        Plan::Refuse(text) => format!("nobody; {} is answered with: {text}", command.name()),
    }
}

/// Why.
pub(super) fn why(plan: &Plan, command: &Command) -> Vec<String> {
    let mut why = Vec::new();
    let mut say = |text: &str| why.push(text.to_owned());
    match plan {
        Plan::Slot { .. } if command.has_keys() => say("all its keys are in one slot"),
        Plan::Slot { .. } => say("a channel is served by the owner of its name's slot, for order"),
        Plan::Any => say("it has no keys, and any primary gives the same answer"),
        Plan::Instead(_) => say("it has no keys; only what may be seen is asked for"),
        Plan::Split(_) => {
            say("its keys are in several slots: it is cut, and the replies are merged");
            say("it is not atomic so; cross_slot = \"refuse\" answers CROSSSLOT instead");
        }
        Plan::FanOut(_) => {
            say("it is about all keys: every shard is asked, the replies are merged")
        }
        Plan::EveryNode(_) => say("each node keeps this for itself"),
        Plan::Scan => say("the cursor says where it goes on; 64 bits, as one server's"),
        Plan::Wait => say("the client's writes may have gone to every shard"),
        Plan::Guarded { .. } => {
            say("it names keys by their contents: a node must see that they are its own")
        }
        Plan::Blocking { .. } => say("it may block, and would stop others on a shared connection"),
        Plan::Transaction { .. } => say("MULTI to EXEC is sent in one piece; all keys in one slot"),
        Plan::Subscription(_) => say("messages are passed on to those who have subscribed"),
        Plan::Clients => say("it is about Keyway's clients, of all workers"),
        Plan::Local(_) => {
            say("it is about the client's own connection, or what Keyway shows of itself")
        }
        Plan::Refuse(_) => {}
    }
    if touches_data(plan) {
        say(if command.may_write() {
            "it may write: the primary alone takes it, and it is never sent twice"
        } else {
            "it only reads: it is asked again when a node is lost"
        });
    }
    why
}

/// Why this lane.
pub(super) fn about_lane(lane: Option<&str>, command: &Command) -> Option<String> {
    let text = match lane? {
        "bulk" if command.is_slow() => "bulk lane: it may take long, and must not hold up others",
        "bulk" => "bulk lane: it is big, and must not hold up others",
        _ => "fast lane; commands of clients that were just given big replies take the bulk lane",
    };
    Some(text.to_owned())
}

/// Whether clients that have asked for it have this read elsewhere than at the primary.
pub(super) fn may_go_to_a_replica(plan: &Plan) -> bool {
    matches!(plan, Plan::Slot { .. } | Plan::Split(_))
}

fn touches_data(plan: &Plan) -> bool {
    !matches!(
        plan,
        Plan::Transaction { .. }
            | Plan::Subscription(_)
            | Plan::Clients
            | Plan::Local(_)
            | Plan::Refuse(_)
    )
}
