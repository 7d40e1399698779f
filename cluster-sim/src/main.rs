//! `cluster-sim`: a Valkey cluster in memory behind real ports, to try clients and proxies on; and the
//! simulated service that scales such clusters.

mod cli;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    cli::run(cli::Cli::parse()).await
}
