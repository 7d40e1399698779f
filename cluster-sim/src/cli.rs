//! The command line.

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster_sim::choices::{Fleet, table};
use cluster_sim::scale::{Checks, Report, Scenario, simulate, watch};
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
    /// Draw the chart while it computes, slowly enough to be watched; a terminal gets that anyway.
    #[arg(long, conflicts_with = "json")]
    live: bool,
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

/// The chart's width.
const COLUMNS: usize = 100;

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
    if args.json {
        let report = simulate(&scenario, args.seed, Checks::default())?;
        println!("{}", serde_json::to_string(&report.summary)?);
        return Ok(());
    }
    let report = if args.live || stdout().is_terminal() {
        live(&scenario, args.seed)?
    } else {
        let report = simulate(&scenario, args.seed, Checks::default())?;
        print!("{}", report.chart(COLUMNS, report.samples.len()));
        report
    };
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

/// Draws the run while it is computed: a frame for every hundredth of its time, each over the one
/// before, and none sooner than can be seen.
fn live(scenario: &Scenario, seed: u64) -> anyhow::Result<Report> {
    const FRAMES: f64 = 100.0;
    const EACH: Duration = Duration::from_millis(30);
    let mut out = stdout().lock();
    let samples = scenario.samples();
    let (mut height, mut next_s, mut last) = (0, 0.0, None::<Instant>);
    let mut draw = |report: &Report| -> anyhow::Result<()> {
        let chart = report.chart(COLUMNS, samples.max(report.samples.len()));
        if height > 0 {
            write!(out, "\x1b[{height}A")?;
        }
        write!(out, "{chart}")?;
        height = chart.lines().count();
        Ok(out.flush()?)
    };
    let report = watch(scenario, seed, Checks::default(), |report| {
        let now_s = report.samples.last().map_or(0.0, |sample| sample.t_s);
        if now_s < next_s {
            return Ok(());
        }
        next_s = now_s + scenario.duration_s / FRAMES;
        if let Some(left) = last.and_then(|last| EACH.checked_sub(last.elapsed())) {
            thread::sleep(left);
        }
        last = Some(Instant::now());
        draw(report)
    })?;
    draw(&report)?;
    Ok(report)
}
