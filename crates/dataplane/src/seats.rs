//! How many clients each user has, over all workers, and how much they ask for. Users are those that clients have named, by
//! `AUTH` or by a certificate; whoever has named none is not counted here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What may come at once after a pause: so much time's worth.
const BURST: Duration = Duration::from_secs(1);

/// The seats of all users; shared by all workers.
#[derive(Debug, Default)]
pub struct Seats {
    /// For each user; 0 is any number.
    max: AtomicUsize,
    /// Commands and bytes in a second, of all clients of a user together; 0 is any number.
    rates: [AtomicU64; 2],
    /// The same of all clients of the cluster together, whoever they are.
    rates_of_all: [AtomicU64; 2],
    /// Whether there are any.
    bounded: AtomicBool,
    all_paid_at: Mutex<PaidAt>,
    /// Bounded: a user that has had a client is one that the cluster has accepted.
    users: Mutex<HashMap<Arc<[u8]>, Arc<Account>>>,
}

/// What a user has and has had.
#[derive(Debug, Default)]
struct Account {
    clients: AtomicUsize,
    paid_at: Mutex<PaidAt>,
}

/// When what was asked for is paid: commands, bytes.
type PaidAt = [Option<Instant>; 2];

/// A client's seat. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    name: Arc<[u8]>,
    account: Arc<Account>,
}

impl Seats {
    /// Every user has so many from now on; who has one keeps it. 0 is any number.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Every user may have so many commands and bytes in a second from now on. 0 is any number.
    pub fn set_rates(&self, commands: u64, bytes: u64) {
        for (rate, new) in self.rates.iter().zip([commands, bytes]) {
            rate.store(new, Relaxed);
        }
    }

    /// All clients together may have so many commands and bytes in a second from now on. 0 is any
    /// number.
    pub fn set_rates_of_all(&self, commands: u64, bytes: u64) {
        for (rate, new) in self.rates_of_all.iter().zip([commands, bytes]) {
            rate.store(new, Relaxed);
        }
        self.bounded.store(commands > 0 || bytes > 0, Relaxed);
    }

    /// Which rate all clients together exceed now, if one.
    #[inline]
    pub(crate) fn exceed(&self, now: Instant) -> Option<(u64, &'static str)> {
        if !self.bounded.load(Relaxed) {
            return None;
        }
        let rates = self.rates_of_all.each_ref().map(|rate| rate.load(Relaxed));
        exceeded(rates, &lock(&self.all_paid_at), now)
    }

    /// A command was taken, or refused because of the rate of all: that costs nothing.
    #[inline]
    pub(crate) fn charge_request(&self, bytes: usize, now: Instant) {
        if self.bounded.load(Relaxed) && self.exceed(now).is_none() {
            self.charge(1, bytes, now);
        }
    }

    /// All clients together have had so many commands and bytes.
    #[inline]
    pub(crate) fn charge(&self, commands: u64, bytes: usize, now: Instant) {
        if self.bounded.load(Relaxed) {
            let rates = self.rates_of_all.each_ref().map(|rate| rate.load(Relaxed));
            pay(rates, &mut lock(&self.all_paid_at), commands, bytes, now);
        }
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
        let account = Arc::clone(self.users().entry(Arc::clone(name)).or_default());
        let one_more = |clients: usize| (clients < max).then_some(clients.saturating_add(1));
        account
            .clients
            .fetch_update(Relaxed, Relaxed, one_more)
            .ok()?;
        Some(Seat {
            seats: Arc::clone(self),
            name: Arc::clone(name),
            account,
        })
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Arc<[u8]>, Arc<Account>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether it is this user's.
    pub(crate) fn is_of(&self, name: &[u8]) -> bool {
        *self.name == *name
    }

    /// Which rate the user exceeds now, if one: how much it may have in a second, and of what.
    #[inline]
    pub(crate) fn exceeds(&self, now: Instant) -> Option<(u64, &'static str)> {
        exceeded(self.rates()?, &lock(&self.account.paid_at), now)
    }

    /// A command of the user was taken, or refused because of its rate: that costs nothing, or whoever
    /// tries again too early would never be let in.
    #[inline]
    pub(crate) fn charge_request(&self, bytes: usize, now: Instant) {
        if self.exceeds(now).is_none() {
            self.charge(1, bytes, now);
        }
    }

    /// The user has had so many commands and bytes.
    #[inline]
    pub(crate) fn charge(&self, commands: u64, bytes: usize, now: Instant) {
        let Some(rates) = self.rates() else { return };
        pay(
            rates,
            &mut lock(&self.account.paid_at),
            commands,
            bytes,
            now,
        );
    }

    /// `None`: there are no bounds.
    fn rates(&self) -> Option<[u64; 2]> {
        let rates = self.seats.rates.each_ref().map(|rate| rate.load(Relaxed));
        (rates != [0, 0]).then_some(rates)
    }
}

fn lock(paid_at: &Mutex<PaidAt>) -> MutexGuard<'_, PaidAt> {
    paid_at.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which rate is exceeded now, if one: how much there may be in a second, and of what.
fn exceeded(rates: [u64; 2], paid_at: &PaidAt, now: Instant) -> Option<(u64, &'static str)> {
    let all = rates.into_iter().zip(paid_at).zip(["commands", "bytes"]);
    all.filter(|((rate, _), _)| *rate > 0)
        .find(|((_, paid_at), _)| paid_at.is_some_and(|paid_at| paid_at > now + BURST))
        .map(|((rate, _), what)| (rate, what))
}

fn pay(rates: [u64; 2], paid_at: &mut PaidAt, commands: u64, bytes: usize, now: Instant) {
    let costs = [commands, u64::try_from(bytes).unwrap_or(u64::MAX)];
    for ((rate, cost), paid_at) in rates.into_iter().zip(costs).zip(paid_at) {
        let nanos = cost.saturating_mul(1_000_000_000).checked_div(rate);
        let time = Duration::from_nanos(nanos.unwrap_or_default());
        *paid_at = Some(paid_at.unwrap_or(now).max(now) + time);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.account.clients.fetch_sub(1, Relaxed);
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
        assert!(seats.take(&one).is_some());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn the_rate_of_all_is_of_users_and_of_nobody_together() {
        let seats = Seats::default();
        let now = Instant::now();
        seats.charge_request(1_000_000, now);
        assert_eq!(seats.exceed(now), None, "there is no bound");
        seats.set_rates_of_all(10, 0);
        (0..11).for_each(|_| seats.charge_request(1, now));
        assert_eq!(seats.exceed(now), Some((10, "commands")));
        seats.charge_request(1, now); // refused, so it costs nothing
        assert_eq!(seats.exceed(now + Duration::from_millis(101)), None);
        seats.set_rates_of_all(0, 0);
        assert_eq!(seats.exceed(now), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_rate_is_of_all_clients_of_a_user_and_outlives_them() {
        let seats = Arc::new(Seats::default());
        let [one, other]: [Arc<[u8]>; 2] = [b"one"[..].into(), b"other"[..].into()];
        let now = Instant::now();
        let [first, second] = [(); 2].map(|()| seats.take(&one).unwrap());
        first.charge(1_000_000, 0, now);
        assert_eq!(second.exceeds(now), None, "there is no bound");
        seats.set_rates(10, 1000);
        first.charge(10, 0, now);
        assert_eq!(
            second.exceeds(now),
            None,
            "a second's worth may come at once"
        );
        second.charge(1, 100, now);
        assert_eq!(first.exceeds(now), Some((10, "commands")));
        second.charge_request(100, now); // refused, so it costs nothing
        assert_eq!(seats.take(&other).unwrap().exceeds(now), None);
        drop((first, second));
        let back = seats.take(&one).unwrap();
        assert!(back.exceeds(now).is_some(), "by coming back nothing is won");
        let later = now + Duration::from_millis(101);
        assert_eq!(back.exceeds(later), None);
        back.charge(0, 5000, later);
        assert_eq!(back.exceeds(later), Some((1000, "bytes")));
        assert_eq!(back.exceeds(later + Duration::from_secs(5)), None);
    }
}
