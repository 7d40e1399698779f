//! What happens when. Things that happen at the same time come in an order that the seed decides.

use std::{collections::BTreeMap, time::Duration};

use topology::NodeAddr;

/// Something that is about to happen.
#[derive(Clone, Debug)]
pub(crate) enum Event<A> {
    /// A client says something.
    Speak(usize),
    /// Some of what it said is at the proxy.
    Arrive(usize),
    /// Its driver runs.
    Turn(usize),
    /// It reads.
    ClientReads(usize),
    /// A connection to a node is made, or refused.
    Connected(A, NodeAddr),
    /// The driver of a node connection runs.
    Drive(u64),
    /// Bytes reach the node.
    Up(u64),
    /// Bytes reach the proxy.
    Down(u64),
    /// The proxy learns that a connection is over.
    Reset(u64),
    /// The dataplane's time passes.
    Tick,
    /// The cluster is looked at.
    Look,
    Uncork,
    /// Something goes wrong.
    Fault,
    /// Something is put right again.
    Mend(Mend),
}

/// What is put right.
#[derive(Clone, Debug)]
pub(crate) enum Mend {
    Thaw(usize),
    Restart(usize),
    Rejoin(usize),
    Hear(usize),
    Fast(usize),
    /// One more step of a slot's migration.
    Migrate(u16),
}

#[derive(Debug)]
pub(crate) struct Agenda<A> {
    events: BTreeMap<(Duration, u64, u64), Event<A>>,
    count: u64,
}

impl<A> Agenda<A> {
    pub(crate) fn new() -> Self {
        Self {
            events: BTreeMap::new(),
            count: 0,
        }
    }

    /// `chance` decides about what happens at the same time.
    pub(crate) fn add(&mut self, at: Duration, chance: u64, event: Event<A>) {
        self.count += 1;
        self.events.insert((at, chance, self.count), event);
    }

    #[cfg(feature = "drivers")]
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.events.first_key_value().map(|((at, ..), _)| *at)
    }

    pub(crate) fn next(&mut self) -> Option<(Duration, Event<A>)> {
        let ((at, ..), event) = self.events.pop_first()?;
        Some((at, event))
    }
}
