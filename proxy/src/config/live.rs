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
