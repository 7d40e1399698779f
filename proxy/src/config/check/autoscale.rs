//! `[autoscale]`: numbers in their ranges, and pairs that do not contradict each other.

use super::values::Checker;
use crate::config::{Autoscale, HostPort, autoscale::Typed};

/// Nodes of the pool at most.
const WARM_MAX: usize = 1000;
/// Replicas of a shard at most.
const REPLICAS_MAX: i64 = 5;
/// Shards at most.
const SHARDS_MAX: i64 = 1000;
/// Cores that one node can use, in percent of one.
const CORES_PERCENT_MAX: i64 = 6400;

impl Checker<'_> {
    pub(super) fn autoscale(&mut self, typed: Typed) -> Autoscale {
        let found = Autoscale {
            warm: self.warm(typed.warm.as_deref().unwrap_or_default()),
            ..self.bounds(&typed)
        };
        let found = self.times(&typed, found);
        if found.shards_min > found.shards_max {
            self.wrong("autoscale.shards_min", "is more than shards_max");
        }
        if found.headroom_min_percent > found.headroom_percent {
            let message = "is more than headroom_percent";
            self.wrong("autoscale.headroom_min_percent", message);
        }
        found
    }

    fn warm(&mut self, texts: &[String]) -> Vec<HostPort> {
        const KEY: &str = "autoscale.warm";
        if texts.len() > WARM_MAX {
            self.wrong(KEY, format!("{} nodes; 0 to {WARM_MAX}", texts.len()));
            return Vec::new();
        }
        let read = |text: &String| self.host_port(KEY, text);
        texts.iter().filter_map(read).collect()
    }

    fn bounds(&mut self, typed: &Typed) -> Autoscale {
        let usual = Autoscale::default();
        let mut number = |key: &str, value, default, range| {
            self.number(&format!("autoscale.{key}"), value, default, range)
        };
        let some = |number: usize| (number > 0).then_some(number);
        let (ops, bytes) = (typed.node_ops_max, typed.node_memory_bytes_max);
        let (cpu, most) = (typed.node_cpu_percent_max, typed.use_percent_max);
        let (headroom, least) = (typed.headroom_percent, typed.headroom_min_percent);
        let (below, any) = (typed.shrink_below_percent, (0, i64::MAX));
        let (min, max, shards) = (typed.shards_min, typed.shards_max, (1, SHARDS_MAX));
        let (cores, over) = ((1, CORES_PERCENT_MAX), (100, 1000));
        let replicas = (0, REPLICAS_MAX);
        Autoscale {
            replicas: number("replicas", typed.replicas, usual.replicas, replicas),
            node_ops_max: some(number("node_ops_max", ops, 0, any)),
            node_cpu_percent_max: number(
                "node_cpu_percent_max",
                cpu,
                usual.node_cpu_percent_max,
                cores,
            ),
            node_memory_bytes_max: some(number("node_memory_bytes_max", bytes, 0, any)),
            use_percent_max: number("use_percent_max", most, usual.use_percent_max, (1, 100)),
            headroom_percent: number("headroom_percent", headroom, usual.headroom_percent, over),
            headroom_min_percent: number(
                "headroom_min_percent",
                least,
                usual.headroom_min_percent,
                over,
            ),
            shards_min: number("shards_min", min, usual.shards_min, shards),
            shards_max: number("shards_max", max, usual.shards_max, shards),
            shrink_below_percent: number(
                "shrink_below_percent",
                below,
                usual.shrink_below_percent,
                (1, 99),
            ),
            ..usual
        }
    }

    fn times(&mut self, typed: &Typed, found: Autoscale) -> Autoscale {
        let mut time =
            |key: &str, value, default| self.millis(&format!("autoscale.{key}"), value, default);
        let (growth, shrink) = (typed.growth_period_ms, typed.shrink_after_ms);
        Autoscale {
            interval: time("interval_ms", typed.interval_ms, found.interval),
            ahead: time("ahead_ms", typed.ahead_ms, found.ahead),
            growth_period: time("growth_period_ms", growth, found.growth_period),
            shrink_after: time("shrink_after_ms", shrink, found.shrink_after),
            ..found
        }
    }
}
