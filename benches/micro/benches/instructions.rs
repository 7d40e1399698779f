//! How many instructions the steps of a command's way take, by callgrind: the same on every run, on a
//! busy machine too. `benches/instructions` holds them against those stored.

#![allow(missing_docs, reason = "what the macros make")]
#![allow(clippy::unwrap_used, reason = "requests that are made here")]

use std::hint::black_box;

use command::CommandTable;
use gungraun::{library_benchmark, library_benchmark_group, main};
use micro::Plane;
use resp::{OwnedRequest, RequestDecoder, RequestLimits};
use routing::{CrossSlot, Plan, Slot};

/// Commands of a batch.
const BATCH: usize = 16;

fn gets(count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for number in 0..count {
        resp::write::request(&mut all, &["GET", &format!("user:{number:08}")]);
    }
    all
}

fn sets(count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for number in 0..count {
        let value = format!("{number:01024}");
        resp::write::request(&mut all, &["SET", &format!("user:{number:08}"), &value]);
    }
    all
}

fn mget() -> Vec<u8> {
    let keys: Vec<String> = (0..10).map(|number| format!("user:{number:08}")).collect();
    let mut words = vec!["MGET"];
    words.extend(keys.iter().map(String::as_str));
    let mut request = Vec::new();
    resp::write::request(&mut request, &words);
    request
}

#[library_benchmark]
#[bench::gets(gets(BATCH))]
#[bench::sets(sets(BATCH))]
fn decoder(bytes: Vec<u8>) -> usize {
    let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
    let mut used = 0;
    while let Ok(Some(len)) = decoder.decode(bytes.get(used..).unwrap_or_default()) {
        used += len;
        decoder.next();
    }
    used
}

/// A request, and the table, which takes its time to be made.
fn asked(words: &[&str]) -> (OwnedRequest, &'static CommandTable) {
    let request = OwnedRequest::from_args(words.iter().copied());
    (request, CommandTable::builtin())
}

#[library_benchmark]
#[bench::get(asked(&["GET", "user:00000001"]))]
#[bench::subcommand(asked(&["CLIENT", "SETINFO", "LIB-NAME", "x"]))]
fn lookup((request, table): (OwnedRequest, &'static CommandTable)) -> bool {
    black_box(table.lookup(black_box(request.as_request()))).is_ok()
}

#[library_benchmark]
#[bench::short(b"user:00000001".to_vec())]
#[bench::tag(b"{user:00000001}.followers".to_vec())]
#[bench::long(vec![b'k'; 256])]
fn slot(key: Vec<u8>) -> Slot {
    Slot::of_key(black_box(&key))
}

#[library_benchmark]
#[bench::get(asked(&["GET", "user:00000001"]))]
fn plan((request, table): (OwnedRequest, &'static CommandTable)) -> Plan {
    let hasher = foldhash::fast::FixedState::with_seed(1);
    let command = table.lookup(request.as_request()).unwrap();
    routing::plan(command, request.as_request(), CrossSlot::Split, &hasher)
}

/// Everything has been done before, and is of the size that it stays at.
fn warm(request: Vec<u8>) -> (Plane, Vec<u8>) {
    let mut plane = Plane::new(4, 64);
    for _ in 0..20 {
        plane.exchange(0, &request);
    }
    (plane, request)
}

#[library_benchmark]
#[bench::get(setup = warm, args = (gets(1)))]
#[bench::gets_pipelined(setup = warm, args = (gets(BATCH)))]
#[bench::sets_pipelined(setup = warm, args = (sets(BATCH)))]
#[bench::mget(setup = warm, args = (mget()))]
fn whole_way((mut plane, request): (Plane, Vec<u8>)) -> Plane {
    plane.exchange(0, black_box(&request));
    plane
}

library_benchmark_group!(
    name = way;
    benchmarks = decoder, lookup, slot, plan, whole_way
);

main!(library_benchmark_groups = way);
