//! Replies in request order, and commands on one key in the order sent.

mod model;

use std::time::Duration;

use command::CommandTable;
use foldhash::fast::FixedState;
use resp::OwnedRequest;
use routing::{CrossSlot, Plan};

use super::*;

/// The start of a test's time.
#[expect(
    clippy::disallowed_methods,
    reason = "the only way to an `Instant`; everything later is counted from it"
)]
fn start() -> Instant {
    Instant::now()
}

impl Order {
    /// An order whose next place is this one.
    fn starting_at(first: u32) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }
}

fn plan(line: &str) -> (CommandId, Plan) {
    let request = OwnedRequest::from_args(line.split(' '));
    let request = request.as_request();
    let command = CommandTable::builtin().lookup(request).unwrap();
    let hasher = FixedState::with_seed(3);
    let plan = routing::plan(command, request, CrossSlot::Split, &hasher);
    (command.id(), plan)
}

/// A command on one slot, given to this connection.
fn one(line: &str, route: u64) -> (CommandId, Op) {
    let (id, Plan::Slot { slot, keys }) = plan(line) else {
        panic!("{line} is for one slot");
    };
    let op = Op {
        node: None,
        slot: Some(slot),
        keys,
        writes: !line.contains("GET"),
        form: Form::Plain,
        state: OpState::InFlight(Route(route)),
    };
    (id, op)
}

/// A command on several slots: one part to each of the connections from 0 on.
fn many(line: &str) -> (CommandId, Vec<Op>, Merge) {
    let (id, Plan::Split(split)) = plan(line) else {
        panic!("{line} is for several slots");
    };
    let op = |(route, part): (u64, routing::Part)| Op {
        node: None,
        slot: Some(part.slot),
        keys: part.keys,
        writes: !line.contains("GET"),
        form: Form::Plain,
        state: OpState::InFlight(Route(route)),
    };
    (id, (0..).zip(split.parts).map(op).collect(), split.merge)
}

fn held() -> OpState {
    OpState::Held(Box::new(Held {
        request: Bytes::new(),
        until: Until::Turn,
        target: Target::Owner,
        hops: 0,
        error: Vec::new(),
        deadline: start(),
    }))
}

fn keys(line: &str) -> Keys {
    one(line, 0).1.keys
}

struct Test {
    order: Order,
    output: Output,
    spare: Spare,
    start: Instant,
}

impl Test {
    fn new() -> Self {
        Self {
            order: Order::default(),
            output: Output::default(),
            spare: Spare::default(),
            start: start(),
        }
    }

    fn one(&mut self, line: &str, route: u64) -> Place {
        let (id, op) = one(line, route);
        self.order.reserve_one(id, false, op, self.start)
    }

    fn piece(&mut self, place: Place, bytes: &[u8], done: bool) -> Option<Completed> {
        let at = (place, 0);
        self.order
            .piece(at, bytes, done, true, (&mut self.output, &mut self.spare))
    }

    fn hold(&mut self, place: Place) {
        assert!(self.order.set_state(place, 0, held()).is_some());
    }
}

#[test]
fn replies_leave_in_request_order() {
    let mut test = Test::new();
    let [a, b, c] = ["GET a", "GET b", "GET c"].map(|line| test.one(line, 1));
    assert!(test.piece(b, b"$1\r\nb\r\n", true).is_some());
    assert_eq!(test.output.pending(), b"");
    assert_eq!(test.order.early_bytes(), 7);
    assert!(test.piece(c, b"$3\r\nc", false).is_none());
    assert!(test.piece(a, b"$1\r\n", false).is_none());
    assert_eq!(test.output.pending(), b"$1\r\n", "the first streams");
    assert!(test.piece(a, b"a\r\n", true).is_some());
    let expected = b"$1\r\na\r\n$1\r\nb\r\n$3\r\nc";
    assert_eq!(test.output.pending(), expected);
    assert_eq!((test.order.len(), test.order.early_bytes()), (1, 0));
    assert!(test.order.has_begun(c));
    assert!(test.piece(c, b"cc\r\n", true).is_some());
    assert!(test.order.is_empty());
    assert_eq!((test.order.open(), test.order.held()), (0, 0));
}

#[test]
fn a_command_after_all_others_uses_the_memory_of_the_first() {
    let mut test = Test::new();
    let mut places = Vec::new();
    for round in 0..5 {
        let place = test.one("GET a", 1);
        places.push(std::ptr::from_ref(&test.order.entries[0]).addr());
        if round == 2 {
            let other = test.one("GET b", 1);
            assert!(test.piece(other, b"$1\r\nb\r\n", true).is_some());
        }
        assert!(test.piece(place, b"$1\r\na\r\n", true).is_some());
        assert!(test.order.is_empty());
    }
    assert!(places.iter().all(|at| *at == places[0]), "{places:?}");
}

#[test]
fn what_is_answered_here_waits_its_turn_too() {
    let mut test = Test::new();
    let get = test.one("GET a", 1);
    let ping = test.order.reserve_local(None, false, test.start);
    assert_eq!(test.order.open(), 1, "nothing of it is open");
    let completed =
        test.order
            .complete_local(ping, b"+PONG\r\n", (&mut test.output, &mut test.spare));
    assert_eq!(completed.map(|completed| completed.command), Some(None));
    assert_eq!(test.output.pending(), b"");
    test.piece(get, b"_\r\n", true);
    assert_eq!(test.output.pending(), b"_\r\n+PONG\r\n");
}

#[test]
fn a_silent_reply_leaves_no_byte_anywhere() {
    let mut test = Test::new();
    let (id, op) = one("GET a", 1);
    let first = test.order.reserve_one(id, true, op, test.start);
    let (id, op) = one("GET b", 1);
    let second = test.order.reserve_one(id, true, op, test.start);
    let (id, ops, merge) = many("MGET c d");
    let third = test.order.reserve_many(id, true, ops, merge, test.start);
    let last = test.one("GET e", 1);
    for part in 0..2 {
        let reply = b"*1\r\n$1\r\nx\r\n";
        let at = (third, part);
        test.order
            .piece(at, reply, true, true, (&mut test.output, &mut test.spare));
    }
    test.piece(second, b"$1\r\nb\r\n", true);
    assert_eq!(test.order.early_bytes(), 0, "nobody will want them");
    test.piece(last, b":1\r\n", true);
    test.piece(first, b"$1\r\n", false);
    let completed = test.piece(first, b"a\r\n", true);
    assert!(completed.is_some(), "it is counted all the same");
    assert_eq!(test.output.pending(), b":1\r\n");
    assert!(test.order.is_empty());
}

#[test]
fn completed_says_which_command_and_since_when() {
    let mut test = Test::new();
    let (id, op) = one("SET a 1", 1);
    let slot = op.slot;
    let since = test.start + Duration::from_millis(5);
    let place = test.order.reserve_one(id, false, op, since);
    assert_eq!(test.order.command(place), Some(id));
    assert_eq!(test.order.started(place), Some(since));
    let expected = Completed {
        command: Some(id),
        started: since,
        slot,
    };
    assert_eq!(test.piece(place, b"+OK\r\n", true), Some(expected));
}

#[test]
fn a_place_that_is_gone_leads_nowhere() {
    for first in [0, 1, u32::MAX - 1, u32::MAX] {
        let mut test = Test::new();
        test.order = Order::starting_at(first);
        let gone = test.one("GET a", 1);
        assert_eq!(gone, Place(first));
        test.piece(gone, b"_\r\n", true);
        let next = test.one("GET b", 1);
        assert_eq!(next, Place(first.wrapping_add(1)));
        test.output = Output::default();

        let never = Place(next.0.wrapping_add(1));
        for stale in [gone, never] {
            assert_eq!(test.piece(stale, b"_\r\n", true), None);
            assert!(test.order.set_state(stale, 0, held()).is_none());
            assert!(test.order.op(stale, 0).is_none() && !test.order.has_begun(stale));
            assert_eq!(test.order.command(stale), None);
            assert_eq!(test.order.started(stale), None);
            assert_eq!(test.order.conflict(stale, 0), Conflict::None);
        }
        assert_eq!((test.order.len(), test.order.open()), (1, 1));
        assert_eq!((test.order.held(), test.output.len()), (0, 0));
    }
}

#[test]
fn a_command_waits_for_an_earlier_one_on_its_key_elsewhere() {
    let mut test = Test::new();
    let a = test.one("SET a 1", 1);
    let waits = |test: &Test, line: &str, route| {
        let about = (&keys(line), !line.contains("GET"));
        test.order.must_wait(about, Route(route), None)
    };
    assert!(!waits(&test, "GET a", 1), "the connection keeps the order");
    assert!(waits(&test, "GET a", 2));
    assert!(!waits(&test, "GET b", 2));
    test.hold(a);
    assert!(waits(&test, "GET a", 1) && waits(&test, "GET a", 2));
    let route = Route(2);
    assert!(
        !test
            .order
            .must_wait((&keys("GET a"), false), route, Some(a)),
        "not for itself"
    );
    test.piece(a, b"-ERR no\r\n", true);
    assert!(!waits(&test, "GET a", 2));
}

#[test]
fn nothing_goes_behind_a_command_on_several_keys_that_could_be_refused() {
    for (first, second, expected) in [
        ("MSET {a}1 x {a}2 y", "GET {a}2", true),
        ("MGET {a}1 {a}2", "SET {a}2 z", true),
        ("MGET {a}1 {a}2", "GET {a}2", false),
        ("MSET {a}1 x {a}2 y", "SET {a}3 z", false),
        ("SET {a}1 x", "MSET {a}1 x {a}2 y", false),
    ] {
        let mut test = Test::new();
        let place = test.one(first, 1);
        assert_eq!(test.order.has_several(), first.starts_with('M'));
        let about = (&keys(second), !second.contains("GET"));
        let waits = test.order.must_wait(about, Route(1), None);
        assert_eq!(waits, expected, "{second} behind {first}");
        test.piece(place, b"+OK\r\n", true);
        assert!(!test.order.must_wait(about, Route(1), None) && !test.order.has_several());
    }
}

#[test]
fn what_was_overtaken_is_not_sent_again() {
    for (first, second, expected) in [
        ("SET a 1", "GET a", Conflict::Overtaken),
        ("GET a", "SET a 1", Conflict::Overtaken),
        ("SET a 1", "SET a 2", Conflict::Overtaken),
        ("GET a", "GET a", Conflict::None),
        ("SET a 1", "SET b 1", Conflict::None),
    ] {
        let mut test = Test::new();
        let [first, second] = [first, second].map(|line| test.one(line, 1));
        test.hold(first);
        let in_flight = test.order.conflict(first, 0);
        let shared = test.order.op(second, 0).is_some_and(|op| {
            let first = test.order.op(first, 0).unwrap();
            op.keys.conflicts(&first.keys)
        });
        let undecided = [Conflict::None, Conflict::Undecided][usize::from(shared)];
        assert_eq!(in_flight, undecided);
        test.piece(second, b"+OK\r\n", true);
        assert_eq!(test.order.conflict(first, 0), expected);
    }
}

#[test]
fn one_that_certainly_did_not_run_overtakes_nothing() {
    let mut test = Test::new();
    let [first, second] = ["SET a 1", "SET a 2"].map(|line| test.one(line, 1));
    test.hold(first);
    let refused = b"-TRYAGAIN no\r\n";
    let at = (second, 0);
    test.order.piece(
        at,
        refused,
        true,
        false,
        (&mut test.output, &mut test.spare),
    );
    assert_eq!(test.order.conflict(first, 0), Conflict::None);
}

#[test]
fn the_parts_of_a_command_are_merged_when_the_last_one_is_there() {
    let mut test = Test::new();
    let (id, ops, merge) = many("MGET a b c");
    assert_eq!(ops.len(), 3);
    let place = test.order.reserve_many(id, false, ops, merge, test.start);
    assert_eq!(test.order.open(), 3);
    let reply = b"*1\r\n$1\r\nx\r\n";
    for part in [2, 0] {
        let at = (place, part);
        assert!(
            test.order
                .piece(at, reply, true, true, (&mut test.output, &mut test.spare))
                .is_none()
        );
    }
    assert_eq!((test.order.open(), test.order.merging_bytes()), (1, 22));
    assert_eq!(test.output.len(), 0);
    let at = (place, 1);
    assert!(
        test.order
            .piece(at, reply, true, true, (&mut test.output, &mut test.spare))
            .is_some()
    );
    assert_eq!((test.order.open(), test.order.merging_bytes()), (0, 0));
    assert_eq!(
        test.output.pending(),
        b"*3\r\n$1\r\nx\r\n$1\r\nx\r\n$1\r\nx\r\n"
    );
}
