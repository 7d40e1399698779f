//! One row of the table: what was done, what the clients saw, and whether that is enough.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::load::{Fault, Report};

/// What a failover may cost clients beyond the cluster's own time.
const ADDED_MAX: Duration = Duration::from_millis(250);
/// Mistakes that are told of a row that falls short.
const TOLD_MAX: usize = 12;

/// What a case may cost the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Time, and nothing else.
    Nothing,
    /// One error for each write whose outcome is unknown, and the cluster's own failover time.
    UnknownWrites,
}

/// One failure: how long the cluster was without service, and Keyway's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// From the failure until all shards took writes again, seen at the nodes.
    pub cluster: Duration,
    /// The longest wait of any client, or the time of the last error.
    pub clients: Duration,
}

/// What a case came to.
#[derive(Clone, Debug)]
pub struct Row {
    /// The case.
    pub case: String,
    /// What was done, in numbers.
    pub done: String,
    /// What it may cost.
    pub allowed: Allowed,
    /// What the clients saw.
    pub report: Report,
    /// Each failure, where the case has some.
    pub outages: Vec<Outage>,
    /// What else falls short.
    pub short: Vec<String>,
}

impl Row {
    /// What falls short; empty when nothing does.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let report = &self.report;
        let mut short = self.short.clone();
        let mut need_none = |count: u64, what: &str| {
            if count > 0 {
                short.push(format!("{count} {what}"));
            }
        };
        match self.allowed {
            Allowed::Nothing => need_none(report.errors_total(), "errors"),
            Allowed::UnknownWrites => need_none(
                report.errors_beyond_failure(),
                "errors that the loss of a node does not explain",
            ),
        }
        need_none(report.closed, "closed connections");
        for (fault, count) in &report.faults {
            need_none(*count, &format!("replies that were wrong: {fault:?}"));
        }
        // Some may be: a connection that was lent was lost, or a slot went away with its watched key.
        if report.aborted * 2 > report.watched {
            short.push(format!(
                "{} of {} transactions ended by a WATCH that nobody touched",
                report.aborted, report.watched
            ));
        }
        if report.verified == 0 {
            short.push("no reply was verified".to_owned());
        }
        if self.allowed == Allowed::UnknownWrites {
            let late = self
                .outages
                .iter()
                .filter(|outage| outage.clients > outage.cluster + ADDED_MAX)
                .count();
            if late > 0 {
                short.push(format!(
                    "{late} of {} times clients waited longer than the cluster's own failover + {} ms",
                    self.outages.len(),
                    ADDED_MAX.as_millis()
                ));
            }
        }
        short
    }

    /// The names of the columns of [`Self::cells`].
    pub const COLUMNS: [&'static str; 11] = [
        "case",
        "done",
        "replies verified",
        "errors",
        "closed",
        "order",
        "swapped",
        "twice",
        "lost",
        "longest wait",
        "",
    ];

    /// The row as text, one cell per column.
    #[must_use]
    pub fn cells(&self) -> [String; 11] {
        let report = &self.report;
        let twice = report.faults_of(Fault::Twice) + report.faults_of(Fault::Refused);
        let verdict = if self.shortfalls().is_empty() {
            "ok"
        } else {
            "FALLS SHORT"
        };
        [
            self.case.clone(),
            self.done.clone(),
            report.verified.to_string(),
            errors(report),
            report.closed.to_string(),
            report.faults_of(Fault::Order).to_string(),
            report.faults_of(Fault::Swapped).to_string(),
            twice.to_string(),
            report.faults_of(Fault::Lost).to_string(),
            seconds(report.longest),
            verdict.to_owned(),
        ]
    }

    /// What does not fit into a cell: the failures one by one, and the first mistakes.
    #[must_use]
    pub fn details(&self) -> String {
        let mut out = String::new();
        if !self.outages.is_empty() {
            let pairs: Vec<String> = self
                .outages
                .iter()
                .map(|outage| format!("{}/{}", seconds(outage.cluster), seconds(outage.clients)))
                .collect();
            let _ = writeln!(
                out,
                "  without service, the cluster itself / Keyway's clients: {}",
                pairs.join(", ")
            );
        }
        if self.report.popped + self.report.messages > 0 {
            let _ = writeln!(
                out,
                "  popped by those who waited: {}; messages: {}, missed between them: {}, late: {}; watched \
                 transactions: {}, ended by the change: {}",
                self.report.popped,
                self.report.messages,
                self.report.missed,
                self.report.late,
                self.report.watched,
                self.report.aborted
            );
        }
        if self.report.overtaken_reads > 0 {
            let _ = writeln!(
                out,
                "  of the errors, reads that a later write on their key had followed: {}",
                self.report.overtaken_reads
            );
        }
        if self.report.lost_by_failover > 0 {
            let _ = writeln!(
                out,
                "  acknowledged writes that the cluster lost in a failover: {}",
                self.report.lost_by_failover
            );
        }
        let short = self.shortfalls();
        for what in &short {
            let _ = writeln!(out, "  falls short: {what}");
        }
        let told = self.report.told(TOLD_MAX);
        if !short.is_empty() && !told.is_empty() {
            let _ = writeln!(out, "  {}", told.replace('\n', "\n  "));
        }
        out
    }
}

fn errors(report: &Report) -> String {
    if report.errors.is_empty() {
        return "0".to_owned();
    }
    let kinds: Vec<String> = report
        .errors
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    kinds.join(", ")
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A number that no other row of this process has.
pub(crate) fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
