//! The configuration in force, for everyone who has to do with it while it may be replaced.

use std::sync::Arc;

use tokio::sync::watch;

use super::Config;

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
    pub clusters: Vec<Live>,
}

impl Lives {
    /// Those of a configuration that was read.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let own = config.clusters.iter().map(|own| Live::new(Arc::clone(own)));
        let mut clusters: Vec<Live> = own.collect();
        let process = Live::new(config);
        if clusters.is_empty() {
            clusters.push(process.clone());
        }
        Self { process, clusters }
    }

    /// Puts another in force, which has the same clusters in the same order.
    pub fn replace(&self, config: Arc<Config>) {
        for (live, own) in self.clusters.iter().zip(&config.clusters) {
            live.replace(Arc::clone(own));
        }
        self.process.replace(config);
    }
}
