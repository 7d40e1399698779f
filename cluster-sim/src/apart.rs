//! Nodes that their fellows do not reach: dead ones, and those that are cut off from them while clients
//! still reach them. What a primary had not sent to its replicas by then is lost when one takes its place.
//!
//! What a node that is cut off tells of the cluster is what its fellows know: older views are not
//! simulated.

use std::time::Duration;

use crate::{
    cluster::Cluster,
    node::{Node, NodeIndex, ShardIndex},
};

impl Node {
    /// Since when its fellows do not reach it.
    pub(crate) fn gone_since(&self) -> Option<Duration> {
        let died = (!self.alive).then_some(self.died_at);
        died.into_iter().chain(self.cut_off).min()
    }
}

impl Cluster {
    /// Cuts a node off from all others. A primary serves its clients until the node timeout, when a
    /// replica takes its place; from then on it says `CLUSTERDOWN`.
    pub fn isolate(&mut self, node: NodeIndex) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(node) {
            node.cut_off.get_or_insert(now);
        }
    }

    /// Ends [`Cluster::isolate`]: it follows whoever has its place.
    pub fn rejoin(&mut self, node: NodeIndex) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        let was_cut_off = state.cut_off.take().is_some();
        let (shard, alive) = (state.shard, state.alive);
        let primary = self.primary(shard).filter(|primary| *primary != node);
        if let Some(primary) = primary.filter(|_| was_cut_off && alive) {
            self.resync(node, primary);
        }
    }

    /// Whether a node lives and reaches the others.
    #[must_use]
    pub fn is_whole(&self, node: NodeIndex) -> bool {
        let node = self.nodes.get(node);
        node.is_some_and(|node| node.gone_since().is_none())
    }

    /// Whether a node has been cut off for so long that it serves nobody.
    pub(crate) fn has_lost_cluster(&self, node: NodeIndex) -> bool {
        let since = self.nodes.get(node).and_then(|node| node.cut_off);
        since.is_some_and(|since| since + self.layout.node_timeout <= self.now)
    }

    /// What a shard's primary had written by then has reached its replicas. What one that is gone had
    /// not sent yet never does.
    pub(crate) fn sent_until(&self, shard: ShardIndex) -> Option<Duration> {
        let primary = self.primary(shard).and_then(|node| self.nodes.get(node));
        let gone = primary.and_then(Node::gone_since);
        gone.unwrap_or(self.now)
            .checked_sub(self.layout.replica_lag)
    }
}
