//! How many clients listen to what, in all workers of a cluster together.
//!
//! A worker is subscribed once for all clients of a user, and so nodes count them as one. Owns how many
//! there are beyond that one, by topic. Never here: who they are, and what nodes count.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use command::TopicKind;

type Counts = HashMap<(TopicKind, Bytes), usize>;

/// The listeners that no node counts. A lock is taken when one comes or goes beside another, and when
/// somebody asks.
#[derive(Debug, Default)]
pub struct Audience(Mutex<Counts>);

impl Audience {
    /// One more listens to what somebody listens to already.
    pub(crate) fn joins(&self, kind: TopicKind, name: &Bytes) {
        *self.counts().entry((kind, name.clone())).or_default() += 1;
    }

    /// One less does, and somebody is left.
    pub(crate) fn leaves(&self, kind: TopicKind, name: &Bytes) {
        let (mut counts, topic) = (self.counts(), (kind, name.clone()));
        if let Some(count) = counts.get_mut(&topic) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&topic);
            }
        }
    }

    /// How many no node counts.
    pub(crate) fn beyond(&self, kind: TopicKind, name: &[u8]) -> usize {
        let topic = (kind, Bytes::copy_from_slice(name));
        self.counts().get(&topic).copied().unwrap_or_default()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_listens_to_any_more_is_forgotten() {
        let (audience, name) = (Audience::default(), Bytes::from_static(b"news"));
        audience.joins(TopicKind::Channel, &name);
        audience.joins(TopicKind::Channel, &name);
        assert_eq!(audience.beyond(TopicKind::Channel, b"news"), 2);
        assert_eq!(audience.beyond(TopicKind::Shard, b"news"), 0);
        audience.leaves(TopicKind::Channel, &name);
        audience.leaves(TopicKind::Channel, &name);
        assert!(audience.counts().is_empty());
    }
}
