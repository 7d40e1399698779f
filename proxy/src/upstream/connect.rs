//! Connecting to a node, over TCP or TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio_rustls::TlsConnector;

use topology::NodeAddr;

use crate::{
    dns,
    metrics::ConnectResult,
    net::{Reach, Stream},
    tls::UpstreamTls,
};

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
    reach: &Reach,
    addr: &NodeAddr,
) -> Result<Stream, ConnectError> {
    let mut failed = ConnectError::Dns(format!("{} has no address", addr.host));
    for address in resolve(&*reach.resolver, addr).await? {
        let stream = match reach.net.dial(address).await {
            Ok(stream) => stream,
            Err(error) => {
                failed = ConnectError::Tcp(error);
                continue;
            }
        };
        let Some(tls) = tls else {
            return Ok(stream);
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
    resolver: &dyn dns::Resolve,
    addr: &NodeAddr,
) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(ip) = addr.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, addr.port)]);
    }
    let found = resolver.resolve(&addr.host, addr.port).await;
    found.map_err(|error| ConnectError::Dns(error.to_string()))
}
