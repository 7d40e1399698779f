//! Users that the configuration names: what they must say, and as whom they run.

use std::{collections::HashMap, sync::Arc};

use upstream::Credentials;

/// A user of the configuration.
#[derive(Clone, Debug)]
pub struct MappedUser {
    /// What the client must say in `AUTH`; `None` is a user that only a certificate can name.
    pub password: Option<Arc<[u8]>>,
    /// As whom its commands run on the cluster.
    pub runs_as: Credentials,
}

/// Users by name. A name that is not here is Valkey's business alone.
#[derive(Clone, Debug, Default)]
pub struct Users(HashMap<Arc<[u8]>, MappedUser>);

impl Users {
    /// The user of this name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&MappedUser> {
        self.0.get(name)
    }

    /// Whether `default` is here: then no client runs without a password.
    #[must_use]
    pub fn has_default(&self) -> bool {
        self.0.contains_key(&b"default"[..])
    }
}

impl FromIterator<(Arc<[u8]>, MappedUser)> for Users {
    fn from_iter<I: IntoIterator<Item = (Arc<[u8]>, MappedUser)>>(users: I) -> Self {
        Self(users.into_iter().collect())
    }
}
