#![allow(
    clippy::disallowed_methods,
    reason = "any instant will do to begin with"
)]

use command::{Command, CommandTable};
use resp::{OwnedRequest, Protocol};
use session::{Form, Place};

use super::*;
use crate::{slots::Key, ticket::About};

const KEY: Key = Key {
    index: 0,
    generation: 0,
};

fn request(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut bytes = Vec::new();
    resp::write::request(&mut bytes, &words);
    bytes
}

fn command(line: &str) -> &'static Command {
    let request = OwnedRequest::from_args(line.split(' '));
    CommandTable::builtin()
        .lookup(request.as_request())
        .unwrap()
}

fn ticket(line: &str, form: Form, key: &str) -> Ticket {
    let command = command(line);
    let writes = command.may_write();
    let how = (form, writes);
    let mut ticket = Ticket::new(KEY, (Place(0), 0), command, how, Protocol::Resp2);
    ticket.about = About::Keys(Slot::of_key(key.as_bytes()));
    ticket
}

fn answered(heat: &mut Heat, line: &str, reply: usize, now: Instant) {
    let key = line.split(' ').nth(1).unwrap();
    let ticket = ticket(line, Form::Plain, key);
    let about = (CommandTable::builtin(), now);
    heat.answered(&ticket, &request(line), reply, about);
}

/// Heat that looks into every request.
fn attentive(now: Instant) -> Heat {
    let mut heat = Heat::new(7);
    heat.tick(now);
    heat.tick(now + ESTIMATE);
    assert_eq!(heat.keys().every(), 1, "nothing has come yet");
    heat
}

#[test]
fn slots_have_what_was_asked_and_answered() {
    let now = Instant::now();
    let mut heat = Heat::new(1);
    for _ in 0..1_000 {
        answered(&mut heat, "GET a", 9, now);
        answered(&mut heat, "SET a value", 5, now);
    }
    let count = heat.slots().get(Slot::of_key(b"a"));
    assert_eq!((count.reads, count.writes), (1_000, 1_000));
    let sent = request("GET a").len() + request("SET a value").len();
    assert_eq!(count.bytes_in, as_u64(1_000 * sent));
    assert_eq!(count.bytes_out, 14_000);
    assert_eq!(heat.slots().total(), count);
}

#[test]
fn keys_are_found_in_every_kind_of_request() {
    let now = Instant::now();
    let mut heat = attentive(now);
    answered(&mut heat, "GET a", 100, now);
    answered(&mut heat, "MSET {a}1 x {a}2 y", 5, now);
    answered(&mut heat, "XREAD COUNT 1 STREAMS s 0", 5, now);
    let block: Vec<u8> = ["MULTI", "INCR {a}1", "SET {a}3 v", "EXEC"]
        .iter()
        .flat_map(|line| request(line))
        .collect();
    let exec = ticket("EXEC", Form::Block(3), "a");
    heat.answered(&exec, &block, 30, (CommandTable::builtin(), now));
    let count = heat.slots().get(Slot::of_key(b"a"));
    assert_eq!(count.operations(), 4, "two of the transaction");
    let keys = heat.keys().by_operations().heaviest(9);
    let seen: Vec<_> = keys
        .iter()
        .map(|key| (String::from_utf8_lossy(&key.key).into_owned(), key.at_least))
        .collect();
    let expected = [("{a}1", 2), ("a", 1), ("s", 1), ("{a}2", 1), ("{a}3", 1)];
    assert_eq!(seen.len(), expected.len());
    for (key, times) in expected {
        assert!(seen.contains(&(key.to_owned(), times)), "{key}: {seen:?}");
    }
    let bytes = heat.keys().by_bytes().heaviest(1);
    assert_eq!(bytes[0].key, b"a");
    assert_eq!(bytes[0].at_least, as_u64(request("GET a").len() + 100));
}

#[test]
fn big_values_are_seen_without_sampling() {
    let now = Instant::now();
    let mut heat = Heat::new(1);
    answered(&mut heat, "GET big", 100_000, now);
    let value = format!("SET bigger {}", "v".repeat(200_000));
    answered(&mut heat, &value, 5, now);
    answered(&mut heat, "MGET {x}1 {x}2", 300_000, now);
    answered(&mut heat, "GET small", 16_000, now);
    let big = BigKeys::biggest([heat.big()], 9);
    let names: Vec<&[u8]> = big.iter().map(|key| &key.key[..]).collect();
    assert_eq!(names, [&b"bigger"[..], b"big"]);
    assert_eq!(big[1].bytes, 100_000);
}

#[test]
fn under_load_few_are_looked_into_and_at_rest_all() {
    let start = Instant::now();
    let mut heat = attentive(start);
    let mut now = start + ESTIMATE;
    for second in 0..5 {
        for _ in 0..60_000 {
            answered(&mut heat, "GET a", 9, now);
        }
        now += ESTIMATE;
        if second == 0 {
            assert!(heat.looks < 10 * LOOKS_PER_SECOND, "{}", heat.looks);
        } else {
            assert!(heat.looks < 2 * LOOKS_PER_SECOND, "{}", heat.looks);
        }
        heat.tick(now);
    }
    assert!(
        (20..40).contains(&heat.keys().every()),
        "{}",
        heat.keys().every()
    );
    let rate = heat.keys().by_operations().heaviest(1)[0].at_least as f64
        / heat.keys().span(heat.age(now)).as_secs_f64();
    // It came for five seconds of six.
    assert!((rate / 50_000.0 - 1.0).abs() < 0.1, "{rate}");
    now += ESTIMATE;
    heat.tick(now);
    assert_eq!(heat.keys().every(), 1);
}
