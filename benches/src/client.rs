//! One client: a connection and its workload, driven by readiness.
//!
//! Each poll generates what may be sent, flushes, and reads what is there, until nothing moves.
//! Reading goes on while a batch is still being written, so that no peer with bounded buffers can
//! be locked up with us.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use resp::ReplyFramer;

use crate::lane::{Lane, Phase, Progress, Scratch};
use crate::stats::Tally;
use crate::transport::Transport;
use crate::workload::{Verdict, Workload};

/// Requests outstanding while keys are filled.
const FILL_DEPTH: usize = 64;
/// Bytes of one write while keys are filled, about.
const FILL_BYTES: usize = 256 << 10;
/// Attempts at the first connection before the run is given up.
const CONNECTS_MAX: u32 = 6;
/// Pause before another attempt: doubled each time, up to the longest.
const RETRY: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// A buffer above this is given back when it is empty.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Requests sent or due at the same instant.
#[derive(Clone, Copy, Debug)]
struct Batch {
    at_ns: u64,
    left: u32,
}

/// Why a connection's service ended.
enum End {
    Stopped,
    Closed(String),
}

/// A client, over all its connections.
pub(crate) struct Client {
    lane: Rc<Lane>,
    /// Its place in the lane's mailboxes.
    place: usize,
    workload: Workload,
    batches: VecDeque<Batch>,
    filled: bool,
}

impl Client {
    pub(crate) fn new(lane: Rc<Lane>, place: usize, workload: Workload) -> Self {
        Self {
            lane,
            place,
            workload,
            batches: VecDeque::new(),
            filled: false,
        }
    }

    /// Connects and works until the lane stops; connects again whenever the connection ends.
    pub(crate) async fn live(mut self) {
        let mut attempt = 0;
        let mut ever = false;
        while self.lane.phase() != Phase::Stop {
            let transport = {
                let _permit = self.lane.connects.acquire().await;
                Transport::connect(&self.lane.target).await
            };
            match transport {
                Ok(transport) => {
                    if ever {
                        self.lane.tally().reconnected += 1;
                    } else {
                        self.lane.client_connected();
                    }
                    (ever, attempt) = (true, 0);
                    match self.serve(transport).await {
                        End::Stopped => return,
                        End::Closed(reason) => self.closed(&reason),
                    }
                }
                Err(error) => {
                    attempt += 1;
                    self.lane.tally().connect_failed += 1;
                    if !ever && attempt >= CONNECTS_MAX {
                        let target = &self.lane.target;
                        self.lane.client_refused(format!(
                            "{} ({}): {error}",
                            target.name, target.address
                        ));
                        return;
                    }
                }
            }
            tokio::time::sleep((RETRY * (1 << attempt.min(6))).min(RETRY_MAX)).await;
        }
    }

    fn closed(&mut self, reason: &str) {
        let lost = self.workload.connection_lost();
        self.batches.clear();
        let mut tally = self.lane.tally();
        tally.closed(reason);
        tally.lost += lost as u64;
        drop(tally);
        Progress::add(&self.lane.progress.closed, 1);
        self.lane.settled(0, lost);
    }

    async fn serve(&mut self, transport: Transport) -> End {
        let mut connection = Connection {
            transport,
            framer: ReplyFramer::new(),
            partial: Vec::new(),
            walked: 0,
        };
        poll_fn(|cx| self.poll(&mut connection, cx)).await
    }

    fn poll(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<End> {
        let lane = self.lane.clone();
        if let Some(mailbox) = lane.mailboxes.get(self.place) {
            mailbox.register(cx.waker());
        }
        if lane.phase() == Phase::Stop {
            return connection.transport.poll_close(cx).map(|()| End::Stopped);
        }
        let mut scratch = lane.scratch.borrow_mut();
        match self.advance(connection, &mut scratch, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(error) => Poll::Ready(End::Closed(reason(&error))),
        }
    }

    /// Moves bytes until nothing moves; ready only when the connection has ended.
    fn advance(
        &mut self,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Error> {
        loop {
            self.generate(&mut scratch.out);
            if !scratch.out.is_empty()
                && let Err(error) = connection.transport.send(&scratch.out)
            {
                return Poll::Ready(error);
            }
            if let Poll::Ready(Err(error)) = connection.transport.poll_flush(cx) {
                return Poll::Ready(error);
            }
            match self.receive(connection, scratch, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
            }
        }
    }

    /// Writes the requests that may be sent now into `out`, emptied before.
    fn generate(&mut self, out: &mut Vec<u8>) {
        out.clear();
        let owed = self.workload.owed();
        match self.lane.phase() {
            Phase::Idle | Phase::Stop => return,
            Phase::Fill => self.generate_fill(out),
            Phase::Closed if owed > 0 => return,
            Phase::Closed => {
                for _ in 0..self.workload.depth(self.lane.pipeline) {
                    self.workload.request(out);
                }
            }
            Phase::Open => self.generate_due(out),
        }
        let issued = self.workload.owed() - owed;
        if issued == 0 {
            return;
        }
        if self.lane.phase() != Phase::Open {
            self.batches.push_back(Batch {
                at_ns: self.lane.now_ns(),
                left: u32::try_from(issued).unwrap_or(u32::MAX),
            });
        }
        self.lane.sent(issued, out.len());
    }

    fn generate_fill(&mut self, out: &mut Vec<u8>) {
        while !self.filled && self.workload.owed() < FILL_DEPTH && out.len() < FILL_BYTES {
            if !self.workload.fill(out) {
                self.filled = true;
                self.lane.client_filled();
            }
        }
    }

    /// Requests of the mailbox that are due, as far as the pipeline's depth allows.
    fn generate_due(&mut self, out: &mut Vec<u8>) {
        let depth = self.lane.pipeline.most as usize;
        let lane = self.lane.clone();
        let Some(mailbox) = lane.mailboxes.get(self.place) else {
            return;
        };
        let mut arrivals = mailbox.arrivals.borrow_mut();
        if arrivals.is_empty() {
            return;
        }
        let now_ns = lane.now_ns();
        let mut tally = lane.tally();
        while self.workload.owed() < depth
            && let Some(due_ns) = arrivals.pop_front()
        {
            lane.backlog.set(lane.backlog.get().saturating_sub(1));
            self.workload.request(out);
            self.batches.push_back(Batch {
                at_ns: due_ns,
                left: 1,
            });
            if lane.is_measured() {
                tally.lag.record(now_ns.saturating_sub(due_ns), 1);
            }
        }
    }

    /// One read, and the replies that it completed.
    fn receive(
        &mut self,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // A whole reply is judged where it was decrypted; only a cut one is kept and appended to.
        let kept = !connection.partial.is_empty();
        let mut plain = std::mem::take(if kept {
            &mut connection.partial
        } else {
            scratch.plain.clear();
            &mut scratch.plain
        });
        let before = plain.len();
        let received = connection
            .transport
            .poll_receive(cx, &mut scratch.wire, &mut plain);
        let outcome = match received {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(read)) => {
                self.lane.tally().bytes_received += (plain.len() - before) as u64;
                let judged = self.take_replies(connection, &plain);
                match judged {
                    Ok(_) if read == 0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Ok(consumed) => {
                        connection.keep(&mut plain, consumed, kept);
                        Poll::Ready(Ok(()))
                    }
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
        };
        if kept {
            connection.partial = plain;
        } else {
            scratch.plain = plain;
        }
        outcome
    }

    /// Judges every whole reply in `bytes`, the first of which was walked up to
    /// `connection.walked` before. Returns where the first unfinished reply begins.
    fn take_replies(&mut self, connection: &mut Connection, bytes: &[u8]) -> io::Result<usize> {
        let now_ns = self.lane.now_ns();
        let lane = self.lane.clone();
        let mut tally = lane.tally();
        let mut begin = 0;
        let mut at = connection.walked;
        let mut replies = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let walk = connection.framer.advance(rest).map_err(io::Error::other)?;
            at += walk.consumed;
            if !walk.done {
                break;
            }
            let frame = bytes.get(begin..at).unwrap_or_default();
            begin = at;
            let owed = self.workload.owed();
            let verdict = self.workload.reply(frame);
            self.count(&mut tally, verdict);
            if self.workload.owed() < owed {
                replies += 1;
            }
        }
        connection.walked = at - begin;
        self.record(&mut tally, replies, now_ns);
        drop(tally);
        lane.settled(replies, 0);
        Ok(begin)
    }

    fn count(&self, tally: &mut Tally, verdict: Verdict) {
        match verdict {
            Verdict::Good => {}
            Verdict::Push => tally.pushes += 1,
            Verdict::Error(word) => {
                Progress::add(&self.lane.progress.errors, 1);
                tally.error(word);
            }
            Verdict::Mismatched(mismatch) => {
                Progress::add(&self.lane.progress.mismatched, 1);
                tally.mismatch(*mismatch);
            }
        }
    }

    /// The oldest `replies` requests were answered now.
    fn record(&mut self, tally: &mut Tally, replies: u64, now_ns: u64) {
        let measured = self.lane.is_measured();
        tally.replies += replies;
        if measured {
            tally.requests += replies;
        }
        let mut left = replies;
        while left > 0
            && let Some(batch) = self.batches.front_mut()
        {
            let now = left.min(u64::from(batch.left));
            if measured {
                tally
                    .turn_latency
                    .record(now_ns.saturating_sub(batch.at_ns), now);
            }
            left -= now;
            batch.left -= u32::try_from(now).unwrap_or(batch.left);
            if batch.left == 0 {
                self.batches.pop_front();
            }
        }
    }
}

/// The state that dies with a connection.
struct Connection {
    transport: Transport,
    framer: ReplyFramer,
    /// A reply of which the end is missing.
    partial: Vec<u8>,
    /// Its bytes that the framer has seen.
    walked: usize,
}

impl Connection {
    /// Puts aside what follows `consumed` in `plain`, which is `partial` itself when `kept`.
    fn keep(&mut self, plain: &mut Vec<u8>, consumed: usize, kept: bool) {
        if kept {
            plain.drain(..consumed);
            if plain.is_empty() && plain.capacity() > KEPT_BYTES_MAX {
                *plain = Vec::new();
            }
        } else {
            let rest = plain.get(consumed..).unwrap_or_default();
            self.partial.extend_from_slice(rest);
        }
    }
}

/// A few words for a table; what differs from connection to connection is left out.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "end of stream".to_owned(),
        io::ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}
