//! Until when the certificates of a configuration are good, and for which names.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::{
    config::{ClientAuth, Config},
    report::Certificate,
    tls,
};

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Names of one certificate that are told.
const NAMES_MAX: usize = 32;

/// Every certificate that the configuration names, as its file is now.
pub(crate) fn of(config: &Config, now_ms: u64) -> Vec<Certificate> {
    let tls = &config.listen.tls;
    let mut files: Vec<(&str, &Path)> = vec![("listen.tls.certificate", &tls.certificate)];
    match &tls.clients {
        ClientAuth::None => {}
        ClientAuth::Optional(ca) | ClientAuth::Required(ca) => {
            files.push(("listen.tls.client_ca", ca));
        }
    }
    if let Some(tls) = &config.cluster.tls {
        files.push(("cluster.tls.ca", &tls.ca));
        if let Some(identity) = &tls.identity {
            files.push(("cluster.tls.certificate", &identity.certificate));
        }
    }
    let read = files.iter().map(|(key, path)| in_file(key, path, now_ms));
    read.collect()
}

/// The certificate in a file; of a chain, the one that ends first.
fn in_file(key: &str, path: &Path, now_ms: u64) -> Certificate {
    let unreadable = |trouble: String| Certificate {
        trouble: Some(trouble),
        ..Certificate::default()
    };
    let found = match tls::certificates(path) {
        Ok(chain) => chain
            .iter()
            .map(|der| in_der(der, now_ms).unwrap_or_else(unreadable))
            .min_by_key(|certificate| certificate.not_after_ms),
        Err(text) => Some(unreadable(text)),
    };
    Certificate {
        key: key.to_owned(),
        file: path.display().to_string(),
        ..found.unwrap_or_default()
    }
}

/// What a certificate says of itself.
pub(crate) fn in_der(der: &CertificateDer<'_>, now_ms: u64) -> Result<Certificate, String> {
    let (_, parsed) = parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let others = parsed.subject_alternative_name().ok().flatten();
    let names = others
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
    let not_after_ms = parsed.validity().not_after.timestamp().saturating_mul(1000);
    let left = not_after_ms.saturating_sub(i64::try_from(now_ms).unwrap_or(i64::MAX));
    Ok(Certificate {
        subject: parsed.subject().to_string(),
        names: names.take(NAMES_MAX).collect(),
        not_after_ms: u64::try_from(not_after_ms).ok(),
        days_left: Some(left.div_euclid(DAY_MS)),
        ..Certificate::default()
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::IpAddr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::IpAddr::from(v6).to_string())
}
