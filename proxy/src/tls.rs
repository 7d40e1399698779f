//! Certificates and keys, from files to rustls: for clients ([`ServerTls`]) and for nodes
//! ([`UpstreamTls`]), and how they are replaced while both are in use ([`Loaded::prepare`]).
//!
//! Every mistake is one line that names the file and what to do. The cryptography is aws-lc-rs. When
//! files are read again is decided elsewhere.

use std::{
    path::Path,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapAny;
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime},
    server::danger::ClientCertVerifier,
};
use tokio::sync::watch;

use crate::{
    config::{Config, Problem, Problems},
    metrics::TlsFile,
};

mod files;
mod names;
mod sources;

use sources::{Ends, Mark, Server, Sources, Upstream};

type Swap<T> = ArcSwapAny<Arc<T>, RwLock<()>>;

/// TLS as clients see it. A reload replaces what new connections use.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Downstream>);

#[derive(Debug)]
struct Downstream {
    current: Swap<Current>,
    /// [`Current::trust`] of the current one, for those who only want to know whether it changed.
    trust: AtomicU64,
    renewed: watch::Sender<()>,
}

/// What a connection that begins now uses.
#[derive(Debug)]
pub struct Current {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Grows with every change of who is let in.
    pub trust: u64,
}

impl Current {
    /// Whether a client with this chain is let in, or one without.
    ///
    /// # Errors
    /// It is not, for this reason.
    pub fn admits(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.verifier else {
            return Ok(());
        };
        match chain.and_then(<[_]>::split_first) {
            Some((leaf, rest)) => verifier
                .verify_client_cert(leaf, rest, UnixTime::now())
                .map(drop),
            None if verifier.client_auth_mandatory() => Err(rustls::Error::NoCertificatesPresented),
            None => Ok(()),
        }
    }
}

impl ServerTls {
    fn new(server: Server) -> Self {
        let Server { config, verifier } = server;
        let first = Current {
            config: Arc::new(config),
            verifier,
            trust: 0,
        };
        Self(Arc::new(Downstream {
            current: Swap::new(Arc::new(first)),
            trust: AtomicU64::new(0),
            renewed: watch::Sender::new(()),
        }))
    }

    /// What the next connection uses.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.0.current.load_full()
    }

    /// [`Current::trust`] of [`ServerTls::current`].
    #[must_use]
    pub fn trust(&self) -> u64 {
        self.0.trust.load(Relaxed)
    }

    /// Says when [`ServerTls::trust`] is another.
    #[must_use]
    pub fn trust_changes(&self) -> watch::Receiver<()> {
        self.0.renewed.subscribe()
    }

    /// With `distrust`, no session of before can be resumed: rustls does not look at a client's
    /// certificate again when it resumes.
    fn replace(&self, server: Server, distrust: bool) {
        let before = self.current();
        let Server {
            mut config,
            verifier,
        } = server;
        if !distrust {
            config.ticketer = Arc::clone(&before.config.ticketer);
            config.session_storage = Arc::clone(&before.config.session_storage);
        }
        let trust = before.trust + u64::from(distrust);
        self.0.current.store(Arc::new(Current {
            config: Arc::new(config),
            verifier,
            trust,
        }));
        if distrust {
            self.0.trust.store(trust, Relaxed);
            self.0.renewed.send_replace(());
        }
    }
}

/// TLS as nodes see it. A reload replaces what new connections use.
#[derive(Clone, Debug)]
pub struct UpstreamTls(Arc<Swap<Upstream>>);

impl UpstreamTls {
    /// Loads what `[cluster.tls]` names; `None` without that section.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(config: &Config) -> Result<Option<Self>, Problem> {
        let upstream = Sources::of_nodes(config)?.upstream(&mut Ends::new())?;
        Ok(upstream.map(|upstream| Self(Arc::new(Swap::new(Arc::new(upstream))))))
    }

    /// For the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.load().config)
    }

    /// The name to find in the certificate of the node at `host`.
    ///
    /// # Errors
    /// The host is neither a name nor an address.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
        match &self.0.load().name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()),
        }
    }
}

/// TLS on both sides, in force.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For clients.
    pub downstream: ServerTls,
    /// For nodes; `None` is plain TCP.
    pub upstream: Option<UpstreamTls>,
    marks: Vec<(TlsFile, Mark)>,
    ends: Ends,
}

/// TLS in force of the process and of each cluster; with `[cluster]`, both are the same.
#[derive(Clone, Debug)]
pub struct AllLoaded {
    /// For clients that have not named a cluster.
    pub process: Loaded,
    /// Of each cluster; one at least.
    pub clusters: Vec<Loaded>,
}

impl AllLoaded {
    /// Loads every certificate and key that the configuration names.
    ///
    /// # Errors
    /// All that cannot be used.
    pub fn load(config: &Config) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut load = |config: &Config| {
            let loaded = Loaded::load(config);
            loaded
                .map_err(|first| problems.extend(all_faults(config, first)))
                .ok()
        };
        let process = load(config);
        let own = config.clusters.iter().map(|own| load(own));
        let mut clusters: Vec<Loaded> = own.flatten().collect();
        match process {
            Some(process) if problems.is_empty() => {
                if clusters.is_empty() {
                    clusters.push(process.clone());
                }
                Ok(Self { process, clusters })
            }
            _ => Err(Problems::of(problems)),
        }
    }
}

/// What is wrong with the files of a configuration; `first` stands in for what only shows when they
/// are taken together.
fn all_faults(config: &Config, first: Problem) -> Vec<Problem> {
    let found = sources::faults(config);
    if found.is_empty() { vec![first] } else { found }
}

/// Files that have changed, read and found good; not in force yet.
#[derive(Debug)]
pub struct Prepared {
    server: Server,
    upstream: Option<Upstream>,
    marks: Vec<(TlsFile, Mark)>,
    ends: Ends,
    /// The kinds that differ from those in force.
    pub changed: Vec<TlsFile>,
}

impl Loaded {
    /// Loads every certificate and key that the configuration names.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(config: &Config) -> Result<Self, Problem> {
        Self::load_at(None, config)
    }

    /// The same while clients are served: what has expired must not come into use.
    ///
    /// # Errors
    /// The first that cannot be used, or holds no more, or not yet.
    pub fn load_now(config: &Config) -> Result<Self, Problem> {
        Self::load_at(Some(now()), config)
    }

    fn load_at(now: Option<i64>, config: &Config) -> Result<Self, Problem> {
        let sources = Sources::read(config)?;
        let mut ends = Ends::new();
        Ok(Self {
            downstream: ServerTls::new(sources.server(now, &mut ends)?),
            upstream: sources
                .upstream(&mut ends)?
                .map(|upstream| UpstreamTls(Arc::new(Swap::new(Arc::new(upstream))))),
            marks: sources.marks(),
            ends,
        })
    }

    /// Until when the files of each kind hold, in seconds since 1970.
    pub fn ends(&self) -> impl Iterator<Item = (TlsFile, i64)> {
        self.ends.iter().copied()
    }

    /// Reads all files again; `None` when none has changed.
    ///
    /// # Errors
    /// The first that cannot be used, or holds no more, or not yet.
    pub fn prepare(&self, config: &Config) -> Result<Option<Prepared>, Problem> {
        let sources = Sources::read(config)?;
        let marks = sources.marks();
        let differing = marks.iter().filter(|mark| !self.marks.contains(mark));
        let changed: Vec<TlsFile> = differing.map(|(file, _)| *file).collect();
        if changed.is_empty() {
            return Ok(None);
        }
        // A certificate in use may expire; one that has must not come into use.
        let now = changed.contains(&TlsFile::Server).then(now);
        let mut ends = Ends::new();
        Ok(Some(Prepared {
            server: sources.server(now, &mut ends)?,
            upstream: sources.upstream(&mut ends)?,
            marks,
            ends,
            changed,
        }))
    }

    /// Puts what was prepared in force. Returns whether that changed who is let in.
    pub fn apply(&mut self, prepared: Prepared) -> bool {
        let changed = |files: &[TlsFile]| files.iter().any(|file| prepared.changed.contains(file));
        let distrust = changed(&[TlsFile::ClientCa, TlsFile::ClientCrl]);
        let of_nodes = changed(&[TlsFile::UpstreamCa, TlsFile::UpstreamClient]);
        if distrust || changed(&[TlsFile::Server]) {
            self.downstream.replace(prepared.server, distrust);
        }
        if let (Some(current), Some(next), true) = (&self.upstream, prepared.upstream, of_nodes) {
            current.0.store(Arc::new(next));
        }
        self.marks = prepared.marks;
        self.ends = prepared.ends;
        distrust
    }
}

/// The chain in a file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    files::Pem::read(path)?.certificates()
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// TLS to a server that these authorities vouch for, and a hash of their file.
///
/// # Errors
/// The file cannot be used: one line that names it.
pub(crate) fn trusting(ca: &Path) -> Result<(ClientConfig, [u8; 32]), String> {
    sources::trusting(ca)
}
