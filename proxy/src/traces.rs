//! OpenTelemetry traces of some commands, by OTLP over HTTP.
//!
//! Owns the way from the workers to the collector: a bounded channel that nobody waits for, and a
//! thread that sends what is in it. A collector that is slow, or not there, costs the workers
//! nothing; what finds no room is counted. Never here: which commands are traced (`dataplane`),
//! keys and values.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::time::timeout;

use crate::{
    config::{self, Config, Problem},
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

/// Where traces go, and what they say of this Keyway: as a configuration wants it, read and checked.
pub(crate) struct Setup {
    collector: Collector,
    resource: Resource,
    source: Source,
}

/// What a [`Setup`] was made of.
#[derive(Debug)]
pub(crate) struct Source {
    config: config::Traces,
    authorities: Option<[u8; 32]>,
}

impl Setup {
    /// Without an endpoint there is none. `instance` is what nobody else is called.
    ///
    /// # Errors
    /// The endpoint, its authorities or the headers cannot be used.
    pub(crate) fn new(config: &Config, instance: &str) -> Result<Option<Self>, Problem> {
        let traces = &config.traces;
        let Some(endpoint) = &traces.endpoint else {
            return Ok(None);
        };
        let collector = Collector::new(endpoint, traces);
        let collector =
            collector.map_err(|(key, why)| config.origin.problem(&format!("traces.{key}"), why))?;
        Ok(Some(Self {
            resource: spans::resource(traces, instance),
            source: Source {
                config: traces.clone(),
                authorities: collector.authorities(),
            },
            collector,
        }))
    }

    /// Whether it is all as in another.
    pub(crate) fn is_made_of(&self, other: &Source) -> bool {
        self.has_authorities_of(other) && self.source.config.goes_as(&other.config)
    }

    /// Whether the endpoint's authorities are.
    pub(crate) fn has_authorities_of(&self, other: &Source) -> bool {
        self.source.authorities == other.authorities
    }
}

/// What nobody else is called.
pub(crate) fn instance() -> String {
    let own = Ids::new(RandomState::new().build_hasher().finish()).pair();
    own.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where commands go that are traced, for the workers.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    waiting: SyncSender<Traced>,
    metrics: TraceMetrics,
}

impl Traces {
    /// Begins to send.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(crate) fn begin(setup: Setup, metrics: &TraceMetrics) -> io::Result<(Self, Sending)> {
        let (waiting, traced) = sync_channel(WAITING_MAX);
        let (over, done) = sync_channel(1);
        let ends = Arc::<AtomicBool>::default();
        let next = Arc::<Mutex<Option<Setup>>>::default();
        let ids = Ids::new(RandomState::new().build_hasher().finish());
        let sender = Sender {
            collector: setup.collector,
            traced,
            teller: Teller::new(setup.resource, ids),
            metrics: metrics.clone(),
            ends: Arc::clone(&ends),
            next: Arc::clone(&next),
            backoff: BACKOFF,
            failures: 0,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                sender.run(&runtime);
                let _ = over.send(()); // nobody may wait for it
            })?;
        let sending = Sending {
            ends,
            next,
            done,
            source: setup.source,
        };
        let metrics = metrics.clone();
        Ok((Self { waiting, metrics }, sending))
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
}

/// The thread that sends.
pub(crate) struct Sending {
    ends: Arc<AtomicBool>,
    next: Arc<Mutex<Option<Setup>>>,
    done: Receiver<()>,
    source: Source,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}

impl Sending {
    /// What it is set up with.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// What is sent from now on goes another way.
    pub(crate) fn go_on(&mut self, mut setup: Setup) {
        std::mem::swap(&mut self.source, &mut setup.source);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(setup);
    }

    /// Sends what is there, and ends; nobody waits for it.
    pub(crate) fn let_go(self) {
        self.ends.store(true, Relaxed);
    }

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
    next: Arc<Mutex<Option<Setup>>>,
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
        self.renew();
        let mut body = Bytes::from(self.teller.request(batch).encode_to_vec());
        for attempt in 1..=ATTEMPTS_MAX {
            if self.renew() {
                body = Bytes::from(self.teller.request(batch).encode_to_vec());
            }
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

    /// Goes another way, if it is to. Returns whether it is.
    fn renew(&mut self) -> bool {
        let next = self
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(next) = next else { return false };
        self.collector = next.collector;
        self.teller.set_resource(next.resource);
        (self.backoff, self.failures) = (BACKOFF, 0);
        true
    }

    fn is_to_renew(&self) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.is_some()
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
        while Instant::now() < until && !self.ends.load(Relaxed) && !self.is_to_renew() {
            thread::sleep(LOOK_EVERY);
        }
    }
}
