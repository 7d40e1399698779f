//! A plan, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::fleet::{Agenda, Board, Load, Share, Source, View, slots_as_ranges};

/// Ranges of one move that are shown to people, and moves.
const RANGES_SHOWN: usize = 6;
const MOVES_SHOWN: usize = 40;

/// What is known, and what would be done about it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plan {
    /// `cpu`: by what `CLUSTER SLOT-STATS` counts; `keys`: by their number; `slots`: every slot weighs the same.
    weighed_by: &'static str,
    /// Why not by CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    measured_over_s: f64,
    /// `CLUSTER MIGRATESLOTS`, or `SETSLOT` and `MIGRATE`.
    moved_by: &'static str,
    /// Slots that an earlier run left half moved, and migrations that go on.
    open_slots: usize,
    migrations: usize,
    nodes: Vec<Node>,
    /// Those of a round are done at once.
    rounds: Vec<Vec<Move>>,
    slots_moved: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Node {
    address: String,
    replicas: usize,
    before: Figures,
    after: Figures,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    /// Of all load, 0 to 1.
    load: f64,
    slots: usize,
    keys: u64,
    /// Estimated: its share of the keys.
    bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Move {
    from: String,
    to: String,
    slots: usize,
    ranges: String,
    /// Of all load, 0 to 1.
    load: f64,
    bytes: u64,
}

impl Plan {
    pub(super) fn of(view: &View, board: &Board, load: &Load, agenda: &Agenda) -> Self {
        let all: f64 = load.slots.iter().sum();
        let name = |index: usize| {
            let id = board.ids.get(index).and_then(|id| view.peer(*id));
            id.map(|peer| peer.addr.to_string()).unwrap_or_default()
        };
        let node = |(index, (before, after)): (usize, (&Share, &Share))| Node {
            address: name(index),
            replicas: board
                .ids
                .get(index)
                .map_or(0, |id| view.replicas_of(*id).count()),
            before: figures(before),
            after: figures(after),
        };
        let planned = |planned: &heat::SlotMove| Move {
            from: name(planned.from),
            to: name(planned.to),
            slots: planned.slots.len(),
            ranges: joined(&slots_as_ranges(&planned.slots), usize::MAX),
            load: planned.load / all.max(f64::MIN_POSITIVE),
            bytes: planned.bytes,
        };
        let (weighed_by, note) = match &load.source {
            Source::Cpu => ("cpu", None),
            Source::Keys => ("keys", None),
            Source::Commands(keyway) => (
                "commands",
                Some(format!(
                    "as the Keyway at {keyway} has counted; no node does"
                )),
            ),
            Source::Even(why) => ("slots", Some(why.clone())),
        };
        Self {
            weighed_by,
            note,
            measured_over_s: load.over.as_secs_f64(),
            moved_by: if view.atomic() {
                "MIGRATESLOTS"
            } else {
                "SETSLOT and MIGRATE"
            },
            open_slots: view.open().len(),
            migrations: view.migrations(),
            nodes: agenda
                .before
                .iter()
                .zip(&agenda.after)
                .enumerate()
                .map(node)
                .collect(),
            rounds: agenda
                .rounds
                .iter()
                .map(|round| round.iter().map(planned).collect())
                .collect(),
            slots_moved: agenda.slots(),
        }
    }

    pub(super) fn text(&self, applied: bool) -> String {
        let mut out = String::new();
        let _ = match &self.note {
            None if self.weighed_by == "keys" => {
                writeln!(out, "load: the number of keys of every slot")
            }
            None => writeln!(
                out,
                "load: CPU time of every slot, measured over {:.1} s (CLUSTER SLOT-STATS)",
                self.measured_over_s
            ),
            Some(note) if self.weighed_by == "commands" => {
                writeln!(out, "load: commands for every slot, {note}")
            }
            Some(note) => writeln!(out, "load: not known, every slot counts the same: {note}"),
        };
        if !applied && self.open_slots + self.migrations > 0 {
            let _ = writeln!(
                out,
                "{} slots are half moved and {} migrations under way: --apply finishes them first",
                self.open_slots, self.migrations
            );
        }
        self.table(&mut out);
        if self.rounds.is_empty() {
            let _ = writeln!(
                out,
                "\nnothing to move: the nodes are as even as the slots allow"
            );
            return out;
        }
        let moves = self.rounds.iter().map(Vec::len).sum::<usize>();
        let bytes = self
            .rounds
            .iter()
            .flatten()
            .map(|planned| planned.bytes)
            .sum();
        let _ = writeln!(
            out,
            "\n{} slots in {moves} moves, about {}, by {}; the moves of a round at once",
            self.slots_moved,
            bytes_of(bytes),
            self.moved_by
        );
        self.moves(&mut out);
        if !applied {
            let _ = writeln!(out, "\nnothing was changed; --apply does it");
        }
        out
    }

    fn table(&self, out: &mut String) {
        let width = self
            .nodes
            .iter()
            .map(|node| node.address.len())
            .max()
            .unwrap_or(0)
            .max(4);
        let _ = writeln!(
            out,
            "\n{:width$}  {:>17}  {:>15}  {:>23}  {:>21}",
            "node", "load", "slots", "keys", "bytes, about"
        );
        for node in &self.nodes {
            let (before, after) = (&node.before, &node.after);
            let _ = writeln!(
                out,
                "{:width$}  {:>5.1} % -> {:>4.1} %  {:>5} -> {:>6}  {:>9} -> {:>10}  {:>8} -> {:>9}",
                node.address,
                before.load * 100.0,
                after.load * 100.0,
                before.slots,
                after.slots,
                before.keys,
                after.keys,
                bytes_of(before.bytes),
                bytes_of(after.bytes)
            );
        }
    }

    fn moves(&self, out: &mut String) {
        let all = self.rounds.iter().enumerate();
        let all =
            all.flat_map(|(round, moves)| moves.iter().map(move |planned| (round + 1, planned)));
        let count = all.clone().count();
        for (round, planned) in all.take(MOVES_SHOWN) {
            let ranges: Vec<&str> = planned.ranges.split(' ').collect();
            let more = ranges.len().saturating_sub(RANGES_SHOWN);
            let mut shown = ranges
                .into_iter()
                .take(RANGES_SHOWN)
                .collect::<Vec<_>>()
                .join(" ");
            if more > 0 {
                let _ = write!(shown, " and {more} more ranges");
            }
            let _ = writeln!(
                out,
                "  round {round}  {} -> {}  {} slots, {:.1} % of the load: {shown}",
                planned.from,
                planned.to,
                planned.slots,
                planned.load * 100.0
            );
        }
        if count > MOVES_SHOWN {
            let _ = writeln!(out, "  and {} more; --json has all", count - MOVES_SHOWN);
        }
    }
}

fn figures(share: &Share) -> Figures {
    Figures {
        load: share.load,
        slots: share.slots,
        keys: share.keys,
        bytes: share.bytes,
    }
}

fn joined(ranges: &[topology::SlotRange], most: usize) -> String {
    let shown: Vec<String> = ranges.iter().take(most).map(ToString::to_string).collect();
    shown.join(" ")
}

/// Bytes as people read them.
fn bytes_of(bytes: u64) -> String {
    const STEPS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let step = STEPS.iter().find(|(size, _)| bytes >= *size);
    step.map_or_else(
        || format!("{bytes} B"),
        |(size, unit)| format!("{:.1} {unit}", bytes as f64 / *size as f64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        let shown = [0, 1023, 1536, 5 << 20, 3 << 31].map(bytes_of);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "6.0 GiB"]);
    }
}
