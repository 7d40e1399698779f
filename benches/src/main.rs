//! `load`: the load generator's command line.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use keyway_bench::{Args, Report, Settings};

fn main() -> ExitCode {
    let args = Args::parse();
    let settings = match Settings::new(&args) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, 2),
    };
    match keyway_bench::run(settings).and_then(|report| print(&report, args.json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => fail(&error, 1),
    }
}

/// Prints the report; true when the run passed.
fn print(report: &Report, json: bool) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report.passed())
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Without a stderr there is nobody to tell; the exit code says it.
    let _ = writeln!(std::io::stderr(), "load: {error:#}");
    ExitCode::from(code)
}
