//! The list of all metrics there are, made of the very families that `/metrics` serves: a metric
//! that is on one is on the other. Owns no definition of its own.

use std::fmt;

use prometheus::proto::{MetricFamily, MetricType};

use super::{Metrics, NodeWork, TlsFile};

/// A label with more values than this is listed without them.
const VALUES_MAX: usize = 12;

/// What `keyway --list-metrics` prints.
#[derive(Debug)]
pub struct Listing(Vec<Described>);

/// One metric.
#[derive(Debug, Default)]
struct Described {
    name: String,
    kind: &'static str,
    labels: Vec<Label>,
    help: String,
}

/// A label and, of those that are few, its values.
#[derive(Debug)]
struct Label {
    name: String,
    values: Vec<String>,
}

impl Listing {
    /// Every metric of this binary.
    #[must_use]
    pub fn new() -> Self {
        let commands = command::CommandTable::builtin().iter();
        let metrics = Metrics::new(commands.map(|command| command.name().into()));
        // What was never used has no line on the page; here it must have one.
        let worker = metrics.worker();
        (0..=metrics.commands.len()).for_each(|index| worker.request(index, 0));
        let files = TlsFile::ALL.iter().map(|file| (*file, 0));
        metrics.reloads().ends(files);
        metrics.control().nodes_worked(vec![NodeWork::default()]);
        let families = metrics.families(&metrics.cells());
        Self(families.iter().map(Described::of).collect())
    }
}

impl Default for Listing {
    fn default() -> Self {
        Self::new()
    }
}

impl Described {
    fn of(family: &MetricFamily) -> Self {
        let mut described = Self {
            name: family.name().to_owned(),
            kind: match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                MetricType::SUMMARY => "summary",
                MetricType::UNTYPED => "untyped",
            },
            labels: Vec::new(),
            help: family.help().to_owned(),
        };
        for pair in family.get_metric().iter().flat_map(|m| m.get_label()) {
            described.add(pair.name(), pair.value());
        }
        described
    }

    fn add(&mut self, name: &str, value: &str) {
        let known = self.labels.iter_mut().find(|label| label.name == name);
        match known {
            Some(label) if label.values.iter().any(|known| known == value) => {}
            Some(label) => label.values.push(value.to_owned()),
            None => self.labels.push(Label {
                name: name.to_owned(),
                values: vec![value.to_owned()],
            }),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        // A build's version is another one tomorrow.
        if (2..=VALUES_MAX).contains(&self.values.len()) {
            write!(f, "={}", self.values.join("|"))?;
        }
        Ok(())
    }
}

/// One line for each: name, type, labels with their values, help; between them tabulators.
impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for described in &self.0 {
            let labels = described.labels.iter().map(ToString::to_string);
            let labels: Vec<String> = labels.collect();
            let (name, kind, help) = (&described.name, described.kind, &described.help);
            writeln!(f, "{name}\t{kind}\t{}\t{help}", labels.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_line_with_its_labels() {
        let text = Listing::new().to_string();
        for line in [
            "keyway_client_connections\tgauge\t\tClient connections now.",
            "keyway_requests_total\tcounter\tcommand\tCommands that have their reply, by command.",
            "keyway_upstream_connections\tgauge\tstate=connecting|ready\tConnections to nodes.",
            "keyway_build_info\tgauge\tversion\tAlways 1; the version that runs.",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
        assert!(text.lines().all(|line| line.split('\t').count() == 4));
    }
}
