//! What clients of Keyway see while the cluster behind it changes or fails: each case on a real
//! cluster, under verified load, as one row of a table.
//!
//! Owns the cases and what each of them may cost. Printing is `tests/src/bin/chaos.rs`'s.

mod cases;
mod row;
mod zones;

pub use cases::{atomic, killed, legacy, planned, scaled, stopped};
pub use row::{Allowed, Outage, Row};
pub use zones::zones;

use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::{ClusterOptions, RealCluster, slot_of};
use crate::keyway::{Keyway, Settings};
use crate::load::{Load, LoadOptions};
use crate::observer::{Observer, Watch};

/// A cluster, Keyway before it, and what load to put on it.
#[derive(Debug)]
pub struct Ground {
    /// The servers.
    pub cluster: RealCluster,
    /// The binary under test.
    pub keyway: Keyway,
    /// What the clients do.
    pub load: LoadOptions,
}

impl Ground {
    /// Starts both.
    ///
    /// # Panics
    /// They do not come up.
    #[must_use]
    pub fn new(cluster: ClusterOptions, load: LoadOptions) -> Self {
        let cluster = RealCluster::with(cluster);
        let settings = Settings::default();
        let keyway = Keyway::with(&cluster, &settings);
        Self {
            cluster,
            keyway,
            load,
        }
    }

    fn start_load(&self, lossy: bool) -> Load {
        let options = LoadOptions {
            lossy,
            // Every row has keys of its own.
            prefix: format!("{}{}", self.load.prefix, row::serial()),
            ..self.load.clone()
        };
        Load::start(&self.keyway.addr(), self.keyway.ca(), &options)
    }

    /// The indexes of the nodes of a shard as it was at the start.
    fn members(&self, shard: usize) -> Vec<usize> {
        let options = self.cluster.options();
        let first = options.shards + shard * options.replicas;
        std::iter::once(shard)
            .chain(first..first + options.replicas)
            .collect()
    }

    /// The primary of a shard now, and a replica.
    fn primary_and_replica(&self, shard: usize) -> (usize, usize) {
        let primary = self.cluster.owner(self.cluster.slots_of(shard).0);
        let replica = self
            .members(shard)
            .into_iter()
            .find(|index| *index != primary);
        (primary, replica.expect("a shard with a replica"))
    }

    fn observe(&self) -> Observer {
        let watch = |shard: usize| {
            let (first, last) = self.cluster.slots_of(shard);
            let inside = |key: &String| (first..=last).contains(&slot_of(key));
            Watch {
                nodes: self
                    .members(shard)
                    .into_iter()
                    .map(|index| self.cluster.nodes()[index].addr())
                    .collect(),
                ca: self.cluster.nodes()[shard].ca().map(PathBuf::from),
                key: (0..)
                    .map(|n| format!("observed:{n}"))
                    .find(inside)
                    .unwrap_or_default(),
            }
        };
        let shards: Vec<Watch> = (0..self.cluster.options().shards).map(watch).collect();
        Observer::start(&shards)
    }
}

/// Every client has had replies since: twice as many pipelines as clients.
fn settle(load: &Load, options: &LoadOptions) {
    load.wait_rounds(2 * options.clients as u64);
}

/// The load of the table: 200 clients, as many commands as two busy cores bear.
#[must_use]
pub fn table_load() -> LoadOptions {
    LoadOptions {
        pause: Duration::from_millis(150),
        watches: true,
        pairs: 10,
        ..LoadOptions::new(200)
    }
}
