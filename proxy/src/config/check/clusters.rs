//! `[[cluster]]`: each is checked as if it were alone, with what it inherits; then all together: no two may
//! be what a client means.

use std::{collections::BTreeMap, sync::Arc};

use super::values::Checker;
use crate::config::{ClusterId, Config, Tenant, TlsVersion, typed};

/// Clusters at most: each has a thread that follows its topology.
const CLUSTERS_MAX: usize = 100;
/// Names of servers or users of one cluster at most.
const NAMES_MAX: usize = 10_000;
/// A cluster's name is a label of metrics.
const NAME_BYTES_MAX: usize = 64;
/// A DNS name is no longer.
const SERVER_NAME_BYTES_MAX: usize = 253;

impl Checker<'_> {
    /// A file with several clusters: the process's configuration, with theirs in it.
    pub(super) fn several(&mut self, typed: &typed::File) -> Option<Config> {
        let typed::Clusters::Many(clusters) = &typed.cluster else {
            return None;
        };
        if clusters.is_empty() || clusters.len() > CLUSTERS_MAX {
            let message = format!("{} clusters; 1 to {CLUSTERS_MAX}", clusters.len());
            self.wrong("cluster", message);
            return None;
        }
        if !typed.users.is_empty() {
            let message = "belongs to a cluster: write [cluster.users.NAME] below its [[cluster]]";
            self.wrong("users", message);
        }
        let mut found = Vec::new();
        for (number, cluster) in (1..).zip(clusters) {
            let origin = self.origin.of_cluster(number);
            let mut own = Checker {
                origin: &origin,
                problems: std::mem::take(&mut self.problems),
                folder: self.folder,
                environment: self.environment,
            };
            let config = own.one_of_several(typed, cluster, number - 1);
            self.problems = own.problems;
            found.extend(config.map(|config| (number, Arc::new(config))));
        }
        self.apart(&found);
        if !self.problems.is_empty() {
            return None;
        }
        // What is the process's own is in each of them.
        let first = clusters.first().map(|first| typed.of_cluster(first))?;
        let mut process = self.single(typed::File {
            listen: typed.listen.clone(),
            reads: typed.reads.clone(),
            limits: typed.limits.clone(),
            users: BTreeMap::new(),
            ..first
        })?;
        process.cluster.tls = None;
        process.cluster.credentials = None;
        process.clusters = found.into_iter().map(|(_, config)| config).collect();
        process.clusters_ever = process.clusters.len();
        Some(process)
    }

    fn one_of_several(
        &mut self,
        typed: &typed::File,
        cluster: &typed::Cluster,
        place: usize,
    ) -> Option<Config> {
        let tenant = self.tenant(cluster, place);
        if let Some(limits) = &cluster.limits {
            for (key, there) in [
                ("handshakes_max", limits.handshakes_max.is_some()),
                (
                    "handshake_timeout_ms",
                    limits.handshake_timeout_ms.is_some(),
                ),
                (
                    "clients_per_address_max",
                    limits.clients_per_address_max.is_some(),
                ),
            ] {
                if there {
                    let message = "is for all clusters together: write it into [limits]";
                    self.wrong(&format!("limits.{key}"), message);
                }
            }
        }
        let mut config = self.single(typed.of_cluster(cluster))?;
        let tenant = tenant?;
        self.compare_versions(&config, &tenant, typed.listen.tls.min_version.as_deref());
        config.tenant = Some(tenant);
        Some(config)
    }

    /// Whom a user sends to a cluster has had everyone's handshake.
    fn compare_versions(&mut self, own: &Config, tenant: &Tenant, usual: Option<&str>) {
        let stricter = own.listen.tls.min_version == TlsVersion::V1_3 && usual != Some("1.3");
        if stricter && (tenant.default || !tenant.user_names.is_empty()) {
            let message = "is more than [listen.tls] min_version, whose handshake clients have had \
                           that a user or default sends here; raise that";
            self.wrong("listen.tls.min_version", message);
        }
    }

    fn tenant(&mut self, typed: &typed::Cluster, place: usize) -> Option<Tenant> {
        let what = "each of several clusters has one, for metrics and pages";
        let name = self.required("cluster.name", typed.name.clone(), what)?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(legal) {
            let message =
                format!("{name:?}: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'");
            self.wrong("cluster.name", message);
        }
        let listen = typed.listen.as_ref();
        let tenant = Tenant {
            id: ClusterId::nth(place),
            name: name.into(),
            server_names: self.server_names(typed.server_names.as_deref().unwrap_or_default()),
            user_names: self.user_names(typed.user_names.as_deref().unwrap_or_default()),
            default: typed.default.unwrap_or(false),
            own_port: listen.is_some_and(|listen| listen.address.is_some()),
            own_read_port: (typed.reads.as_ref()).is_some_and(|reads| reads.address.is_some()),
            shares_memory: (typed.limits.as_ref())
                .is_none_or(|limits| limits.memory_bytes_max.is_none()),
        };
        let chosen = !tenant.server_names.is_empty() || !tenant.user_names.is_empty();
        if !chosen && !tenant.default && !tenant.own_port {
            let message = "nobody could choose it: give it server_names, user_names, a \
                           listen.address or default = true";
            self.wrong("cluster.name", message);
        }
        Some(tenant)
    }

    fn server_names(&mut self, typed: &[String]) -> Vec<Box<str>> {
        const KEY: &str = "cluster.server_names";
        self.few(KEY, typed);
        let mut names = Vec::new();
        for text in typed {
            let name = text.trim_end_matches('.').to_ascii_lowercase();
            let plain = name.strip_prefix("*.").unwrap_or(&name);
            let is_name = matches!(
                rustls::pki_types::ServerName::try_from(plain),
                Ok(rustls::pki_types::ServerName::DnsName(_))
            );
            if is_name && plain.len() <= SERVER_NAME_BYTES_MAX {
                names.push(name.into());
            } else {
                self.wrong(
                    KEY,
                    format!("{text:?} is no DNS name, like \"a.example.com\""),
                );
            }
        }
        names
    }

    fn user_names(&mut self, typed: &[String]) -> Vec<Box<str>> {
        const KEY: &str = "cluster.user_names";
        self.few(KEY, typed);
        for name in typed {
            if name.is_empty() || name.contains(char::is_whitespace) {
                self.wrong(
                    KEY,
                    format!("{name:?}: a user name has no spaces and is not empty"),
                );
            }
        }
        typed.iter().map(|name| name.as_str().into()).collect()
    }

    fn few(&mut self, key: &str, names: &[String]) {
        if names.len() > NAMES_MAX {
            self.wrong(key, format!("{} names; 0 to {NAMES_MAX}", names.len()));
        }
    }

    /// No two clusters may have the same name, be chosen by the same, or listen at the same port.
    fn apart(&mut self, clusters: &[(usize, Arc<Config>)]) {
        let mut seen: BTreeMap<(&str, String), &str> = BTreeMap::new();
        for (number, config) in clusters {
            let Some(tenant) = &config.tenant else {
                continue;
            };
            let mut claims = vec![("name", tenant.name.to_string())];
            let names = |key, names: &[Box<str>]| -> Vec<(&'static str, String)> {
                names.iter().map(|name| (key, name.to_string())).collect()
            };
            claims.extend(names("server_names", &tenant.server_names));
            claims.extend(names("user_names", &tenant.user_names));
            if tenant.default {
                claims.push(("default", "true".to_owned()));
            }
            let own_port = tenant.own_port.then_some(config.listen.address);
            let own_reads = config.reads.address.filter(|_| tenant.own_read_port);
            for (key, address) in [("listen.address", own_port), ("reads.address", own_reads)] {
                let fixed = address.filter(|address| address.port() != 0);
                claims.extend(fixed.map(|address| (key, address.to_string())));
            }
            for (key, value) in claims {
                let kind = if key.ends_with("address") {
                    "address"
                } else {
                    key
                };
                if let Some(other) = seen.insert((kind, value.clone()), &tenant.name) {
                    let message = format!("{value:?} is cluster {other:?}'s already");
                    self.wrong(&format!("cluster.{number}.{key}"), message);
                }
            }
        }
    }
}
