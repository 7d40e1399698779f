use std::time::Duration;

use super::*;

fn value(page: &str, line: &str) -> f64 {
    let found = page
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    found
        .unwrap_or_else(|| panic!("no {line} in\n{page}"))
        .parse()
        .unwrap()
}

#[test]
fn workers_are_summed() {
    let metrics = Metrics::new(["get".into(), "set".into()]);
    let (one, other) = (metrics.worker(), metrics.worker());
    one.request(0, 60_000);
    other.request(0, 1);
    other.request(1, 20_000_000_000);
    other.request(usize::MAX, 1);
    one.connection_opened();
    other.connection_opened();
    one.connection_closed();
    one.upstream_moved(None, Some(UpstreamState::Connecting));
    one.upstream_moved(Some(UpstreamState::Connecting), Some(UpstreamState::Ready));
    other.handshake(HandshakeResult::Plaintext);
    one.phase(Phase::Queue, Duration::from_micros(7));
    other.phase(Phase::Queue, Duration::from_secs(3));
    metrics.control().topology_revision(7);
    let queue = &metrics.totals().phases[Phase::Queue as usize];
    assert_eq!((queue.times.count(), queue.sum_ns), (2, 3_000_007_000));
    let page = metrics.page();
    for (line, expected) in [
        ("keyway_requests_total{command=\"get\"}", 2.0),
        ("keyway_requests_total{command=\"set\"}", 1.0),
        ("keyway_requests_total{command=\"other\"}", 1.0),
        ("keyway_client_connections", 1.0),
        ("keyway_client_connections_total", 2.0),
        ("keyway_upstream_connections{state=\"ready\"}", 1.0),
        ("keyway_upstream_connections{state=\"connecting\"}", 0.0),
        ("keyway_handshakes_total{result=\"plaintext\"}", 1.0),
        ("keyway_topology_revision", 7.0),
        ("keyway_request_duration_seconds_count", 4.0),
        (
            "keyway_request_duration_seconds_bucket{le=\"0.00005\"}",
            2.0,
        ),
        ("keyway_request_duration_seconds_bucket{le=\"0.0001\"}", 3.0),
        ("keyway_request_duration_seconds_bucket{le=\"10\"}", 3.0),
        ("keyway_request_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        (
            "keyway_request_phase_seconds_bucket{phase=\"queue\",le=\"0.000005\"}",
            0.0,
        ),
        (
            "keyway_request_phase_seconds_bucket{phase=\"queue\",le=\"0.00001\"}",
            1.0,
        ),
        ("keyway_request_phase_seconds_count{phase=\"queue\"}", 2.0),
        (
            "keyway_request_phase_seconds_sum{phase=\"queue\"}",
            3.000_007,
        ),
        ("keyway_request_phase_seconds_count{phase=\"node\"}", 0.0),
    ] {
        assert!(
            (value(&page, line) - expected).abs() < 1e-9,
            "{line}\n{page}"
        );
    }
}

#[test]
fn there_is_a_page_before_the_first_command() {
    let metrics = Metrics::new(["get".into()]);
    let _worker = metrics.worker();
    let page = metrics.page();
    assert!(value(&page, "keyway_client_connections").abs() < 1e-9);
    assert!(!page.contains("keyway_requests_total"), "{page}");
}
