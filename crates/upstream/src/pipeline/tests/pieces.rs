//! However the bytes are cut, the replies are the same and reach the same requests.

use proptest::prelude::*;

use super::*;

fn line(kind: char) -> impl Strategy<Value = Vec<u8>> {
    "[a-zA-Z0-9 ]{0,40}".prop_map(move |text| format!("{kind}{text}\r\n").into_bytes())
}

fn body(kind: char, len: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<u8>> {
    (len, any::<u8>()).prop_map(move |(len, fill)| {
        let head = format!("{kind}{len}\r\n").into_bytes();
        [head, vec![fill; len], b"\r\n".to_vec()].concat()
    })
}

fn leaf() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        line('+'),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        Just(b"$-1\r\n".to_vec()),
        Just(b"_\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
        body('$', 0..40_usize),
    ]
}

/// A reply that is no error: flat, nested, behind an attribute, or about as long as is held.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    let nested = leaf().prop_recursive(3, 12, 4, |inner| {
        let kinds = prop_oneof![Just('*'), Just('~'), Just('>')];
        (kinds, prop::collection::vec(inner, 0..4)).prop_map(|(kind, items)| {
            let head = format!("{kind}{}\r\n", items.len()).into_bytes();
            [head, items.concat()].concat()
        })
    });
    let nested = nested.prop_filter("a push is no reply", |reply| !reply.starts_with(b">"));
    let near = body('$', CUT_BYTES_MIN - 30..CUT_BYTES_MIN + 10);
    let long = (near.boxed(), body('$', CUT_BYTES_MIN / 3..CUT_BYTES_MIN))
        .prop_map(|(one, other)| [&b"*2\r\n"[..], &one, &other].concat());
    let attributed = (leaf(), leaf(), leaf())
        .prop_map(|(key, value, reply)| [&b"|1\r\n"[..], &key, &value, &reply].concat());
    prop_oneof![
        8 => nested,
        1 => body('$', CUT_BYTES_MIN - 30..CUT_BYTES_MIN + 10),
        1 => long,
        1 => attributed,
    ]
}

#[derive(Clone, Debug)]
enum Sent {
    Reply(Vec<u8>),
    Error(Vec<u8>),
    Push(Vec<u8>),
}

impl Sent {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Reply(bytes) | Self::Error(bytes) | Self::Push(bytes) => bytes,
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let push = prop::collection::vec(leaf(), 1..4).prop_map(|items| {
        let head = format!(">{}\r\n", items.len()).into_bytes();
        Sent::Push([head, items.concat()].concat())
    });
    prop_oneof![
        6 => plain().prop_map(Sent::Reply),
        2 => prop_oneof![line('-'), body('!', 0..90_000_usize)].prop_map(Sent::Error),
        1 => push,
    ]
}

/// Feeds `sent` cut at `cuts`, and checks everything that is passed on.
fn check(sent: &[Sent], cuts: &[usize]) -> Result<(), TestCaseError> {
    let numbers = 0..sent
        .iter()
        .filter(|one| !matches!(one, Sent::Push(_)))
        .count();
    let mut pipeline = written(&numbers.clone().map(Tag::any).collect::<Vec<_>>());
    let stream: Vec<u8> = sent.iter().flat_map(Sent::bytes).copied().collect();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();

    let (mut feed, mut inbox, mut from) = (Feed::default(), Inbox::default(), 0);
    let mut events = Vec::new();
    let mut in_part = 0;
    for cut in cuts {
        let result = feed.arrive(&mut pipeline, &stream[from..cut], start(), &mut inbox);
        prop_assert_eq!(result, Ok(()));
        from = cut;
        for event in inbox.take() {
            in_part = match &event {
                Event::Piece(_, bytes, false) => in_part + bytes.len(),
                _ => 0,
            };
            events.push(event);
        }
        prop_assert!(
            in_part == 0 || in_part >= CUT_BYTES_MIN,
            "{in_part} bytes of a reply"
        );
        prop_assert!(feed.unread() < 100, "more than an unfinished line was left");
    }
    prop_assert_eq!((pipeline.in_flight(), feed.unread()), (0, 0));
    let pushes = sent.len() - numbers.len();
    prop_assert_eq!(pipeline.pushes(), u64::try_from(pushes).unwrap());

    let mut events = events.into_iter().peekable();
    let answers = sent.iter().filter(|one| !matches!(one, Sent::Push(_)));
    let whole: Vec<_> = answers
        .clone()
        .enumerate()
        .filter(|(_, one)| matches!(one, Sent::Reply(_)))
        .map(|(number, one)| (number, request(number, 0).len(), one.bytes().len()))
        .collect();
    prop_assert_eq!(&inbox.1, &whole);
    for (expected, answer) in answers.enumerate() {
        let event = events.next().expect("a reply is missing");
        match (answer, event) {
            (Sent::Error(bytes), event) => {
                prop_assert!(event == error(expected, bytes));
            }
            (_, Event::Piece(number, mut all, mut done)) => {
                while !done {
                    prop_assert!(
                        answer.bytes().len() >= CUT_BYTES_MIN,
                        "it is passed on whole"
                    );
                    let Some(Event::Piece(same, bytes, last)) = events.next() else {
                        return Err(TestCaseError::fail("a reply without an end"));
                    };
                    prop_assert_eq!(same, number);
                    all.extend_from_slice(&bytes);
                    done = last;
                }
                prop_assert_eq!(number, expected);
                prop_assert!(all == answer.bytes());
            }
            (_, event) => prop_assert!(false, "{event:?} is no error"),
        }
    }
    prop_assert_eq!(events.next(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_cuts_give_the_same_replies(
        sent in prop::collection::vec(sent(), 1..8),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        check(&sent, &cuts)?;
    }

    #[test]
    fn a_byte_at_a_time_gives_the_same_replies(sent in prop::collection::vec(sent(), 1..8)) {
        let small: Vec<_> = sent.into_iter().filter(|one| one.bytes().len() < 1000).collect();
        let len = small.iter().map(|one| one.bytes().len()).sum();
        check(&small, &(0..len).collect::<Vec<_>>())?;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        padding: usize,
        asking: bool,
    },
    Sentinel,
    Write(usize),
    /// The node answers what it has whole; so many bytes of its answers arrive.
    Arrive(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let padding = prop_oneof![9 => 0..60_usize, 1 => 16_000..17_000_usize];
    prop_oneof![
        4 => (padding, any::<bool>()).prop_map(|(padding, asking)| Step::Push { padding, asking }),
        1 => Just(Step::Sentinel),
        4 => (0..200_usize).prop_map(Step::Write),
        1 => Just(Step::Write(usize::MAX)),
        4 => (0..60_usize).prop_map(Step::Arrive),
    ]
}

/// A node that reads requests and answers each `TEST` with its number.
#[derive(Default)]
struct Node {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Node {
    fn read(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(len) = whole(&self.input) {
            let (value, _) = Value::parse(&self.input[..len]).unwrap();
            let args = value.as_array().unwrap();
            match args[0].as_bytes().unwrap() {
                b"ASKING" => self.output.extend_from_slice(b"+OK\r\n"),
                _ => self.output.extend(bulk(args[1].as_bytes().unwrap())),
            }
            self.input.drain(..len);
        }
    }
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let walk = ReplyFramer::new().advance(bytes).unwrap();
    walk.done.then_some(walk.consumed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is queued, written and answered when: every request gets its own reply.
    #[test]
    fn everyone_gets_the_reply_to_what_they_asked(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (mut pipeline, now) = (Pipeline::new(5), start());
        let (mut node, mut feed, mut inbox) = (Node::default(), Feed::default(), Inbox::default());
        let mut asked = 0;
        let ending = [Step::Write(usize::MAX), Step::Arrive(usize::MAX)];
        for step in steps.into_iter().chain(ending) {
            match step {
                Step::Push { padding, asking } => {
                    let bytes = request(asked, padding);
                    pipeline.push(Tag(asked, b"$"), &bytes, || Some(bytes.clone()), asking, now);
                    asked += 1;
                }
                Step::Sentinel => pipeline.push_sentinel(now),
                Step::Write(count) => node.read(&write(&mut pipeline, count, now)),
                Step::Arrive(count) => {
                    let count = count.min(node.output.len());
                    let bytes: Vec<u8> = node.output.drain(..count).collect();
                    let result = feed.arrive(&mut pipeline, &bytes, now, &mut inbox);
                    prop_assert_eq!(result, Ok(()));
                }
            }
        }
        let expected: Vec<_> = (0..asked)
            .map(|number| piece(number, &bulk(number.to_string().as_bytes())))
            .collect();
        prop_assert_eq!(inbox.take(), expected);
        prop_assert_eq!((pipeline.in_flight(), pipeline.queued_bytes()), (0, 0));
    }
}
