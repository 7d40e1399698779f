//! Answers to CLUSTER SHARDS and CLUSTER SLOTS.
//!
//! Holds: no panic; RESP2 and RESP3 of one answer say the same; an accepted view is consistent, is
//! not new a second time, and a patch of any slot keeps it so.

#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{Protocol, Value};
use topology::{
    Candidate, NodeAddr, ParseError, Role, Slot, Topology, accept, diff, parse_shards, parse_slots,
};

fn consistent(topology: &Topology) {
    let owned: usize = topology
        .ranges()
        .iter()
        .map(|(range, _)| range.slots().count())
        .sum();
    assert_eq!(owned + topology.holes(), usize::from(Slot::COUNT));
    assert!(topology.primaries().all(|node| node.role == Role::Primary));
    for node in topology.nodes() {
        assert_eq!(topology.node_by_addr(&node.addr), Some(node));
        assert_eq!(topology.node_by_id(&node.id), Some(node));
        assert_eq!(
            NodeAddr::parse(&node.addr.to_string()).as_ref(),
            Some(&node.addr)
        );
    }
}

fn believe(view: Candidate) {
    let Ok(Some(topology)) = accept(None, view.clone()) else {
        return;
    };
    consistent(&topology);
    assert!(
        accept(Some(&topology), view)
            .expect("the same cluster")
            .is_none()
    );
    let Some(slot) = Slot::new(topology.nodes().count() as u16) else {
        return;
    };
    for node in topology.nodes() {
        let patched = topology
            .with_slot_moved(slot, &node.addr)
            .expect("a known node");
        consistent(&patched);
        assert_eq!(
            patched.primary(slot).map(|owner| &owner.addr),
            Some(&node.addr)
        );
        let _ = diff(&topology, &patched);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let Ok((value, _)) = Value::parse(bytes) else {
        return;
    };
    let (flat, _) = Value::parse(&value.to_vec(Protocol::Resp2)).expect("what is written is legal");
    let asked = NodeAddr::new("asked", 6379).expect("an address");
    type Parse = fn(&Value, &NodeAddr, bool) -> Result<Candidate, ParseError>;
    for parse in [parse_shards as Parse, parse_slots] {
        let view = parse(&value, &asked, choice & 1 == 1);
        if let (Ok(three), Ok(two)) = (&view, parse(&flat, &asked, choice & 1 == 1)) {
            assert!(three.agrees_with(&two));
        }
        if let Ok(view) = view {
            believe(view);
        }
    }
});
