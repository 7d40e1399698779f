//! A report for people.

use std::fmt::{self, Display, Formatter};

use super::{CpuReport, LatencyReport, RatioReport, Report, TargetReport};
use crate::stats::Quartiles;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, seed {}", self.run, self.seed)?;
        for target in &self.targets {
            writeln!(f)?;
            target.fmt(f)?;
        }
        for ratio in &self.ratios {
            writeln!(f)?;
            ratio.fmt(f)?;
        }
        writeln!(f)?;
        if self.failures.is_empty() {
            return writeln!(
                f,
                "passed: every reply verified, no error, no connection lost"
            );
        }
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        Ok(())
    }
}

impl Display for TargetReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.name == self.address {
            writeln!(f, "{}", self.address)?;
        } else {
            writeln!(f, "{} ({})", self.name, self.address)?;
        }
        writeln!(
            f,
            "  requests     {} in {:.2} s: {:.0} /s",
            self.requests, self.seconds, self.requests_per_second
        )?;
        latency(f, "latency us", &self.latency_us)?;
        if let Some(lag) = &self.lag_us {
            latency(f, "lag us", lag)?;
        }
        cpu(f, "cpu", self.cpu.as_ref())?;
        cpu(f, "cpu nodes", self.nodes_cpu.as_ref())?;
        cpu(f, "cpu load", self.generator_cpu.as_ref())?;
        writeln!(
            f,
            "  mismatched   {}{}",
            self.mismatched,
            list(&self.mismatched_by_kind)
        )?;
        let errors: u64 = self.errors.values().sum();
        writeln!(f, "  errors       {errors}{}", list(&self.errors))?;
        let closed: u64 = self.closed.values().sum();
        writeln!(
            f,
            "  connections  {closed} closed{}, {} reconnected, {} attempts failed",
            list(&self.closed),
            self.reconnected,
            self.connect_failed
        )?;
        writeln!(
            f,
            "  requests     {} lost, {} unanswered, {} unsent",
            self.lost, self.unanswered, self.unsent
        )?;
        for mismatch in &self.mismatches {
            writeln!(
                f,
                "  {}: client {} request {}: expected {}\n    got {}",
                mismatch.kind, mismatch.client, mismatch.place, mismatch.expected, mismatch.got
            )?;
        }
        Ok(())
    }
}

impl Display for RatioReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} / {}", self.target, self.reference)?;
        quartiles(f, "cpu", self.cpu)?;
        quartiles(f, "cpu nodes", self.nodes_cpu)?;
        quartiles(f, "throughput", self.throughput)
    }
}

fn latency(f: &mut Formatter<'_>, name: &str, of: &LatencyReport) -> fmt::Result {
    writeln!(
        f,
        "  {name:<12} mean {:.0}  p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}",
        of.mean, of.p50, of.p90, of.p99, of.p999, of.max
    )
}

fn cpu(f: &mut Formatter<'_>, name: &str, of: Option<&CpuReport>) -> fmt::Result {
    let Some(of) = of else { return Ok(()) };
    write!(
        f,
        "  {name:<12} {:.2} us/request (user {:.2}, system {:.2}), {:.2} cores",
        of.us_per_request, of.user_us_per_request, of.system_us_per_request, of.cores
    )?;
    match of.turns {
        Some(turns) if turns.count > 1 => writeln!(
            f,
            "; turns {:.2} [{:.2} {:.2}] of {}",
            turns.median, turns.q1, turns.q3, turns.count
        ),
        _ => writeln!(f),
    }
}

fn quartiles(f: &mut Formatter<'_>, name: &str, of: Option<Quartiles>) -> fmt::Result {
    let Some(of) = of else { return Ok(()) };
    writeln!(
        f,
        "  {name:<12} {:.3} [{:.3} {:.3}] of {} pairs",
        of.median, of.q1, of.q3, of.count
    )
}

/// ` (a 1, b 2)`, or nothing.
fn list<K: Display>(counts: &std::collections::BTreeMap<K, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    format!(" ({})", parts.join(", "))
}
