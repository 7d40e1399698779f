//! What an earlier run left half done is finished before anything new begins.
//!
//! Atomic migrations end by themselves and are waited for. A slot that is open is moved to where it was
//! going; where nothing had gone yet and its owner does not send anyone away, it is closed.

use std::{collections::BTreeMap, time::Duration};

use resp::Value;
use tokio::time::sleep;
use topology::{NodeId, Slot};

use super::{
    Fleet, Stop, Trouble, View,
    legacy::{Legacy, set},
    members::Way,
    words,
};

/// Rounds at most; gossip may need one or two to agree.
const ROUNDS_MAX: usize = 10;
/// Between two looks at migrations that go on, and between two rounds.
const LOOK: Duration = Duration::from_millis(200);

/// What becomes of an open slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    /// It goes on from its owner to here.
    Finish { from: NodeId, to: NodeId },
    /// Nobody has to know any more.
    Close,
}

/// Leaves no slot open and no migration under way; `say` is told what is done. Returns the view after it.
pub(crate) async fn heal(
    fleet: &Fleet,
    mut view: View,
    stop: &Stop,
    say: &mut dyn FnMut(String),
) -> Result<View, Trouble> {
    for _ in 0..ROUNDS_MAX {
        view = wait_for_migrations(fleet, view, stop, say).await?;
        let open = view.open();
        if open.is_empty() || stop.requested() {
            return Ok(view);
        }
        say(format!(
            "{} slots were left half moved by an earlier run: they are finished first",
            open.len()
        ));
        mend_all(fleet, &view, stop).await?;
        view = fleet.view().await?;
        view.sound()?;
        if !view.open().is_empty() {
            sleep(LOOK).await;
        }
    }
    Err(Trouble::State(format!(
        "{} slots stay half moved; look at CLUSTER NODES of their owners",
        view.open().len()
    )))
}

async fn wait_for_migrations(
    fleet: &Fleet,
    mut view: View,
    stop: &Stop,
    say: &mut dyn FnMut(String),
) -> Result<View, Trouble> {
    let mut told = false;
    while view.migrations() > 0 && !stop.requested() {
        if !told {
            say(format!(
                "{} migrations are under way already: waiting for their end",
                view.migrations()
            ));
            told = true;
        }
        sleep(LOOK).await;
        view = fleet.view().await?;
        view.sound()?;
    }
    Ok(view)
}

async fn mend_all(fleet: &Fleet, view: &View, stop: &Stop) -> Result<(), Trouble> {
    let keys = keys_at_targets(fleet, view).await?;
    let mut unfinished: BTreeMap<(NodeId, NodeId), Vec<Slot>> = BTreeMap::new();
    for slot in view.open() {
        match mend(view, slot, &keys)? {
            Mend::Finish { from, to } => unfinished.entry((from, to)).or_default().push(slot),
            Mend::Close => close(fleet, view, slot).await?,
        }
    }
    for ((from, to), slots) in unfinished {
        if stop.requested() {
            return Ok(());
        }
        let (Some(from), Some(to)) = (view.peer(from), view.peer(to)) else {
            continue;
        };
        let mut pair = Legacy::open(&fleet.context, from, to, &[]).await?;
        pair.migrate(&slots).await?;
    }
    Ok(())
}

/// Keys in slots that a node imports.
type Keys = BTreeMap<(NodeId, Slot), u64>;

async fn keys_at_targets(fleet: &Fleet, view: &View) -> Result<Keys, Trouble> {
    let mut keys = BTreeMap::new();
    for peer in view.primaries() {
        let imports = peer.open.iter().filter(|open| open.way == Way::Importing);
        let slots: Vec<Slot> = imports.map(|open| open.slot).collect();
        if slots.is_empty() {
            continue;
        }
        let count = |slot: &Slot| words(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
        let requests: Vec<_> = slots.iter().map(count).collect();
        let answers = fleet.link(&peer.addr).await?.ask(&requests).await?;
        for (slot, answer) in slots.into_iter().zip(answers) {
            let there = Value::as_int(&answer).and_then(|keys| u64::try_from(keys).ok());
            keys.insert((peer.id, slot), there.unwrap_or(u64::MAX));
        }
    }
    Ok(keys)
}

/// What to do about a slot.
fn mend(view: &View, slot: Slot, keys: &Keys) -> Result<Mend, Trouble> {
    let Some(owner) = view.owner(slot) else {
        return Err(Trouble::State(format!("slot {slot} has no owner")));
    };
    let open = |way: Way| {
        view.primaries().flat_map(move |peer| {
            let here = peer
                .open
                .iter()
                .filter(move |open| open.slot == slot && open.way == way);
            here.map(move |open| (peer.id, open.other))
        })
    };
    let sends_to = open(Way::Migrating)
        .find(|(from, _)| *from == owner.id)
        .map(|(_, to)| to);
    let importing: Vec<NodeId> = open(Way::Importing)
        .map(|(to, _)| to)
        .filter(|to| *to != owner.id)
        .collect();
    let held = |to: &NodeId| keys.get(&(*to, slot)).is_some_and(|keys| *keys > 0);
    let with_keys: Vec<NodeId> = importing.iter().copied().filter(held).collect();
    let target = match (with_keys.as_slice(), sends_to) {
        ([], sends_to) => sends_to,
        ([one], None) => Some(*one),
        ([one], Some(to)) if *one == to => Some(to),
        _ => {
            return Err(Trouble::State(format!(
                "keys of slot {slot} are at several nodes; put them together with valkey-cli --cluster fix"
            )));
        }
    };
    let target = target.filter(|to| view.peer(*to).is_some_and(|peer| !peer.replica));
    Ok(target.map_or(Mend::Close, |to| Mend::Finish { from: owner.id, to }))
}

async fn close(fleet: &Fleet, view: &View, slot: Slot) -> Result<(), Trouble> {
    for peer in view
        .primaries()
        .filter(|peer| peer.open.iter().any(|open| open.slot == slot))
    {
        set(&mut fleet.link(&peer.addr).await?, &[slot], &["STABLE"]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Peer,
            members::Open,
            view::testing::{peer, view},
        },
        *,
    };

    const SLOT: u16 = 7;

    fn slot() -> Slot {
        Slot::new(SLOT).unwrap()
    }

    /// The owner of all slots, and two more nodes.
    fn three() -> [Peer; 3] {
        [peer(1, 1, 0..16384), peer(2, 2, 0..0), peer(3, 3, 0..0)]
    }

    fn opened(peer: &mut Peer, way: Way, other: NodeId) {
        let slot = slot();
        peer.open.push(Open { slot, way, other });
    }

    fn decided(peers: [Peer; 3], keys: &[(NodeId, u64)]) -> Result<Mend, Trouble> {
        let keys = keys.iter().map(|(id, keys)| ((*id, slot()), *keys));
        mend(&view(peers.to_vec()), slot(), &keys.collect())
    }

    #[test]
    fn what_both_know_of_is_finished() {
        let [mut one, mut two, three] = three();
        let finish = Mend::Finish {
            from: one.id,
            to: two.id,
        };
        opened(&mut one, Way::Migrating, two.id);
        assert_eq!(
            decided([one.clone(), two.clone(), three.clone()], &[]),
            Ok(finish)
        );
        opened(&mut two, Way::Importing, one.id);
        let to = two.id;
        for keys in [0, 5] {
            let peers = [one.clone(), two.clone(), three.clone()];
            assert_eq!(decided(peers, &[(to, keys)]), Ok(finish));
        }
    }

    #[test]
    fn what_only_the_target_knows_of_is_finished_if_it_has_keys() {
        let [one, mut two, three] = three();
        let (from, to) = (one.id, two.id);
        opened(&mut two, Way::Importing, from);
        let peers = || [one.clone(), two.clone(), three.clone()];
        assert_eq!(decided(peers(), &[(to, 0)]), Ok(Mend::Close));
        assert_eq!(decided(peers(), &[(to, 1)]), Ok(Mend::Finish { from, to }));
    }

    #[test]
    fn a_target_that_owns_the_slot_by_now_has_nothing_open() {
        let [mut one, mut two, three] = three();
        two.slots = vec![slot()];
        opened(&mut one, Way::Migrating, two.id);
        assert_eq!(decided([one, two, three], &[]), Ok(Mend::Close));
    }

    #[test]
    fn keys_at_several_nodes_are_for_people() {
        let [mut one, mut two, mut three] = three();
        opened(&mut one, Way::Migrating, two.id);
        opened(&mut two, Way::Importing, one.id);
        opened(&mut three, Way::Importing, one.id);
        let keys = [(two.id, 1), (three.id, 1)];
        let refused = decided([one, two, three], &keys).unwrap_err().to_string();
        assert!(refused.contains("keys of slot 7"), "{refused}");
    }

    #[test]
    fn nothing_goes_to_a_replica() {
        let [mut one, mut two, three] = three();
        two.replica = true;
        opened(&mut one, Way::Migrating, two.id);
        assert_eq!(decided([one, two, three], &[]), Ok(Mend::Close));
    }
}
