//! Small clusters for the tests: node `n` has an id that ends in `n` and the address `n:1000+n`.

use crate::{
    Candidate, Health, Node, NodeAddr, NodeId, Role, Shard, Slot, SlotRange, Topology, accept,
};

pub(crate) fn addr(n: u16) -> NodeAddr {
    NodeAddr::new(&format!("node-{n}"), 1000 + n).unwrap()
}

pub(crate) fn node(n: u16) -> Node {
    Node {
        id: NodeId::parse(format!("{n:040x}").as_bytes()).unwrap(),
        addr: addr(n),
        role: Role::Replica,
        health: Health::Online,
        zone: None,
        replication_offset: None,
    }
}

pub(crate) fn range(first: u16, last: u16) -> SlotRange {
    SlotRange::new(Slot::new(first).unwrap(), Slot::new(last).unwrap()).unwrap()
}

pub(crate) type Row = (Shard, Vec<SlotRange>);

/// A shard: the first node is its primary.
pub(crate) fn row(nodes: &[u16], ranges: &[(u16, u16)]) -> Row {
    let (primary, replicas) = nodes.split_first().unwrap();
    let replicas = replicas.iter().map(|&n| node(n)).collect();
    let ranges = ranges
        .iter()
        .map(|&(first, last)| range(first, last))
        .collect();
    (
        Shard {
            primary: node(*primary),
            replicas,
        },
        ranges,
    )
}

pub(crate) fn view(rows: Vec<Row>) -> Candidate {
    Candidate::from_shards(rows).unwrap()
}

/// Three shards: 1 with 4, 2 with 5, 3 with 6.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        row(&[1, 4], &[(0, 5460)]),
        row(&[2, 5], &[(5461, 10922)]),
        row(&[3, 6], &[(10923, 16383)]),
    ]
}

pub(crate) fn topology(rows: Vec<Row>) -> Topology {
    accept(None, view(rows)).unwrap().unwrap()
}

pub(crate) fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}
