//! `compare`: Keyway beside Envoy, HAProxy and no proxy at all, under one load in one run.
//!
//! `benches/compare` builds it and installs the peers. Reading order: [`wish`] is what was asked for;
//! [`ground`] brings up [`nodes`] and [`proxies`] and drives the generator; each kind of figure is a
//! module; [`bounds`] and [`findings`] are pure and know no figure.

mod beside;
mod bounds;
mod crowd;
mod duel;
mod findings;
mod ground;
mod handshake;
mod memory;
mod nodes;
mod open;
mod process;
mod proxies;
mod scale;
mod sockets;
mod storm;
mod syscalls;
mod wish;

use std::fs;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::Parser;

use findings::Findings;
use ground::Ground;
use process::Session;
use proxies::Flush;
use wish::Wish;

fn main() -> ExitCode {
    let wish = Wish::parse();
    match compare(&wish) {
        Ok(findings) if !findings.failures.is_empty() => ExitCode::from(1),
        Ok(findings) if wish.check && findings.missed() > 0 => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            wish.tell(&format!("{error:#}"));
            ExitCode::from(1)
        }
    }
}

/// One kind of figures: it knows what it is asked for, and leaves out what is not.
type Section = fn(&Ground, &Wish, &mut Findings) -> Result<()>;

const SECTIONS: [Section; 8] = [
    duel::run,
    open::run,
    handshake::run,
    memory::run,
    scale::run,
    storm::run,
    crowd::run,
    syscalls::run,
];

fn compare(wish: &Wish) -> Result<Findings> {
    let session = Session::raise();
    let mut findings = Findings {
        about: about(wish, &session),
        ..Findings::default()
    };
    let mut out = std::io::stdout().lock();
    for (what, value) in &findings.about {
        writeln!(out, "{what}: {value}")?;
    }
    let ground = Ground::prepare(Flush {
        micros: wish.envoy_flush_us,
    })?;
    for section in SECTIONS {
        let before = findings.tables.len();
        section(&ground, wish, &mut findings)?;
        for table in findings.tables.iter().skip(before) {
            write!(out, "{}", table.shown())?;
        }
    }
    if !findings.checks.is_empty() {
        write!(out, "{}", findings.checks_shown())?;
    }
    for failure in &findings.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    if let Some(path) = &wish.json {
        let json = serde_json::to_string_pretty(&findings)?;
        fs::write(path, json).with_context(|| path.display().to_string())?;
    }
    Ok(findings)
}

/// When, where, and what is compared.
fn about(wish: &Wish, session: &Result<Session>) -> Vec<(String, String)> {
    let version = |variable: &str, argument: &str| {
        let program = std::env::var_os(variable)?;
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let line = text.lines().next()?;
        // Envoy names itself by its whole path first.
        let line = line.rsplit_once("version: ").map_or(line, |(_, rest)| rest);
        Some(line.to_owned())
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, model)| model.to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let machine = format!("{cores} cores, {}", model.unwrap_or_default());
    let line: Vec<String> = std::env::args().skip(1).collect();
    let unknown = || "unknown".to_owned();
    [
        ("command", format!("./benches/compare {}", line.join(" "))),
        (
            "date",
            humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        ),
        ("machine", machine),
        ("session", Session::shown(session)),
        (
            "keyway",
            version("KEYWAY_BIN", "--version").unwrap_or_else(unknown),
        ),
        (
            "envoy",
            format!(
                "{}, flush after {} us",
                version("KEYWAY_ENVOY", "--version").unwrap_or_else(unknown),
                wish.envoy_flush_us
            ),
        ),
        (
            "haproxy",
            version("KEYWAY_HAPROXY", "-v").unwrap_or_else(unknown),
        ),
        (
            "nodes",
            version("KEYWAY_VALKEY_8", "--version").unwrap_or_else(unknown),
        ),
    ]
    .map(|(what, value)| (what.to_owned(), value))
    .into()
}
