//! What was typed on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::pace::Arrivals;
use crate::workload::{Mix, Span};

/// Drives Keyway, a Valkey node or a peer with verified load over TLS.
///
/// Every value names its key, client and sequence and carries a checksum; every reply is checked
/// by position and content. Exit code 0: all replies right, no error, no connection lost. 1: not
/// so. 2: bad usage.
#[derive(Clone, Debug, Parser)]
#[command(name = "load", version, args_override_self = true)]
pub struct Args {
    /// An endpoint: `[NAME=]HOST:PORT[,pid=P[+P..]][,clients=N][,plain][,ca=FILE][,server-name=NAME]`.
    /// Several make a duel: one is driven at a time, in turns, and compared with the first
    #[arg(long = "target", required = true, value_name = "ENDPOINT")]
    pub targets: Vec<String>,
    /// Certificates to trust, PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The name to verify and send as SNI (default: the target's host)
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Plain TCP instead of TLS
    #[arg(long)]
    pub plain: bool,
    /// ACL user to authenticate as; the password comes from --password-env
    #[arg(long, value_name = "USER", requires = "password_env")]
    pub username: Option<String>,
    /// Environment variable that holds the password
    #[arg(long, value_name = "VARIABLE")]
    pub password_env: Option<String>,
    /// RESP version
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    pub protocol: u8,

    /// Connections to each target that has no clients= of its own
    #[arg(long, default_value_t = 50)]
    pub clients: u32,
    /// Requests of a batch, drawn anew for each; with --rate, outstanding requests of a connection
    /// at most
    #[arg(long, default_value = "1", value_name = "N|A..B")]
    pub pipeline: Span,
    /// Measured time of each target
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Unmeasured time of each target before it
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Length of a turn; unless given, 250ms with several targets, and all of the duration with one
    #[arg(long, value_parser = humantime::parse_duration)]
    pub turn: Option<Duration>,
    /// How long the last replies of a turn may take
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// Open loop: requests a second over all connections, sent when due, whatever the replies do;
    /// latency counts from the instant due
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Gaps between the requests of an open loop
    #[arg(long, value_enum, default_value_t = ArrivalsArg::Poisson)]
    pub arrivals: ArrivalsArg,
    /// Threads of the generator
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// Handshakes at the same time, over all threads
    #[arg(long, default_value_t = 64)]
    pub connects_max: u32,

    /// Weights of get, set, mget, mset, incr, del, exists, echo, ping
    #[arg(
        long,
        default_value = "get=70,set=20,mget=5,incr=3,del=2",
        value_name = "COMMAND=WEIGHT,.."
    )]
    pub mix: Mix,
    /// Bytes of a value, 64 at least
    #[arg(long, default_value = "64", value_name = "N|A..B")]
    pub value_bytes: Span,
    /// Keys over all clients and targets
    #[arg(long, default_value_t = 100_000)]
    pub keys: u32,
    /// Percentage of the keys, and of the requests, that all clients share; the other keys have
    /// one writer each, and their values are known exactly
    #[arg(long, default_value_t = 20, value_name = "PERCENT")]
    pub shared: u8,
    /// Keys of an MGET or MSET
    #[arg(long, default_value = "2..10", value_name = "N|A..B")]
    pub multi_keys: Span,
    /// How keys are drawn, within the client's own and within the shared ones
    #[arg(long, value_enum, default_value_t = DistributionArg::Uniform)]
    pub distribution: DistributionArg,
    /// Exponent s of the zipf distribution: rank r is drawn in proportion to r^-s
    #[arg(long, default_value_t = 0.99, value_name = "S")]
    pub zipf_exponent: f64,
    /// Only keys of these slots (for one node of a cluster)
    #[arg(long, value_name = "A-B")]
    pub slots: Option<String>,
    /// One request in so many is an ECHO of a nonce; 0 for none
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub echo_every: u32,
    /// Start without giving every key a value
    #[arg(long)]
    pub no_fill: bool,
    /// Everything random follows from it (default: from the clock)
    #[arg(long)]
    pub seed: Option<u64>,

    /// full: values and their checksums; names: only what key and client a value names
    #[arg(
        long,
        value_enum,
        default_value_t = VerifyArg::Full,
        num_args = 0..=1,
        default_missing_value = "full",
        require_equals = true
    )]
    pub verify: VerifyArg,
    /// Error replies and closed connections do not fail the run
    #[arg(long)]
    pub allow_errors: bool,
    /// Acknowledged writes that are gone do not fail the run (an unplanned failover loses some)
    #[arg(long)]
    pub allow_stale: bool,

    /// Process whose CPU time per request is reported (of a single target; else pid= in --target)
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Processes behind all targets, whose CPU time per request is reported too
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub node_pid: Vec<u32>,
    /// The report as one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `--arrivals`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ArrivalsArg {
    /// Exponential gaps.
    Poisson,
    /// Equal gaps.
    Fixed,
}

impl From<ArrivalsArg> for Arrivals {
    fn from(arg: ArrivalsArg) -> Self {
        match arg {
            ArrivalsArg::Poisson => Self::Poisson,
            ArrivalsArg::Fixed => Self::Fixed,
        }
    }
}

/// `--distribution`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DistributionArg {
    /// All alike.
    Uniform,
    /// Few keys often.
    Zipf,
}

/// `--verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerifyArg {
    /// Everything.
    Full,
    /// All but the checksums.
    Names,
}
