//! The metrics as Prometheus reads them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::{
    BUCKETS_NS, Cells, ConnectResult, Direction, ErrorKind, HandshakeResult, Metrics, NearDrop,
    NearEnd, PoisonReason, RedirectKind, Scope, UpstreamState, Zone, phases::phase_family, process,
};

/// The label that says which of several clusters a series is about.
const CLUSTER_LABEL: &str = "cluster";
/// What is counted of clients that have not named a cluster, and what holds for all.
const BEFORE_A_CLUSTER: [&str; 3] = [
    "keyway_client_connections_max",
    "keyway_handshakes_total",
    "keyway_errors_total",
];
/// There is one configuration, however many clusters.
const OF_THE_FILE: &str = "keyway_config_reloads_total";

impl Metrics {
    /// The page that `/metrics` serves, of these alone.
    #[must_use]
    pub fn page(&self) -> String {
        Self::page_of(std::iter::once(self))
    }

    /// The same of several: those of the process, and of each cluster.
    #[must_use]
    pub fn page_of<'a>(all: impl Iterator<Item = &'a Self>) -> String {
        let mut families: Vec<MetricFamily> = Vec::new();
        for own in all.flat_map(|own| own.families(&own.cells())) {
            let same = |family: &&mut MetricFamily| family.name() == own.name();
            match families.iter_mut().find(same) {
                Some(family) => family.mut_metric().extend_from_slice(own.get_metric()),
                None => families.push(own),
            }
        }
        // The encoder refuses a family without a value: no command has been used yet.
        families.retain(|family| !family.get_metric().is_empty());
        let encoded = prometheus::TextEncoder::new().encode_to_string(&families);
        encoded.unwrap_or_else(|error| {
            debug_assert!(false, "{error}");
            format!("# {error}\n")
        })
    }

    pub(super) fn families(&self, cells: &[Arc<Cells>]) -> Vec<MetricFamily> {
        let mut families = self.clients(cells);
        if self.scope == Scope::Process {
            // Only of clients that had no cluster yet; what else they count is the clusters'.
            families.retain(|family| BEFORE_A_CLUSTER.contains(&family.name()));
        } else {
            families.extend(upstream(cells));
            families.extend(self.control.nodes.families());
            families.extend(hot_keys(cells));
            families.extend(self.heat.families());
            families.extend(self.cluster());
        }
        let Scope::Cluster(name) = &self.scope else {
            families.push(self.traces.family());
            families.push(build());
            families.extend(process::families());
            families.extend(self.reloads.families());
            return families;
        };
        families.extend(self.reloads.families());
        families.retain(|family| family.name() != OF_THE_FILE);
        families
            .iter_mut()
            .for_each(|family| name_all(family, name));
        families
    }

    fn clients(&self, cells: &[Arc<Cells>]) -> Vec<MetricFamily> {
        // In this order: whoever closed had opened, so the difference is never below 0.
        let closed = sum(cells, |cells| &cells.connections_closed);
        let opened = sum(cells, |cells| &cells.connections_opened);
        let mut commands: Vec<&str> = self.commands.iter().map(AsRef::as_ref).collect();
        commands.push(command::LABEL_OTHER);
        // A command that was never used needs no line.
        let mut requests = by(&commands, cells, |cells| &cells.requests);
        requests.retain(|(_, count)| *count > 0);
        vec![
            gauge(
                "keyway_client_connections",
                "Client connections now.",
                signed_of(opened.saturating_sub(closed)),
            ),
            gauge(
                "keyway_client_connections_max",
                "Client connections that there may be at a time: limits.clients_max, or what the limit of open files leaves.",
                signed_of(self.control.clients_max.load(Relaxed)),
            ),
            counter(
                "keyway_client_connections_total",
                "Client connections since the start.",
                "",
                vec![("", opened)],
            ),
            counter(
                "keyway_handshakes_total",
                "TLS handshakes with clients, by how they ended.",
                "result",
                by(HandshakeResult::LABELS, cells, |cells| &cells.handshakes),
            ),
            counter(
                "keyway_client_bytes_total",
                "Plain bytes from clients (in) and to them (out).",
                "direction",
                by(Direction::LABELS, cells, |cells| &cells.client_bytes),
            ),
            gauge(
                "keyway_client_waiting_bytes",
                "Bytes of replies that clients have not read yet and of commands that they have half sent, by the look at all of them every 250 ms.",
                signed_of(sum(cells, |cells| &cells.waiting_bytes)),
            ),
            gauge(
                "keyway_client_waiting_bytes_max",
                "Bytes that may wait so: limits.memory_bytes_max, or what came of the memory there is; for several clusters that share it, each one's part. Beyond it, the clients for which most waits are closed.",
                signed_of(sum(cells, |cells| &cells.waiting_bytes_max)),
            ),
            counter(
                "keyway_requests_total",
                "Commands that have their reply, by command.",
                "command",
                requests,
            ),
            latency(cells),
            phase_family(cells),
            counter(
                "keyway_errors_total",
                "Errors that Keyway itself gave to clients, by kind.",
                "kind",
                by(ErrorKind::LABELS, cells, |cells| &cells.errors),
            ),
        ]
    }

    fn cluster(&self) -> [MetricFamily; 4] {
        [
            counter(
                "keyway_topology_looks_total",
                "Times that the cluster was asked for its topology.",
                "result",
                vec![
                    ("believed", self.control.looks.load(Relaxed)),
                    ("failed", self.control.failed_looks.load(Relaxed)),
                ],
            ),
            gauge(
                "keyway_topology_revision",
                "Revision of the topology in force; grows with every change.",
                signed_of(self.control.revision.load(Relaxed)),
            ),
            gauge(
                "keyway_topology_slots_covered",
                "Slots that have an owner, of 16384.",
                signed_of(self.control.slots_covered.load(Relaxed)),
            ),
            gauge(
                "keyway_topology_slots_served",
                "Slots whose owner is well and can be reached, of 16384; looked at once a second.",
                signed_of(self.control.slots_served.load(Relaxed)),
            ),
        ]
    }
}

fn build() -> MetricFamily {
    gauges(
        "keyway_build_info",
        "Always 1; the version that runs.",
        "version",
        &[(env!("CARGO_PKG_VERSION"), 1)],
    )
}

/// Gives all series of a family the label of a cluster.
fn name_all(family: &mut MetricFamily, name: &str) {
    for metric in family.mut_metric() {
        let mut pair = LabelPair::default();
        pair.set_name(CLUSTER_LABEL.to_owned());
        pair.set_value(name.to_owned());
        let mut labels = vec![pair];
        labels.extend_from_slice(metric.get_label());
        metric.set_label(labels);
    }
}

fn upstream(cells: &[Arc<Cells>]) -> [MetricFamily; 9] {
    let states: Vec<(&str, i64)> = UpstreamState::LABELS
        .iter()
        .enumerate()
        .map(|(i, label)| {
            let one = |cells: &Arc<Cells>| cells.upstream.get(i).map(|cell| cell.load(Relaxed));
            (*label, cells.iter().filter_map(one).sum())
        })
        .collect();
    let in_flight = cells.iter().map(|cells| cells.in_flight.load(Relaxed));
    [
        gauges(
            "keyway_upstream_connections",
            "Connections to nodes.",
            "state",
            &states,
        ),
        counter(
            "keyway_upstream_connects_total",
            "Attempts to connect to nodes, by how they ended.",
            "result",
            by(ConnectResult::LABELS, cells, |cells| &cells.connects),
        ),
        gauge(
            "keyway_upstream_in_flight",
            "Commands sent to nodes and not answered.",
            in_flight.sum(),
        ),
        counter(
            "keyway_upstream_stalls_total",
            "Times that a node owed an answer for half a second and was sent nothing more until then.",
            "",
            vec![("", sum(cells, |cells| &cells.stalls))],
        ),
        counter(
            "keyway_upstream_poisoned_total",
            "Node connections closed because their replies could not be trusted.",
            "reason",
            by(PoisonReason::LABELS, cells, |cells| &cells.poisoned),
        ),
        counter(
            "keyway_redirects_total",
            "Commands that a node sent elsewhere; clients do not see these.",
            "kind",
            by(RedirectKind::LABELS, cells, |cells| &cells.redirects),
        ),
        counter(
            "keyway_reads_total",
            "Reads that may go to replicas (READONLY, the read port), by the zone they went to.",
            "zone",
            by(Zone::LABELS, cells, |cells| &cells.reads),
        ),
        counter(
            "keyway_upstream_received_bytes_total",
            "Plain bytes from nodes, by their zone.",
            "zone",
            by(Zone::LABELS, cells, |cells| &cells.node_received),
        ),
        counter(
            "keyway_upstream_sent_bytes_total",
            "Plain bytes to nodes, by their zone.",
            "zone",
            by(Zone::LABELS, cells, |cells| &cells.node_sent),
        ),
    ]
}

fn hot_keys(cells: &[Arc<Cells>]) -> [MetricFamily; 4] {
    [
        counter(
            "keyway_coalesced_total",
            "Commands that were not sent: they got the reply of another that asked the same ([hot_keys] coalesce).",
            "",
            vec![("", sum(cells, |cells| &cells.coalesced))],
        ),
        counter(
            "keyway_near_reads_total",
            "Reads of keys that may be kept near ([hot_keys]): answered from what is kept near (hit) or by a node (miss).",
            "result",
            by(NearEnd::LABELS, cells, |cells| &cells.near),
        ),
        counter(
            "keyway_near_dropped_total",
            "Values kept near that were dropped: a node told of a change (invalidated), or nobody could tell any more (lost).",
            "reason",
            by(NearDrop::LABELS, cells, |cells| &cells.near_dropped),
        ),
        gauge(
            "keyway_near_bytes",
            "Bytes of values kept near.",
            signed_of(sum(cells, |cells| &cells.near_bytes)),
        ),
    ]
}

pub(super) fn sum(cells: &[Arc<Cells>], field: fn(&Cells) -> &AtomicU64) -> u64 {
    cells.iter().map(|cells| field(cells).load(Relaxed)).sum()
}

/// The sum over all workers for each label.
pub(super) fn by<'a>(
    labels: &[&'a str],
    cells: &[Arc<Cells>],
    field: fn(&Cells) -> &[AtomicU64],
) -> Vec<(&'a str, u64)> {
    let value = |index: usize| -> u64 {
        let one = |cells: &Arc<Cells>| field(cells).get(index).map(|c| c.load(Relaxed));
        cells.iter().filter_map(one).sum()
    };
    let labels = labels.iter().enumerate();
    labels.map(|(i, label)| (*label, value(i))).collect()
}

fn latency(cells: &[Arc<Cells>]) -> MetricFamily {
    let count = |index: usize| -> u64 {
        let one = |cells: &Arc<Cells>| cells.latency.get(index).map(|cell| cell.load(Relaxed));
        cells.iter().filter_map(one).sum()
    };
    let sum = sum(cells, |cells| &cells.latency_sum_ns);
    let mut metric = Metric::default();
    metric.set_histogram(histogram(&BUCKETS_NS, count, sum));
    let help = "From a command's arrival to the last byte of its reply.";
    family(
        "keyway_request_duration_seconds",
        help,
        MetricType::HISTOGRAM,
        vec![metric],
    )
}

/// A histogram whose buckets have these bounds, and one more for what is beyond.
pub(super) fn histogram(bounds_ns: &[u64], count: impl Fn(usize) -> u64, sum_ns: u64) -> Histogram {
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(bounds_ns.len());
    for (index, bound) in bounds_ns.iter().enumerate() {
        cumulative += count(index);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(seconds(*bound));
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(cumulative + count(bounds_ns.len()));
    histogram.set_sample_sum(seconds(sum_ns));
    histogram
}

#[allow(clippy::cast_precision_loss, reason = "a metric's value is a double")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn signed_of(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    metrics: Vec<Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn labelled(label: &str, value: &str) -> Metric {
    let mut metric = Metric::default();
    if !label.is_empty() {
        let mut pair = LabelPair::default();
        pair.set_name(label.to_owned());
        pair.set_value(value.to_owned());
        metric.set_label(vec![pair]);
    }
    metric
}

#[allow(clippy::cast_precision_loss, reason = "a metric's value is a double")]
pub(super) fn counter(
    name: &str,
    help: &str,
    label: &str,
    values: Vec<(&str, u64)>,
) -> MetricFamily {
    let metrics = values.into_iter().map(|(value, count)| {
        let mut counter = Counter::default();
        counter.set_value(count as f64);
        let mut metric = labelled(label, value);
        metric.set_counter(counter);
        metric
    });
    family(name, help, MetricType::COUNTER, metrics.collect())
}

#[allow(clippy::cast_precision_loss, reason = "a metric's value is a double")]
fn gauge_value(label: &str, value: &str, number: i64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(number as f64);
    let mut metric = labelled(label, value);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn gauge(name: &str, help: &str, number: i64) -> MetricFamily {
    family(
        name,
        help,
        MetricType::GAUGE,
        vec![gauge_value("", "", number)],
    )
}

pub(super) fn gauges(name: &str, help: &str, label: &str, values: &[(&str, i64)]) -> MetricFamily {
    let metrics = values
        .iter()
        .map(|(value, number)| gauge_value(label, value, *number));
    family(name, help, MetricType::GAUGE, metrics.collect())
}
