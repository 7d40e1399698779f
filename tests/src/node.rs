//! One `valkey-server` process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::ports::{self, Port};
use crate::process::signal;
use crate::tools::tool;
use crate::wait::wait_until;

/// Which server, and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 9.1, without TLS: it has atomic slot migration and zones in CLUSTER SHARDS.
    V9_1,
    /// 8.0 over TLS: clients and nodes.
    V8_0Tls,
}

/// A server process with its port and folder; killed when dropped.
#[derive(Debug)]
pub struct Node {
    version: Version,
    port: Port,
    bus: Option<Port>,
    folder: TempDir,
    certificates: Option<Arc<Certificates>>,
    password: Option<String>,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// Where memory is a file system.
const IN_MEMORY: &str = "/dev/shm";
/// What many nodes need at a time, with room.
const IN_MEMORY_BYTES_MIN: u64 = 1 << 30;

/// A folder in memory, where there is room: a node waits for its disk (`fsync` of `nodes.conf`) with everything else
/// that it does. Seconds of that, as beside a build, are a failed node.
fn folder() -> std::io::Result<TempDir> {
    let free = rustix::fs::statvfs(IN_MEMORY).map_or(0, |at| at.f_bavail * at.f_frsize);
    if free < IN_MEMORY_BYTES_MIN {
        return TempDir::new();
    }
    tempfile::Builder::new()
        .prefix("keyway-node-")
        .tempdir_in(IN_MEMORY)
}

impl Node {
    /// Starts a server; `bus` makes it a cluster node. `extra` is added to its arguments.
    pub(crate) fn start(
        version: Version,
        certificates: Option<Arc<Certificates>>,
        cluster: bool,
        password: Option<String>,
        extra: &[&str],
    ) -> Self {
        let port = ports::reserve();
        let bus = cluster.then(ports::reserve);
        let folder = folder().expect("a folder for a node");
        let mut node = Self {
            version,
            port,
            bus,
            folder,
            certificates,
            password,
            arguments: extra.iter().map(ToString::to_string).collect(),
            child: None,
        };
        node.restart();
        node
    }

    fn command(&self) -> Command {
        let program = match self.version {
            Version::V9_1 => tool("KEYWAY_VALKEY_9"),
            Version::V8_0Tls => tool("KEYWAY_VALKEY_8"),
        };
        let mut command = Command::new(program);
        let port = self.port.number().to_string();
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args([
            "--repl-diskless-sync-delay",
            "0",
            "--enable-debug-command",
            "yes",
        ]);
        command
            .arg("--dir")
            .arg(self.folder.path())
            .args(["--logfile", "log"]);
        match &self.certificates {
            None => drop(command.args(["--port", &port])),
            Some(files) => {
                command.args([
                    "--port",
                    "0",
                    "--tls-port",
                    &port,
                    "--tls-auth-clients",
                    "no",
                ]);
                command.args(["--tls-replication", "yes", "--tls-cluster", "yes"]);
                command.arg("--tls-ca-cert-file").arg(&files.ca);
                command.arg("--tls-cert-file").arg(&files.cert);
                command.arg("--tls-key-file").arg(&files.key);
            }
        }
        if let Some(bus) = &self.bus {
            command.args([
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                "nodes.conf",
            ]);
            command.args(["--cluster-port", &bus.number().to_string()]);
        }
        if let Some(password) = &self.password {
            command.args(["--requirepass", password, "--primaryauth", password]);
        }
        command.args(&self.arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Starts the process again after [`Self::kill`], with the same folder and port.
    ///
    /// # Panics
    /// It does not answer within ten seconds.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the node still runs");
        let mut command = self.command();
        let spawned = command.spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (addr, ca) = (self.addr(), self.ca());
        let mut ended = false;
        wait_until("a valkey-server that answers", 10, || {
            ended = matches!(child.try_wait(), Ok(Some(_)));
            ended || open(&addr, ca).is_ok_and(|mut client| client.try_cmd(&["PING"]).is_ok())
        });
        self.child = Some(child);
        assert!(!ended, "valkey-server ended at once:\n{}", self.log());
    }

    /// `host:port`, as clients reach it.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The port that clients use.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port of the cluster bus; 0 when this is no cluster node.
    #[must_use]
    pub fn bus_port(&self) -> u16 {
        self.bus.as_ref().map_or(0, Port::number)
    }

    /// The authority to trust, when it speaks TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.certificates.as_ref().map(|files| files.ca.as_path())
    }

    /// A new connection straight to the node, authenticated.
    ///
    /// # Errors
    /// The node does not take it.
    pub fn try_client(&self) -> std::io::Result<Client> {
        let mut client = open(&self.addr(), self.ca())?;
        if let Some(password) = &self.password {
            client.try_cmd(&["AUTH", password])?;
        }
        Ok(client)
    }

    /// [`Self::try_client`] that must succeed.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    #[track_caller]
    pub fn client(&self) -> Client {
        self.try_client()
            .unwrap_or_else(|error| panic!("no connection to {}: {error}", self.addr()))
    }

    /// Kills the process (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Freezes the process (SIGSTOP): its connections stay open and say nothing.
    pub fn freeze(&self) {
        self.child
            .iter()
            .for_each(|child| signal(child, Signal::STOP));
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&self) {
        self.child
            .iter()
            .for_each(|child| signal(child, Signal::CONT));
    }

    /// Whether the process is there.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// The end of the server's own log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn open(addr: &str, ca: Option<&Path>) -> std::io::Result<Client> {
    match ca {
        Some(ca) => Client::try_connect(addr, ca),
        None => Client::try_plain(addr),
    }
}

/// A standalone Valkey: 8.0 over TLS, which every client suite must pass against, or 9.1.
#[derive(Debug)]
pub struct Standalone {
    node: Node,
    ca: PathBuf,
}

impl Standalone {
    /// Starts it.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start() -> Self {
        let certificates = Arc::new(Certificates::loopback());
        let ca = certificates.ca.clone();
        let node = Node::start(Version::V8_0Tls, Some(certificates), false, None, &[]);
        Self { node, ca }
    }

    /// Starts a Valkey 9.1 without TLS, whose `ca` means nothing.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_9_1() -> Self {
        let node = Node::start(Version::V9_1, None, false, None, &[]);
        Self {
            node,
            ca: PathBuf::new(),
        }
    }

    /// The process.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The authority to trust.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }
}
