//! `keyway explain`: where a command goes, and why. The command is planned here by the same code
//! that serves clients; only the topology is asked for, so keys stay on this machine.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use command::{Command, CommandTable, KeyRefs};
use resp::OwnedRequest;
use routing::{CrossSlot, Plan};
use serde::Serialize;
use topology::Slot;

use super::{Failure, run, say, say_json, source::Source};
use crate::{config::Config, report::Topology};

mod place;
mod words;

use place::{Place, Reads};

/// `keyway explain`
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// The answer as JSON.
    #[arg(long)]
    json: bool,
    /// The command, as a client would send it.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// Where a command goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Explanation {
    /// As it was given.
    command: Vec<String>,
    /// `read`, `write`, or `none` for what touches no data.
    kind: &'static str,
    /// `fast` or `bulk`; nothing for what no node answers.
    lane: Option<&'static str>,
    /// In one line, where it goes.
    goes_to: String,
    /// Each slot that it is about.
    places: Vec<Place>,
    /// Why.
    why: Vec<String>,
}

/// Explains.
pub(crate) fn show(options: &Options) -> ExitCode {
    let explained = run(async {
        let told = options.source.topology().await?;
        let table = table(told.config.as_ref());
        explain(&table, &told.topology, &options.command).map_err(Failure::Mistake)
    });
    match explained {
        Ok(explanation) if options.json => say_json(&explanation),
        Ok(explanation) => say(&text(&explanation)),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

/// The built-in commands, and what the configuration allows of them.
fn table(config: Option<&Config>) -> CommandTable {
    let mut table = CommandTable::builtin().clone();
    for name in config.iter().flat_map(|config| &config.admin_commands) {
        let _ = table.allow(name); // it may be the cluster's own
    }
    table
}

fn explain(
    table: &CommandTable,
    topology: &Topology,
    args: &[String],
) -> Result<Explanation, String> {
    let request = OwnedRequest::from_args(args.iter().map(String::as_bytes));
    let command = table.lookup(request.as_request()).map_err(|error| {
        format!(
            "{error}\nOf commands that Keyway does not know itself (modules', newer servers') the \
             cluster is asked while it serves; they go by their key specs."
        )
    })?;
    let cross_slot = match topology.cross_slot.as_str() {
        "refuse" => CrossSlot::Refuse,
        _ => CrossSlot::Split,
    };
    let hasher = foldhash::fast::FixedState::with_seed(0);
    let plan = routing::plan(command, request.as_request(), cross_slot, &hasher);
    let writes = command.may_write();
    let mut explanation = Explanation {
        command: args.to_vec(),
        goes_to: words::goes_to(&plan, command),
        kind: if writes { "write" } else { "read" },
        lane: Some(lane(request.bytes().len(), command)),
        ..Explanation::default()
    };
    explanation.why = words::why(&plan, command);
    let reads = Reads::of(topology, !writes && words::may_go_to_a_replica(&plan));
    let keys = keys_of(command, &request);
    match plan {
        Plan::Blocking { slot, .. } => {
            explanation.lane = None; // a connection of its own
            explanation.places = vec![Place::of(topology, slot, keys, &reads)];
        }
        Plan::Slot { slot, .. } | Plan::Guarded { slot, .. } => {
            explanation.places = vec![Place::of(topology, slot, keys, &reads)];
        }
        Plan::Transaction {
            slot: Some(slot), ..
        } => explanation.places = vec![Place::of(topology, slot, keys, &reads)],
        Plan::Split(split) => {
            for part in &split.parts {
                let keys = OwnedRequest::parse(split.request(part).to_vec());
                let keys = keys.map_or_else(|_| Vec::new(), |part| keys_of(command, &part));
                let place = Place::of(topology, part.slot, keys, &reads);
                explanation.places.push(place);
            }
        }
        Plan::Clients
        | Plan::Local(_)
        | Plan::Refuse(_)
        | Plan::Subscription(_)
        | Plan::Transaction { .. } => {
            explanation.kind = "none";
            explanation.lane = None;
        }
        _ => {}
    }
    explanation
        .why
        .extend(words::about_lane(explanation.lane, command));
    Ok(explanation)
}

fn lane(bytes: usize, command: &Command) -> &'static str {
    if dataplane::takes_bulk_lane(bytes, command.is_slow()) {
        "bulk"
    } else {
        "fast"
    }
}

/// The keys that a request names.
fn keys_of(command: &Command, request: &OwnedRequest) -> Vec<String> {
    let request = request.as_request();
    let mut refs = KeyRefs::new();
    if command.keys(request, &mut refs).is_err() {
        return Vec::new();
    }
    refs.into_iter()
        .filter_map(|key| request.arg(key.index()))
        .map(|key| String::from_utf8_lossy(key).into_owned())
        .collect()
}

fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<8}{value}");
    };
    line("command", &explanation.command.join(" "));
    line("kind", explanation.kind);
    line("goes to", &explanation.goes_to);
    for place in &explanation.places {
        line("", "");
        let keys = place.keys.join(" ");
        let of = if keys.is_empty() { "" } else { ", of " };
        line("slot", &format!("{}{of}{keys}", place.slot));
        match (&place.node, place.shard) {
            (Some(node), Some(shard)) => {
                line("shard", &format!("{shard}, slots {}", place.range));
                line("node", &node.to_string());
            }
            _ => line(
                "node",
                "nobody owns this slot: the command waits, then fails",
            ),
        }
        for (index, node) in place.reads_from.iter().enumerate() {
            line(if index == 0 { "reads" } else { "" }, &node.to_string());
        }
    }
    if !explanation.places.is_empty() {
        line("", "");
    }
    if let Some(lane) = explanation.lane {
        line("lane", lane);
    }
    for (index, why) in explanation.why.iter().enumerate() {
        line(if index == 0 { "why" } else { "" }, why);
    }
    out.lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// The slot of a key, in words.
fn hashed(key: &str) -> Option<&str> {
    let (_, behind) = key.split_once('{')?;
    let (tag, _) = behind.split_once('}')?;
    (!tag.is_empty() && Slot::of_key(key.as_bytes()) == Slot::of_key(tag.as_bytes())).then_some(tag)
}

#[cfg(test)]
mod tests;
