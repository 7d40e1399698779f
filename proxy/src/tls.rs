//! Certificates and keys, from files to rustls: for clients ([`ServerTls`]) and for nodes
//! ([`UpstreamTls`]).
//!
//! Every mistake is one line that names the file and what to do. The cryptography is aws-lc-rs.

use std::{
    path::Path,
    sync::{Arc, RwLock},
};

use arc_swap::ArcSwapAny;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::config::{ClientAuth, ClusterTls, Config, Problem, TlsVersion};

/// TLS as clients see it. A reload replaces what new connections use.
#[derive(Clone, Debug)]
pub struct ServerTls {
    current: Arc<ArcSwapAny<Arc<ServerConfig>, RwLock<()>>>,
}

impl ServerTls {
    /// Loads what `[listen.tls]` names.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(config: &Config) -> Result<Self, Problem> {
        let tls = &config.listen.tls;
        let at = |key: &'static str| move |text: String| config.origin.problem(key, text);
        let chain = certificates(&tls.certificate).map_err(at("listen.tls.certificate"))?;
        let key = private_key(&tls.key).map_err(at("listen.tls.key"))?;
        matches(&chain, &key, &tls.certificate, &tls.key).map_err(at("listen.tls.key"))?;
        let versions: &[&SupportedProtocolVersion] = match tls.min_version {
            TlsVersion::V1_2 => &[&TLS12, &TLS13],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| at("listen.tls.min_version")(error.to_string()))?;
        let builder = match &tls.clients {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional(ca) | ClientAuth::Required(ca) => {
                let roots = roots(ca).map_err(at("listen.tls.client_ca"))?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = match tls.clients {
                    ClientAuth::Optional(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier = verifier.build().map_err(|error| {
                    at("listen.tls.client_ca")(format!("{}: {error}", ca.display()))
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(chain, key)
            .map_err(|error| at("listen.tls.certificate")(error.to_string()))?;
        Ok(Self {
            current: Arc::new(ArcSwapAny::new(Arc::new(config))),
        })
    }

    /// What the next connection uses.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

/// TLS as nodes see it.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl UpstreamTls {
    /// Loads what `[cluster.tls]` names.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(config: &Config, tls: &ClusterTls) -> Result<Self, Problem> {
        let at = |key: &'static str| move |text: String| config.origin.problem(key, text);
        let roots = roots(&tls.ca).map_err(at("cluster.tls.ca"))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| at("cluster.tls.ca")(format!("{}: {error}", tls.ca.display())))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12, &TLS13])
            .map_err(|error| at("cluster.tls.ca")(error.to_string()))?
            .with_webpki_verifier(verifier);
        let client = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (certificate, key) = (&identity.certificate, &identity.key);
                let chain = certificates(certificate).map_err(at("cluster.tls.certificate"))?;
                let key_bytes = private_key(key).map_err(at("cluster.tls.key"))?;
                matches(&chain, &key_bytes, certificate, key).map_err(at("cluster.tls.key"))?;
                let built = builder.with_client_auth_cert(chain, key_bytes);
                built.map_err(|error| at("cluster.tls.certificate")(error.to_string()))?
            }
        };
        let name = tls.server_name.as_deref().map(|name| {
            ServerName::try_from(name.to_owned())
                .map_err(|error| at("cluster.tls.server_name")(format!("{name}: {error}")))
        });
        Ok(Self {
            config: Arc::new(client),
            name: name.transpose()?,
        })
    }

    /// For every connection.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The name to find in the certificate of the node at `host`.
    ///
    /// # Errors
    /// The host is neither a name nor an address.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let read = CertificateDer::pem_file_iter(path)
        .map_err(|error| format!("cannot read {shown}: {}", reason(&error)))?;
    let chain: Result<Vec<_>, _> = read.collect();
    let chain = chain.map_err(|error| format!("{shown} is not valid PEM: {}", reason(&error)))?;
    if chain.is_empty() {
        return Err(format!(
            "{shown} has no certificate (-----BEGIN CERTIFICATE-----)"
        ));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = path.display();
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        use rustls::pki_types::pem::Error;
        match error {
            Error::NoItemsFound => {
                format!("{shown} has no private key (-----BEGIN PRIVATE KEY-----)")
            }
            Error::Io(_) => format!("cannot read {shown}: {}", reason(&error)),
            _ => format!("{shown} is not valid PEM: {}", reason(&error)),
        }
    })
}

fn reason(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// The key is the certificate's.
fn matches(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    certificate_path: &Path,
    key_path: &Path,
) -> Result<(), String> {
    let signer = provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|error| format!("{}: {error}", key_path.display()))?;
    let pair = CertifiedKey::new(chain.to_vec(), signer);
    pair.keys_match().map_err(|error| {
        format!(
            "the key in {} does not belong to the certificate in {} ({error})",
            key_path.display(),
            certificate_path.display()
        )
    })
}
