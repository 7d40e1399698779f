//! From what was typed to what it means: defaults, ranges, choices, secrets. Collects mistakes and
//! goes on, so that one run shows them all.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::problem::{Origin, Problem, Problems};
use super::typed;
use super::{
    Admin, ClientAuth, ClientIdentity, Cluster, ClusterTls, Config, Credentials, CrossSlot, Drain,
    DrainMode, HostPort, Listen, ListenTls, Log, LogFormat, NamedCertificate, Reload, TlsVersion,
    Unauthenticated,
};

mod autoscale;
mod clusters;
mod hot_keys;
mod limits;
mod reads;
mod traces;
mod users;
mod values;

use values::Checker;

/// Workers at most: far beyond any machine, so that a slip is not a thousand threads.
const WORKERS_MAX: i64 = 512;
/// Seeds at most; more would only slow the start down.
const SEEDS_MAX: usize = 256;
/// Name servers; more would only be asked when all before them are silent.
const NAME_SERVERS_MAX: usize = 8;
/// Certificates beside the usual one at most.
const CERTIFICATES_MAX: usize = 1000;
/// The user of a cluster that only has `requirepass`.
const DEFAULT_USER: &str = "default";

/// Checks `typed`; `problems` are those already found in the first stage.
pub(super) fn check(
    typed: typed::File,
    origin: &Origin,
    problems: Vec<Problem>,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Config, Problems> {
    let mut checker = Checker {
        origin,
        problems,
        folder,
        environment,
    };
    let config = match &typed.cluster {
        typed::Clusters::One(cluster) => {
            let several = cluster.several();
            several.iter().for_each(|key| {
                let message =
                    "is for one of several clusters: write [[cluster]] in place of [cluster]";
                checker.wrong(&format!("cluster.{key}"), message);
            });
            checker.single(typed)
        }
        typed::Clusters::Many(_) => checker.several(&typed),
    };
    let problems = checker.problems;
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems::of(problems)),
    }
}

impl Checker<'_> {
    /// A file with one cluster. Without a result, something is wrong and was noted.
    fn single(&mut self, typed: typed::File) -> Option<Config> {
        let checker = self;
        let listen = checker.listen(typed.listen);
        let typed::Clusters::One(cluster) = typed.cluster else {
            return None;
        };
        let cluster = checker.cluster(*cluster);
        let reads = checker.reads(typed.reads, listen.as_ref());
        let hot_keys = checker.hot_keys(typed.hot_keys);
        let clients = listen.as_ref().map(|listen| &listen.tls.clients);
        let users = checker.users(typed.users, clients);
        let admin_commands = checker.admin_commands(typed.admin_commands);
        if users.iter().any(|user| &*user.name == DEFAULT_USER)
            && cluster
                .as_ref()
                .is_some_and(|cluster| cluster.unauthenticated == Unauthenticated::Service)
        {
            let message = "contradicts cluster.unauthenticated = \"service\": must clients say a password or not?";
            checker.wrong("users.default", message);
        }
        let limits = checker.limits(&typed.limits);
        let reload = checker.reload(&typed.reload);
        let drain = checker.drain(&typed.drain);
        let admin = checker.admin(typed.admin);
        let log = checker.log(typed.log);
        let traces = checker.traces(typed.traces, reads.zone.as_deref());
        let autoscale = checker.autoscale(typed.autoscale);
        Some(Config {
            tenant: None,
            clusters: Vec::new(),
            clusters_ever: 0,
            listen: listen?,
            cluster: cluster?,
            reads,
            hot_keys,
            users,
            admin_commands,
            limits,
            reload,
            drain,
            admin,
            log,
            traces,
            autoscale,
            origin: checker.origin.clone(),
        })
    }

    fn listen(&mut self, typed: typed::Listen) -> Option<Listen> {
        let address = match typed.address {
            Some(text) => self.socket_address("listen.address", &text),
            None => Some(SocketAddr::from(([0, 0, 0, 0], 6379))),
        };
        let advertise = typed
            .advertise
            .map(|text| self.host_port("listen.advertise", &text));
        let workers = match self.number("listen.workers", typed.workers, 0, (0, WORKERS_MAX)) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let tls = self.listen_tls(typed.tls);
        Some(Listen {
            address: address?,
            advertise: advertise.flatten(),
            workers,
            reuse_port: typed.reuse_port.unwrap_or(false),
            tls: tls?,
        })
    }

    fn listen_tls(&mut self, typed: typed::ListenTls) -> Option<ListenTls> {
        let certificate = self
            .required(
                "listen.tls.certificate",
                typed.certificate,
                "name a PEM file with the chain",
            )
            .and_then(|text| self.path("listen.tls.certificate", &text));
        let key = self
            .required(
                "listen.tls.key",
                typed.key,
                "name a PEM file with the private key",
            )
            .and_then(|text| self.path("listen.tls.key", &text));
        let min_version = self.choice(
            "listen.tls.min_version",
            typed.min_version.as_deref(),
            TlsVersion::V1_2,
            &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)],
        );
        let ca = typed
            .client_ca
            .map(|text| self.path("listen.tls.client_ca", &text));
        let auth = typed.client_auth.as_deref();
        let required = self.choice(
            "listen.tls.client_auth",
            auth,
            if ca.is_some() { Some(true) } else { None },
            &[
                ("none", None),
                ("optional", Some(false)),
                ("required", Some(true)),
            ],
        );
        let clients = match (required, ca) {
            (None, Some(_)) => {
                let message = "\"none\" contradicts client_ca; leave out one of them";
                self.wrong("listen.tls.client_auth", message);
                None
            }
            (Some(_), None) => {
                self.wrong(
                    "listen.tls.client_auth",
                    "needs client_ca: who vouches for clients?",
                );
                None
            }
            (None, None) => Some(ClientAuth::None),
            (Some(true), Some(ca)) => ca.map(ClientAuth::Required),
            (Some(false), Some(ca)) => ca.map(ClientAuth::Optional),
        };
        let client_crl = typed
            .client_crl
            .and_then(|text| self.path("listen.tls.client_crl", &text));
        if client_crl.is_some() && clients == Some(ClientAuth::None) {
            let message = "needs client_ca: whose certificates are revoked?";
            self.wrong("listen.tls.client_crl", message);
        }
        let certificates = self.named_certificates(typed.certificates.unwrap_or_default());
        Some(ListenTls {
            certificate: certificate?,
            key: key?,
            certificates,
            clients: clients?,
            client_crl,
            min_version,
        })
    }

    fn named_certificates(&mut self, typed: Vec<typed::NamedCertificate>) -> Vec<NamedCertificate> {
        const KEY: &str = "listen.tls.certificates";
        if typed.len() > CERTIFICATES_MAX {
            self.wrong(
                KEY,
                format!("{} of them; up to {CERTIFICATES_MAX}", typed.len()),
            );
            return Vec::new();
        }
        let mut found = Vec::with_capacity(typed.len());
        for (number, pair) in (1..).zip(typed) {
            let mut file = |what: &str, text: Option<String>| {
                let key = format!("{KEY}.{number}.{what}");
                let text = self.required(&key, text, "each needs a certificate and its key")?;
                self.path(&key, &text)
            };
            let certificate = file("certificate", pair.certificate);
            let key = file("key", pair.key);
            found.extend(
                certificate
                    .zip(key)
                    .map(|(certificate, key)| NamedCertificate { certificate, key }),
            );
        }
        found
    }

    fn cluster(&mut self, typed: typed::Cluster) -> Option<Cluster> {
        let seeds = self
            .required(
                "cluster.seeds",
                typed.seeds,
                "name one node or more, like [\"valkey-0:6379\"]",
            )
            .map(|texts| self.seeds(&texts));
        let name_servers = typed.name_servers.unwrap_or_default();
        let name_servers = self.name_servers(&name_servers);
        let credentials = self.credentials(typed.username, typed.password_file, typed.password_env);
        let unauthenticated = self.choice(
            "cluster.unauthenticated",
            typed.unauthenticated.as_deref(),
            Unauthenticated::Default,
            &[
                ("default", Unauthenticated::Default),
                ("service", Unauthenticated::Service),
            ],
        );
        if unauthenticated == Unauthenticated::Service && matches!(credentials, Ok(None)) {
            let message = "\"service\" needs username and password_file or password_env";
            self.wrong("cluster.unauthenticated", message);
        }
        let cross_slot = self.choice(
            "cluster.cross_slot",
            typed.cross_slot.as_deref(),
            CrossSlot::Split,
            &[
                ("split", CrossSlot::Split),
                ("split_transactions", CrossSlot::SplitTransactions),
                ("refuse", CrossSlot::Refuse),
            ],
        );
        let tls = typed.tls.map(|typed| self.cluster_tls(typed));
        let tls = match tls {
            Some(None) => return None,
            Some(Some(tls)) => Some(tls),
            None => None,
        };
        let credentials = credentials.ok()?;
        Some(Cluster {
            seeds: seeds?,
            name_servers,
            credentials,
            unauthenticated,
            cross_slot,
            tls,
        })
    }

    fn seeds(&mut self, texts: &[String]) -> Vec<HostPort> {
        if texts.is_empty() || texts.len() > SEEDS_MAX {
            self.wrong(
                "cluster.seeds",
                format!("{} seeds; 1 to {SEEDS_MAX}", texts.len()),
            );
            return Vec::new();
        }
        texts
            .iter()
            .filter_map(|text| self.host_port("cluster.seeds", text))
            .collect()
    }

    fn name_servers(&mut self, texts: &[String]) -> Vec<SocketAddr> {
        let key = "cluster.name_servers";
        if texts.len() > NAME_SERVERS_MAX {
            let message = format!("{} name servers; at most {NAME_SERVERS_MAX}", texts.len());
            self.wrong(key, message);
        }
        let mut servers = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(server) => servers.push(server),
                Err(_) => self.wrong(
                    key,
                    format!("{text:?} is no address with a port, like \"10.0.0.10:53\""),
                ),
            }
        }
        servers
    }

    /// `Err(())`: something is wrong, and was noted.
    fn credentials(
        &mut self,
        username: Option<String>,
        file: Option<String>,
        variable: Option<String>,
    ) -> Result<Option<Credentials>, ()> {
        let found = self.secret(["cluster", "password"], [file, variable])?;
        let Some((password, source)) = found else {
            if username.is_some() {
                let message = "a user needs a password, by password_file or password_env";
                self.wrong("cluster.username", message);
                return Err(());
            }
            return Ok(None);
        };
        let username = username.unwrap_or_else(|| DEFAULT_USER.to_owned());
        if username.is_empty() || username.contains(char::is_whitespace) {
            self.wrong(
                "cluster.username",
                "a user name has no spaces and is not empty",
            );
            return Err(());
        }
        Ok(Some(Credentials {
            username: username.into(),
            password,
            source,
        }))
    }

    fn cluster_tls(&mut self, typed: typed::ClusterTls) -> Option<ClusterTls> {
        let ca = self
            .required(
                "cluster.tls.ca",
                typed.ca,
                "name a PEM file with the nodes' authority",
            )
            .and_then(|text| self.path("cluster.tls.ca", &text));
        if let Some(name) = &typed.server_name
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            let message = format!("\"{name}\" is neither a DNS name nor an IP address");
            self.wrong("cluster.tls.server_name", message);
        }
        let identity = match (typed.certificate, typed.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let certificate = self.path("cluster.tls.certificate", &certificate);
                let key = self.path("cluster.tls.key", &key);
                Some(ClientIdentity {
                    certificate: certificate?,
                    key: key?,
                })
            }
            (Some(_), None) => {
                self.wrong("cluster.tls.certificate", "needs cluster.tls.key beside it");
                None
            }
            (None, Some(_)) => {
                self.wrong("cluster.tls.key", "needs cluster.tls.certificate beside it");
                None
            }
        };
        let server_name = typed.server_name.map(Into::into);
        Some(ClusterTls {
            ca: ca?,
            server_name,
            identity,
        })
    }

    fn reload(&mut self, typed: &typed::Reload) -> Reload {
        let usual = Reload::default();
        Reload {
            watch: typed.watch.unwrap_or(usual.watch),
            every: self.millis("reload.every_ms", typed.every_ms, usual.every),
        }
    }

    fn drain(&mut self, typed: &typed::Drain) -> Drain {
        let usual = Drain::default();
        let mode = self.choice(
            "drain.mode",
            typed.mode.as_deref(),
            usual.mode,
            &[
                ("deployment", DrainMode::Deployment),
                ("sidecar", DrainMode::Sidecar),
            ],
        );
        let grace = self.millis("drain.grace_ms", typed.grace_ms, usual.grace);
        let lame_duck = match typed.lame_duck_ms {
            Some(typed::Whole(0)) => Duration::ZERO,
            written => self.millis("drain.lame_duck_ms", written, usual.lame_duck.min(grace)),
        };
        if lame_duck > grace {
            self.wrong(
                "drain.lame_duck_ms",
                "is longer than grace_ms: it would never end",
            );
        }
        Drain {
            mode,
            lame_duck,
            grace,
        }
    }

    fn admin(&mut self, typed: typed::Admin) -> Admin {
        let address = typed
            .address
            .and_then(|text| self.socket_address("admin.address", &text));
        let usual = Admin::default();
        Admin {
            address: address.unwrap_or(usual.address),
            show_keys: typed.show_keys.unwrap_or(usual.show_keys),
        }
    }

    fn log(&mut self, typed: typed::Log) -> Log {
        use tracing::Level;
        let usual = Log::default();
        let level = self.choice(
            "log.level",
            typed.level.as_deref(),
            usual.level,
            &[
                ("error", Level::ERROR),
                ("warn", Level::WARN),
                ("info", Level::INFO),
                ("debug", Level::DEBUG),
                ("trace", Level::TRACE),
            ],
        );
        let format = self.choice(
            "log.format",
            typed.format.as_deref(),
            usual.format,
            &[
                ("auto", LogFormat::Auto),
                ("human", LogFormat::Human),
                ("json", LogFormat::Json),
            ],
        );
        let one_in = self.number("log.access_one_in", typed.access_one_in, 0, (0, 1 << 30));
        let file = typed.access_file.as_deref();
        Log {
            level,
            format,
            slow: self.millis("log.slow_ms", typed.slow_ms, usual.slow),
            access_one_in: u32::try_from(one_in).unwrap_or_default(),
            access_file: file.and_then(|text| self.path("log.access_file", text)),
        }
    }
}
