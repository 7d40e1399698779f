//! Which node a read goes to.

use crate::{Health, Node, Slot, Topology};

impl Topology {
    /// Chooses where to read a slot: a healthy node in `zone`, primary or replica, the one with
    /// the fewest requests in flight; then one in other zones; then the primary, whatever its
    /// health. Without a zone all are alike. Of equals, the first replica by id wins.
    ///
    /// `in_flight` tells the load of a node as this proxy sees it; `usize::MAX` takes a node out
    /// (link broken, lagging). `None`: nobody owns the slot.
    #[must_use]
    pub fn choose_reader(
        &self,
        slot: Slot,
        zone: Option<&str>,
        in_flight: impl Fn(&Node) -> usize,
    ) -> Option<&Node> {
        let shard = self.owner(slot)?;
        let elsewhere = |node: &Node| zone.is_some() && node.zone.as_deref() != zone;
        let best = shard
            .replicas
            .iter()
            .chain(std::iter::once(&shard.primary))
            .filter(|node| node.health == Health::Online)
            .map(|node| (in_flight(node), node))
            .filter(|&(load, _)| load != usize::MAX)
            .min_by_key(|&(load, node)| (elsewhere(node), load));
        Some(best.map_or(&shard.primary, |(_, node)| node))
    }
}

#[cfg(test)]
mod tests;
