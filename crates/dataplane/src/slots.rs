//! A slab whose keys are never reused.

/// A position, and how often that position was taken before.
///
/// A reply that comes back for a client that has left finds nothing: never its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The position.
    pub index: u32,
    /// How often the position was taken before.
    pub generation: u32,
}

impl Key {
    /// Both numbers as one.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

#[derive(Debug)]
struct Position<T> {
    generation: u32,
    value: Option<T>,
}

/// Values under generational keys.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    positions: Vec<Position<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            positions: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.positions.push(Position {
                generation: 0,
                value: None,
            });
            u32::try_from(self.positions.len() - 1).unwrap_or(u32::MAX)
        });
        let mut key = Key {
            index,
            generation: 0,
        };
        if let Some(position) = self.positions.get_mut(at(index)) {
            key.generation = position.generation;
            position.value = Some(make(key));
        }
        key
    }

    /// The key of what has this position now, for [`Planted`](crate::Planted).
    pub(crate) fn whoever_is_at(&self, key: Key) -> Key {
        let position = self.positions.get(at(key.index));
        let generation = position.map_or(key.generation, |position| position.generation);
        Key { generation, ..key }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let position = self.positions.get(at(key.index))?;
        if position.generation == key.generation {
            position.value.as_ref()
        } else {
            None
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let position = self.positions.get_mut(at(key.index))?;
        if position.generation == key.generation {
            position.value.as_mut()
        } else {
            None
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let position = self.positions.get_mut(at(key.index))?;
        if position.generation != key.generation {
            return None;
        }
        let value = position.value.take()?;
        // A position whose generations are used up is never taken again.
        if let Some(next) = position.generation.checked_add(1) {
            position.generation = next;
            self.free.push(key.index);
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.stretch(0, self.positions.len())
    }

    /// The values at up to `count` positions, taken or not, beginning with `first`.
    pub(crate) fn stretch(&self, first: usize, count: usize) -> impl Iterator<Item = (Key, &T)> {
        let positions = self.positions.iter().enumerate().skip(first).take(count);
        positions.filter_map(|(index, position)| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let generation = position.generation;
            Some((Key { index, generation }, position.value.as_ref()?))
        })
    }

    /// All positions, taken or not.
    pub(crate) fn positions(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let positions = self.positions.iter_mut();
        positions.filter_map(|position| position.value.as_mut())
    }

    pub(crate) fn len(&self) -> usize {
        self.positions.len() - self.free.len()
    }
}

fn at(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_its_successor() {
        let mut slots = Slots::default();
        let first = slots.insert_with(|_| "first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert_with(|_| "second");
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }
}
