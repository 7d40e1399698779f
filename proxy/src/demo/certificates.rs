//! An authority and one certificate for this machine's loopback addresses.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Writes `ca.pem`, `cert.pem` and `key.pem` into a folder (made if need be), the key for its
/// owner alone. Files of an earlier run are kept, so that clients go on trusting them.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    if ca.exists() && cert.exists() && key.exists() {
        return Ok(());
    }
    let made = make().map_err(io::Error::other)?;
    fs::write(ca, made.authority)?;
    fs::write(cert, made.certificate)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&key)?;
    file.write_all(made.key.as_bytes())?;
    fs::set_permissions(key, fs::Permissions::from_mode(0o600))
}

struct Made {
    authority: String,
    certificate: String,
    key: String,
}

fn make() -> Result<Made, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "Keyway demo");
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    params
        .extended_key_usages
        .push(ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Made {
        authority: authority_pem,
        certificate,
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_private_and_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        write(&inner).unwrap();
        let mode = fs::metadata(inner.join("key.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = fs::read(inner.join("ca.pem")).unwrap();
        write(&inner).unwrap();
        assert_eq!(fs::read(inner.join("ca.pem")).unwrap(), before);
    }
}
