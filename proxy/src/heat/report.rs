//! What `/heat` says, as types that the admin port writes and the command line reads. Additions are
//! allowed, names stay. Keys are in it only where the configuration says so.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use topology::{Slot, Topology};

use super::{HotSlot, KeyRate, Rate, Sum, slot_of};
use crate::{
    events::unix_ms,
    metrics::{HeatFigures, KEYS_TOP, SLOTS_TOP},
};

/// Slots that are listed unless somebody asks for more.
pub const SLOTS_SHOWN: usize = 64;
/// Keys that are listed of each kind.
const KEYS_SHOWN: usize = 32;
/// Parts of the strip; each has as many slots.
pub const PARTS: usize = 256;

/// `/heat`: where the load is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// When this was made, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether keys are shown: `admin.show_keys`.
    pub keys_shown: bool,
    /// What all slots have.
    pub all: Load,
    /// How much the hottest slot has above the mean of all 16384, in commands.
    pub slot_max_over_mean: f64,
    /// By shard, in the order of `/topology`.
    pub shards: Vec<ShardHeat>,
    /// The hottest slots by commands.
    pub slots: Vec<SlotHeat>,
    /// The sums of 64 slots each, in commands a second.
    pub strip: Vec<f64>,
    /// The hottest keys by commands.
    pub keys: Vec<KeyHeat>,
    /// The hottest keys by bytes.
    pub keys_by_bytes: Vec<KeyHeat>,
    /// The biggest values that were read or written lately.
    pub big_keys: Vec<BigKeyHeat>,
}

/// Commands and bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Commands in a second, lately: what is ten seconds old counts half.
    pub operations_per_second: f64,
    /// Bytes of requests, likewise.
    pub bytes_in_per_second: f64,
    /// Bytes of replies, likewise.
    pub bytes_out_per_second: f64,
    /// Commands that read, since the start, exactly.
    pub reads: u64,
    /// All others.
    pub writes: u64,
    /// Bytes of requests, since the start.
    pub bytes_in: u64,
    /// Bytes of replies, since the start.
    pub bytes_out: u64,
}

/// What the slots of one shard have, in a second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ShardHeat {
    /// Its place, from 0.
    pub index: usize,
    /// Commands.
    pub operations_per_second: f64,
    /// Bytes of requests and replies.
    pub bytes_per_second: f64,
}

/// One slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SlotHeat {
    /// Which.
    pub slot: u16,
    /// The place of the shard that owns it.
    pub shard: Option<usize>,
    /// What it has.
    #[serde(flatten)]
    pub load: Load,
    /// What its owner counts of it, where it was asked and tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeCounts>,
}

/// What a node counts of a slot: `CLUSTER SLOT-STATS`. Absent is what it does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounts {
    /// Keys in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_count: Option<u64>,
    /// Processor time that its commands took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usec: Option<u64>,
    /// Memory of its keys and values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes that came for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_bytes_in: Option<u64>,
    /// Bytes that it sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_bytes_out: Option<u64>,
}

/// One key, in a second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KeyHeat {
    /// Its name, or the first 128 bytes of it, where keys are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its slot; of a longer name it is not known.
    pub slot: Option<u16>,
    /// Commands or bytes; more it does not have.
    pub per_second: f64,
    /// It has as many for certain, as far as a sample is.
    pub per_second_at_least: f64,
    /// How much of all there is, in percent.
    pub percent: f64,
}

/// A key with a big value.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BigKeyHeat {
    /// As in [`KeyHeat`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// As in [`KeyHeat`].
    pub slot: Option<u16>,
    /// The most bytes that one command moved of it.
    pub bytes: u64,
    /// How long ago that was last so much.
    pub seen_seconds_ago: u64,
}

impl Report {
    /// Says what the sums say: of so many slots, and with keys or without.
    pub(crate) fn of(
        sum: &Sum,
        topology: Option<&Topology>,
        nodes: &HashMap<u16, NodeCounts>,
        (slots, keys_shown): (usize, bool),
    ) -> Self {
        let owner = |slot: Slot| Some(topology?.owner_index(slot)?.get());
        let mut shards = vec![Rate::default(); topology.map_or(0, |t| t.shards().len())];
        let mut strip = vec![0.0; PARTS];
        let (mut all, mut hottest) = (Rate::default(), 0.0_f64);
        for slot in sum.slots() {
            all = all.plus(slot.rate);
            hottest = hottest.max(slot.rate.operations);
            if let Some(shard) = owner(slot.slot).and_then(|shard| shards.get_mut(shard)) {
                *shard = shard.plus(slot.rate);
            }
            let part = usize::from(slot.slot.get()) * PARTS / usize::from(Slot::COUNT);
            if let Some(part) = strip.get_mut(part) {
                *part += slot.rate.operations;
            }
        }
        let mean = all.operations / f64::from(Slot::COUNT);
        let shards = shards.into_iter().enumerate();
        let slot = |hot: HotSlot| SlotHeat {
            slot: hot.slot.get(),
            shard: owner(hot.slot),
            load: Load::of(hot.rate, hot.total),
            node: nodes.get(&hot.slot.get()).copied(),
        };
        let keys = |keys: &[KeyRate], all: f64| {
            let keys = keys.iter().take(KEYS_SHOWN);
            keys.map(|key| KeyHeat::of(key, all, keys_shown)).collect()
        };
        let hottest_slots = sum.hottest(slots, |rate| rate.operations);
        Self {
            at_ms: unix_ms(),
            keys_shown,
            all: Load::of(all, sum.total()),
            slot_max_over_mean: if mean > 0.0 {
                rounded(hottest / mean)
            } else {
                0.0
            },
            shards: shards
                .map(|(index, rate)| ShardHeat {
                    index,
                    operations_per_second: rounded(rate.operations),
                    bytes_per_second: rounded(rate.bytes()),
                })
                .collect(),
            slots: hottest_slots.into_iter().map(slot).collect(),
            strip: strip.into_iter().map(rounded).collect(),
            keys: keys(&sum.by_operations, sum.key_operations),
            keys_by_bytes: keys(&sum.by_bytes, sum.key_bytes),
            big_keys: sum
                .big
                .iter()
                .take(KEYS_SHOWN)
                .map(|(key, ago)| BigKeyHeat {
                    key: keys_shown.then(|| printable(&key.key)),
                    slot: slot_of(&key.key).map(Slot::get),
                    bytes: key.bytes,
                    seen_seconds_ago: ago.as_secs(),
                })
                .collect(),
        }
    }
}

/// What the metrics show of it.
pub(crate) fn figures_of(sum: &Sum, topology: Option<&Topology>) -> HeatFigures {
    let most = SLOTS_TOP.iter().copied().max().unwrap_or_default();
    let report = Report::of(sum, topology, &HashMap::new(), (most, false));
    let all = report.all.operations_per_second;
    let share = |part: f64, all: f64| {
        if all > 0.0 {
            (part / all).min(1.0)
        } else {
            0.0
        }
    };
    let slots = |top: usize| -> f64 {
        let slots = report.slots.iter().take(top);
        slots.map(|slot| slot.load.operations_per_second).sum()
    };
    let keys = |top: usize| -> f64 {
        sum.by_operations
            .iter()
            .take(top)
            .map(|key| key.at_most)
            .sum()
    };
    let shards = report.shards.iter();
    HeatFigures {
        operations: [report.all.reads, report.all.writes],
        bytes: [report.all.bytes_in, report.all.bytes_out],
        shards: shards
            .map(|shard| (shard.operations_per_second, shard.bytes_per_second))
            .collect(),
        slot_max_over_mean: report.slot_max_over_mean,
        slots_share: SLOTS_TOP.map(|top| share(slots(top), all)),
        keys_share: KEYS_TOP.map(|top| share(keys(top), sum.key_operations)),
        value_bytes_max: sum.big.first().map_or(0, |(key, _)| key.bytes),
    }
}

impl Load {
    fn of(rate: Rate, total: ::heat::SlotCount) -> Self {
        Self {
            operations_per_second: rounded(rate.operations),
            bytes_in_per_second: rounded(rate.bytes_in),
            bytes_out_per_second: rounded(rate.bytes_out),
            reads: total.reads,
            writes: total.writes,
            bytes_in: total.bytes_in,
            bytes_out: total.bytes_out,
        }
    }
}

impl KeyHeat {
    fn of(key: &KeyRate, all: f64, shown: bool) -> Self {
        Self {
            key: shown.then(|| printable(&key.key)),
            slot: slot_of(&key.key).map(Slot::get),
            per_second: rounded(key.at_most),
            per_second_at_least: rounded(key.at_least),
            percent: rounded(100.0 * key.at_most / all.max(1e-9)).min(100.0),
        }
    }
}

/// Bytes as text, with what is not printable escaped.
fn printable(key: &[u8]) -> String {
    key.utf8_chunks()
        .flat_map(|chunk| {
            let bad = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            let good: String = chunk
                .valid()
                .chars()
                .map(|c| {
                    if c.is_control() {
                        c.escape_default().to_string()
                    } else {
                        c.to_string()
                    }
                })
                .collect();
            std::iter::once(good).chain(bad).collect::<Vec<_>>()
        })
        .collect()
}

/// One digit behind the point: more would be made up.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
