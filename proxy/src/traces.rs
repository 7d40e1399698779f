//! OpenTelemetry traces of some commands, by OTLP over HTTP.
//!
//! Owns the way from the workers to the collector: a bounded channel that nobody waits for, and a
//! thread that sends what is in it. A collector that is slow, or not there, costs the workers
//! nothing; what finds no room is counted. Never here: which commands are traced (`dataplane`),
//! keys and values.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;

use crate::{
    config,
    metrics::{TraceEnd, TraceMetrics},
};

mod send;
mod spans;

use send::{Collector, SendError};
pub(crate) use spans::Traced;
use spans::{Ids, Teller};

/// Commands that may wait to be sent.
const WAITING_MAX: usize = 4096;
/// Commands sent together at most..
const BATCH_MAX: usize = 512;
/// ..and the first of them waits for others so long.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked whether all this is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The collector's time to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Times that something is sent..
const ATTEMPTS_MAX: u32 = 3;
/// ..and between two of them: twice as long each time, until one succeeds.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// What is left may take so long at the end: of the grace period, more is kept for the end.
const END: Duration = Duration::from_secs(1);

/// Where commands go that are traced, for the workers.
#[derive(Clone, Debug)]
pub struct Traces {
    waiting: SyncSender<Traced>,
    metrics: TraceMetrics,
}

impl Traces {
    /// Begins to send, if the configuration names a collector.
    ///
    /// # Errors
    /// The authorities of the endpoint cannot be read, or there can be no more threads.
    pub fn begin(config: &config::Traces) -> io::Result<Option<(Self, Sending)>> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let collector = Collector::new(endpoint, config)?;
        let (waiting, traced) = sync_channel(WAITING_MAX);
        let (over, done) = sync_channel(1);
        let metrics = TraceMetrics::default();
        let sender = Sender {
            collector,
            traced,
            teller: Teller::new(config, Ids::new(RandomState::new().build_hasher().finish())),
            metrics: metrics.clone(),
            ends: Arc::default(),
            backoff: BACKOFF,
            failures: 0,
        };
        let ends = Arc::clone(&sender.ends);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                sender.run(&runtime);
                let _ = over.send(()); // nobody may wait for it
            })?;
        let sending = Sending { ends, done };
        Ok(Some((Self { waiting, metrics }, sending)))
    }

    /// Hands a command over, if there is room for it.
    pub(crate) fn tell(&self, traced: Traced) {
        if self.waiting.try_send(traced).is_err() {
            self.lost();
        }
    }

    /// One that was to be traced could not be.
    pub(crate) fn lost(&self) {
        self.metrics.ended(TraceEnd::Dropped, 1);
    }

    /// How many there were.
    pub(crate) fn metrics(&self) -> TraceMetrics {
        self.metrics.clone()
    }
}

/// The thread that sends.
#[derive(Debug)]
pub struct Sending {
    ends: Arc<AtomicBool>,
    done: Receiver<()>,
}

impl Sending {
    /// Sends what is there, and ends; does not wait for long.
    pub(crate) fn end(self) {
        self.ends.store(true, Relaxed);
        if self.done.recv_timeout(END).is_err() {
            tracing::warn!("the last traces could not be sent in time");
        }
    }
}

struct Sender {
    collector: Collector,
    traced: Receiver<Traced>,
    teller: Teller,
    metrics: TraceMetrics,
    ends: Arc<AtomicBool>,
    backoff: Duration,
    failures: u32,
}

impl Sender {
    fn run(mut self, runtime: &tokio::runtime::Runtime) {
        loop {
            let (batch, more) = self.gather();
            if !batch.is_empty() {
                self.deliver(&batch, runtime);
            }
            if !more {
                return;
            }
        }
    }

    /// The next commands to send, and whether there may be more.
    fn gather(&self) -> (Vec<Traced>, bool) {
        let mut batch: Vec<Traced> = Vec::new();
        let mut until = None::<Instant>;
        loop {
            match self.traced.recv_timeout(LOOK_EVERY) {
                Ok(traced) => {
                    batch.push(traced);
                    until = until.or_else(|| Some(Instant::now() + BATCH_WAIT));
                }
                Err(RecvTimeoutError::Disconnected) => return (batch, false),
                Err(RecvTimeoutError::Timeout) if self.ends.load(Relaxed) => return (batch, false),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let late = until.is_some_and(|until| until <= Instant::now());
            if late || batch.len() >= BATCH_MAX {
                return (batch, true);
            }
        }
    }

    fn deliver(&mut self, batch: &[Traced], runtime: &tokio::runtime::Runtime) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let body = Bytes::from(self.teller.request(batch).encode_to_vec());
        for attempt in 1..=ATTEMPTS_MAX {
            let asked = async { timeout(PATIENCE, self.collector.post(body.clone())).await };
            let sent = runtime.block_on(asked);
            let error = match sent.unwrap_or(Err(SendError::Silent)) {
                Ok(()) => {
                    self.succeeded();
                    self.metrics.ended(TraceEnd::Exported, count);
                    return;
                }
                Err(error) => error,
            };
            self.failed(&error);
            if self.ends.load(Relaxed) {
                break;
            }
            self.rest();
            if attempt == ATTEMPTS_MAX || !error.may_pass() {
                break;
            }
        }
        self.metrics.ended(TraceEnd::Failed, count);
    }

    fn succeeded(&mut self) {
        if self.failures > 0 {
            let failures = self.failures;
            tracing::info!(failures, "traces are sent again");
        }
        self.failures = 0;
        self.backoff = BACKOFF;
    }

    /// One line for the first failure, the second, the fourth: a collector that is gone is no news.
    fn failed(&mut self, error: &SendError) {
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_power_of_two() {
            let (endpoint, failures) = (self.collector.to_string(), self.failures);
            tracing::warn!(endpoint, %error, failures, "traces cannot be sent");
        }
    }

    fn rest(&mut self) {
        let until = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        while Instant::now() < until && !self.ends.load(Relaxed) {
            thread::sleep(LOOK_EVERY);
        }
    }
}
