//! A crowd of clients that want nothing good, beside some that are served: memory stays within what was
//! configured, the served notice little, and new clients come in.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::beside::Beside;
use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{Ground, KEYWAY, Target};
use crate::wish::Wish;
use crate::{handshake, memory, process, proxies, sockets};

/// Clients that have greeted and say nothing more.
const IDLE: usize = 10_000;
/// Clients that ask for a lot and read nothing of it.
const DEAF: usize = 1_000;
/// Connections at a time that stop within their first message; whoever is closed comes again. With the others that is
/// what the 20,000 open files of one process allow, and twice `limits.handshakes_max`: half give way to the rest.
const STALLED: usize = 8_000;
/// Handshakes at the same time while the crowd gathers.
const AT_ONCE: usize = 256;
/// What a deaf client asks for: 64 values of 16 KiB.
const ASKED: usize = 64;
const VALUE_BYTES: usize = 16 * 1024;
/// `limits.memory_bytes_max`: a sixteenth of what the deaf ask for.
const BUDGET_MIB: u32 = 64;
/// A new client comes so often while the crowd is there.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// A stalled client looks this often whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the served are driven beside it, and without it: in this time all who stall are closed and come again.
const SECONDS: u32 = 5;
/// A pair is as long as so many turns of a duel.
const TURNS_FOR_ONE: u32 = 5;
/// Open files of a proxy whose crowd has left.
const ALONE: usize = 200;
/// A crowd that has not left after this will not.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

/// p99 of the served beside the crowd, by that before it.
const LATENCY: Bound = Bound::no_more_than(1.5);
/// Milliseconds until a new client has its first reply, p99.
const NEWCOMER_MS: Bound = Bound::no_more_than(100.0);
/// Memory beyond 12 KiB for each idle client, by the budget.
const MEMORY: Bound = Bound::no_more_than(1.0);
const IDLE_KIB: f64 = 12.0;

/// What came of the crowds.
#[derive(Default)]
struct Seen {
    beside: Beside,
    newcomers_ms: Vec<f64>,
    stalled: u32,
    /// Of the first: what was in use before, and beside it.
    empty_kib: f64,
    crowded_kib: f64,
}

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("crowd") {
        return Ok(());
    }
    wish.tell("a crowd of idle, stalled and deaf clients");
    let mut seen = measure(ground, wish, findings).context("a crowd")?;
    seen.newcomers_ms.sort_by(f64::total_cmp);
    let newcomer = |share: usize| {
        let last = seen.newcomers_ms.len().checked_sub(1)?;
        seen.newcomers_ms.get(last * share / 100).copied()
    };
    let mib = (seen.crowded_kib - seen.empty_kib) / 1024.0;
    let mut columns = Vec::from(Beside::COLUMNS);
    columns.extend([
        "new client p50 ms",
        "new client p99 ms",
        "stalled in all",
        "memory, MiB",
    ]);
    let mut row = Vec::from(seen.beside.cells());
    row.extend([
        Cell::maybe(newcomer(50), 1),
        Cell::maybe(newcomer(99), 1),
        Cell::Text(seen.stalled.to_string()),
        Cell::maybe(Some(mib), 0),
    ]);
    findings.tables.push(Table {
        title: format!(
            "5,000 requests a second of 50 clients (open loop), without and with {IDLE} idle clients, {DEAF} that \
             ask for {ASKED} x {VALUE_BYTES} bytes and read nothing, {STALLED} at a time that stop within their \
             hello; limits.memory_bytes_max is {BUDGET_MIB} MiB: milliseconds, medians of the pairs, and the \
             ratio in pairs"
        ),
        columns,
        rows: vec![row],
    });
    let ratio = seen.beside.ratio().map(|ratio| ratio.median);
    let idle = f64::from(u32::try_from(IDLE + DEAF)?) * IDLE_KIB / 1024.0;
    let memory = (mib - idle) / f64::from(BUDGET_MIB);
    findings.checks.extend([
        Check::new("p99 of the served beside a crowd / before", LATENCY, ratio),
        Check::new(
            "ms until a new client is served beside a crowd, p99",
            NEWCOMER_MS,
            newcomer(99),
        ),
        Check::new(
            "memory beside a crowd, beyond its idle clients' / the budget",
            MEMORY,
            Some(memory),
        ),
    ]);
    Ok(())
}

fn measure(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<Seen> {
    let _apart = ground.nodes_apart()?;
    let seed = ground.nodes.shard_ports().first().copied().unwrap_or(0);
    let site = ground.site();
    let limits = format!("memory_bytes_max = {}\n", u64::from(BUDGET_MIB) << 20);
    let proxy = proxies::keyway_of(
        &site,
        "keyway-crowd",
        seed,
        (1, site.cores.proxy()),
        &limits,
    )?;
    let target = Target::of(KEYWAY, &proxy);
    let connector = TlsConnector::from(handshake::config(ground, rustls::HandshakeKind::Full)?);
    let mut seen = Seen {
        empty_kib: memory::resident_kib(target.pid)?,
        ..Seen::default()
    };
    for pair in 0..wish.rotations.div_ceil(TURNS_FOR_ONE) {
        let crowd = seen.beside.pair((ground, &target, SECONDS), findings, || {
            Crowd::gather(&connector, target.port)
        })?;
        if pair == 0 {
            seen.crowded_kib = memory::resident_kib(target.pid)?;
        }
        let (newcomers_ms, stalled) = crowd.leave()?;
        seen.newcomers_ms.extend(newcomers_ms);
        seen.stalled = seen.stalled.max(stalled);
        let begun = Instant::now();
        while sockets::files(target.pid)? > ALONE {
            ensure!(begun.elapsed() < LEAVE_LIMIT, "the crowd is still there");
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(seen)
}

/// All of them, from threads of their own, and new clients who are tried beside them.
struct Crowd {
    stage: Arc<Stage>,
    crowd: JoinHandle<Result<()>>,
    probes: JoinHandle<Result<Vec<f64>>>,
}

impl Crowd {
    /// Once all are there.
    fn gather(connector: &TlsConnector, port: u16) -> Result<Self> {
        let stage = Arc::new(Stage::default());
        let (at, with) = (Arc::clone(&stage), connector.clone());
        let crowd = in_thread(
            "crowd",
            move || async move { gather(&with, port, &at).await },
        )?;
        while !stage.gathered.load(Relaxed) && !crowd.is_finished() {
            thread::sleep(Duration::from_millis(20));
        }
        let (at, with) = (Arc::clone(&stage), connector.clone());
        let probes = in_thread(
            "probes",
            move || async move { probe(&with, port, &at).await },
        )?;
        Ok(Self {
            stage,
            crowd,
            probes,
        })
    }

    /// How long each new client waited, in milliseconds, and how many stalled.
    fn leave(self) -> Result<(Vec<f64>, u32)> {
        self.stage.over.store(true, Relaxed);
        let joined = |_| anyhow!("a thread of the crowd panicked");
        self.crowd.join().map_err(joined)??;
        let newcomers_ms = self.probes.join().map_err(joined)??;
        Ok((newcomers_ms, self.stage.stalled.load(Relaxed)))
    }
}

/// How far the crowd is.
#[derive(Debug, Default)]
struct Stage {
    gathered: AtomicBool,
    over: AtomicBool,
    stalled: AtomicU32,
}

/// Runs something in a thread of its own, behind the load, with which it shares a core.
fn in_thread<T: Send + 'static, F: Future<Output = Result<T>>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            process::step_back()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(work())
        })?;
    Ok(thread)
}

/// Has all of them come, and keeps them until it is over.
async fn gather(connector: &TlsConnector, port: u16, stage: &Arc<Stage>) -> Result<()> {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut coming = JoinSet::new();
    for number in 0..IDLE + DEAF {
        let (connector, at_once) = (connector.clone(), Arc::clone(&at_once));
        coming.spawn(async move {
            let _turn = at_once.acquire().await?;
            if number < IDLE {
                handshake::greet(&connector, port).await
            } else {
                deaf(&connector, port).await
            }
        });
    }
    let mut here = Vec::with_capacity(IDLE + DEAF);
    while let Some(client) = coming.join_next().await {
        here.push(client??);
    }
    let mut stalling = JoinSet::new();
    for _ in 0..STALLED {
        stalling.spawn(stall(port, Arc::clone(stage)));
    }
    stage.gathered.store(true, Relaxed);
    while let Some(stalled) = stalling.join_next().await {
        stalled??;
    }
    drop(here);
    Ok(())
}

/// A client that asks and never reads.
async fn deaf(connector: &TlsConnector, port: u16) -> Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 * 1024)?; // so that what it does not read stays with the proxy
    let socket = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    let mut stream = handshake::greet_on(connector, socket).await?;
    let value = "d".repeat(VALUE_BYTES);
    let mut asked = Vec::new();
    resp::write::request(&mut asked, &["SET", "deaf", &value]);
    for _ in 0..ASKED {
        resp::write::request(&mut asked, &["GET", "deaf"]);
    }
    stream.write_all(&asked).await?;
    stream.flush().await?;
    Ok(stream)
}

/// Connections that stop within their hello, one after the other, until it is over.
async fn stall(port: u16, stage: Arc<Stage>) -> Result<()> {
    while !stage.over.load(Relaxed) {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        // The beginning of a TLS record of 512 bytes. It may be closed at once.
        let _ = socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await;
        stage.stalled.fetch_add(1, Relaxed);
        let mut byte = [0];
        while !stage.over.load(Relaxed) {
            let closed = timeout(LOOK_EVERY, socket.read(&mut byte)).await;
            if closed.is_ok() {
                break;
            }
        }
    }
    Ok(())
}

/// New clients, and how many milliseconds each waited for its first reply.
async fn probe(connector: &TlsConnector, port: u16, stage: &Stage) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    while !stage.over.load(Relaxed) {
        let begun = Instant::now();
        handshake::greet(connector, port).await?;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        sleep(PROBE_EVERY).await;
    }
    Ok(took)
}
