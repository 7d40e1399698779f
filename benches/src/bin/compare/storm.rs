//! A storm of new clients, as after a rollout: what it does to those who are served already.
//!
//! The storm comes from a thread of the lowest priority, for it shares a core with the load: what is
//! to be seen is how the proxy divides its time, not how this process does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{Ground, KEYWAY, Outcome, Target};
use crate::handshake;
use crate::wish::Wish;

/// Clients that come, and stay until all are there; then they go and come again.
const CLIENTS: usize = 5_000;
/// Of these, so many shake hands at the same time.
const AT_ONCE: usize = 256;
/// What is served all the while.
const SERVED: &str = "--clients 50 --rate 5000 --pipeline 16 --mix get=80,set=20 --shared 0 \
                      --keys 20000 --warmup 400ms --turn 500ms --duration 6s";
/// p99 of the served in the storm, by that before it.
const BOUND: Bound = Bound::no_more_than(3.0);

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("storm") {
        return Ok(());
    }
    let field = ground.field()?;
    let mut table = Table {
        title: "5,000 requests a second of 50 clients (open loop) while others connect without a pause: \
                milliseconds"
            .into(),
        columns: vec![
            "target",
            "calm p50",
            "calm p99",
            "storm p50",
            "storm p99",
            "p99 storm / calm",
            "the load's own delay, p99: calm",
            "storm",
            "connects /s",
        ],
        rows: Vec::new(),
    };
    for target in field.targets() {
        wish.tell(&format!("storm of connects: {}", target.name));
        let (row, ratio) = measure(ground, &target, findings)
            .with_context(|| format!("storm of connects: {}", target.name))?;
        table.rows.push(row);
        if target.name == KEYWAY {
            let name = "p99 of the served in a storm of connects / before";
            findings.checks.push(Check::new(name, BOUND, ratio));
        }
    }
    findings.tables.push(table);
    Ok(())
}

fn measure(
    ground: &Ground,
    target: &Target,
    findings: &mut Findings,
) -> Result<(Vec<Cell>, Option<f64>)> {
    let only = std::slice::from_ref(target);
    let calm = ground.run(only, SERVED)?;
    let storm = Storm::begin(ground, target)?;
    let stormy = ground.run(only, SERVED);
    let connects = storm.end()?;
    let stormy = stormy?;
    for (when, outcome) in [("before a storm", &calm), ("in a storm", &stormy)] {
        let failures = outcome.0.failures.iter();
        findings
            .failures
            .extend(failures.map(|failure| format!("{}, {when}: {failure}", target.name)));
    }
    let p50 = |outcome: &Outcome| outcome.target(&target.name).map(|it| it.latency_us.p50);
    let p99 = |outcome: &Outcome| outcome.target(&target.name).map(|it| it.latency_us.p99);
    let ratio = p99(&stormy)
        .zip(p99(&calm))
        .map(|(storm, calm)| storm / calm);
    let ms = |us: Option<f64>| Cell::maybe(us.map(|us| us / 1000.0), 2);
    let row = vec![
        target.name.as_str().into(),
        ms(p50(&calm)),
        ms(p99(&calm)),
        ms(p50(&stormy)),
        ms(p99(&stormy)),
        Cell::maybe(ratio, 2),
        ms(calm.delay_us(&target.name)),
        ms(stormy.delay_us(&target.name)),
        Cell::maybe(Some(connects), 0),
    ];
    Ok((row, ratio))
}

/// New clients without a pause, from a thread of their own.
struct Storm {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<f64>>,
}

impl Storm {
    fn begin(ground: &Ground, target: &Target) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let config = handshake::config(ground, rustls::HandshakeKind::Full)?;
        let connector = TlsConnector::from(config);
        let (port, until) = (target.port, Arc::clone(&over));
        let thread = thread::Builder::new()
            .name("storm".to_owned())
            .spawn(move || {
                rustix::process::setpriority_process(None, 19).context("a low priority")?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let begun = std::time::Instant::now();
                let connects = runtime.block_on(blow(&connector, port, &until))?;
                Ok(connects / begun.elapsed().as_secs_f64())
            })?;
        Ok(Self { over, thread })
    }

    /// Connects that it made in a second.
    fn end(self) -> Result<f64> {
        self.over.store(true, Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the storm's thread panicked"))?
    }
}

/// Has clients come until it is over, and counts them.
async fn blow(connector: &TlsConnector, port: u16, over: &Arc<AtomicBool>) -> Result<f64> {
    let mut all = 0_u32;
    while !over.load(Relaxed) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let mut coming = JoinSet::new();
        for _ in 0..CLIENTS {
            let (connector, at_once) = (connector.clone(), Arc::clone(&at_once));
            let over = Arc::clone(over);
            coming.spawn(async move {
                let _turn = at_once.acquire().await?;
                if over.load(Relaxed) {
                    return Ok(None);
                }
                handshake::greet(&connector, port).await.map(Some)
            });
        }
        let mut here = Vec::with_capacity(CLIENTS);
        while let Some(client) = coming.join_next().await {
            here.extend(client??);
        }
        all += u32::try_from(here.len()).unwrap_or(u32::MAX);
    }
    Ok(f64::from(all))
}
