//! Users of the configuration: as the dataplane knows them, and by what a client's certificate
//! says.
//!
//! A certificate's names are its common name and its alternative names of the kinds DNS and URI
//! (SPIFFE), in that order; the first that the configuration knows counts.

use std::{collections::HashMap, sync::Arc};

use dataplane::{Credentials, MappedUser, Users};
use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::config;

/// The users as the dataplane knows them.
pub(crate) fn known(users: &[config::MappedUser]) -> Users {
    let known = users.iter().map(|user| {
        let mapped = MappedUser {
            password: user.password.as_ref().map(|secret| secret.expose().into()),
            runs_as: Credentials {
                username: user.runs_as.username.as_bytes().into(),
                password: user.runs_as.password.expose().into(),
            },
        };
        (Arc::from(user.name.as_bytes()), mapped)
    });
    known.collect()
}

/// Users by a name in the client's certificate.
#[derive(Debug, Default)]
pub(crate) struct ByCertificate(HashMap<Box<str>, Arc<[u8]>>);

impl ByCertificate {
    pub(crate) fn new(users: &[config::MappedUser]) -> Self {
        let named = users.iter().filter_map(|user| {
            let certificate = user.certificate.clone()?;
            Some((certificate, Arc::from(user.name.as_bytes())))
        });
        Self(named.collect())
    }

    /// The user that a verified certificate names.
    pub(crate) fn user(&self, certificate: &CertificateDer<'_>) -> Option<Arc<[u8]>> {
        if self.0.is_empty() {
            return None;
        }
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let common = parsed
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        let others = parsed.subject_alternative_name().ok().flatten();
        let others = others
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) => Some(*name),
                _ => None,
            });
        common
            .chain(others)
            .find_map(|name| self.0.get(name).cloned())
    }
}
