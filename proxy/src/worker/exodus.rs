//! Clients of a worker that leave because the process ends, or serves their cluster no more: not all at the same moment, so that
//! those who take them in are not run over.

use std::{cell::Cell, rc::Rc, time::Duration};

use dataplane::{Dataplane, Key};
use tokio::sync::watch;

use super::Worker;
use crate::contract::Stage;

/// Clients leave in so many portions.
const PORTIONS: u32 = 16;
/// The last portion is asked to leave after so long at most.
const WITHIN_MAX: Duration = Duration::from_secs(5);

/// Who is to leave by now.
#[derive(Debug, Default)]
pub(crate) struct Exodus {
    portions: Cell<u32>,
    over: Cell<bool>,
}

impl Exodus {
    /// Whether a client is to leave when it loses nothing by it.
    pub(crate) fn includes(&self, key: Key) -> bool {
        key.index % PORTIONS < self.portions.get()
    }

    /// Whether all connections are to end, whatever they lose by it.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }
}

/// Has clients leave when their time comes.
pub(super) async fn follow(worker: Rc<Worker>, mut stages: watch::Receiver<Stage>) {
    loop {
        let stage = *stages.borrow_and_update();
        match stage {
            Stage::Serving | Stage::Shut => {}
            Stage::Over => return end(&worker),
            Stage::Leaving { within } => {
                let pause = within.min(WITHIN_MAX) / PORTIONS;
                tokio::select! {
                    () = portions(&worker, pause) => {}
                    _ = stages.changed() => continue,
                }
            }
            Stage::LastChance => {
                worker.exodus.portions.set(PORTIONS);
                worker.with(Dataplane::everyone_leaves);
            }
        }
        if stages.changed().await.is_err() {
            return end(&worker);
        }
    }
}

fn end(worker: &Worker) {
    worker.exodus.over.set(true);
    worker.clients.borrow().wake_all();
    worker.channels.borrow().wake_all();
}

async fn portions(worker: &Worker, pause: Duration) {
    for portion in 1..=PORTIONS {
        worker.exodus.portions.set(portion);
        worker.clients.borrow().wake_all();
        tokio::time::sleep(pause).await;
    }
}
