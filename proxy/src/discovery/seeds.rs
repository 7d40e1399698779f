//! Seeds that another configuration names: whether they are of the cluster that is served.
//!
//! Looks ask the nodes that are known before any seed, so that seeds of another cluster would change
//! nothing, and nobody would hear of it until those nodes are gone. Owns that one question, and what is said
//! of its answer. Never here: which view is believed (`topology`).

use tokio::time::timeout;
use topology::{NodeAddr, Refusal};

use super::{Discovery, NODE_TIMEOUTS, NODES_MAX, look_at};

/// What becomes of seeds that are of another cluster, and what to do.
const OF_ANOTHER: &str = "the new seeds are of another cluster, which has no node in common with the one \
                          that is served: that one stays. To go to the other, give the [[cluster]] another \
                          name (the one goes, the other comes); with [cluster], restart Keyway";
const SILENT: &str =
    "none of the new seeds answers; the nodes that are known are asked before them";

impl Discovery {
    /// Asks seeds that are new, once, and says what is wrong with them.
    pub(super) async fn check_seeds(&mut self) {
        let config = self.context.config.get();
        if config.cluster.seeds == self.seeds {
            return;
        }
        let before = std::mem::replace(&mut self.seeds, config.cluster.seeds.clone());
        let Some(topology) = self.topology.clone() else {
            return; // the first who answers decides
        };
        let new = self.seeds.iter().filter(|seed| !before.contains(seed));
        let new: Vec<NodeAddr> = new
            .filter_map(|seed| NodeAddr::new(&seed.host, seed.port))
            .filter(|seed| topology.node_by_addr(seed).is_none())
            .take(NODES_MAX)
            .collect();
        let (mut others, mut silent) = (Vec::new(), Vec::new());
        for seed in &new {
            match timeout(NODE_TIMEOUTS[0], look_at(&self.context, seed, false)).await {
                Ok(Ok(look)) => {
                    let judged = topology::accept(Some(&topology), look.candidate);
                    if matches!(judged, Err(Refusal::OtherCluster)) {
                        others.push(seed.to_string());
                    }
                }
                _ => silent.push(seed.to_string()),
            }
        }
        if !others.is_empty() {
            tracing::error!(seeds = %others.join(", "), "{OF_ANOTHER}");
        } else if !new.is_empty() && silent.len() == self.seeds.len() {
            tracing::warn!(seeds = %silent.join(", "), "{SILENT}");
        }
    }
}
