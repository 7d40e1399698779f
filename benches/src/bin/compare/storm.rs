//! A storm of new clients, as after a rollout: what it does to those who are served already.
//!
//! The storm comes from a thread that runs where nobody else wants to, for it shares a core with the load: what is
//! to be seen is how the proxy divides its time, not how this process does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use keyway_bench::stats::Quartiles;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::beside::Beside;
use crate::bounds::{Bound, Check};
use crate::findings::{Cell, Findings, Table};
use crate::ground::{Ground, KEYWAY, Target};
use crate::wish::Wish;
use crate::{handshake, process};

/// Clients that come, and stay until all are there; then they go and come again.
const CLIENTS: usize = 5_000;
/// Of these, so many shake hands at the same time.
const AT_ONCE: usize = 256;
/// How long the served are driven with it, and without it.
const SECONDS: u32 = 2;
/// A pair is as long as so many turns of a duel.
const TURNS_FOR_ONE: u32 = 3;
/// p99 of the served in the storm, by that before it.
const BOUND: Bound = Bound::no_more_than(3.0);

pub(crate) fn run(ground: &Ground, wish: &Wish, findings: &mut Findings) -> Result<()> {
    if wish.quick || !wish.wants("storm") {
        return Ok(());
    }
    let field = ground.field()?;
    let _apart = ground.nodes_apart()?;
    let mut columns = vec!["target"];
    columns.extend(Beside::COLUMNS);
    columns.push("connects /s");
    let mut table = Table {
        title: "5,000 requests a second of 50 clients (open loop), without and with others that connect without a \
                pause: milliseconds, medians of the pairs, and the ratio in pairs"
            .into(),
        columns,
        rows: Vec::new(),
    };
    for target in field.targets() {
        wish.tell(&format!("storm of connects: {}", target.name));
        let (beside, connects) = measure(ground, wish, &target, findings)
            .with_context(|| format!("storm of connects: {}", target.name))?;
        let mut row = vec![Cell::from(target.name.as_str())];
        row.extend(beside.cells());
        row.push(Cell::maybe(connects, 0));
        table.rows.push(row);
        if target.name == KEYWAY {
            let name = "p99 of the served in a storm of connects / before";
            let ratio = beside.ratio().map(|ratio| ratio.median);
            findings.checks.push(Check::new(name, BOUND, ratio));
        }
    }
    findings.tables.push(table);
    Ok(())
}

/// The pairs, and the median of the connects in a second.
fn measure(
    ground: &Ground,
    wish: &Wish,
    target: &Target,
    findings: &mut Findings,
) -> Result<(Beside, Option<f64>)> {
    let (mut beside, mut connects) = (Beside::default(), Vec::new());
    for _ in 0..wish.rotations.div_ceil(TURNS_FOR_ONE) {
        let storm = beside.pair((ground, target, SECONDS), findings, || {
            Storm::begin(ground, target)
        })?;
        connects.push(storm.end()?);
    }
    let connects = Quartiles::of(connects).map(|quartiles| quartiles.median);
    Ok((beside, connects))
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
                process::step_back()?;
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
