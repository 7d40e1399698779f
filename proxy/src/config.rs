//! Configuration in two stages: what was typed (`typed`: TOML through serde, unknown keys refused,
//! places kept) and what it means (this module's types: parsed, ranged, with every default filled in).
//!
//! [`Config::load`] reports every mistake of both stages at once, each on a line of its own with file
//! and line. Nothing here opens a socket or reads a certificate; the only files it reads are the
//! configuration itself and a password file. It will never contain what a setting *does*.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod autoscale;
mod change;
mod check;
mod fields;
mod host_port;
mod live;
mod problem;
mod reads;
mod reference;
mod secret;
mod summary;
mod tenant;
mod traces;
mod typed;

#[cfg(test)]
mod tests;

pub use autoscale::Autoscale;
pub use change::Changes;
pub use host_port::{HostPort, HostPortError};
pub use live::{Live, Lives};
pub use problem::{Origin, Problem, Problems};
pub use reads::{Reads, ZoneOf};
pub use reference::commented;
pub use secret::Secret;
pub use tenant::{ClusterId, Tenant};
pub use traces::{Endpoint, Header, Traces};

/// Name of a configuration given by no file (the demo's), used in messages.
const BUILT_IN: &str = "(built in)";
/// A configuration larger than this is refused: it is surely another file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything Keyway was told, checked and with every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// What makes it one of several; `None` with `[cluster]`, and for the process.
    pub tenant: Option<Tenant>,
    /// `[[cluster]]`, each with everything that holds for it; none with `[cluster]`.
    pub clusters: Vec<Arc<Config>>,
    /// How many of those there have been since the start.
    pub clusters_ever: usize,
    /// `[listen]`: the clients' side.
    pub listen: Listen,
    /// `[cluster]`: the nodes' side.
    pub cluster: Cluster,
    /// `[reads]`: where reads may go.
    pub reads: Reads,
    /// `[hot_keys]`: what is done about keys that many ask for.
    pub hot_keys: HotKeys,
    /// `[users.NAME]`: users that Keyway knows itself.
    pub users: Vec<MappedUser>,
    /// `[admin_commands]`: refused commands that are allowed, by name.
    pub admin_commands: Vec<Box<str>>,
    /// `[limits]`: the bounds everything stays inside.
    pub limits: Limits,
    /// `[reload]`: when files are read again.
    pub reload: Reload,
    /// `[drain]`: how the process ends.
    pub drain: Drain,
    /// `[admin]`: metrics and probes.
    pub admin: Admin,
    /// `[log]`: what is said and how.
    pub log: Log,
    /// `[traces]`: where some commands are told of.
    pub traces: Traces,
    /// `[autoscale]`: when nodes come and go.
    pub autoscale: Autoscale,
    /// Where each value was written, for messages of later stages (a certificate that does not load).
    pub origin: Origin,
}

/// `[listen]`: the endpoint that clients connect to. It speaks TLS and nothing else.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address to bind; port 0 lets the system choose.
    pub address: SocketAddr,
    /// What CLUSTER SLOTS and its like tell clients; `None` is the address the client used.
    pub advertise: Option<HostPort>,
    /// Number of worker threads, at least 1.
    pub workers: usize,
    /// Whether other processes may bind the same addresses: the next Keyway, before this one ends.
    pub reuse_port: bool,
    /// `[listen.tls]`.
    pub tls: ListenTls,
}

/// `[listen.tls]`: the certificate shown to clients, and who they must be.
#[derive(Debug, Clone)]
pub struct ListenTls {
    /// PEM file with the certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the leaf's private key.
    pub key: PathBuf,
    /// Further certificates, for clients that ask for one of their names (SNI).
    pub certificates: Vec<NamedCertificate>,
    /// Whether clients show certificates.
    pub clients: ClientAuth,
    /// PEM file with the authorities' lists of what they have revoked.
    pub client_crl: Option<PathBuf>,
    /// The oldest protocol version offered.
    pub min_version: TlsVersion,
}

/// `[[listen.tls.certificates]]`: a certificate for those who ask for its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCertificate {
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the leaf's private key.
    pub key: PathBuf,
}

/// Whether, and against which authorities, client certificates are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    None,
    /// A certificate is checked when the client shows one.
    Optional(PathBuf),
    /// A client without a valid certificate is turned away.
    Required(PathBuf),
}

/// A TLS protocol version that can be the oldest one offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    V1_2,
    /// TLS 1.3 only.
    V1_3,
}

/// `[cluster]`: the Valkey cluster behind.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Nodes to ask for the topology first; at least one.
    pub seeds: Vec<HostPort>,
    /// Who is asked for the addresses of names; empty is whom the system asks.
    pub name_servers: Vec<SocketAddr>,
    /// The service user; `None` when the cluster needs no password.
    pub credentials: Option<Credentials>,
    /// As whom a client runs that has not sent AUTH.
    pub unauthenticated: Unauthenticated,
    /// What becomes of MGET and its like with keys in several slots.
    pub cross_slot: CrossSlot,
    /// `[cluster.tls]`; `None` is plain TCP to the nodes.
    pub tls: Option<ClusterTls>,
}

/// The user that Keyway itself authenticates as.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// ACL user name; `default` when none was given.
    pub username: Box<str>,
    /// Its password.
    pub password: Secret,
    /// Where the password came from, for the summary: `file /run/x` or `environment variable X`.
    pub source: Box<str>,
}

/// `[hot_keys]`: what is done about keys that many ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKeys {
    /// Reads that ask the same at the same moment are asked once.
    pub coalesce: bool,
    /// Values of keys that begin like one of these are kept in Keyway; none begins like another.
    pub near_prefixes: Vec<Box<str>>,
    /// So are values of keys with so many operations in a second, as one worker sees them; 0: none.
    pub near_ops_min: usize,
    /// Bytes of them, of all workers.
    pub near_bytes_max: usize,
}

impl Default for HotKeys {
    fn default() -> Self {
        Self {
            coalesce: false,
            near_prefixes: Vec::new(),
            near_ops_min: 0,
            near_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// `[users.NAME]`: a user that Keyway knows itself.
#[derive(Debug, Clone)]
pub struct MappedUser {
    /// What the client calls itself in `AUTH`.
    pub name: Box<str>,
    /// What it must say there; `None` is a user that only a certificate names.
    pub password: Option<Secret>,
    /// A name in the client's certificate that makes it this user at once.
    pub certificate: Option<Box<str>>,
    /// As whom its commands run on the cluster.
    pub runs_as: Credentials,
}

/// As whom commands of a client run before it authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unauthenticated {
    /// As Valkey's default user, with NOAUTH when that one has a password.
    Default,
    /// As the service user of [`Credentials`]: who reaches the port has its rights.
    Service,
}

/// What becomes of MGET, MSET, DEL, UNLINK, EXISTS and TOUCH with keys in several slots, and of
/// transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossSlot {
    /// Split per slot and merged; not atomic.
    Split,
    /// The same, and transactions too.
    SplitTransactions,
    /// Refused with CROSSSLOT, as a node does.
    Refuse,
}

/// `[cluster.tls]`: how nodes are verified, and what Keyway shows them.
#[derive(Debug, Clone)]
pub struct ClusterTls {
    /// PEM file with the authorities that nodes' certificates are checked against.
    pub ca: PathBuf,
    /// Name to find in every node's certificate, instead of the node's own host.
    pub server_name: Option<Box<str>>,
    /// Certificate chain and key shown to nodes.
    pub identity: Option<ClientIdentity>,
}

/// A client certificate for mutual TLS with the nodes.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// `[limits]`: named bounds with safe defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at a time; more are closed at once.
    pub clients_max: usize,
    /// A TLS handshake that takes longer is closed, up to a fifth later by chance: who came together does not leave together.
    pub handshake_timeout: Duration,
    /// TLS handshakes in progress at a time.
    pub handshakes_max: usize,
    /// A client that sends no complete command for so long after its handshake is closed.
    pub auth_timeout: Duration,
    /// A client that leaves a command half sent for so long is closed.
    pub request_timeout: Duration,
    /// From a command's arrival to its reply; then the client gets an error.
    pub deadline: Duration,
    /// A node connection whose oldest command waits longer for its reply is given up.
    pub reply_timeout: Duration,
    /// Replies waiting for one client, in bytes; a client that lets more pile up is closed.
    pub client_output_bytes_max: usize,
    /// Commands of one client without a reply at a time; beyond it, reading from that client pauses.
    pub in_flight_max: usize,
    /// Node connections lent to single clients at a time, for commands that block and for `WATCH`;
    /// beyond it, those commands wait.
    pub leases_max: usize,
    /// Size of one command in bytes.
    pub request_bytes_max: usize,
    /// Client connections from one address; `None` is any number.
    pub clients_per_address_max: Option<usize>,
    /// Client connections of one user; `None` is any number.
    pub clients_per_user_max: Option<usize>,
    /// Commands in a second of all clients of one user; `None` is any number.
    pub user_commands_per_second_max: Option<usize>,
    /// Bytes in a second from and to all clients of one user; `None` is any number.
    pub user_bytes_per_second_max: Option<usize>,
    /// Commands in a second of all clients of a cluster; `None` is any number.
    pub commands_per_second_max: Option<usize>,
    /// Bytes in a second from and to all clients of a cluster; `None` is any number.
    pub bytes_per_second_max: Option<usize>,
    /// A client that sends no command for so long is closed; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// A client connection older than this is closed between two replies; `None` is never.
    pub max_connection_age: Option<Duration>,
    /// What may wait for all clients together, in bytes; `None` is as the machine allows.
    pub memory_bytes_max: Option<usize>,
}

/// `[reload]`: when certificates and keys are read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// Whenever something changes in a folder that holds one.
    pub watch: bool,
    /// And at least so often.
    pub every: Duration,
}

/// `[drain]`: what happens between SIGTERM and the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Beside whom this runs.
    pub mode: DrainMode,
    /// New connections are taken for so long after the signal, until everyone knows.
    pub lame_duck: Duration,
    /// From the signal until whoever sent it ends the process by force.
    pub grace: Duration,
}

/// Beside whom Keyway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainMode {
    /// Behind a load balancer, with others like it: clients go to those.
    Deployment,
    /// Beside one application, which has nobody else: it is served until it is gone.
    Sidecar,
}

/// `[admin]`: where metrics and probes are served, in plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address to bind; loopback by default.
    pub address: SocketAddr,
    /// Whether `/heat` names keys.
    pub show_keys: bool,
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least important level written.
    pub level: tracing::Level,
    /// How lines look.
    pub format: LogFormat,
    /// Commands that take longer are in the slow log.
    pub slow: Duration,
    /// One in so many commands is in the access log; 0 is none.
    pub access_one_in: u32,
    /// The file of the access log; `None` is standard output.
    pub access_file: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Human`] when standard error is a terminal, else [`LogFormat::Json`].
    Auto,
    /// One readable line per event.
    Human,
    /// One JSON object per line.
    Json,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            handshake_timeout: Duration::from_secs(5),
            handshakes_max: 4096,
            auth_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(15),
            reply_timeout: Duration::from_secs(5),
            client_output_bytes_max: 32 * 1024 * 1024,
            in_flight_max: 1024,
            leases_max: 1024,
            request_bytes_max: 1024 * 1024 * 1024,
            clients_per_address_max: None,
            clients_per_user_max: None,
            user_commands_per_second_max: None,
            user_bytes_per_second_max: None,
            commands_per_second_max: None,
            bytes_per_second_max: None,
            idle_timeout: None,
            max_connection_age: None,
            memory_bytes_max: None,
        }
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            watch: true,
            every: Duration::from_secs(30),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            mode: DrainMode::Deployment,
            lame_duck: Duration::from_secs(5),
            grace: Duration::from_secs(25),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 9121)),
            show_keys: false,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: tracing::Level::INFO,
            format: LogFormat::Auto,
            slow: Duration::from_millis(100),
            access_one_in: 0,
            access_file: None,
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`; paths in it are relative to its folder.
    ///
    /// # Errors
    /// Every mistake found, in the order of the file; never an empty list.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let unreadable = |reason: String| Problems::one(Problem::new(&name, None, "", reason));
        let bytes = std::fs::metadata(path)
            .map_err(|e| {
                unreadable(format!(
                    "cannot read: {e}; give an existing file by --config"
                ))
            })?
            .len();
        if bytes > FILE_BYTES_MAX {
            let reason = format!("{bytes} bytes is too large for a configuration");
            return Err(unreadable(reason));
        }
        let text = std::fs::read_to_string(path).map_err(|e| {
            unreadable(format!(
                "cannot read: {e}; --config wants a TOML file in UTF-8"
            ))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &name, folder, &|name| std::env::var_os(name))
    }

    /// Checks `text`; `file` is its name in messages, `folder` what relative paths start from, and
    /// `environment` looks up a variable.
    ///
    /// # Errors
    /// Every mistake found, in the order of the file; never an empty list.
    pub fn parse(
        text: &str,
        file: &str,
        folder: &Path,
        environment: &dyn Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, Problems> {
        let (typed, origin, problems) = typed::read(text, file)?;
        check::check(typed, &origin, problems, folder, environment)
    }

    /// `[[cluster]]`, each with which it is.
    pub fn of_each(&self) -> impl Iterator<Item = (ClusterId, &Arc<Self>)> {
        let own = self.clusters.iter();
        own.filter_map(|own| Some((own.tenant.as_ref()?.id, own)))
    }

    /// A configuration for `listen` and `seeds` with every other setting at its default.
    #[must_use]
    pub fn with_defaults(listen: Listen, seeds: Vec<HostPort>) -> Self {
        Self {
            tenant: None,
            clusters: Vec::new(),
            clusters_ever: 0,
            listen,
            cluster: Cluster {
                seeds,
                name_servers: Vec::new(),
                credentials: None,
                unauthenticated: Unauthenticated::Default,
                cross_slot: CrossSlot::Split,
                tls: None,
            },
            reads: Reads::default(),
            hot_keys: HotKeys::default(),
            users: Vec::new(),
            admin_commands: Vec::new(),
            limits: Limits::default(),
            reload: Reload::default(),
            drain: Drain::default(),
            admin: Admin::default(),
            log: Log::default(),
            traces: Traces::default(),
            autoscale: Autoscale::default(),
            origin: Origin::new(BUILT_IN),
        }
    }
}
