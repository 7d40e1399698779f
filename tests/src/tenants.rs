//! Several clusters before one Keyway: what of it tests of them share.

use std::fmt::Write as _;

use crate::{
    Certificates, Client, ClusterOptions, Keyway, RealCluster, Settings, Version, trusting,
};

/// Server names that the certificate of a [`World`] is good for.
const NAMES: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "a.test",
    "b.test",
    "c.test",
];

/// A cluster of one node, with this user, whose password is the name and `-pw`.
#[must_use]
pub fn with_user(name: &str) -> ClusterOptions {
    let rules = format!(">{name}-pw ~* &* +@all");
    ClusterOptions {
        users: vec![(name.to_owned(), rules)],
        ..ClusterOptions::new(Version::V9_1, 1, 0)
    }
}

/// One of the clusters, and what is written of it into the configuration.
#[derive(Debug)]
pub struct Tenant<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Which it is.
    pub cluster: &'a RealCluster,
    /// Lines of `[[cluster]]`, then sections.
    pub own: String,
}

impl<'a> Tenant<'a> {
    /// A cluster with this name.
    pub fn new(name: &'a str, cluster: &'a RealCluster, own: impl Into<String>) -> Self {
        let own = own.into();
        Self { name, cluster, own }
    }
}

/// A `[[cluster]]` for each, to be put before the rest of a configuration.
#[must_use]
pub fn sections(tenants: &[Tenant<'_>]) -> String {
    let mut text = String::new();
    for Tenant { name, cluster, own } in tenants {
        let one = cluster.section("");
        let one = one.replacen("[cluster]", "[[cluster]]", 1);
        let _ = writeln!(text, "{one}\nname = \"{name}\"\n{own}");
    }
    text
}

/// Keyway with a certificate for all names.
#[derive(Debug)]
pub struct World {
    /// Who vouches for it.
    pub authority: Certificates,
    /// Ready, with all of its clusters.
    pub keyway: Keyway,
}

impl World {
    /// For all of its names.
    #[must_use]
    pub fn new(tenants: &[Tenant<'_>], settings: Settings) -> Self {
        let authority = Certificates::for_names(&NAMES);
        Self::with(authority, tenants, settings)
    }

    /// With this certificate.
    #[must_use]
    pub fn with(authority: Certificates, tenants: &[Tenant<'_>], settings: Settings) -> Self {
        let settings = Settings {
            certificate: Some([authority.cert.clone(), authority.key.clone()]),
            ..settings
        };
        let mut keyway = Keyway::launch(&sections(tenants), &settings);
        keyway.wait_ready();
        Self { authority, keyway }
    }

    /// A client at the port of everyone that asks for this name; one that is dialled by its address
    /// asks for none.
    ///
    /// # Errors
    /// It is refused.
    pub fn try_by_name(&self, name: &str) -> std::io::Result<Client> {
        let config = trusting(&self.authority.ca, None);
        Client::try_connect_with(&self.keyway.addr(), name, &config)
    }

    /// The same, which is taken in.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Client {
        self.try_by_name(name).expect("a connection")
    }

    /// At the port of everyone, by its address: without a name.
    #[must_use]
    pub fn unnamed(&self) -> Client {
        self.by_name("127.0.0.1")
    }

    /// A client at another port.
    ///
    /// # Errors
    /// It is refused.
    pub fn try_at(&self, port: u16) -> std::io::Result<Client> {
        Client::try_connect(&format!("127.0.0.1:{port}"), &self.authority.ca)
    }

    /// The same, which is taken in.
    #[must_use]
    pub fn at(&self, port: u16) -> Client {
        self.try_at(port).expect("a connection")
    }
}
