//! Replies of a pipeline that wait a moment for those behind them, so that they leave together: the
//! nodes answer one after the other, and every write to a client costs as much as several commands.
//!
//! Owns who waits and since when. What a client sent in one piece is what it
//! most likely waits for as a whole. A client whose replies were not complete in time is written to
//! at once for a while. Never here: the order of replies, and what they are.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use session::Place;

use crate::{action::Action, client::State, host::Host, plane::Dataplane, slots::Key};

/// So many commands in one piece are a pipeline.
const COMMANDS_MIN: u32 = 8;
/// More than one TLS record is worth a write of its own.
const BYTES_MAX: usize = 16 * 1024;
/// A reply waits so long at most, and as much more as the runtime's timer is late.
pub const UNCORK_AFTER: Duration = Duration::from_millis(1);
/// So many pipelines are not held back after one that was not complete in time.
const IMPATIENT_FOR: u8 = 64;

/// A client's.
#[derive(Debug, Default)]
pub(crate) struct Cork {
    /// Behind the last command of a pipeline that is not answered yet.
    end: Option<Place>,
    /// Since when replies of it wait.
    since: Option<Instant>,
    /// So many of the next pipelines do not.
    impatient: u8,
}

impl Cork {
    /// So many commands were taken in one piece; the next will have this place.
    #[inline]
    pub(crate) fn took(&mut self, commands: u32, next: Place) {
        if commands < COMMANDS_MIN {
            return;
        }
        if self.impatient > 0 {
            self.impatient -= 1;
        } else {
            self.end = Some(next);
        }
    }

    /// All that waited is written.
    #[inline]
    pub(crate) fn wrote_all(&mut self) {
        self.since = None;
    }
}

/// Those of a worker.
#[derive(Debug, Default)]
pub(crate) struct Corks {
    /// Whose replies began to wait, and when: the first one first.
    waiting: VecDeque<(Key, Instant)>,
}

impl Corks {
    /// Whether what there is for a client waits for the rest of its pipeline.
    #[inline]
    pub(crate) fn hold(
        &mut self,
        (state, key): (&mut State, Key),
        actions: &mut Vec<Action>,
        now: Instant,
    ) -> bool {
        let Some(end) = state.cork.end else {
            return false;
        };
        if state.session.order.has_passed(end) {
            state.cork.end = None;
            return false;
        }
        if state.waits() || state.session.output.len() > BYTES_MAX {
            return false;
        }
        if state.cork.since.is_none() {
            state.cork.since = Some(now);
            if self.waiting.is_empty() {
                actions.push(Action::Uncork);
            }
            self.waiting.push_back((key, now));
        }
        true
    }

    /// The next whose time is over, if there is one.
    fn over(&mut self, now: Instant) -> Option<(Key, Instant)> {
        let over = |(_, since): &mut (Key, Instant)| *since + UNCORK_AFTER <= now;
        self.waiting.pop_front_if(over)
    }
}

impl<H: Host> Dataplane<H> {
    /// The time after [`Action::Uncork`] is over: what has waited for so long leaves.
    pub fn uncork(&mut self, now: Instant) {
        while let Some((key, since)) = self.core.corks.over(now) {
            let Some(client) = self.clients.get_mut(key) else {
                continue; // it has left
            };
            let state = &mut client.state;
            if state.cork.since != Some(since) {
                continue; // it has got them
            }
            state.cork = Cork {
                impatient: IMPATIENT_FOR,
                ..Cork::default()
            };
            self.core.wake(state, key);
        }
        if !self.core.corks.waiting.is_empty() {
            self.core.actions.push(Action::Uncork);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_commands_are_no_pipeline_and_an_impatient_client_is_left_alone() {
        let next = session::Order::default().next_place();
        let mut cork = Cork::default();
        cork.took(COMMANDS_MIN - 1, next);
        assert_eq!(cork.end, None);
        cork.took(COMMANDS_MIN, next);
        assert_eq!(cork.end, Some(next));
        let mut cork = Cork {
            impatient: 1,
            ..Cork::default()
        };
        cork.took(COMMANDS_MIN, next);
        assert_eq!((cork.end, cork.impatient), (None, 0));
        cork.took(COMMANDS_MIN, next);
        assert_eq!(cork.end, Some(next));
    }
}
