//! Since when a node owes something.

use std::time::Duration;

use super::*;

#[test]
fn a_node_owes_from_the_first_byte_written_to_the_last_reply() {
    let start = start();
    let at = |ms| start + Duration::from_millis(ms);
    let mut pipeline = Pipeline::new(1);
    let mut inbox = Inbox::default();
    push(&mut pipeline, Tag::any(1), at(0));
    push(&mut pipeline, Tag::any(2), at(1));
    assert_eq!(pipeline.oldest_queued_at(), Some(at(0)));
    assert_eq!(pipeline.waiting_since(), None, "nothing is written");
    write(&mut pipeline, request(1, 0).len(), at(10));
    assert_eq!(pipeline.waiting_since(), Some(at(10)));
    write(&mut pipeline, usize::MAX, at(20));
    assert_eq!(
        pipeline.waiting_since(),
        Some(at(10)),
        "more to do is no answer"
    );
    assert_eq!(pipeline.received(b"$2\r\nx", at(30), &mut inbox), Ok(5));
    assert_eq!(
        pipeline.waiting_since(),
        Some(at(30)),
        "a part of a reply is"
    );
    assert_eq!(pipeline.received(b"y\r\n", at(40), &mut inbox), Ok(3));
    assert_eq!(pipeline.waiting_since(), Some(at(40)), "the second is owed");
    assert_eq!(pipeline.oldest_queued_at(), Some(at(1)));
    assert_eq!(pipeline.received(b"+OK\r\n", at(50), &mut inbox), Ok(5));
    assert_eq!(pipeline.waiting_since(), None);
    assert_eq!(pipeline.oldest_queued_at(), None);

    push(&mut pipeline, Tag::any(3), at(1000));
    assert_eq!(pipeline.waiting_since(), None, "still nothing is written");
    write(&mut pipeline, usize::MAX, at(1001));
    assert_eq!(
        pipeline.waiting_since(),
        Some(at(1001)),
        "not since the last reply"
    );
}

#[test]
fn a_node_owes_nothing_for_half_a_request_while_it_takes_more() {
    let start = start();
    let at = |ms| start + Duration::from_millis(ms);
    let mut pipeline = Pipeline::new(1);
    let mut inbox = Inbox::default();
    let big = request(1, 100_000);
    pipeline.push(Tag::any(1), &big, || Some(big.clone()), false, at(0));
    push(&mut pipeline, Tag::any(2), at(0));
    for step in 1..=9 {
        write(&mut pipeline, 10_000, at(step * 10));
        assert_eq!(pipeline.waiting_since(), Some(at(step * 10)));
    }
    write(&mut pipeline, big.len() - 90_000, at(100));
    assert_eq!(pipeline.waiting_since(), Some(at(100)));
    write(&mut pipeline, usize::MAX, at(110));
    assert_eq!(
        pipeline.waiting_since(),
        Some(at(100)),
        "the first is owed now"
    );

    assert_eq!(pipeline.received(b"+OK\r\n", at(120), &mut inbox), Ok(5));
    pipeline.push(Tag::any(3), &big, || Some(big.clone()), false, at(120));
    write(&mut pipeline, 5, at(130));
    assert_eq!(
        pipeline.waiting_since(),
        Some(at(120)),
        "the second is owed"
    );
    assert_eq!(pipeline.received(b"+OK\r\n", at(140), &mut inbox), Ok(5));
    write(&mut pipeline, 5, at(150));
    assert_eq!(
        pipeline.waiting_since(),
        Some(at(150)),
        "the third is on its way"
    );
}

#[test]
fn pushes_show_that_the_node_lives() {
    let start = start();
    let later = start + Duration::from_secs(1);
    let mut pipeline = Pipeline::new(1);
    push(&mut pipeline, Tag::any(1), start);
    write(&mut pipeline, usize::MAX, start);
    let push = b">1\r\n+x\r\n";
    let result = pipeline.received(push, later, &mut Inbox::default());
    assert_eq!(result, Ok(push.len()));
    assert_eq!(pipeline.waiting_since(), Some(later));
}
