//! Cut commands and merged replies, beside what one server would have answered.

use std::collections::HashMap;

use command::CommandTable;
use foldhash::fast::FixedState;
use proptest::prelude::*;
use resp::{OwnedRequest, Protocol, Value, write};

use super::*;
use crate::{CrossSlot, Keys, Plan, Split, plan};

const WRONG_SHAPE: &[u8] = b"-ERR KEYWAY a shard's part of the reply has another shape\r\n";

/// The one reply made of whole replies to the parts.
fn merged(mut merge: Merge, replies: &[&[u8]]) -> Vec<u8> {
    for (part, reply) in (0..).zip(replies) {
        let complete = merge.piece(part, reply, true);
        assert_eq!(complete, usize::from(part) + 1 == replies.len());
    }
    let mut out = b"before".to_vec();
    merge.finish(&mut out);
    out.strip_prefix(b"before").unwrap().to_vec()
}

fn array(part_of_key: &[u16], replies: &[&[u8]]) -> Vec<u8> {
    merged(Merge::array(replies.len(), part_of_key.to_vec()), replies)
}

/// Replies of any shape, each in its place; of a part that fails an error in each of its places.
#[test]
fn transactions_in_parts_are_answered_as_one() {
    let here = vec![(1, b"+here\r\n".to_vec()), (5, b":5\r\n".to_vec())];
    let blocks = |replies: &[&[u8]]| {
        let pieces = [0, 1, 0, 1].map(Piece::Whole).into();
        let merge = Merge::blocks(replies.len(), pieces, here.clone());
        merged(merge, replies)
    };
    let first: &[u8] = b"*2\r\n*2\r\n:1\r\n$1\r\na\r\n-ERR its own\r\n";
    assert_eq!(
        blocks(&[first, b"*2\r\n+OK\r\n$-1\r\n"]),
        b"*6\r\n*2\r\n:1\r\n$1\r\na\r\n+here\r\n+OK\r\n-ERR its own\r\n$-1\r\n:5\r\n"
    );
    let (lost, down): (&[u8], &[u8]) = (b"-ERR lost\r\n", b"-CLUSTERDOWN\r\n");
    assert_eq!(
        blocks(&[first, lost]),
        b"*6\r\n*2\r\n:1\r\n$1\r\na\r\n+here\r\n-ERR lost\r\n-ERR its own\r\n-ERR lost\r\n:5\r\n"
    );
    assert_eq!(
        blocks(&[down, lost]),
        b"*6\r\n-CLUSTERDOWN\r\n+here\r\n-ERR lost\r\n-CLUSTERDOWN\r\n-ERR lost\r\n:5\r\n",
        "what one says of itself is not so of the other"
    );
    assert_eq!(blocks(&[lost, lost]), lost);
    for odd in [
        &b"*1\r\n:1\r\n"[..],
        b"*3\r\n:1\r\n:1\r\n:1\r\n",
        b"*-1\r\n",
        b"_\r\n",
    ] {
        assert_eq!(blocks(&[first, odd]), WRONG_SHAPE);
    }
}

#[test]
fn a_command_of_a_transaction_may_be_in_parts_itself() {
    let blocks = |replies: &[&[u8]]| {
        let pieces = vec![
            Piece::Cut(vec![0, 1], Merge::array(2, vec![1, 0, 1])),
            Piece::Whole(1),
            Piece::Cut(vec![1, 0], Merge::sum(2)),
        ];
        merged(Merge::blocks(2, pieces, Vec::new()), replies)
    };
    let first: &[u8] = b"*2\r\n*1\r\n$1\r\nb\r\n:2\r\n";
    let second: &[u8] = b"*3\r\n*2\r\n$1\r\na\r\n$1\r\nc\r\n+OK\r\n:5\r\n";
    assert_eq!(
        blocks(&[first, second]),
        b"*3\r\n*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n+OK\r\n:7\r\n"
    );
    assert_eq!(
        blocks(&[b"-ERR lost\r\n", second]),
        b"*3\r\n-ERR lost\r\n+OK\r\n-ERR lost\r\n"
    );
}

#[test]
fn values_come_in_the_order_of_the_keys() {
    let parts: [&[u8]; 3] = [
        b"*3\r\n$1\r\na\r\n$1\r\nd\r\n$1\r\nf\r\n",
        b"*1\r\n$1\r\nb\r\n",
        b"*2\r\n$1\r\nc\r\n$1\r\ne\r\n",
    ];
    let expected = b"*6\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n";
    assert_eq!(array(&[0, 1, 2, 0, 2, 0], &parts), expected);
}

#[test]
fn nulls_keep_their_place_and_their_protocol() {
    for null in [&b"$-1\r\n"[..], b"_\r\n"] {
        let first = [b"*2\r\n", null, b"$3\r\n$-1\r\n"].concat();
        let second = [b"*2\r\n$0\r\n\r\n", null].concat();
        let expected = [b"*4\r\n", null, b"$0\r\n\r\n$3\r\n$-1\r\n", null].concat();
        assert_eq!(array(&[0, 1, 0, 1], &[&first, &second]), expected);
    }
}

#[test]
fn values_may_hold_anything() {
    let tricky = b"*2\r\n$15\r\n*1\r\n$3\r\nabc\r\n:1\r\n$4\r\n\r\n\r\n\r\n";
    let expected = [
        &b"*3\r\n$15\r\n*1\r\n$3\r\nabc\r\n:1\r\n$1\r\nx\r\n"[..],
        b"$4\r\n\r\n\r\n\r\n",
    ];
    let parts: [&[u8]; 2] = [tricky, b"*1\r\n$1\r\nx\r\n"];
    assert_eq!(array(&[0, 1, 0], &parts), expected.concat());
}

#[test]
fn a_part_of_another_shape_is_refused() {
    let good = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n";
    for wrong in [
        &b"*1\r\n$1\r\nc\r\n"[..],                  // too few
        b"*3\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n", // too many
        b"*0\r\n",                                  // none
        b"*-1\r\n",
        b"_\r\n",
        b"$-1\r\n",
        b":2\r\n",
        b"+OK\r\n",
        b"",
        b"*2",
        b"*2\r\n",
        b"*2\r\n$1\r\na\r\n", // cut off
        b"*2\r\n$1\r\na\r\n$1\r\nb",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n:1\r\n", // more behind it
        b"*02\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"~2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b">2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"%1\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"|1\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"$14\r\n$1\r\na\r\n$1\r\nb\r\n", // a bulk that looks like elements
        b"*1\r\n$1\r\na\r\n$1\r\nb\r\n",  // the header lies
        b"*3\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"*2\r\n$1\r\na\r\n-ERR no\r\n", // an error where a value belongs
        b"*2\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n",
        b"*2\r\n$1\r\na\r\n:1\r\n",
    ] {
        let text = String::from_utf8_lossy(wrong);
        assert_eq!(
            array(&[0, 0, 1, 1], &[good, wrong]),
            WRONG_SHAPE,
            "{text:?}"
        );
        assert_eq!(
            array(&[1, 1, 0, 0], &[wrong, good]),
            WRONG_SHAPE,
            "{text:?}"
        );
    }
    for wrong in [
        &b"*2\r\n$1\r\nb\r\n$1\r\nc\r\n"[..],
        b"*1\r\n$1\r\nb\r\n$1\r\nc\r\n",
        b"*1\r\n$1\r\nb\r\n:1\r\n",
        b"*1\r\n$1\r\nb",
        b"*1\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*1\r\n$1\r\nb\r\n",
        b"*1\r\n-ERR no\r\n",
        b"*0\r\n",
        b"*01\r\n$1\r\nb\r\n",
        b"~1\r\n$1\r\nb\r\n",
        b"$-1\r\n",
        b"",
    ] {
        let text = String::from_utf8_lossy(wrong);
        let good = b"*1\r\n$1\r\na\r\n";
        assert_eq!(array(&[1, 0], &[good, wrong]), WRONG_SHAPE, "{text:?}");
        assert_eq!(array(&[1, 0], &[wrong, good]), WRONG_SHAPE, "{text:?}");
    }
    // A key of a part that is not there.
    assert_eq!(array(&[0, 0, 7], &[good]), WRONG_SHAPE);
    assert_eq!(array(&[7], &[good]), WRONG_SHAPE);
}

#[test]
fn numbers_are_summed_and_bounded() {
    let sum = |replies: &[&[u8]]| merged(Merge::sum(replies.len()), replies);
    assert_eq!(sum(&[b":1\r\n", b":0\r\n", b":41\r\n"]), b":42\r\n");
    assert_eq!(
        sum(&[b":9223372036854775806\r\n", b":1\r\n"]),
        b":9223372036854775807\r\n"
    );
    assert_eq!(sum(&[b":9223372036854775807\r\n", b":1\r\n"]), WRONG_SHAPE);
    assert_eq!(sum(&[b":9223372036854775808\r\n", b":0\r\n"]), WRONG_SHAPE);
    for wrong in [
        &b"+OK\r\n"[..],
        b"$1\r\n1\r\n",
        b":\r\n",
        b":1",
        b":1\r",
        b": 1\r\n",
        b":+1\r\n",
        b":1.5\r\n",
        b":1\r\n:1\r\n",
        b"_\r\n",
        b"*1\r\n:1\r\n",
        b"",
    ] {
        let text = String::from_utf8_lossy(wrong);
        assert_eq!(sum(&[b":1\r\n", wrong]), WRONG_SHAPE, "{text:?}");
    }
}

#[test]
fn ok_is_ok_only_when_all_are() {
    let all_ok = |replies: &[&[u8]]| merged(Merge::all_ok(replies.len()), replies);
    assert_eq!(all_ok(&[b"+OK\r\n", b"+OK\r\n"]), b"+OK\r\n");
    for wrong in [
        &b"+QUEUED\r\n"[..],
        b":1\r\n",
        b"$2\r\nOK\r\n",
        b"_\r\n",
        b"",
    ] {
        assert_eq!(all_ok(&[b"+OK\r\n", wrong]), WRONG_SHAPE);
    }
}

#[test]
fn an_error_of_one_part_is_the_reply_of_all() {
    let oom = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let noperm = b"-NOPERM No permissions to access a key\r\n";
    let bulk_error = b"!5\r\nERR x\r\n";
    for make in [Merge::all_ok, Merge::sum, |parts| {
        Merge::array(parts, vec![0, 1, 2])
    }] {
        let one = [(b"*1\r\n$1\r\na\r\n"), &oom[..], b":1\r\n"];
        assert_eq!(merged(make(3), &one), oom);
        let two = [noperm, &b"garbage"[..], oom];
        assert_eq!(merged(make(3), &two), noperm, "the first part's");
        assert_eq!(merged(make(2), &[b"+OK\r\n", bulk_error]), bulk_error);
    }
}

#[test]
fn it_is_complete_with_the_last_byte_of_the_last_part() {
    let mut merge = Merge::sum(3);
    assert!(!merge.piece(2, b":", false));
    assert!(!merge.piece(0, b":1\r\n", true));
    assert!(!merge.piece(2, b"5", false));
    assert_eq!(merge.held_bytes(), 6);
    assert!(!merge.piece(2, b"\r\n", true));
    assert!(!merge.piece(2, b":9\r\n", true), "a part is answered once");
    assert!(!merge.piece(9, b":9\r\n", true), "and by its own number");
    assert_eq!(merge.held_bytes(), 8);
    assert!(merge.piece(1, b":2\r\n", true));
    assert_eq!(merge.held_bytes(), 12);
    let mut out = Vec::new();
    merge.finish(&mut out);
    assert_eq!(out, b":8\r\n");
}

/// A server with some strings.
#[derive(Clone, Debug, Default)]
struct Server(HashMap<Vec<u8>, Vec<u8>>);

impl Server {
    fn run(&mut self, args: &[&[u8]], protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        let keys = &args[1..];
        match args[0] {
            b"MGET" => {
                write::array(&mut out, keys.len());
                for key in keys {
                    match self.0.get(*key) {
                        Some(value) => write::bulk(&mut out, value),
                        None => write::null(&mut out, protocol),
                    }
                }
            }
            b"MSET" => {
                for pair in keys.chunks(2) {
                    self.0.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                write::simple(&mut out, "OK");
            }
            name => {
                let mut count = 0;
                for key in keys {
                    let found = if name == b"DEL" || name == b"UNLINK" {
                        self.0.remove(*key).is_some()
                    } else {
                        self.0.contains_key(*key)
                    };
                    count += i64::from(found);
                }
                write::integer(&mut out, count);
            }
        }
        out
    }
}

/// The arguments of a request as it goes over the wire.
fn arguments(request: &[u8]) -> Vec<Vec<u8>> {
    let (value, len) = Value::parse(request).unwrap();
    assert_eq!(len, request.len());
    let args = value.as_array().unwrap().iter();
    args.map(|arg| arg.as_bytes().unwrap().to_vec()).collect()
}

fn refs(args: &[Vec<u8>]) -> Vec<&[u8]> {
    args.iter().map(Vec::as_slice).collect()
}

fn split(args: &[Vec<u8>]) -> Option<Split> {
    let request = OwnedRequest::from_args(args.iter());
    let request = request.as_request();
    let command = CommandTable::builtin().lookup(request).unwrap();
    let hasher = FixedState::with_seed(3);
    match plan(command, request, CrossSlot::Split, &hasher) {
        Plan::Split(split) => Some(*split),
        _ => None,
    }
}

/// Few enough to meet again, some in the slot of another.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-h]".prop_map(String::into_bytes),
        2 => "[x-z]\\{[a-d]\\}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..30),
        Just(b"*1\r\n$-1\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
    ]
}

/// A command that may be cut.
fn whole() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let named = |name: Vec<u8>, mut rest: Vec<Vec<u8>>| {
        rest.insert(0, name);
        rest
    };
    let names = prop::sample::select(vec!["MGET", "DEL", "UNLINK", "EXISTS", "TOUCH"]);
    let names = names.prop_map(|name| name.as_bytes().to_vec());
    let keys = prop::collection::vec(key(), 1..12);
    let pairs = prop::collection::vec((key(), value()), 1..12);
    let pairs = pairs.prop_map(|pairs| pairs.into_iter().flat_map(|(k, v)| [k, v]).collect());
    prop_oneof![
        3 => (names, keys).prop_map(move |(name, keys)| named(name, keys)),
        1 => pairs.prop_map(move |rest: Vec<Vec<u8>>| named(b"MSET".to_vec(), rest)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Cut, run in any order with replies in any pieces, and merged: as one server.
    #[test]
    fn cutting_and_merging_is_what_one_server_does(
        data in prop::collection::hash_map(key(), value(), 0..12),
        args in whole(),
        resp3: bool,
        order in any::<[u16; 12]>(),
        step in 1..40_usize,
    ) {
        let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        let mut one = Server(data);
        let mut shards = one.clone();
        let expected = one.run(&refs(&args), protocol);
        let Some(Split { parts, bytes, mut merge }) = split(&args) else {
            let stride = if args[0] == b"MSET" { 2 } else { 1 };
            let mut slots = args[1..].iter().step_by(stride).map(|key| crate::Slot::of_key(key));
            let first = slots.next();
            prop_assert!(slots.all(|slot| Some(slot) == first), "it has to be cut");
            return Ok(());
        };
        prop_assert!(parts.windows(2).all(|pair| pair[0].slot < pair[1].slot));
        let mut turns: Vec<usize> = (0..parts.len()).collect();
        turns.sort_by_key(|turn| order[*turn]);
        let mut complete = false;
        for turn in turns {
            let args = arguments(&bytes[parts[turn].request.clone()]);
            let stride = if args[0] == b"MSET" { 2 } else { 1 };
            let keys: Vec<_> = args[1..].iter().step_by(stride).collect();
            prop_assert!(keys.iter().all(|key| crate::Slot::of_key(key) == parts[turn].slot));
            let mut prints = Keys::none();
            keys.iter().for_each(|key| prints.push(key, &FixedState::with_seed(3)));
            prop_assert_eq!(&parts[turn].keys, &prints);
            let reply = shards.run(&refs(&args), protocol);
            for start in (0..reply.len()).step_by(step) {
                prop_assert!(!complete);
                let end = reply.len().min(start + step);
                let part = u16::try_from(turn).unwrap();
                complete = merge.piece(part, &reply[start..end], end == reply.len());
            }
        }
        prop_assert!(complete);
        let mut out = Vec::new();
        merge.finish(&mut out);
        prop_assert_eq!(out, expected);
        prop_assert_eq!(shards.0, one.0, "and the same is stored");
    }

    /// Bytes that no server would send give an error or a reply of the right length, no panic.
    #[test]
    fn nothing_that_a_node_sends_breaks_it(
        replies in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            "[*$:+_-][0-9]{0,2}\r\n([*$:+_][0-9]\r\n[a-z]?\r\n)?".prop_map(String::into_bytes),
        ], 2),
        part_of_key in prop::collection::vec(0..3_u16, 1..6),
    ) {
        let keys = part_of_key.len();
        for merge in [Merge::array(2, part_of_key), Merge::sum(2), Merge::all_ok(2)] {
            let is_array = matches!(merge.kind, Kind::Array(_));
            let out = merged(merge, &refs(&replies));
            if out.starts_with(b"*") {
                prop_assert!(is_array);
                let (value, len) = Value::parse(&out).unwrap();
                prop_assert_eq!((value.as_array().unwrap().len(), len), (keys, out.len()));
            }
        }
    }
}

mod whole_keyspace {
    use command::FanOut;
    use topology::Slot;

    use super::*;

    fn all(kind: FanOut, replies: &[&[u8]]) -> String {
        let out = merged(Merge::fan_out(kind, replies.len(), 4), replies);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_of_all_shards_become_one() {
        assert_eq!(
            all(FanOut::Sum, &[b":1\r\n", b":0\r\n", b":41\r\n"]),
            ":42\r\n"
        );
        assert_eq!(all(FanOut::Same, &[b"+OK\r\n", b"+OK\r\n"]), "+OK\r\n");
        assert_eq!(
            all(FanOut::Same, &[b"+OK\r\n", b"-ERR no\r\n"]),
            "-ERR no\r\n"
        );
        let bits: [&[u8]; 2] = [b"*3\r\n:1\r\n:1\r\n:0\r\n", b"*3\r\n:1\r\n:0\r\n:0\r\n"];
        assert_eq!(all(FanOut::And, &bits), "*3\r\n:1\r\n:0\r\n:0\r\n");
        let uneven: [&[u8]; 2] = [b"*1\r\n:1\r\n", b"*2\r\n:1\r\n:1\r\n"];
        assert_eq!(all(FanOut::And, &uneven).as_bytes(), WRONG_SHAPE);
        let names: [&[u8]; 3] = [
            b"*1\r\n$1\r\na\r\n",
            b"*0\r\n",
            b"*2\r\n$1\r\nb\r\n$1\r\nc\r\n",
        ];
        let expected = "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n";
        assert_eq!(all(FanOut::Concatenate, &names), expected);
        assert_eq!(
            all(FanOut::Concatenate, &[b"*0\r\n", b"+OK\r\n"]).as_bytes(),
            WRONG_SHAPE
        );
        let log = |times: &[u64]| -> Vec<u8> {
            let entry = |time: &u64| format!("*3\r\n:{}\r\n:{time}\r\n*0\r\n", time % 7);
            let entries: String = times.iter().map(entry).collect();
            format!("*{}\r\n{entries}", times.len()).into_bytes()
        };
        let (one, two) = (log(&[90, 50, 50]), log(&[70, 60]));
        let logs: [&[u8]; 3] = [&one, b"*0\r\n", &two];
        let newest = log(&[90, 70, 60, 50, 50]);
        assert_eq!(all(FanOut::Newest, &logs).as_bytes(), newest);
        assert_eq!(
            all(FanOut::Newest, &[b"*1\r\n:1\r\n"]).as_bytes(),
            WRONG_SHAPE
        );
        let twice: [&[u8]; 2] = [b"*2\r\n$1\r\nb\r\n$1\r\na\r\n", b"*1\r\n$1\r\nb\r\n"];
        assert_eq!(all(FanOut::Union, &twice), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        let pairs: [&[u8]; 2] = [b"*2\r\n$1\r\na\r\n:1\r\n", b"*2\r\n$1\r\na\r\n:2\r\n"];
        assert_eq!(all(FanOut::SumPairs, &pairs), "*2\r\n$1\r\na\r\n:3\r\n");
        assert_eq!(
            all(FanOut::OneSucceeds, &[b"-ERR no\r\n", b"+OK\r\n"]),
            "+OK\r\n"
        );
        assert_eq!(
            all(FanOut::OneSucceeds, &[b"-ERR a\r\n", b"-ERR b\r\n"]),
            "-ERR a\r\n"
        );
        let one: [&[u8]; 3] = [b"$-1\r\n", b"$1\r\na\r\n", b"_\r\n"];
        assert_eq!(all(FanOut::Random, &one), "$1\r\na\r\n");
        assert_eq!(all(FanOut::Random, &[b"$-1\r\n", b"$-1\r\n"]), "$-1\r\n");
    }

    #[test]
    fn what_is_answered_here_has_its_place_in_a_transaction() {
        let here = vec![(0, b":7\r\n".to_vec()), (2, b"+hi\r\n".to_vec())];
        let reply = b"*2\r\n*1\r\n:1\r\n-ERR a\r\n";
        let expected = b"*4\r\n:7\r\n*1\r\n:1\r\n+hi\r\n-ERR a\r\n";
        assert_eq!(merged(Merge::insert(here.clone()), &[reply]), expected);
        for alone in [&b"*-1\r\n"[..], b"_\r\n", b"-EXECABORT no\r\n"] {
            assert_eq!(merged(Merge::insert(here.clone()), &[alone]), alone);
        }
    }

    fn page(slot: u16, foreign: Option<u16>, guarded: bool) -> Page {
        Page {
            slot: Slot::new(slot).unwrap(),
            foreign: foreign.and_then(Slot::new),
            mark: 5,
            guarded,
            epoch: None,
        }
    }

    fn turned(page: Page, cursor: u64, keys: &[&str]) -> (u64, Vec<String>) {
        let mut reply = Vec::new();
        if page.guarded {
            reply.extend_from_slice(b"*2\r\n:0\r\n");
        }
        write::array(&mut reply, 2);
        write::bulk(&mut reply, cursor.to_string());
        write::array(&mut reply, keys.len());
        keys.iter().for_each(|key| write::bulk(&mut reply, key));
        let out = merged(Merge::page(page), &[&reply]);
        let (Value::Array(parts), _) = Value::parse(&out).unwrap() else {
            panic!("{}", out.escape_ascii())
        };
        let text = |value: &Value| String::from_utf8(value.as_bytes().unwrap().to_vec()).unwrap();
        let keys = parts[1].as_array().unwrap().iter().map(text).collect();
        (text(&parts[0]).parse().unwrap(), keys)
    }

    #[test]
    fn a_cursor_goes_through_all_slots_whoever_owns_them() {
        // `foo` is in slot 12182, `hello` in 866.
        for guarded in [false, true] {
            let whole = page(0, None, guarded);
            assert_eq!(turned(whole, 0, &["foo"]), (0, vec!["foo".to_owned()]));
            // At the node's end comes the next slot of another node.
            let first = page(0, Some(5461), guarded);
            assert_eq!(
                turned(first, 0, &["hello"]),
                (5461, vec!["hello".to_owned()])
            );
            // Beyond it nothing counts: it comes when that slot has its turn.
            assert_eq!(
                turned(first, 12182, &["hello", "foo"]),
                (5461, vec!["hello".to_owned()])
            );
            assert_eq!(
                turned(first, 800, &["hello"]),
                (800, vec!["hello".to_owned()])
            );
            // Within a slot the cursor is marked as this node's.
            let within = 866 | 3 << 14;
            assert_eq!(turned(first, within, &[]), (within | 5 << 48, vec![]));
            assert_eq!(
                Page::cursor(within | 5 << 48),
                Some((Slot::new(866).unwrap(), within, 5))
            );
        }
    }

    #[test]
    fn a_page_that_is_asked_for_again_never_looks_like_the_end() {
        let mut again = Vec::new();
        Page::again(Slot::new(0).unwrap(), &mut again);
        let out = merged(Merge::page(page(0, None, true)), &[&again]);
        assert_eq!(out, again);
        let (Value::Array(parts), _) = Value::parse(&out).unwrap() else {
            panic!()
        };
        let cursor: u64 = std::str::from_utf8(parts[0].as_bytes().unwrap())
            .unwrap()
            .parse()
            .unwrap();
        assert_ne!(cursor, 0);
        assert_eq!(Page::cursor(cursor).unwrap().0, Slot::new(0).unwrap());
    }

    #[test]
    fn a_page_of_a_node_that_knows_of_a_change_is_asked_for_again() {
        let page = |known| Page {
            epoch: Some(known),
            ..page(866, Some(5461), true)
        };
        let info = "cluster_state:ok\r\ncluster_current_epoch:7\r\ncluster_my_epoch:2\r\n";
        for info in [
            format!("${}\r\n{info}\r\n", info.len()),
            format!("={}\r\ntxt:{info}\r\n", info.len() + 4),
        ] {
            let reply = format!("*3\r\n:0\r\n*2\r\n$1\r\n0\r\n*1\r\n$5\r\nhello\r\n{info}");
            let turned = |known| merged(Merge::page(page(known)), &[reply.as_bytes()]);
            let next = b"*2\r\n$4\r\n5461\r\n*1\r\n$5\r\nhello\r\n";
            assert_eq!(turned(7), next);
            let mut again = Vec::new();
            Page::again(Slot::new(866).unwrap(), &mut again);
            assert_eq!(turned(6), again);
        }
    }

    #[test]
    fn a_guard_is_in_the_slot_it_guards() {
        for slot in [0, 1, 866, 16383] {
            let slot = Slot::new(slot).unwrap();
            let block = Page::guard(slot, b"*2\r\n$4\r\nSCAN\r\n$1\r\n0\r\n", false);
            let text = String::from_utf8(block).unwrap();
            let words: Vec<&str> = text.split("\r\n").collect();
            let at = words.iter().position(|word| *word == "EXISTS").unwrap();
            assert_eq!(Slot::of_key(words[at + 2].as_bytes()), slot);
            assert!(text.ends_with("SCAN\r\n$1\r\n0\r\n*1\r\n$4\r\nEXEC\r\n"));
        }
        let reply = b"*2\r\n:0\r\n-ERR invalid cursor\r\n";
        let out = merged(Merge::page(page(0, None, true)), &[reply]);
        assert_eq!(out, b"-ERR invalid cursor\r\n");
    }
}
