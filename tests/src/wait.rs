//! Waiting for a condition: never by a fixed sleep, always with a limit.

use std::thread;
use std::time::{Duration, Instant};

/// How long to sleep between two looks at a condition.
const STEP: Duration = Duration::from_millis(20);

/// Whether `condition` came true within `limit`.
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(STEP);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// It does not within `seconds`; the message names `what`.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, condition: impl FnMut() -> bool) {
    assert!(
        within(Duration::from_secs(seconds), condition),
        "waited {seconds} s in vain: {what}"
    );
}
