//! Commands for those who look at a running Keyway, or at the cluster behind: what they share.
//!
//! Never here: anything that a serving Keyway needs. `rebalance` and `autoscale` alone change a cluster.

use std::{io::Write, process::ExitCode};

use serde::Serialize;

pub(crate) mod autoscale;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod heat;
pub(crate) mod rebalance;
pub(crate) mod shell;
pub(crate) mod slowlog;
pub(crate) mod source;
pub(crate) mod top;
pub(crate) mod topology;

/// Exit code when what was asked for cannot be had.
const FAILED: u8 = 1;
/// Exit code for what the caller can put right.
const MISTAKE: u8 = 2;

/// Why a command has no answer; one line or several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Mistake(String),
    /// Nobody answers, or not as expected.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Mistake(_) => MISTAKE,
            Self::Failed(_) => FAILED,
        })
    }
}

/// Runs a command to its end.
pub(crate) fn run<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(Failure::Failed(format!("cannot start: {error}"))),
    };
    result.map_err(|failure| {
        eprintln!("{failure}");
        failure.exit_code()
    })
}

/// Writes the answer of a command. Whoever has closed the pipe (`| head`) wants no more.
pub(crate) fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The same as JSON, for programs.
pub(crate) fn say_json(answer: &impl Serialize) {
    match serde_json::to_string_pretty(answer) {
        Ok(text) => say(&(text + "\n")),
        Err(error) => eprintln!("{error}"),
    }
}

/// Microseconds as people read them.
pub(crate) fn time_of(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// How long ago a moment was.
pub(crate) fn ago(at_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(at_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [7, 999, 1234, 12_345, 1_234_567].map(time_of);
        assert_eq!(shown, ["7 us", "999 us", "1.2 ms", "12 ms", "1.2 s"]);
        let past = [1, 130, 7300, 500_000].map(|seconds| ago(0, seconds * 1000));
        assert_eq!(past, ["1 s ago", "2 min ago", "2 h ago", "5 days ago"]);
        assert_eq!(ago(5, 0), "0 s ago");
    }
}
