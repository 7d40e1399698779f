//! The configuration in force, for everyone who has to do with it while it may be replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;

use super::{ClusterId, Config};

/// The configuration in force. Clones show the same one.
#[derive(Clone, Debug)]
pub struct Live(Arc<watch::Sender<Arc<Config>>>);

impl Live {
    /// This one, until another takes its place.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self(Arc::new(watch::Sender::new(config)))
    }

    /// What is in force now.
    #[must_use]
    pub fn get(&self) -> Arc<Config> {
        Arc::clone(&self.0.borrow())
    }

    /// Says when it is another.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Config>> {
        self.0.subscribe()
    }

    /// Puts another in force.
    pub fn replace(&self, config: Arc<Config>) {
        self.0.send_replace(config);
    }
}

/// The configurations in force of the process and of each cluster; with `[cluster]`, both are the same.
#[derive(Clone, Debug)]
pub struct Lives {
    /// That of the process.
    pub process: Live,
    /// That of each cluster; one at least.
    pub clusters: BTreeMap<ClusterId, Live>,
}

impl Lives {
    /// Those of a configuration that was read.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let mut clusters = BTreeMap::new();
        for (id, own) in config.of_each() {
            clusters.insert(id, Live::new(Arc::clone(own)));
        }
        let process = Live::new(config);
        if clusters.is_empty() {
            clusters.insert(ClusterId::FIRST, process.clone());
        }
        Self { process, clusters }
    }

    /// Puts another in force; of clusters that `same` names, nothing differs. Clusters that are not in it
    /// are forgotten here; new ones must have been [added](Self::clusters) before.
    pub fn replace(&mut self, config: Arc<Config>, same: &BTreeSet<ClusterId>) {
        if !config.clusters.is_empty() {
            let stays = |id: &ClusterId| config.of_each().any(|(own, _)| own == *id);
            self.clusters.retain(|id, _| stays(id));
        }
        for (id, own) in config.of_each().filter(|(id, _)| !same.contains(id)) {
            if let Some(live) = self.clusters.get(&id) {
                live.replace(Arc::clone(own));
            }
        }
        self.process.replace(config);
    }
}
