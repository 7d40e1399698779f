//! What counting costs a worker for each request: `cargo run --release -p heat --example cost`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example that measures; the crate itself takes time as an argument"
)]

use std::hint::black_box;
use std::time::Instant;

use heat::{HotKeys, Rng, Sampling, SlotCounts};
use topology::Slot;

const REQUESTS: usize = 20_000_000;
const KEYS: usize = 1 << 16;

/// Nanoseconds a request that `what` takes.
fn measure(name: &str, mut what: impl FnMut(usize)) {
    let began = Instant::now();
    (0..REQUESTS).for_each(&mut what);
    let each = began.elapsed().as_nanos() as f64 / REQUESTS as f64;
    println!("{name:<40} {each:6.2} ns a request");
}

fn main() {
    let mut rng = Rng::new(1);
    // Popular ones first, by Zipf's law as good as: the square of a fraction.
    let names: Vec<String> = (0..KEYS).map(|key| format!("user:{key}:profile")).collect();
    let order: Vec<&[u8]> = (0..KEYS)
        .filter_map(|_| {
            let share = rng.fraction().powi(4);
            let key = usize::try_from(rng.bits()).unwrap_or(0) % 3;
            let at = names.len() as f64 * share;
            names.iter().map(String::as_bytes).nth(whole(at) + key)
        })
        .collect();
    let key = |request: usize| {
        order
            .get(request % order.len())
            .copied()
            .unwrap_or_default()
    };
    let slots: Vec<Slot> = order.iter().map(|key| Slot::of_key(key)).collect();
    let slot = |request: usize| slots.get(request % slots.len()).copied();

    measure("a walk over the keys alone", |request| {
        black_box(key(request));
    });
    let mut counts = SlotCounts::default();
    measure("exact counts by slot, with the reply", |request| {
        if let Some(slot) = slot(request) {
            counts.request(slot, true, 40);
            counts.reply(slot, 100);
        }
    });
    for every in [1, 4, 16, 64] {
        let sampling = Sampling {
            every,
            ..Sampling::default()
        };
        let mut keys = HotKeys::new(sampling, 1);
        measure(&format!("hot keys, one request in {every}"), |request| {
            keys.hit(black_box(key(request)), 140);
        });
        black_box(keys.by_operations().total());
    }
    black_box(counts);
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "below the number of names"
)]
fn whole(number: f64) -> usize {
    number as usize
}
