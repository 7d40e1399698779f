//! What one thread's connections to one target have in common.
//!
//! A lane lives on one thread; its cells are never shared. Its phase says what its clients may do,
//! and every change of phase wakes them.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::{Notify, Semaphore};

use crate::settings::Target;
use crate::stats::Tally;
use crate::workload::Span;

/// What the clients of a lane may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Read what is still owed.
    Idle,
    /// Give every key its first value.
    Fill,
    /// A batch, its replies, the next batch.
    Closed,
    /// What the pacer has put into their mailboxes.
    Open,
    /// End.
    Stop,
}

/// Buffers that all connections of a thread use in turn: a connection between two polls owns
/// nothing but the piece of a reply that is not whole.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Bytes off the socket; one read takes so much at most.
    pub(crate) wire: Vec<u8>,
    /// The same, decrypted.
    pub(crate) plain: Vec<u8>,
    /// Requests on their way to the transport.
    pub(crate) out: Vec<u8>,
}

const WIRE_BYTES: usize = 64 << 10;

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            wire: vec![0; WIRE_BYTES],
            plain: Vec::with_capacity(WIRE_BYTES),
            out: Vec::with_capacity(WIRE_BYTES),
        }
    }
}

/// A thread's counts for the progress line: written by it, read by the coordinator.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) replies: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) mismatched: AtomicU64,
    pub(crate) closed: AtomicU64,
}

impl Progress {
    /// Adds to a counter that only this thread writes.
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        let sum = counter.load(Ordering::Relaxed) + more;
        counter.store(sum, Ordering::Relaxed);
    }
}

/// How a client is woken, and what the pacer wants it to send.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// When requests are due that are not sent yet, in the lane's nanoseconds.
    pub(crate) arrivals: RefCell<VecDeque<u64>>,
    waker: RefCell<Option<Waker>>,
}

impl Mailbox {
    /// The task to wake from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// The clients of one target on one thread.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) target: Arc<Target>,
    pub(crate) pipeline: Span,
    pub(crate) mailboxes: Vec<Mailbox>,
    /// Handshakes of the thread that may still begin.
    pub(crate) connects: Rc<Semaphore>,
    pub(crate) scratch: Rc<RefCell<Scratch>>,
    pub(crate) progress: Arc<Progress>,
    /// Notified when the last reply owed has come, the last client is filled, or one connected.
    pub(crate) changed: Notify,
    /// Entries of all mailboxes.
    pub(crate) backlog: Cell<usize>,
    /// Zero of the lane's clock.
    epoch: Instant,
    phase: Cell<Phase>,
    measured: Cell<bool>,
    /// Requests sent and not answered, of all clients.
    in_flight: Cell<usize>,
    /// Replies since the turn began.
    turn_replies: Cell<u64>,
    connected: Cell<usize>,
    filled: Cell<usize>,
    /// Why the first connection could not be made.
    refused: RefCell<Option<String>>,
    tally: RefCell<Tally>,
}

impl Lane {
    pub(crate) fn new(
        target: Arc<Target>,
        pipeline: Span,
        clients: usize,
        connects: Rc<Semaphore>,
        scratch: Rc<RefCell<Scratch>>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            target,
            pipeline,
            mailboxes: (0..clients).map(|_| Mailbox::default()).collect(),
            connects,
            scratch,
            progress,
            changed: Notify::new(),
            backlog: Cell::new(0),
            epoch: Instant::now(),
            phase: Cell::new(Phase::Idle),
            measured: Cell::new(false),
            in_flight: Cell::new(0),
            turn_replies: Cell::new(0),
            connected: Cell::new(0),
            filled: Cell::new(0),
            refused: RefCell::new(None),
            tally: RefCell::new(Tally::default()),
        }
    }

    /// Nanoseconds since the lane was made.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Changes the phase and wakes every client.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    /// A turn begins; its latencies count if it is `measured`.
    pub(crate) fn begin_turn(&self, measured: bool) {
        self.measured.set(measured);
        self.turn_replies.set(0);
    }

    pub(crate) fn is_measured(&self) -> bool {
        self.measured.get()
    }

    /// Replies since [`Self::begin_turn`].
    pub(crate) fn turn_replies(&self) -> u64 {
        self.turn_replies.get()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Requests were sent.
    pub(crate) fn sent(&self, requests: usize, bytes: usize) {
        self.in_flight.set(self.in_flight.get() + requests);
        self.tally().bytes_sent += bytes as u64;
    }

    /// Requests were answered, `replies` of them, or their replies given up, `lost` of them.
    pub(crate) fn settled(&self, replies: u64, lost: usize) {
        let settled = usize::try_from(replies).unwrap_or(usize::MAX) + lost;
        let left = self.in_flight.get().saturating_sub(settled);
        self.in_flight.set(left);
        self.turn_replies.set(self.turn_replies.get() + replies);
        Progress::add(&self.progress.replies, replies);
        if left == 0 {
            self.changed.notify_one();
        }
    }

    pub(crate) fn tally(&self) -> RefMut<'_, Tally> {
        self.tally.borrow_mut()
    }

    pub(crate) fn client_connected(&self) {
        self.connected.set(self.connected.get() + 1);
        self.changed.notify_one();
    }

    pub(crate) fn client_filled(&self) {
        self.filled.set(self.filled.get() + 1);
        self.changed.notify_one();
    }

    pub(crate) fn client_refused(&self, reason: String) {
        self.refused.borrow_mut().get_or_insert(reason);
        self.changed.notify_one();
    }

    /// Waits until every client is connected.
    pub(crate) async fn all_connected(&self) -> Result<(), String> {
        loop {
            if let Some(reason) = self.refused.borrow().as_ref() {
                return Err(reason.clone());
            }
            if self.connected.get() == self.mailboxes.len() {
                return Ok(());
            }
            self.changed.notified().await;
        }
    }

    /// Waits until every client has filled its keys and nothing is owed.
    pub(crate) async fn all_filled(&self) {
        while self.filled.get() < self.mailboxes.len() || self.in_flight.get() > 0 {
            self.changed.notified().await;
        }
    }

    /// Waits until nothing is owed.
    pub(crate) async fn all_settled(&self) {
        while self.in_flight.get() > 0 {
            self.changed.notified().await;
        }
    }
}
