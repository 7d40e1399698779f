//! A scenario file: the hosts, what a node and a request cost, the tenants and their demand.

use serde::Deserialize;

/// What a simulation is of. Every number of the model is here; nothing is in the code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, for titles and files.
    pub name: String,
    /// Simulated time.
    pub duration_s: f64,
    /// Queues and latencies are worked out so often.
    pub tick_s: f64,
    /// The planner decides so often.
    pub control_s: f64,
    /// The machines.
    pub hosts: Hosts,
    /// Nodes that are ready to be taken.
    pub pool: Pool,
    /// One node.
    pub node: NodeSpec,
    /// One request.
    pub request: Request,
    /// Slots and nodes on the move.
    pub moves: Moves,
    /// When nodes come and go.
    pub scaling: Scaling,
    /// Who has clusters there; one of them in focus.
    pub tenant: Vec<TenantSpec>,
}

/// The machines, all equal, spread over the zones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// How many.
    pub count: usize,
    /// Availability zones.
    pub zones: usize,
    /// CPUs of each.
    pub cpus: f64,
    /// Memory of each.
    pub memory_gib: f64,
    /// Network of each.
    pub network_gbit: f64,
    /// Nodes leave a host that uses more than this share of what it has.
    pub busy_above: f64,
    /// None comes to one that would use more than this.
    pub full_above: f64,
}

/// Nodes that are started and empty.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// How many are kept ready.
    pub nodes: usize,
    /// Time until another one stands where one was taken.
    pub provision_s: f64,
    /// Time until one that was taken is a member of its cluster.
    pub attach_s: f64,
}

/// What one node can do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Requests a second that one CPU carries.
    pub rps_per_cpu: f64,
    /// CPUs it always has.
    pub cpus_reserved: f64,
    /// Times that to which it may grow at once where its host has them free.
    pub growth_in_place: f64,
    /// Memory it has reserved.
    pub memory_gib: f64,
    /// Replicas beside each primary, in other zones.
    pub replicas: usize,
    /// Share of CPU and memory that is planned with.
    pub use_max: f64,
}

/// What one request costs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Bytes of it and its reply together.
    pub bytes: f64,
    /// Share of requests that write.
    pub write_share: f64,
    /// What a write costs a replica, in requests of a primary.
    pub replica_cost: f64,
    /// Network and proxy, both ways.
    pub network_ms: f64,
    /// What varies in that, on average.
    pub jitter_ms: f64,
    /// Squared coefficient of variation of the CPU time of a request; 1 is exponential.
    pub service_cv2: f64,
    /// A client gives up after this time.
    pub timeout_s: f64,
}

/// What it costs to move.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moves {
    /// What one migration carries at most.
    pub mbyte_per_s: f64,
    /// Time that one takes to begin and to end, beside the bytes.
    pub fixed_s: f64,
    /// Requests to its slots wait so long at its end.
    pub pause_ms: f64,
    /// CPUs that it takes at either end.
    pub cpus: f64,
    /// Migrations that a node takes part in at once.
    pub per_node: usize,
    /// Migrations that a host takes part in at once.
    pub per_host: usize,
    /// Slots of one migration.
    pub slots: usize,
}

/// When nodes come and go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Growth of load that must be carried by the nodes there are..
    pub headroom: f64,
    /// ..and what may be left of it before there are more.
    pub headroom_min: f64,
    /// Nodes become so many times as many..
    pub growth_max: f64,
    /// ..in this time, at most.
    pub growth_period_s: f64,
    /// Time ahead that is planned for.
    pub ahead_s: f64,
    /// Nodes are given back when this share would do..
    pub shrink_below: f64,
    /// ..and has for so long.
    pub shrink_after_s: f64,
}

/// Some tenants of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSpec {
    /// Their name.
    pub name: String,
    /// How many there are.
    #[serde(default = "one")]
    pub count: usize,
    /// The figures are of this one.
    #[serde(default)]
    pub focus: bool,
    /// Slots that are told apart; those of small tenants may stand for many.
    pub slots: usize,
    /// Shards in the beginning, and at least.
    pub shards: usize,
    /// What each of them holds.
    pub gib: f64,
    /// Keys, for the unevenness of slots..
    pub keys: f64,
    /// ..that comes of their popularity: the exponent of Zipf's law.
    pub skew: f64,
    /// Latency that 99 of 100 requests should keep.
    pub p99_ms: f64,
    /// Tenants of this kind differ by so much (deviation of the logarithm).
    #[serde(default)]
    pub spread: f64,
    /// Demand wavers by so much around its curve.
    #[serde(default)]
    pub noise: f64,
    /// Demand is the sum of these.
    pub demand: Vec<Curve>,
    /// Some slots become hot.
    pub hot: Option<Hot>,
}

/// Slots that take a share of all requests from some time on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hot {
    /// From when.
    pub at_s: f64,
    /// How many.
    pub slots: usize,
    /// Their share of all requests.
    pub share: f64,
}

/// Requests a second over time.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Curve {
    /// The same always.
    Constant {
        /// Requests a second.
        rps: f64,
    },
    /// A game launch: up by a factor again and again.
    Steps {
        /// When it begins.
        at_s: f64,
        /// With how many requests a second.
        from: f64,
        /// The factor of a step.
        factor: f64,
        /// Time between steps.
        every_s: f64,
        /// Where it ends.
        to: f64,
    },
    /// A flash sale: up, a while there, down.
    Flash {
        /// When it begins.
        at_s: f64,
        /// Time up.
        rise_s: f64,
        /// Time there.
        hold_s: f64,
        /// Time down.
        fall_s: f64,
        /// Requests a second at its height.
        peak: f64,
    },
    /// Day and night.
    Wave {
        /// Requests a second at the quietest.
        low: f64,
        /// And at the busiest..
        high: f64,
        /// ..which is at this hour.
        peak_hour: f64,
    },
}

fn one() -> usize {
    1
}

const DAY_S: f64 = 86_400.0;

impl Curve {
    /// Requests a second at this time.
    #[must_use]
    pub fn at(&self, now_s: f64) -> f64 {
        match *self {
            Self::Constant { rps } => rps,
            Self::Steps {
                at_s,
                from,
                factor,
                every_s,
                to,
            } => {
                let steps = ((now_s - at_s) / every_s).floor();
                if steps < 0.0 {
                    0.0
                } else {
                    (from * factor.powf(steps)).min(to)
                }
            }
            Self::Flash {
                at_s,
                rise_s,
                hold_s,
                fall_s,
                peak,
            } => {
                let up = ((now_s - at_s) / rise_s).clamp(0.0, 1.0);
                let down = ((now_s - at_s - rise_s - hold_s) / fall_s).clamp(0.0, 1.0);
                peak * (up - down)
            }
            Self::Wave {
                low,
                high,
                peak_hour,
            } => {
                let angle = (now_s / DAY_S - peak_hour / 24.0) * std::f64::consts::TAU;
                low + (high - low) * (0.5 + 0.5 * angle.cos())
            }
        }
    }
}

impl TenantSpec {
    /// Requests a second that its curves add up to.
    #[must_use]
    pub fn demand_at(&self, now_s: f64) -> f64 {
        self.demand.iter().map(|curve| curve.at(now_s)).sum()
    }
}

impl Scenario {
    /// Reads a scenario and looks for what cannot be.
    ///
    /// # Errors
    /// What is wrong with it, with its place where the text is.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        let positive = [
            ("duration_s", scenario.duration_s),
            ("tick_s", scenario.tick_s),
            ("control_s", scenario.control_s),
            ("hosts.cpus", scenario.hosts.cpus),
            ("node.rps_per_cpu", scenario.node.rps_per_cpu),
            ("node.cpus_reserved", scenario.node.cpus_reserved),
            ("moves.mbyte_per_s", scenario.moves.mbyte_per_s),
            ("scaling.growth_period_s", scenario.scaling.growth_period_s),
        ];
        for (name, value) in positive {
            anyhow::ensure!(value > 0.0, "{name} must be above 0, and is {value}");
        }
        anyhow::ensure!(
            scenario.node.replicas < scenario.hosts.zones,
            "{} replicas and a primary need a zone each, and there are {}",
            scenario.node.replicas,
            scenario.hosts.zones
        );
        anyhow::ensure!(
            scenario.moves.per_host > 0 && scenario.moves.per_node > 0,
            "moves.per_host and moves.per_node must be above 0"
        );
        let reserved = scenario.nodes_per_host() as f64 * scenario.node.cpus_reserved;
        anyhow::ensure!(
            reserved <= scenario.hosts.cpus,
            "a host full of nodes has {reserved} CPUs reserved and {} to give",
            scenario.hosts.cpus
        );
        let focus = scenario.tenant.iter().filter(|tenant| tenant.focus);
        let of_focus: usize = focus.map(|tenant| tenant.count).sum();
        anyhow::ensure!(of_focus == 1, "one tenant has the focus, not {of_focus}");
        for tenant in &scenario.tenant {
            anyhow::ensure!(
                (1..=usize::from(topology::Slot::COUNT)).contains(&tenant.slots)
                    && (1..=tenant.slots).contains(&tenant.shards),
                "tenant {}: {} slots, {} shards",
                tenant.name,
                tenant.slots,
                tenant.shards
            );
        }
        Ok(scenario)
    }
}
