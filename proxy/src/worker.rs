//! A worker: what one thread does for one cluster, with a dataplane, and the tasks that move bytes
//! for it. The thread is the `hall`'s: it has one worker for each cluster.
//!
//! Every client and every node connection has a task of its own (`downstream`,
//! `upstream`). They share the dataplane through a `RefCell` that is only borrowed between
//! two polls, never across one. What the dataplane wants done is done here, after every call.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};

use dataplane::{Action, Attempt, Dataplane, Key};

use crate::{
    clock,
    config::Live,
    contract::{Shutdown, WorkerContext},
    net::{DriverFault, Reach},
    tls, upstream,
    users::ByCertificate,
};

mod audit;
mod counters;
mod exodus;
mod figures;
mod hall;
mod here;
mod host;
mod observer;
mod plane;
mod settings;
mod shared;
mod shares;
mod turns;
mod wakers;

pub(crate) use self::{
    counters::Counters,
    hall::Hall,
    settings::{mix, waiting_bytes_max},
    shared::{Shared, Worked},
};
use self::{exodus::Exodus, host::WorkerHost, turns::Clock, wakers::Wakers};
pub use self::{
    here::Here,
    observer::Observer,
    plane::{Handle, Plane},
};

/// Bytes read from a socket at a time; one buffer for each worker.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What a worker is told by the others of its cluster.
pub(crate) enum Mail {
    /// A client of another worker has shown a script.
    Script(bytes::Bytes),
    /// A client of another worker has had all scripts forgotten.
    ScriptsForgotten,
    /// A client of another worker asks about all clients.
    Question {
        /// That worker.
        worker: usize,
        /// Its client, and the client's id.
        client: (Key, u64),
        inquiry: Box<session::local::Inquiry>,
    },
    /// What another worker says to the question of a client.
    Answer(Key, dataplane::Answer),
}

/// Buffers that all tasks of a thread share: each is used between two polls only.
#[derive(Clone)]
struct Buffers {
    scratch: Rc<RefCell<Box<[u8]>>>,
    cipher: Rc<RefCell<Vec<u8>>>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            scratch: Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice())),
            cipher: Rc::default(),
        }
    }
}

/// What the tasks of one worker share.
pub(crate) struct Worker {
    index: usize,
    pub(crate) config: Live,
    pub(crate) by_certificate: RefCell<ByCertificate>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) downstream_tls: tls::ServerTls,
    pub(crate) upstream_tls: Option<tls::UpstreamTls>,
    pub(crate) reach: Reach,
    pub(crate) driver_fault: Option<DriverFault>,
    pub(crate) metrics: Rc<crate::metrics::WorkerMetrics>,
    pub(crate) log: LogBudget,
    pub(crate) exodus: Exodus,
    shutdown: Shutdown,
    plane: RefCell<Dataplane<WorkerHost>>,
    clock: Clock,
    clients: RefCell<Wakers<Key>>,
    channels: RefCell<Wakers<Attempt>>,
    buffers: Buffers,
    actions: RefCell<Vec<Action>>,
    uncork: Notify,
}

impl Worker {
    /// The time, for one poll of a task.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Calls the dataplane, then does what it wants done.
    pub(crate) fn with<R>(
        self: &Rc<Self>,
        call: impl FnOnce(&mut Dataplane<WorkerHost>) -> R,
    ) -> R {
        let mut actions = self.actions.take();
        let result = {
            let mut plane = self.plane.borrow_mut();
            let result = call(&mut plane);
            plane.take_actions(&mut actions);
            result
        };
        for action in actions.drain(..) {
            self.act(action);
        }
        self.actions.replace(actions);
        result
    }

    /// Asks the dataplane.
    pub(crate) fn ask<R>(&self, question: impl FnOnce(&Dataplane<WorkerHost>) -> R) -> R {
        question(&self.plane.borrow())
    }

    /// Lends the buffer that sockets are read into.
    pub(crate) fn scratch(&self) -> std::cell::RefMut<'_, Box<[u8]>> {
        self.buffers.scratch.borrow_mut()
    }

    /// Lends the buffer that is encrypted into.
    pub(crate) fn cipher(&self) -> std::cell::RefMut<'_, Vec<u8>> {
        self.buffers.cipher.borrow_mut()
    }

    /// Has the task of a client woken by the dataplane.
    pub(crate) fn watch_client(&self, key: Key, waker: &std::task::Waker) {
        self.clients.borrow_mut().set(key.index, key, waker);
    }

    /// Has the task of a node connection woken by the dataplane.
    pub(crate) fn watch_channel(&self, attempt: Attempt, waker: &std::task::Waker) {
        self.channels
            .borrow_mut()
            .set(attempt.channel.index, attempt, waker);
    }

    /// Does this until the worker ends: a task that holds the worker would keep it for ever.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let shutdown = self.shutdown.clone();
        tokio::task::spawn_local(async move {
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                () = task => {}
            }
        });
    }

    /// What another worker has to say.
    fn read(self: &Rc<Self>, mail: Mail) {
        let now = self.now();
        match mail {
            Mail::Script(body) => self.with(|plane| plane.script_shown(&body)),
            Mail::ScriptsForgotten => self.with(Dataplane::scripts_forgotten),
            Mail::Answer(client, answer) => {
                self.with(|plane| plane.answered(client, answer, now));
            }
            Mail::Question {
                worker,
                client: (client, id),
                inquiry,
            } => {
                let answer = self.with(|plane| plane.answer(&inquiry, id, now));
                self.shared.tell(worker, Mail::Answer(client, answer));
            }
        }
    }

    fn act(self: &Rc<Self>, action: Action) {
        match action {
            Action::Uncork => self.uncork.notify_one(),
            Action::WakeClient(key) => self.clients.borrow().wake(key.index, key),
            Action::WakeChannel(_) if self.driver_fault == Some(DriverFault::WakeIsLost) => {}
            Action::WakeChannel(attempt) | Action::Drop(attempt) => {
                self.channels.borrow().wake(attempt.channel.index, attempt);
            }
            Action::Connect { attempt, addr } => {
                tokio::task::spawn_local(upstream::run(Rc::clone(self), attempt, addr));
            }
            Action::Script(body) => {
                self.shared
                    .tell_others(self.index, || Mail::Script(body.clone()));
            }
            Action::AskWorkers {
                client,
                id,
                inquiry,
            } => self.shared.tell_others(self.index, || Mail::Question {
                worker: self.index,
                client: (client, id),
                inquiry: inquiry.clone(),
            }),
            Action::ScriptsForgotten => {
                self.shared
                    .tell_others(self.index, || Mail::ScriptsForgotten);
            }
            Action::WatchReaders => self.shared.want_readers(),
            Action::Count => self.shared.ask_to_count(),
            Action::Refresh => self.shared.ask_for_look(),
            Action::Moved { slot, to } => self.shared.tell_moved(slot, to),
        }
    }
}

/// Lines about single clients and node connections are limited: whoever connects ten thousand
/// times must not fill the disk.
#[derive(Debug)]
pub(crate) struct LogBudget {
    since: Cell<Instant>,
    used: Cell<u32>,
}

/// Such lines in a second.
const LINES_MAX: u32 = 20;

impl LogBudget {
    fn new() -> Self {
        Self {
            since: Cell::new(clock::now()),
            used: Cell::new(0),
        }
    }

    /// Whether one more line may be written; says once a second how many were not.
    pub(crate) fn allows(&self) -> bool {
        let now = clock::now();
        if now.duration_since(self.since.get()) >= Duration::from_secs(1) {
            let left_out = self.used.get().saturating_sub(LINES_MAX);
            if left_out > 0 {
                tracing::info!(
                    left_out,
                    "more lines about single connections were left out"
                );
            }
            self.since.set(now);
            self.used.set(0);
        }
        self.used.set(self.used.get().saturating_add(1));
        self.used.get() <= LINES_MAX
    }
}

/// A worker whose own tasks run.
fn begin(
    context: WorkerContext,
    shared: Arc<Shared>,
    clock: Clock,
    buffers: Buffers,
) -> Rc<Worker> {
    let WorkerContext {
        cluster: _,
        index,
        config,
        downstream_tls,
        upstream_tls,
        reach,
        metrics,
        shutdown,
    } = context;
    let first = config.get();
    let metrics = Rc::new(metrics);
    let counters = Arc::new(Counters::default());
    shared.add_counters(&counters);
    let host = WorkerHost::new(
        Rc::clone(&metrics),
        Arc::clone(&shared),
        Arc::clone(&counters),
        mix(shared.seed ^ u64::try_from(index).unwrap_or_default()),
    );
    let settings = settings::of(&first, &shared, index);
    let table = Arc::clone(&shared.table);
    let mut plane = Dataplane::new(settings, table, host, clock::now());
    let traced = plane.host().tell_as(&first);
    plane.follow(true, traced);
    let worker = Rc::new(Worker {
        index,
        by_certificate: RefCell::new(ByCertificate::new(&first.users)),
        config,
        shared,
        counters,
        downstream_tls,
        upstream_tls,
        driver_fault: reach.net.driver_fault(),
        reach,
        metrics,
        log: LogBudget::new(),
        exodus: Exodus::default(),
        shutdown,
        plane: RefCell::new(plane),
        clock,
        clients: RefCell::default(),
        channels: RefCell::default(),
        buffers,
        actions: RefCell::default(),
        uncork: Notify::new(),
    });
    worker.spawn(uncork(Rc::clone(&worker)));
    worker.spawn(tick(Rc::clone(&worker)));
    worker.spawn(follow_view(Rc::clone(&worker)));
    worker.spawn(figures::show(Rc::clone(&worker)));
    // It tells the others of the end, and so must see it.
    let stages = worker.shutdown.stages();
    tokio::task::spawn_local(exodus::follow(Rc::clone(&worker), stages));
    worker.spawn(follow_config(Rc::clone(&worker)));
    worker.spawn(follow_trust(Rc::clone(&worker)));
    worker
}

/// Reads what other workers have to say, until the end.
async fn follow_mail(worker: Rc<Worker>, mut mail: mpsc::UnboundedReceiver<Mail>) {
    while let Some(mail) = mail.recv().await {
        worker.read(mail);
    }
}

async fn uncork(worker: Rc<Worker>) {
    loop {
        worker.uncork.notified().await;
        tokio::time::sleep(dataplane::UNCORK_AFTER).await;
        worker.with(|plane| plane.uncork(worker.now()));
    }
}

async fn tick(worker: Rc<Worker>) {
    loop {
        let interval = worker.ask(Dataplane::tick_interval);
        tokio::time::sleep(interval).await;
        worker.with(|plane| plane.tick(worker.now()));
    }
}

/// Does as another configuration says, and as another share of the memory does.
async fn follow_config(worker: Rc<Worker>) {
    let mut changes = worker.config.changes();
    let mut shares = worker.shared.shares.changes();
    loop {
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            Ok(()) = shares.changed() => {
                let settings = settings::of(&changes.borrow(), &worker.shared, worker.index);
                worker.with(|plane| plane.set_settings(settings, worker.now()));
                continue;
            }
        }
        let config = Arc::clone(&changes.borrow_and_update());
        let settings = settings::of(&config, &worker.shared, worker.index);
        worker
            .by_certificate
            .replace(ByCertificate::new(&config.users));
        worker.with(|plane| {
            let traced = plane.host().tell_as(&config);
            plane.follow(true, traced);
            plane.set_settings(settings, worker.now());
        });
        // Whether Valkey's default user is open depends on it too.
        worker.shared.ask_for_look();
    }
}

/// Has every client look whether it would still be let in.
async fn follow_trust(worker: Rc<Worker>) {
    let mut changes = worker.downstream_tls.trust_changes();
    while changes.changed().await.is_ok() {
        worker.clients.borrow().wake_all();
    }
}

async fn follow_view(worker: Rc<Worker>) {
    let mut changes = worker.shared.changes();
    loop {
        let view = worker.shared.view();
        worker.with(|plane| plane.set_view((*view).clone(), worker.now()));
        if changes.changed().await.is_err() {
            return;
        }
    }
}
