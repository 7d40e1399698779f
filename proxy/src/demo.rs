//! Everything at once on one machine.

use std::{path::PathBuf, process::ExitCode};

/// `keyway demo`
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Port for clients (6379; another when it is taken).
    #[arg(long)]
    pub port: Option<u16>,
    /// Port for metrics and probes (9121; another when it is taken).
    #[arg(long)]
    pub admin_port: Option<u16>,
    /// Folder for ca.pem, cert.pem and key.pem; a temporary one otherwise.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Worker threads; one per core otherwise.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Real valkey-server processes instead of the embedded cluster.
    #[arg(long)]
    pub valkey: bool,
}

/// Runs it.
pub fn run(_options: &Options) -> ExitCode {
    ExitCode::FAILURE
}
