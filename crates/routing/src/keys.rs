//! Which keys a command touches, in a form that is cheap to keep while it is in flight.

use std::hash::{BuildHasher, Hasher};

use smallvec::SmallVec;

/// Fingerprints of a command's keys: 32 bits each, seeded per process.
///
/// Two commands conflict when they share a key. Equal keys always have equal fingerprints;
/// different keys collide once in four thousand million, which costs a wait and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    some: SmallVec<[u32; 2]>,
    /// Every key there is.
    all: bool,
}

impl Keys {
    /// No keys: conflicts with nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every key: conflicts with everything but no keys.
    #[must_use]
    pub fn all() -> Self {
        Self {
            some: SmallVec::new(),
            all: true,
        }
    }

    /// Adds another command's keys.
    pub fn extend(&mut self, other: &Self) {
        self.all |= other.all;
        for key in &other.some {
            if !self.some.contains(key) {
                self.some.push(*key);
            }
        }
    }

    /// Adds a key.
    pub fn push(&mut self, key: &[u8], hasher: &foldhash::fast::FixedState) {
        let mut state = hasher.build_hasher();
        state.write(key);
        self.push_hash(state.finish());
    }

    /// Adds a channel, or another name that is routed like a key: no key's, though it may be the same.
    pub fn push_channel(&mut self, name: &[u8], hasher: &foldhash::fast::FixedState) {
        let mut state = hasher.build_hasher();
        state.write_u8(1);
        state.write(name);
        self.push_hash(state.finish());
    }

    fn push_hash(&mut self, hash: u64) {
        self.some
            .push(u32::try_from((hash ^ (hash >> 32)) & 0xffff_ffff).unwrap_or_default());
    }

    /// Whether both name a key with the same fingerprint.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        if self.all || other.all {
            return !self.is_empty() && !other.is_empty();
        }
        self.some.iter().any(|key| other.some.contains(key))
    }

    /// The fingerprint of the one key that there is.
    #[inline]
    #[must_use]
    pub fn single(&self) -> Option<u32> {
        match self.some.as_slice() {
            [key] if !self.all => Some(*key),
            _ => None,
        }
    }

    /// The fingerprints of all keys that are named.
    pub fn fingerprints(&self) -> impl Iterator<Item = u32> + '_ {
        self.some.iter().copied()
    }

    /// Whether there is more than one, but not every key.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.some.len() > 1
    }

    /// Whether these are all keys there are.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.all
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.some.is_empty() && !self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Keys {
        let hasher = foldhash::fast::FixedState::with_seed(1);
        let mut keys = Keys::none();
        names
            .iter()
            .for_each(|name| keys.push(name.as_bytes(), &hasher));
        keys
    }

    #[test]
    fn a_channel_is_no_key() {
        let hasher = foldhash::fast::FixedState::with_seed(1);
        let mut channel = Keys::none();
        channel.push_channel(b"a", &hasher);
        assert!(channel.conflicts(&channel) && channel.conflicts(&Keys::all()));
        assert!(!channel.conflicts(&keys(&["a", "\u{1}a"])));
    }

    #[test]
    fn only_shared_keys_conflict() {
        assert!(keys(&["a", "b", "c"]).conflicts(&keys(&["x", "c"])));
        assert!(!keys(&["a", "b"]).conflicts(&keys(&["c", "d"])));
        assert!(!keys(&[]).conflicts(&keys(&["a"])));
        assert!(Keys::all().conflicts(&keys(&["a"])) && keys(&["a"]).conflicts(&Keys::all()));
        assert!(Keys::all().conflicts(&Keys::all()));
        assert!(!Keys::all().conflicts(&keys(&[])));
        let mut both = keys(&["a"]);
        both.extend(&keys(&["b"]));
        assert!(both.conflicts(&keys(&["b"])) && both.conflicts(&keys(&["a"])));
    }
}
