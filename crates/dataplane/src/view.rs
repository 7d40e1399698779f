//! What discovery tells of the cluster.

use std::sync::Arc;

use command::CommandTable;
use session::local::Facts;
use topology::Topology;

use crate::reads::Readers;

/// The cluster, as the last look at it found it.
#[derive(Clone, Debug)]
pub struct View {
    /// Who owns what; `None` until the first look that succeeded.
    pub topology: Option<Arc<Topology>>,
    /// What else is known.
    pub facts: Arc<Facts>,
    /// The commands that the cluster knows beyond the built-in ones; `None` until they are known.
    pub table: Option<Arc<CommandTable>>,
    /// What is known of the nodes that are read from.
    pub readers: Arc<Readers>,
    /// How many looks have succeeded. Grows even when nothing has changed.
    pub looks: u64,
}

impl View {
    /// Nothing is known yet. The `default` user counts as open unless it is known not to be, so
    /// that what needs no node is answered; every other command waits for a node, who knows better.
    #[must_use]
    pub fn unknown(default_user_open: bool) -> Self {
        let facts = Facts {
            version: "9.1.2".to_owned(),
            default_user_open,
            slots_covered: 0,
            shards: 0,
            nodes: 0,
            epoch: 0,
            databases: 1,
            sums: session::local::Sums::default(),
        };
        Self {
            topology: None,
            readers: Arc::default(),
            facts: Arc::new(facts),
            looks: 0,
            table: None,
        }
    }
}
