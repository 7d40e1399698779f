//! The command line.

use std::{
    io::{IsTerminal, Write as _, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{
    config::{self, Config, Lives, Problems},
    demo, drain, files,
    metrics::Listing,
    outlets::Outlets,
    server::{self, Bound},
    systemd, telemetry,
    tls::AllLoaded,
    tools::{self, shell::Shell},
    worker::{Plane, waiting_bytes_max},
};

/// Exit code for what the operator can put right: configuration, files, ports.
const MISTAKE: u8 = 2;

/// One TLS endpoint in front of a Valkey cluster.
#[derive(Debug, Parser)]
#[command(name = "keyway", version, about)]
struct Cli {
    /// Print every metric there is: name, type, labels and meaning, between them tabulators.
    #[arg(long, exclusive = true)]
    list_metrics: bool,
    /// Print a configuration with every key, its default and its meaning.
    #[arg(long)]
    print_default_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the cluster that the configuration names.
    Serve(ConfigFile),
    /// Check a configuration and the files it names, and show what it means.
    Check(ConfigFile),
    /// Show slots, shards, nodes, zones and what changed last.
    Topology(tools::topology::Options),
    /// Explain where a command goes and why: `keyway explain GET user:1`.
    Explain(tools::explain::Options),
    /// Watch what happens, second by second.
    Top(tools::top::Options),
    /// Show where the load is: hot shards, slots and keys, and big values.
    Heat(tools::heat::Options),
    /// Show the commands that took long.
    Slowlog(tools::slowlog::Options),
    /// Look at everything that a Keyway needs, and say what to do about what is wrong.
    Doctor(tools::doctor::Options),
    /// Move slots until all nodes are equally busy; only shows what it would do without --apply.
    Rebalance(tools::rebalance::Options),
    /// Take nodes from a warm pool when load rises, and give them back when it falls.
    Autoscale(tools::autoscale::Options),
    /// Print a script that completes this command line in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the man page: `keyway man | man -l -`.
    Man,
    /// Try it: a cluster, a certificate and the endpoint on this machine (what happens without a command).
    Demo(demo::Options),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The TOML file; see docs/configuration.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if cli.list_metrics {
        return print(&Listing::new());
    }
    if cli.print_default_config {
        return print(&config::commented());
    }
    match cli
        .command
        .unwrap_or_else(|| Command::Demo(demo::Options::default()))
    {
        Command::Serve(file) => serve(&file),
        Command::Check(file) => check(&file),
        Command::Topology(options) => tools::topology::show(&options),
        Command::Explain(options) => tools::explain::show(&options),
        Command::Top(options) => tools::top::show(&options),
        Command::Heat(options) => tools::heat::show(&options),
        Command::Slowlog(options) => tools::slowlog::show(&options),
        Command::Doctor(options) => tools::doctor::show(&options),
        Command::Rebalance(options) => tools::rebalance::show(&options),
        Command::Autoscale(options) => tools::autoscale::show(&options),
        Command::Completions { shell } => tools::shell::completions(shell, Cli::command()),
        Command::Man => tools::shell::man(Cli::command()),
        Command::Demo(options) => demo::run(&options),
    }
}

/// The configuration with its certificates, or the exit code after the mistakes were printed.
fn load(file: &ConfigFile) -> Result<(Config, AllLoaded), ExitCode> {
    let config = Config::load(&file.config).map_err(|problems| {
        show(&problems, &file.config);
        ExitCode::from(MISTAKE)
    })?;
    let loaded = AllLoaded::load(&config);
    let outlets = Outlets::problems(&config);
    match loaded {
        Ok(loaded) if outlets.is_empty() => return Ok((config, loaded)),
        loaded => {
            let of_tls = loaded.err();
            let of_tls = of_tls.iter().flat_map(Problems::iter).cloned();
            show(&Problems::of(of_tls.chain(outlets).collect()), &file.config);
        }
    }
    Err(ExitCode::from(MISTAKE))
}

/// One line for each mistake; for people, with the line that is meant below it.
fn show(problems: &Problems, path: &Path) {
    let text = if stderr().is_terminal() {
        std::fs::read_to_string(path).unwrap_or_default()
    } else {
        String::new()
    };
    for problem in problems.iter() {
        eprintln!("{problem}");
        if let Some(excerpt) = problem.excerpt(&text) {
            eprintln!("{excerpt}");
        }
    }
}

/// Prints one line, for exit code 2.
pub(crate) fn mistake(what: &impl std::fmt::Display) -> ExitCode {
    eprintln!("{what}");
    ExitCode::from(MISTAKE)
}

/// The answer of a command. Who reads no further has read enough.
fn print(answer: &impl std::fmt::Display) -> ExitCode {
    let _ = write!(std::io::stdout(), "{answer}");
    ExitCode::SUCCESS
}

fn check(file: &ConfigFile) -> ExitCode {
    match load(file) {
        Ok((config, _)) => print(&format_args!("{config}\n")),
        Err(code) => code,
    }
}

fn serve(file: &ConfigFile) -> ExitCode {
    let (mut config, loaded) = match load(file) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let bound = match Bound::bind(&config) {
        Ok(bound) => bound,
        Err(error) => return mistake(&error),
    };
    if let Err(error) = bound.tell(&mut config) {
        return mistake(&error);
    }
    let lowered = files::fit(&mut config);
    telemetry::start(&config.log);
    lowered.inspect(|lowered| lowered.warn());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return mistake(&error),
    };
    runtime.block_on(async {
        let signals = match drain::Signals::new() {
            Ok(signals) => signals,
            Err(error) => return mistake(&error),
        };
        let config = Arc::new(config);
        let (lives, path) = (Lives::new(Arc::clone(&config)), file.config.clone());
        let outlets = match Outlets::begin(&config) {
            Ok(outlets) => outlets,
            Err(problem) => return mistake(&problem),
        };
        let plane = Plane::telling(outlets.clone());
        let running = match server::start(&lives, loaded, bound, &plane, Some(path)) {
            Ok(running) => running,
            Err(error) => return mistake(&error),
        };
        if let Err(error) = running.reload_on_signal() {
            tracing::warn!(%error, "SIGHUP will end Keyway");
        }
        tracing::info!(
            address = %config.listen.address, admin = %config.admin.address,
            workers = config.listen.workers, clients_max = config.limits.clients_max,
            memory_bytes_max = waiting_bytes_max(&config), version = env!("CARGO_PKG_VERSION"),
            "serving Valkey over TLS"
        );
        tokio::spawn(systemd::tell_when_ready(running.readiness.clone()));
        drain::serve(running, &lives.process, signals).await;
        outlets.end();
        ExitCode::SUCCESS
    })
}
