//! `keyway topology`: what is where, for people and programs.

use std::{fmt::Write as _, process::ExitCode};

use super::{ago, run, say, say_json, source::Source, time_of};
use crate::{
    events::unix_ms,
    report::{Node, Topology},
};

/// Events that are shown to people.
const EVENTS_SHOWN: usize = 20;
/// Ranges of one shard that are shown to people.
const RANGES_SHOWN: usize = 8;

/// `keyway topology`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// Everything, as JSON.
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub(crate) fn show(options: &Options) -> ExitCode {
    match run(options.source.topology()) {
        Ok(told) if options.json => say_json(&told.topology),
        Ok(told) => say(&text(&told.topology, &told.by, unix_ms())),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

fn text(topology: &Topology, by: &str, now_ms: u64) -> String {
    let mut out = String::new();
    let epoch = topology
        .epoch
        .map_or(String::new(), |epoch| format!(", epoch {epoch}"));
    let _ = writeln!(
        out,
        "revision {}{epoch}, {} of 16384 slots have an owner; told by {by}",
        topology.revision, topology.slots_covered
    );
    if let (Some(at), Some(what)) = (topology.changed_at_ms, &topology.changed) {
        let _ = writeln!(out, "changed {}: {what}", ago(at, now_ms));
    }
    let nodes = || topology.shards.iter().flat_map(|shard| &shard.nodes);
    let wide = |of: fn(&Node) -> usize| nodes().map(of).max().unwrap_or(0);
    let address = wide(|node| node.address.len());
    let zone = wide(|node| node.zone.as_deref().map_or(1, str::len));
    for shard in &topology.shards {
        let _ = writeln!(
            out,
            "\nshard {}: {} slots{}",
            shard.index,
            shard.slots,
            ranges(&shard.ranges)
        );
        for node in &shard.nodes {
            let _ = writeln!(
                out,
                "  {:<7}  {:<address$}  {:<zone$}  {:<7}{}",
                node.role,
                node.address,
                node.zone.as_deref().unwrap_or("-"),
                node.health,
                details(node)
            );
        }
    }
    let hidden = topology.events.len().saturating_sub(EVENTS_SHOWN);
    if !topology.events.is_empty() {
        let _ = writeln!(out, "\nchanges, the last one at the end");
    }
    for event in topology.events.iter().skip(hidden) {
        let _ = writeln!(
            out,
            "  {:>12}  {} ({})",
            ago(event.until_ms, now_ms),
            event.what,
            event.why
        );
    }
    out
}

fn ranges(ranges: &[(u16, u16)]) -> String {
    let shown: Vec<String> = ranges
        .iter()
        .take(RANGES_SHOWN)
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    let more = ranges.len().saturating_sub(RANGES_SHOWN);
    let tail = if more > 0 {
        format!(" and {more} more ranges")
    } else {
        String::new()
    };
    match shown.is_empty() {
        true => String::new(),
        false => format!(", {}{tail}", shown.join(" ")),
    }
}

/// What is worth a word.
fn details(node: &Node) -> String {
    let mut out = String::new();
    if node.role == "replica" {
        match node.lag_ms {
            Some(lag) if node.readable => drop(write!(out, "  {lag} ms behind")),
            Some(lag) => drop(write!(out, "  {lag} ms behind, not read from")),
            None => {}
        }
    }
    if node.live.connections > 0 {
        let _ = write!(
            out,
            "  {} connections, {} in flight",
            node.live.connections, node.live.in_flight
        );
    }
    if let (Some(p50), Some(p99)) = (node.live.latency.p50_us, node.live.latency.p99_us) {
        let _ = write!(out, ", p50 {}, p99 {}", time_of(p50), time_of(p99));
    }
    if let Some(trouble) = &node.live.trouble {
        let _ = write!(out, "  no connection: {trouble}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[(0, 5), (7, 7)]), ", 0-5 7");
        let many: Vec<(u16, u16)> = (0..20).map(|first| (first * 10, first * 10 + 1)).collect();
        assert!(ranges(&many).ends_with("70-71 and 12 more ranges"));
    }
}
