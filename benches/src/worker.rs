//! One thread of the generator: a current-thread runtime, a lane per target, orders in, acks out.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle as TaskHandle, JoinSet, LocalSet};

use crate::client::Client;
use crate::lane::{Lane, Phase, Progress, Scratch};
use crate::pace::{Arrivals, Schedule};
use crate::settings::Settings;
use crate::stats::{Latencies, Tally};
use crate::timer::FineTimer;
use crate::workload::Workload;

/// Filling every key is given up after this.
const FILL_TIMEOUT: Duration = Duration::from_secs(300);
/// The pacer sleeps so long at least: arrivals within it are handed out together.
const PACE_NS_MIN: u64 = 20_000;
/// Requests of a thread that are due and not sent at most; more stay in the schedule until there
/// is room. Bounds memory when a target is far too slow for the rate.
const BACKLOG_MAX: usize = 4_000_000;
/// Clients that do not end by themselves are ended after this.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What the coordinator wants of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Give every key a value.
    Fill,
    /// Drive one target until told otherwise.
    Run { target: usize, measured: bool },
    /// Send no more, wait for what is owed.
    Pause,
    /// End.
    Stop,
}

/// What a worker answers; each order but `Run` has one ack.
#[derive(Debug)]
pub(crate) enum Ack {
    /// All connections are made, or why not. Comes first, unasked.
    Connected(Result<(), String>),
    /// Every key has a value; false: given up.
    Filled(bool),
    /// The turn is over; so many replies came in it, after so long each if it was measured.
    Paused { replies: u64, latency: Latencies },
    /// The last ack: one tally per target.
    Finished(Vec<Tally>),
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) acks: mpsc::Receiver<Ack>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) thread: JoinHandle<io::Result<()>>,
}

impl Worker {
    /// Starts the thread numbered `index`; it begins to connect at once.
    pub(crate) fn start(settings: Arc<Settings>, index: u32) -> io::Result<Self> {
        let (orders, order_queue) = mpsc::channel(4);
        let (ack_queue, acks) = mpsc::channel(4);
        let progress = Arc::new(Progress::default());
        let shared = progress.clone();
        let thread = std::thread::Builder::new()
            .name(format!("load-{index}"))
            .spawn(move || work(&settings, index, &shared, order_queue, ack_queue))?;
        Ok(Self {
            orders,
            acks,
            progress,
            thread,
        })
    }
}

fn work(
    settings: &Arc<Settings>,
    index: u32,
    progress: &Arc<Progress>,
    mut orders: mpsc::Receiver<Order>,
    acks: mpsc::Sender<Ack>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut room = Room::open(settings, index, progress);
        let connected = room.all_connected().await;
        let failed = connected.is_err();
        if acks.send(Ack::Connected(connected)).await.is_err() || failed {
            return Ok(());
        }
        while let Some(order) = orders.recv().await {
            let ack = match order {
                Order::Fill => Some(room.fill().await),
                Order::Run { target, measured } => {
                    room.begin(target, measured)?;
                    None
                }
                Order::Pause => Some(room.pause().await?),
                Order::Stop => Some(room.stop().await),
            };
            if let Some(ack) = ack
                && acks.send(ack).await.is_err()
            {
                break;
            }
            if matches!(order, Order::Stop) {
                break;
            }
        }
        Ok(())
    })
}

/// An open loop's task, and its schedule, which outlives it to be settled.
struct Pacer {
    task: TaskHandle<io::Result<()>>,
    schedule: Rc<RefCell<Schedule>>,
}

/// Everything on one worker's thread.
struct Room {
    settings: Arc<Settings>,
    index: u32,
    lanes: Vec<Rc<Lane>>,
    clients: JoinSet<()>,
    /// The lane whose turn it is.
    turn: Option<Rc<Lane>>,
    turns: u64,
    pacer: Option<Pacer>,
}

impl Room {
    /// Makes the lanes and spawns this thread's clients.
    fn open(settings: &Arc<Settings>, index: u32, progress: &Arc<Progress>) -> Self {
        let scratch = Rc::new(RefCell::new(Scratch::new()));
        let connects = Rc::new(Semaphore::new(settings.connects_max as usize));
        let mut lanes = Vec::new();
        let mut clients = JoinSet::new();
        let mut first = 0;
        for target in &settings.targets {
            let mine: Vec<u32> = (0..target.clients)
                .filter(|client| client % settings.threads == index)
                .map(|client| first + client)
                .collect();
            first += target.clients;
            let lane = Rc::new(Lane::new(
                target.clone(),
                settings.pipeline,
                mine.len(),
                connects.clone(),
                scratch.clone(),
                progress.clone(),
            ));
            for (place, client) in mine.into_iter().enumerate() {
                let workload = Workload::new(settings.plan.clone(), client);
                clients.spawn_local(Client::new(lane.clone(), place, workload).live());
            }
            lanes.push(lane);
        }
        Self {
            settings: settings.clone(),
            index,
            lanes,
            clients,
            turn: None,
            turns: 0,
            pacer: None,
        }
    }

    async fn all_connected(&self) -> Result<(), String> {
        for lane in &self.lanes {
            lane.all_connected().await?;
        }
        Ok(())
    }

    async fn fill(&self) -> Ack {
        let all = async {
            for lane in &self.lanes {
                lane.begin_turn(false);
                lane.enter(Phase::Fill);
            }
            for lane in &self.lanes {
                lane.all_filled().await;
            }
        };
        let filled = tokio::time::timeout(FILL_TIMEOUT, all).await.is_ok();
        for lane in &self.lanes {
            lane.enter(Phase::Idle);
        }
        Ack::Filled(filled)
    }

    fn begin(&mut self, target: usize, measured: bool) -> io::Result<()> {
        let Some(lane) = self.lanes.get(target).cloned() else {
            return Ok(());
        };
        self.turns += 1;
        lane.begin_turn(measured);
        match self.settings.open {
            None => lane.enter(Phase::Closed),
            Some(open) => {
                lane.enter(Phase::Open);
                let seed = self.settings.plan.seed ^ (self.turns << 8) ^ u64::from(self.index);
                let rate = open.rate / f64::from(self.settings.threads);
                let schedule = Schedule::new(rate, open.arrivals, lane.now_ns(), seed);
                let schedule = Rc::new(RefCell::new(schedule));
                let task = pace(lane.clone(), schedule.clone(), open.arrivals, seed)?;
                self.pacer = Some(Pacer { task, schedule });
            }
        }
        self.turn = Some(lane);
        Ok(())
    }

    /// Fails when the pacer has: then the load was not the one asked for.
    async fn pause(&mut self) -> io::Result<Ack> {
        let Some(lane) = self.turn.take() else {
            return Ok(Ack::Paused {
                replies: 0,
                latency: Latencies::default(),
            });
        };
        lane.enter(Phase::Idle);
        if let Some(Pacer { task, schedule }) = self.pacer.take() {
            task.abort();
            if let Ok(Err(error)) = task.await {
                return Err(error);
            }
            give_up_unsent(&lane, &mut schedule.borrow_mut());
        }
        let drained = tokio::time::timeout(self.settings.drain, lane.all_settled()).await;
        if drained.is_err() {
            // Those of an earlier turn are still among them.
            let mut tally = lane.tally();
            tally.unanswered = tally.unanswered.max(lane.in_flight() as u64);
        }
        let latency = lane.tally().end_turn();
        Ok(Ack::Paused {
            replies: lane.turn_replies(),
            latency,
        })
    }

    async fn stop(&mut self) -> Ack {
        for lane in &self.lanes {
            lane.enter(Phase::Stop);
        }
        let ended = async { while self.clients.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            self.clients.shutdown().await;
        }
        Ack::Finished(
            self.lanes
                .iter()
                .map(|lane| std::mem::take(&mut *lane.tally()))
                .collect(),
        )
    }
}

/// Requests that were due and never sent: their latency is at least what has passed, and counts
/// as that, or a target that is too slow would look better the slower it is.
fn give_up_unsent(lane: &Lane, schedule: &mut Schedule) {
    let now_ns = lane.now_ns();
    let mut tally = lane.tally();
    let mut give_up = |due_ns: u64| {
        tally.unsent += 1;
        if lane.is_measured() {
            tally.turn_latency.record(now_ns.saturating_sub(due_ns), 1);
        }
    };
    for mailbox in &lane.mailboxes {
        mailbox
            .arrivals
            .borrow_mut()
            .drain(..)
            .for_each(&mut give_up);
    }
    lane.backlog.set(0);
    while let Some(due_ns) = schedule.due(now_ns) {
        give_up(due_ns);
    }
}

/// Hands requests to clients when they are due: with Poisson arrivals to any, so that each client
/// is such a process too; with fixed gaps in turn.
fn pace(
    lane: Rc<Lane>,
    schedule: Rc<RefCell<Schedule>>,
    arrivals: Arrivals,
    seed: u64,
) -> io::Result<TaskHandle<io::Result<()>>> {
    let mut timer = FineTimer::new()?;
    let mut rng = SmallRng::seed_from_u64(!seed);
    let mut next = 0;
    Ok(tokio::task::spawn_local(async move {
        let clients = lane.mailboxes.len();
        loop {
            let now_ns = lane.now_ns();
            while lane.backlog.get() < BACKLOG_MAX {
                let Some(due_ns) = schedule.borrow_mut().due(now_ns) else {
                    break;
                };
                next = match arrivals {
                    Arrivals::Poisson => rng.random_range(0..clients),
                    Arrivals::Fixed => (next + 1) % clients,
                };
                if let Some(mailbox) = lane.mailboxes.get(next) {
                    mailbox.arrivals.borrow_mut().push_back(due_ns);
                    lane.backlog.set(lane.backlog.get() + 1);
                    mailbox.wake();
                }
            }
            let next_ns = schedule.borrow().next_ns();
            let sleep_ns = next_ns.saturating_sub(lane.now_ns()).max(PACE_NS_MIN);
            timer.sleep(Duration::from_nanos(sleep_ns)).await?;
        }
    }))
}
