//! Nodes of the warm pool that cannot be taken, and what was said about them: when it begins, when the
//! reason is another, and when it is over. Not at every look.

use std::collections::BTreeMap;

use topology::NodeAddr;

/// The nodes, with why.
#[derive(Debug, Default)]
pub(super) struct Unusable(BTreeMap<NodeAddr, String>);

impl Unusable {
    /// A node cannot be taken.
    pub(super) fn is(&mut self, node: &NodeAddr, why: String) {
        if self.0.get(node) != Some(&why) {
            tracing::warn!(%node, why, "a node of the warm pool cannot be taken");
            self.0.insert(node.clone(), why);
        }
    }

    /// It can, or it is taken.
    pub(super) fn is_not(&mut self, node: &NodeAddr) {
        if self.0.remove(node).is_some() {
            tracing::info!(%node, "a node of the warm pool can be taken again");
        }
    }
}
