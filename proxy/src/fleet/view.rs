//! Who is there, and who owns what: each node asked for its own word.

use std::collections::{BTreeMap, BTreeSet};

use resp::Value;
use topology::{NodeAddr, NodeId, Slot};

use super::{
    Fleet, Trouble, field,
    members::{self, Line, Open},
    text_of, words,
};

/// Nodes that are named in one message.
const NAMED_MAX: usize = 5;

/// A node that answers.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// Where we reach it.
    pub(crate) addr: NodeAddr,
    /// Where the nodes reach it.
    pub(crate) inner: NodeAddr,
    /// Of a replica.
    pub(crate) primary: Option<NodeId>,
    pub(crate) replica: bool,
    pub(crate) epoch: u64,
    /// In order; by its own word.
    pub(crate) slots: Vec<Slot>,
    /// Slots that it holds for half moved.
    pub(crate) open: Vec<Open>,
    /// `cluster_state` is `ok`, by its own word.
    pub(crate) well: bool,
    /// Atomic migrations from it that go on; `None` when it knows no such thing.
    pub(crate) migrations: Option<usize>,
    /// Whom it knows, itself among them.
    pub(crate) knows: BTreeSet<NodeId>,
    /// It is about to get to know somebody.
    unsettled: bool,
}

/// The cluster at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// By address.
    pub(crate) peers: Vec<Peer>,
    /// Who should be there and does not answer, and why.
    pub(crate) silent: Vec<(NodeAddr, bool, String)>,
    owners: Vec<Option<usize>>,
}

impl Fleet {
    /// Asks everybody.
    pub(crate) async fn view(&self) -> Result<View, Trouble> {
        let (seed, candidate) = self.seed().await?;
        let lines = members::read(&text_of(&self.ask(&seed, &["CLUSTER", "NODES"]).await?));
        let told: BTreeMap<NodeId, NodeAddr> = candidate
            .shards()
            .iter()
            .flat_map(topology::Shard::nodes)
            .map(|node| (node.id, node.addr.clone()))
            .collect();
        let mut expected: BTreeMap<NodeAddr, Line> = BTreeMap::new();
        for line in lines
            .into_iter()
            .filter(|line| !line.handshake && !line.failed)
        {
            let own = line.myself.then(|| seed.clone());
            let addr = told
                .get(&line.id)
                .cloned()
                .or(own)
                .or_else(|| line.addr.clone());
            expected.extend(addr.map(|addr| (addr, line)));
        }
        let questions = [
            words(&["CLUSTER", "NODES"]),
            words(&["CLUSTER", "INFO"]),
            words(&["CLUSTER", "GETSLOTMIGRATIONS"]),
        ];
        let mut answers = self.ask_all(expected.keys().cloned(), &questions).await;
        let (mut peers, mut silent) = (Vec::new(), Vec::new());
        for (addr, line) in expected {
            match answers.remove(&addr) {
                Some(Ok(said)) => match peer(&addr, &line, &said) {
                    Some(peer) => peers.push(peer),
                    None => silent.push((
                        addr,
                        line.replica,
                        "it does not say what it owns".to_owned(),
                    )),
                },
                Some(Err(trouble)) => silent.push((addr, line.replica, trouble.to_string())),
                None => {}
            }
        }
        Ok(View::of(peers, silent))
    }
}

fn peer(addr: &NodeAddr, line: &Line, said: &[Value]) -> Option<Peer> {
    let [nodes, info, migrations] = said else {
        return None;
    };
    let lines = members::read(&text_of(nodes));
    let own = lines.iter().find(|line| line.myself)?;
    let known = lines.iter().filter(|line| !line.handshake);
    Some(Peer {
        id: own.id,
        addr: addr.clone(),
        inner: line
            .addr
            .clone()
            .or_else(|| own.addr.clone())
            .unwrap_or_else(|| addr.clone()),
        primary: own.primary,
        replica: own.replica,
        epoch: own.epoch,
        slots: if own.replica {
            Vec::new()
        } else {
            own.slots.clone()
        },
        open: if own.replica {
            Vec::new()
        } else {
            own.open.clone()
        },
        well: field(&text_of(info), "cluster_state") == Some("ok"),
        migrations: migrations.as_array().map(running),
        knows: known.map(|line| line.id).collect(),
        unsettled: lines.iter().any(|line| line.handshake),
    })
}

/// Atomic migrations from the node that answers, which are not over.
fn running(jobs: &[Value]) -> usize {
    let is = |job: &Value, key: &str, any: &[&str]| {
        job.map_get(key)
            .and_then(Value::as_str)
            .is_some_and(|value| any.contains(&value))
    };
    let going = jobs.iter().filter(|job| {
        is(job, "operation", &["EXPORT"]) && !is(job, "state", &["success", "failed", "cancelled"])
    });
    going.count()
}

impl View {
    fn of(mut peers: Vec<Peer>, silent: Vec<(NodeAddr, bool, String)>) -> Self {
        peers.sort_by(|one, other| one.addr.cmp(&other.addr));
        let mut owners: Vec<Option<usize>> = vec![None; usize::from(Slot::COUNT)];
        for (index, peer) in peers.iter().enumerate() {
            for slot in &peer.slots {
                // Of two that claim a slot, whoever got it last is right; the other will learn of it.
                if let Some(owner) = owners.get_mut(usize::from(slot.get()))
                    && owner.is_none_or(|of| peers.get(of).is_none_or(|of| of.epoch < peer.epoch))
                {
                    *owner = Some(index);
                }
            }
        }
        Self {
            peers,
            silent,
            owners,
        }
    }

    pub(crate) fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    pub(crate) fn primaries(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| !peer.replica)
    }

    pub(crate) fn replicas_of(&self, id: NodeId) -> impl Iterator<Item = &Peer> {
        let of = move |peer: &&Peer| peer.replica && peer.primary == Some(id);
        self.peers.iter().filter(of)
    }

    pub(crate) fn owner(&self, slot: Slot) -> Option<&Peer> {
        let index = self
            .owners
            .get(usize::from(slot.get()))
            .copied()
            .flatten()?;
        self.peers.get(index)
    }

    /// Slots that some node holds for half moved.
    pub(crate) fn open(&self) -> BTreeSet<Slot> {
        let open = self.peers.iter().flat_map(|peer| &peer.open);
        open.map(|open| open.slot).collect()
    }

    /// Atomic migrations that go on.
    pub(crate) fn migrations(&self) -> usize {
        self.peers.iter().filter_map(|peer| peer.migrations).sum()
    }

    /// Slots can move in one step: every primary can (9.0 and newer).
    pub(crate) fn atomic(&self) -> bool {
        self.primaries().all(|peer| peer.migrations.is_some())
    }

    /// Nothing is moved in a cluster that is not well: this is why.
    pub(crate) fn sound(&self) -> Result<(), Trouble> {
        let lost = self.silent.iter().filter(|(_, replica, _)| !replica);
        let lost: Vec<String> = lost.map(|(_, _, text)| text.clone()).collect();
        if !lost.is_empty() {
            return Err(Trouble::State(format!(
                "not all primaries answer: {}; bring them back, or wait until the cluster has \
                 replaced them",
                some(&lost)
            )));
        }
        let unwell: Vec<String> = self
            .peers
            .iter()
            .filter(|peer| !peer.well)
            .map(|peer| peer.addr.to_string())
            .collect();
        if !unwell.is_empty() {
            return Err(Trouble::State(format!(
                "cluster_state is not ok, by {}; look at CLUSTER INFO there, nothing is moved until it is",
                some(&unwell)
            )));
        }
        let holes = self.owners.iter().filter(|owner| owner.is_none()).count();
        if holes > 0 {
            return Err(Trouble::State(format!(
                "{holes} slots have no owner; give them one first (CLUSTER ADDSLOTSRANGE, or \
                 valkey-cli --cluster fix)"
            )));
        }
        Ok(())
    }

    /// Why not all nodes know all others and the same owners; `None` when they do.
    pub(crate) fn disagreement(&self) -> Option<String> {
        let all: BTreeSet<NodeId> = self.peers.iter().map(|peer| peer.id).collect();
        let behind = self
            .peers
            .iter()
            .find(|peer| peer.unsettled || !peer.knows.is_superset(&all));
        behind.map(|peer| format!("{} does not know all others yet", peer.addr))
    }
}

/// The first few of a list.
pub(super) fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// The node with this number, and these slots.
    pub(in crate::fleet) fn peer(number: u8, epoch: u64, slots: std::ops::Range<u16>) -> Peer {
        let id = NodeId::parse(format!("{number:040}").as_bytes()).unwrap();
        let addr = NodeAddr::new("10.0.0.1", 7000 + u16::from(number)).unwrap();
        Peer {
            id,
            inner: addr.clone(),
            addr,
            primary: None,
            replica: false,
            epoch,
            slots: slots.filter_map(Slot::new).collect(),
            open: Vec::new(),
            well: true,
            migrations: Some(0),
            knows: BTreeSet::new(),
            unsettled: false,
        }
    }

    /// All of these answer.
    pub(in crate::fleet) fn view(peers: Vec<Peer>) -> View {
        View::of(peers, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::peer, *};

    #[test]
    fn of_two_owners_the_later_one_is_right() {
        let view = View::of(vec![peer(1, 7, 0..100), peer(2, 9, 50..16384)], Vec::new());
        let owner = |slot| view.owner(Slot::new(slot).unwrap()).unwrap().addr.port;
        assert_eq!((owner(49), owner(50), owner(99)), (7001, 7002, 7002));
        assert!(view.sound().is_ok());
    }

    #[test]
    fn nothing_is_moved_in_a_cluster_that_is_not_well() {
        let refusal = |view: View| view.sound().unwrap_err().to_string();
        let holes = View::of(vec![peer(1, 1, 0..16380)], Vec::new());
        assert!(refusal(holes).contains("4 slots have no owner"));
        let mut unwell = peer(1, 1, 0..16384);
        unwell.well = false;
        assert!(refusal(View::of(vec![unwell], Vec::new())).contains("cluster_state is not ok"));
        let silent = |replica| {
            vec![(
                NodeAddr::new("a", 1).unwrap(),
                replica,
                "a:1: gone".to_owned(),
            )]
        };
        let whole = || vec![peer(1, 1, 0..16384)];
        assert!(refusal(View::of(whole(), silent(false))).contains("a:1: gone"));
        assert!(View::of(whole(), silent(true)).sound().is_ok());
    }
}
