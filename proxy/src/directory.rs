//! Which of several clusters a client means: by the name that it asks for (SNI), or by the user that it
//! authenticates as. Owns both tables; what becomes of clients that mean none is not decided here.

use std::collections::HashMap;

use crate::config::Config;

/// Clusters by what clients say, each as its place in the configuration.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Whole names; for a wildcard, what follows `*.` in the other table.
    names: HashMap<Box<str>, usize>,
    wildcards: HashMap<Box<str>, usize>,
    users: HashMap<Box<str>, usize>,
    /// For clients that mean none.
    usual: Option<usize>,
}

impl Directory {
    /// That of a configuration with several clusters; with one, nobody has to choose.
    pub(crate) fn of(config: &Config) -> Self {
        let mut directory = Self::default();
        let tenants = config.clusters.iter().map(|own| own.tenant.as_ref());
        for (place, tenant) in tenants.enumerate() {
            let Some(tenant) = tenant else { continue };
            for name in &tenant.server_names {
                match name.strip_prefix("*.") {
                    Some(parent) => directory.wildcards.insert(parent.into(), place),
                    None => directory.names.insert(name.clone(), place),
                };
            }
            for user in &tenant.user_names {
                directory.users.insert(user.clone(), place);
            }
            if tenant.default {
                directory.usual = Some(place);
            }
        }
        directory
    }

    /// The cluster of a client that asks for this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        let whole = self.names.get(name);
        whole.or_else(|| self.wildcards.get(parent()?)).copied()
    }

    /// The cluster of a client that authenticates as this user.
    pub(crate) fn by_user(&self, user: &[u8]) -> Option<usize> {
        let user = std::str::from_utf8(user).ok()?;
        self.users.get(user).copied()
    }

    /// The cluster of clients that mean none.
    pub(crate) fn usual(&self) -> Option<usize> {
        self.usual
    }

    /// Whether a user may still choose for a client whose name did not.
    pub(crate) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = r#"
[listen.tls]
certificate = "c"
key = "k"
[[cluster]]
name = "a"
seeds = ["a:1"]
server_names = ["A.example.com", "*.a.example.com"]
user_names = ["alice"]
[[cluster]]
name = "b"
seeds = ["b:1"]
server_names = ["b.a.example.com"]
default = true
"#;

    #[test]
    fn a_name_or_a_user_means_a_cluster() {
        let config = Config::parse(CONFIG, "k.toml", Path::new(""), &|_| None).unwrap();
        let directory = Directory::of(&config);
        for (name, expected) in [
            ("a.example.com", Some(0)),
            ("A.EXAMPLE.com.", Some(0)),
            ("x.a.example.com", Some(0)),
            ("b.a.example.com", Some(1)),
            ("y.x.a.example.com", None),
            ("example.com", None),
        ] {
            assert_eq!(directory.by_name(name), expected, "{name}");
        }
        assert_eq!(directory.by_user(b"alice"), Some(0));
        assert_eq!(directory.by_user(b"bob"), None);
        assert_eq!(directory.by_user(b"\xff"), None);
        assert_eq!((directory.usual(), directory.has_users()), (Some(1), true));
    }
}
