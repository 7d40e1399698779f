//! What the clients found, counted and told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::load::model::Fault;

/// Of each kind of mistake a client remembers so many; more would say the same.
const MISTAKES_PER_KIND: usize = 3;
/// Characters of a request or reply that are told.
const SHOWN_MAX: usize = 600;

/// One reply that was not what it had to be, or a connection that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// When, since the load began.
    pub at: Duration,
    /// Which client, from 0.
    pub client: usize,
    /// What it is: a fault, an error's first words, or `closed`.
    pub kind: String,
    /// The request, as a person would type it, with its place in its pipeline.
    pub request: String,
    /// What its reply had to be.
    pub expected: String,
    /// What came.
    pub got: String,
    /// It is an error reply, not a wrong one or none.
    pub error: bool,
    /// The loss of a node explains it.
    pub explained: bool,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.3} s, client {}, {}: {}\n    expected {}\n    got      {}",
            self.at.as_secs_f64(),
            self.client,
            self.kind,
            self.request,
            self.expected,
            self.got
        )
    }
}

/// What all clients found together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Replies that were compared with what they had to be, those that were wrong included.
    pub verified: u64,
    /// Error replies, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Of those, errors that say that the outcome of a write is unknown.
    pub unknown_writes: u64,
    /// Of those, errors of reads whose node was lost while a later write on the same key was on its
    /// way too: read again, they could see what came after them.
    pub overtaken_reads: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Wrong replies, by what is wrong.
    pub faults: BTreeMap<Fault, u64>,
    /// Acknowledged writes that a failover lost; only where the load was told to expect it.
    pub lost_by_failover: u64,
    /// Transactions that watched keys which nobody else writes.
    pub watched: u64,
    /// Of those, transactions that were not done: their connection was lost, or the slot moved.
    pub aborted: u64,
    /// Items that were popped from queues.
    pub popped: u64,
    /// Messages that subscribers got.
    pub messages: u64,
    /// Messages between those that they did not.
    pub missed: u64,
    /// Messages that came after later ones, as some may.
    pub late: u64,
    /// The longest wait for a reply.
    pub longest: Duration,
    /// A few of each kind of mistake, in the order of time; those that nothing explains come first.
    pub mistakes: Vec<Mistake>,
}

impl Report {
    pub(crate) fn of(tallies: impl Iterator<Item = Tally>) -> Self {
        let mut all = Self::default();
        for tally in tallies {
            let one = tally.report;
            all.verified += one.verified;
            all.unknown_writes += one.unknown_writes;
            all.overtaken_reads += one.overtaken_reads;
            all.closed += one.closed;
            all.lost_by_failover += one.lost_by_failover;
            all.longest = all.longest.max(one.longest);
            all.watched += one.watched;
            all.aborted += one.aborted;
            all.popped += one.popped;
            all.messages += one.messages;
            all.missed += one.missed;
            all.late += one.late;
            for (kind, count) in one.errors {
                *all.errors.entry(kind).or_default() += count;
            }
            for (fault, count) in one.faults {
                *all.faults.entry(fault).or_default() += count;
            }
            all.mistakes.extend(one.mistakes);
        }
        all.mistakes
            .sort_by_key(|mistake| (mistake.explained, mistake.at));
        all
    }

    /// All error replies.
    #[must_use]
    pub fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Errors other than those that a failure of a node allows.
    #[must_use]
    pub fn errors_beyond_failure(&self) -> u64 {
        self.errors_total() - self.unknown_writes - self.overtaken_reads
    }

    /// How often this was wrong.
    #[must_use]
    pub fn faults_of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// No error, no closed connection, no wrong reply.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.is_right()
    }

    /// No closed connection and no wrong reply, and no error but those that a lost node allows.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.closed == 0 && self.faults.is_empty() && self.errors_beyond_failure() == 0
    }

    /// The first few mistakes, to be read.
    #[must_use]
    pub fn told(&self, max: usize) -> String {
        let told: Vec<String> = self
            .mistakes
            .iter()
            .take(max)
            .map(ToString::to_string)
            .collect();
        told.join("\n")
    }
}

/// Why an error may be, when a node failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    None,
    UnknownWrite,
    OvertakenRead,
}

/// What one client found.
#[derive(Debug)]
pub(crate) struct Tally {
    client: usize,
    begin: Instant,
    pub(crate) report: Report,
}

impl Tally {
    pub(crate) fn new(client: usize, begin: Instant) -> Self {
        Self {
            client,
            begin,
            report: Report::default(),
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault, request: &str, expected: String, got: &str) {
        *self.report.faults.entry(fault).or_default() += 1;
        self.remember(format!("{fault:?}"), request, expected, got, None);
    }

    pub(crate) fn error(&mut self, request: &str, text: &str, excuse: Excuse) {
        let kind = kind_of(text);
        *self.report.errors.entry(kind.clone()).or_default() += 1;
        match excuse {
            Excuse::None => {}
            Excuse::UnknownWrite => self.report.unknown_writes += 1,
            Excuse::OvertakenRead => self.report.overtaken_reads += 1,
        }
        self.remember(kind, request, "no error".to_owned(), text, Some(excuse));
    }

    pub(crate) fn closed(&mut self, request: &str, error: &str) {
        self.report.closed += 1;
        let expected = "a reply".to_owned();
        self.remember("closed".to_owned(), request, expected, error, None);
    }

    fn remember(
        &mut self,
        kind: String,
        request: &str,
        expected: String,
        got: &str,
        error: Option<Excuse>,
    ) {
        let explained = error.is_some_and(|excuse| excuse != Excuse::None);
        let mistakes = &mut self.report.mistakes;
        let alike = |known: &&Mistake| known.kind == kind && known.explained == explained;
        let alike = mistakes.iter().filter(alike).count();
        if alike >= MISTAKES_PER_KIND {
            return;
        }
        mistakes.push(Mistake {
            at: self.begin.elapsed(),
            client: self.client,
            kind,
            request: cut(request),
            expected: cut(&expected),
            got: cut(got),
            error: error.is_some(),
            explained,
        });
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// The words of an error that do not change from one to the next.
fn kind_of(text: &str) -> String {
    let mut words = text.split(' ');
    match (words.next(), words.next()) {
        (Some("ERR"), Some(code)) if code.starts_with("KEYWAY.") => code.to_owned(),
        (Some("ERR"), _) => text.split(' ').take(4).collect::<Vec<_>>().join(" "),
        (first, _) => first.unwrap_or_default().to_owned(),
    }
}

/// What is seen of the clients while they are at work.
#[derive(Debug)]
pub(crate) struct Shared {
    begin: Instant,
    stop: AtomicBool,
    rounds: AtomicU64,
    longest_us: AtomicU64,
    /// Since `begin`, and 1 more; 0 is none.
    last_error_us: AtomicU64,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            longest_us: AtomicU64::new(0),
            last_error_us: AtomicU64::new(0),
        }
    }

    pub(crate) fn begin(&self) -> Instant {
        self.begin
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    pub(crate) fn round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn waited(&self, wait: Duration) {
        self.longest_us.fetch_max(micros(wait), Ordering::Relaxed);
    }

    pub(crate) fn error_now(&self) {
        let now = micros(self.begin.elapsed()) + 1;
        self.last_error_us.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn take_worst(&self) -> (Duration, Option<Duration>) {
        let longest = Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed));
        let error = match self.last_error_us.swap(0, Ordering::Relaxed) {
            0 => None,
            at => Some(
                self.begin
                    .elapsed()
                    .saturating_sub(Duration::from_micros(at - 1)),
            ),
        };
        (longest, error)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
