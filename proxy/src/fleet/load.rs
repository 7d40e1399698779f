//! How busy nodes and slots are: the difference of two readings.
//!
//! Slots are weighed by what `CLUSTER SLOT-STATS` counts. Where no node counts, a Keyway that runs may
//! have counted; and where nobody has, all slots weigh the same. [`Source`] says which.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use resp::Value;
use topology::{NodeAddr, NodeId, Slot};

use super::{Fleet, Trouble, View, field, text_of, words};
use crate::clock;

/// Requests in one write.
const REQUESTS_MAX: usize = 1024;

/// What weighs a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Microseconds of CPU in a second, by `CLUSTER SLOT-STATS`.
    Cpu,
    /// The number of keys.
    Keys,
    /// Commands in a second that the Keyway at this address has counted.
    Commands(String),
    /// Nothing: every slot counts the same. Here is why.
    Even(String),
}

/// What is counted of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    keys: u64,
    cpu_us: Option<u64>,
}

/// What a node counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct NodeCount {
    commands: u64,
    cpu_s: f64,
    dataset_bytes: u64,
    memory_max: u64,
    slots: BTreeMap<Slot, Count>,
    /// It has `CLUSTER SLOT-STATS`.
    has_stats: bool,
}

/// What all primaries count, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    at: Instant,
    nodes: BTreeMap<NodeId, NodeCount>,
}

impl Reading {
    /// Asks all primaries. Who does not answer is an error: half of the load is no load.
    pub(crate) async fn take(fleet: &Fleet, view: &View) -> Result<Self, Trouble> {
        let questions = [
            words(&["CLUSTER", "SLOT-STATS", "SLOTSRANGE", "0", "16383"]),
            words(&["INFO", "stats", "cpu", "memory"]),
        ];
        let addrs = view.primaries().map(|peer| peer.addr.clone());
        let mut answers = fleet.ask_all(addrs, &questions).await;
        let mut nodes = BTreeMap::new();
        for peer in view.primaries() {
            let said = answers.remove(&peer.addr);
            let said =
                said.unwrap_or_else(|| Err(Trouble::State(format!("{}: no answer", peer.addr))))?;
            let [stats, info] = said.as_slice() else {
                continue;
            };
            let mut count = counted(&text_of(info));
            match stats.as_array() {
                Some(list) => {
                    count.has_stats = true;
                    count.slots = list.iter().filter_map(slot_count).collect();
                }
                None => count.slots = keys_one_by_one(fleet, &peer.addr, &peer.slots).await?,
            }
            nodes.insert(peer.id, count);
        }
        Ok(Self {
            at: clock::now(),
            nodes,
        })
    }
}

/// Before `CLUSTER SLOT-STATS`: how many keys each slot has.
async fn keys_one_by_one(
    fleet: &Fleet,
    addr: &NodeAddr,
    slots: &[Slot],
) -> Result<BTreeMap<Slot, Count>, Trouble> {
    let mut link = fleet.link(addr).await?;
    let mut counts = BTreeMap::new();
    for some in slots.chunks(REQUESTS_MAX) {
        let requests: Vec<_> = some
            .iter()
            .map(|slot| words(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]))
            .collect();
        for (slot, answer) in some.iter().zip(link.ask(&requests).await?) {
            let keys = answer.as_int().and_then(|keys| u64::try_from(keys).ok());
            let keys = keys.unwrap_or_default();
            counts.insert(*slot, Count { keys, cpu_us: None });
        }
    }
    Ok(counts)
}

fn counted(info: &str) -> NodeCount {
    let number = |name: &str| field(info, name).and_then(|text| text.parse::<u64>().ok());
    let seconds = |name: &str| field(info, name).and_then(|text| text.parse::<f64>().ok());
    NodeCount {
        commands: number("total_commands_processed").unwrap_or_default(),
        cpu_s: seconds("used_cpu_user").unwrap_or_default()
            + seconds("used_cpu_sys").unwrap_or_default(),
        dataset_bytes: number("used_memory_dataset").unwrap_or_default(),
        memory_max: number("maxmemory").unwrap_or_default(),
        slots: BTreeMap::new(),
        has_stats: false,
    }
}

/// One element of `CLUSTER SLOT-STATS`.
fn slot_count(element: &Value) -> Option<(Slot, Count)> {
    let [slot, stats] = element.as_array()? else {
        return None;
    };
    let slot = Slot::new(u16::try_from(slot.as_int()?).ok()?)?;
    let number = |name: &str| u64::try_from(stats.map_get(name)?.as_int()?).ok();
    let count = Count {
        keys: number("key-count").unwrap_or_default(),
        cpu_us: number("cpu-usec"),
    };
    Some((slot, count))
}

/// How busy a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct NodeRate {
    /// Commands a second.
    pub(crate) ops: f64,
    /// Cores in use: 1 is one of them all the time.
    pub(crate) cores: f64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    /// `maxmemory`; 0 is no bound.
    pub(crate) bytes_max: u64,
}

/// How busy all are, between two readings.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) source: Source,
    /// The load of every slot, in order.
    pub(crate) slots: Vec<f64>,
    /// The keys of every slot.
    pub(crate) keys: Vec<u64>,
    /// Its bytes: its node's, by its share of the keys.
    pub(crate) bytes: Vec<u64>,
    pub(crate) nodes: BTreeMap<NodeId, NodeRate>,
    pub(crate) over: Duration,
}

impl Load {
    /// What happened between two readings.
    pub(crate) fn between(earlier: &Reading, later: &Reading) -> Self {
        let over = later.at.saturating_duration_since(earlier.at);
        let seconds = over.as_secs_f64().max(1e-3);
        let count = usize::from(Slot::COUNT);
        let mut load = Self {
            source: source(later),
            slots: vec![0.0; count],
            keys: vec![0; count],
            bytes: vec![0; count],
            nodes: BTreeMap::new(),
            over,
        };
        for (id, now) in &later.nodes {
            let before = earlier.nodes.get(id);
            load.nodes.insert(*id, rate(before, now, seconds));
            let keys: u64 = now.slots.values().map(|count| count.keys).sum();
            for (slot, count) in &now.slots {
                let index = usize::from(slot.get());
                let share = count.keys as f64 / keys.max(1) as f64;
                let past = before.and_then(|before| before.slots.get(slot));
                set(&mut load.keys, index, count.keys);
                set(
                    &mut load.bytes,
                    index,
                    whole(now.dataset_bytes as f64 * share),
                );
                set(&mut load.slots, index, grown(past, *count) / seconds);
            }
        }
        match load.source.clone() {
            Source::Even(why) => load.by_slots(&why),
            Source::Cpu | Source::Keys | Source::Commands(_) => load,
        }
    }

    /// Slots weigh the commands that a Keyway has counted for them.
    pub(crate) fn by_commands(
        mut self,
        counted: impl IntoIterator<Item = (u16, f64)>,
        keyway: String,
    ) -> Self {
        self.slots.fill(0.0);
        for (slot, commands) in counted {
            set(&mut self.slots, usize::from(slot), commands);
        }
        self.source = Source::Commands(keyway);
        self
    }

    /// Every slot weighs the same.
    pub(crate) fn by_slots(mut self, why: &str) -> Self {
        self.slots.fill(1.0);
        self.source = Source::Even(why.to_owned());
        self
    }

    /// Slots weigh what they hold.
    pub(crate) fn by_keys(mut self) -> Self {
        self.slots = self.keys.iter().map(|keys| *keys as f64).collect();
        self.source = Source::Keys;
        self
    }
}

/// Microseconds since the reading before. Whoever got the slot meanwhile counts from 0.
fn grown(past: Option<&Count>, now: Count) -> f64 {
    let before = past.and_then(|past| past.cpu_us).unwrap_or_default();
    let now = now.cpu_us.unwrap_or_default();
    now.checked_sub(before).unwrap_or(now) as f64
}

fn rate(before: Option<&NodeCount>, now: &NodeCount, seconds: f64) -> NodeRate {
    let (ops, cores) = before.map_or((0.0, 0.0), |before| {
        (
            now.commands.saturating_sub(before.commands) as f64,
            (now.cpu_s - before.cpu_s).max(0.0),
        )
    });
    NodeRate {
        ops: ops / seconds,
        cores: cores / seconds,
        bytes: now.dataset_bytes,
        bytes_max: now.memory_max,
    }
}

fn source(reading: &Reading) -> Source {
    let with_slots = || reading.nodes.values().filter(|node| !node.slots.is_empty());
    let counts = |node: &NodeCount| node.slots.values().all(|count| count.cpu_us.is_some());
    if with_slots().any(|node| !node.has_stats) {
        let why = "the nodes do not know CLUSTER SLOT-STATS";
        return Source::Even(why.to_owned());
    }
    let silent = with_slots().filter(|node| !counts(node)).count();
    if silent > 0 {
        return Source::Even(format!(
            "{silent} of {} primaries do not count it; CONFIG SET cluster-slot-stats-enabled yes there",
            with_slots().count()
        ));
    }
    Source::Cpu
}

fn set<T>(list: &mut [T], index: usize, value: T) {
    if let Some(place) = list.get_mut(index) {
        *place = value;
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slot, keys, microseconds.
    type OfSlot = (u16, u64, Option<u64>);

    fn node(number: u8, commands: u64, slots: &[OfSlot]) -> (NodeId, NodeCount) {
        let slot = |(slot, keys, cpu_us): &OfSlot| {
            let (keys, cpu_us) = (*keys, *cpu_us);
            (Slot::new(*slot).unwrap(), Count { keys, cpu_us })
        };
        let count = NodeCount {
            commands,
            dataset_bytes: 1000,
            slots: slots.iter().map(slot).collect(),
            has_stats: true,
            ..NodeCount::default()
        };
        let id = NodeId::parse(format!("{number:040}").as_bytes());
        (id.unwrap(), count)
    }

    fn reading<const N: usize>(at: Instant, nodes: [(NodeId, NodeCount); N]) -> Reading {
        let nodes = BTreeMap::from(nodes);
        Reading { at, nodes }
    }

    #[test]
    fn load_is_what_was_added_and_a_slot_that_came_counts_from_nothing() {
        let now = clock::now();
        let one = node(1, 100, &[(0, 5, Some(1000)), (1, 5, Some(9000))]);
        let earlier = reading(now, [one, node(2, 0, &[])]);
        let (one, two) = (
            node(1, 300, &[(0, 5, Some(3000))]),
            node(2, 10, &[(1, 10, Some(400))]),
        );
        let later = reading(now + Duration::from_secs(2), [one, two]);
        let load = Load::between(&earlier, &later);
        assert_eq!(load.source, Source::Cpu);
        assert_eq!(load.slots.get(..2), Some(&[1000.0, 200.0][..]));
        assert_eq!(load.keys.get(..2), Some(&[5, 10][..]));
        assert_eq!(load.bytes.get(..2), Some(&[1000, 1000][..]));
        let ops: Vec<f64> = load.nodes.values().map(|rate| rate.ops).collect();
        assert_eq!(ops, [100.0, 5.0]);
    }

    #[test]
    fn where_one_node_does_not_count_all_slots_weigh_the_same() {
        let now = clock::now();
        let (one, two) = (node(1, 0, &[(0, 1, Some(7))]), node(2, 0, &[(1, 1, None)]));
        let some = reading(now, [one, two]);
        let load = Load::between(&some, &some);
        let Source::Even(why) = &load.source else {
            panic!("{:?}", load.source);
        };
        assert!(why.starts_with("1 of 2 primaries"), "{why}");
        assert!(load.slots.iter().all(|load| *load == 1.0));
    }
}
