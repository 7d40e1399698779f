//! Who commands can run as.

use std::{collections::HashMap, time::Instant};

use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use upstream::Credentials;

use crate::slots::{Key, Slots};

/// A salted hash of a user name and a password.
pub(crate) type Fingerprint = [u8; 32];

/// A user with a password, as clients have named them.
#[derive(Debug)]
pub(crate) struct Identity {
    /// `None` is Valkey's `default` user without a password.
    pub(crate) credentials: Option<Credentials>,
    fingerprint: Option<Fingerprint>,
    /// Valkey has accepted the credentials, and is believed until then.
    pub(crate) accepted_until: Option<Instant>,
    /// The connection that will tell.
    pub(crate) checking: Option<Key>,
    /// Clients that wait for the verdict.
    pub(crate) waiters: SmallVec<[Key; 1]>,
    /// Clients that are this user.
    pub(crate) clients: usize,
}

/// Identities by key, and by what a client says.
#[derive(Debug)]
pub(crate) struct Identities {
    all: Slots<Identity>,
    by_fingerprint: HashMap<Fingerprint, Key>,
    salt: [u8; 16],
    /// Nobody in particular.
    pub(crate) nobody: Key,
    /// The proxy's own user; nobody, when it has none.
    pub(crate) service: Key,
    /// What that is when it has one, and has been before.
    own: Option<Key>,
}

impl Identities {
    pub(crate) fn new(service: Option<Credentials>, seed: u64) -> Self {
        let mut all = Slots::default();
        let nobody = all.insert_with(|_| Identity::new(None, None));
        let own =
            service.map(|credentials| all.insert_with(|_| Identity::new(Some(credentials), None)));
        let mut salt = [0; 16];
        let halves = [seed, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995];
        for (bytes, half) in salt.chunks_exact_mut(8).zip(halves) {
            bytes.copy_from_slice(&half.to_le_bytes());
        }
        Self {
            all,
            by_fingerprint: HashMap::new(),
            salt,
            nobody,
            service: own.unwrap_or(nobody),
            own,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Identity> {
        self.all.get_mut(key)
    }

    /// The proxy's own user is this from now on, or it has none. Returns the identity whose connections
    /// were set up for another.
    pub(crate) fn renew_service(&mut self, credentials: Option<Credentials>) -> Option<Key> {
        let Some(credentials) = credentials else {
            // Who is connected as it stays so.
            self.service = self.nobody;
            return None;
        };
        let own = match self.own {
            Some(own) => own,
            None => self.all.insert_with(|_| Identity::new(None, None)),
        };
        (self.own, self.service) = (Some(own), own);
        let service = self.all.get_mut(own)?;
        let differs = service.credentials.as_ref() != Some(&credentials);
        let before = service.credentials.replace(credentials);
        before.filter(|_| differs).map(|_| own)
    }

    pub(crate) fn credentials(&self, key: Key) -> Option<&Credentials> {
        self.all.get(key)?.credentials.as_ref()
    }

    /// The identity of these credentials; made if it is new.
    pub(crate) fn find(&mut self, credentials: &Credentials) -> Key {
        let fingerprint = self.fingerprint(&credentials.username, &credentials.password);
        if let Some(key) = self.by_fingerprint.get(&fingerprint) {
            return *key;
        }
        let key = self
            .all
            .insert_with(|_| Identity::new(Some(credentials.clone()), Some(fingerprint)));
        self.by_fingerprint.insert(fingerprint, key);
        key
    }

    fn fingerprint(&self, username: &[u8], password: &[u8]) -> Fingerprint {
        let length = u64::try_from(username.len()).unwrap_or(u64::MAX);
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(length.to_le_bytes());
        hash.update(username);
        hash.update(password);
        hash.finalize().into()
    }

    /// Whether two passwords are the same, in a time that tells nothing of either.
    pub(crate) fn same(&self, one: &[u8], other: &[u8]) -> bool {
        self.fingerprint(b"", one) == self.fingerprint(b"", other)
    }

    /// Forgets an identity that no client has or waits for. Nobody and the service user stay.
    pub(crate) fn forget_unused(&mut self, key: Key, now: Instant) -> bool {
        let Some(identity) = self.all.get(key) else {
            return false;
        };
        let believed = identity.accepted_until.is_some_and(|until| until > now);
        let used =
            identity.clients > 0 || !identity.waiters.is_empty() || identity.checking.is_some();
        let Some(fingerprint) = identity.fingerprint.filter(|_| !used && !believed) else {
            return false;
        };
        self.by_fingerprint.remove(&fingerprint);
        self.all.remove(key);
        true
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.all.iter().map(|(key, _)| key).collect()
    }
}

impl Identity {
    fn new(credentials: Option<Credentials>, fingerprint: Option<Fingerprint>) -> Self {
        Self {
            credentials,
            fingerprint,
            accepted_until: None,
            checking: None,
            waiters: SmallVec::new(),
            clients: 0,
        }
    }
}
