//! A connection's life: connecting, being set up, carrying commands, closed.

use std::{
    io::IoSlice,
    time::{Duration, Instant},
};

use crate::{
    handshake::{Greeting, Handshake, HandshakeError, Setup, SetupBytes},
    pipeline::{Abandoned, Pipeline, Poison, Replies, Ticket},
};

/// How long a connection waits before it gives up.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the start of the attempt until the connection may carry commands.
    pub connect: Duration,
    /// Without a byte from a node that owes a reply.
    pub reply: Duration,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The shell is connecting (TCP and TLS).
    Connecting,
    /// `HELLO` and what follows it.
    SettingUp,
    /// Commands flow.
    Ready,
    /// Over. What was queued is to be taken with [`Connection::abandon`].
    Closed,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The node could not be reached, or the connection broke; the words of the system.
    #[error("{0}")]
    Io(String),
    /// The node closed the connection.
    #[error("closed by the node")]
    Eof,
    /// No byte for as long as the timeouts allow.
    #[error("no answer for {} ms", .0.as_millis())]
    Silent(Duration),
    /// The setup failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The replies cannot be trusted any more.
    #[error("replies do not match requests ({})", .0.label())]
    Poisoned(Poison),
    /// Nobody needs it any more.
    #[error("not needed any more")]
    Retired,
}

/// One connection to one node: handshake first, then the pipeline.
///
/// Requests may be queued in any phase but [`Phase::Closed`]; they leave when it is ready.
#[derive(Debug)]
pub struct Connection<T> {
    phase: Phase,
    since: Instant,
    timeouts: Timeouts,
    handshake: Handshake,
    setup_output: SetupBytes,
    /// Some of the setup's awaited questions is written, so an answer may come.
    asked: bool,
    pipeline: Pipeline<T>,
}

impl<T: Ticket> Connection<T> {
    /// A connection that the shell is asked to open now.
    #[must_use]
    pub fn new(setup: Setup, timeouts: Timeouts, seed: u64, now: Instant) -> Self {
        Self {
            phase: Phase::Connecting,
            since: now,
            timeouts,
            handshake: Handshake::new(setup),
            setup_output: SetupBytes::default(),
            asked: false,
            pipeline: Pipeline::new(seed),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the node said of itself; empty until the setup.
    #[must_use]
    pub fn greeting(&self) -> &Greeting {
        self.handshake.greeting()
    }

    /// The commands on it.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline<T> {
        &self.pipeline
    }

    /// The commands on it, to queue more.
    pub fn pipeline_mut(&mut self) -> &mut Pipeline<T> {
        &mut self.pipeline
    }

    /// The transport is up.
    pub fn connected(&mut self) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::SettingUp;
            self.setup_output.0 = self.handshake.take_output();
        }
    }

    /// Takes bytes from the node. Returns how many of `buf` it used.
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub fn received(
        &mut self,
        buf: &[u8],
        now: Instant,
        replies: &mut impl Replies<T>,
    ) -> Result<usize, CloseReason> {
        match self.phase {
            Phase::Ready => self
                .pipeline
                .received(buf, now, replies)
                .map_err(CloseReason::Poisoned),
            Phase::SettingUp => {
                let (used, ready) = self.handshake.received(buf)?;
                // Only an error may come unasked (a node that is full), and that is handled above.
                if used > 0 && !self.asked {
                    return Err(CloseReason::Poisoned(Poison::Early));
                }
                let mut questions = self.handshake.take_output();
                self.asked &= questions.is_empty();
                self.setup_output.0.append(&mut questions);
                if ready {
                    self.phase = Phase::Ready;
                    if used < buf.len() {
                        return Err(CloseReason::Poisoned(Poison::Unsolicited));
                    }
                }
                Ok(used)
            }
            Phase::Connecting | Phase::Closed => Ok(0),
        }
    }

    /// Whether there is something to write now.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        match self.phase {
            Phase::SettingUp => !self.setup_output.0.is_empty(),
            Phase::Ready => self.pipeline.unwritten() > 0,
            Phase::Connecting | Phase::Closed => false,
        }
    }

    /// Fills `slices` with the next bytes to write and returns how many slices it used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match (self.phase, slices.first_mut()) {
            (Phase::SettingUp, Some(first)) if !self.setup_output.0.is_empty() => {
                *first = IoSlice::new(&self.setup_output.0);
                1
            }
            (Phase::Ready, Some(_)) => self.pipeline.slices(slices),
            _ => 0,
        }
    }

    /// Says that the transport took the first `count` bytes.
    pub fn written(&mut self, count: usize, now: Instant) {
        match self.phase {
            Phase::SettingUp => {
                let output = &mut self.setup_output.0;
                output.drain(..count.min(output.len()));
                self.asked |= count > 0;
            }
            Phase::Ready => self.pipeline.written(count, now),
            Phase::Connecting | Phase::Closed => {}
        }
    }

    /// When the connection has to be given up unless something happens before.
    #[must_use]
    pub fn timeout_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting | Phase::SettingUp => Some(self.since + self.timeouts.connect),
            Phase::Ready => self
                .pipeline
                .waiting_since()
                .map(|since| since + self.timeouts.reply),
            Phase::Closed => None,
        }
    }

    /// Why the connection is to be given up at `now`, if it is.
    #[must_use]
    pub fn timed_out(&self, now: Instant) -> Option<CloseReason> {
        let wait = if self.phase == Phase::Ready {
            self.timeouts.reply
        } else {
            self.timeouts.connect
        };
        (self.timeout_at()? <= now).then_some(CloseReason::Silent(wait))
    }

    /// Ends it and hands out every request without a whole reply, oldest first.
    pub fn abandon(&mut self) -> Vec<Abandoned<T>> {
        self.phase = Phase::Closed;
        self.pipeline.abandon()
    }
}

#[cfg(test)]
mod tests;
