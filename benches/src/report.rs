//! What a run found: figures per target, ratios between targets, and the verdict.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::cpu::CpuTime;
use crate::pair::{self, TurnFigures};
use crate::run::Turn;
use crate::settings::{Settings, Target};
use crate::stats::{Latencies, Quartiles, Tally};
use crate::workload::{Flaw, Mismatch};

/// The outcome of a run. Its JSON is the same, field by field.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub run: String,
    /// Everything random followed from it.
    pub seed: u64,
    /// In the order given.
    pub targets: Vec<TargetReport>,
    /// Each target but the first against the first, turn by turn.
    pub ratios: Vec<RatioReport>,
    /// Why the run failed; empty when it passed.
    pub failures: Vec<String>,
    /// What each measured turn came to, to compare any two targets.
    #[serde(skip)]
    pub figures: Vec<TurnFigures>,
}

/// What one target did.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    /// As given, or its address.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Measured turns.
    pub turns: usize,
    /// Their length, with the wait for their last replies.
    pub seconds: f64,
    /// Replies of any kind in them.
    pub requests: u64,
    /// The one by the other.
    pub requests_per_second: f64,
    /// From sending to the reply; in an open loop from the instant due.
    pub latency_us: LatencyReport,
    /// Open loop: from the instant due to sending.
    pub lag_us: Option<LatencyReport>,
    /// Of the target's processes, where their pids are known.
    pub cpu: Option<CpuReport>,
    /// Of the nodes behind, in this target's turns.
    pub nodes_cpu: Option<CpuReport>,
    /// Of the generator itself.
    pub generator_cpu: Option<CpuReport>,
    /// Error replies by their first word.
    pub errors: BTreeMap<Box<str>, u64>,
    /// Wrong replies, all kinds.
    pub mismatched: u64,
    /// Wrong replies by kind.
    pub mismatched_by_kind: BTreeMap<&'static str, u64>,
    /// The first few.
    pub mismatches: Vec<MismatchReport>,
    /// Connections that ended, by reason.
    pub closed: BTreeMap<Box<str>, u64>,
    /// Connections made again.
    pub reconnected: u64,
    /// Attempts to connect that failed.
    pub connect_failed: u64,
    /// Requests whose reply was lost with its connection.
    pub lost: u64,
    /// Requests without a reply after the drain.
    pub unanswered: u64,
    /// Open loop: due, but not sent by the end; in the latencies with what had passed.
    pub unsent: u64,
    /// RESP3 pushes.
    pub pushes: u64,
    /// RESP bytes, all turns and the filling.
    pub bytes_sent: u64,
    /// RESP bytes, all turns and the filling.
    pub bytes_received: u64,
}

/// A distribution in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LatencyReport {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// Nine in ten took no longer.
    pub p90: f64,
    /// 99 in 100 took no longer.
    pub p99: f64,
    /// 999 in 1000 took no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// CPU time per request.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CpuReport {
    /// User and system microseconds per request, over all measured turns.
    pub us_per_request: f64,
    /// Its part in user mode, by the clock's ticks (10 ms: coarse on short runs).
    pub user_us_per_request: f64,
    /// Its part in the kernel, likewise.
    pub system_us_per_request: f64,
    /// Cores kept busy.
    pub cores: f64,
    /// Microseconds per request of each turn.
    pub turns: Option<Quartiles>,
}

/// One target against the first, paired by rotation.
#[derive(Clone, Debug, Serialize)]
pub struct RatioReport {
    /// The one measured.
    pub target: String,
    /// The one it is measured by.
    pub reference: String,
    /// CPU per request: below 1 is cheaper than the reference.
    pub cpu: Option<Quartiles>,
    /// CPU per request of the nodes behind.
    pub nodes_cpu: Option<Quartiles>,
    /// Requests a second: above 1 is faster than the reference.
    pub throughput: Option<Quartiles>,
}

/// A wrong reply.
#[derive(Clone, Debug, Serialize)]
pub struct MismatchReport {
    /// swapped, stale, corrupt or shape.
    pub kind: &'static str,
    /// Whose request it was.
    pub client: u32,
    /// Its place among the client's requests.
    pub place: u64,
    /// What should have come.
    pub expected: String,
    /// What came, escaped and cut.
    pub got: String,
}

impl Report {
    /// Of the measured `turns` and of the `tallies`, one per target.
    pub(crate) fn new(settings: &Settings, turns: &[Turn], tallies: Vec<Tally>) -> Self {
        let targets: Vec<TargetReport> = settings
            .targets
            .iter()
            .zip(tallies)
            .enumerate()
            .map(|(index, (target, tally))| {
                let mine: Vec<Turn> = turns
                    .iter()
                    .filter(|turn| turn.target == index)
                    .copied()
                    .collect();
                TargetReport::new(target, &mine, tally, settings)
            })
            .collect();
        let failures = targets
            .iter()
            .flat_map(|target| target.failures(settings))
            .collect();
        let figures = figures(turns);
        Self {
            run: settings.described.clone(),
            seed: settings.plan.seed,
            ratios: ratios(&targets, &figures),
            targets,
            failures,
            figures,
        }
    }

    /// Nothing was wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Wrong replies of all targets.
    #[must_use]
    pub fn mismatched(&self) -> u64 {
        self.targets.iter().map(|target| target.mismatched).sum()
    }
}

impl TargetReport {
    fn new(target: &Target, turns: &[Turn], tally: Tally, settings: &Settings) -> Self {
        let seconds: f64 = turns.iter().map(|turn| turn.elapsed.as_secs_f64()).sum();
        let requests: u64 = turns.iter().map(|turn| turn.replies).sum();
        let cpu = |known: bool, of: fn(&Turn) -> CpuTime| {
            known.then(|| CpuReport::new(turns, of)).flatten()
        };
        let by_kind: BTreeMap<&'static str, u64> = Flaw::ALL
            .into_iter()
            .filter_map(|flaw| Some((flaw.name(), *tally.mismatched.get(&flaw)?)))
            .collect();
        Self {
            name: target.name.clone(),
            address: target.address.to_string(),
            turns: turns.len(),
            seconds,
            requests,
            requests_per_second: ratio(float(requests), seconds),
            latency_us: LatencyReport::new(&tally.latency),
            lag_us: settings.open.map(|_| LatencyReport::new(&tally.lag)),
            cpu: cpu(!target.pids.is_empty(), |turn| turn.cpu),
            nodes_cpu: cpu(!settings.node_pids.is_empty(), |turn| turn.nodes),
            generator_cpu: cpu(true, |turn| turn.own),
            errors: tally.errors,
            mismatched: by_kind.values().sum(),
            mismatched_by_kind: by_kind,
            mismatches: tally.mismatches.into_iter().map(Into::into).collect(),
            closed: tally.closed,
            reconnected: tally.reconnected,
            connect_failed: tally.connect_failed,
            lost: tally.lost,
            unanswered: tally.unanswered,
            unsent: tally.unsent,
            pushes: tally.pushes,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
        }
    }

    /// What makes the run fail, as the options have it.
    fn failures(&self, settings: &Settings) -> Vec<String> {
        let stale = self.mismatched_by_kind.get("stale").copied().unwrap_or(0);
        let forgiven = if settings.allow_stale { stale } else { 0 };
        let counts = [
            (self.mismatched - forgiven, "mismatched replies", false),
            (self.errors.values().sum(), "error replies", true),
            (self.closed.values().sum(), "connections closed", true),
            (self.unanswered, "requests unanswered", true),
        ];
        let mut failures: Vec<String> = counts
            .into_iter()
            .filter(|(count, _, error)| *count > 0 && !(*error && settings.allow_errors))
            .map(|(count, what, _)| format!("{}: {count} {what}", self.name))
            .collect();
        if self.requests == 0 {
            failures.push(format!("{}: no request was answered", self.name));
        }
        failures
    }
}

impl LatencyReport {
    fn new(latencies: &Latencies) -> Self {
        let us = |ns: u64| float(ns) / 1000.0;
        let at = |percent: f64| us(latencies.percentile_ns(percent));
        Self {
            mean: latencies.mean_ns() / 1000.0,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: us(latencies.max_ns()),
        }
    }
}

impl CpuReport {
    fn new(turns: &[Turn], of: fn(&Turn) -> CpuTime) -> Option<Self> {
        let sum = turns
            .iter()
            .fold(CpuTime::default(), |sum, turn| sum.plus(of(turn)));
        let requests: u64 = turns.iter().map(|turn| turn.replies).sum();
        let wall: Duration = turns.iter().map(|turn| turn.elapsed).sum();
        if sum.run_ns == 0 || requests == 0 {
            return None;
        }
        let us_per_request = float(sum.run_ns) / 1000.0 / float(requests);
        let ticks = float(sum.user_ticks + sum.system_ticks);
        Some(Self {
            us_per_request,
            user_us_per_request: us_per_request * ratio(float(sum.user_ticks), ticks),
            system_us_per_request: us_per_request * ratio(float(sum.system_ticks), ticks),
            cores: ratio(float(sum.run_ns) / 1e9, wall.as_secs_f64()),
            turns: Quartiles::of(
                turns
                    .iter()
                    .filter_map(|turn| per_request(turn, of))
                    .collect(),
            ),
        })
    }
}

/// Microseconds of CPU time per request of one turn.
fn per_request(turn: &Turn, of: fn(&Turn) -> CpuTime) -> Option<f64> {
    let run_ns = of(turn).run_ns;
    (run_ns > 0 && turn.replies > 0).then(|| float(run_ns) / 1000.0 / float(turn.replies))
}

/// What each turn came to.
fn figures(turns: &[Turn]) -> Vec<TurnFigures> {
    let throughput = |turn: &Turn| {
        let rate = ratio(float(turn.replies), turn.elapsed.as_secs_f64());
        (rate > 0.0).then_some(rate)
    };
    let latency = |ns: u64| (ns > 0).then(|| float(ns) / 1000.0);
    turns
        .iter()
        .map(|turn| TurnFigures {
            rotation: turn.rotation,
            target: turn.target,
            cpu_us: per_request(turn, |turn| turn.cpu),
            nodes_cpu_us: per_request(turn, |turn| turn.nodes),
            throughput: throughput(turn),
            p50_us: latency(turn.p50_ns),
            p99_us: latency(turn.p99_ns),
        })
        .collect()
}

/// Every target but the first against the first.
fn ratios(targets: &[TargetReport], turns: &[TurnFigures]) -> Vec<RatioReport> {
    let Some((reference, others)) = targets.split_first() else {
        return Vec::new();
    };
    others
        .iter()
        .enumerate()
        .map(|(before, target)| RatioReport {
            target: target.name.clone(),
            reference: reference.name.clone(),
            cpu: pair::ratio(turns, before + 1, 0, |turn| turn.cpu_us),
            nodes_cpu: pair::ratio(turns, before + 1, 0, |turn| turn.nodes_cpu_us),
            throughput: pair::ratio(turns, before + 1, 0, |turn| turn.throughput),
        })
        .collect()
}

impl From<Mismatch> for MismatchReport {
    fn from(mismatch: Mismatch) -> Self {
        Self {
            kind: mismatch.flaw.name(),
            client: mismatch.client,
            place: mismatch.place,
            expected: mismatch.expected,
            got: mismatch.got,
        }
    }
}

/// 0 instead of a division by 0.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Counts here stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(count: u64) -> f64 {
    count as f64
}
