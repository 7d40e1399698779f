//! The dataplane's host in the simulation: it adds up what real ones put into metrics.

use std::{collections::BTreeMap, time::Duration};

use command::CommandId;
use dataplane::{
    CloseReason, ErrorKind, Followed, Host, Phase, Planted, RedirectKind, Totals, Zone,
};
use topology::NodeAddr;

/// What the dataplane says about itself.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    planted: Option<Planted>,
    in_flight: i64,
    phases: BTreeMap<&'static str, i64>,
    pub(crate) unknown_outcomes: usize,
    pub(crate) coalesced: usize,
    pub(crate) near: usize,
    pub(crate) followed: usize,
}

impl Gauges {
    pub(crate) fn new(planted: Option<Planted>) -> Self {
        Self {
            planted,
            ..Self::default()
        }
    }

    /// The first gauge that is not zero.
    pub(crate) fn first_above_zero(&self) -> Option<String> {
        let phases = self.phases.iter().map(|(phase, count)| (*phase, *count));
        let mut all = phases.chain([("in flight", self.in_flight)]);
        all.find(|(_, count)| *count != 0)
            .map(|(name, count)| format!("the gauge `{name}` is at {count}"))
    }

    pub(crate) fn in_flight(&self) -> i64 {
        self.in_flight
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Connecting => "connecting",
        Phase::SettingUp => "setting up",
        Phase::Ready => "ready",
        Phase::Closed => "closed",
    }
}

impl Host for Gauges {
    fn request(&mut self, _: Option<CommandId>, _: Duration) {}
    fn redirect(&mut self, _: RedirectKind) {}
    fn near(&mut self, hit: bool) {
        self.near += usize::from(hit);
    }
    fn coalesced(&mut self) {
        self.coalesced += 1;
    }
    fn followed(&mut self, followed: Followed) {
        let Followed {
            arrived,
            taken,
            sent,
            answered,
            written,
            ..
        } = followed;
        let moments = [arrived, taken, sent.unwrap_or(taken), answered, written];
        assert!(moments.is_sorted(), "its moments go back: {followed:?}");
        self.followed += 1;
    }
    fn error(&mut self, kind: ErrorKind) {
        self.unknown_outcomes += usize::from(kind == ErrorKind::UnknownOutcome);
    }
    fn in_flight(&mut self, delta: i64) {
        self.in_flight += delta;
    }
    fn channel_phase(&mut self, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from {
            *self.phases.entry(name(from)).or_default() -= 1;
        }
        if let Some(to) = to {
            *self.phases.entry(name(to)).or_default() += 1;
        }
    }
    fn read(&mut self, _: Zone) {}
    fn node_bytes(&mut self, _: Zone, _: usize, _: usize) {}
    fn channel_stalled(&mut self, _: &NodeAddr) {}
    fn channel_ready(&mut self, _: &NodeAddr, _: u32) {}
    fn channel_lost(&mut self, _: &NodeAddr, _: &CloseReason, _: u32) {}
    fn totals(&self) -> Totals {
        Totals::default()
    }
    fn has_planted(&self, fault: Planted) -> bool {
        self.planted == Some(fault)
    }
}
