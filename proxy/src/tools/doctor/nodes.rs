//! The way to each seed, step by step: name, TCP, TLS, password.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use topology::NodeAddr;

use super::{Findings, local};
use crate::{
    config::Config,
    contract::DiscoveryContext,
    discovery::Look,
    events::unix_ms,
    expiry,
    tls::UpstreamTls,
    tools::source::{self, look},
};

/// One step's time.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the nodes are asked with; `None` when they cannot be.
pub(super) fn context(config: &Config, findings: &mut Findings) -> Option<DiscoveryContext> {
    match source::context(config) {
        Ok(context) => Some(context),
        Err(text) => {
            findings.skip("cluster", format!("no node can be asked: {text}"));
            None
        }
    }
}

/// Goes to every seed. Returns what the first one that answers has to say.
pub(super) async fn examine(
    context: &DiscoveryContext,
    findings: &mut Findings,
) -> Option<(NodeAddr, Look)> {
    let mut first = None;
    if context.upstream_tls.is_none() {
        findings.skip(
            "node TLS",
            "[cluster.tls] is not set: plain TCP to the nodes",
        );
    }
    for seed in &context.config.get().cluster.seeds {
        let Some(addr) = NodeAddr::new(&seed.host, seed.port) else {
            continue;
        };
        let Some(address) = reach(context, &addr, findings).await else {
            continue;
        };
        if let Some(tls) = &context.upstream_tls
            && !shake_hands(tls, &addr, address, findings).await
        {
            continue;
        }
        match look(context, &addr).await {
            Ok(look) => {
                findings.fine("node login", format!("{addr} runs {}", look.version));
                first.get_or_insert((addr, look));
            }
            Err(text) => findings.fail(
                "node login",
                format!("{addr}: {text}"),
                "compare [cluster] username and password with the node's ACL, and [cluster.tls] \
                 with what the node speaks",
            ),
        }
    }
    first
}

/// Name and TCP. Returns the address that answers.
async fn reach(
    context: &DiscoveryContext,
    addr: &NodeAddr,
    findings: &mut Findings,
) -> Option<SocketAddr> {
    let resolved = timeout(
        PATIENCE * 2,
        context.reach.resolver.resolve(&addr.host, addr.port),
    )
    .await;
    let addresses = match resolved {
        Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
        Ok(Ok(_)) => {
            findings.fail("DNS", format!("{} has no address", addr.host), NAME_REMEDY);
            return None;
        }
        Ok(Err(error)) => {
            findings.fail("DNS", error.to_string(), NAME_REMEDY);
            return None;
        }
        Err(_) => {
            let found = format!("{}: the name server does not answer", addr.host);
            findings.fail("DNS", found, NAME_REMEDY);
            return None;
        }
    };
    let shown: Vec<String> = addresses.iter().map(|to| to.ip().to_string()).collect();
    if addresses.iter().all(|to| to.ip().to_string() != *addr.host) {
        findings.fine("DNS", format!("{} is {}", addr.host, shown.join(", ")));
    }
    let mut trouble = String::new();
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                findings.fine("TCP", format!("{addr} takes connections"));
                return Some(address);
            }
            Ok(Err(error)) => trouble = error.to_string(),
            Err(_) => trouble = format!("no answer within {} s", PATIENCE.as_secs()),
        }
    }
    findings.fail(
        "TCP",
        format!("{addr}: {trouble}"),
        "look whether the node runs and listens on that address, and whether a firewall or a \
         NetworkPolicy is between",
    );
    None
}

/// What to do about a name.
const NAME_REMEDY: &str =
    "correct the name in [cluster] seeds, or the name servers of this machine";

/// TLS with a node: its names, its authority, its end. Returns whether it speaks.
async fn shake_hands(
    tls: &UpstreamTls,
    addr: &NodeAddr,
    address: SocketAddr,
    findings: &mut Findings,
) -> bool {
    match timeout(PATIENCE, handshake(tls, addr, address)).await {
        Ok(Ok(leaf)) => {
            findings.fine("node TLS", format!("{addr} is who it should be"));
            if let Some(Ok(leaf)) = leaf.map(|leaf| expiry::in_der(&leaf, unix_ms())) {
                local::ends(&leaf, &format!("the certificate of {addr}"), findings);
            }
            true
        }
        Ok(Err(text)) => {
            findings.fail(
                "node TLS",
                format!("{addr}: {text}"),
                "compare cluster.tls.ca with the node's authority, and the host in seeds (or \
                 cluster.tls.server_name) with the names in its certificate",
            );
            false
        }
        Err(_) => {
            findings.fail(
                "node TLS",
                format!("{addr} does not finish the handshake"),
                "look whether this port of the node speaks TLS (tls-port)",
            );
            false
        }
    }
}

async fn handshake(
    tls: &UpstreamTls,
    addr: &NodeAddr,
    address: SocketAddr,
) -> Result<Option<CertificateDer<'static>>, String> {
    let name = tls
        .name_for(&addr.host)
        .map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(tls.config());
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    let chain = stream.get_ref().1.peer_certificates();
    Ok(chain.and_then(|chain| Some(chain.first()?.clone().into_owned())))
}
