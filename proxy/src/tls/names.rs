//! Which certificate a client is shown: by the name that it asks for (SNI), else the usual one.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Certificates by their names.
#[derive(Debug)]
pub(super) struct ByName {
    /// Whole names; for a wildcard, what follows `*.` in the other table.
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    wildcards: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For clients that name no host, or none of these.
    usual: Arc<CertifiedKey>,
}

impl ByName {
    pub(super) fn new(usual: Arc<CertifiedKey>) -> Self {
        Self {
            exact: HashMap::new(),
            wildcards: HashMap::new(),
            usual,
        }
    }

    /// Shows `pair` to those who ask for `name`. Returns false when another has that name.
    pub(super) fn add(&mut self, name: &str, pair: &Arc<CertifiedKey>) -> bool {
        let (table, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcards, parent),
            None => (&mut self.exact, name),
        };
        let before = table.insert(name.into(), Arc::clone(pair));
        before.is_none_or(|before| Arc::ptr_eq(&before, pair))
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(name)
            .or_else(|| self.wildcards.get(parent?))
            .unwrap_or(&self.usual)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = hello
            .server_name()
            .map_or(&self.usual, |name| self.find(name));
        Some(Arc::clone(pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Arc<CertifiedKey> {
        let key = rcgen::KeyPair::generate().unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Arc::new(CertifiedKey::new(Vec::new(), key))
    }

    #[test]
    fn the_closest_name_counts() {
        let [usual, exact, wild] = [pair(), pair(), pair()];
        let mut names = ByName::new(Arc::clone(&usual));
        assert!(names.add("a.example.com", &exact) && names.add("*.example.com", &wild));
        assert!(names.add("a.example.com", &exact));
        for (asked, expected) in [
            ("a.example.com", &exact),
            ("A.Example.Com.", &exact),
            ("b.example.com", &wild),
            ("example.com", &usual),
            ("c.b.example.com", &usual),
            ("elsewhere", &usual),
        ] {
            assert!(Arc::ptr_eq(names.find(asked), expected), "{asked}");
        }
        assert!(!names.add("a.example.com", &wild), "it is taken");
    }
}
