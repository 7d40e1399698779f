//! The time as a worker's tasks see it.
//!
//! Reading the system's clock four times for every command was 3 % of what a command costs, so the
//! tasks share one reading: it is renewed when the thread has waited for events, and after every
//! few polls when it has not, because there was always something to do.

use std::{cell::Cell, time::Instant};

use crate::clock;

/// Polls that one reading serves: some tens of microseconds.
const READING_SERVES: u32 = 8;

thread_local! {
    /// How often this thread has waited for events.
    static TURN: Cell<u64> = const { Cell::new(0) };
}

/// The runtime's thread has waited for events: the time it knows is old.
pub(super) fn turned() {
    TURN.set(TURN.get().wrapping_add(1));
}

/// One worker's reading.
#[derive(Debug)]
pub(super) struct Clock {
    serves: u32,
    reading: Cell<Instant>,
    turn: Cell<u64>,
    served: Cell<u32>,
}

impl Clock {
    /// For a runtime that calls [`turned`].
    pub(super) fn of_turns() -> Self {
        Self::new(READING_SERVES)
    }

    /// For any other: every reading is new.
    pub(super) fn exact() -> Self {
        Self::new(0)
    }

    fn new(serves: u32) -> Self {
        Self {
            serves,
            reading: Cell::new(clock::now()),
            turn: Cell::new(TURN.get()),
            served: Cell::new(serves),
        }
    }

    /// The time now, for one poll of a task.
    pub(super) fn now(&self) -> Instant {
        let (turn, served) = (TURN.get(), self.served.get());
        if served < self.serves && turn == self.turn.get() {
            self.served.set(served + 1);
        } else {
            self.reading.set(clock::now());
            self.turn.set(turn);
            self.served.set(1);
        }
        self.reading.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass() {
        let before = Instant::now();
        while Instant::now() == before {}
    }

    #[test]
    fn a_reading_serves_some_polls_and_none_after_a_wait() {
        let clock = Clock::of_turns();
        let first = clock.now();
        pass();
        for _ in 1..READING_SERVES {
            assert_eq!(clock.now(), first);
        }
        let second = clock.now();
        assert!(second > first, "a reading does not serve for ever");
        pass();
        assert_eq!(clock.now(), second);
        turned();
        assert!(clock.now() > second, "a wait makes it old");
    }

    #[test]
    fn without_turns_every_reading_is_new() {
        let clock = Clock::exact();
        let first = clock.now();
        pass();
        assert!(clock.now() > first);
    }
}
