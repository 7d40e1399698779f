//! What a simulated cluster is made of.

use std::time::Duration;

/// Whose words and shapes the nodes use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Valkey 8.0: no zones in `HELLO` and the `CLUSTER` commands, no atomic migration.
    V8_0,
    /// Valkey 9.1.
    #[default]
    V9_1,
}

impl Version {
    /// As `HELLO` and `INFO` have it.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::V8_0 => "8.0.1",
            Self::V9_1 => "9.1.2",
        }
    }
}

/// The shape of a cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Primaries; the slots are divided among them.
    pub shards: usize,
    /// Replicas of each primary.
    pub replicas: usize,
    /// Availability zones. A shard's nodes are in different ones, as far as there are enough.
    pub zones: Vec<String>,
    /// Whose words and shapes the nodes use.
    pub version: Version,
    /// The password of the user `default`; `None`: it needs none.
    pub default_password: Option<String>,
    /// More users, with their passwords. All may do everything.
    pub users: Vec<(String, String)>,
    /// How many databases `SELECT` may choose (`cluster-databases` of 9.x). They share their keys:
    /// what tells them apart is [`crate::Ran`].
    pub databases: u32,
    /// How long a primary is dead before a replica takes over.
    pub node_timeout: Duration,
    /// How far replicas are behind.
    pub replica_lag: Duration,
    /// Makes ids differ from every other cluster's.
    pub seed: u64,
    /// Milliseconds since 1970 when the cluster's clock is at zero.
    pub started_unix_ms: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            shards: 3,
            replicas: 1,
            zones: ["zone-a", "zone-b", "zone-c"].map(str::to_owned).to_vec(),
            version: Version::default(),
            default_password: None,
            users: Vec::new(),
            databases: 1,
            node_timeout: Duration::from_secs(2),
            replica_lag: Duration::ZERO,
            seed: 1,
            started_unix_ms: 1_767_225_600_000, // 2026-01-01
        }
    }
}
