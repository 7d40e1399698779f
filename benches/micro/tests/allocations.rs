//! A command allocates nothing in the steady state: counted by the allocator, not looked at.
//!
//! What is counted is Keyway's own way of a command, from a client's plain bytes to a node's and
//! back. rustls, around it, allocates once for every record that it decrypts and once for every one
//! that it encrypts, however many commands are in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::time::Instant;

use micro::Plane;
use tikv_jemalloc_ctl::thread;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes that this thread allocates while `run` does.
fn allocated(run: impl FnOnce()) -> u64 {
    let counter = thread::allocatedp::read().unwrap();
    let before = counter.get();
    run();
    counter.get() - before
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut request = Vec::new();
    resp::write::request(&mut request, words);
    request
}

/// Rounds of 50 clients that send `pipeline` commands each, all before any is answered.
fn rounds(plane: &mut Plane, commands: &[Vec<u8>], count: usize) {
    for round in 0..count {
        for client in 0..50 {
            let all = &commands[(round + client) % commands.len()];
            plane.send(client, all);
        }
        plane.settle();
    }
}

fn allocates_nothing(pipeline: usize, words: &dyn Fn(usize) -> Vec<String>) {
    let mut plane = Plane::new(50, 64);
    let commands: Vec<Vec<u8>> = (0..64)
        .map(|batch| {
            (0..pipeline)
                .flat_map(|number| {
                    let words = words(batch * pipeline + number);
                    request(&words.iter().map(String::as_str).collect::<Vec<_>>())
                })
                .collect()
        })
        .collect();
    rounds(&mut plane, &commands, 200);
    let before = plane.answered();
    let bytes = allocated(|| rounds(&mut plane, &commands, 400));
    let answered = plane.answered() - before;
    assert_eq!(answered, 400 * 50 * u64::try_from(pipeline).unwrap());
    assert_eq!(bytes, 0, "bytes allocated for {answered} commands");
}

#[test]
fn the_counter_counts() {
    let bytes = allocated(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert!(bytes >= 100, "{bytes}");
    let bytes = allocated(|| {
        std::hint::black_box(Instant::now());
    });
    assert_eq!(bytes, 0);
}

#[test]
fn a_get_allocates_nothing() {
    let get = |number| vec!["GET".to_owned(), format!("key:{number}")];
    for pipeline in [1, 16] {
        allocates_nothing(pipeline, &get);
    }
}

#[test]
fn a_set_allocates_nothing() {
    let set = |number| {
        vec![
            "SET".to_owned(),
            format!("key:{number}"),
            format!("{number:01024}"),
        ]
    };
    for pipeline in [1, 16] {
        allocates_nothing(pipeline, &set);
    }
}
