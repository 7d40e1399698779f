//! Slots on their way: the moves of a round at once, each as jobs one after the other, in one step
//! where the nodes can (9.0 and newer), else key by key.

use std::time::{Duration, Instant};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use topology::{NodeAddr, NodeId, Slot};

use super::{Fleet, Link, Peer, Trouble, View, atomic, legacy::Legacy};
use crate::{clock, contract::DiscoveryContext};

/// Keys of one atomic job, unless one slot alone has more. When it ends, the source holds writes for
/// the last of them and then deletes them all: 20,000 are about 25 ms.
const JOB_KEYS_MAX: u64 = 20_000;
/// Slots of one job that moves key by key: so many are half moved at a time.
const OPEN_SLOTS_MAX: usize = 32;
/// Events that wait to be told.
const EVENTS_MAX: usize = 64;

/// When to stop: asked for by a signal, heard by everything that takes long.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    pub(crate) fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it.
    pub(crate) async fn heard(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Slots that go from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) slots: Vec<Slot>,
    pub(crate) keys: u64,
}

/// What happens to a job.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) from: NodeAddr,
    pub(crate) to: NodeAddr,
    pub(crate) slots: usize,
    pub(crate) keys: u64,
    pub(crate) what: What,
}

/// What that is.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Began,
    /// So many of the slots, in so much time; the others have another owner now.
    Moved(usize, Duration),
    Failed(Trouble),
}

/// How a round ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pub(crate) slots: usize,
    pub(crate) left_out: usize,
    pub(crate) failed: Vec<Trouble>,
}

/// Moves slots between the nodes of a view.
pub(crate) struct Mover<'a> {
    fleet: &'a Fleet,
    view: &'a View,
}

impl<'a> Mover<'a> {
    pub(crate) fn new(fleet: &'a Fleet, view: &'a View) -> Self {
        Self { fleet, view }
    }

    /// Cuts a move into jobs.
    pub(crate) fn jobs(&self, from: NodeId, to: NodeId, slots: &[Slot], keys: &[u64]) -> Vec<Job> {
        let slots_max = if self.view.atomic() {
            usize::from(Slot::COUNT)
        } else {
            OPEN_SLOTS_MAX
        };
        let mut jobs: Vec<Job> = Vec::new();
        for slot in slots {
            let more = keys
                .get(usize::from(slot.get()))
                .copied()
                .unwrap_or_default();
            match jobs.last_mut() {
                Some(job) if job.keys + more <= JOB_KEYS_MAX && job.slots.len() < slots_max => {
                    job.slots.push(*slot);
                    job.keys += more;
                }
                _ => jobs.push(Job {
                    from,
                    to,
                    slots: vec![*slot],
                    keys: more,
                }),
            }
        }
        jobs
    }

    /// Does all at once: each element's jobs one after the other. One that fails ends its element; when
    /// it is to stop, the jobs that have begun are the last.
    pub(crate) async fn run(
        &self,
        lanes: Vec<Vec<Job>>,
        stop: &Stop,
        tell: &mut dyn FnMut(&Event),
    ) -> Done {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let mut tasks = JoinSet::new();
        for jobs in lanes {
            if let Some(lane) = jobs.first().and_then(|job| self.lane(job, stop, &sender)) {
                tasks.spawn(lane.run(jobs));
            }
        }
        drop(sender);
        let mut done = Done::default();
        while let Some(event) = events.recv().await {
            match &event.what {
                What::Began => {}
                What::Moved(slots, _) => {
                    done.slots += slots;
                    done.left_out += event.slots.saturating_sub(*slots);
                }
                What::Failed(trouble) => done.failed.push(trouble.clone()),
            }
            tell(&event);
        }
        tasks.join_all().await;
        done
    }

    fn lane(&self, job: &Job, stop: &Stop, events: &mpsc::Sender<Event>) -> Option<Lane> {
        let (source, target) = (self.view.peer(job.from)?, self.view.peer(job.to)?);
        let others = self.view.primaries();
        let others = others.filter(|peer| ![job.from, job.to].contains(&peer.id));
        Some(Lane {
            context: self.fleet.context.clone(),
            others: others.map(|peer| peer.addr.clone()).collect(),
            source: source.clone(),
            target: target.clone(),
            atomic: self.view.atomic(),
            stop: stop.clone(),
            events: events.clone(),
        })
    }
}

/// The jobs of one move.
struct Lane {
    context: DiscoveryContext,
    source: Peer,
    target: Peer,
    others: Vec<NodeAddr>,
    atomic: bool,
    stop: Stop,
    events: mpsc::Sender<Event>,
}

impl Lane {
    async fn run(self, jobs: Vec<Job>) {
        let mut hands = None;
        for job in jobs {
            if self.stop.requested() {
                return;
            }
            self.tell(&job, What::Began).await;
            let began = clock::now();
            match self.one(&mut hands, &job).await {
                Ok(slots) => self.tell(&job, moved(slots, began)).await,
                Err(trouble) => {
                    self.tell(&job, What::Failed(trouble)).await;
                    return;
                }
            }
        }
    }

    async fn one(&self, hands: &mut Option<Hands>, job: &Job) -> Result<usize, Trouble> {
        let hands = match hands {
            Some(hands) => hands,
            none => none.insert(self.hands().await?),
        };
        match hands {
            Hands::Atomic(source) => atomic::migrate(source, self.target.id, &job.slots).await,
            Hands::Legacy(legacy) => legacy.migrate(&job.slots).await,
        }
    }

    async fn hands(&self) -> Result<Hands, Trouble> {
        let (context, source) = (&self.context, &self.source);
        if self.atomic {
            return Link::open(context, &source.addr).await.map(Hands::Atomic);
        }
        let legacy = Legacy::open(context, source, &self.target, &self.others).await?;
        Ok(Hands::Legacy(Box::new(legacy)))
    }

    async fn tell(&self, job: &Job, what: What) {
        let event = Event {
            from: self.source.addr.clone(),
            to: self.target.addr.clone(),
            slots: job.slots.len(),
            keys: job.keys,
            what,
        };
        // Whoever listened is gone together with this task.
        let _ = self.events.send(event).await;
    }
}

fn moved(slots: usize, began: Instant) -> What {
    What::Moved(slots, clock::now().saturating_duration_since(began))
}

/// What a lane works with, once it has begun.
enum Hands {
    Atomic(Link),
    Legacy(Box<Legacy>),
}
