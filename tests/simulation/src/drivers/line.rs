//! A client's TLS, on its own side: real, with a certificate whose signatures are of one length, so
//! that a run's records are as long as those of every other run of its seed.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use keyway::{
    config::{ClientAuth, Config, Listen, ListenTls, TlsVersion},
    tls::{Loaded, ServerTls},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, client::Resumption, crypto::aws_lc_rs,
    pki_types::ServerName, version::TLS13,
};

use crate::history::Violation;

/// Both sides of TLS, the same for all runs of a process.
pub(super) struct Certificates {
    pub(super) listen: Listen,
    pub(super) server: ServerTls,
    client: Arc<ClientConfig>,
}

pub(super) static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(Certificates::make);

impl Certificates {
    fn make() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listen = Listen {
            address: SocketAddr::from(([127, 0, 0, 1], 6379)),
            advertise: None,
            workers: 1,
            reuse_port: false,
            tls: ListenTls {
                certificate: folder.path().join("cert.pem"),
                key: folder.path().join("key.pem"),
                clients: ClientAuth::None,
                client_crl: None,
                certificates: Vec::new(),
                min_version: TlsVersion::V1_3,
            },
        };
        std::fs::write(&listen.tls.certificate, certificate.pem()).unwrap();
        std::fs::write(&listen.tls.key, key.serialize_pem()).unwrap();
        let config = Config::with_defaults(listen.clone(), Vec::new());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.resumption = Resumption::disabled();
        Self {
            server: Loaded::load(&config).unwrap().downstream,
            listen,
            client: Arc::new(client),
        }
    }
}

/// One client's connection, on its own side.
#[derive(Debug)]
pub(super) struct Line {
    /// The proxy's end.
    pub(super) wire: u64,
    tls: ClientConnection,
    /// Sent, and not yet at the proxy.
    pub(super) outgoing: Vec<u8>,
    /// Written by the proxy, not yet read by the client.
    pub(super) incoming: Vec<u8>,
    /// The client closes its side when all is at the proxy.
    pub(super) leaving: bool,
    /// It has.
    pub(super) left: bool,
    /// The proxy has closed the connection.
    pub(super) closed: bool,
}

impl Line {
    pub(super) fn new(wire: u64) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&CERTIFICATES.client), name).unwrap();
        tls.set_buffer_limit(None);
        let mut line = Self {
            wire,
            tls,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            leaving: false,
            left: false,
            closed: false,
        };
        line.seal(&[]);
        line
    }

    /// What the client says, and what TLS wants to say.
    pub(super) fn seal(&mut self, plain: &[u8]) {
        self.tls.writer().write_all(plain).unwrap();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.outgoing).unwrap();
        }
    }

    /// The client says goodbye.
    pub(super) fn leave(&mut self) {
        // In the middle of a handshake it would be no TLS.
        if !self.tls.is_handshaking() {
            self.tls.send_close_notify();
            self.seal(&[]);
        }
        self.leaving = true;
    }

    /// Reads so many bytes of what the proxy has written.
    pub(super) fn open(&mut self, count: usize) -> Result<Vec<u8>, Violation> {
        let bytes: Vec<u8> = self.incoming.drain(..count).collect();
        let mut rest = &bytes[..];
        let mut plain = Vec::new();
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).unwrap();
            let read = self.tls.process_new_packets();
            let read = read.map_err(|error| format!("TLS: {error}"))?;
            let from = plain.len();
            plain.resize(from + read.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut plain[from..]).unwrap();
        }
        self.seal(&[]);
        Ok(plain)
    }
}
