use super::*;
use crate::report::{Node, Reads as ReadSettings, Shard};

fn node(address: &str, role: &str, zone: &str) -> Node {
    Node {
        address: address.to_owned(),
        role: role.to_owned(),
        zone: Some(zone.to_owned()),
        health: "online".to_owned(),
        readable: true,
        ..Node::default()
    }
}

fn topology() -> Topology {
    let shard = |index: usize, ranges: Vec<(u16, u16)>, letter: &str| Shard {
        index,
        ranges,
        nodes: vec![
            node(&format!("{letter}:1"), "primary", "az-1"),
            node(&format!("{letter}:2"), "replica", "az-2"),
        ],
        ..Shard::default()
    };
    Topology {
        cross_slot: "split".to_owned(),
        reads: ReadSettings {
            zone: Some("az-2".to_owned()),
            port: None,
            readonly_flag: true,
        },
        shards: vec![
            shard(0, vec![(0, 8191)], "a"),
            shard(1, vec![(8192, 16383)], "b"),
        ],
        ..Topology::default()
    }
}

fn explained(line: &str) -> Explanation {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    explain(CommandTable::builtin(), &topology(), &args).unwrap()
}

#[test]
fn a_read_goes_to_the_owner_and_for_some_to_the_own_zone() {
    let explanation = explained("GET user:1");
    let slot = Slot::of_key(b"user:1").get();
    let place = &explanation.places[0];
    assert_eq!(place.slot, slot);
    let letter = if slot < 8192 { "a" } else { "b" };
    assert_eq!(place.node.as_ref().unwrap().address, format!("{letter}:1"));
    assert_eq!(place.reads_from.len(), 1);
    assert_eq!(place.reads_from[0].address, format!("{letter}:2"));
    assert_eq!((explanation.kind, explanation.lane), ("read", Some("fast")));
    let text = text(&explanation);
    assert!(
        text.contains(&format!("slot    {slot}, of user:1\n")),
        "{text}"
    );
    assert!(text.contains("after READONLY"), "{text}");
}

#[test]
fn a_write_goes_to_the_primary_alone() {
    let explanation = explained("SET x{user}y 1");
    assert_eq!(explanation.kind, "write");
    assert!(explanation.places[0].reads_from.is_empty());
    assert_eq!(explanation.places[0].slot, Slot::of_key(b"user").get());
    assert_eq!(explanation.places[0].keys, ["x{user}y (by its tag user)"]);
}

#[test]
fn without_a_replica_that_is_fit_the_primary_is_read_from() {
    let mut topology = topology();
    for shard in &mut topology.shards {
        shard.nodes[1].readable = false;
    }
    let args = ["GET".to_owned(), "k".to_owned()];
    let explanation = explain(CommandTable::builtin(), &topology, &args).unwrap();
    let reads = &explanation.places[0].reads_from;
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].role, "primary");
}

#[test]
fn keys_of_several_slots_are_several_places() {
    let explanation = explained("MGET a b a");
    assert_eq!(explanation.places.len(), 2);
    let keys: usize = explanation
        .places
        .iter()
        .map(|place| place.keys.len())
        .sum();
    assert_eq!(keys, 3);
    assert!(explanation.goes_to.contains("2 slots"));
    let mut refusing = topology();
    refusing.cross_slot = "refuse".to_owned();
    let args: Vec<String> = ["MGET", "a", "b"].map(str::to_owned).to_vec();
    let refused = explain(CommandTable::builtin(), &refusing, &args).unwrap();
    assert!(refused.goes_to.contains("CROSSSLOT"), "{refused:?}");
}

#[test]
fn every_command_of_the_table_is_explained_without_a_gap() {
    for command in CommandTable::builtin().iter() {
        let mut args: Vec<String> = command.name().split('|').map(str::to_owned).collect();
        while i16::try_from(args.len()).unwrap() < command.arity().abs() {
            args.push("1".to_owned());
        }
        if let Ok(explanation) = explain(CommandTable::builtin(), &topology(), &args) {
            let shown = text(&explanation);
            assert!(shown.contains("goes to"), "{shown}");
            assert!(!explanation.goes_to.is_empty());
        }
    }
}

#[test]
fn slow_commands_take_the_bulk_lane_and_unknown_ones_are_mistakes() {
    assert_eq!(explained("KEYS *").lane, Some("bulk"));
    assert_eq!(explained("PING").lane, None);
    let args = ["NOSUCH".to_owned()];
    let error = explain(CommandTable::builtin(), &topology(), &args).unwrap_err();
    assert!(
        error.contains("NOSUCH") && error.contains("modules"),
        "{error}"
    );
}
