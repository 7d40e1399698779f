//! An authority and one server certificate, as PEM files in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// The PEM files a TLS server and its clients need.
#[derive(Debug)]
pub struct Certificates {
    /// The authority, for clients.
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    _folder: TempDir,
}

impl Certificates {
    /// A new authority and a certificate for `localhost` and the loopback addresses.
    ///
    /// # Panics
    /// The files cannot be written.
    #[must_use]
    pub fn loopback() -> Self {
        Self::for_names(&["localhost", "127.0.0.1", "::1"])
    }

    /// A new authority and a certificate for `names`.
    ///
    /// # Panics
    /// The files cannot be written, or a name is none.
    #[must_use]
    pub fn for_names(names: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder for certificates");
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(DnType::CommonName, "keyway tests");
        let authority_cert = authority.self_signed(&authority_key).expect("an authority");
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).expect("certificate names");
        let cert = params.signed_by(&key, &issuer).expect("a certificate");

        let write = |name: &str, pem: String| {
            let path = folder.path().join(name);
            fs::write(&path, pem).expect("a PEM file");
            path
        };
        Self {
            ca: write("ca.pem", authority_cert.pem()),
            cert: write("cert.pem", cert.pem()),
            key: write("key.pem", key.serialize_pem()),
            issuer,
            _folder: folder,
        }
    }
}

/// Serial numbers of clients' certificates.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1000);

/// A certificate and its key, for a client to show.
#[derive(Debug)]
pub struct Identity {
    serial: SerialNumber,
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Certificates {
    /// A certificate of this authority for a client, with a common name and with alternative names
    /// of the kind DNS.
    ///
    /// # Panics
    /// A name is none.
    #[must_use]
    pub fn identity(&self, common_name: &str, names: &[&str]) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("certificate names");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let serial = SerialNumber::from(NEXT_SERIAL.fetch_add(1, Relaxed));
        params.serial_number = Some(serial.clone());
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity {
            serial,
            cert: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

impl Certificates {
    /// The TLS settings of a server with this certificate.
    ///
    /// # Panics
    /// A file is not what it was.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.cert).expect("a certificate file");
        let chain = chain.collect::<Result<_, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key file");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("a server's certificate"))
    }

    /// Another certificate of this authority for `names`, and its key, as PEM.
    ///
    /// # Panics
    /// A name is none.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> [String; 2] {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).expect("certificate names");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        [cert.pem(), key.serialize_pem()]
    }

    /// A certificate for `localhost` that expired long ago, and its key, as PEM.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn issue_expired(&self) -> [String; 2] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        [cert.pem(), key.serialize_pem()]
    }

    /// This authority's list of what it has revoked, as PEM.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn revoke(&self, revoked: &[&Identity]) -> String {
        let revoked = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: identity.serial.clone(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2200, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a revocation list");
        list.pem().expect("a list as PEM")
    }
}

/// A client's TLS settings that trust the authorities in `ca` and nothing else, and show who they
/// are if asked. Connections that share them resume each other's sessions.
///
/// # Panics
/// A file or a certificate is not what it should be.
#[must_use]
pub fn trusting(ca: &Path, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).expect("a CA file") {
        roots
            .add(certificate.expect("a certificate"))
            .expect("a certificate authority");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(identity) => config
            .with_client_auth_cert(vec![identity.cert.clone()], identity.key.clone_key())
            .expect("a client's certificate"),
    })
}
