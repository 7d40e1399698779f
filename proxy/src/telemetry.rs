//! Log lines on standard error: for people on a terminal, JSON otherwise. One line per event, none
//! per request, never a key or a value.

use std::{
    io::{IsTerminal, stderr},
    sync::OnceLock,
};

use tracing::Level;
use tracing_subscriber::{EnvFilter, Registry, fmt, prelude::*, reload};

use crate::config::{Log, LogFormat};

/// Filters like `info,keyway::acceptor=debug`, instead of `log.level`.
const FILTER_VARIABLE: &str = "KEYWAY_LOG";

/// Sets another level, once logging has started.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging as configured. Only the first call in a process counts.
pub fn start(log: &Log) {
    let human = match log.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let lines = fmt::layer().with_writer(stderr).with_target(false);
    let lines = if human {
        lines.with_ansi(stderr().is_terminal()).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    let registry = tracing_subscriber::registry();
    // An error: somebody logs already, a test or a program that embeds this.
    if registry.with(lines.with_filter(filter)).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Logs at this level from now on.
pub fn set_level(level: Level) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(filter(level)); // the subscriber lives as long as the process
    }
}

/// What libraries say below a warning is not about Keyway, nor is what the one that watches folders
/// says of folders that are gone.
fn filter(level: Level) -> EnvFilter {
    let of_libraries = level.min(Level::WARN);
    let usual = || EnvFilter::new(format!("{of_libraries},notify=error,keyway={level}"));
    match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).unwrap_or_else(|_| usual()),
        _ => usual(),
    }
}
