//! A worker's thread: one worker for each cluster, which may come and go, and the clients of whom it is not
//! known yet whose they are. Once that is known, a client is its worker's alone, and the hall has no more to do with it.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::{
    Buffers, LogBudget, Plane, Worker, begin, counters::Counters, follow_mail, mix, turns::Clock,
};
use crate::{
    acceptor::{ARRIVALS, Accepted},
    config::{ClusterId, Live},
    contract::{HallContext, Shutdown, WorkerContext},
    directory::Directory,
    downstream,
    metrics::WorkerMetrics,
    tls::ServerTls,
};

/// Clients whose end is seen to between two looks at the sockets: 28 us each, by the median of turns that had eight.
const DEPARTURES: usize = 2;
/// Handshakes that have run out of time end within this part of that time.
const SPREAD: u32 = 5;

/// What a thread of workers is told.
pub(super) enum Errand {
    /// Here is a client.
    Client(Accepted),
    /// There is one more cluster. Tell when it has a worker.
    Open(Box<WorkerContext>, std_mpsc::Sender<()>),
}

/// What the tasks of one thread share.
pub(crate) struct Hall {
    /// The configuration of the process.
    pub(crate) config: Live,
    /// For clients that have not named a cluster.
    pub(crate) downstream_tls: ServerTls,
    /// Counts those.
    pub(crate) metrics: Rc<WorkerMetrics>,
    pub(crate) log: LogBudget,
    pub(crate) shutdown: Shutdown,
    /// All clients of the thread.
    pub(crate) counters: Arc<Counters>,
    plane: Plane,
    clock: fn() -> Clock,
    clusters: RefCell<BTreeMap<ClusterId, Rc<Worker>>>,
    directory: RefCell<Directory>,
    buffers: Buffers,
    handshakes: Semaphore,
    departures: Semaphore,
    shaken: Cell<u64>,
}

impl Hall {
    /// The worker of a cluster.
    pub(crate) fn worker(&self, cluster: ClusterId) -> Option<Rc<Worker>> {
        self.clusters.borrow().get(&cluster).cloned()
    }

    /// The only cluster whose user a client's certificate names, of those that users choose.
    pub(crate) fn by_certificate(&self, certificate: &CertificateDer<'_>) -> Option<ClusterId> {
        let (directory, clusters) = (self.directory(), self.clusters.borrow());
        let mut found = clusters.iter().filter(|(cluster, worker)| {
            let user = worker.by_certificate.borrow().user(certificate);
            user.is_some_and(|user| directory.by_user(&user) == Some(**cluster))
        });
        let (cluster, _) = found.next()?;
        found.next().is_none().then_some(*cluster)
    }

    /// Who means which cluster.
    pub(crate) fn directory(&self) -> Ref<'_, Directory> {
        self.directory.borrow()
    }

    /// Lends the buffer that sockets are read into.
    pub(crate) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.buffers.scratch.borrow_mut()
    }

    /// Lends the buffer that is encrypted into.
    pub(crate) fn cipher(&self) -> RefMut<'_, Vec<u8>> {
        self.buffers.cipher.borrow_mut()
    }

    /// Waits for the turn of a step of a handshake: one is computed between two looks at the
    /// sockets, so that a storm of new clients does not keep those who are served from their
    /// turns. Keep what it returns until the step is done.
    pub(crate) async fn handshake_turn(&self) -> Option<SemaphorePermit<'_>> {
        turn(&self.handshakes).await
    }

    /// How long a handshake that begins now may take.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.shaken.set(self.shaken.get().wrapping_add(1));
        spread(
            self.config.get().limits.handshake_timeout,
            self.shaken.get(),
        )
    }

    /// Waits for the turn of a client that has left: when thousands leave at once, those who stay
    /// are served in between.
    pub(crate) async fn departure_turn(&self) {
        turn(&self.departures).await;
    }
}

/// `limit`, and up to a fifth on top of it, by chance: thousands that came at once, and stall, leave one after the
/// other, and whoever of them comes again is no longer in step with the others.
fn spread(limit: Duration, number: u64) -> Duration {
    let chance = (mix(number) >> 32) as u32; // the upper half
    let most = limit / SPREAD;
    limit + most.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// Waits for a place, and for the next look at the sockets.
async fn turn(places: &Semaphore) -> Option<SemaphorePermit<'_>> {
    let place = places.acquire().await.ok();
    tokio::task::yield_now().await;
    place
}

/// Serves what the acceptor gives, until the end.
pub(super) async fn run(
    context: HallContext,
    plane: Plane,
    counters: Arc<Counters>,
    mut errands: mpsc::UnboundedReceiver<Errand>,
) {
    let shutdown = context.shutdown.clone();
    let hall = open(context, plane, counters, Clock::of_turns);
    let requested = shutdown.requested();
    tokio::pin!(requested);
    let mut arrived = 0;
    loop {
        if arrived == ARRIVALS {
            arrived = 0;
            tokio::task::yield_now().await; // when thousands come at once, others are served in between
        }
        tokio::select! {
            biased;
            () = &mut requested => return,
            next = errands.recv() => match next {
                Some(Errand::Client(accepted)) => {
                    arrived += 1;
                    downstream::begin(&hall, accepted);
                }
                Some(Errand::Open(context, done)) => {
                    hall.open(*context);
                    let _ = done.send(()); // whoever waited for it has given up
                }
                None => return,
            },
        }
    }
}

/// A hall whose workers' own tasks run.
pub(super) fn open(
    context: HallContext,
    plane: Plane,
    counters: Arc<Counters>,
    clock: fn() -> Clock,
) -> Rc<Hall> {
    let hall = Rc::new(Hall {
        directory: RefCell::new(Directory::of(&context.config.get())),
        config: context.config,
        downstream_tls: context.downstream_tls,
        shutdown: context.shutdown,
        buffers: Buffers::new(),
        metrics: Rc::new(context.metrics),
        log: LogBudget::new(),
        counters,
        plane,
        clock,
        clusters: RefCell::default(),
        handshakes: Semaphore::new(1),
        departures: Semaphore::new(DEPARTURES),
        shaken: Cell::default(),
    });
    for context in context.clusters {
        hall.open(context);
    }
    tokio::task::spawn_local(follow_directory(Rc::clone(&hall)));
    hall
}

impl Hall {
    /// Has a worker for one more cluster, until that is over.
    fn open(self: &Rc<Self>, context: WorkerContext) {
        let (cluster, index) = (context.cluster, context.index);
        let Some(shared) = self.plane.shared_of(cluster) else {
            return; // it is gone already
        };
        let (sender, mail) = mpsc::unbounded_channel();
        shared.add_worker(index, sender);
        let shutdown = context.shutdown.clone();
        let worker = begin(context, shared, (self.clock)(), self.buffers.clone());
        worker.spawn(follow_mail(Rc::clone(&worker), mail));
        self.clusters.borrow_mut().insert(cluster, worker);
        let hall = Rc::clone(self);
        tokio::task::spawn_local(async move {
            shutdown.requested().await;
            hall.clusters.borrow_mut().remove(&cluster);
        });
    }
}

/// Learns how clusters are chosen when that changes.
async fn follow_directory(hall: Rc<Hall>) {
    let mut changes = hall.config.changes();
    while changes.changed().await.is_ok() {
        let directory = Directory::of(&changes.borrow_and_update());
        hall.directory.replace(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stalls_with_thousands_does_not_leave_with_them() {
        let limit = Duration::from_secs(5);
        let mut ends: Vec<_> = (0..2000).map(|number| spread(limit, number)).collect();
        ends.sort();
        assert!(ends.first() >= Some(&limit) && ends.last() <= Some(&(limit + limit / SPREAD)));
        // One second, in tenths.
        for tenth in 0..10 {
            let from = limit + Duration::from_millis(tenth * 100);
            let within = |end: &&Duration| (from..from + Duration::from_millis(100)).contains(*end);
            let ended = ends.iter().filter(within).count();
            assert!((150..250).contains(&ended), "{ended} in the tenth {tenth}");
        }
    }

    #[tokio::test]
    async fn few_take_their_turn_between_two_looks() {
        let places = Rc::new(Semaphore::new(DEPARTURES));
        let passed = Rc::new(Cell::new(0));
        tokio::task::LocalSet::new()
            .run_until(async {
                for _ in 0..100 {
                    let (places, passed) = (Rc::clone(&places), Rc::clone(&passed));
                    tokio::task::spawn_local(async move {
                        turn(&places).await;
                        passed.set(passed.get() + 1);
                    });
                }
                let mut before = 0;
                while passed.get() < 100 {
                    tokio::task::yield_now().await;
                    let now = passed.get();
                    assert!(now - before <= DEPARTURES, "{before} to {now} at once");
                    before = now;
                }
            })
            .await;
    }
}
