//! Once a second, a worker shows what it knows of its nodes to whoever looks, and says who was refused.

use std::{rc::Rc, time::Duration};

use dataplane::Dataplane;

use super::Worker;

/// Between two times.
const EVERY: Duration = Duration::from_secs(1);

/// Shows until the worker ends.
pub(super) async fn show(worker: Rc<Worker>) {
    loop {
        let figures = worker.ask(|plane: &Dataplane<_>| plane.node_figures().collect());
        worker.shared.show(worker.index, figures);
        let now = worker.now();
        worker.with(|plane| worker.shared.heat.show(worker.index, plane.heat(), now));
        worker.with(|plane| plane.host().say_who_was_refused());
        tokio::time::sleep(EVERY).await;
    }
}
