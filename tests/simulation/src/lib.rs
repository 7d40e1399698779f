//! The dataplane in a simulated world: clients that pipeline through it, a cluster in memory that
//! moves slots, fails over, dies and lies, and a network that delays, cuts and swallows. Time is
//! virtual, and everything that looks like chance comes from one number, the seed: the same seed
//! is the same run, to the last byte.
//!
//! Here is who plays the world and who checks the replies; what is checked is the dataplane as the
//! proxy runs it. No sockets, no threads, no clock.
//!
//! [`run`] is one seed with the dataplane alone, `run_drivers` one with the proxy's own drivers and
//! up to three workers. The checks: every value says where it belongs (identity), nothing runs
//! twice, everything runs as the user and in the database that its client had chosen, commands of
//! one client on one key run in the order sent, one order of all writes and reads of a key explains
//! every reply, an error that says a command did not run is true, nothing is seen of a change that
//! loses nothing, what others wrote is read as old as its worker knew and a second at most, messages are heard by who is subscribed and once at most, a walk through all keys
//! shows those that stay, lists of clients are whole, everything is answered and everybody hears
//! once the faults are over, and then nothing is left in flight, kept back or lent.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test support: a panic is how it fails, and its numbers are small"
)]

mod agenda;
mod apart;
mod client;
mod clients;
#[cfg(feature = "drivers")]
mod drivers;
mod faults;
mod history;
mod identities;
mod links;
mod listening;
mod others;
mod proof;
mod proxy;
mod pure;
mod registers;
mod rng;
mod roll;
mod speech;
mod trace;
mod walks;
mod weather;
mod world;

use std::{
    any::Any,
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

pub use dataplane::Planted;
#[cfg(feature = "drivers")]
pub use keyway::net::DriverFault;
pub use proof::Proof;
pub use world::Report;

use history::Violation;
use world::World;

/// What must not happen, and happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number that replays it.
    pub seed: u64,
    /// What was found.
    pub what: String,
}

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed, perhaps with a fault planted in the dataplane, perhaps with its trace on standard
/// error.
///
/// # Errors
/// What was found. A panic of the dataplane's own checks is a find like any other.
pub fn run(seed: u64, planted: Option<Planted>, shown: bool) -> Result<Report, Failure> {
    guarded(seed, || World::pure(seed, planted, shown).run())
}

/// The same with the proxy's own drivers around the dataplane, perhaps with a fault in them.
///
/// # Errors
/// What was found. A panic of a driver is a find like any other.
#[cfg(feature = "drivers")]
pub fn run_drivers(seed: u64, fault: Option<DriverFault>, shown: bool) -> Result<Report, Failure> {
    guarded(seed, || drivers::run(seed, fault, shown))
}

/// A panic is a violation.
fn guarded(seed: u64, run: impl FnOnce() -> Result<Report, Violation>) -> Result<Report, Failure> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let inside = PLACE.with_borrow_mut(|place| {
                let place = place.as_mut();
                place.map(|place| {
                    *place = info.location().map_or_else(String::new, |l| l.to_string())
                })
            });
            if inside.is_none() {
                before(info);
            }
        }));
    });
    PLACE.set(Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let place = PLACE.take().unwrap_or_default();
    let what = match result {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(violation)) => violation,
        Err(panic) => format!("panic at {place}: {}", message(&*panic)),
    };
    Err(Failure { seed, what })
}

/// Where there was a panic that nobody else will tell of: a task's.
#[cfg(feature = "drivers")]
fn panicked() -> Option<String> {
    PLACE.with_borrow(|place| place.clone().filter(|place| !place.is_empty()))
}

fn message(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}
