//! What changed in the cluster, and why that is known: the last changes, in order.
//!
//! Owns the bound ([`EVENTS_MAX`]) and the joining of many small moves into one event, so that a
//! migration slot by slot does not push out everything else. Never here: keys, clients, decisions.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use topology::{Change, NodeAddr};

/// Events that are kept.
pub const EVENTS_MAX: usize = 256;
/// Slots that move to one node are one event while no more than this is between two of them.
const JOINED_WITHIN_MS: u64 = 10_000;
/// Changes of one look that become events; more become one that counts them.
const CHANGES_MAX: usize = 32;

/// What kind of change it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The cluster was found.
    Found,
    /// Slots have another owner.
    Slots,
    /// Slots have no owner.
    SlotsLost,
    /// A node took another role.
    Failover,
    /// A node's health changed.
    Health,
    /// A node came, left, or is elsewhere.
    Node,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it was seen last; later than `at_ms` for slots that moved one by one.
    pub until_ms: u64,
    /// The topology's revision after it.
    pub revision: u64,
    /// What kind of change.
    pub kind: Kind,
    /// One line.
    pub what: String,
    /// How Keyway knows.
    pub why: String,
    /// How many slots it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// The node it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The last events, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<VecDeque<Event>>);

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Events {
    /// The cluster was found for the first time.
    pub(crate) fn found(&self, revision: u64, shards: usize, nodes: usize, why: &str) {
        let what = format!("found {shards} shards, {nodes} nodes");
        self.push(event(revision, Kind::Found, what, why));
    }

    /// A look found these changes.
    pub(crate) fn changed(&self, revision: u64, changes: &[Change], why: &str) {
        for change in changes.iter().take(CHANGES_MAX) {
            self.one_changed(revision, change, why);
        }
        let more = changes.len().saturating_sub(CHANGES_MAX);
        if more > 0 {
            let what = format!("and {more} more changes");
            self.push(event(revision, Kind::Node, what, why));
        }
    }

    /// A node said so of slots that were its own.
    pub(crate) fn told_moved(&self, revision: u64, slots: usize, to: &NodeAddr) {
        let change = Change::SlotsMoved(slots, to.clone());
        self.one_changed(revision, &change, "a node redirected a command");
    }

    /// A node said that a replica owns slots now.
    pub(crate) fn told_promoted(&self, revision: u64, node: &NodeAddr) {
        let change = Change::Promoted(node.clone());
        self.one_changed(revision, &change, "a node redirected a command");
    }

    fn one_changed(&self, revision: u64, change: &Change, why: &str) {
        let (kind, node) = match change {
            Change::Promoted(addr) | Change::Demoted(addr) => (Kind::Failover, Some(addr)),
            Change::Health(addr, _) => (Kind::Health, Some(addr)),
            Change::SlotsMoved(_, addr) => (Kind::Slots, Some(addr)),
            Change::SlotsLost(_) => (Kind::SlotsLost, None),
            Change::Added(addr)
            | Change::Removed(addr)
            | Change::Readdressed(_, addr)
            | Change::Zone(addr) => (Kind::Node, Some(addr)),
        };
        let slots = match change {
            Change::SlotsMoved(count, _) | Change::SlotsLost(count) => Some(*count),
            _ => None,
        };
        self.push(Event {
            slots,
            node: node.map(ToString::to_string),
            ..event(revision, kind, change.to_string(), why)
        });
    }

    fn push(&self, event: Event) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.back_mut().is_some_and(|last| join(last, &event)) {
            return;
        }
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Event> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().cloned().collect()
    }
}

fn event(revision: u64, kind: Kind, what: String, why: &str) -> Event {
    let now = unix_ms();
    Event {
        at_ms: now,
        until_ms: now,
        revision,
        kind,
        what,
        why: why.to_owned(),
        slots: None,
        node: None,
    }
}

/// Slots that move to the same node one after the other are one migration.
fn join(last: &mut Event, next: &Event) -> bool {
    let same = last.kind == Kind::Slots && next.kind == Kind::Slots && last.node == next.node;
    if !same || next.at_ms.saturating_sub(last.until_ms) > JOINED_WITHIN_MS {
        return false;
    }
    let slots = last.slots.unwrap_or(0) + next.slots.unwrap_or(0);
    last.slots = Some(slots);
    last.until_ms = next.until_ms;
    last.revision = next.revision;
    if let Some(node) = &last.node {
        let word = if slots == 1 { "slot" } else { "slots" };
        last.what = format!("{slots} {word} moved to {node}");
    }
    if last.why != next.why && !last.why.contains(&next.why) && !last.why.contains(" and ") {
        last.why = format!("{} and {}", last.why, next.why);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> NodeAddr {
        NodeAddr::new("10.0.0.1", port).unwrap()
    }

    #[test]
    fn slots_that_move_one_by_one_are_one_event() {
        let events = Events::default();
        events.found(1, 3, 6, "10.0.0.1:1");
        for slot in 0..2000 {
            events.told_moved(2 + slot, 1, &addr(1));
        }
        events.told_moved(9000, 5, &addr(2));
        let all = events.all();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].what, "2000 slots moved to 10.0.0.1:1");
        assert_eq!((all[1].slots, all[1].revision), (Some(2000), 2001));
        assert_eq!(all[2].slots, Some(5));
    }

    #[test]
    fn events_are_bounded_and_the_last_ones_stay() {
        let events = Events::default();
        for revision in 0..1000 {
            events.told_promoted(revision, &addr(1));
        }
        let all = events.all();
        assert_eq!(all.len(), EVENTS_MAX);
        assert_eq!(all.last().unwrap().revision, 999);
        let many: Vec<Change> = (1..=500).map(|port| Change::Added(addr(port))).collect();
        events.changed(1001, &many, "a look");
        let all = events.all();
        assert_eq!(all.len(), EVENTS_MAX);
        assert_eq!(all.last().unwrap().what, "and 468 more changes");
    }

    #[test]
    fn a_move_long_after_another_is_an_event_of_its_own() {
        let mut last = Event {
            slots: Some(1),
            node: Some("n".to_owned()),
            ..event(1, Kind::Slots, String::new(), "x")
        };
        let mut next = last.clone();
        next.at_ms += JOINED_WITHIN_MS + 1;
        assert!(!join(&mut last, &next));
        next.at_ms -= 1;
        assert!(join(&mut last, &next));
    }
}
