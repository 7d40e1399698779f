//! What the command line means: checked, resolved, read from files.

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use resp::Protocol;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::args::{Args, DistributionArg, VerifyArg};
use crate::cpu::CpuTime;
use crate::pace::Arrivals;
use crate::workload::{
    CLIENTS_MAX, Distribution, KeySpace, Plan, Span, VALUE_BYTES_MIN, ValueShape,
};

/// Value bytes at most: what a server takes in its default configuration.
const VALUE_BYTES_MAX: u32 = 512 << 20;
/// Requests outstanding on one connection at most.
const PIPELINE_MAX: u32 = 100_000;
/// Threads at most.
const THREADS_MAX: u32 = 64;
/// A turn of a duel.
const TURN: Duration = Duration::from_millis(250);

/// A run, ready to start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) pipeline: Span,
    pub(crate) open: Option<OpenLoop>,
    pub(crate) fill: bool,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) turn: Duration,
    pub(crate) drain: Duration,
    pub(crate) threads: u32,
    /// Of one thread.
    pub(crate) connects_max: u32,
    pub(crate) node_pids: Vec<u32>,
    pub(crate) allow_errors: bool,
    pub(crate) allow_stale: bool,
    /// What was asked for, for the report.
    pub(crate) described: String,
}

/// The schedule of an open loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenLoop {
    /// Requests a second over all threads.
    pub(crate) rate: f64,
    pub(crate) arrivals: Arrivals,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// `None`: plain TCP.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(crate) protocol: Protocol,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) pids: Vec<u32>,
    /// Connections to it.
    pub(crate) clients: u32,
}

impl Settings {
    /// Checks and resolves what was typed; reads certificates, the environment and (without a
    /// seed) the clock.
    ///
    /// # Errors
    /// One line that says what is wrong and with which option.
    pub fn new(args: &Args) -> Result<Self> {
        check(args)?;
        let protocol = match args.protocol {
            3 => Protocol::Resp3,
            _ => Protocol::Resp2,
        };
        let targets = args
            .targets
            .iter()
            .map(|spec| target(spec, args, protocol).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let clients = targets
            .iter()
            .fold(0_u32, |sum, target| sum.saturating_add(target.clients));
        ensure!(clients <= CLIENTS_MAX, "--clients: {CLIENTS_MAX} at most");
        let seed = args.seed.unwrap_or_else(seed_of_now);
        let distribution = match args.distribution {
            DistributionArg::Uniform => Distribution::Uniform,
            DistributionArg::Zipf => Distribution::Zipf {
                exponent: args.zipf_exponent,
            },
        };
        let slots = args.slots.as_deref().map(slot_range).transpose()?;
        let full = args.verify == VerifyArg::Full;
        let run = u32::try_from(seed & u64::from(u32::MAX)).unwrap_or_default();
        Ok(Self {
            plan: Arc::new(Plan {
                mix: args.mix.clone(),
                keys: KeySpace::new(args.keys, args.shared, clients, distribution, slots)?,
                values: ValueShape::new(args.value_bytes, run, full),
                protocol,
                multi_keys: args.multi_keys,
                echo_every: args.echo_every,
                clients,
                seed,
            }),
            targets,
            pipeline: args.pipeline,
            open: args.rate.map(|rate| OpenLoop {
                rate,
                arrivals: args.arrivals.into(),
            }),
            fill: !args.no_fill,
            duration: args.duration,
            warmup: args.warmup,
            turn: args.turn.unwrap_or(match args.targets.len() {
                1 => args.duration,
                _ => TURN,
            }),
            drain: args.drain,
            threads: args.threads,
            connects_max: args.connects_max.div_ceil(args.threads),
            node_pids: args.node_pid.clone(),
            allow_errors: args.allow_errors,
            allow_stale: args.allow_stale,
            described: describe(args),
        })
    }
}

fn check(args: &Args) -> Result<()> {
    ensure!(args.clients > 0, "--clients: 1 at least");
    ensure!(
        (1..=THREADS_MAX).contains(&args.threads),
        "--threads: 1 to {THREADS_MAX}"
    );
    ensure!(
        args.threads <= args.clients,
        "--threads: no more than --clients"
    );
    ensure!(args.connects_max > 0, "--connects-max: 1 at least");
    ensure!(
        args.pipeline.most <= PIPELINE_MAX,
        "--pipeline: {PIPELINE_MAX} at most"
    );
    ensure!(
        args.value_bytes.least >= VALUE_BYTES_MIN && args.value_bytes.most <= VALUE_BYTES_MAX,
        "--value-bytes: from {VALUE_BYTES_MIN} (key, client, sequence and checksum must fit) to \
         {VALUE_BYTES_MAX}"
    );
    ensure!(!args.duration.is_zero(), "--duration: above 0");
    ensure!(
        args.turn.is_none_or(|turn| !turn.is_zero()),
        "--turn: above 0"
    );
    if let Some(rate) = args.rate {
        ensure!(
            rate > 0.0 && rate <= 1e8,
            "--rate: above 0, to 100000000 a second"
        );
    }
    CpuTime::of(&args.node_pid)
        .with_context(|| format!("--node-pid: no CPU time of {:?}", args.node_pid))?;
    ensure!(
        args.pid.is_empty() || args.targets.len() == 1,
        "--pid is for a single target; write --target NAME=HOST:PORT,pid=P"
    );
    Ok(())
}

/// `[NAME=]HOST:PORT[,key=value..]`.
fn target(spec: &str, args: &Args, protocol: Protocol) -> Result<Target> {
    let mut parts = spec.split(',');
    let endpoint = parts.next().unwrap_or_default();
    let (name, endpoint) = endpoint.split_once('=').unwrap_or((endpoint, endpoint));
    let mut plain = args.plain;
    let mut ca: Option<PathBuf> = args.ca.clone();
    let mut server_name = args.server_name.clone();
    let mut pids = args.pid.clone();
    let mut clients = args.clients;
    for part in parts {
        match part.split_once('=') {
            None if part == "plain" => plain = true,
            Some(("ca", file)) => ca = Some(file.into()),
            Some(("server-name", name)) => server_name = Some(name.into()),
            Some(("clients", number)) => {
                clients = number
                    .parse()
                    .ok()
                    .filter(|clients| *clients >= args.threads)
                    .with_context(|| format!("--target {spec}: clients={number}"))?;
            }
            Some(("pid", list)) => {
                for pid in list.split('+') {
                    pids.push(
                        pid.parse()
                            .with_context(|| format!("--target {spec}: '{pid}' is no pid"))?,
                    );
                }
            }
            _ => bail!(
                "--target {spec}: '{part}' is none of pid=P, clients=N, plain, ca=FILE, \
                 server-name=NAME"
            ),
        }
    }
    let address = endpoint
        .to_socket_addrs()
        .with_context(|| format!("--target {spec}: '{endpoint}' is no HOST:PORT"))?
        .next()
        .with_context(|| format!("--target {spec}: '{endpoint}' has no address"))?;
    CpuTime::of(&pids).with_context(|| format!("--target {spec}: no CPU time of {pids:?}"))?;
    let tls = if plain {
        None
    } else {
        let ca = ca.with_context(|| format!("--target {spec}: TLS needs --ca FILE, or --plain"))?;
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = server_name.unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name.clone())
            .with_context(|| format!("--target {spec}: '{name}' is no server name"))?;
        Some((client_config(&ca)?, name))
    };
    Ok(Target {
        name: name.to_owned(),
        address,
        tls,
        protocol,
        username: args.username.clone(),
        password: password(args)?,
        pids,
        clients,
    })
}

fn password(args: &Args) -> Result<Option<String>> {
    let Some(variable) = &args.password_env else {
        return Ok(None);
    };
    std::env::var(variable)
        .map(Some)
        .with_context(|| format!("--password-env: ${variable} is not set"))
}

fn client_config(ca: &Path) -> Result<Arc<ClientConfig>> {
    let named = || format!("--ca {}", ca.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(named)? {
        roots
            .add(certificate.with_context(named)?)
            .with_context(named)?;
    }
    ensure!(!roots.is_empty(), "{}: no certificate in it", named());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn slot_range(text: &str) -> Result<RangeInclusive<u16>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| {
        digits
            .parse::<u16>()
            .with_context(|| format!("--slots: '{text}' is not A-B"))
    };
    Ok(number(from)?..=number(to)?)
}

/// Different from run to run; the report names it.
fn seed_of_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| {
            since.as_secs() ^ (u64::from(since.subsec_nanos()) << 20)
        })
}

fn describe(args: &Args) -> String {
    let pacing = match args.rate {
        Some(rate) => format!("{rate}/s {:?}", args.arrivals).to_lowercase(),
        None => "closed loop".to_owned(),
    };
    let Args {
        clients,
        pipeline,
        value_bytes,
        keys,
        shared,
        protocol,
        threads,
        ..
    } = args;
    let drawn = match args.distribution {
        DistributionArg::Uniform => "uniform".to_owned(),
        DistributionArg::Zipf => format!("zipf {}", args.zipf_exponent),
    };
    format!(
        "{clients} clients, pipeline {pipeline}, {pacing}, values {value_bytes} B, {keys} keys \
         ({shared} % shared, {drawn}), RESP{protocol}, {threads} thread(s)"
    )
}
