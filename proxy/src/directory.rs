//! Which of several clusters a client means: by the name that it asks for (SNI), or by the user that it
//! authenticates as. Owns both tables; what becomes of clients that mean none is not decided here.

use std::collections::HashMap;

use crate::config::{ClusterId, Config};

/// Clusters by what clients say.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Whole names; for a wildcard, what follows `*.` in the other table.
    names: HashMap<Box<str>, ClusterId>,
    wildcards: HashMap<Box<str>, ClusterId>,
    users: HashMap<Box<str>, ClusterId>,
    /// For clients that mean none.
    usual: Option<ClusterId>,
}

impl Directory {
    /// That of a configuration with several clusters; with one, nobody has to choose.
    pub(crate) fn of(config: &Config) -> Self {
        let mut directory = Self::default();
        let tenants = config.clusters.iter().map(|own| own.tenant.as_ref());
        for tenant in tenants.flatten() {
            for name in &tenant.server_names {
                match name.strip_prefix("*.") {
                    Some(parent) => directory.wildcards.insert(parent.into(), tenant.id),
                    None => directory.names.insert(name.clone(), tenant.id),
                };
            }
            for user in &tenant.user_names {
                directory.users.insert(user.clone(), tenant.id);
            }
            if tenant.default {
                directory.usual = Some(tenant.id);
            }
        }
        directory
    }

    /// The cluster of a client that asks for this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<ClusterId> {
        let name = name.to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        let whole = self.names.get(name);
        whole.or_else(|| self.wildcards.get(parent()?)).copied()
    }

    /// The cluster of a client that authenticates as this user.
    pub(crate) fn by_user(&self, user: &[u8]) -> Option<ClusterId> {
        let user = std::str::from_utf8(user).ok()?;
        self.users.get(user).copied()
    }

    /// The cluster of clients that mean none.
    pub(crate) fn usual(&self) -> Option<ClusterId> {
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
        let [a, b] = [ClusterId::FIRST, ClusterId::nth(1)];
        for (name, expected) in [
            ("a.example.com", Some(a)),
            ("A.EXAMPLE.com.", Some(a)),
            ("x.a.example.com", Some(a)),
            ("b.a.example.com", Some(b)),
            ("y.x.a.example.com", None),
            ("example.com", None),
        ] {
            assert_eq!(directory.by_name(name), expected, "{name}");
        }
        assert_eq!(directory.by_user(b"alice"), Some(a));
        assert_eq!(directory.by_user(b"bob"), None);
        assert_eq!(directory.by_user(b"\xff"), None);
        assert_eq!((directory.usual(), directory.has_users()), (Some(b), true));
    }
}
