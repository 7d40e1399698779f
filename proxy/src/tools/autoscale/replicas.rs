//! Replicas of shards that come from the pool: who gets which, before slots move there.

use std::collections::{BTreeMap, BTreeSet};

use topology::{NodeAddr, NodeId};

use super::step::Steps;
use crate::fleet::{Peer, Trouble, View, pool::Spare};

/// A node that can be had, and its zone when it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) addr: NodeAddr,
    pub(super) id: NodeId,
    pub(super) zone: Option<String>,
}

/// A new shard on paper: its primary, and its replicas.
pub(super) type Group = (Free, Vec<Free>);

/// Shards of `1 + replicas` nodes each, `most` at most. What does not make a whole shard stays.
pub(super) fn groups(mut free: Vec<Free>, replicas: usize, most: usize) -> Vec<Group> {
    let mut found = Vec::new();
    while found.len() < most && free.len() > replicas {
        let primary = free.remove(0);
        let chosen = (0..replicas).filter_map(|_| apart(&mut free, primary.zone.as_deref()));
        let chosen: Vec<Free> = chosen.collect();
        found.push((primary, chosen));
    }
    found
}

/// One for a primary in this zone: of another zone, if there is one.
fn apart(free: &mut Vec<Free>, zone: Option<&str>) -> Option<Free> {
    let elsewhere = |other: &Free| other.zone.is_some() && other.zone.as_deref() != zone;
    let at = free.iter().position(elsewhere).unwrap_or(0);
    (at < free.len()).then(|| free.remove(at))
}

impl Steps<'_> {
    /// Nodes of the pool that are in the cluster, by their own word.
    pub(super) async fn pooled(&self, view: &View) -> BTreeSet<NodeId> {
        let mut ids = BTreeSet::new();
        for addr in &self.pool {
            if let Spare::Member(id) = self.fleet.spare(view, addr).await {
                ids.insert(id);
            }
        }
        ids
    }

    /// Gives shards of the pool the replicas that they should have. Returns whether anything was done.
    pub(super) async fn attach(&mut self, view: &View) -> Result<bool, Trouble> {
        let has = |id: NodeId| view.replicas_of(id).count();
        let stays = |peer: &&Peer| !self.leaving.contains(&peer.id);
        let short = |peer: &&Peer| has(peer.id) < self.replicas;
        if self.dry_run || !view.primaries().filter(stays).any(|peer| short(&peer)) {
            return Ok(false);
        }
        let pooled = self.pooled(view).await;
        // Joined to be a replica, by a run that was killed before it was one.
        let lone = |peer: &&Peer| peer.slots.is_empty() && !self.coming.contains(&peer.id);
        let ours = view.primaries().filter(|peer| pooled.contains(&peer.id));
        let ours: Vec<&Peer> = ours.filter(stays).filter(short).collect();
        let others = ours.iter().filter(|peer| lone(peer));
        let mut lost: BTreeMap<NodeId, NodeAddr> =
            others.map(|peer| (peer.id, peer.addr.clone())).collect();
        let mut taken = BTreeSet::new();
        for peer in ours {
            if taken.contains(&peer.id) {
                continue;
            }
            lost.remove(&peer.id);
            for _ in has(peer.id)..self.replicas {
                let Some((id, addr)) = self.next_replica(view, peer, &mut lost).await? else {
                    self.cannot_have_replicas(peer).await;
                    break;
                };
                self.fleet.replicate((&addr, id), peer.id).await?;
                tracing::info!(node = %addr, of = %peer.addr, "it is a replica with all data");
                taken.insert(id);
            }
        }
        Ok(!taken.is_empty())
    }

    /// One that joined already for this, or one of the pool.
    async fn next_replica(
        &mut self,
        view: &View,
        of: &Peer,
        lost: &mut BTreeMap<NodeId, NodeAddr>,
    ) -> Result<Option<(NodeId, NodeAddr)>, Trouble> {
        if let Some(found) = lost.pop_first() {
            return Ok(Some(found));
        }
        let mut free = self.free(view, usize::MAX).await?;
        let zone = self.fleet.zone_of(&of.addr).await;
        let Some(chosen) = apart(&mut free, zone.as_deref()) else {
            return Ok(None);
        };
        let new = (chosen.addr.clone(), chosen.id);
        self.fleet.join(view, &[new]).await?;
        Ok(Some((chosen.id, chosen.addr)))
    }

    /// Without replicas nothing is trusted to a new shard; one that has slots goes on as it is.
    async fn cannot_have_replicas(&mut self, peer: &Peer) {
        let (node, replicas) = (&peer.addr, self.replicas);
        if peer.slots.is_empty() {
            tracing::warn!(%node, replicas, "the warm pool has no replicas for it: it goes back");
            self.begin_leaving(peer).await;
        } else if self.poor.insert(peer.id) {
            tracing::warn!(%node, replicas, "it has fewer replicas, and the warm pool has none");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(number: u16, zone: &str) -> Free {
        Free {
            addr: NodeAddr::new("10.0.0.1", number).unwrap(),
            id: NodeId::parse(format!("{number:040}").as_bytes()).unwrap(),
            zone: (!zone.is_empty()).then(|| zone.to_owned()),
        }
    }

    fn ports(groups: &[Group]) -> Vec<Vec<u16>> {
        let all = |(primary, replicas): &Group| {
            let all = std::iter::once(primary).chain(replicas);
            all.map(|free| free.addr.port).collect()
        };
        groups.iter().map(all).collect()
    }

    #[test]
    fn a_shard_is_whole_and_in_two_zones_when_it_can_be() {
        let pool = || vec![free(1, "a"), free(2, "a"), free(3, "b"), free(4, "b")];
        assert_eq!(ports(&groups(pool(), 1, 9)), [[1, 3], [2, 4]]);
        assert_eq!(ports(&groups(pool(), 1, 1)), [[1, 3]]);
        assert_eq!(ports(&groups(pool(), 2, 9)), [[1, 3, 4]]);
        assert_eq!(ports(&groups(pool(), 0, 2)), [[1], [2]]);
        assert_eq!(groups(pool(), 4, 9), []);
        let unknown = vec![free(1, ""), free(2, ""), free(3, "")];
        assert_eq!(ports(&groups(unknown, 1, 9)), [[1, 2]]);
    }
}
