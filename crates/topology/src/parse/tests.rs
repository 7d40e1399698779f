use proptest::prelude::*;
use resp::{Protocol, Value};

use super::*;
use crate::{Candidate, Health, Node, NodeAddr, ParseError, Slot};

fn asked() -> NodeAddr {
    NodeAddr::new("asked.example", 33001).unwrap()
}

/// One recorded reply.
macro_rules! reply {
    ($name:literal) => {
        Value::parse(include_bytes!(concat!("../../testdata/", $name)))
            .unwrap()
            .0
    };
}

fn shards(reply: &Value) -> Candidate {
    parse_shards(reply, &asked(), false).unwrap()
}

fn slots(reply: &Value) -> Candidate {
    parse_slots(reply, &asked(), false).unwrap()
}

fn node(view: &Candidate, port: u16) -> Node {
    let mut nodes = view.shards().iter().flat_map(crate::Shard::nodes);
    nodes.find(|node| node.addr.port == port).unwrap().clone()
}

fn primary_port(view: &Candidate, slot: u16) -> Option<u16> {
    let owner = view.owners.get(Slot::new(slot).unwrap())?;
    Some(view.shards()[owner.get()].primary.addr.port)
}

#[test]
fn a_full_cluster_is_read_alike_from_all_four_replies() {
    let views = [
        shards(&reply!("9.1.2/full.shards2")),
        shards(&reply!("9.1.2/full.shards3")),
        slots(&reply!("9.1.2/full.slots2")),
        slots(&reply!("9.1.2/full.slots3")),
        shards(&reply!("8.0.1/full.shards2")),
        shards(&reply!("8.0.1/full.shards3")),
        slots(&reply!("8.0.1/full.slots2")),
        slots(&reply!("8.0.1/full.slots3")),
    ];
    for view in &views {
        assert_eq!(view.holes(), 0);
        assert_eq!(view.shards().len(), 3);
        for (slot, port) in [
            (0, 33000),
            (99, 33000),
            (100, 33001),
            (101, 33000),
            (5460, 33000),
        ] {
            assert_eq!(primary_port(view, slot), Some(port));
        }
        for (slot, port) in [
            (5461, 33001),
            (10922, 33001),
            (10923, 33002),
            (16383, 33002),
        ] {
            assert_eq!(primary_port(view, slot), Some(port));
        }
        assert_eq!(&*node(view, 33002).addr.host, "127.0.0.1");
    }
    assert!(views[0].agrees_with(&views[1]) && views[2].agrees_with(&views[3]));
    assert_eq!(node(&views[0], 33001).zone.as_deref(), Some("zone-b"));
    assert_eq!(node(&views[2], 33001).zone.as_deref(), Some("zone-b"));
    assert_eq!(node(&views[4], 33001).zone, None);
}

#[test]
fn a_node_alone_is_where_it_was_asked() {
    for view in [
        shards(&reply!("9.1.2/alone.shards2")),
        slots(&reply!("9.1.2/alone.slots2")),
    ] {
        assert_eq!(view.holes(), 16384 - 5461);
        assert_eq!(node(&view, 33000).addr.to_string(), "asked.example:33000");
    }
    let fresh = shards(&reply!("9.1.2/fresh.shards2"));
    assert_eq!((fresh.holes(), fresh.shards().len()), (16384, 1));
    assert_eq!(slots(&reply!("9.1.2/fresh.slots2")).holes(), 16384);
}

#[test]
fn loading_replicas_and_empty_primaries_are_nodes() {
    let view = shards(&reply!("9.1.2/loading.shards2"));
    assert_eq!(view.shards().len(), 4);
    assert_eq!(node(&view, 33003).health, Health::Loading);
    assert_eq!(node(&view, 33003).role, crate::Role::Replica);
    assert_eq!(node(&view, 33005).role, crate::Role::Primary);
}

#[test]
fn hostnames_are_preferred_and_a_missing_one_means_the_ip() {
    for view in [
        shards(&reply!("9.1.2/hostname.shards2")),
        slots(&reply!("9.1.2/hostname.slots2")),
        slots(&reply!("9.1.2/hostname.slots3")),
        shards(&reply!("8.0.1/hostname.shards2")),
        slots(&reply!("8.0.1/hostname.slots2")),
    ] {
        assert_eq!(&*node(&view, 33000).addr.host, "node-0.example");
        assert_eq!(&*node(&view, 33001).addr.host, "127.0.0.1");
    }
}

#[test]
fn unknown_endpoints_mean_the_host_that_was_asked() {
    for view in [
        shards(&reply!("9.1.2/unknown.shards2")),
        slots(&reply!("9.1.2/unknown.slots2")),
    ] {
        for port in 33000..33003 {
            assert_eq!(&*node(&view, port).addr.host, "asked.example");
        }
    }
}

#[test]
fn a_failed_primary_stays_until_a_replica_leads() {
    let before = shards(&reply!("9.1.2/failing.shards2"));
    assert_eq!(primary_port(&before, 0), Some(33000));
    for view in [
        shards(&reply!("9.1.2/failed.shards2")),
        shards(&reply!("8.0.1/failed.shards2")),
    ] {
        assert_eq!(view.holes(), 0);
        assert_eq!(primary_port(&view, 0), Some(33003));
        let dead = node(&view, 33000);
        assert_eq!(
            (dead.role, dead.health),
            (crate::Role::Replica, Health::Failed)
        );
        assert_eq!(node(&view, 33004).health, Health::Failed);
    }
    assert_eq!(
        primary_port(&slots(&reply!("9.1.2/failed.slots2")), 0),
        Some(33003)
    );
    assert_eq!(
        primary_port(&slots(&reply!("8.0.1/failed.slots2")), 0),
        Some(33003)
    );
}

#[test]
fn tls_takes_the_tls_port() {
    let both = reply!("8.0.1/tls.shards2");
    let plain = parse_shards(&both, &asked(), false).unwrap();
    let tls = parse_shards(&both, &asked(), true).unwrap();
    assert_eq!(primary_port(&plain, 0), Some(33100));
    assert_eq!(primary_port(&tls, 0), Some(33110));
    assert_eq!(node(&tls, 33111).role, crate::Role::Replica);
    let only = reply!("8.0.1/tlsonly.shards2");
    assert_eq!(
        primary_port(&parse_shards(&only, &asked(), true).unwrap(), 0),
        Some(33120)
    );
    assert_eq!(
        parse_shards(&only, &asked(), false).unwrap_err(),
        ParseError::Shape("port")
    );
    let only = reply!("8.0.1/tlsonly.slots2");
    assert_eq!(
        primary_port(&parse_slots(&only, &asked(), true).unwrap(), 0),
        Some(33120)
    );
    assert_eq!(
        primary_port(&slots(&reply!("8.0.1/tls.slots2")), 0),
        Some(33100)
    );
}

#[test]
fn a_dead_node_without_address_or_with_a_reused_one_is_left_out() {
    let recorded = include_str!("../../testdata/9.1.2/failed.shards2");
    let replace = |from: &str, to: &str| {
        assert!(recorded.contains(from));
        shards(
            &Value::parse(recorded.replace(from, to).as_bytes())
                .unwrap()
                .0,
        )
    };
    let nodes = |view: &Candidate| view.shards().iter().flat_map(crate::Shard::nodes).count();
    assert_eq!(nodes(&replace(":33004\r\n", ":33004\r\n")), 6);
    let reused = replace(":33004\r\n", ":33005\r\n");
    assert_eq!(
        (nodes(&reused), node(&reused, 33005).health),
        (5, Health::Online)
    );
    let at = ":33004\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$8\r\nendpoint\r\n$9\r\n127.0.0.1\r\n";
    let lost = replace(
        at,
        ":33004\r\n$2\r\nip\r\n$0\r\n\r\n$8\r\nendpoint\r\n$0\r\n\r\n",
    );
    assert_eq!(nodes(&lost), 5);
}

#[test]
fn contradictions_and_nonsense_are_refused() {
    let recorded = include_str!("../../testdata/9.1.2/full.shards3");
    let error = |from: &str, to: &str| {
        assert!(recorded.contains(from), "{from}");
        let value = Value::parse(recorded.replacen(from, to, 1).as_bytes())
            .unwrap()
            .0;
        parse_shards(&value, &asked(), false).unwrap_err()
    };
    assert_eq!(
        error(":5461\r\n", ":5460\r\n"),
        ParseError::TwoOwners(Slot::new(5460).unwrap())
    );
    assert_eq!(error(":16383\r\n", ":16384\r\n"), ParseError::NoSuchSlot);
    assert_eq!(error(":10923\r\n", ":-1\r\n"), ParseError::NoSuchSlot);
    assert_eq!(error(":101\r\n", ":9999\r\n"), ParseError::NoSuchSlot);
    assert_eq!(error(":33002\r\n", ":0\r\n"), ParseError::Shape("port"));
    assert_eq!(error(":33002\r\n", ":65536\r\n"), ParseError::Shape("port"));
    assert_eq!(
        error("$6\r\nmaster\r\n", "$6\r\nmister\r\n"),
        ParseError::Shape("role")
    );
    assert_eq!(
        error("$5\r\nslots\r\n", "$5\r\nslits\r\n"),
        ParseError::Shape("slots")
    );
    assert_eq!(
        error(
            "$9\r\n127.0.0.1\r\n$8\r\nendpoint\r\n$9\r\n127.0.0.1\r\n",
            "$9\r\n127.0.0.1\r\n$8\r\nendpoint\r\n$9\r\n127.0 0.1\r\n"
        ),
        ParseError::Shape("endpoint")
    );
    let twice = NodeAddr::new("127.0.0.1", 33001).unwrap();
    assert_eq!(
        error(":33002\r\n", ":33001\r\n"),
        ParseError::AddressTwice(twice)
    );
    for text in [
        "+OK\r\n",
        ":1\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*1\r\n:1\r\n",
        "$-1\r\n",
    ] {
        let value = Value::parse(text.as_bytes()).unwrap().0;
        assert!(parse_shards(&value, &asked(), false).is_err(), "{text:?}");
        assert!(parse_slots(&value, &asked(), false).is_err(), "{text:?}");
    }
    let refused = Value::parse(b"-NOAUTH Authentication required.\r\n")
        .unwrap()
        .0;
    let error = parse_shards(&refused, &asked(), false).unwrap_err();
    assert_eq!(
        error,
        ParseError::Refused("NOAUTH Authentication required.".into())
    );
}

/// Or an answer would say other things in RESP2, which writes a double as a string and a set as an array.
#[test]
fn what_is_of_another_type_is_refused_and_not_left_out() {
    let recorded = include_str!("../../testdata/9.1.2/hostname.slots3");
    for (from, to, what) in [
        ("$6\r\nzone-a\r\n", ",1.5\r\n", "availability zone"),
        ("%2\r\n", "~4\r\n", "metadata"),
    ] {
        assert!(recorded.contains(from), "{from}");
        let (value, _) = Value::parse(recorded.replacen(from, to, 1).as_bytes()).unwrap();
        let error = parse_slots(&value, &asked(), false).unwrap_err();
        assert_eq!(error, ParseError::Shape(what));
    }
    // The first with `?` for an endpoint: its address is asked for.
    let (head, rest) = recorded.split_once("$1\r\n?\r\n").unwrap();
    let rest = rest.replacen("$9\r\n127.0.0.1\r\n", ",1.5\r\n", 1);
    let text = format!("{head}$1\r\n?\r\n{rest}");
    let (value, _) = Value::parse(text.as_bytes()).unwrap();
    let error = parse_slots(&value, &asked(), false).unwrap_err();
    assert_eq!(error, ParseError::Shape("ip"));
}

proptest! {
    /// One byte of a real reply changed: an error or a consistent view, never a panic.
    #[test]
    fn damaged_replies_do_no_harm(at in any::<prop::sample::Index>(), byte: u8, tls: bool) {
        let mut bytes = include_bytes!("../../testdata/9.1.2/hostname.slots2").to_vec();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        if let Ok((value, _)) = Value::parse(&bytes) {
            let shards = parse_shards(&value, &asked(), tls);
            for view in [shards, parse_slots(&value, &asked(), tls)].into_iter().flatten() {
                prop_assert!(view.holes() <= 16384);
            }
        }
    }
}

#[test]
fn the_protocol_a_reply_came_in_does_not_matter() {
    for (value, is_shards) in [
        (reply!("9.1.2/full.shards3"), true),
        (reply!("8.0.1/full.shards3"), true),
        (reply!("9.1.2/full.slots3"), false),
        (reply!("9.1.2/hostname.slots3"), false),
    ] {
        let parse = if is_shards { parse_shards } else { parse_slots };
        let flat = Value::parse(&value.to_vec(Protocol::Resp2)).unwrap().0;
        let (three, two) = (
            parse(&value, &asked(), false),
            parse(&flat, &asked(), false),
        );
        assert!(three.unwrap().agrees_with(&two.unwrap()));
    }
}
