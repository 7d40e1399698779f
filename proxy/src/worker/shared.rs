//! What the workers and the discovery share: the view of the cluster, and what they ask of each
//! other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapAny;
use command::CommandTable;
use dataplane::{Audience, NodeFigures, Readers, Seats, Totals, View};
use tokio::sync::{Notify, mpsc, watch};
use topology::{NodeAddr, NodeId, Slot};

use super::{Mail, counters::Counters, shares::Shares};
use crate::{
    clock, config::Config, events::Events, heat::HeatBoard, outlets::Outlets, slow::SlowLog,
};

/// Slots said to have moved that the discovery has not heard of yet. More are forgotten: it
/// looks for itself.
const MOVED_MAX: usize = 1024;

/// What a node has done for its clients, as it counts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Worked {
    /// Commands.
    pub(crate) calls: u64,
    /// The time that they took.
    pub(crate) micros: u64,
}

/// Shared by the workers and the discovery.
pub(crate) struct Shared {
    /// The cluster's name, if it is one of several.
    pub(crate) name: Option<Box<str>>,
    view: ArcSwapAny<Arc<View>, RwLock<()>>,
    /// The built-in commands, and what is allowed of them.
    pub(crate) table: Arc<CommandTable>,
    /// How many clients each user has.
    pub(super) seats: Arc<Seats>,
    /// Who listens to what.
    pub(super) audience: Arc<Audience>,
    /// One for each who waits, told in this order: those who wait for one `watch` wake in any order, and
    /// a simulated run could not be repeated.
    changed: Mutex<Vec<watch::Sender<()>>>,
    look: Notify,
    moves: Notify,
    count: Notify,
    readers: Notify,
    moved: Mutex<Vec<(Slot, NodeAddr)>>,
    counters: RwLock<Vec<Arc<Counters>>>,
    workers: RwLock<Vec<(usize, mpsc::UnboundedSender<Mail>)>>,
    started: Instant,
    client_ids: AtomicU64,
    /// What changed in the cluster.
    pub(crate) events: Events,
    /// Commands that took long.
    pub(crate) slow: SlowLog,
    /// Where some commands are told of.
    pub(super) outlets: Outlets,
    /// With whom it shares memory.
    pub(super) shares: Shares,
    /// What all workers have counted.
    pub(crate) heat: HeatBoard,
    lags: Mutex<Arc<HashMap<NodeId, Duration>>>,
    /// What nodes say that commands took them, lately.
    worked: Mutex<Arc<HashMap<NodeAddr, Worked>>>,
    /// By worker.
    figures: Mutex<BTreeMap<usize, Arc<[NodeFigures]>>>,
    /// Different in every process, and hard to guess.
    pub(crate) seed: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        config: &Arc<Config>,
        seed: u64,
        (outlets, shares): (Outlets, Shares),
    ) -> Self {
        let default_user_open = config.users.iter().all(|user| &*user.name != "default");
        let mut table = CommandTable::builtin().clone();
        for name in &config.admin_commands {
            let _ = table.allow(name); // it may be the cluster's own
        }
        Self {
            name: config.tenant.as_ref().map(|tenant| tenant.name.clone()),
            view: ArcSwapAny::new(Arc::new(View::unknown(default_user_open))),
            table: Arc::new(table),
            seats: Arc::default(),
            audience: Arc::default(),
            changed: Mutex::default(),
            look: Notify::new(),
            moves: Notify::new(),
            count: Notify::new(),
            readers: Notify::new(),
            moved: Mutex::new(Vec::new()),
            counters: RwLock::new(Vec::new()),
            workers: RwLock::new(Vec::new()),
            started: clock::now(),
            client_ids: AtomicU64::new(1),
            seed,
            events: Events::default(),
            slow: SlowLog::default(),
            outlets,
            shares,
            heat: HeatBoard::default(),
            lags: Mutex::default(),
            worked: Mutex::default(),
            figures: Mutex::default(),
        }
    }

    pub(super) fn add_counters(&self, counters: &Arc<Counters>) {
        let mut all = self
            .counters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(counters));
    }

    pub(super) fn add_worker(&self, index: usize, sender: mpsc::UnboundedSender<Mail>) {
        let mut all = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        all.push((index, sender));
    }

    /// Tells all workers but this one.
    pub(super) fn tell_others(&self, index: usize, mail: impl Fn() -> Mail) {
        let all = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        for (_, sender) in all.iter().filter(|(other, _)| *other != index) {
            // A worker that has ended needs no mail.
            let _ = sender.send(mail());
        }
    }

    /// Tells one worker.
    pub(super) fn tell(&self, index: usize, mail: Mail) {
        let all = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sender)) = all.iter().find(|(worker, _)| *worker == index) {
            let _ = sender.send(mail); // it may have ended
        }
    }

    /// Clients of all workers.
    pub(crate) fn clients(&self) -> usize {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|worker| worker.connections()).sum()
    }

    pub(super) fn totals(&self) -> Totals {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Totals {
            clients: counters.iter().map(|worker| worker.connections()).sum(),
            connections: counters
                .iter()
                .map(|worker| worker.connections_ever())
                .sum(),
            commands: counters.iter().map(|worker| worker.commands()).sum(),
            used_memory: 0,
            uptime: clock::now().saturating_duration_since(self.started),
            unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The cluster as it was found last.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Says when [`Shared::view`] is another.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        let (sender, receiver) = watch::channel(());
        let mut all = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(sender);
        receiver
    }

    pub(crate) fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
        let mut all = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|waiting| waiting.send(()).is_ok());
    }

    /// What is known of the nodes that are read from; from the discovery's thread alone, as
    /// [`Shared::publish`] is.
    pub(crate) fn publish_readers(&self, readers: Readers) {
        let view = self.view();
        if *view.readers != readers {
            self.publish(View {
                readers: Arc::new(readers),
                ..(*view).clone()
            });
        }
    }

    /// A worker shows what it knows of its nodes.
    pub(super) fn show(&self, worker: usize, figures: Vec<NodeFigures>) {
        let mut all = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(worker, figures.into());
    }

    /// What each worker showed last.
    pub(super) fn shown(&self) -> Vec<Arc<[NodeFigures]>> {
        let all = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// How far replicas are behind, now.
    pub(crate) fn set_lags(&self, lags: HashMap<NodeId, Duration>) {
        *self.lags.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(lags);
    }

    /// How far replicas were behind when they were asked last.
    pub(super) fn lags(&self) -> Arc<HashMap<NodeId, Duration>> {
        Arc::clone(&self.lags.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What nodes have done in the last seconds.
    pub(crate) fn set_worked(&self, worked: HashMap<NodeAddr, Worked>) {
        *self.worked.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(worked);
    }

    /// What they said when they were asked last.
    pub(super) fn worked(&self) -> Arc<HashMap<NodeAddr, Worked>> {
        Arc::clone(&self.worked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that somebody reads from replicas.
    pub(crate) fn want_readers(&self) {
        self.readers.notify_one();
    }

    /// Waits for [`Shared::want_readers`].
    pub(crate) async fn readers_wanted(&self) {
        self.readers.notified().await;
    }

    /// Asks the discovery to look at the cluster soon.
    pub(crate) fn ask_for_look(&self) {
        self.look.notify_one();
    }

    /// Asks the discovery to add up what the nodes count.
    pub(crate) fn ask_to_count(&self) {
        self.count.notify_one();
    }

    /// Waits for [`Shared::ask_to_count`].
    pub(crate) async fn count_asked_for(&self) {
        self.count.notified().await;
    }

    /// Waits for [`Shared::tell_moved`].
    pub(crate) async fn moves_told(&self) {
        self.moves.notified().await;
    }

    /// Waits for [`Shared::ask_for_look`].
    pub(crate) async fn look_asked_for(&self) {
        self.look.notified().await;
    }

    /// Tells the discovery what a node has said.
    pub(crate) fn tell_moved(&self, slot: Slot, to: NodeAddr) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.len() < MOVED_MAX {
            moved.push((slot, to));
        }
        drop(moved);
        self.moves.notify_one();
    }

    pub(crate) fn take_moved(&self) -> Vec<(Slot, NodeAddr)> {
        std::mem::take(&mut self.moved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A `CLIENT ID` that no client has had: one sequence for all workers.
    pub(crate) fn next_client_id(&self) -> u64 {
        self.client_ids.fetch_add(1, Relaxed)
    }
}
