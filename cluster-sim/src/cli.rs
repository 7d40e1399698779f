//! The command line.

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster_sim::choices::{Fleet, table};
use cluster_sim::scale::{Checks, Report, Scenario, simulate};
use cluster_sim::{Options, Version, serve};

/// A Valkey cluster in memory behind real ports; with a command, the simulated service.
#[derive(Debug, Parser)]
#[command(name = "cluster-sim", about, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Simulate a service of many clusters that scale by themselves.
    Scale(ScaleArgs),
    /// Compare ways to choose who leaves a busy host and for where, as a table.
    Choices(ChoicesArgs),
}

#[derive(Debug, Args)]
struct ClusterArgs {
    /// Primaries.
    #[arg(long, default_value_t = 3)]
    shards: usize,
    /// Replicas of each primary.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Availability zones, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "zone-a,zone-b,zone-c")]
    zones: Vec<String>,
    /// The first node's port, the others follow; 0 is any free port for each.
    #[arg(long, default_value_t = 7000)]
    port: u16,
    /// Whose words and shapes the nodes use.
    #[arg(long, value_enum, default_value = "9.1")]
    version: Words,
}

#[derive(Debug, Args)]
struct ScaleArgs {
    /// What to simulate; there are some in cluster-sim/scenarios.
    scenario: PathBuf,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as one JSON object, and write nothing.
    #[arg(long)]
    json: bool,
    /// Where the CSV and SVG files go.
    #[arg(long, default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct ChoicesArgs {
    /// Seeds that the figures are means of.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Hosts.
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    /// Nodes on each, on average.
    #[arg(long, default_value_t = 12)]
    nodes_per_host: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Words {
    #[value(name = "8.0")]
    V8_0,
    #[value(name = "9.1")]
    V9_1,
}

/// Does what was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Some(Task::Scale(args)) => scale(&args),
        Some(Task::Choices(args)) => {
            choose(&args);
            Ok(())
        }
        None => cluster(cli.cluster).await,
    }
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
async fn cluster(args: ClusterArgs) -> anyhow::Result<()> {
    let running = serve(Options {
        shards: args.shards,
        replicas: args.replicas,
        zones: args.zones,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: args.port,
        version: match args.version {
            Words::V8_0 => Version::V8_0,
            Words::V9_1 => Version::V9_1,
        },
        default_password: None,
    })
    .await?;
    for address in running.addresses() {
        println!("{address}");
    }
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
fn scale(args: &ScaleArgs) -> anyhow::Result<()> {
    let shown = args.scenario.display();
    let text = fs::read_to_string(&args.scenario).with_context(|| format!("reading {shown}"))?;
    let scenario = Scenario::parse(&text).with_context(|| format!("in {shown}"))?;
    let report = simulate(&scenario, args.seed, Checks::default())?;
    if args.json {
        println!("{}", serde_json::to_string(&report.summary)?);
        return Ok(());
    }
    play(&report)?;
    println!("{}", serde_json::to_string_pretty(&report.summary)?);
    let stem = args.scenario.file_stem().unwrap_or_default();
    let name = Path::new(stem).display().to_string();
    fs::create_dir_all(&args.out)?;
    for (ending, content) in [("csv", report.csv()), ("svg", report.svg())] {
        let path = args.out.join(format!("{name}.{ending}"));
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
fn choose(args: &ChoicesArgs) {
    let fleet = Fleet {
        hosts: args.hosts.max(3),
        nodes_per_host: args.nodes_per_host.max(1),
    };
    print!("{}", table(fleet, args.seeds));
}

/// Shows the run as it went, in a few seconds, where there is somebody to see it.
fn play(report: &Report) -> anyhow::Result<()> {
    const FRAMES: usize = 100;
    let mut out = stdout().lock();
    let count = report.samples.len();
    if out.is_terminal() {
        for frame in 1..FRAMES {
            let chart = report.chart(100, count * frame / FRAMES);
            let lines = chart.lines().count();
            write!(out, "{chart}\x1b[{lines}A")?;
            out.flush()?;
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    write!(out, "{}", report.chart(100, count))?;
    Ok(())
}
