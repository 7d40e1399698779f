//! Real `valkey-server` processes: 3 primaries and 3 replicas on loopback, without persistence.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use resp::{ReplyFramer, Value};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

const PRIMARIES: usize = 3;
const SERVERS: usize = 6;
const SLOTS: usize = 16_384;
/// How long the servers may take to form a cluster.
const FORMS_WITHIN: Duration = Duration::from_secs(20);
const MEET_AGAIN: Duration = Duration::from_secs(5);
/// A reply of the setup has never more bytes.
const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// Server processes; they end with this.
#[derive(Debug)]
pub(super) struct Servers {
    children: Vec<Child>,
    addresses: Vec<SocketAddr>,
    folder: tempfile::TempDir,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill(); // it may have ended with the terminal's Ctrl-C
            let _ = child.wait();
        }
    }
}

impl Servers {
    /// Starts the servers and joins them. The error is one line.
    pub(super) async fn start() -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("keyway-valkey-").tempdir();
        let folder = folder.map_err(|error| format!("cannot make a folder: {error}"))?;
        let mut servers = Self {
            children: Vec::new(),
            addresses: Vec::new(),
            folder,
        };
        for port in free_ports().map_err(|error| format!("no ports are free: {error}"))? {
            let child = servers.spawn(port).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => "valkey-server is not on PATH; install Valkey (Debian: \
                     apt install valkey-server), or run the demo without --valkey"
                    .to_owned(),
                _ => format!("cannot start valkey-server: {error}"),
            })?;
            servers.children.push(child);
            servers
                .addresses
                .push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        let until = Instant::now() + FORMS_WITHIN;
        servers
            .form(until)
            .await
            .map_err(|error| format!("the servers formed no cluster: {error}"))?;
        Ok(servers)
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Ends the processes.
    #[allow(clippy::unused_async, reason = "ends as the other cluster does")]
    pub(super) async fn stop(self) {
        drop(self);
    }

    fn spawn(&self, port: u16) -> io::Result<Child> {
        let folder = self.folder.path().join(port.to_string());
        std::fs::create_dir_all(&folder)?;
        Command::new("valkey-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    async fn form(&self, until: Instant) -> io::Result<()> {
        let mut nodes = Vec::new();
        for address in &self.addresses {
            nodes.push(Node::connect(*address, until).await?);
        }
        let mut ids = Vec::new();
        for (index, node) in nodes.iter_mut().enumerate() {
            let epoch = (index + 1).to_string();
            node.ok(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
            if index < PRIMARIES {
                let first = (SLOTS * index / PRIMARIES).to_string();
                let last = (SLOTS * (index + 1) / PRIMARIES - 1).to_string();
                node.ok(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])
                    .await?;
            }
            let id = node.call(&["CLUSTER", "MYID"]).await?;
            ids.push(String::from_utf8_lossy(id.as_bytes().unwrap_or_default()).into_owned());
        }
        let first = self
            .addresses
            .first()
            .map(|address| address.port().to_string());
        let first = first.as_deref().unwrap_or_default();
        // Who has not answered a busy machine's node within the node timeout is given up, and met again.
        loop {
            for node in nodes.iter_mut().skip(1) {
                node.ok(&["CLUSTER", "MEET", "127.0.0.1", first]).await?;
            }
            let meet_again = Instant::now() + MEET_AGAIN;
            match all_met(&mut nodes, until.min(meet_again)).await {
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => {}
                Ok(()) => break,
            }
        }
        for (index, node) in nodes.iter_mut().enumerate().skip(PRIMARIES) {
            let primary = ids
                .get(index - PRIMARIES)
                .map(String::as_str)
                .unwrap_or_default();
            node.ok(&["CLUSTER", "REPLICATE", primary]).await?;
        }
        for node in &mut nodes {
            node.wait_for(&["CLUSTER", "INFO"], "cluster_state:ok", until)
                .await?;
        }
        for node in nodes.iter_mut().skip(PRIMARIES) {
            node.wait_for(&["INFO", "replication"], "master_link_status:up", until)
                .await?;
        }
        Ok(())
    }
}

/// Ports that are free now, with their cluster bus ports 10000 above.
fn free_ports() -> io::Result<Vec<u16>> {
    let mut ports = Vec::new();
    let mut kept = Vec::new();
    while ports.len() < SERVERS {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let bus = port
            .checked_add(10_000)
            .map(|bus| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, bus)));
        if let Some(Ok(bus)) = bus {
            ports.push(port);
            kept.push(bus);
        }
        kept.push(listener);
        if kept.len() > 1000 {
            return Err(io::Error::other("every port above 55535"));
        }
    }
    Ok(ports)
}

async fn all_met(nodes: &mut [Node], until: Instant) -> io::Result<()> {
    let known = format!("cluster_known_nodes:{SERVERS}");
    for node in nodes {
        node.wait_for(&["CLUSTER", "INFO"], &known, until).await?;
    }
    Ok(())
}

struct Node {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Node {
    async fn connect(address: SocketAddr, until: Instant) -> io::Result<Self> {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    return Ok(Self {
                        stream,
                        unread: Vec::new(),
                    });
                }
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn call(&mut self, args: &[&str]) -> io::Result<Value> {
        let mut request = Vec::new();
        resp::write::request(&mut request, args);
        self.stream.write_all(&request).await?;
        loop {
            let walk = ReplyFramer::new()
                .advance(&self.unread)
                .map_err(io::Error::other)?;
            if walk.done {
                let frame: Vec<u8> = self.unread.drain(..walk.consumed).collect();
                let (value, _) = Value::parse(&frame).map_err(io::Error::other)?;
                return Ok(value);
            }
            if self.unread.len() > REPLY_BYTES_MAX
                || self.stream.read_buf(&mut self.unread).await? == 0
            {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn ok(&mut self, args: &[&str]) -> io::Result<()> {
        match self.call(args).await?.as_error() {
            None => Ok(()),
            Some(text) => Err(io::Error::other(format!(
                "{}: {}",
                args.join(" "),
                String::from_utf8_lossy(text)
            ))),
        }
    }

    async fn wait_for(&mut self, args: &[&str], part: &str, until: Instant) -> io::Result<()> {
        loop {
            let reply = self.call(args).await?;
            if String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).contains(part) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("no {part} in {}", args.join(" "))));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}
