//! PEM files: read once, then taken apart. Every mistake is one line that names the file and what
//! to do. It never decides what a certificate is used for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{Error, PemObject},
    },
};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// A file larger than this is surely another one.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file as it was found.
pub(super) struct Pem {
    path: PathBuf,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Pem {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
        let length = fs::metadata(path).map_err(|error| cannot(&error))?.len();
        if length > FILE_BYTES_MAX {
            return Err(cannot(&format!("{length} bytes are too many")));
        }
        let bytes = fs::read(path).map_err(|error| cannot(&error))?;
        Ok(Self {
            path: path.to_owned(),
            bytes: Zeroizing::new(bytes),
        })
    }

    pub(super) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn invalid(&self, error: &Error) -> String {
        format!("{} is not valid PEM: {error}", self.shown())
    }

    /// The chain in it, not empty.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let chain = chain.map_err(|error| self.invalid(&error))?;
        if chain.is_empty() {
            return Err(format!(
                "{} has no certificate (-----BEGIN CERTIFICATE-----)",
                self.shown()
            ));
        }
        Ok(chain)
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            Error::NoItemsFound => {
                format!(
                    "{} has no private key (-----BEGIN PRIVATE KEY-----)",
                    self.shown()
                )
            }
            error => self.invalid(&error),
        })
    }

    pub(super) fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| format!("{}: {error}", self.shown()))?;
        }
        Ok(roots)
    }

    pub(super) fn revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&self.bytes).collect();
        let lists = lists.map_err(|error| self.invalid(&error))?;
        if lists.is_empty() {
            return Err(format!(
                "{} has no revocation list (-----BEGIN X509 CRL-----)",
                self.shown()
            ));
        }
        Ok(lists)
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its alternative names of the kind DNS, in lower case.
    pub(super) names: Vec<Box<str>>,
    /// From when and until when it holds, in seconds since 1970.
    pub(super) valid: (i64, i64),
}

pub(super) fn facts(certificate: &CertificateDer<'_>, shown: &str) -> Result<Facts, String> {
    use x509_parser::extensions::GeneralName;
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("{shown}: cannot read the certificate: {error}"))?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
            _ => None,
        });
    let validity = parsed.validity();
    Ok(Facts {
        names: names.collect(),
        valid: (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        ),
    })
}

/// Until when all of a file's certificates hold: the earliest of them.
pub(super) fn earliest_end(chain: &[CertificateDer<'_>], shown: &str) -> Result<i64, String> {
    let mut earliest = i64::MAX;
    for certificate in chain {
        earliest = earliest.min(facts(certificate, shown)?.valid.1);
    }
    Ok(earliest)
}

/// When the next of these lists is due; far away when none says.
pub(super) fn next_update(lists: &[CertificateRevocationListDer<'_>]) -> i64 {
    use x509_parser::revocation_list::CertificateRevocationList;
    let due = lists.iter().filter_map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
        Some(parsed.next_update()?.timestamp())
    });
    due.min().unwrap_or(i64::MAX)
}
