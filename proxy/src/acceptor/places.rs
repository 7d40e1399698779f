//! How many clients there may be, and how many in their handshake.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep};

/// The places there are; shared by the acceptor, which gives them, and the workers, whose
/// connections give them back.
#[derive(Debug)]
pub(super) struct Places {
    clients: AtomicUsize,
    clients_max: AtomicUsize,
    handshakes_max: AtomicUsize,
    /// A handshake that has not ended after this long may lose its place to another.
    patience: Duration,
    /// Handshakes in progress, oldest first.
    handshakes: Mutex<VecDeque<Arc<Handshake>>>,
    /// A handshake has ended.
    freed: Notify,
}

#[derive(Debug)]
struct Handshake {
    began: Instant,
    over: AtomicBool,
    evicted: Notify,
}

/// A client's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Places>,
    handshake: Arc<Handshake>,
}

impl Admission {
    /// Waits until the acceptor wants this handshake's place for another client.
    pub async fn evicted(&self) {
        self.handshake.evicted.notified().await;
    }

    /// The handshake is over, well or not.
    pub fn handshake_done(&mut self) {
        if !self.handshake.over.swap(true, Relaxed) {
            self.places
                .lock()
                .retain(|handshake| !Arc::ptr_eq(handshake, &self.handshake));
            self.places.freed.notify_one();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.handshake_done();
        self.places.clients.fetch_sub(1, Relaxed);
    }
}

impl Places {
    pub(super) fn new(clients_max: usize, handshakes_max: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            clients: AtomicUsize::new(0),
            clients_max: AtomicUsize::new(clients_max),
            handshakes_max: AtomicUsize::new(handshakes_max),
            patience,
            handshakes: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// There are so many from now on; who has one keeps it.
    pub(super) fn resize(&self, clients_max: usize, handshakes_max: usize) {
        self.clients_max.store(clients_max, Relaxed);
        self.handshakes_max.store(handshakes_max, Relaxed);
        self.freed.notify_one();
    }

    /// Places that are taken.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Waits until one more handshake may begin: because there is a place, or because the oldest
    /// handshake had time enough. Until then the system keeps the clients that come; a burst of
    /// good clients waits, and does not push itself out.
    pub(super) async fn handshake_place(&self) {
        loop {
            let oldest = {
                let handshakes = self.lock();
                if handshakes.len() < self.handshakes_max.load(Relaxed) {
                    return;
                }
                handshakes.front().map(|oldest| oldest.began)
            };
            let age = oldest.map_or(self.patience, |began| began.elapsed());
            if age >= self.patience {
                return;
            }
            tokio::select! {
                () = self.freed.notified() => {}
                () = sleep(self.patience.saturating_sub(age)) => {}
            }
        }
    }

    /// A place for one more client; `None` when there is none. A handshake beyond the limit takes
    /// the place of the oldest: who stalls must not keep others out.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admission> {
        if self.clients.fetch_add(1, Relaxed) >= self.clients_max.load(Relaxed) {
            self.clients.fetch_sub(1, Relaxed);
            return None;
        }
        let handshake = Arc::new(Handshake {
            began: Instant::now(),
            over: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        let mut handshakes = self.lock();
        if handshakes.len() >= self.handshakes_max.load(Relaxed)
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.over.store(true, Relaxed);
            oldest.evicted.notify_one();
        }
        handshakes.push_back(Arc::clone(&handshake));
        drop(handshakes);
        Some(Admission {
            places: Arc::clone(self),
            handshake,
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Handshake>>> {
        self.handshakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(60);

    #[test]
    fn a_place_comes_back() {
        let places = Places::new(2, 10, PATIENCE);
        let (one, _two) = (places.admit().unwrap(), places.admit().unwrap());
        assert!(places.admit().is_none());
        drop(one);
        assert!(places.admit().is_some());
        assert_eq!(places.lock().len(), 1);
    }

    #[tokio::test]
    async fn the_oldest_handshake_makes_room() {
        let places = Places::new(10, 2, PATIENCE);
        let (first, mut second) = (places.admit().unwrap(), places.admit().unwrap());
        second.handshake_done();
        let third = places.admit().unwrap();
        let _fourth = places.admit().unwrap();
        first.evicted().await;
        drop(first);
        assert!(!third.handshake.over.load(Relaxed));
        assert_eq!(places.lock().len(), 2);
    }

    #[tokio::test]
    async fn a_young_handshake_is_not_pushed_out() {
        let places = Places::new(10, 1, PATIENCE);
        let began = Instant::now();
        let _stalled = places.admit().unwrap();
        places.handshake_place().await;
        assert!(began.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn a_handshake_that_ends_makes_room_at_once() {
        let places = Places::new(10, 1, Duration::from_secs(60));
        let mut first = places.admit().unwrap();
        let waiting = timeout(Duration::from_secs(5), places.handshake_place());
        let (waited, ()) = tokio::join!(waiting, async { first.handshake_done() });
        waited.unwrap();
    }
}
