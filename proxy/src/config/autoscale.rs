//! `[autoscale]`: the warm pool, and when nodes are taken from it and given back. Read by
//! `keyway autoscale`; a Keyway that serves checks it and does nothing with it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::HostPort;
use super::typed::Whole;

/// What was typed.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Typed {
    pub(super) warm: Option<Vec<String>>,
    pub(super) replicas: Option<Whole>,
    pub(super) node_ops_max: Option<Whole>,
    pub(super) node_cpu_percent_max: Option<Whole>,
    pub(super) node_memory_bytes_max: Option<Whole>,
    pub(super) use_percent_max: Option<Whole>,
    pub(super) headroom_percent: Option<Whole>,
    pub(super) headroom_min_percent: Option<Whole>,
    pub(super) shards_min: Option<Whole>,
    pub(super) shards_max: Option<Whole>,
    pub(super) interval_ms: Option<Whole>,
    pub(super) ahead_ms: Option<Whole>,
    pub(super) growth_period_ms: Option<Whole>,
    pub(super) shrink_below_percent: Option<Whole>,
    pub(super) shrink_after_ms: Option<Whole>,
}

/// `[autoscale]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autoscale {
    /// Empty nodes that may be taken into the cluster, and given back.
    pub warm: Vec<HostPort>,
    /// Of every shard that is taken in; they come from the same pool.
    pub replicas: usize,
    /// Commands a second that one node carries; `None` is that its CPU decides.
    pub node_ops_max: Option<usize>,
    /// CPU that one node has, in percent of one core.
    pub node_cpu_percent_max: usize,
    /// Bytes that one node holds; `None` is its own `maxmemory`.
    pub node_memory_bytes_max: Option<usize>,
    /// Share of a node's load and bytes that is used at most.
    pub use_percent_max: usize,
    /// When nodes are taken, so many that load could be so much of what it is..
    pub headroom_percent: usize,
    /// ..and they are taken when it could be no more than this.
    pub headroom_min_percent: usize,
    /// Fewest shards.
    pub shards_min: usize,
    /// Most shards.
    pub shards_max: usize,
    /// Between two looks.
    pub interval: Duration,
    /// Load is expected so far ahead: until nodes that are taken now have their slots.
    pub ahead: Duration,
    /// Shards at most double in this time.
    pub growth_period: Duration,
    /// Nodes are given back when this share of them would do..
    pub shrink_below_percent: usize,
    /// ..and has for this long.
    pub shrink_after: Duration,
}

impl Default for Autoscale {
    fn default() -> Self {
        Self {
            warm: Vec::new(),
            replicas: 0,
            node_ops_max: None,
            node_cpu_percent_max: 100,
            node_memory_bytes_max: None,
            use_percent_max: 70,
            headroom_percent: 140,
            headroom_min_percent: 110,
            shards_min: 1,
            shards_max: 100,
            interval: Duration::from_secs(5),
            ahead: Duration::from_secs(60),
            growth_period: Duration::from_secs(60),
            shrink_below_percent: 70,
            shrink_after: Duration::from_secs(600),
        }
    }
}

impl Autoscale {
    /// As a section of the summary.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warm: Vec<_> = self.warm.iter().map(|addr| format!("\"{addr}\"")).collect();
        writeln!(f, "\n[autoscale]\nwarm = [{}]", warm.join(", "))?;
        for (key, value) in [
            ("replicas", self.replicas),
            ("node_ops_max", self.node_ops_max.unwrap_or_default()),
            ("node_cpu_percent_max", self.node_cpu_percent_max),
            (
                "node_memory_bytes_max",
                self.node_memory_bytes_max.unwrap_or_default(),
            ),
            ("use_percent_max", self.use_percent_max),
            ("headroom_percent", self.headroom_percent),
            ("headroom_min_percent", self.headroom_min_percent),
            ("shards_min", self.shards_min),
            ("shards_max", self.shards_max),
            ("shrink_below_percent", self.shrink_below_percent),
        ] {
            writeln!(f, "{key} = {value}")?;
        }
        for (key, value) in [
            ("interval_ms", self.interval),
            ("ahead_ms", self.ahead),
            ("growth_period_ms", self.growth_period),
            ("shrink_after_ms", self.shrink_after),
        ] {
            writeln!(f, "{key} = {}", value.as_millis())?;
        }
        Ok(())
    }
}
