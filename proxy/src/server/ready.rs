//! When a Keyway with several clusters is ready: one whose cluster is down must not keep the others' clients
//! away.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use crate::contract::Readiness;

/// After the start, all clusters are waited for so long; then one is enough.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the process ready when all of its clusters are, or one is and the others had time; and no more
/// when none is.
pub(super) async fn gather(process: Readiness, mut clusters: watch::Receiver<Vec<Readiness>>) {
    let news = Arc::new(Notify::new());
    listen(&clusters.borrow_and_update(), &news);
    let patient_until = Instant::now() + PATIENCE;
    let mut was_ready = false;
    loop {
        let reasons = clusters.borrow().iter().map(Readiness::reason).collect();
        let patient = !was_ready && Instant::now() < patient_until;
        match verdict(reasons, patient) {
            None => {
                was_ready = true;
                process.ready();
            }
            Some(reason) => process.not_ready(&reason),
        }
        tokio::select! {
            () = news.notified() => {}
            changed = clusters.changed() => {
                if changed.is_err() {
                    return; // the process ends
                }
                listen(&clusters.borrow_and_update(), &news);
            }
            () = sleep_until(patient_until), if patient => {}
        }
    }
}

/// Why the process is not ready, of the same of its clusters; `patient` while all are waited for.
fn verdict(clusters: Vec<Option<String>>, patient: bool) -> Option<String> {
    let count = clusters.len();
    let reasons: Vec<String> = clusters.into_iter().flatten().collect();
    let ready = reasons.is_empty() || (reasons.len() < count && !patient);
    (!ready).then(|| reasons.join("; "))
}

/// Some may be listened to already: that does no harm, and ends with them.
fn listen(clusters: &[Readiness], news: &Arc<Notify>) {
    for cluster in clusters {
        tokio::spawn(tell_changes(cluster.changes(), Arc::clone(news)));
    }
}

async fn tell_changes(mut changes: watch::Receiver<Option<String>>, news: Arc<Notify>) {
    while changes.changed().await.is_ok() {
        news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_that_is_down_does_not_keep_the_others_away_for_long() {
        let down = |name: &str| Some(format!("{name}: down"));
        let reason = verdict(vec![None, down("b")], true);
        assert_eq!(reason.as_deref(), Some("b: down"), "all are waited for");
        assert_eq!(verdict(vec![None, down("b")], false), None);
        for patient in [true, false] {
            assert_eq!(verdict(vec![None, None], patient), None);
            let none = verdict(vec![down("a"), down("b")], patient);
            assert_eq!(none.as_deref(), Some("a: down; b: down"));
        }
    }

    #[tokio::test]
    async fn it_is_ready_with_its_clusters() {
        let (process, one) = (Readiness::default(), Readiness::of("one"));
        let (clusters, gathered) = watch::channel(vec![one.clone()]);
        tokio::spawn(gather(process.clone(), gathered));
        assert!(process.reason().is_some());
        one.ready();
        process.wait().await;
        // One that comes later takes nothing away, and is one of them when the first is gone.
        let two = Readiness::of("two");
        clusters.send_replace(vec![one, two.clone()]);
        tokio::task::yield_now().await;
        assert_eq!(process.reason(), None);
        clusters.send_replace(vec![two.clone()]);
        process.changes().wait_for(Option::is_some).await.unwrap();
        two.ready();
        process.wait().await;
    }
}
