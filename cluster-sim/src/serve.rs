//! The cluster behind real sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, sleep_until},
};

use crate::{
    cluster::Cluster,
    layout::{Layout, Version},
    node::NodeIndex,
};

/// How often time passes for the cluster.
const TICK: Duration = Duration::from_millis(10);
const READ_BYTES: usize = 64 * 1024;

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Primaries.
    pub shards: usize,
    /// Replicas of each primary.
    pub replicas: usize,
    /// Availability zones.
    pub zones: Vec<String>,
    /// Where the nodes listen.
    pub address: IpAddr,
    /// The first node's port, the others follow; 0 is any free port for each.
    pub port: u16,
    /// Whose words and shapes the nodes use.
    pub version: Version,
    /// The password of the user `default`, if it has one.
    pub default_password: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let layout = Layout::default();
        Self {
            shards: layout.shards,
            replicas: layout.replicas,
            zones: layout.zones,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            version: layout.version,
            default_password: None,
        }
    }
}

/// A cluster that is being served.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    handle: ClusterHandle,
    tasks: Vec<JoinHandle<()>>,
}

/// Reaches into a cluster that is being served.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    cluster: Arc<Mutex<Cluster>>,
    began: Instant,
    changed: watch::Sender<u64>,
}

impl ClusterHandle {
    /// Does something to the cluster; its connections notice at once.
    pub fn with<R>(&self, change: impl FnOnce(&mut Cluster) -> R) -> R {
        let result = self.look(change);
        self.changed.send_modify(|count| *count += 1);
        result
    }

    fn look<R>(&self, look: impl FnOnce(&mut Cluster) -> R) -> R {
        look(&mut self.cluster.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The cluster's clock.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Running {
    /// Where the nodes listen: primaries first.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// To fail over, migrate, kill and so on.
    #[must_use]
    pub fn cluster(&self) -> &ClusterHandle {
        &self.handle
    }

    /// Ends it.
    pub async fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            let _ = task.await; // it was aborted
        }
    }
}

/// Binds every node's port and serves until [`Running::stop`], inside a tokio runtime.
///
/// # Errors
/// A port cannot be had.
pub async fn serve(options: Options) -> io::Result<Running> {
    let count = options.shards.max(1) * (options.replicas + 1);
    let mut listeners = Vec::with_capacity(count);
    for index in 0..count {
        let offset = u16::try_from(index).map_err(io::Error::other)?;
        let port = if options.port == 0 {
            0
        } else {
            options.port.saturating_add(offset)
        };
        listeners.push(TcpListener::bind((options.address, port)).await?);
    }
    let addresses: io::Result<Vec<SocketAddr>> =
        listeners.iter().map(TcpListener::local_addr).collect();
    let addresses = addresses?;
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unix_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    let layout = Layout {
        shards: options.shards,
        replicas: options.replicas,
        zones: options.zones,
        version: options.version,
        default_password: options.default_password,
        seed: unix_ms,
        started_unix_ms: unix_ms,
        ..Layout::default()
    };
    let handle = ClusterHandle {
        cluster: Arc::new(Mutex::new(Cluster::new(layout, &addresses))),
        began: Instant::now(),
        changed: watch::Sender::new(0),
    };
    let mut tasks = vec![tokio::spawn(tick(handle.clone()))];
    for (node, listener) in listeners.into_iter().enumerate() {
        tasks.push(tokio::spawn(accept(handle.clone(), node, listener)));
    }
    Ok(Running {
        addresses,
        handle,
        tasks,
    })
}

async fn tick(handle: ClusterHandle) {
    loop {
        sleep(TICK).await;
        let now = handle.now();
        handle.look(|cluster| cluster.tick(now));
    }
}

/// Accepts while the node lives; a dead node does not listen.
async fn accept(handle: ClusterHandle, node: NodeIndex, listener: TcpListener) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    let mut listener = Some(listener);
    let mut changes = handle.changed.subscribe();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let alive = handle.look(|cluster| cluster.is_alive(node));
        if !alive {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(open) = &listener else {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve_connection(handle.clone(), node, stream));
            },
            _ = changes.changed() => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(handle: ClusterHandle, node: NodeIndex, mut stream: TcpStream) {
    let now = handle.now();
    let Some(connection) = handle.look(|cluster| cluster.connect(node, "", now)) else {
        return;
    };
    let _ = stream.set_nodelay(true); // slower, but it works without
    let mut changes = handle.changed.subscribe();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let now = handle.now();
        let (output, closed, due) = handle.look(|cluster| {
            let output = cluster.output(connection, now);
            (
                output,
                cluster.is_closed(connection),
                cluster.output_due(connection),
            )
        });
        if !output.is_empty() && stream.write_all(&output).await.is_err() {
            break;
        }
        if closed {
            break;
        }
        let later = due.map_or(Duration::from_secs(3600), |due| due.saturating_sub(now));
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(count) if count > 0 => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    let now = handle.now();
                    handle.look(|cluster| cluster.received(connection, bytes, now));
                }
                _ => break,
            },
            _ = changes.changed() => {}
            () = sleep_until((Instant::now() + later).into()) => {}
        }
    }
    handle.look(|cluster| cluster.disconnect(connection));
}
