//! Where a comparison takes place: nodes, proxies and certificates, all up, and runs of the load.

use anyhow::{Result, anyhow};
use clap::Parser;
use keyway_bench::{Args, Report, Settings, Stage, pair};
use keyway_tests::Certificates;
use tempfile::TempDir;

use crate::nodes::{Node, Nodes};
use crate::process::{Apart, Cores};
use crate::proxies::{self, Flush, Proxy, Site};

/// Handshakes at the same time: a proxy that shares two cores with its clients should not time any out.
const CONNECTS_MAX: u32 = 16;

/// Everything that is up for the whole of a comparison.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) nodes: Nodes,
    pub(crate) cores: Cores,
    pub(crate) certificates: Certificates,
    pub(crate) flush: Flush,
    folder: TempDir,
}

/// An endpoint of a run.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) pid: u32,
    /// Of its own, instead of the run's.
    pub(crate) clients: Option<u32>,
}

impl Target {
    pub(crate) fn of(name: &str, proxy: &Proxy) -> Self {
        Self {
            name: name.to_owned(),
            port: proxy.port(),
            pid: proxy.pid(),
            clients: None,
        }
    }
}

/// One of each.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) keyway: Proxy,
    pub(crate) envoy: Proxy,
    pub(crate) haproxy: Proxy,
}

impl Ground {
    pub(crate) fn prepare(flush: Flush) -> Result<Self> {
        let cores = Cores::divide()?;
        let folder = tempfile::Builder::new()
            .prefix("keyway-compare-")
            .tempdir()?;
        let certificates = Certificates::loopback();
        let nodes = Nodes::start(&cores, folder.path(), &certificates)?;
        cores.take_load()?;
        Ok(Self {
            nodes,
            cores,
            certificates,
            flush,
            folder,
        })
    }

    pub(crate) fn site(&self) -> Site<'_> {
        Site {
            cores: &self.cores,
            folder: self.folder.path(),
            certificates: &self.certificates,
        }
    }

    /// A new Keyway over the three shards.
    pub(crate) fn keyway(&self) -> Result<Proxy> {
        let seed = self.nodes.shard_ports().first().copied().unwrap_or(0);
        proxies::keyway(&self.site(), "keyway", seed)
    }

    /// A new Envoy over the three shards.
    pub(crate) fn envoy(&self) -> Result<Proxy> {
        proxies::envoy(&self.site(), "envoy", &self.nodes.shard_ports(), self.flush)
    }

    /// A new HAProxy before the node that is alone.
    pub(crate) fn haproxy(&self) -> Result<Proxy> {
        proxies::haproxy(&self.site(), "haproxy", self.nodes.alone.port())
    }

    /// A new Keyway before a new cluster of one node.
    pub(crate) fn keyway_of_one(&self) -> Result<(Proxy, Node)> {
        let node = Node::whole("whole", &self.cores, self.folder.path())?;
        let proxy = proxies::keyway(&self.site(), "keyway-of-one", node.port())?;
        Ok((proxy, node))
    }

    /// A new server that is in no cluster.
    pub(crate) fn fresh_node(&self) -> Result<Node> {
        Node::alone("fresh", &self.cores, self.folder.path(), &self.certificates)
    }

    /// Keeps the nodes from the proxies' core, until what is returned is dropped.
    pub(crate) fn nodes_apart(&self) -> Result<Apart> {
        Apart::keep(&self.cores, &self.nodes.pids())
    }

    /// One of each proxy.
    pub(crate) fn field(&self) -> Result<Field> {
        Ok(Field {
            keyway: self.keyway()?,
            envoy: self.envoy()?,
            haproxy: self.haproxy()?,
        })
    }

    /// The node that is alone, by its own TLS.
    pub(crate) fn direct(&self) -> Target {
        Target {
            name: DIRECT.to_owned(),
            port: self.nodes.alone.tls_port(),
            pid: self.nodes.alone.pid(),
            clients: None,
        }
    }

    /// Drives the targets by the generator with `arguments` (as `load` takes them).
    pub(crate) fn run(&self, targets: &[Target], arguments: &str) -> Result<Outcome> {
        self.run_watched(targets, arguments, &mut |_| {})
    }

    /// The same, and tells at which stage it is.
    pub(crate) fn run_watched(
        &self,
        targets: &[Target],
        arguments: &str,
        watch: &mut dyn FnMut(Stage),
    ) -> Result<Outcome> {
        let nodes: Vec<String> = self.nodes.pids().iter().map(u32::to_string).collect();
        let mut line = vec![
            "load".to_owned(),
            format!("--ca={}", self.certificates.ca.display()),
            format!("--node-pid={}", nodes.join(",")),
            format!("--connects-max={CONNECTS_MAX}"),
            "--echo-every=0".to_owned(),
        ];
        for target in targets {
            let clients = target
                .clients
                .map_or_else(String::new, |clients| format!(",clients={clients}"));
            line.push(format!(
                "--target={}=127.0.0.1:{},pid={}{clients}",
                target.name, target.port, target.pid
            ));
        }
        line.extend(arguments.split_ascii_whitespace().map(str::to_owned));
        let args = Args::try_parse_from(&line).map_err(|error| anyhow!("{line:?}: {error}"))?;
        let report = keyway_bench::run_watched(Settings::new(&args)?, watch)?;
        Ok(Outcome(report))
    }
}

/// The names of the targets.
pub(crate) const KEYWAY: &str = "keyway";
/// As HAProxy is, before one node, so that these two give the machine the same processes to run.
pub(crate) const OF_ONE: &str = "keyway (1 node)";
pub(crate) const ENVOY: &str = "envoy";
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const DIRECT: &str = "direct";

impl Field {
    /// The proxies, by their names.
    pub(crate) fn targets(&self) -> Vec<Target> {
        vec![
            Target::of(KEYWAY, &self.keyway),
            Target::of(ENVOY, &self.envoy),
            Target::of(HAPROXY, &self.haproxy),
        ]
    }
}

/// What a run came to, by the names of the targets.
pub(crate) struct Outcome(pub(crate) Report);

/// One figure of a turn.
pub(crate) type Figure = fn(&pair::TurnFigures) -> Option<f64>;

pub(crate) const CPU: Figure = |turn| turn.cpu_us;
pub(crate) const NODES_CPU: Figure = |turn| turn.nodes_cpu_us;
pub(crate) const P50: Figure = |turn| turn.p50_us;
pub(crate) const P99: Figure = |turn| turn.p99_us;
pub(crate) const THROUGHPUT: Figure = |turn| turn.throughput;

impl Outcome {
    fn index(&self, name: &str) -> Option<usize> {
        let mut targets = self.0.targets.iter();
        targets.position(|target| target.name == name)
    }

    /// What the target did, where it took part.
    pub(crate) fn target(&self, name: &str) -> Option<&keyway_bench::TargetReport> {
        self.0.targets.iter().find(|target| target.name == name)
    }

    /// How late the load itself was with the target's requests, p99, in microseconds; of an open loop.
    pub(crate) fn delay_us(&self, name: &str) -> Option<f64> {
        Some(self.target(name)?.lag_us.as_ref()?.p99)
    }

    /// The median over the target's turns.
    pub(crate) fn median(&self, name: &str, figure: Figure) -> Option<f64> {
        let turns = &self.0.figures;
        pair::quartiles(turns, self.index(name)?, figure).map(|quartiles| quartiles.median)
    }

    /// A figure of one target by that of another, in pairs.
    pub(crate) fn ratio(
        &self,
        name: &str,
        reference: &str,
        figure: Figure,
    ) -> Option<keyway_bench::stats::Quartiles> {
        let (target, reference) = (self.index(name)?, self.index(reference)?);
        pair::ratio(&self.0.figures, target, reference, figure)
    }
}
