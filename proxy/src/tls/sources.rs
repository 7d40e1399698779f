//! The files that `[listen.tls]` and `[cluster.tls]` name, as they are now, and what rustls makes of
//! them. Read first, judged then: nothing here is in force.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

use super::{
    files::{self, Pem},
    names::ByName,
};
use crate::{
    config::{ClientAuth, ClusterTls, Config, Problem, TlsVersion},
    metrics::TlsFile,
};

/// A hash of the files of one kind, and of the settings that have to do with them.
pub(super) type Mark = [u8; 32];

/// A certificate's chain and its key.
struct Pair {
    /// Where they are configured.
    keys: [Box<str>; 2],
    certificate: Pem,
    key: Pem,
}

/// All files, read.
pub(super) struct Sources<'a> {
    config: &'a Config,
    /// The usual certificate first, then those by name.
    server: Vec<Pair>,
    client_ca: Option<Pem>,
    client_crl: Option<Pem>,
    upstream_ca: Option<Pem>,
    upstream_client: Option<Pair>,
}

/// What clients get, built.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: ServerConfig,
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What nodes get, built.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: Option<ServerName<'static>>,
}

/// Until when the files of each kind hold, in seconds since 1970.
pub(super) type Ends = Vec<(TlsFile, i64)>;

fn read(config: &Config, key: &str, path: &Path) -> Result<Pem, Problem> {
    Pem::read(path).map_err(|text| config.origin.problem(key, text))
}

fn pair(config: &Config, section: &str, certificate: &Path, key: &Path) -> Result<Pair, Problem> {
    let keys = ["certificate", "key"].map(|what| format!("{section}.{what}").into_boxed_str());
    Ok(Pair {
        certificate: read(config, &keys[0], certificate)?,
        key: read(config, &keys[1], key)?,
        keys,
    })
}

/// The usual certificate, then those by name; each as it could be read.
fn pairs(config: &Config) -> impl Iterator<Item = Result<Pair, Problem>> {
    let tls = &config.listen.tls;
    let usual = pair(config, "listen.tls", &tls.certificate, &tls.key);
    let named = (1..).zip(&tls.certificates).map(|(number, named)| {
        let section = format!("listen.tls.certificates.{number}");
        pair(config, &section, &named.certificate, &named.key)
    });
    std::iter::once(usual).chain(named)
}

/// Everything that is wrong with the files that a configuration names, where [`Sources`] finds the first.
pub(super) fn faults(config: &Config) -> Vec<Problem> {
    let none = || Sources {
        config,
        server: Vec::new(),
        client_ca: None,
        client_crl: None,
        upstream_ca: None,
        upstream_client: None,
    };
    let certificates = pairs(config).map(|pair| {
        let alone = Sources {
            server: vec![pair?],
            ..none()
        };
        alone.names(None, &mut Ends::new()).map(drop)
    });
    let clients = Sources::of_clients(config, Vec::new())
        .and_then(|clients| clients.verifier(&mut Ends::new()).map(drop));
    let nodes =
        Sources::of_nodes(config).and_then(|nodes| nodes.upstream(&mut Ends::new()).map(drop));
    let all = certificates.chain([clients, nodes]);
    all.filter_map(Result::err).collect()
}

impl<'a> Sources<'a> {
    pub(super) fn read(config: &'a Config) -> Result<Self, Problem> {
        let server = pairs(config).collect::<Result<_, _>>()?;
        let clients = Self::of_clients(config, server)?;
        let Self {
            server,
            client_ca,
            client_crl,
            ..
        } = clients;
        Ok(Self {
            server,
            client_ca,
            client_crl,
            ..Self::of_nodes(config)?
        })
    }

    /// With what is known of clients' authorities.
    fn of_clients(config: &'a Config, server: Vec<Pair>) -> Result<Self, Problem> {
        let tls = &config.listen.tls;
        let ca = match &tls.clients {
            ClientAuth::None => None,
            ClientAuth::Optional(ca) | ClientAuth::Required(ca) => Some(ca),
        };
        Ok(Self {
            config,
            server,
            client_ca: ca
                .map(|ca| read(config, "listen.tls.client_ca", ca))
                .transpose()?,
            client_crl: tls
                .client_crl
                .as_ref()
                .map(|crl| read(config, "listen.tls.client_crl", crl))
                .transpose()?,
            upstream_ca: None,
            upstream_client: None,
        })
    }

    /// Those of `[cluster.tls]` alone.
    pub(super) fn of_nodes(config: &'a Config) -> Result<Self, Problem> {
        let upstream = config.cluster.tls.as_ref();
        let identity = upstream.and_then(|tls| tls.identity.as_ref());
        Ok(Self {
            config,
            server: Vec::new(),
            client_ca: None,
            client_crl: None,
            upstream_ca: upstream
                .map(|tls| read(config, "cluster.tls.ca", &tls.ca))
                .transpose()?,
            upstream_client: identity
                .map(|identity| pair(config, "cluster.tls", &identity.certificate, &identity.key))
                .transpose()?,
        })
    }

    /// One mark for each kind of file; equal marks are equal files and settings.
    pub(super) fn marks(&'a self) -> Vec<(TlsFile, Mark)> {
        let tls = &self.config.listen.tls;
        let auth: &[u8] = match tls.clients {
            ClientAuth::None => b"none",
            ClientAuth::Optional(_) => b"optional",
            ClientAuth::Required(_) => b"required",
        };
        let version: &[u8] = match tls.min_version {
            TlsVersion::V1_2 => b"1.2",
            TlsVersion::V1_3 => b"1.3",
        };
        let upstream = self.config.cluster.tls.as_ref();
        let name = upstream.and_then(|tls| tls.server_name.as_deref());
        let files = |pair: &'a Pair| [&pair.certificate, &pair.key];
        let server = self.server.iter().flat_map(files);
        let client = self.upstream_client.iter().flat_map(files);
        let name = name.unwrap_or_default().as_bytes();
        vec![
            (TlsFile::Server, mark(version, server)),
            (TlsFile::ClientCa, mark(auth, &self.client_ca)),
            (TlsFile::ClientCrl, mark(b"", &self.client_crl)),
            (TlsFile::UpstreamCa, mark(name, &self.upstream_ca)),
            (TlsFile::UpstreamClient, mark(b"", client)),
        ]
    }

    fn at(&self, key: &str) -> impl Fn(String) -> Problem {
        move |text| self.config.origin.problem(key, text)
    }

    /// Builds the clients' side. `now`, in seconds since 1970, when a certificate that does not hold
    /// at that time is to be refused.
    pub(super) fn server(&self, now: Option<i64>, ends: &mut Ends) -> Result<Server, Problem> {
        let versions: &[&SupportedProtocolVersion] = match self.config.listen.tls.min_version {
            TlsVersion::V1_2 => &[&TLS12, &TLS13],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(quick_provider())
            .with_protocol_versions(versions)
            .map_err(|error| self.at("listen.tls.min_version")(error.to_string()))?;
        let verifier = self.verifier(ends)?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let names = self.names(now, ends)?;
        let mut config = builder.with_cert_resolver(Arc::new(names));
        config.ignore_client_order = true;
        // Tickets carry the session, so that one resumes at every worker however many there are.
        config.ticketer = aws_lc_rs::Ticketer::new()
            .map_err(|error| self.at("listen.tls.certificate")(error.to_string()))?;
        Ok(Server { config, verifier })
    }

    fn names(&self, now: Option<i64>, ends: &mut Ends) -> Result<ByName, Problem> {
        let mut found: Option<ByName> = None;
        let mut earliest = i64::MAX;
        for pair in &self.server {
            let at = self.at(&pair.keys[0]);
            let certified = Arc::new(self.certified(pair)?);
            let leaf = certified.cert.first();
            let shown = pair.certificate.shown();
            let facts = leaf.map(|leaf| files::facts(leaf, &shown));
            let facts = facts.transpose().map_err(&at)?;
            let (names, (from, until)) = facts.map_or((Vec::new(), (0, i64::MAX)), |facts| {
                (facts.names, facts.valid)
            });
            if now.is_some_and(|now| until <= now) {
                return Err(at(format!("{shown} has expired")));
            }
            if now.is_some_and(|now| now < from) {
                return Err(at(format!("{shown} does not hold yet")));
            }
            earliest = earliest.min(until);
            let Some(by_name) = &mut found else {
                found = Some(ByName::new(certified));
                continue;
            };
            if names.is_empty() {
                return Err(at(format!(
                    "{shown} has no DNS name that a client could ask for"
                )));
            }
            if let Some(name) = names.iter().find(|name| !by_name.add(name, &certified)) {
                return Err(at(format!("{shown}: another of these has the name {name}")));
            }
        }
        ends.push((TlsFile::Server, earliest));
        found.ok_or_else(|| self.at("listen.tls.certificate")("missing".to_owned()))
    }

    fn verifier(&self, ends: &mut Ends) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
        let Some(ca) = &self.client_ca else {
            return Ok(None);
        };
        let at = self.at("listen.tls.client_ca");
        let roots = ca.roots().map_err(&at)?;
        let chain = ca.certificates().map_err(&at)?;
        let end = files::earliest_end(&chain, &ca.shown()).map_err(&at)?;
        ends.push((TlsFile::ClientCa, end));
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        if let Some(crl) = &self.client_crl {
            let lists = crl
                .revocations()
                .map_err(self.at("listen.tls.client_crl"))?;
            ends.push((TlsFile::ClientCrl, files::next_update(&lists)));
            verifier = verifier.with_crls(lists);
        }
        if matches!(self.config.listen.tls.clients, ClientAuth::Optional(_)) {
            verifier = verifier.allow_unauthenticated();
        }
        let built = verifier.build().map_err(|error| match &self.client_crl {
            Some(crl) => self.at("listen.tls.client_crl")(format!("{}: {error}", crl.shown())),
            None => at(format!("{}: {error}", ca.shown())),
        })?;
        Ok(Some(built))
    }

    /// Builds the nodes' side; `None` without `[cluster.tls]`.
    pub(super) fn upstream(&self, ends: &mut Ends) -> Result<Option<Upstream>, Problem> {
        let (Some(tls), Some(ca)) = (&self.config.cluster.tls, &self.upstream_ca) else {
            return Ok(None);
        };
        let at = self.at("cluster.tls.ca");
        let roots = ca.roots().map_err(&at)?;
        let chain = ca.certificates().map_err(&at)?;
        let end = files::earliest_end(&chain, &ca.shown()).map_err(&at)?;
        ends.push((TlsFile::UpstreamCa, end));
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| at(format!("{}: {error}", ca.shown())))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12, &TLS13])
            .map_err(|error| at(error.to_string()))?
            .with_webpki_verifier(verifier);
        let config = match &self.upstream_client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let certified = self.certified(pair)?;
                let shown = pair.certificate.shown();
                let end = files::earliest_end(certified.cert.get(..1).unwrap_or(&[]), &shown);
                let end = end.map_err(self.at(&pair.keys[0]))?;
                ends.push((TlsFile::UpstreamClient, end));
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                    certified,
                )))
            }
        };
        Ok(Some(Upstream {
            config: Arc::new(config),
            name: self.server_name(tls)?,
        }))
    }

    fn server_name(&self, tls: &ClusterTls) -> Result<Option<ServerName<'static>>, Problem> {
        let name = tls.server_name.as_deref().map(|name| {
            ServerName::try_from(name.to_owned())
                .map_err(|error| self.at("cluster.tls.server_name")(format!("{name}: {error}")))
        });
        name.transpose()
    }

    /// The chain with its key, which is the certificate's.
    fn certified(&self, pair: &Pair) -> Result<CertifiedKey, Problem> {
        let [certificate_key, key_key] = &pair.keys;
        let chain: Vec<CertificateDer<'static>> = pair
            .certificate
            .certificates()
            .map_err(self.at(certificate_key))?;
        let at = self.at(key_key);
        let key = pair.key.private_key().map_err(&at)?;
        let signer = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| at(format!("{}: {error}", pair.key.shown())))?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|error| {
            at(format!(
                "the key in {} does not belong to the certificate in {} ({error})",
                pair.key.shown(),
                pair.certificate.shown()
            ))
        })?;
        Ok(certified)
    }
}

/// TLS to a server that these authorities vouch for, without a certificate of our own.
pub(super) fn trusting(ca: &Path) -> Result<(ClientConfig, Mark), String> {
    let ca = Pem::read(ca)?;
    let roots = ca.roots()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .map_err(|error| error.to_string())?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok((config, mark(b"", [&ca])))
}

fn mark<'a>(settings: &[u8], files: impl IntoIterator<Item = &'a Pem>) -> Mark {
    let mut hash = Sha256::new();
    let files = files.into_iter().map(|file| file.bytes.as_slice());
    for part in std::iter::once(settings).chain(files) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The same, with AES-128-GCM before all others: with its SHA-256, which processors have instructions
/// for, a handshake costs a tenth less than with the SHA-384 of AES-256. Who offers only that has it.
fn quick_provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        use rustls::CipherSuite as Suite;
        !matches!(
            suite.suite(),
            Suite::TLS13_AES_128_GCM_SHA256
                | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    Arc::new(provider)
}
