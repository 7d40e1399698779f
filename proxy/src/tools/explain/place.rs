//! One slot of a command: who owns it, and who may be read from.

use std::fmt;

use serde::Serialize;
use topology::Slot;

use super::hashed;
use crate::report::{Node, Topology};

/// A slot and its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    /// The slot.
    pub(super) slot: u16,
    /// The keys in it, with the part that was hashed if that is not all.
    pub(super) keys: Vec<String>,
    /// The shard that owns it.
    pub(super) shard: Option<usize>,
    /// The range of that shard's slots that it is in.
    pub(super) range: String,
    /// The primary.
    pub(super) node: Option<Shown>,
    /// Who is read from by clients that have asked for it, the first ones first.
    pub(super) reads_from: Vec<Shown>,
}

/// A node and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    pub(super) address: String,
    pub(super) role: String,
    pub(super) zone: Option<String>,
    pub(super) health: String,
    /// Why it is chosen.
    pub(super) note: String,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.address, self.role)?;
        if let Some(zone) = &self.zone {
            write!(f, " in {zone}")?;
        }
        if self.health != "online" {
            write!(f, ", {}", self.health)?;
        }
        if !self.note.is_empty() {
            write!(f, ": {}", self.note)?;
        }
        Ok(())
    }
}

/// Whether, and how, a client's reads may leave the primary.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    /// How a client asks for it; `None` when it cannot.
    asked: Option<String>,
    zone: Option<String>,
}

impl Reads {
    pub(super) fn of(topology: &Topology, may: bool) -> Self {
        let reads = &topology.reads;
        let flag = reads.readonly_flag.then(|| "after READONLY".to_owned());
        let port = reads.port.map(|port| format!("on port {port}"));
        let asked: Vec<String> = flag.into_iter().chain(port).collect();
        Self {
            asked: (may && !asked.is_empty()).then(|| asked.join(" or ")),
            zone: reads.zone.clone(),
        }
    }

    /// How near a node is; the least is the best. As the dataplane has it.
    fn distance(&self, node: &Node) -> u8 {
        match (&self.zone, &node.zone, node.role.as_str()) {
            (Some(ours), Some(its), _) if ours == its => 0,
            (_, _, "replica") => 1,
            _ => 2,
        }
    }

    fn note(&self, node: &Node, asked: &str) -> String {
        match self.distance(node) {
            0 => format!("{asked}, for it is in Keyway's zone"),
            1 if self.zone.is_none() => format!("{asked}; Keyway's own zone is not known"),
            1 => format!("{asked}, for no node of the shard in Keyway's zone can be read from"),
            _ => format!("{asked}, for there is no replica that is fit"),
        }
    }
}

impl Place {
    pub(super) fn of(topology: &Topology, slot: Slot, keys: Vec<String>, reads: &Reads) -> Self {
        let slot = slot.get();
        let keys = keys.into_iter().map(|key| match hashed(&key) {
            Some(tag) => format!("{key} (by its tag {tag})"),
            None => key,
        });
        let mut place = Self {
            slot,
            keys: keys.collect(),
            ..Self::default()
        };
        let owner = topology.shards.iter().find_map(|shard| {
            let mut ranges = shard.ranges.iter();
            let range = ranges.find(|(first, last)| (*first..=*last).contains(&slot))?;
            Some((shard, *range))
        });
        let Some((shard, (first, last))) = owner else {
            return place;
        };
        place.shard = Some(shard.index);
        place.range = format!("{first}-{last}");
        place.node = shard.nodes.first().map(|node| shown(node, String::new()));
        if let Some(asked) = &reads.asked {
            let fit = || shard.nodes.iter().filter(|node| node.readable);
            let nearest = fit().map(|node| reads.distance(node)).min();
            place.reads_from = fit()
                .filter(|node| Some(reads.distance(node)) == nearest)
                .map(|node| shown(node, reads.note(node, asked)))
                .collect();
        }
        place
    }
}

fn shown(node: &Node, note: String) -> Shown {
    Shown {
        address: node.address.clone(),
        role: node.role.clone(),
        zone: node.zone.clone(),
        health: node.health.clone(),
        note,
    }
}
