//! The process as the system sees it, under the names that all Prometheus clients give it. Owns no
//! counter: everything is read from `/proc` at scrape, and what cannot be read is left out.

use std::fs;

use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use rustix::{
    param,
    process::{Resource, getrlimit},
};

use super::collector::family;

/// What `/proc/self/stat` says, by the numbers of proc_pid_stat(5) after the name, from 3 on.
const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
const START_TIME: usize = 22 - 3;
const RSS: usize = 24 - 3;

/// The families that can be read.
pub(super) fn families() -> Vec<MetricFamily> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = after_name(&stat);
    let field = |index: usize| fields.get(index).copied();
    let ticks = to_f64(param::clock_ticks_per_second());
    let cpu = || Some((field(UTIME)? + field(STIME)?) / ticks);
    let files = getrlimit(Resource::Nofile).current;
    let found = [
        (
            "process_cpu_seconds_total",
            "Processor time that Keyway has used, in seconds.",
            MetricType::COUNTER,
            cpu(),
        ),
        (
            "process_resident_memory_bytes",
            "Memory that Keyway has in RAM.",
            MetricType::GAUGE,
            field(RSS).map(|pages| pages * size_f64(param::page_size())),
        ),
        (
            "process_open_fds",
            "Open files, connections among them.",
            MetricType::GAUGE,
            fs::read_dir("/proc/self/fd")
                .ok()
                .map(|all| size_f64(all.count())),
        ),
        (
            "process_max_fds",
            "The limit of open files.",
            MetricType::GAUGE,
            files.map(to_f64),
        ),
        (
            "process_start_time_seconds",
            "When Keyway started, in seconds since 1970.",
            MetricType::GAUGE,
            field(START_TIME).and_then(|start| Some(booted()? + start / ticks)),
        ),
    ];
    let known = found
        .into_iter()
        .filter_map(|(name, help, kind, value)| Some(one(name, help, kind, value?)));
    known.collect()
}

/// The numbers behind the program's name, which itself may hold blanks and brackets.
fn after_name(stat: &str) -> Vec<f64> {
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let numbers = rest.split(' ').map(|word| word.trim().parse());
    numbers.map(|number| number.unwrap_or_default()).collect()
}

fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn one(name: &str, help: &str, kind: MetricType, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    family(name, help, kind, vec![metric])
}

#[allow(clippy::cast_precision_loss, reason = "a metric's value is a double")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "a metric's value is a double")]
fn size_f64(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let fields = after_name("7 (a ) b) c) S 1 7 7 0 -1 4 5 0 0 0 250 50 0\n");
        assert_eq!(
            fields.get(UTIME).zip(fields.get(STIME)),
            Some((&250.0, &50.0))
        );
    }

    #[test]
    fn this_process_is_seen() {
        let value = |name: &str| {
            let families = families();
            let found = families.iter().find(|family| family.name() == name);
            let metric = &found.unwrap_or_else(|| panic!("no {name}")).get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.unwrap().as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(value("process_cpu_seconds_total") < 3600.0);
    }
}
