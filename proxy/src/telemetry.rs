//! Log lines on standard error: for people on a terminal, JSON otherwise. One line per event, none
//! per request, never a key or a value.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{filter::LevelFilter, fmt, prelude::*};

use crate::config::{Log, LogFormat};

/// Starts logging as configured. Only the first call in a process counts.
pub fn start(log: &Log) {
    let human = match log.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let level = LevelFilter::from_level(log.level);
    // What libraries say below a warning is not about Keyway.
    let ours = tracing_subscriber::filter::filter_fn(|metadata| {
        metadata.target().starts_with("keyway") || *metadata.level() <= tracing::Level::WARN
    });
    let registry = tracing_subscriber::registry();
    let started = if human {
        let lines = fmt::layer()
            .with_writer(stderr)
            .with_target(false)
            .with_ansi(stderr().is_terminal());
        registry
            .with(lines.with_filter(level).with_filter(ours))
            .try_init()
    } else {
        let lines = fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(stderr)
            .with_target(false);
        registry
            .with(lines.with_filter(level).with_filter(ours))
            .try_init()
    };
    drop(started); // somebody logs already: a test, or a program that embeds this
}
