//! Seeds that another configuration names: whether they are of the cluster that is served.
//!
//! Looks ask the nodes that are known before any seed, so that seeds of another cluster would change
//! nothing, and nobody would hear of it until those nodes are gone. Owns that one question, and what is said
//! of its answer. Asked beside the looks, which wait for none of it. Never here: which view is believed
//! (`topology`).

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use topology::{NodeAddr, Refusal};

use super::{NODE_TIMEOUTS, NODES_MAX, look_at};
use crate::{config::HostPort, contract::DiscoveryContext, worker::Shared};

/// What becomes of seeds that are of another cluster, and what to do.
const OF_ANOTHER: &str = "the new seeds are of another cluster, which has no node in common with the one \
                          that is served: that one stays. To go to the other, give the [[cluster]] another \
                          name (the one goes, the other comes); with [cluster], restart Keyway";
const SILENT: &str =
    "none of the new seeds answers; the nodes that are known are asked before them";
/// Who has not answered is asked again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// Asks seeds that are new, until each has answered once, and says what is wrong with them.
pub(super) async fn watch(context: DiscoveryContext, shared: Arc<Shared>) {
    let mut changes = context.config.changes();
    let mut seeds = changes.borrow_and_update().cluster.seeds.clone();
    let mut unheard = Unheard::default();
    loop {
        tokio::select! {
            biased;
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = changes.borrow_and_update().cluster.seeds.clone();
                if next != seeds {
                    unheard = Unheard::new(&shared, &seeds, &next);
                    seeds = next;
                }
            }
            () = unheard.ask(&context, &shared), if !unheard.nodes.is_empty() => {}
        }
    }
}

/// New seeds of which nothing is known yet.
#[derive(Debug, Default)]
struct Unheard {
    nodes: Vec<NodeAddr>,
    /// These are all seeds that the configuration has.
    all: bool,
    asked: bool,
}

impl Unheard {
    fn new(shared: &Shared, before: &[HostPort], seeds: &[HostPort]) -> Self {
        let Some(topology) = shared.view().topology.clone() else {
            return Self::default(); // the first who answers decides
        };
        let new = seeds.iter().filter(|seed| !before.contains(seed));
        let nodes: Vec<NodeAddr> = new
            .filter_map(|seed| NodeAddr::new(&seed.host, seed.port))
            .filter(|seed| topology.node_by_addr(seed).is_none())
            .take(NODES_MAX)
            .collect();
        let (all, asked) = (nodes.len() == seeds.len(), false);
        Self { nodes, all, asked }
    }

    /// Asks all of them at the same time, and once more with more patience who says nothing.
    async fn ask(&mut self, context: &DiscoveryContext, shared: &Shared) {
        if self.asked {
            sleep(AGAIN).await;
        }
        let (mut silent, mut others) = (self.nodes.clone(), Vec::new());
        for patience in NODE_TIMEOUTS {
            let mut looks = JoinSet::new();
            for seed in silent.drain(..) {
                let context = context.clone();
                looks.spawn(async move {
                    let look = timeout(patience, look_at(&context, &seed, false)).await;
                    (seed, look)
                });
            }
            let view = shared.view();
            for (seed, look) in looks.join_all().await {
                let Ok(Ok(look)) = look else {
                    silent.push(seed);
                    continue;
                };
                let judged = topology::accept(view.topology.as_deref(), look.candidate);
                if matches!(judged, Err(Refusal::OtherCluster)) {
                    others.push(seed.to_string());
                }
            }
        }
        let none_answers = self.all && silent.len() == self.nodes.len();
        if !others.is_empty() {
            tracing::error!(seeds = %others.join(", "), "{OF_ANOTHER}");
            silent.clear(); // what is to be done is the same for all
        } else if none_answers && !self.asked {
            let seeds: Vec<String> = silent.iter().map(ToString::to_string).collect();
            tracing::warn!(seeds = %seeds.join(", "), "{SILENT}");
        }
        self.all &= none_answers;
        (self.nodes, self.asked) = (silent, true);
    }
}
