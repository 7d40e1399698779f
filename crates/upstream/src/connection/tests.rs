//! A connection's phases, its clocks, and what it leaves behind.

use resp::{Protocol, Value};

use super::*;
use crate::{
    Credentials,
    testing::{Event, Inbox, Tag, request, start},
};

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    reply: Duration::from_secs(5),
};

const HELLO: &[u8] =
    b"%3\r\n$7\r\nversion\r\n$5\r\n9.1.2\r\n$5\r\nproto\r\n:3\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
const SETINFO: &[u8] = b"+OK\r\n+OK\r\n";

struct Test {
    connection: Connection<Tag>,
    start: Instant,
    inbox: Inbox,
}

impl Test {
    fn new() -> Self {
        let start = start();
        let setup = Setup {
            protocol: Protocol::Resp3,
            credentials: Some(Credentials {
                username: b"keyway"[..].into(),
                password: b"hunter2"[..].into(),
            }),
            database: 0,
            readonly: false,
            node_id: None,
            version: "1.2.3",
        };
        Self {
            connection: Connection::new(setup, TIMEOUTS, 1, start),
            start,
            inbox: Inbox::default(),
        }
    }

    /// One that carries commands, `ms` after its start.
    fn ready(ms: u64) -> Self {
        let mut test = Self::new();
        test.connection.connected();
        test.write(usize::MAX, ms);
        assert_eq!(test.arrive(HELLO, ms), Ok(HELLO.len()));
        test.write(usize::MAX, ms);
        assert_eq!(test.arrive(SETINFO, ms), Ok(SETINFO.len()));
        assert_eq!(test.connection.phase(), Phase::Ready);
        test
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn push(&mut self, number: usize, ms: u64) {
        let now = self.at(ms);
        let bytes = request(number, 0);
        let pipeline = self.connection.pipeline_mut();
        pipeline.push(Tag::any(number), &bytes, || None, false, now);
    }

    fn write(&mut self, count: usize, ms: u64) -> Vec<u8> {
        let (mut out, now) = (Vec::new(), self.at(ms));
        while self.connection.wants_write() && out.len() < count {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = self.connection.slices(&mut slices);
            let first = &slices[..used][0];
            let taken = first.len().min(count - out.len());
            out.extend_from_slice(&first[..taken]);
            self.connection.written(taken, now);
        }
        out
    }

    fn arrive(&mut self, bytes: &[u8], ms: u64) -> Result<usize, CloseReason> {
        let now = self.at(ms);
        self.connection.received(bytes, now, &mut self.inbox)
    }

    fn slices(&self) -> usize {
        let mut slices = [IoSlice::new(&[]); 4];
        self.connection.slices(&mut slices)
    }
}

/// The names of the requests in `bytes`.
fn names(bytes: &[u8]) -> Vec<String> {
    let (mut rest, mut names) = (bytes, Vec::new());
    while let Ok((value, len)) = Value::parse(rest) {
        let args = value.as_array().unwrap();
        names.push(args[0].as_str().unwrap().to_owned());
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
    names
}

#[test]
fn requests_leave_when_the_setup_is_done() {
    let mut test = Test::new();
    test.push(1, 0);
    assert_eq!(test.connection.phase(), Phase::Connecting);
    assert!(!test.connection.wants_write());
    assert_eq!((test.slices(), test.arrive(b"+OK\r\n", 0)), (0, Ok(0)));

    test.connection.connected();
    assert_eq!(test.connection.phase(), Phase::SettingUp);
    assert_eq!(names(&test.write(usize::MAX, 1)), ["HELLO"]);
    assert!(!test.connection.wants_write());
    assert_eq!(test.slices(), 0, "nothing to write is no empty write");
    assert_eq!(test.connection.greeting().version, None);

    assert_eq!(test.arrive(HELLO, 2), Ok(HELLO.len()));
    assert_eq!(test.connection.greeting().version.as_deref(), Some("9.1.2"));
    test.push(2, 2);
    assert_eq!(names(&test.write(usize::MAX, 2)), ["CLIENT", "CLIENT"]);
    assert_eq!(test.connection.phase(), Phase::SettingUp);

    assert_eq!(test.arrive(SETINFO, 3), Ok(SETINFO.len()));
    assert_eq!(test.connection.phase(), Phase::Ready);
    assert!(test.connection.wants_write());
    assert_eq!(names(&test.write(usize::MAX, 3)), ["TEST", "TEST"]);
    assert!(!test.connection.wants_write());

    assert_eq!(test.arrive(b":1\r\n:2\r\n", 4), Ok(8));
    let expected = [(1, b":1\r\n"), (2, b":2\r\n")]
        .map(|(number, reply)| Event::Piece(number, reply.to_vec(), true));
    assert_eq!(test.inbox.take(), expected);
}

#[test]
fn being_connected_counts_once() {
    let mut test = Test::ready(0);
    test.connection.connected();
    assert_eq!(test.connection.phase(), Phase::Ready);
    test.connection.abandon();
    test.connection.connected();
    assert_eq!(test.connection.phase(), Phase::Closed);
}

#[test]
fn the_setup_goes_out_in_any_pieces() {
    let mut test = Test::new();
    test.connection.connected();
    let mut hello = Vec::new();
    while test.connection.wants_write() {
        hello.extend(test.write(3, 1));
    }
    assert_eq!(names(&hello), ["HELLO"]);
    for (at, byte) in HELLO.iter().enumerate() {
        // What was not used is presented again.
        let (all, last) = (&HELLO[..=at], at + 1 == HELLO.len());
        let used = if last { HELLO.len() } else { 0 };
        assert_eq!(test.arrive(all, 2), Ok(used), "{byte}");
    }
    assert!(test.connection.wants_write());
}

#[test]
fn the_whole_setup_has_one_time_limit() {
    let mut test = Test::new();
    let silent = Some(CloseReason::Silent(TIMEOUTS.connect));
    assert_eq!(test.connection.timeout_at(), Some(test.at(2000)));
    assert_eq!(test.connection.timed_out(test.at(1999)), None);
    assert_eq!(test.connection.timed_out(test.at(2000)), silent);
    test.connection.connected();
    test.write(usize::MAX, 1900);
    test.arrive(HELLO, 1900).unwrap();
    assert_eq!(test.connection.timeout_at(), Some(test.at(2000)));
    assert_eq!(test.connection.timed_out(test.at(2000)), silent);
}

#[test]
fn a_ready_connection_waits_for_what_is_owed_only() {
    let mut test = Test::ready(1000);
    assert_eq!(test.connection.timeout_at(), None);
    assert_eq!(test.connection.timed_out(test.at(1_000_000)), None);
    test.push(1, 10_000);
    assert_eq!(test.connection.timeout_at(), None, "nothing is written");
    test.write(usize::MAX, 11_000);
    assert_eq!(test.connection.timeout_at(), Some(test.at(16_000)));
    assert_eq!(test.connection.timed_out(test.at(15_999)), None);
    let silent = Some(CloseReason::Silent(TIMEOUTS.reply));
    assert_eq!(test.connection.timed_out(test.at(16_000)), silent);
    test.arrive(b"$3\r\na", 12_000).unwrap();
    assert_eq!(test.connection.timeout_at(), Some(test.at(17_000)));
    test.arrive(b"bc\r\n", 13_000).unwrap();
    assert_eq!(test.connection.timeout_at(), None);
}

#[test]
fn a_refusal_ends_it() {
    let mut test = Test::new();
    test.push(1, 0);
    test.connection.connected();
    test.write(usize::MAX, 0);
    let text = "WRONGPASS invalid username-password pair or user is disabled.";
    let reason = test.arrive(format!("-{text}\r\n").as_bytes(), 1);
    let refused = CloseReason::Handshake(HandshakeError::Refused(text.to_owned()));
    assert_eq!(reason, Err(refused));
    let left = test.connection.abandon();
    assert_eq!((left.len(), left[0].touched), (1, false), "it never left");
}

#[test]
fn a_node_that_is_full_says_so_before_it_is_asked() {
    let mut test = Test::new();
    test.connection.connected();
    let text = "ERR max number of clients reached";
    let reason = test.arrive(format!("-{text}\r\n").as_bytes(), 0);
    let full = CloseReason::Handshake(HandshakeError::NotReady(text.to_owned()));
    assert_eq!(reason, Err(full));
}

#[test]
fn an_answer_before_its_question_is_not_believed() {
    let early = Err(CloseReason::Poisoned(Poison::Early));
    let mut test = Test::new();
    test.connection.connected();
    assert_eq!(test.arrive(HELLO, 0), early, "HELLO was not written");

    let mut test = Test::new();
    test.connection.connected();
    test.write(usize::MAX, 0);
    assert_eq!(test.arrive(HELLO, 0), Ok(HELLO.len()));
    assert_eq!(test.arrive(b"+OK\r\n", 0), early, "SETINFO was not");

    let mut test = Test::ready(0);
    assert_eq!(
        test.arrive(b"+OK\r\n", 1),
        Err(CloseReason::Poisoned(Poison::Unsolicited))
    );
}

#[test]
fn bytes_behind_the_setup_belong_to_nobody() {
    let mut test = Test::new();
    test.push(1, 0);
    test.connection.connected();
    test.write(usize::MAX, 0);
    test.arrive(HELLO, 0).unwrap();
    test.write(usize::MAX, 0);
    let reason = test.arrive(b"+OK\r\n+OK\r\n+OK\r\n", 0);
    assert_eq!(reason, Err(CloseReason::Poisoned(Poison::Unsolicited)));
    assert!(test.inbox.take().is_empty());
    assert!(!test.connection.abandon()[0].touched);
}

#[test]
fn abandoning_hands_out_everything_and_closes() {
    let mut test = Test::ready(0);
    (1..=3).for_each(|number| test.push(number, 1));
    let first = request(1, 0).len();
    test.write(first + 1, 1);
    test.arrive(b":1\r\n", 2).unwrap();
    let left = test.connection.abandon();
    let left: Vec<_> = left.iter().map(|one| (one.ticket.0, one.touched)).collect();
    assert_eq!(left, [(2, true), (3, false)]);
    assert_eq!(test.connection.phase(), Phase::Closed);
    assert!(!test.connection.wants_write());
    assert_eq!((test.slices(), test.connection.timeout_at()), (0, None));
    assert_eq!(test.connection.timed_out(test.at(1_000_000)), None);
    assert_eq!(test.arrive(b":2\r\n", 3), Ok(0), "too late");
    test.connection.written(10, test.at(3));
    assert!(test.connection.abandon().is_empty());
}

#[test]
fn the_password_is_never_shown() {
    let mut test = Test::new();
    test.connection.connected();
    let shown = format!("{:?}", test.connection);
    let as_numbers = format!("{:?}", b"hunter2");
    assert!(!shown.contains("hunter2"));
    assert!(
        !shown.contains(as_numbers.trim_matches(['[', ']'])),
        "{shown}"
    );
}

#[test]
fn reasons_read_well() {
    for (reason, text) in [
        (
            CloseReason::Io("connection refused".to_owned()),
            "connection refused",
        ),
        (CloseReason::Eof, "closed by the node"),
        (CloseReason::Silent(TIMEOUTS.reply), "no answer for 5000 ms"),
        (
            CloseReason::Poisoned(Poison::Shape(b'+')),
            "replies do not match requests (shape)",
        ),
        (CloseReason::Retired, "not needed any more"),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}
