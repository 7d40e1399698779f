//! What is handed out when a connection ends: the base of at-most-once.

use super::*;

/// `(number, padding, asking)` of the requests, the bytes where each one's own begin and the end.
struct Queue {
    requests: Vec<(usize, usize, bool)>,
    starts: Vec<usize>,
    end: usize,
}

impl Queue {
    fn new(requests: &[(usize, bool)]) -> Self {
        let (mut end, mut starts) = (0, Vec::new());
        let requests: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(number, (padding, asking))| (number, *padding, *asking))
            .collect();
        for (number, padding, asking) in &requests {
            end += if *asking { 16 } else { 0 };
            starts.push(end);
            end += request(*number, *padding).len();
        }
        Self {
            requests,
            starts,
            end,
        }
    }

    fn pipeline(&self, count: usize) -> Pipeline<Tag> {
        let (mut pipeline, now) = (Pipeline::new(3), start());
        for (number, padding, asking) in &self.requests {
            let bytes = request(*number, *padding);
            let shared = || Some(bytes.clone());
            pipeline.push(Tag::any(*number), &bytes, shared, *asking, now);
        }
        assert_eq!(write(&mut pipeline, count, now).len(), count);
        pipeline
    }

    /// Every count of bytes within 40 of the beginning or the end of a request.
    fn interesting(&self) -> Vec<usize> {
        let near = |count: usize| {
            let mut edges = self.starts.iter().chain([&self.end]);
            edges.any(|edge| edge.abs_diff(count) <= 40)
        };
        (0..=self.end).filter(|count| near(*count)).collect()
    }
}

#[test]
fn a_request_is_touched_from_its_first_byte_on() {
    let small = (0, false);
    let queue = Queue::new(&[
        small,
        (5, true),
        (20_000, false),
        (17_000, true),
        small,
        (300, true),
        (16_384, false),
    ]);
    let counts = queue.interesting();
    assert!(counts.len() > 400);
    for count in counts {
        let mut pipeline = queue.pipeline(count);
        let abandoned = pipeline.abandon();
        assert_eq!(abandoned.len(), queue.requests.len());
        for (at, one) in abandoned.iter().enumerate() {
            let (number, padding, asking) = queue.requests[at];
            let case = format!("request {number} when {count} bytes were written");
            assert_eq!(one.ticket.0, number, "{case}");
            assert!(one.request == request(number, padding), "{case}");
            assert_eq!(one.touched, count > queue.starts[at], "{case}");
            assert_eq!(one.asking, asking, "{case}");
            assert!(!one.answered_in_part, "{case}");
        }
        assert_eq!((pipeline.in_flight(), pipeline.unwritten()), (0, 0));
        assert_eq!(
            (pipeline.queued_bytes(), pipeline.waiting_since()),
            (0, None)
        );
    }
}

#[test]
fn what_is_answered_is_not_abandoned_and_what_follows_is_told_right() {
    let queue = Queue::new(&[(0, false), (20_000, false), (3, true), (0, false)]);
    for count in queue.interesting() {
        let mut pipeline = queue.pipeline(count);
        // The node answers everything that it has whole; ASKING by a line of its own.
        let mut answers = Vec::new();
        let mut whole = 0;
        for (at, (number, padding, asking)) in queue.requests.iter().enumerate() {
            if *asking && count >= queue.starts[at] {
                answers.extend_from_slice(b"+OK\r\n");
            }
            if count >= queue.starts[at] + request(*number, *padding).len() {
                answers.extend_from_slice(b":1\r\n");
                whole += 1;
            }
        }
        let events = answered(&mut pipeline, &answers).unwrap();
        assert_eq!(events.len(), whole, "{count}");
        let abandoned = pipeline.abandon();
        let numbers: Vec<_> = abandoned.iter().map(|one| one.ticket.0).collect();
        assert_eq!(numbers, (whole..queue.requests.len()).collect::<Vec<_>>());
        for one in &abandoned {
            let touched = count > queue.starts[one.ticket.0];
            assert_eq!(one.touched, touched, "{} at {count}", one.ticket.0);
            let (number, padding, _) = queue.requests[one.ticket.0];
            assert!(one.request == request(number, padding));
        }
    }
}

/// Abandons after the first `count` bytes of `reply` to the first of two requests.
fn cut(reply: &[u8], count: usize) -> (Vec<Event>, Vec<bool>) {
    let mut pipeline = written(&[Tag::any(0), Tag::any(1)]);
    let (mut feed, mut inbox) = (Feed::default(), Inbox::default());
    feed.arrive(&mut pipeline, &reply[..count], start(), &mut inbox)
        .unwrap();
    let parts = pipeline
        .abandon()
        .into_iter()
        .map(|one| one.answered_in_part);
    (inbox.take(), parts.collect())
}

#[test]
fn a_reply_is_in_part_with_a_client_only_when_it_is_long() {
    let short = bulk(&vec![b'v'; CUT_BYTES_MIN - 20]);
    assert!(short.len() < CUT_BYTES_MIN);
    for count in [1, 5, 9, 10, 1000, short.len() - 1] {
        assert_eq!(cut(&short, count), (vec![], vec![false, false]), "{count}");
    }
    let long = bulk(&vec![b'v'; CUT_BYTES_MIN * 2]);
    for count in [1, 9, 10, CUT_BYTES_MIN - 1] {
        assert_eq!(cut(&long, count), (vec![], vec![false, false]), "{count}");
    }
    for count in [CUT_BYTES_MIN, CUT_BYTES_MIN + 1, long.len() - 1] {
        let (events, in_part) = cut(&long, count);
        assert_eq!(events, vec![Event::Piece(0, long[..count].to_vec(), false)]);
        assert_eq!(in_part, vec![true, false], "{count}");
    }
    assert_eq!(
        cut(&long, long.len()).1,
        vec![false],
        "the next one is untold"
    );
    let error = [b"!70000\r\n".to_vec(), vec![b'e'; 70_000]].concat();
    assert_eq!(cut(&error, error.len()), (vec![], vec![false, false]));
}

#[test]
fn it_can_be_used_again_afterwards() {
    let mut pipeline = written(&[Tag::any(0)]);
    let mut inbox = Inbox::default();
    let half = b"*2\r\n$3\r\nab";
    assert_eq!(pipeline.received(half, start(), &mut inbox), Ok(half.len()));
    pipeline.abandon();
    push(&mut pipeline, Tag::any(1), start());
    write(&mut pipeline, usize::MAX, start());
    assert_eq!(
        answered(&mut pipeline, b"+OK\r\n"),
        Ok(vec![piece(1, b"+OK\r\n")])
    );
}
