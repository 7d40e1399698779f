//! Rows that are never taken out, by index.

use std::ops::{Index, IndexMut};
use std::slice::{Iter, IterMut};

/// A list whose indices are given out once and stay true. One that was never given out is a fault of
/// the simulator's own, and ends it.
#[derive(Clone, Debug)]
pub(super) struct Table<T>(Vec<T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    /// Adds a row; returns its index.
    pub(super) fn add(&mut self, row: T) -> usize {
        self.0.push(row);
        self.0.len() - 1
    }

    /// Rows.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> Iter<'_, T> {
        self.0.iter()
    }

    /// All of them, in order, to change.
    pub(super) fn iter_mut(&mut self) -> IterMut<'_, T> {
        self.0.iter_mut()
    }
}

impl<T> FromIterator<T> for Table<T> {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl<T> Index<usize> for Table<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        self.0.get(index).expect("an index that was given out")
    }
}

impl<T> IndexMut<usize> for Table<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        self.0.get_mut(index).expect("an index that was given out")
    }
}
