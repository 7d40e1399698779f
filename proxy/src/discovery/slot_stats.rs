//! What nodes count of the hottest slots (`CLUSTER SLOT-STATS`), asked while somebody looks at heat.
//!
//! The owners of few slots are asked for each of them, every few seconds and never for all: the
//! answer for thousands would keep a node from its work. A node that does not know the command
//! (before 8.0), or does not let us, tells nothing, and nothing is shown for its slots.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use resp::Value;
use tokio::time::timeout;
use topology::{NodeAddr, Slot};

use super::node::{LookError, Node};
use crate::{clock, contract::DiscoveryContext, heat::report::NodeCounts, worker::Shared};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(2);
/// One node's time to answer for all its slots.
const PATIENCE: Duration = Duration::from_secs(1);
/// Rounds go on for so long after somebody has looked.
const INTEREST: Duration = Duration::from_secs(30);
/// Slots that are asked for, of all nodes together.
const SLOTS_MAX: usize = 64;

/// Asks until the end.
pub(super) async fn watch(context: DiscoveryContext, shared: Arc<Shared>) {
    let mut until: Option<Instant> = None;
    let mut open = BTreeMap::new();
    loop {
        if until.is_none_or(|until| until <= clock::now()) {
            open.clear();
            shared.heat.set_node_counts(HashMap::new());
            shared.heat.nodes_wanted().await;
            until = Some(clock::now() + INTEREST);
        }
        round(&context, &shared, &mut open).await;
        let next = tokio::time::sleep(EVERY);
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                () = &mut next => break,
                () = shared.heat.nodes_wanted() => until = Some(clock::now() + INTEREST),
            }
        }
    }
}

async fn round(context: &DiscoveryContext, shared: &Shared, open: &mut BTreeMap<NodeAddr, Node>) {
    let Some(topology) = shared.view().topology.clone() else {
        return;
    };
    let hottest = shared.heat.sum().hottest(SLOTS_MAX, |rate| rate.operations);
    let mut by_owner: BTreeMap<NodeAddr, Vec<Slot>> = BTreeMap::new();
    for hot in hottest {
        if let Some(owner) = topology.primary(hot.slot) {
            by_owner
                .entry(owner.addr.clone())
                .or_default()
                .push(hot.slot);
        }
    }
    open.retain(|addr, _| by_owner.contains_key(addr));
    let mut tasks = tokio::task::JoinSet::new();
    for (addr, slots) in by_owner {
        let (context, node) = (context.clone(), open.remove(&addr));
        tasks.spawn(async move {
            let asked = timeout(PATIENCE, ask(&context, &addr, node, &slots)).await;
            (addr, asked)
        });
    }
    let mut counts = HashMap::new();
    while let Some(done) = tasks.join_next().await {
        if let Ok((addr, Ok(Ok((node, told))))) = done {
            open.insert(addr, node);
            counts.extend(told);
        }
    }
    shared.heat.set_node_counts(counts);
}

async fn ask(
    context: &DiscoveryContext,
    addr: &NodeAddr,
    open: Option<Node>,
    slots: &[Slot],
) -> Result<(Node, Vec<(u16, NodeCounts)>), LookError> {
    let mut node = match open {
        Some(node) => node,
        None => Node::connect(context, addr).await?,
    };
    let mut told = Vec::with_capacity(slots.len());
    for slot in slots {
        let number = slot.get().to_string();
        let number = number.as_bytes();
        let request: [&[u8]; 5] = [b"CLUSTER", b"SLOT-STATS", b"SLOTSRANGE", number, number];
        let answer = node.call(&request).await?;
        match counts_in(&answer) {
            Some(counts) => told.push((slot.get(), counts)),
            None if answer.as_error().is_some() => break, // it would say so of every slot
            None => {}                                    // it owns the slot no more
        }
    }
    Ok((node, told))
}

/// `[[slot, {key-count: .., cpu-usec: .., ..}]]`, with as much as the node counts.
fn counts_in(answer: &Value) -> Option<NodeCounts> {
    let counts = answer.as_array()?.first()?.as_array()?.get(1)?;
    let get = |name: &str| u64::try_from(counts.map_get(name)?.as_int()?).ok();
    Some(NodeCounts {
        key_count: get("key-count"),
        cpu_usec: get("cpu-usec"),
        memory_bytes: get("memory-bytes"),
        network_bytes_in: get("network-bytes-in"),
        network_bytes_out: get("network-bytes-out"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Option<NodeCounts> {
        counts_in(&Value::parse(text).unwrap().0)
    }

    #[test]
    fn what_a_node_does_not_count_is_absent() {
        let all = b"*1\r\n*2\r\n:5\r\n%2\r\n$9\r\nkey-count\r\n:7\r\n$8\r\ncpu-usec\r\n:99\r\n";
        let counts = parsed(all).unwrap();
        assert_eq!((counts.key_count, counts.cpu_usec), (Some(7), Some(99)));
        assert_eq!(counts.memory_bytes, None);
        assert!(parsed(b"*0\r\n").is_none());
        assert!(parsed(b"-ERR unknown subcommand\r\n").is_none());
    }
}
