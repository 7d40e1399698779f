//! `cluster-sim`: a Valkey cluster in memory behind real ports, to try clients and proxies on.

use std::net::{IpAddr, Ipv4Addr};

use clap::{Parser, ValueEnum};
use cluster_sim::{Options, Version, serve};

/// A Valkey cluster in memory behind real ports.
#[derive(Debug, Parser)]
#[command(name = "cluster-sim", version, about)]
struct Cli {
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Words {
    #[value(name = "8.0")]
    V8_0,
    #[value(name = "9.1")]
    V9_1,
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "the answer of the command")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let running = serve(Options {
        shards: cli.shards,
        replicas: cli.replicas,
        zones: cli.zones,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: cli.port,
        version: match cli.version {
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
