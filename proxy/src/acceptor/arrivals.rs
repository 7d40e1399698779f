//! Connections that were given to a worker which has not begun with them.
//!
//! A worker takes a few new clients between two looks at its sockets. Whoever is accepted before it can
//! take them only waits elsewhere than in the system's queue, and accepting them takes the core from the worker
//! and from everyone whom it serves. So a worker is given no more than it takes at once, and one that
//! is busy is given none.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Notify;

/// New clients that a worker takes in between two looks at its sockets, 20 us each, and that may wait
/// for it.
pub(crate) const ARRIVALS: usize = 8;

/// Who waits for which worker; shared by the acceptor and the workers.
#[derive(Debug)]
pub(super) struct Arrivals {
    waiting: Box<[AtomicUsize]>,
    /// A worker has begun with all that it was given.
    taken: Notify,
}

impl Arrivals {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            taken: Notify::new(),
        })
    }

    /// Whether this worker may be given one more.
    pub(super) fn has_room(&self, worker: usize) -> bool {
        let waiting = self.waiting.get(worker);
        waiting.is_none_or(|waiting| waiting.load(Relaxed) < ARRIVALS)
    }

    /// Waits until one of the workers may be given one more.
    pub(super) async fn room(&self) {
        loop {
            let taken = self.taken.notified();
            if (0..self.waiting.len()).any(|worker| self.has_room(worker)) {
                return;
            }
            taken.await;
        }
    }

    /// One more waits for this worker.
    pub(super) fn arrives(self: &Arc<Self>, worker: usize) -> Arrival {
        if let Some(waiting) = self.waiting.get(worker) {
            waiting.fetch_add(1, Relaxed);
        }
        Arrival(Arc::clone(self), worker)
    }
}

/// A connection that waits for a worker, until this is dropped.
#[derive(Debug)]
pub struct Arrival(Arc<Arrivals>, usize);

impl Drop for Arrival {
    fn drop(&mut self) {
        let Self(arrivals, worker) = self;
        let waiting = arrivals.waiting.get(*worker);
        if waiting.is_some_and(|waiting| waiting.fetch_sub(1, Relaxed) == 1) {
            arrivals.taken.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_worker_is_given_no_more_than_it_takes_at_once() {
        let arrivals = Arrivals::new(2);
        let [mut first, second] =
            [0, 1].map(|worker| Vec::from([(); ARRIVALS].map(|()| arrivals.arrives(worker))));
        assert!(!arrivals.has_room(0) && !arrivals.has_room(1));
        let soon = Duration::from_millis(20);
        timeout(soon, arrivals.room())
            .await
            .expect_err("there is none");
        // It has begun with all but one.
        first.truncate(1);
        assert!(arrivals.has_room(0));
        timeout(soon, arrivals.room()).await.expect("there is some");
        drop(second);
    }

    #[tokio::test]
    async fn all_who_wait_hear_of_it() {
        let arrivals = Arrivals::new(1);
        let given = [(); ARRIVALS].map(|()| arrivals.arrives(0));
        let waiting = async { tokio::join!(arrivals.room(), arrivals.room()) };
        let taken = async {
            tokio::task::yield_now().await;
            drop(given);
        };
        let limit = Duration::from_secs(5);
        timeout(limit, async { tokio::join!(waiting, taken) })
            .await
            .expect("both ports go on");
    }
}
