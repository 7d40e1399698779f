//! Connecting to a node, over TCP or TLS.

use std::{io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use topology::NodeAddr;

use crate::{dns, metrics::ConnectResult, tls::UpstreamTls};

/// A connection to a node.
pub(crate) type Stream = Box<dyn Transport>;

/// TCP, or TLS over it.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// Silence on a connection after which the system asks whether the other side is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged: three times what the system sends them again after
/// at first. Another machine's silence is found so, not a process's.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_millis(1500);

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name has no address.
    #[error("{0}")]
    Dns(String),
    /// TCP could not be established.
    #[error("cannot connect: {0}")]
    Tcp(io::Error),
    /// TLS could not be.
    #[error("TLS failed: {0}")]
    Tls(String),
}

impl ConnectError {
    /// For the metrics.
    pub(crate) fn result(&self) -> ConnectResult {
        match self {
            Self::Dns(_) => ConnectResult::Dns,
            Self::Tcp(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => ConnectResult::Refused,
                io::ErrorKind::TimedOut => ConnectResult::Timeout,
                _ => ConnectResult::Io,
            },
            Self::Tls(_) => ConnectResult::Tls,
        }
    }
}

/// Connects to a node: to the first of its addresses that answers. The caller bounds the time.
pub(crate) async fn connect(
    tls: Option<&UpstreamTls>,
    resolver: Option<&Arc<dyn dns::Resolve>>,
    addr: &NodeAddr,
) -> Result<Stream, ConnectError> {
    let mut failed = ConnectError::Dns(format!("{} has no address", addr.host));
    for address in resolve(resolver, addr).await? {
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) => {
                failed = ConnectError::Tcp(error);
                continue;
            }
        };
        tune(&stream).map_err(ConnectError::Tcp)?;
        let Some(tls) = tls else {
            return Ok(Box::new(stream));
        };
        let name = tls
            .name_for(&addr.host)
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
        return match TlsConnector::from(tls.config()).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(ConnectError::Tls(error.to_string())),
        };
    }
    Err(failed)
}

async fn resolve(
    resolver: Option<&Arc<dyn dns::Resolve>>,
    addr: &NodeAddr,
) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(ip) = addr.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, addr.port)]);
    }
    let Some(resolver) = resolver else {
        return Err(ConnectError::Dns("no resolver yet".to_owned()));
    };
    let found = resolver.resolve(&addr.host, addr.port).await;
    found.map_err(|error| ConnectError::Dns(error.to_string()))
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(Duration::from_secs(1));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}
