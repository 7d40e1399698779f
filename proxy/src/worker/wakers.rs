//! Which task to wake for a client or a node connection.

use std::task::Waker;

/// One waker for each position; `K` tells whose it is.
#[derive(Debug)]
pub(super) struct Wakers<K> {
    all: Vec<Option<(K, Waker)>>,
}

impl<K> Default for Wakers<K> {
    fn default() -> Self {
        Self { all: Vec::new() }
    }
}

impl<K: PartialEq> Wakers<K> {
    pub(super) fn set(&mut self, position: u32, of: K, waker: &Waker) {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        if position >= self.all.len() {
            self.all.resize_with(position.saturating_add(1), || None);
        }
        let Some(place) = self.all.get_mut(position) else {
            return;
        };
        match place {
            Some((known, current)) if *known == of && current.will_wake(waker) => {}
            _ => *place = Some((of, waker.clone())),
        }
    }

    pub(super) fn wake_all(&self) {
        for (_, waker) in self.all.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn wake(&self, position: u32, of: K) {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        if let Some(Some((known, waker))) = self.all.get(position)
            && *known == of
        {
            waker.wake_by_ref();
        }
    }
}
