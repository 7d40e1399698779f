//! How many clusters share the memory for what waits for clients, and which.
//!
//! A cluster that goes has clients until the last of them has left, and keeps its share until then: the
//! shares never add up to more than there is. Owns the count, and says when it is another. Never here: how
//! much there is, and what is done when it is used up.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use crate::config::{ClusterId, Config};

/// Those that share. Clones show the same.
#[derive(Clone, Debug)]
pub(super) struct Shares(Arc<watch::Sender<BTreeSet<ClusterId>>>);

impl Default for Shares {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }
}

impl Shares {
    /// A cluster has this configuration from now on. Returns how many share what it shares, itself
    /// included.
    pub(super) fn of(&self, config: &Config) -> usize {
        let Some(tenant) = &config.tenant else {
            return 1;
        };
        if !tenant.shares_memory {
            self.leave(tenant.id);
            return 1;
        }
        self.0.send_if_modified(|all| all.insert(tenant.id));
        self.0.borrow().len().max(1)
    }

    /// A cluster is gone, or shares no more.
    pub(super) fn leave(&self, cluster: ClusterId) {
        self.0.send_if_modified(|all| all.remove(&cluster));
    }

    /// Says when there are more or fewer.
    pub(super) fn changes(&self) -> watch::Receiver<BTreeSet<ClusterId>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn who_goes_shares_until_it_is_gone_and_who_has_its_own_never_does() {
        let cluster = |name: &str, more: &str| {
            format!(
                "[[cluster]]\nname = '{name}'\nseeds = ['{name}:1']\nserver_names = ['{name}']\n{more}"
            )
        };
        let own = "[cluster.limits]\nmemory_bytes_max = 2000000\n";
        let text = [
            "[listen.tls]\ncertificate = 'c'\nkey = 'k'\n".to_owned(),
            cluster("a", ""),
            cluster("b", own),
            cluster("c", ""),
        ];
        let config = Config::parse(&text.concat(), "k.toml", Path::new(""), &|_| None).unwrap();
        let [a, b, c] = &config.clusters[..] else {
            panic!("three")
        };
        let shares = Shares::default();
        assert_eq!((shares.of(&config), shares.of(b)), (1, 1));
        assert_eq!((shares.of(a), shares.of(c), shares.of(a)), (1, 2, 2));
        let mut changes = shares.changes();
        assert_eq!((shares.of(c), shares.of(b)), (2, 1));
        assert!(!changes.has_changed().unwrap(), "nothing has");
        shares.leave(c.tenant.as_ref().unwrap().id);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(shares.of(a), 1);
    }
}
