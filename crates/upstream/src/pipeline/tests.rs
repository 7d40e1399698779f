//! One node connection's order, against nodes that answer well, badly, and in any pieces.

mod abandon;
mod pieces;
mod time;

use resp::Value;

use super::*;
use crate::testing::{
    BLOCK, Event, Feed, Inbox, LENIENT, PATIENT, STRICT, Tag, push, request, start, write,
};

/// A pipeline with these requests, all of them written.
fn written(tags: &[Tag]) -> Pipeline<Tag> {
    let now = start();
    let mut pipeline = Pipeline::new(1);
    for tag in tags {
        push(&mut pipeline, *tag, now);
    }
    write(&mut pipeline, usize::MAX, now);
    pipeline
}

/// What came of `reply`, all in one piece.
fn answered(pipeline: &mut Pipeline<Tag>, reply: &[u8]) -> Result<Vec<Event>, Poison> {
    let mut inbox = Inbox::default();
    let used = pipeline.received(reply, start(), &mut inbox)?;
    assert_eq!(used, reply.len(), "whole replies are used whole");
    Ok(inbox.take())
}

fn piece(number: usize, reply: &[u8]) -> Event {
    Event::Piece(number, reply.to_vec(), true)
}

fn error(number: usize, reply: &[u8]) -> Event {
    Event::Error {
        number,
        reply: reply.to_vec(),
        request: request(number, 0).to_vec(),
        by_reference: false,
    }
}

#[test]
fn replies_go_to_requests_in_the_order_written() {
    let mut pipeline = written(&[1, 2, 3, 4].map(Tag::any));
    let events = answered(&mut pipeline, b"+OK\r\n$-1\r\n-ERR no\r\n*1\r\n:7\r\n");
    let expected = vec![
        piece(1, b"+OK\r\n"),
        piece(2, b"$-1\r\n"),
        error(3, b"-ERR no\r\n"),
        piece(4, b"*1\r\n:7\r\n"),
    ];
    assert_eq!(events, Ok(expected));
    assert_eq!((pipeline.in_flight(), pipeline.queued_bytes()), (0, 0));
    assert_eq!(pipeline.oldest_queued_at(), None);
}

#[test]
fn every_reply_is_announced_before_it_is_passed_on() {
    let numbers = 0..3 * AHEAD + 1;
    let tags: Vec<Tag> = numbers.clone().map(Tag::any).collect();
    let mut pipeline = written(&tags);
    let mut inbox = Inbox::default();
    let replies = b"+OK\r\n".repeat(tags.len());
    assert_eq!(
        pipeline.received(&replies, start(), &mut inbox),
        Ok(replies.len())
    );
    assert_eq!(inbox.0.len(), tags.len());
    for number in numbers {
        let announced = inbox.2.iter().find(|(ticket, _)| *ticket == number);
        let group = number - number % AHEAD;
        assert_eq!(announced, Some(&(number, group)), "{:?}", inbox.2);
    }
}

#[test]
fn what_is_written_is_what_was_queued() {
    let (mut pipeline, now) = (Pipeline::new(1), start());
    let mut expected = Vec::new();
    for number in 0..100 {
        let bytes = request(number, if number % 9 == 4 { 20_000 } else { number });
        let asking = number % 5 == 0;
        pipeline.push(
            Tag::any(number),
            &bytes,
            || Some(bytes.clone()),
            asking,
            now,
        );
        if asking {
            expected.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
        }
        expected.extend_from_slice(&bytes);
    }
    assert_eq!(pipeline.unwritten(), expected.len());
    assert_eq!(pipeline.queued_bytes(), expected.len());
    assert!(write(&mut pipeline, usize::MAX, now) == expected);
    assert_eq!(pipeline.unwritten(), 0);
    assert_eq!(
        pipeline.queued_bytes(),
        expected.len(),
        "until it is answered"
    );
}

#[test]
fn a_big_request_is_kept_by_reference_and_a_small_one_is_not() {
    let (mut pipeline, now) = (Pipeline::new(1), start());
    let (small, big) = (request(1, 100), request(2, 16 * 1024));
    let unasked = || panic!("a small request is copied");
    pipeline.push(Tag::any(1), &small, unasked, false, now);
    pipeline.push(Tag::any(2), &big, || Some(big.clone()), false, now);
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(pipeline.slices(&mut slices), 2);
    assert_eq!(slices[1].as_ptr(), big.as_ptr(), "no copy was made");
    write(&mut pipeline, usize::MAX, now);
    let mut inbox = Inbox::default();
    let mut seen = None;
    let replies = b"-ERR a\r\n-ERR b\r\n";
    assert_eq!(
        pipeline.received(replies, now, &mut inbox),
        Ok(replies.len())
    );
    for event in inbox.take() {
        if let Event::Error {
            number: 2,
            request,
            by_reference,
            ..
        } = event
        {
            seen = Some((request == big, by_reference));
        }
    }
    assert_eq!(seen, Some((true, true)));
}

#[test]
fn only_the_last_reply_to_a_block_is_passed_on() {
    let mut pipeline = written(&[Tag::any(BLOCK), Tag::any(1)]);
    let replies = b"+OK\r\n+QUEUED\r\n*1\r\n:7\r\n:8\r\n";
    for end in 1..replies.len() {
        let (mut inbox, mut feed) = (Inbox::default(), Feed::default());
        let mut pipeline = written(&[Tag::any(BLOCK), Tag::any(1)]);
        for half in [&replies[..end], &replies[end..]] {
            feed.arrive(&mut pipeline, half, start(), &mut inbox)
                .unwrap();
        }
        assert_eq!(
            inbox.take(),
            [piece(BLOCK, b"*1\r\n:7\r\n"), piece(1, b":8\r\n")]
        );
    }
    // What could not be queued is the reply, not that EXEC therefore failed.
    let aborted = b"+OK\r\n-MOVED 1 a:1\r\n-EXECABORT because\r\n";
    let events = answered(&mut pipeline, aborted).unwrap();
    assert_eq!(events, [error(BLOCK, b"-MOVED 1 a:1\r\n")]);
    // EXEC's own error is its own.
    let mut pipeline = written(&[Tag::any(BLOCK)]);
    let events = answered(&mut pipeline, b"+OK\r\n+QUEUED\r\n-ASK 1 a:1\r\n").unwrap();
    assert_eq!(events, [error(BLOCK, b"-ASK 1 a:1\r\n")]);
    // An array cannot come before the commands are queued.
    let mut pipeline = written(&[Tag::any(BLOCK)]);
    assert_eq!(
        answered(&mut pipeline, b"+OK\r\n*0\r\n"),
        Err(Poison::Shape(b'*'))
    );
}

#[test]
fn a_reply_is_void_without_what_had_to_come_before() {
    let mut pipeline = written(&[Tag::any(STRICT), Tag::any(1)]);
    let events = answered(&mut pipeline, b"+OK\r\n-NOPERM no\r\n:1\r\n:2\r\n").unwrap();
    assert_eq!(
        events,
        [error(STRICT, b"-NOPERM no\r\n"), piece(1, b":2\r\n")]
    );
    let mut pipeline = written(&[Tag::any(STRICT)]);
    let events = answered(&mut pipeline, b"+OK\r\n+OK\r\n:1\r\n").unwrap();
    assert_eq!(events, [piece(STRICT, b":1\r\n")]);
}

#[test]
fn errors_before_the_reply_are_none_of_it() {
    for errors in ["", "-MOVED 1 a:1\r\n", "-ERR a\r\n-ERR b\r\n"] {
        let mut pipeline = written(&[Tag::any(LENIENT), Tag::any(1)]);
        let replies = format!("{errors}%0\r\n-ERR its own\r\n");
        let events = answered(&mut pipeline, replies.as_bytes()).unwrap();
        let expected = [piece(LENIENT, b"%0\r\n"), error(1, b"-ERR its own\r\n")];
        assert_eq!(events, expected, "{errors:?}");
    }
    // They may come while the end of the request is still to be written, and nothing else may.
    for (reply, result) in [
        (&b"-ERR a\r\n"[..], Ok(Vec::new())),
        (b"%0\r\n", Err(Poison::Early)),
    ] {
        let mut pipeline = Pipeline::new(1);
        push(&mut pipeline, Tag::any(LENIENT), start());
        write(&mut pipeline, 10, start());
        assert_eq!(answered(&mut pipeline, reply), result);
    }
}

#[test]
fn a_block_has_run_only_when_its_last_command_was_handed_over() {
    for (count, touched) in [(0, false), (10, false), (usize::MAX, true)] {
        let mut pipeline = Pipeline::new(1);
        push(&mut pipeline, Tag::any(BLOCK), start());
        write(&mut pipeline, count, start());
        if count == 10 {
            // The node may answer what it has.
            answered(&mut pipeline, b"+OK\r\n").unwrap();
        }
        let abandoned = pipeline.abandon();
        assert_eq!(abandoned[0].touched, touched, "{count} bytes");
    }
}

#[test]
fn a_command_that_blocks_is_not_waited_for() {
    let mut pipeline = written(&[Tag::any(PATIENT), Tag::any(1)]);
    assert_eq!(pipeline.waiting_since(), None);
    answered(&mut pipeline, b"*-1\r\n").unwrap();
    assert!(
        pipeline.waiting_since().is_some(),
        "the next one does not block"
    );
}

#[test]
fn pushes_belong_to_nobody() {
    let mut pipeline = written(&[Tag(1, b"$"), Tag(2, b":")]);
    let push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
    let stream = [push, &b"$1\r\na\r\n"[..], push, b":1\r\n", push].concat();
    let events = answered(&mut pipeline, &stream);
    assert_eq!(
        events,
        Ok(vec![piece(1, b"$1\r\na\r\n"), piece(2, b":1\r\n")])
    );
    assert_eq!(pipeline.pushes(), 3);
    pipeline.abandon();
    assert_eq!(pipeline.pushes(), 3, "they are counted on");
}

#[test]
fn a_push_inside_a_reply_is_a_part_of_it() {
    let mut pipeline = written(&[Tag::any(1)]);
    let reply = b"*2\r\n>1\r\n+subscribe\r\n+PONG\r\n";
    assert_eq!(answered(&mut pipeline, reply), Ok(vec![piece(1, reply)]));
    assert_eq!(pipeline.pushes(), 0);
}

#[test]
fn attributes_belong_to_the_reply_behind_them() {
    let mut pipeline = written(&[Tag(1, b":"), Tag(2, b"+")]);
    let first = b"|1\r\n+ttl\r\n:3600\r\n:42\r\n";
    let events = answered(&mut pipeline, &[&first[..], b"+OK\r\n"].concat());
    assert_eq!(events, Ok(vec![piece(1, first), piece(2, b"+OK\r\n")]));
}

#[test]
fn an_impossible_shape_poisons() {
    let mut pipeline = written(&[Tag(1, b"$-"), Tag(2, b":-")]);
    let mut inbox = Inbox::default();
    let result = pipeline.received(b"$1\r\na\r\n+OK\r\n", start(), &mut inbox);
    assert_eq!(result, Err(Poison::Shape(b'+')));
    assert_eq!(inbox.take(), vec![piece(1, b"$1\r\na\r\n")]);
    let left: Vec<_> = pipeline
        .abandon()
        .iter()
        .map(|left| left.ticket.0)
        .collect();
    assert_eq!(left, vec![2], "its reply is nobody's");
}

#[test]
fn the_first_byte_alone_tells_the_shape() {
    let mut pipeline = written(&[Tag(1, b"$-")]);
    let result = pipeline.received(b"*", start(), &mut Inbox::default());
    assert_eq!(result, Err(Poison::Shape(b'*')));
}

#[test]
fn a_reply_that_nobody_asked_for_poisons() {
    let unsolicited = Err(Poison::Unsolicited);
    let mut empty = Pipeline::<Tag>::new(1);
    assert_eq!(answered(&mut empty, b"+OK\r\n"), unsolicited);
    let first_byte = empty.received(b"+", start(), &mut Inbox::default());
    assert_eq!(first_byte, Err(Poison::Unsolicited), "and at once");
    let mut done = written(&[Tag::any(1)]);
    assert_eq!(answered(&mut done, b"+OK\r\n+OK\r\n"), unsolicited);
    let mut unwritten = Pipeline::new(1);
    push(&mut unwritten, Tag::any(1), start());
    assert_eq!(answered(&mut unwritten, b"+OK\r\n"), unsolicited);
}

#[test]
fn a_reply_before_its_request_is_written_poisons() {
    let now = start();
    let (first, second) = (request(1, 0).len(), request(2, 0).len());
    for (count, expected) in [
        (1, Poison::Early),
        (first - 1, Poison::Early),
        (first, Poison::Unsolicited),
        (first + 1, Poison::Early),
        (first + second - 1, Poison::Early),
    ] {
        let mut pipeline = Pipeline::new(1);
        push(&mut pipeline, Tag::any(1), now);
        push(&mut pipeline, Tag::any(2), now);
        write(&mut pipeline, count, now);
        let result = answered(&mut pipeline, b"+OK\r\n+OK\r\n");
        assert_eq!(result, Err(expected), "{count} bytes written");
    }
}

#[test]
fn bytes_that_are_no_reply_poison() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"$5\r\nhelloXX",
        b"$-2\r\n",
        b"*1\r\n?\r\n",
        b":1x\r\n",
        b"$?\r\n",
    ] {
        let mut pipeline = written(&[Tag(1, b"$*:H")]);
        assert_eq!(answered(&mut pipeline, bytes), Err(Poison::Malformed));
        assert!(!pipeline.abandon()[0].answered_in_part);
    }
}

#[test]
fn a_word_for_every_poison() {
    let labels = [
        Poison::Unsolicited,
        Poison::Early,
        Poison::Shape(0),
        Poison::Sentinel,
        Poison::Malformed,
    ]
    .map(|poison| poison.label());
    let expected = ["unsolicited", "early", "shape", "sentinel", "malformed"];
    assert_eq!(labels, expected);
}

#[test]
fn the_answer_to_asking_is_not_passed_on() {
    for answer in ["+OK\r\n", "-NOPERM no\r\n"] {
        let (mut pipeline, now) = (Pipeline::new(1), start());
        pipeline.push(Tag(1, b"$"), &request(1, 0), || None, true, now);
        push(&mut pipeline, Tag::any(2), now);
        write(&mut pipeline, usize::MAX, now);
        assert_eq!(pipeline.in_flight(), 3);
        let events = answered(
            &mut pipeline,
            &[answer, "$1\r\na\r\n+b\r\n"].concat().into_bytes(),
        );
        assert_eq!(
            events,
            Ok(vec![piece(1, b"$1\r\na\r\n"), piece(2, b"+b\r\n")])
        );
    }
    let mut pipeline = Pipeline::new(1);
    pipeline.push(Tag(1, b"$"), &request(1, 0), || None, true, start());
    write(&mut pipeline, usize::MAX, start());
    let result = answered(&mut pipeline, b"$1\r\na\r\n");
    assert_eq!(
        result,
        Err(Poison::Shape(b'$')),
        "the answer to ASKING is missing"
    );
}

#[test]
fn what_is_for_nobody_is_not_passed_on() {
    for answer in ["$1\r\nx\r\n", "-NOPERM no\r\n"] {
        let (mut pipeline, now) = (Pipeline::new(1), start());
        pipeline.push_for_nobody(b"*1\r\n$4\r\nLOAD\r\n", now);
        pipeline.push(Tag(1, b"$"), &request(1, 0), || None, true, now);
        let written = write(&mut pipeline, usize::MAX, now);
        let [load, asking, own] = ["LOAD", "ASKING", "1"].map(|part| {
            let at = written
                .windows(part.len())
                .rposition(|at| at == part.as_bytes());
            at.expect(part)
        });
        assert!(load < asking && asking < own, "{written:?}");
        let replies = [answer, "+OK\r\n$1\r\na\r\n"].concat();
        let events = answered(&mut pipeline, &replies.into_bytes());
        assert_eq!(events, Ok(vec![piece(1, b"$1\r\na\r\n")]));
    }
}

/// The sentinel's request, cut out of what a pipeline has written.
fn sentinel(pipeline: &mut Pipeline<Tag>) -> Vec<u8> {
    pipeline.push_sentinel(start());
    let bytes = write(pipeline, usize::MAX, start());
    let (value, len) = Value::parse(&bytes).unwrap();
    assert_eq!(len, bytes.len());
    let args = value.as_array().unwrap();
    assert_eq!((args.len(), args[0].as_bytes()), (2, Some(&b"ECHO"[..])));
    args[1].as_bytes().unwrap().to_vec()
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    resp::write::bulk(&mut out, bytes);
    out
}

#[test]
fn a_sentinel_comes_back_unaltered_or_poisons() {
    let mut pipeline = Pipeline::<Tag>::new(1);
    let nonce = sentinel(&mut pipeline);
    assert_eq!(answered(&mut pipeline, &bulk(&nonce)), Ok(vec![]));
    assert_eq!(pipeline.in_flight(), 0);

    let second = sentinel(&mut pipeline);
    assert_ne!(nonce, second, "no two are alike");
    assert_eq!(
        answered(&mut pipeline, &bulk(&nonce)),
        Err(Poison::Sentinel)
    );
    assert!(pipeline.abandon().is_empty(), "nobody waits for a sentinel");

    for altered in [&b"$-1\r\n"[..], b"$0\r\n\r\n", &bulk(&nonce[..23])] {
        sentinel(&mut pipeline);
        assert_eq!(answered(&mut pipeline, altered), Err(Poison::Sentinel));
        pipeline.abandon();
    }
    sentinel(&mut pipeline);
    assert_eq!(
        answered(&mut pipeline, b"+OK\r\n"),
        Err(Poison::Shape(b'+'))
    );
}

#[test]
fn a_sentinel_may_be_refused() {
    let mut pipeline = Pipeline::<Tag>::new(1);
    sentinel(&mut pipeline);
    let refusal = b"-NOPERM User ro has no permissions to run the 'echo' command\r\n";
    assert_eq!(answered(&mut pipeline, refusal), Ok(vec![]));
    assert_eq!(pipeline.in_flight(), 0);
}

#[test]
fn two_connections_do_not_share_their_sentinels() {
    let (mut one, mut other) = (Pipeline::<Tag>::new(1), Pipeline::<Tag>::new(2));
    assert_ne!(sentinel(&mut one), sentinel(&mut other));
}

#[test]
fn a_shift_shows_itself_at_the_next_sentinel() {
    let (mut pipeline, now) = (Pipeline::new(9), start());
    let count = usize::try_from(SENTINEL_INTERVAL).unwrap();
    for number in 0..count {
        push(&mut pipeline, Tag(number, b"$"), now);
    }
    assert_eq!(pipeline.in_flight(), count + 1, "a sentinel is behind them");
    write(&mut pipeline, usize::MAX, now);
    let answers = b"$1\r\nx\r\n".repeat(count);
    assert_eq!(
        answered(&mut pipeline, &answers).map(|events| events.len()),
        Ok(count)
    );
    let result = answered(&mut pipeline, b"$1\r\nx\r\n");
    assert_eq!(result, Err(Poison::Sentinel), "one reply too many");
}
