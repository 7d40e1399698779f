//! `keyway top`: what happens now, second by second. On a terminal a screen, else lines.

use std::{
    fmt::Write as _,
    io::{IsTerminal, stdout},
    process::ExitCode,
    time::Duration,
};

use super::{
    Failure, run, say,
    source::{Admin, Source, page},
    time_of,
};
use crate::report::{Latency, Status};

#[cfg(feature = "top")]
mod draw;
#[cfg(feature = "top")]
mod screen;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks in a row that may fail.
const FAILURES_MAX: u32 = 10;

/// `keyway top`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// All of `/status` as JSON, one line each second.
    #[arg(long)]
    json: bool,
    /// Lines, on a terminal too.
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// End after so many seconds.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// What is looked at.
#[cfg(feature = "top")]
#[derive(Clone, Debug, Default)]
struct Seen {
    status: Status,
    topology: crate::report::Topology,
    /// Why the last look failed.
    trouble: Option<String>,
}

/// Shows until it is ended.
pub(crate) fn show(options: &Options) -> ExitCode {
    let admin = options
        .source
        .config()
        .and_then(|config| options.source.admin(config.as_ref()));
    let shown = run(async {
        let admin = admin?;
        let lines = options.json || options.plain || !stdout().is_terminal();
        #[cfg(feature = "top")]
        if !lines {
            return screen::show(&admin, options.count).await;
        }
        let _ = lines; // without the feature there are lines only
        show_lines(&admin, options).await
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

async fn show_lines(admin: &Admin, options: &Options) -> Result<(), Failure> {
    let mut turns = tokio::time::interval(EVERY);
    let (mut shown, mut failures) = (0, 0);
    let mut before: Option<Status> = None;
    while options.count.is_none_or(|count| shown < count) {
        turns.tick().await;
        let status: Status = match page(admin, "/status").await {
            Ok(status) => status,
            Err(text) if before.is_none() || failures >= FAILURES_MAX => {
                return Err(Failure::Failed(text));
            }
            Err(text) => {
                failures += 1;
                eprintln!("{text}");
                continue;
            }
        };
        failures = 0;
        if options.json {
            say(&(serde_json::to_string(&status).unwrap_or_default() + "\n"));
        } else {
            say(&line(&status, before.as_ref()));
        }
        shown += 1;
        before = Some(status);
    }
    Ok(())
}

/// One second in one line.
fn line(status: &Status, before: Option<&Status>) -> String {
    let errors = |status: &Status| status.errors.iter().map(|error| error.count).sum::<u64>();
    let news = before.map_or(0, |before| errors(status).saturating_sub(errors(before)));
    let latency = &status.latency.request;
    let mut out = clock(status.at_ms);
    let _ = write!(
        out,
        "  {:>9.0} req/s  {:>5} clients  {:>5} in flight  p50 {:>7}  p99 {:>7}  p999 {:>7}  {news} errors",
        status.requests.per_second,
        status.clients.now,
        status.in_flight,
        time(latency.p50_us),
        time(latency.p99_us),
        time(latency.p999_us),
    );
    if status.latency.phases.node.samples > 0 {
        let _ = write!(out, "  {}", parts(status));
    }
    if status.cluster.slots_covered < 16_384 {
        let _ = write!(out, "  {} of 16384 slots", status.cluster.slots_covered);
    }
    if let Some(reason) = &status.not_ready_because {
        let _ = write!(out, "  not ready: {reason}");
    }
    out.push('\n');
    out
}

/// Where the time goes, in the words of `/status`.
fn parts(status: &Status) -> String {
    let phases = &status.latency.phases;
    let part = |name: &str, latency: &Latency| {
        format!("{name} {}/{}", time(latency.p50_us), time(latency.p99_us))
    };
    let mean = |micros: Option<f64>| {
        micros.map_or_else(
            || "not known".to_owned(),
            |micros| format!("{micros:.1} us"),
        )
    };
    format!(
        "p50/p99 of parts: {}, {}, {} (mean: wire {}, server {})",
        part("client TLS", &phases.client_tls),
        part("queue", &phases.queue),
        part("wire and server", &phases.node),
        mean(phases.wire_mean_us),
        mean(phases.server_mean_us),
    )
}

fn time(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".to_owned(), time_of)
}

/// The time of day, in UTC.
fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000 % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}Z", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Count;

    #[test]
    fn a_second_is_a_line() {
        let mut status = Status {
            at_ms: 1_700_000_000_000,
            ..Status::default()
        };
        status.requests.per_second = 1234.4;
        status.latency.request = Latency {
            samples: 1,
            p50_us: Some(120),
            p99_us: Some(4_500),
            p999_us: None,
        };
        status.cluster.slots_covered = 16_384;
        let before = status.clone();
        status.errors = vec![Count {
            name: "auth".to_owned(),
            count: 3,
        }];
        let shown = line(&status, Some(&before));
        let expected = "22:13:20Z       1234 req/s      0 clients      0 in flight  \
                        p50  120 us  p99  4.5 ms  p999       -  3 errors\n";
        assert_eq!(shown, expected);
        let phases = &mut status.latency.phases;
        phases.client_tls.p50_us = Some(9);
        phases.node = status.latency.request;
        phases.node_mean_us = Some(130.0);
        let shown = line(&status, Some(&before));
        let expected = "3 errors  p50/p99 of parts: client TLS 9 us/-, queue -/-, \
                        wire and server 120 us/4.5 ms (mean: wire not known, server not known)\n";
        assert!(shown.ends_with(expected), "{shown}");
        status.latency.phases.server_mean_us = Some(2.25);
        status.latency.phases.wire_mean_us = Some(127.75);
        let shown = line(&status, Some(&before));
        assert!(
            shown.contains("(mean: wire 127.8 us, server 2.2 us)"),
            "{shown}"
        );
        status.cluster.slots_covered = 16_000;
        status.not_ready_because = Some("384 slots have no owner".to_owned());
        let shown = line(&status, None);
        assert!(
            shown.contains("16000 of 16384 slots  not ready: 384"),
            "{shown}"
        );
    }
}
