//! The coordinator: starts the workers, gives out turns, samples CPU time around them.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::cpu::CpuTime;
use crate::lane::Progress;
use crate::report::Report;
use crate::settings::Settings;
use crate::stats::{Latencies, Tally};
use crate::worker::{Ack, Order, Worker};

/// Files the generator needs beside its connections.
const FILES_SPARE: u64 = 64;

/// One measured turn of one target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) rotation: u32,
    pub(crate) target: usize,
    /// From its first request to its last reply.
    pub(crate) elapsed: Duration,
    pub(crate) replies: u64,
    /// Percentiles of its latencies, 0 of none.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    /// Of the target's processes, of the nodes', of the generator.
    pub(crate) cpu: CpuTime,
    pub(crate) nodes: CpuTime,
    pub(crate) own: CpuTime,
}

/// Runs it all; blocks until the end, or until Ctrl-C ends the measuring early.
///
/// # Errors
/// No connection can be made, or this machine refuses a thread, a timer or enough files. What a
/// target does wrong once connected is in the report.
pub fn run(settings: Settings) -> Result<Report> {
    run_watched(settings, &mut |_| {})
}

/// How far a run is, for [`run_watched`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All connections are made, and nothing was sent over them but greetings.
    Connected,
    /// The keys have their values and the warm-up is over: the measured turns begin.
    Measuring,
    /// They are over; the connections are still there.
    Measured,
}

/// Like [`run()`], and calls `watch` at each stage. The generator sends nothing meanwhile.
///
/// # Errors
/// As [`run()`].
pub fn run_watched(settings: Settings, watch: &mut dyn FnMut(Stage)) -> Result<Report> {
    let settings = Arc::new(settings);
    allow_files(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the coordinator's runtime")?;
    runtime.block_on(coordinate(settings, watch))
}

/// Raises the limit of open files to what the connections need.
fn allow_files(settings: &Settings) -> Result<()> {
    let wanted = u64::from(settings.plan.clients) + FILES_SPARE;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    limit.current = limit.maximum;
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= wanted),
        "{wanted} open files are needed, {:?} allowed: raise `ulimit -n`",
        limit.maximum
    );
    setrlimit(Resource::Nofile, limit).context("the limit of open files")
}

async fn coordinate(settings: Arc<Settings>, watch: &mut dyn FnMut(Stage)) -> Result<Report> {
    let mut crew = Crew::start(&settings)?;
    crew.connected().await?;
    watch(Stage::Connected);
    if settings.fill {
        crew.order(Order::Fill).await;
        crew.filled().await?;
    }
    let mut turns = Vec::new();
    for target in 0..settings.targets.len() {
        if !settings.warmup.is_zero() {
            crew.turn(0, target, settings.warmup, false).await?;
        }
    }
    let rotations = settings
        .duration
        .as_nanos()
        .div_ceil(settings.turn.as_nanos());
    let rotations = u32::try_from(rotations).unwrap_or(u32::MAX);
    watch(Stage::Measuring);
    'all: for rotation in 0..rotations {
        for target in 0..settings.targets.len() {
            turns.push(crew.turn(rotation, target, settings.turn, true).await?);
            if crew.interrupted {
                break 'all;
            }
        }
    }
    watch(Stage::Measured);
    let tallies = crew.stop().await?;
    Ok(Report::new(&settings, &turns, tallies))
}

/// All workers, and what is shown of them.
struct Crew {
    settings: Arc<Settings>,
    workers: Vec<Worker>,
    interrupted: bool,
    shown: Shown,
}

impl Crew {
    fn start(settings: &Arc<Settings>) -> Result<Self> {
        let workers = (0..settings.threads)
            .map(|index| Worker::start(settings.clone(), index))
            .collect::<std::io::Result<Vec<_>>>()
            .context("starting a thread")?;
        Ok(Self {
            settings: settings.clone(),
            workers,
            interrupted: false,
            shown: Shown::new(),
        })
    }

    async fn order(&mut self, order: Order) {
        for worker in &self.workers {
            // A worker that is gone is noticed when its ack is missing.
            let _ = worker.orders.send(order).await;
        }
    }

    /// One ack of each worker.
    async fn acks(&mut self) -> Result<Vec<Ack>> {
        let mut acks = Vec::with_capacity(self.workers.len());
        for worker in &mut self.workers {
            match worker.acks.recv().await {
                Some(ack) => acks.push(ack),
                None => bail!("a worker thread ended before its time (its timer failed?)"),
            }
        }
        Ok(acks)
    }

    async fn connected(&mut self) -> Result<()> {
        for ack in self.acks().await? {
            if let Ack::Connected(Err(reason)) = ack {
                bail!("cannot connect to {reason}");
            }
        }
        Ok(())
    }

    async fn filled(&mut self) -> Result<()> {
        let filled = self.acks().await?;
        ensure!(
            filled.iter().all(|ack| matches!(ack, Ack::Filled(true))),
            "filling the keys does not come to an end"
        );
        Ok(())
    }

    async fn turn(
        &mut self,
        rotation: u32,
        target: usize,
        duration: Duration,
        measured: bool,
    ) -> Result<Turn> {
        let pids = self
            .settings
            .targets
            .get(target)
            .map_or_else(Vec::new, |target| target.pids.clone());
        let nodes = self.settings.node_pids.clone();
        // A process that has ended has no CPU time any more; its turn then shows none.
        let sample = || {
            (
                CpuTime::of(&pids).unwrap_or_default(),
                CpuTime::of(&nodes).unwrap_or_default(),
                CpuTime::of_self().unwrap_or_default(),
            )
        };
        let before = sample();
        let begun = Instant::now();
        self.order(Order::Run { target, measured }).await;
        self.wait(duration).await;
        self.order(Order::Pause).await;
        let (mut replies, mut latency) = (0, Latencies::default());
        for ack in self.acks().await? {
            if let Ack::Paused {
                replies: of_one,
                latency: its,
            } = ack
            {
                replies += of_one;
                latency.add(&its);
            }
        }
        let elapsed = begun.elapsed();
        let after = sample();
        Ok(Turn {
            rotation,
            target,
            elapsed,
            replies,
            p50_ns: latency.percentile_ns(50.0),
            p99_ns: latency.percentile_ns(99.0),
            cpu: after.0.since(before.0),
            nodes: after.1.since(before.1),
            own: after.2.since(before.2),
        })
    }

    /// Lets time pass; shows progress each second; Ctrl-C cuts it short.
    async fn wait(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.interrupted {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(Duration::from_millis(250))) => {}
                _ = tokio::signal::ctrl_c() => self.interrupted = true,
            }
            self.shown.show(&self.workers);
        }
    }

    async fn stop(mut self) -> Result<Vec<Tally>> {
        self.shown.end();
        self.order(Order::Stop).await;
        let mut sums: Vec<Tally> = vec![Tally::default(); self.settings.targets.len()];
        for ack in self.acks().await? {
            if let Ack::Finished(tallies) = ack {
                for (sum, tally) in sums.iter_mut().zip(tallies) {
                    sum.add(tally);
                }
            }
        }
        for worker in self.workers {
            match worker.thread.join() {
                Ok(outcome) => outcome.context("a worker thread")?,
                Err(_) => bail!("a worker thread panicked"),
            }
        }
        Ok(sums)
    }
}

/// The progress line, on a terminal only.
struct Shown {
    terminal: bool,
    begun: Instant,
    last: Instant,
    replies: u64,
}

impl Shown {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            terminal: std::io::stderr().is_terminal(),
            begun: now,
            last: now,
            replies: 0,
        }
    }

    fn show(&mut self, workers: &[Worker]) {
        if !self.terminal || self.last.elapsed() < Duration::from_secs(1) {
            return;
        }
        let sum = |counter: fn(&Progress) -> &AtomicU64| -> u64 {
            workers
                .iter()
                .map(|worker| counter(&worker.progress).load(Ordering::Relaxed))
                .sum()
        };
        let replies = sum(|progress| &progress.replies);
        let since_ms = u64::try_from(self.last.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = (replies - self.replies) * 1000 / since_ms.max(1);
        // The line is a comfort; a terminal that is gone is no reason to stop.
        let _ = write!(
            std::io::stderr(),
            "\r{:>5} s  {rate:>9} /s  {replies:>12} replies  mismatched {}  errors {}  closed {} ",
            self.begun.elapsed().as_secs(),
            sum(|progress| &progress.mismatched),
            sum(|progress| &progress.errors),
            sum(|progress| &progress.closed),
        );
        self.last = Instant::now();
        self.replies = replies;
    }

    fn end(&self) {
        if self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}
