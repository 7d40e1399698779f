//! How many clients there may be, and how many in their handshake.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep};

use crate::config::Limits;

/// The places there are; shared by the acceptor, which gives them, and the workers, whose
/// connections give them back.
#[derive(Debug)]
pub(super) struct Places {
    clients: AtomicUsize,
    clients_max: AtomicUsize,
    /// Clients by where they come from, and how many there may be from one; 0 is any number.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    per_address_max: AtomicUsize,
    handshakes_max: AtomicUsize,
    /// A handshake that has not ended after this long may lose its place to another; one that has
    /// not even said what it wants, after a fifth of it.
    patience: Duration,
    handshakes: Mutex<Handshakes>,
    /// A handshake has ended.
    freed: Notify,
}

/// Handshakes in progress, by their numbers: the oldest first.
#[derive(Debug, Default)]
struct Handshakes {
    next: u64,
    by_age: BTreeMap<u64, Arc<Handshake>>,
}

impl Handshakes {
    fn begin(&mut self) -> Arc<Handshake> {
        let handshake = Arc::new(Handshake {
            number: self.next,
            began: Instant::now(),
            speaks: AtomicBool::new(false),
            over: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        self.next += 1;
        self.by_age.insert(handshake.number, Arc::clone(&handshake));
        handshake
    }

    /// The one that loses its place next, and when. It is looked for at the old end alone: nobody who
    /// is younger than one that is silent loses its place before that one.
    fn next_ripe(&self, patience: Duration) -> Option<(u64, Duration)> {
        let mut next: Option<(u64, Duration)> = None;
        for handshake in self.by_age.values() {
            let left = handshake.left(patience);
            if next.is_none_or(|(_, least)| left < least) {
                next = Some((handshake.number, left));
            }
            if left.is_zero() || !handshake.speaks.load(Relaxed) {
                break;
            }
        }
        next
    }

    /// Takes the place of the oldest that had time enough. Returns whether there was one.
    fn evict_ripe(&mut self, patience: Duration) -> bool {
        let next = self.next_ripe(patience);
        let ripe = next.filter(|(_, left)| left.is_zero());
        ripe.is_some_and(|(number, _)| self.evict(number))
    }

    fn evict_oldest(&mut self) -> bool {
        let oldest = self.by_age.keys().next().copied();
        oldest.is_some_and(|number| self.evict(number))
    }

    fn evict(&mut self, number: u64) -> bool {
        let evicted = self.by_age.remove(&number);
        if let Some(handshake) = &evicted {
            handshake.over.store(true, Relaxed);
            handshake.evicted.notify_one();
        }
        evicted.is_some()
    }
}

#[derive(Debug)]
struct Handshake {
    number: u64,
    began: Instant,
    /// The client's hello is there: what takes time from now on may be us.
    speaks: AtomicBool,
    over: AtomicBool,
    evicted: Notify,
}

impl Handshake {
    /// For how long it cannot lose its place yet.
    fn left(&self, patience: Duration) -> Duration {
        let patience = if self.speaks.load(Relaxed) {
            patience
        } else {
            patience / 5
        };
        patience.saturating_sub(self.began.elapsed())
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    All,
    /// All that one address may have.
    Address,
}

/// Whose addresses count as one: in IPv6, everyone has 64 bits to choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// A client's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Places>,
    address: IpAddr,
    handshake: Arc<Handshake>,
}

impl Admission {
    /// The place of a client that no other takes places from.
    #[must_use]
    pub fn alone() -> Option<Self> {
        let nowhere = IpAddr::from([127, 0, 0, 1]);
        Places::new(1, 1, Duration::MAX).admit(nowhere).ok()
    }

    /// Waits until the acceptor wants this handshake's place for another client.
    pub async fn evicted(&self) {
        self.handshake.evicted.notified().await;
    }

    /// The client has said what it wants.
    pub fn client_speaks(&self) {
        self.handshake.speaks.store(true, Relaxed);
    }

    /// The handshake is over, well or not.
    pub fn handshake_done(&mut self) {
        if !self.handshake.over.swap(true, Relaxed) {
            self.places.lock().by_age.remove(&self.handshake.number);
            self.places.freed.notify_one();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.handshake_done();
        self.places.clients.fetch_sub(1, Relaxed);
        self.places.uncount(self.address);
    }
}

impl Places {
    pub(super) fn new(clients_max: usize, handshakes_max: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            clients: AtomicUsize::new(0),
            clients_max: AtomicUsize::new(clients_max),
            addresses: Mutex::default(),
            per_address_max: AtomicUsize::new(0),
            handshakes_max: AtomicUsize::new(handshakes_max),
            patience,
            handshakes: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// There are so many from now on; who has one keeps it.
    pub(super) fn resize(&self, limits: &Limits) {
        let per_address_max = limits.clients_per_address_max.unwrap_or_default();
        self.clients_max.store(limits.clients_max, Relaxed);
        self.handshakes_max.store(limits.handshakes_max, Relaxed);
        self.per_address_max.store(per_address_max, Relaxed);
        self.freed.notify_one();
    }

    /// Places that are taken.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Waits until one more handshake may begin: because there is a place, or because one of those in
    /// progress had time enough. Until then the system keeps the clients that come; a burst of
    /// good clients waits, and does not push itself out.
    pub(super) async fn handshake_place(&self) {
        loop {
            let left = {
                let handshakes = self.lock();
                if handshakes.by_age.len() < self.handshakes_max.load(Relaxed) {
                    return;
                }
                handshakes.next_ripe(self.patience)
            };
            let left = left.map(|(_, left)| left).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = self.freed.notified() => {}
                () = sleep(left) => {}
            }
        }
    }

    /// A place for one more client. Where there is none, of handshakes or of clients, one that stalls
    /// in its handshake must not keep others out: it loses its own.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Result<Admission, Full> {
        let address = network(from);
        let mut handshakes = self.lock();
        let full = self.clients.fetch_add(1, Relaxed) >= self.clients_max.load(Relaxed);
        if full && !handshakes.evict_ripe(self.patience) {
            self.clients.fetch_sub(1, Relaxed);
            return Err(Full::All);
        }
        if !self.count(address) {
            self.clients.fetch_sub(1, Relaxed);
            return Err(Full::Address);
        }
        if handshakes.by_age.len() >= self.handshakes_max.load(Relaxed)
            && !handshakes.evict_ripe(self.patience)
        {
            handshakes.evict_oldest();
        }
        let handshake = handshakes.begin();
        drop(handshakes);
        Ok(Admission {
            places: Arc::clone(self),
            address,
            handshake,
        })
    }

    /// One more from there; false when it may have no more.
    fn count(&self, address: IpAddr) -> bool {
        let max = self.per_address_max.load(Relaxed);
        let mut addresses = self.addresses();
        let count = addresses.entry(address).or_default();
        if max > 0 && *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    fn uncount(&self, address: IpAddr) {
        let mut addresses = self.addresses();
        if let Some(count) = addresses.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Handshakes> {
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
    /// For tests that a slow machine must not hold up for as long.
    const MUCH_PATIENCE: Duration = Duration::from_secs(2);
    const HOME: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn a_place_comes_back() {
        let places = Places::new(2, 10, PATIENCE);
        let (one, _two) = (places.admit(HOME).unwrap(), places.admit(HOME).unwrap());
        assert!(places.admit(HOME).is_err());
        drop(one);
        assert!(places.admit(HOME).is_ok());
        assert_eq!(places.lock().by_age.len(), 1);
    }

    #[tokio::test]
    async fn the_oldest_handshake_makes_room() {
        let places = Places::new(10, 2, PATIENCE);
        let (first, mut second) = (places.admit(HOME).unwrap(), places.admit(HOME).unwrap());
        second.handshake_done();
        let third = places.admit(HOME).unwrap();
        let _fourth = places.admit(HOME).unwrap();
        first.evicted().await;
        drop(first);
        assert!(!third.handshake.over.load(Relaxed));
        assert_eq!(places.lock().by_age.len(), 2);
    }

    #[tokio::test]
    async fn a_young_handshake_is_not_pushed_out() {
        let places = Places::new(10, 1, PATIENCE);
        let silent = places.admit(HOME).unwrap();
        places.handshake_place().await;
        assert!(silent.handshake.began.elapsed() >= PATIENCE / 5);
        let speaking = places.admit(HOME).unwrap();
        silent.evicted().await;
        speaking.client_speaks();
        places.handshake_place().await;
        assert!(speaking.handshake.began.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn who_is_silent_gives_way_before_who_speaks() {
        let places = Places::new(10, 2, MUCH_PATIENCE);
        let speaking = places.admit(HOME).unwrap();
        speaking.client_speaks();
        let silent = places.admit(HOME).unwrap();
        places.handshake_place().await;
        let _third = places.admit(HOME).unwrap();
        silent.evicted().await;
        assert!(!speaking.handshake.over.load(Relaxed));
    }

    #[test]
    fn who_loses_its_place_next_is_among_the_oldest() {
        let places = Places::new(100, 100, MUCH_PATIENCE);
        let all: Vec<_> = (0..6).map(|_| places.admit(HOME).unwrap()).collect();
        let next = || {
            places
                .lock()
                .next_ripe(MUCH_PATIENCE)
                .map(|(number, _)| number)
        };
        assert_eq!(next(), Some(0));
        // Who speaks has longer, and the oldest of the others is next.
        all[0].client_speaks();
        all[1].client_speaks();
        assert_eq!(next(), Some(2));
        all[2..].iter().for_each(Admission::client_speaks);
        assert_eq!(next(), Some(0));
        drop(all);
        assert_eq!(next(), None);
    }

    #[tokio::test]
    async fn a_stalled_handshake_keeps_no_client_out() {
        let places = Places::new(2, 10, MUCH_PATIENCE);
        let mut served = places.admit(HOME).unwrap();
        served.handshake_done();
        let stalled = places.admit(HOME).unwrap();
        assert_eq!(places.admit(HOME).err(), Some(Full::All), "it is young");
        sleep(MUCH_PATIENCE / 5).await;
        let _third = places.admit(HOME).unwrap();
        stalled.evicted().await;
        drop(stalled);
        assert_eq!(places.clients(), 2);
    }

    #[tokio::test]
    async fn a_handshake_that_ends_makes_room_at_once() {
        let places = Places::new(10, 1, Duration::from_secs(60));
        let mut first = places.admit(HOME).unwrap();
        let waiting = timeout(Duration::from_secs(5), places.handshake_place());
        let (waited, ()) = tokio::join!(waiting, async { first.handshake_done() });
        waited.unwrap();
    }

    #[test]
    fn one_address_has_so_many_places_and_others_have_theirs() {
        let places = Places::new(10, 10, PATIENCE);
        places.resize(&Limits {
            clients_per_address_max: Some(2),
            ..Limits::default()
        });
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = places.admit(at("10.0.0.1")).unwrap();
        let _second = places.admit(at("::ffff:10.0.0.1")).unwrap();
        assert_eq!(places.admit(at("10.0.0.1")).err(), Some(Full::Address));
        let _other = places.admit(at("10.0.0.2")).unwrap();
        let _one = places.admit(at("2001:db8::1")).unwrap();
        let _same = places.admit(at("2001:db8::2")).unwrap();
        assert!(places.admit(at("2001:db8::3")).is_err());
        let _elsewhere = places.admit(at("2001:db8:0:1::3")).unwrap();
        assert_eq!(places.clients(), 6);
        drop(first);
        assert!(places.admit(at("10.0.0.1")).is_ok());
    }
}
