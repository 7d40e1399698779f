//! The sums over all workers that the status page is made of.

use std::sync::atomic::Ordering::Relaxed;

use dataplane::Times;

use super::{
    Direction, ErrorKind, HandshakeResult, Metrics, Phase, PhaseTotals, RedirectKind,
    collector::{by, sum},
    phases,
};

/// What all workers have counted since the start.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Clients now.
    pub clients: u64,
    /// Clients since the start.
    pub clients_ever: u64,
    /// Commands that have their reply.
    pub requests: u64,
    /// How long those took, from a command's arrival to its reply.
    pub times: Times,
    /// Where the time went of those that were followed, in the order of [`Phase::ALL`].
    pub phases: [PhaseTotals; Phase::COUNT],
    /// Plain bytes from clients, and to them.
    pub client_bytes: Vec<(&'static str, u64)>,
    /// Errors of Keyway's own, by kind.
    pub errors: Vec<(&'static str, u64)>,
    /// TLS handshakes with clients, by how they ended.
    pub handshakes: Vec<(&'static str, u64)>,
    /// Commands that a node sent elsewhere.
    pub redirects: Vec<(&'static str, u64)>,
    /// Commands sent to nodes and not answered.
    pub in_flight: i64,
}

impl Metrics {
    /// Adds up what all workers have counted.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let cells = &self.cells();
        // In this order: whoever closed had opened, so the difference is never below 0.
        let closed = sum(cells, |cells| &cells.connections_closed);
        let opened = sum(cells, |cells| &cells.connections_opened);
        let times = Times::of((0..Times::BUCKETS).map(|bucket| {
            let one = |cells: &std::sync::Arc<super::Cells>| {
                cells.times.get(bucket).map(|count| count.load(Relaxed))
            };
            cells.iter().filter_map(one).sum()
        }));
        Totals {
            clients: opened.saturating_sub(closed),
            clients_ever: opened,
            requests: times.count(),
            times,
            phases: phases::totals(cells),
            client_bytes: by(Direction::LABELS, cells, |cells| &cells.client_bytes),
            errors: by(ErrorKind::LABELS, cells, |cells| &cells.errors),
            handshakes: by(HandshakeResult::LABELS, cells, |cells| &cells.handshakes),
            redirects: by(RedirectKind::LABELS, cells, |cells| &cells.redirects),
            in_flight: cells
                .iter()
                .map(|cells| cells.in_flight.load(Relaxed))
                .sum(),
        }
    }
}
