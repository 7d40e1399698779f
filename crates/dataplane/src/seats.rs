//! How many clients each user has, over all workers. Users are those that clients have named, by
//! `AUTH` or by a certificate; whoever has named none is not counted here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// The seats of all users; shared by all workers.
#[derive(Debug, Default)]
pub struct Seats {
    /// For each user; 0 is any number.
    max: AtomicUsize,
    taken: Mutex<HashMap<Arc<[u8]>, usize>>,
}

/// A client's seat. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    name: Arc<[u8]>,
}

impl Seats {
    /// Every user has so many from now on; who has one keeps it. 0 is any number.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// A seat for one more client of this user; `None` when all are taken.
    pub(crate) fn take(self: &Arc<Self>, name: &Arc<[u8]>) -> Option<Seat> {
        let max = self.max.load(Relaxed);
        self.take_of(name, if max == 0 { usize::MAX } else { max })
    }

    /// A seat for a client that has had one: it must not lose it by becoming itself again.
    pub(crate) fn keep(self: &Arc<Self>, name: &Arc<[u8]>) -> Option<Seat> {
        self.take_of(name, usize::MAX)
    }

    fn take_of(self: &Arc<Self>, name: &Arc<[u8]>, max: usize) -> Option<Seat> {
        let mut taken = self.taken();
        let count = taken.entry(Arc::clone(name)).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Seat {
            seats: Arc::clone(self),
            name: Arc::clone(name),
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Arc<[u8]>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether it is this user's.
    pub(crate) fn is_of(&self, name: &[u8]) -> bool {
        *self.name == *name
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(count) = taken.get_mut(&self.name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_so_many_and_they_come_back() {
        let seats = Arc::new(Seats::default());
        let [one, other]: [Arc<[u8]>; 2] = [b"one"[..].into(), b"other"[..].into()];
        let _before: Vec<_> = (0..3).map(|_| seats.take(&other).unwrap()).collect();
        seats.set_max(2);
        let first = seats.take(&one).unwrap();
        let _second = seats.take(&one).unwrap();
        assert!(seats.take(&one).is_none() && seats.take(&other).is_none());
        assert!(first.is_of(b"one") && !first.is_of(b"other"));
        drop(first);
        drop(seats.take(&one).unwrap());
        let third = seats.keep(&one);
        let fourth = seats.keep(&one);
        assert!(third.is_some() && fourth.is_some());
        drop((third, fourth));
        assert_eq!(seats.taken().len(), 2);
    }
}
