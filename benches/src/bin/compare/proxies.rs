//! The proxies of a comparison: how each is configured, started, and found.
//!
//! All terminate the same certificate's TLS with one worker on one core. What each is given is what
//! makes it look best in this comparison, not what it ships with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use keyway_tests::ports::{self, Port};
use keyway_tests::{Certificates, http_get};
use rustix::process::{Resource, getrlimit};

use crate::process::{Cores, Process};

/// Clients a proxy takes at most, as far as the limit of open files allows.
const CLIENTS_MAX: u64 = 19_000;
/// Files that a proxy needs beside its connections.
const FILES_SPARE: u64 = 100;

/// How Envoy collects commands for a node before it writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flush {
    /// After so many microseconds, or 1024 bytes; 0 is at once, as it ships.
    pub(crate) micros: u32,
}

impl Flush {
    /// The best it does on a two-core machine: with the 3 ms of its documentation's example it
    /// answers 12,000 requests a second of 50 clients, with 200 us nine times as many, and for
    /// less CPU than at once.
    pub(crate) const BEST: Self = Self { micros: 200 };
}

/// What the proxies have in common.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) cores: &'a Cores,
    pub(crate) folder: &'a Path,
    pub(crate) certificates: &'a Certificates,
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Proxy {
    process: Process,
    port: Port,
    _admin: Option<Port>,
}

impl Proxy {
    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| path.display().to_string())?;
    Ok(path)
}

fn program(variable: &str) -> Result<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: start this by benches/compare"))
}

/// Keyway with one worker on the proxies' core, in front of the cluster that `seed` is of.
pub(crate) fn keyway(site: &Site<'_>, name: &str, seed: u16) -> Result<Proxy> {
    keyway_of(site, name, seed, (1, site.cores.proxy()), "")
}

/// The same with so many workers on these cores, and more lines of `[limits]`.
pub(crate) fn keyway_of(
    site: &Site<'_>,
    name: &str,
    seed: u16,
    (workers, cores): (u32, &str),
    limits: &str,
) -> Result<Proxy> {
    let (port, admin) = (ports::reserve(), ports::reserve());
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:{}\"\nworkers = {workers}\n\
         [listen.tls]\ncertificate = {:?}\nkey = {:?}\n\
         [cluster]\nseeds = [\"127.0.0.1:{seed}\"]\n\
         [limits]\nclients_max = {CLIENTS_MAX}\nauth_timeout_ms = 3600000\n{limits}\
         [admin]\naddress = \"127.0.0.1:{}\"\n",
        port.number(),
        site.certificates.cert,
        site.certificates.key,
        admin.number(),
    );
    let config = write(site.folder, &format!("{name}.toml"), &text)?;
    let arguments = [
        "serve".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ];
    let program = program("KEYWAY_BIN")?;
    let mut process = Process::start(name, cores, &program, &arguments, site.folder)?;
    let page = format!("127.0.0.1:{}", admin.number());
    process.wait("readiness", || {
        http_get(&page, "/readyz").is_ok_and(|(status, _)| status == 200)
    })?;
    Ok(Proxy {
        process,
        port,
        _admin: Some(admin),
    })
}

/// HAProxy that takes TLS off and forwards to `node`, whatever it is.
pub(crate) fn haproxy(site: &Site<'_>, name: &str, node: u16) -> Result<Proxy> {
    let port = ports::reserve();
    let both = [&site.certificates.cert, &site.certificates.key]
        .map(fs::read_to_string)
        .into_iter()
        .collect::<std::io::Result<String>>()
        .context("the certificate")?;
    let pem = write(site.folder, "haproxy.pem", &both)?;
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // Each client costs it two connections.
    let clients_max = (files.saturating_sub(FILES_SPARE) / 2).min(CLIENTS_MAX);
    let text = format!(
        "global\n  nbthread 1\n  maxconn {clients_max}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen valkey\n  bind 127.0.0.1:{} ssl crt {}\n  server one 127.0.0.1:{node}\n",
        port.number(),
        pem.display(),
    );
    let config = write(site.folder, &format!("{name}.cfg"), &text)?;
    let arguments = [
        "-db".to_owned(),
        "-f".to_owned(),
        config.display().to_string(),
    ];
    let program = program("KEYWAY_HAPROXY")?;
    let mut process = Process::start(name, site.cores.proxy(), &program, &arguments, site.folder)?;
    process.wait_listening(port.number())?;
    Ok(Proxy {
        process,
        port,
        _admin: None,
    })
}

/// Envoy's redis_proxy in front of the cluster that `nodes` are of.
pub(crate) fn envoy(site: &Site<'_>, name: &str, nodes: &[u16], flush: Flush) -> Result<Proxy> {
    let port = ports::reserve();
    let text = envoy_config(site.certificates, port.number(), nodes, flush);
    let config = write(site.folder, &format!("{name}.yaml"), &text)?;
    let arguments: Vec<String> = "--concurrency 1 --log-level warn --disable-hot-restart -c"
        .split(' ')
        .map(str::to_owned)
        .chain([config.display().to_string()])
        .collect();
    let program = program("KEYWAY_ENVOY")?;
    let mut process = Process::start(name, site.cores.proxy(), &program, &arguments, site.folder)?;
    process.wait_listening(port.number())?;
    Ok(Proxy {
        process,
        port,
        _admin: None,
    })
}

fn envoy_config(certificates: &Certificates, port: u16, nodes: &[u16], flush: Flush) -> String {
    let endpoint = |node: &u16| {
        format!(
            "        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: \
             {node}}}}}}}\n"
        )
    };
    let endpoints: String = nodes.iter().map(endpoint).collect();
    let flush = match flush.micros {
        0 => String::new(),
        micros => format!(
            "            max_buffer_size_before_flush: 1024\n            buffer_flush_timeout: \
             {}s\n",
            f64::from(micros) / 1e6
        ),
    };
    ENVOY
        .replace("@PORT@", &port.to_string())
        .replace("@CERT@", &certificates.cert.display().to_string())
        .replace("@KEY@", &certificates.key.display().to_string())
        .replace("@FLUSH@", &flush)
        .replace("@ENDPOINTS@", &endpoints)
}

const ENVOY: &str = r#"static_resources:
  listeners:
  - name: valkey
    address: {socket_address: {address: 127.0.0.1, port_value: @PORT@}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - {certificate_chain: {filename: "@CERT@"}, private_key: {filename: "@KEY@"}}
      filters:
      - name: envoy.filters.network.redis_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy
          stat_prefix: valkey
          settings:
            op_timeout: 10s
            enable_redirection: true
@FLUSH@          prefix_routes: {catch_all_route: {cluster: valkey}}
  clusters:
  - name: valkey
    connect_timeout: 2s
    lb_policy: CLUSTER_PROVIDED
    circuit_breakers:
      thresholds: [{max_connections: 100000, max_pending_requests: 1000000, max_requests: 1000000}]
    cluster_type:
      name: envoy.clusters.redis
      typed_config:
        "@type": type.googleapis.com/google.protobuf.Struct
        value: {cluster_refresh_rate: 5s, cluster_refresh_timeout: 1s}
    load_assignment:
      cluster_name: valkey
      endpoints:
      - lb_endpoints:
@ENDPOINTS@"#;
