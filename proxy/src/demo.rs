//! Everything at once on one machine: a cluster, a certificate of our own, the endpoint.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use crate::{
    acceptor,
    cli::mistake,
    config::{
        Admin, ClientAuth, Config, HostPort, Listen, ListenTls, Lives, LogFormat, TlsVersion,
    },
    files,
    server::{self, Bound},
    telemetry,
    tls::AllLoaded,
    worker::Plane,
};

mod certificates;
mod valkey;

/// The port that Valkey's clients try first.
const PORT: u16 = 6379;
/// The port that ElastiCache Serverless has for reads.
const READ_PORT: u16 = 6380;
/// The zone of the embedded cluster that this pretends to be in.
const OWN_ZONE: &str = "zone-b";
/// The admin port of a configuration that names none.
const ADMIN_PORT: u16 = 9121;

/// `keyway demo`
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Port for clients; 6379 without, or another when that is taken.
    #[arg(long)]
    pub port: Option<u16>,
    /// Port for reads from replicas; 6380 without, or another when that is taken.
    #[arg(long)]
    pub read_port: Option<u16>,
    /// Port for metrics and probes; 9121 without, or another when that is taken.
    #[arg(long)]
    pub admin_port: Option<u16>,
    /// Folder for ca.pem, cert.pem and key.pem; without, one that goes away at the end.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Worker threads; without, one for each core.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Real valkey-server processes (found on PATH) instead of the embedded cluster.
    #[arg(long)]
    pub valkey: bool,
}

/// Runs the demo until Ctrl-C.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(demo(options)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => mistake(&text),
    }
}

/// The cluster behind the endpoint.
enum Behind {
    Simulated(cluster_sim::Running),
    Real(valkey::Servers),
}

async fn demo(options: &Options) -> Result<(), String> {
    let temporary = match &options.dir {
        Some(_) => None,
        None => Some(private_folder().map_err(|error| format!("cannot make a folder: {error}"))?),
    };
    let folder = match (&options.dir, &temporary) {
        (Some(dir), _) => dir.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => Path::new("."),
    };
    certificates::write(folder).map_err(|error| {
        format!(
            "cannot write certificates into {}: {error}; choose another folder by --dir",
            folder.display()
        )
    })?;
    let (port, note) = choose("--port", options.port, PORT)?;
    let (admin_port, _) = choose("--admin-port", options.admin_port, ADMIN_PORT)?;
    let usual = if port == READ_PORT { 0 } else { READ_PORT };
    let (read_port, _) = choose("--read-port", options.read_port, usual)?;

    let (behind, seeds) = start_cluster(options.valkey).await?;
    let mut config = configuration(options, folder, (port, admin_port, read_port), &seeds);
    telemetry::start(&config.log);
    let loaded = AllLoaded::load(&config).map_err(|problem| problem.to_string())?;
    let bound = Bound::bind(&config).map_err(|error| error.to_string())?;
    bound.tell(&mut config).map_err(|error| error.to_string())?;
    files::fit(&mut config);
    let config = Arc::new(config);
    let lives = Lives::new(Arc::clone(&config));
    let running = server::start(&lives, loaded, bound, &Plane::new(), None);
    let running = running.map_err(|error| error.to_string())?;
    let wait = tokio::time::timeout(Duration::from_secs(10), running.readiness.wait());
    if wait.await.is_err() {
        tracing::warn!("the cluster is not ready yet; see /readyz");
    }
    introduce(&config, &behind, folder, (port, admin_port), note);

    let signal = server::ended_by_signal().await;
    running.stop().await;
    match behind {
        Behind::Simulated(cluster) => cluster.stop().await,
        Behind::Real(servers) => servers.stop().await,
    }
    signal
        .map(|_| ())
        .map_err(|error| format!("cannot wait for signals: {error}"))
}

fn private_folder() -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("keyway-demo-").tempdir()
}

async fn start_cluster(real: bool) -> Result<(Behind, Vec<SocketAddr>), String> {
    if real {
        let servers = valkey::Servers::start().await?;
        let seeds = servers.addresses();
        return Ok((Behind::Real(servers), seeds));
    }
    let cluster = cluster_sim::serve(cluster_sim::Options::default()).await;
    let cluster = cluster.map_err(|error| format!("cannot start the embedded cluster: {error}"))?;
    let seeds = cluster.addresses();
    Ok((Behind::Simulated(cluster), seeds))
}

/// The port that was asked for, or the usual one, or a free one when that is taken; then with a
/// note that says so.
fn choose(option: &str, asked: Option<u16>, usual: u16) -> Result<(u16, Option<String>), String> {
    let try_port = |port: u16| {
        let listener = acceptor::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), false)?;
        Ok::<u16, io::Error>(listener.local_addr()?.port())
    };
    match asked {
        Some(port) => match try_port(port) {
            Ok(port) => Ok((port, None)),
            Err(error) => Err(format!(
                "{option}: cannot listen on 127.0.0.1:{port}: {error}; choose another port"
            )),
        },
        None => match try_port(usual) {
            Ok(port) => Ok((port, None)),
            Err(_) => {
                let port = try_port(0).map_err(|error| format!("no port is free: {error}"))?;
                Ok((
                    port,
                    Some(format!("Port {usual} is taken, so this is on {port}.")),
                ))
            }
        },
    }
}

fn configuration(
    options: &Options,
    folder: &Path,
    (port, admin_port, read_port): (u16, u16, u16),
    seeds: &[SocketAddr],
) -> Config {
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let listen = Listen {
        address: loopback(port),
        advertise: None,
        workers: options
            .workers
            .filter(|workers| *workers > 0)
            .unwrap_or_else(cores),
        reuse_port: false,
        tls: ListenTls {
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
            certificates: Vec::new(),
            clients: ClientAuth::None,
            client_crl: None,
            min_version: TlsVersion::V1_2,
        },
    };
    let seeds = seeds.iter().map(|seed| HostPort {
        host: seed.ip().to_string().into(),
        port: seed.port(),
    });
    let mut config = Config::with_defaults(listen, seeds.collect());
    config.admin = Admin {
        address: loopback(admin_port),
        // Whoever tries it out has no others' keys.
        show_keys: true,
    };
    config.reads.address = Some(loopback(read_port));
    config.reads.zone = (!options.valkey).then(|| OWN_ZONE.into());
    config.log.level = tracing::Level::WARN;
    config.log.format = LogFormat::Auto;
    config
}

/// Prints what to type next.
#[allow(clippy::print_stdout, reason = "the answer of the command")]
fn introduce(
    config: &Config,
    behind: &Behind,
    folder: &Path,
    (port, admin_port): (u16, u16),
    note: Option<String>,
) {
    let ca = shell_quoted(&folder.join("ca.pem"));
    let cluster = match behind {
        Behind::Simulated(_) => {
            "an embedded cluster of 3 primaries and 3 replicas in 3 zones (cluster-sim)"
        }
        Behind::Real(_) => "3 primaries and 3 replicas of valkey-server",
    };
    println!(
        "Keyway serves {cluster} on 127.0.0.1:{port}, over TLS, with {} workers.",
        config.listen.workers
    );
    if let Some(note) = note {
        println!("{note}");
    }
    if let Some(reads) = config.reads.address {
        let whom = match &config.reads.zone {
            Some(zone) => format!("the nodes in {zone}, where this pretends to be"),
            None => "replicas".to_owned(),
        };
        println!(
            "Reads on port {}, and on any connection after READONLY, go to {whom}.",
            reads.port()
        );
    }
    println!("\nTry it from another terminal:\n");
    println!("  valkey-cli --tls --cacert {ca} -p {port}");
    let python = format!(
        "import redis; r = redis.Redis(port={port}, ssl=True, ssl_ca_certs=\"{}\"); \
         print(r.set(\"demo\", \"works\"), r.get(\"demo\"))",
        folder.join("ca.pem").display()
    );
    println!("  python3 -c '{python}'");
    println!("  curl http://127.0.0.1:{admin_port}/metrics");
    println!("\nThe status page is http://127.0.0.1:{admin_port}/ . Ctrl-C ends it.");
}

fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+".contains(char);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
