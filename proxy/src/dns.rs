//! From host names to addresses, by hickory-resolver: the system's servers and search list, and
//! the last good answer while they do not answer.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};

/// An answer in the making.
pub type Resolving<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, DnsError>> + Send + 'a>>;

/// Names whose last answer is kept.
const STALE_NAMES_MAX: usize = 1024;
/// One question's time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot resolve {host}: {reason}")]
pub struct DnsError {
    /// The name.
    pub host: String,
    /// Why.
    pub reason: String,
}

/// Finds addresses.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of `host`, each with `port`. An address is its own answer.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a>;
}

/// The system's resolver configuration, asked by hickory.
pub struct SystemResolver {
    resolver: Option<TokioResolver>,
    /// Why there is none.
    trouble: String,
    last: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemResolver").finish_non_exhaustive()
    }
}

impl SystemResolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. A machine without a name server still resolves
    /// addresses; only names fail, and say why.
    #[must_use]
    pub fn new() -> Self {
        Self::built(TokioResolver::builder_tokio())
    }

    /// Asks these name servers in place of the system's, and still reads `/etc/hosts`; without
    /// any, as [`Self::new`].
    #[must_use]
    pub fn asking(servers: &[SocketAddr]) -> Self {
        if servers.is_empty() {
            return Self::new();
        }
        let server = |server: &SocketAddr| {
            let both = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let both = both.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, both.into())
        };
        let servers = servers.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let provider = TokioRuntimeProvider::default();
        Self::built(Ok(TokioResolver::builder_with_config(config, provider)))
    }

    fn built(builder: Result<ResolverBuilder<TokioRuntimeProvider>, NetError>) -> Self {
        let built = builder.and_then(|mut builder| {
            builder.options_mut().timeout = TIMEOUT;
            builder.options_mut().attempts = 2;
            builder.build()
        });
        let (resolver, trouble) = match built {
            Ok(resolver) => (Some(resolver), String::new()),
            Err(error) => (None, error.to_string()),
        };
        Self {
            resolver,
            trouble,
            last: Mutex::new(HashMap::new()),
        }
    }

    async fn ask(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let failed = |reason: String| DnsError {
            host: host.to_owned(),
            reason,
        };
        let Some(resolver) = &self.resolver else {
            return Err(failed(self.trouble.clone()));
        };
        match resolver.lookup_ip(host).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().collect();
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.len() < STALE_NAMES_MAX || last.contains_key(host) {
                    last.insert(host.to_owned(), addresses.clone());
                }
                Ok(addresses)
            }
            Err(error) => {
                let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                last.get(host)
                    .cloned()
                    .ok_or_else(|| failed(error.to_string()))
            }
        }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            if let Ok(address) = host.parse::<IpAddr>() {
                return Ok(vec![SocketAddr::new(address, port)]);
            }
            let addresses = self.ask(host).await?;
            Ok(addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, port))
                .collect())
        })
    }
}
