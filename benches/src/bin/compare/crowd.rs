//! A crowd of clients that want nothing good, beside some that are served: memory stays within what was
//! configured, the served notice little, and new clients come in.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{Ground, KEYWAY, Outcome, Target};
use crate::wish::Wish;
use crate::{handshake, memory, proxies};

/// Clients that have greeted and say nothing more.
const IDLE: usize = 10_000;
/// Clients that ask for a lot and read nothing of it.
const DEAF: usize = 1_000;
/// Connections at a time that stop within their first message; whoever is closed comes again.
const STALLED: usize = 2_000;
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
/// What is served all the while.
const SERVED: &str = "--clients 50 --rate 5000 --pipeline 16 --mix get=80,set=20 --shared 0 \
                      --keys 20000 --warmup 400ms --turn 500ms --duration 8s";

/// p99 of the served beside the crowd, by that before it.
const LATENCY: Bound = Bound::no_more_than(1.5);
/// Milliseconds until a new client has its first reply, p99.
const NEWCOMER_MS: Bound = Bound::no_more_than(100.0);
/// Memory beyond 12 KiB for each idle client, by the budget.
const MEMORY: Bound = Bound::no_more_than(1.0);
const IDLE_KIB: f64 = 12.0;

/// What came of the crowd.
struct Seen {
    calm: Outcome,
    crowded: Outcome,
    newcomers_ms: Vec<f64>,
    stalled: u32,
    empty_kib: f64,
    crowded_kib: f64,
}

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("crowd") {
        return Ok(());
    }
    wish.tell("a crowd of idle, stalled and deaf clients");
    let mut seen = measure(ground).context("a crowd")?;
    for (when, outcome) in [
        ("before a crowd", &seen.calm),
        ("beside a crowd", &seen.crowded),
    ] {
        let failures = outcome.0.failures.iter();
        findings
            .failures
            .extend(failures.map(|failure| format!("{when}: {failure}")));
    }
    seen.newcomers_ms.sort_by(f64::total_cmp);
    let newcomer = |share: usize| {
        let last = seen.newcomers_ms.len().checked_sub(1)?;
        seen.newcomers_ms.get(last * share / 100).copied()
    };
    let p99 = |outcome: &Outcome| Some(outcome.target(KEYWAY)?.latency_us.p99 / 1000.0);
    let delay = |outcome: &Outcome| Some(outcome.delay_us(KEYWAY)? / 1000.0);
    let mib = (seen.crowded_kib - seen.empty_kib) / 1024.0;
    findings.tables.push(Table {
        title: format!(
            "{IDLE} idle clients, {DEAF} that ask for {ASKED} x {VALUE_BYTES} bytes and read nothing, {STALLED} \
             at a time that stop within their hello; beside them 5,000 requests a second of 50 clients (open \
             loop). limits.memory_bytes_max is {BUDGET_MIB} MiB"
        ),
        columns: vec![
            "calm p99 ms",
            "crowded p99 ms",
            "the load's own delay, p99 ms: calm",
            "crowded",
            "new client p50 ms",
            "new client p99 ms",
            "stalled in all",
            "memory, MiB",
        ],
        rows: vec![vec![
            Cell::maybe(p99(&seen.calm), 2),
            Cell::maybe(p99(&seen.crowded), 2),
            Cell::maybe(delay(&seen.calm), 2),
            Cell::maybe(delay(&seen.crowded), 2),
            Cell::maybe(newcomer(50), 1),
            Cell::maybe(newcomer(99), 1),
            Cell::Text(seen.stalled.to_string()),
            Cell::maybe(Some(mib), 0),
        ]],
    });
    let ratio = p99(&seen.crowded)
        .zip(p99(&seen.calm))
        .map(|(crowded, calm)| crowded / calm);
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

fn measure(ground: &Ground) -> Result<Seen> {
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
    let empty_kib = memory::resident_kib(target.pid)?;
    let only = std::slice::from_ref(&target);
    let calm = ground.run(only, SERVED)?;

    let connector = TlsConnector::from(handshake::config(ground, rustls::HandshakeKind::Full)?);
    let stage = Arc::new(Stage::default());
    let (crowd_stage, crowd_connector, port) = (Arc::clone(&stage), connector.clone(), target.port);
    let crowd = in_thread("crowd", 19, move || async move {
        gather(&crowd_connector, port, &crowd_stage).await
    })?;
    while !stage.gathered.load(Relaxed) && !crowd.is_finished() {
        thread::sleep(Duration::from_millis(20));
    }
    let probe_stage = Arc::clone(&stage);
    // Behind the load, with which it shares a core: what a handshake costs a client is not the proxy's.
    let probes = in_thread("probes", 10, move || async move {
        probe(&connector, port, &probe_stage).await
    })?;
    let crowded = ground.run(only, SERVED);
    let crowded_kib = memory::resident_kib(target.pid);
    stage.over.store(true, Relaxed);
    let joined = |_| anyhow!("a thread of the crowd panicked");
    crowd.join().map_err(joined)??;
    Ok(Seen {
        calm,
        newcomers_ms: probes.join().map_err(joined)??,
        crowded: crowded?,
        stalled: stage.stalled.load(Relaxed),
        empty_kib,
        crowded_kib: crowded_kib?,
    })
}

/// How far the crowd is.
#[derive(Debug, Default)]
struct Stage {
    gathered: AtomicBool,
    over: AtomicBool,
    stalled: AtomicU32,
}

/// Runs something in a thread of its own with this niceness.
fn in_thread<T: Send + 'static, F: Future<Output = Result<T>>>(
    name: &str,
    niceness: i32,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<thread::JoinHandle<Result<T>>> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            rustix::process::setpriority_process(None, niceness).context("a priority")?;
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
