//! Where an answer comes from: the admin port of a running Keyway, or, when there is none, the
//! cluster that a configuration names.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use topology::NodeAddr;

use super::Failure;
use crate::{
    config::{Config, Live},
    contract::{DiscoveryContext, Readiness, Shutdown},
    discovery::{Look, look_at},
    metrics::Metrics,
    net::Reach,
    report,
    status::bare_topology,
    tls::UpstreamTls,
};

/// A page of the admin port is there within this.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page is no longer.
const PAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// One node's time to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// The admin port of a configuration that names none.
const ADMIN: &str = "127.0.0.1:9121";

/// Which Keyway or cluster is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Source {
    /// Configuration of the Keyway to ask; when it does not run, the cluster is asked.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Admin port of the Keyway to ask; <http://127.0.0.1:9121> without.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub(crate) admin: Option<String>,
    /// Which of several clusters; the first without.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

/// The admin port that is asked, and about which cluster.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// `host:port`.
    address: String,
    cluster: Option<String>,
}

impl Admin {
    /// Asks about the first cluster.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address: reachable(address).to_string(),
            cluster: None,
        }
    }

    /// Asks about this cluster, or the first.
    pub(crate) fn of(address: SocketAddr, cluster: Option<&str>) -> Self {
        Self {
            cluster: cluster.map(str::to_owned),
            ..Self::at(address)
        }
    }

    fn path(&self, page: &str) -> String {
        let mark = if page.contains('?') { '&' } else { '?' };
        match &self.cluster {
            Some(name) => format!("{page}{mark}cluster={name}"),
            None => page.to_owned(),
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The configuration of the cluster that is to be changed: with several, it has to be named.
pub(crate) fn to_be_changed(path: &Path, name: Option<&str>) -> Result<Config, Failure> {
    let config = load(path)?;
    if name.is_none() && config.clusters.len() > 1 {
        let names = names_of(&config);
        let text = format!("the configuration has {names}: say --cluster NAME");
        return Err(Failure::Mistake(text));
    }
    of_cluster(&config, name)
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::Mistake(lines.join("\n"))
    })
}

fn names_of(config: &Config) -> String {
    let all = config.clusters.iter().filter_map(|own| own.tenant.as_ref());
    let names: Vec<&str> = all.map(|tenant| &*tenant.name).collect();
    names.join(", ")
}

/// The configuration of a cluster: that of this name, or the first.
pub(crate) fn of_cluster(config: &Config, name: Option<&str>) -> Result<Config, Failure> {
    let named = |own: &&Arc<Config>| {
        let tenant = own.tenant.as_ref();
        name.is_none_or(|name| tenant.is_some_and(|tenant| &*tenant.name == name))
    };
    match (config.clusters.iter().find(named), name) {
        (Some(own), _) => Ok((**own).clone()),
        (None, None) => Ok(config.clone()),
        (None, Some(name)) => {
            let names = names_of(config);
            let known = match names.is_empty() {
                true => "the configuration has one [cluster], without a name".to_owned(),
                false => format!("the configuration has {names}"),
            };
            Err(Failure::Mistake(format!("--cluster {name}: {known}")))
        }
    }
}

/// A topology, and who told it.
pub(crate) struct Told {
    pub(crate) topology: report::Topology,
    /// A Keyway that runs, or the cluster itself.
    pub(crate) by: String,
    /// The configuration, if one was named.
    pub(crate) config: Option<Config>,
}

impl Source {
    /// The configuration that is named.
    pub(crate) fn config(&self) -> Result<Option<Config>, Failure> {
        self.config.as_deref().map(load).transpose()
    }

    /// The admin port that is meant.
    pub(crate) fn admin(&self, config: Option<&Config>) -> Result<Admin, Failure> {
        let plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(name) = self.cluster.as_ref().filter(|name| !plain(name)) {
            let text = format!("--cluster {name:?}: no cluster has such a name");
            return Err(Failure::Mistake(text));
        }
        let address = match (&self.admin, config) {
            (Some(url), _) => host_of(url).map_err(Failure::Mistake)?,
            (None, Some(config)) => reachable(config.admin.address).to_string(),
            (None, None) => ADMIN.to_owned(),
        };
        Ok(Admin {
            address,
            cluster: self.cluster.clone(),
        })
    }

    /// The topology as a running Keyway has it, or else as the cluster says.
    pub(crate) async fn topology(&self) -> Result<Told, Failure> {
        let config = self.config()?;
        let admin = self.admin(config.as_ref())?;
        let trouble = match page::<report::Topology>(&admin, "/topology").await {
            Ok(topology) if topology.shards.is_empty() => {
                format!("the Keyway at {admin} has not found its cluster yet")
            }
            Ok(topology) => {
                return Ok(Told {
                    topology,
                    by: format!("the Keyway at {admin}"),
                    config,
                });
            }
            Err(trouble) => trouble,
        };
        let Some(config) = config else {
            let advice = "name its admin port by --admin, or its configuration by --config";
            return Err(Failure::Failed(format!("{trouble}; {advice}")));
        };
        let own = of_cluster(&config, self.cluster.as_deref())?;
        let (topology, by) = from_cluster(&own).await.map_err(|text| {
            Failure::Failed(format!("{trouble}; and no node of the cluster: {text}"))
        })?;
        Ok(Told {
            topology,
            by,
            config: Some(config),
        })
    }
}

/// A page of JSON.
pub(crate) async fn page<T: DeserializeOwned>(admin: &Admin, page: &str) -> Result<T, String> {
    let path = admin.path(page);
    let admin = &admin.address;
    let body = timeout(PAGE_TIMEOUT, fetch(admin, &path)).await;
    let body = body.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    let body = body.map_err(|text| format!("no Keyway answers at http://{admin}{path}: {text}"))?;
    serde_json::from_slice(&body)
        .map_err(|error| format!("what answers at http://{admin}{path} is no Keyway: {error}"))
}

/// The body of a page, of status 200.
async fn fetch(admin: &str, path: &str) -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(admin).await.map_err(said)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(said)?;
    let mut answer = Vec::new();
    let mut stream = stream.take(PAGE_BYTES_MAX);
    stream.read_to_end(&mut answer).await.map_err(said)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or("the answer is not HTTP")?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default());
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(answer.split_off(end + 4)),
        Some("404") => {
            let why = answer.split_off(end + 4);
            Err(String::from_utf8_lossy(&why).trim().to_owned())
        }
        _ => Err(format!("it says {status:?}")),
    }
}

/// `host:port` of a URL, or of what is one already.
fn host_of(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let host = rest.trim_end_matches('/');
    if rest.starts_with("https://") {
        return Err(format!(
            "--admin {url}: the admin port speaks plain HTTP; write http://"
        ));
    }
    let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) if !host.contains('/') => Ok(host.to_owned()),
        _ => Err(format!(
            "--admin {url}: write http://HOST:PORT, for example http://{ADMIN}"
        )),
    }
}

/// Where to connect to what is bound to an address.
pub(crate) fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// Everything that asking a node needs.
pub(crate) fn context(config: &Config) -> Result<DiscoveryContext, String> {
    let tls = UpstreamTls::load(config);
    Ok(DiscoveryContext {
        config: Live::new(Arc::new(config.clone())),
        upstream_tls: tls.map_err(|problem| problem.to_string())?,
        reach: Reach::system(&config.cluster.name_servers),
        metrics: Metrics::new([]).control(),
        readiness: Readiness::default(),
        shutdown: Shutdown::new().1,
    })
}

/// What a node says, in time.
pub(crate) async fn look(context: &DiscoveryContext, addr: &NodeAddr) -> Result<Look, String> {
    match timeout(NODE_TIMEOUT, look_at(context, addr, false)).await {
        Ok(looked) => looked.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", NODE_TIMEOUT.as_secs())),
    }
}

/// The topology as the first seed that answers has it.
async fn from_cluster(config: &Config) -> Result<(report::Topology, String), String> {
    let context = context(config)?;
    let mut troubles = Vec::new();
    for seed in &config.cluster.seeds {
        let Some(addr) = NodeAddr::new(&seed.host, seed.port) else {
            continue;
        };
        match look(&context, &addr).await {
            Ok(look) => match topology::accept(None, look.candidate.confirmed()) {
                Ok(Some(found)) => {
                    let topology = bare_topology(&found, config);
                    return Ok((topology, format!("the node {addr}")));
                }
                Ok(None) => {}
                Err(refusal) => troubles.push(format!("{addr}: {refusal}")),
            },
            Err(error) => troubles.push(format!("{addr}: {error}")),
        }
    }
    Err(troubles.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_a_port() {
        for url in [
            "http://10.0.0.1:9121",
            "10.0.0.1:9121",
            "http://10.0.0.1:9121/",
        ] {
            assert_eq!(host_of(url).as_deref(), Ok("10.0.0.1:9121"));
        }
        assert_eq!(host_of("[::1]:9").as_deref(), Ok("[::1]:9"));
        for url in [
            "10.0.0.1",
            "https://a:1",
            "http://a:1/status",
            "http://",
            "a:b",
        ] {
            assert!(host_of(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_bound_to_all_addresses_is_reached_at_home() {
        let of = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(of("[::]:1"), "[::1]:1");
        assert_eq!(of("10.0.0.1:1"), "10.0.0.1:1");
    }
}
