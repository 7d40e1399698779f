//! Where the load is: what all workers have counted, added up once a second for whoever asks.
//!
//! A worker shows its counts once a second and never waits for a reader: while one has them, it
//! shows nothing and does so the next time. The sums are made by the thread that samples for the
//! status page, so that however many ask, the work is the same.
//!
//! Never here: what one worker counts (`dataplane`), and who may see keys.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ::heat::{BigKey, BigKeys, HotKey, HotKeys, SlotCount, SlotCounts, Top};
use dataplane::Heat;
use tokio::sync::Notify;
use topology::Slot;

use self::report::NodeCounts;

mod reply;
pub mod report;

pub(crate) use reply::answer;

/// What came this long ago counts half in a slot's rates, as it does in the keys' lists.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Keys that are kept of each list.
pub(crate) const KEYS_MAX: usize = 128;

/// What came in a second, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    pub(crate) operations: f64,
    pub(crate) bytes_in: f64,
    pub(crate) bytes_out: f64,
}

impl Rate {
    pub(crate) fn bytes(self) -> f64 {
        self.bytes_in + self.bytes_out
    }

    fn map(self, other: Self, join: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            operations: join(self.operations, other.operations),
            bytes_in: join(self.bytes_in, other.bytes_in),
            bytes_out: join(self.bytes_out, other.bytes_out),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.map(other, |a, b| a + b)
    }
}

/// A slot and its load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotSlot {
    pub(crate) slot: Slot,
    pub(crate) rate: Rate,
    /// Since the start, exactly.
    pub(crate) total: SlotCount,
}

/// A key and what is known of its load, in a second.
#[derive(Clone, Debug)]
pub(crate) struct KeyRate {
    pub(crate) key: Vec<u8>,
    pub(crate) at_least: f64,
    pub(crate) at_most: f64,
}

/// What one worker showed last.
#[derive(Clone, Debug)]
struct Shown {
    keys: HotKeys,
    big: BigKeys,
    slots: SlotCounts,
    age: Duration,
}

/// All workers together.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    total: SlotCounts,
    before: SlotCounts,
    /// By slot; what is not yet corrected for a short past.
    faded: Vec<Rate>,
    began: Option<Instant>,
    added_at: Option<Instant>,
    /// 1 once the past is long.
    correction: f64,
    pub(crate) by_operations: Vec<KeyRate>,
    pub(crate) by_bytes: Vec<KeyRate>,
    /// What all keys have together, by the same sample.
    pub(crate) key_operations: f64,
    pub(crate) key_bytes: f64,
    /// With how long ago each was seen.
    pub(crate) big: Vec<(BigKey, Duration)>,
}

/// What the workers show, and the sums.
#[derive(Debug, Default)]
pub(crate) struct HeatBoard {
    shown: Mutex<BTreeMap<usize, Shown>>,
    sum: Mutex<Sum>,
    /// What the owners of the hottest slots count of them, by slot.
    nodes: Mutex<Arc<HashMap<u16, NodeCounts>>>,
    nodes_wanted: Notify,
}

impl HeatBoard {
    /// What nodes count of the hottest slots. Whoever asks has them asked, for a while: the first
    /// time nothing is known yet.
    pub(crate) fn node_counts(&self) -> Arc<HashMap<u16, NodeCounts>> {
        self.nodes_wanted.notify_one();
        Arc::clone(&self.nodes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nodes were asked.
    pub(crate) fn set_node_counts(&self, counts: HashMap<u16, NodeCounts>) {
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(counts);
    }

    /// Waits for somebody who wants to know what nodes count.
    pub(crate) async fn nodes_wanted(&self) {
        self.nodes_wanted.notified().await;
    }

    /// A worker shows what it has counted, unless somebody reads right now.
    pub(crate) fn show(&self, worker: usize, heat: &mut Heat, now: Instant) {
        let Ok(mut all) = self.shown.try_lock() else {
            return;
        };
        if let Some(shown) = all.get_mut(&worker) {
            shown.keys.clone_from(heat.keys());
            shown.big.clone_from(heat.big());
            shown.slots.copy_from(heat.slots());
            shown.age = heat.age(now);
        } else {
            let shown = Shown {
                keys: heat.keys().clone(),
                big: heat.big().clone(),
                slots: heat.slots().clone(),
                age: heat.age(now),
            };
            all.insert(worker, shown);
        }
    }

    /// Adds up what was shown: once a second.
    pub(crate) fn add_up(&self, now: Instant) {
        let mut sum = self.sum();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        sum.take(&shown, now);
        drop(shown);
        sum.fade(now);
    }

    /// The sums, for as long as they are looked at.
    pub(crate) fn sum(&self) -> MutexGuard<'_, Sum> {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sum {
    fn take(&mut self, workers: &BTreeMap<usize, Shown>, now: Instant) {
        self.began.get_or_insert(now);
        std::mem::swap(&mut self.total, &mut self.before);
        self.total.clear();
        workers
            .values()
            .for_each(|worker| self.total.add(&worker.slots));
        let ages = workers.values().map(|worker| worker.keys.span(worker.age));
        let span = ages.max().unwrap_or_default().as_secs_f64().max(1.0);
        let lists = |list: fn(&HotKeys) -> &Top| -> (Vec<KeyRate>, f64) {
            let tops: Vec<&Top> = workers.values().map(|worker| list(&worker.keys)).collect();
            let all: f64 = tops.iter().map(|top| float(top.total())).sum();
            // Where keys are many and none is hot, whoever came last seems to be, by what it might
            // have had: at least half of that must be certain.
            let heaviest = Top::heaviest_of(tops, KEYS_MAX).into_iter();
            let hot = heaviest.filter(|key| key.at_least >= key.at_most / 2);
            (hot.map(|key| rate_of(key, span)).collect(), all / span)
        };
        (self.by_operations, self.key_operations) = lists(HotKeys::by_operations);
        (self.by_bytes, self.key_bytes) = lists(HotKeys::by_bytes);
        let age = workers.values().map(|worker| worker.age).max();
        let big = BigKeys::biggest(workers.values().map(|worker| &worker.big), KEYS_MAX);
        let ago = |key: &BigKey| age.unwrap_or_default().saturating_sub(key.seen);
        self.big = big
            .into_iter()
            .map(|key| (key.clone(), ago(&key)))
            .collect();
    }

    /// What is new goes into the rates, and what was there fades.
    fn fade(&mut self, now: Instant) {
        let passed = self
            .added_at
            .replace(now)
            .map_or(Duration::from_secs(1), |at| {
                now.saturating_duration_since(at)
            });
        let seconds = passed.as_secs_f64().max(0.001);
        let remains = 0.5_f64.powf(seconds / HALF_LIFE.as_secs_f64());
        let age = self
            .began
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let age = age.as_secs_f64().max(seconds);
        self.correction = 1.0 / (1.0 - 0.5_f64.powf(age / HALF_LIFE.as_secs_f64()));
        self.faded.resize(usize::from(Slot::COUNT), Rate::default());
        let counts = self.total.iter().zip(self.before.iter());
        for (faded, ((_, now), (_, before))) in self.faded.iter_mut().zip(counts) {
            let new = |now: u64, before: u64| float(now.saturating_sub(before)) / seconds;
            let news = Rate {
                operations: new(now.operations(), before.operations()),
                bytes_in: new(now.bytes_in, before.bytes_in),
                bytes_out: new(now.bytes_out, before.bytes_out),
            };
            *faded = faded.map(news, |faded, news| faded * remains + news * (1.0 - remains));
        }
    }

    /// Every slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = HotSlot> {
        let rates = self.faded.iter();
        let corrected = |rate: &Rate| rate.map(Rate::default(), |rate, _| rate * self.correction);
        self.total
            .iter()
            .zip(rates)
            .map(move |((slot, total), rate)| HotSlot {
                slot,
                rate: corrected(rate),
                total,
            })
    }

    /// The hottest slots that have had any command.
    pub(crate) fn hottest(&self, count: usize, by: fn(Rate) -> f64) -> Vec<HotSlot> {
        let used = self.slots().filter(|slot| slot.total.operations() > 0);
        let mut slots: Vec<HotSlot> = used.collect();
        let hotter = |a: &HotSlot, b: &HotSlot| {
            let warmth = by(b.rate).total_cmp(&by(a.rate));
            warmth.then_with(|| b.total.operations().cmp(&a.total.operations()))
        };
        if count < slots.len() {
            slots.select_nth_unstable_by(count, hotter);
            slots.truncate(count);
        }
        slots.sort_by(hotter);
        slots
    }

    /// Everything that all slots have had since the start.
    pub(crate) fn total(&self) -> SlotCount {
        self.total.total()
    }
}

fn rate_of(key: HotKey, span: f64) -> KeyRate {
    KeyRate {
        at_least: float(key.at_least) / span,
        at_most: float(key.at_most) / span,
        key: key.key,
    }
}

/// The slot of a key of which at most the beginning is known.
pub(crate) fn slot_of(key: &[u8]) -> Option<Slot> {
    (key.len() < ::heat::KEY_BYTES_MAX).then(|| Slot::of_key(key))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate to look at; beyond 2^53 nobody counts"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
