//! What each of a client's own keys may hold. Only this client writes them, so its replies are in
//! the order of their effects.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::Violation;

/// One key. A value is the number that the client wrote there; 0 stands for none.
#[derive(Debug)]
struct Register {
    possible: BTreeSet<u64>,
    /// Writes that may still take effect: each once, at any time.
    ghosts: BTreeSet<u64>,
    /// Values that a new primary may have brought back, with the last one that had been sent by then.
    restored: BTreeMap<u64, u64>,
}

/// All keys of one client.
#[derive(Debug, Default)]
pub(crate) struct Registers(BTreeMap<String, Register>);

impl Registers {
    fn of(&mut self, key: &str) -> &mut Register {
        self.0.entry(key.to_owned()).or_insert_with(|| Register {
            possible: BTreeSet::from([0]),
            ghosts: BTreeSet::new(),
            restored: BTreeMap::new(),
        })
    }

    /// The write took effect.
    pub(crate) fn wrote(&mut self, key: &str, value: u64) {
        let register = self.of(key);
        register.possible = BTreeSet::from([value]);
        // It was sent to the new primary: what that had is over.
        register.restored.retain(|_, last| *last >= value);
    }

    /// The write took effect, or will, or never does.
    pub(crate) fn may_have_written(&mut self, key: &str, value: u64) {
        self.of(key).ghosts.insert(value);
    }

    /// A failover may have brought an older value back, when the client had sent values up to `last`.
    pub(crate) fn restored(&mut self, key: &str, value: u64, last: u64) {
        self.of(key).restored.insert(value, last);
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// How many of these keys are there, at least and at most.
    pub(crate) fn count(&mut self, keys: &[String]) -> (usize, usize) {
        let mut bounds = (0, 0);
        for key in keys {
            let register = self.of(key);
            let more = register.ghosts.iter().chain(register.restored.keys());
            let all = || register.possible.iter().chain(more.clone());
            bounds.0 += usize::from(all().all(|value| *value != 0));
            bounds.1 += usize::from(all().any(|value| *value != 0));
        }
        bounds
    }

    /// The key held this.
    pub(crate) fn read(&mut self, key: &str, value: u64) -> Result<(), Violation> {
        let register = self.of(key);
        let right = register.possible.contains(&value)
            || register.ghosts.remove(&value)
            || register.restored.contains_key(&value);
        if !right {
            return Err(format!("order: {key} holds number {value}: {register:?}"));
        }
        register.possible = BTreeSet::from([value]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ghost_appears_once() {
        let mut registers = Registers::default();
        registers.read("k", 0).unwrap();
        registers.may_have_written("k", 1);
        registers.wrote("k", 2);
        registers.read("k", 2).unwrap();
        registers.read("k", 1).unwrap();
        registers.wrote("k", 3);
        assert!(registers.read("k", 1).is_err());
        registers.restored("k", 2, 3);
        registers.read("k", 2).unwrap();
        registers.wrote("k", 3); // sent before the failover
        registers.read("k", 2).unwrap();
        registers.wrote("k", 4);
        assert!(registers.read("k", 2).is_err());
    }
}
