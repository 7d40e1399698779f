//! TLS handshakes, one at a time: connect, shake hands, one PING, leave. Full ones, and resumed ones.
//!
//! All sides agree on X25519, which all of them know, so that nobody is charged for a key exchange that
//! another does not offer.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyway_bench::CpuTime;
use keyway_bench::pair::{self, TurnFigures};
use keyway_bench::stats::Quartiles;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{CPU, DIRECT, ENVOY, Ground, HAPROXY, KEYWAY, THROUGHPUT, Target};
use crate::wish::Wish;

const TURN: Duration = Duration::from_millis(250);
/// Between a turn's last connection and the look at the process's CPU time: it has to see the end, too.
const AFTERMATH: Duration = Duration::from_millis(20);
/// Handshakes that must have resumed in those turns, of a hundred.
const RESUMED_MIN: u64 = 95;
/// By Envoy's, full and resumed.
const BOUND: Bound = Bound::no_more_than(0.9);

/// Who shakes hands, and how.
struct Side<'a> {
    target: &'a Target,
    connector: TlsConnector,
    expected: HandshakeKind,
}

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("handshake") {
        return Ok(());
    }
    let field = ground.field()?;
    let mut targets = field.targets();
    targets.push(ground.direct());
    let mut table = Table {
        title:
            "A TLS 1.3 handshake (ECDSA P-256, X25519) with one PING: CPU of the server's process, \
                microseconds (medians), and how long it takes one client"
                .into(),
        columns: vec![
            "handshake",
            KEYWAY,
            ENVOY,
            HAPROXY,
            DIRECT,
            "keyway/envoy",
            "keyway/haproxy",
            "time: keyway",
            "envoy",
            "haproxy",
            "direct",
        ],
        rows: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime")?;
    for (title, kind) in [
        ("full", HandshakeKind::Full),
        ("resumed", HandshakeKind::Resumed),
    ] {
        wish.tell(&format!("handshakes: {title}"));
        let turns = duel(ground, wish, &runtime, &targets, kind)
            .with_context(|| format!("handshakes: {title}"))?;
        table.rows.push(row(title, &turns));
        let ratio = pair::ratio(&turns, 0, 1, CPU).map(|ratio| ratio.median);
        let name = format!("TLS handshake, {title}: CPU / Envoy's");
        findings.checks.push(Check::new(name, BOUND, ratio));
    }
    findings.tables.push(table);
    Ok(())
}

fn row(title: &str, turns: &[TurnFigures]) -> Vec<Cell> {
    let median = |target, figure: fn(&TurnFigures) -> Option<f64>| {
        pair::quartiles(turns, target, figure).map(|quartiles: Quartiles| quartiles.median)
    };
    let mut cells = vec![title.into()];
    cells.extend((0..4).map(|target| Cell::maybe(median(target, CPU), 0)));
    cells.extend([1, 2].map(|other| Cell::Ratio(pair::ratio(turns, 0, other, CPU))));
    let time_us = |target| median(target, THROUGHPUT).map(|rate| 1e6 / rate);
    cells.extend((0..4).map(|target| Cell::maybe(time_us(target), 0)));
    cells
}

/// Every target in its turn.
fn duel(
    ground: &Ground,
    wish: &Wish,
    runtime: &Runtime,
    targets: &[Target],
    kind: HandshakeKind,
) -> Result<Vec<TurnFigures>> {
    let sides = targets
        .iter()
        .map(|target| {
            Ok(Side {
                target,
                connector: TlsConnector::from(config(ground, kind)?),
                expected: kind,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    for side in &sides {
        // The first one is full in any case, and brings the ticket.
        runtime.block_on(shake(side))?;
    }
    let mut turns = Vec::new();
    for rotation in 0..wish.rotations {
        for (index, side) in sides.iter().enumerate() {
            let figures = runtime
                .block_on(turn(side))
                .with_context(|| side.target.name.clone())?;
            turns.push(TurnFigures {
                rotation,
                target: index,
                ..figures
            });
        }
    }
    Ok(turns)
}

/// Trusts the comparison's certificates; its own memory of tickets.
pub(crate) fn config(ground: &Ground, kind: HandshakeKind) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&ground.certificates.ca)? {
        roots.add(certificate?)?;
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if kind == HandshakeKind::Full {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// A turn of handshakes, one after the other.
async fn turn(side: &Side<'_>) -> Result<TurnFigures> {
    let pid = [side.target.pid];
    let before = CpuTime::of(&pid)?;
    let begun = Instant::now();
    let (mut all, mut as_expected) = (0_u32, 0_u64);
    while begun.elapsed() < TURN {
        as_expected += u64::from(shake(side).await? == side.expected);
        all += 1;
    }
    let elapsed = begun.elapsed();
    tokio::time::sleep(AFTERMATH).await;
    let used = CpuTime::of(&pid)?.since(before);
    ensure!(
        as_expected * 100 >= u64::from(all) * RESUMED_MIN,
        "only {as_expected} of {all} handshakes were {:?}",
        side.expected
    );
    Ok(TurnFigures {
        rotation: 0,
        target: 0,
        cpu_us: Some(used.micros() / f64::from(all)),
        nodes_cpu_us: None,
        throughput: Some(f64::from(all) / elapsed.as_secs_f64()),
        p50_us: None,
        p99_us: None,
    })
}

async fn shake(side: &Side<'_>) -> Result<HandshakeKind> {
    let mut stream = greet(&side.connector, side.target.port).await?;
    let kind = stream.get_ref().1.handshake_kind();
    // The server's own goodbye is not waited for.
    let _ = stream.shutdown().await;
    kind.context("no handshake")
}

/// A new client that has had one reply.
pub(crate) async fn greet(connector: &TlsConnector, port: u16) -> Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    greet_on(connector, socket).await
}

/// The same on a connection that is there.
pub(crate) async fn greet_on(
    connector: &TlsConnector,
    socket: TcpStream,
) -> Result<TlsStream<TcpStream>> {
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").context("a name")?;
    let mut stream = connector.connect(name, socket).await?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    ensure!(
        &reply == b"+PONG\r\n",
        "{:?}",
        reply.escape_ascii().to_string()
    );
    Ok(stream)
}
