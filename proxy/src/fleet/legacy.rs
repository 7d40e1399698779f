//! Slots key by key: `SETSLOT` and `MIGRATE`, for servers before 9.0 and for what was left half moved.
//!
//! The order is what makes it safe to end anywhere: the target imports before the source sends anyone
//! there; keys go while both know; the target owns before the source gives up. Whatever is
//! left half done is finished by doing all of it again.

use std::time::Duration;

use resp::Value;
use tokio::time::sleep;
use topology::{NodeAddr, Slot};

use super::{Link, Peer, Trouble, Words, atomic::owned, words};
use crate::{clock, contract::DiscoveryContext};

/// Keys of one `MIGRATE`, which holds up both nodes: adapted so that it takes this long.
const BATCH_MAX: usize = 512;
const BATCH_FIRST: usize = 16;
const BATCH_TIME: Duration = Duration::from_millis(10);
/// Silence between the nodes that ends a `MIGRATE`.
const MIGRATE_TIMEOUT_MS: &str = "5000";
/// Our patience with it: a big key takes its time.
const MIGRATE_PATIENCE: Duration = Duration::from_secs(120);
/// What a replica says to `SETSLOT`.
const IS_REPLICA: &str = "SETSLOT only with";
/// A `MIGRATE` that failed between the nodes is done again, so often.
const RETRIES: u32 = 3;

/// One pair of nodes, connected.
pub(super) struct Legacy {
    source: Link,
    target: Link,
    from: Peer,
    to: Peer,
    /// Told last; gossip tells them too.
    others: Vec<Link>,
    auth: Words,
    batch: usize,
}

impl Legacy {
    pub(super) async fn open(
        context: &DiscoveryContext,
        from: &Peer,
        to: &Peer,
        others: &[NodeAddr],
    ) -> Result<Self, Trouble> {
        let config = context.config.get();
        let auth = config.cluster.credentials.as_ref().map(|own| {
            vec![
                b"AUTH2".to_vec(),
                own.username.as_bytes().to_vec(),
                own.password.expose().to_vec(),
            ]
        });
        let mut links = Vec::new();
        for addr in others {
            links.extend(Link::open(context, addr).await.ok());
        }
        Ok(Self {
            source: Link::open(context, &from.addr).await?,
            target: Link::open(context, &to.addr).await?,
            from: from.clone(),
            to: to.clone(),
            others: links,
            auth: auth.unwrap_or_default(),
            batch: BATCH_FIRST,
        })
    }

    /// Moves slots; returns how many. Those with another owner by now are left out.
    pub(super) async fn migrate(&mut self, slots: &[Slot]) -> Result<usize, Trouble> {
        let owned = owned(&mut self.source).await?;
        let slots: Vec<Slot> = slots
            .iter()
            .filter(|slot| owned.contains(slot))
            .copied()
            .collect();
        let (source_id, target_id) = (self.from.id.to_string(), self.to.id.to_string());
        set(&mut self.target, &slots, &["IMPORTING", &source_id]).await?;
        set(&mut self.source, &slots, &["MIGRATING", &target_id]).await?;
        for slot in &slots {
            self.move_keys(*slot).await?;
        }
        set(&mut self.target, &slots, &["NODE", &target_id]).await?;
        match set(&mut self.source, &slots, &["NODE", &target_id]).await {
            // Its last slots: it has heard of it already, and follows the target now.
            Err(trouble) if trouble.to_string().contains(IS_REPLICA) => {}
            set => set?,
        }
        for other in &mut self.others {
            let _ = set(other, &slots, &["NODE", &target_id]).await;
        }
        Ok(slots.len())
    }

    async fn move_keys(&mut self, slot: Slot) -> Result<(), Trouble> {
        let slot = slot.to_string();
        loop {
            let batch = self.batch.to_string();
            let keys = ["CLUSTER", "GETKEYSINSLOT", &slot, &batch];
            let keys = self.source.call(&keys).await?;
            let keys: Vec<&[u8]> = keys
                .as_array()
                .unwrap_or_default()
                .iter()
                .filter_map(Value::as_bytes)
                .collect();
            if keys.is_empty() {
                return Ok(());
            }
            let began = clock::now();
            self.migrate_keys(&keys).await?;
            let took = clock::now().saturating_duration_since(began);
            self.batch = next_batch(self.batch, took);
        }
    }

    async fn migrate_keys(&mut self, keys: &[&[u8]]) -> Result<(), Trouble> {
        let port = self.to.inner.port.to_string();
        // What the target has under these names is from an earlier attempt: clients were served here.
        let mut request = words(&[
            "MIGRATE",
            &self.to.inner.host,
            &port,
            "",
            "0",
            MIGRATE_TIMEOUT_MS,
            "REPLACE",
        ]);
        request.extend(self.auth.iter().cloned());
        request.push(b"KEYS".to_vec());
        request.extend(keys.iter().map(|key| key.to_vec()));
        let mut failed = 0;
        loop {
            let answers = self
                .source
                .ask_within(std::slice::from_ref(&request), MIGRATE_PATIENCE)
                .await?;
            let answer = answers.into_iter().next().unwrap_or(Value::Null);
            let between = answer
                .as_error()
                .is_some_and(|text| text.starts_with(b"IOERR"));
            if !between || failed == RETRIES {
                return self.source.granted(&answer, "MIGRATE");
            }
            failed += 1;
            sleep(BATCH_TIME * 10 * failed).await;
        }
    }
}

/// Sets the same for some slots.
pub(super) async fn set(link: &mut Link, slots: &[Slot], state: &[&str]) -> Result<(), Trouble> {
    let requests: Vec<Words> = slots
        .iter()
        .map(|slot| {
            let slot = slot.to_string();
            let mut request = vec!["CLUSTER", "SETSLOT", &slot];
            request.extend(state);
            words(&request)
        })
        .collect();
    let answers = link.ask(&requests).await?;
    let command = format!("CLUSTER SETSLOT {}", state.join(" "));
    answers
        .iter()
        .try_for_each(|answer| link.granted(answer, &command))
}

fn next_batch(batch: usize, took: Duration) -> usize {
    if took > BATCH_TIME * 2 {
        (batch / 2).max(1)
    } else if took < BATCH_TIME / 2 {
        (batch * 2).min(BATCH_MAX)
    } else {
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_as_big_as_their_time_allows() {
        let ms = Duration::from_millis;
        assert_eq!(next_batch(16, ms(1)), 32);
        assert_eq!(next_batch(16, ms(10)), 16);
        assert_eq!(next_batch(16, ms(50)), 8);
        assert_eq!((next_batch(1, ms(50)), next_batch(512, ms(1))), (1, 512));
    }
}
