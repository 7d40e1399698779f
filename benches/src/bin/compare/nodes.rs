//! The Valkey nodes of a comparison: three shards without TLS behind the proxies that route, and one
//! server by itself, with TLS for clients and without for the proxy that does not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use keyway_tests::Certificates;
use keyway_tests::ports::{self, Port};

use crate::process::{Cores, Process};

/// Shards of the cluster.
const SHARDS: usize = 3;
/// Slots of a cluster.
const SLOTS: usize = 16_384;
/// Connections that a node takes.
const CLIENTS_MAX: &str = "15000";
/// A node that says nothing for so long is lost.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a reply to the cluster's setting up at most.
const REPLY_BYTES: usize = 64 << 10;

/// One server.
#[derive(Debug)]
pub(crate) struct Node {
    process: Process,
    port: Port,
    tls_port: Option<Port>,
    bus: Option<Port>,
}

impl Node {
    fn start(
        name: &str,
        cores: &Cores,
        folder: &Path,
        bus: Option<Port>,
        certificates: Option<&Certificates>,
    ) -> Result<Self> {
        let program: PathBuf = std::env::var_os("KEYWAY_VALKEY_8")
            .context("KEYWAY_VALKEY_8 is not set: start this by benches/compare")?
            .into();
        let port = ports::reserve();
        let folder = folder.join(name);
        let mut words = vec![
            "--bind 127.0.0.1 --save '' --appendonly no --maxclients".to_owned(),
            CLIENTS_MAX.to_owned(),
            format!("--port {}", port.number()),
        ];
        if let Some(bus) = &bus {
            words.push("--cluster-enabled yes --cluster-config-file nodes.conf".to_owned());
            words.push(format!("--cluster-port {}", bus.number()));
        }
        let tls_port = certificates.map(|_| ports::reserve());
        if let (Some(files), Some(port)) = (certificates, &tls_port) {
            words.push(format!("--tls-port {}", port.number()));
            words.push("--tls-auth-clients no".to_owned());
            words.push(format!("--tls-ca-cert-file {}", files.ca.display()));
            words.push(format!("--tls-cert-file {}", files.cert.display()));
            words.push(format!("--tls-key-file {}", files.key.display()));
        }
        let arguments: Vec<String> = words
            .iter()
            .flat_map(|part| part.split(' '))
            .map(|word| word.trim_matches('\'').to_owned())
            .collect();
        let mut process = Process::start(name, cores.all(), &program, &arguments, &folder)?;
        process.wait_listening(port.number())?;
        if let Some(port) = &tls_port {
            process.wait_listening(port.number())?;
        }
        Ok(Self {
            process,
            port,
            tls_port,
            bus,
        })
    }

    /// A server that is in no cluster, with TLS.
    pub(crate) fn alone(
        name: &str,
        cores: &Cores,
        folder: &Path,
        certificates: &Certificates,
    ) -> Result<Self> {
        Self::start(name, cores, folder, None, Some(certificates))
    }

    /// A cluster by itself, which has all slots.
    pub(crate) fn whole(name: &str, cores: &Cores, folder: &Path) -> Result<Self> {
        let node = Self::start(name, cores, folder, Some(ports::reserve()), None)?;
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", &(SLOTS - 1).to_string()])?;
        agreed(std::slice::from_ref(&node))?;
        Ok(node)
    }

    /// Its port without TLS.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its port with TLS; 0 when it has none.
    pub(crate) fn tls_port(&self) -> u16 {
        self.tls_port.as_ref().map_or(0, Port::number)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks the server one thing.
    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut request = Vec::new();
        resp::write::request(&mut request, words);
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port()))?;
        socket.set_read_timeout(Some(REPLY_LIMIT))?;
        socket.write_all(&request)?;
        let mut reply = vec![0; REPLY_BYTES];
        let len = socket.read(&mut reply)?;
        reply.truncate(len);
        let reply = String::from_utf8_lossy(&reply).into_owned();
        ensure!(!reply.starts_with('-'), "{words:?}: {reply}");
        Ok(reply)
    }
}

/// Waits until these are a cluster, and all say so.
fn agreed(shards: &[Node]) -> Result<()> {
    let count = shards.len();
    let agrees = |node: &Node| {
        node.ask(&["CLUSTER", "INFO"]).is_ok_and(|info| {
            info.contains("cluster_state:ok")
                && info.contains(&format!("cluster_known_nodes:{count}\r"))
                && info.contains(&format!("cluster_size:{count}\r"))
        })
    };
    let end = Instant::now() + Duration::from_secs(30);
    while !shards.iter().all(agrees) {
        ensure!(Instant::now() < end, "the shards do not become a cluster");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// All servers.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// The cluster.
    pub(crate) shards: Vec<Node>,
    /// The one that is in no cluster.
    pub(crate) alone: Node,
}

impl Nodes {
    /// Starts them, and waits until the cluster is one.
    pub(crate) fn start(cores: &Cores, folder: &Path, certificates: &Certificates) -> Result<Self> {
        let alone = Node::alone("alone", cores, folder, certificates)?;
        let mut shards = Vec::new();
        for index in 0..SHARDS {
            let name = format!("shard-{index}");
            let bus = Some(ports::reserve());
            shards.push(Node::start(&name, cores, folder, bus, None)?);
        }
        let nodes = Self { shards, alone };
        nodes.join()?;
        Ok(nodes)
    }

    fn join(&self) -> Result<()> {
        let Some(first) = self.shards.first() else {
            bail!("no shards");
        };
        for (index, shard) in self.shards.iter().enumerate() {
            let from = (index * SLOTS / SHARDS).to_string();
            let to = ((index + 1) * SLOTS / SHARDS - 1).to_string();
            let epoch = (index + 1).to_string();
            shard.ask(&["CLUSTER", "ADDSLOTSRANGE", &from, &to])?;
            shard.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
            if index > 0 {
                let bus = shard.bus.as_ref().map_or(0, Port::number).to_string();
                let port = shard.port().to_string();
                first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
            }
        }
        agreed(&self.shards)
    }

    /// The processes of all servers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let all = self.shards.iter().chain([&self.alone]);
        all.map(Node::pid).collect()
    }

    /// The ports of the cluster, without TLS.
    pub(crate) fn shard_ports(&self) -> Vec<u16> {
        self.shards.iter().map(Node::port).collect()
    }
}
