//! The order of one shared connection: what was written, and who waits for it.

use std::{collections::VecDeque, io::IoSlice, time::Instant};

use bytes::Bytes;
use resp::ReplyFramer;

use crate::outbox::{Body, Outbox, Retained};

/// A sentinel goes out after this many requests: a reply stream shifted by one shows itself
/// within as many replies.
pub const SENTINEL_INTERVAL: u32 = 1024;

/// A reply that is shorter than this is passed on whole. So a connection that breaks within it
/// leaves no client with half a reply, and the command can be given another outcome.
pub const CUT_BYTES_MIN: usize = 64 * 1024;

/// So many replies are announced together ([`Replies::ahead`]).
const AHEAD: usize = 8;

/// What a caller hands over with a request and gets back with its reply.
pub trait Ticket: Copy {
    /// Whether a reply to this request may begin with `first_byte`.
    ///
    /// A reply of an impossible shape proves that replies and requests no longer match.
    fn accepts(&self, first_byte: u8) -> bool;

    /// How many replies come before the one that counts: a request may be several commands of which
    /// the caller wants the last one's reply (`MULTI`, what it queues, `EXEC`).
    fn preludes(&self) -> u16 {
        0
    }

    /// Whether an error among those makes the last one void: then the first error is the reply.
    fn needs_preludes(&self) -> bool {
        false
    }

    /// Whether errors that come before its reply are none of it: the request is several commands,
    /// and what the node says to those before the last is any number of errors and pushes.
    fn skips_errors(&self) -> bool {
        false
    }

    /// The node may take as long as it likes to answer: the command blocks.
    fn is_patient(&self) -> bool {
        false
    }
}

/// Where a pipeline puts what it receives.
pub trait Replies<T> {
    /// The next bytes of the reply to `ticket`, which is to this request; `done` with its last byte.
    ///
    /// A reply of [`CUT_BYTES_MIN`] or more is passed on as it arrives, so it needs no buffer.
    fn piece(&mut self, ticket: T, request: Retained<'_>, bytes: &[u8], done: bool);

    /// The reply to `ticket` is one of the next: a good time to look for what it will need. It may
    /// yet fail to come, or come in pieces.
    #[inline]
    fn ahead(&mut self, ticket: &T) {
        let _ = ticket; // not everyone has much to look for
    }

    /// That reply, of so many bytes, was whole; and the request that it answers. Not called for an
    /// error.
    #[inline]
    fn replied(&mut self, ticket: &T, request: Retained<'_>, bytes: usize) {
        let _ = (ticket, request, bytes); // not everyone counts
    }

    /// A whole error reply (`-...\r\n`, or RESP3 `!`), with the request that it answers.
    fn error(&mut self, ticket: T, reply: &[u8], request: Retained<'_>);

    /// A whole push (RESP3 `>`), with the oldest request without a reply. Returns whether the push
    /// is that request's reply, as it is for `SUBSCRIBE`.
    fn push(&mut self, frame: &[u8], head: Option<(T, Retained<'_>)>) -> bool {
        let _ = (frame, head);
        false
    }
}

/// Why a connection cannot be trusted with another reply. Everything in flight gets an outcome;
/// nothing is guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// A reply came and nothing was in flight.
    Unsolicited,
    /// A reply came before its request was wholly written.
    Early,
    /// A reply whose first byte is impossible for its command.
    Shape(u8),
    /// A sentinel came back altered.
    Sentinel,
    /// Bytes that are not a reply.
    Malformed,
}

impl Poison {
    /// A word for logs and metric labels, from a closed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unsolicited => "unsolicited",
            Self::Early => "early",
            Self::Shape(_) => "shape",
            Self::Sentinel => "sentinel",
            Self::Malformed => "malformed",
        }
    }
}

/// A request that a connection gave up on.
#[derive(Debug)]
pub struct Abandoned<T> {
    /// Who waits for it.
    pub ticket: T,
    /// Its bytes.
    pub request: Bytes,
    /// Whether any of its bytes were handed to the socket. If not, it certainly did not run.
    pub touched: bool,
    /// Whether a part of its reply was already passed on. If so, it can only be cut off.
    pub answered_in_part: bool,
    /// Whether it was sent behind an `ASKING`.
    pub asking: bool,
}

#[derive(Debug)]
enum Owner<T> {
    Caller(T),
    Asking,
    /// Nobody: what comes back tells nothing.
    Nobody,
    Sentinel(u64),
}

#[derive(Debug)]
struct Entry<T> {
    owner: Owner<T>,
    body: Body,
    queued_at: Instant,
    asking: bool,
}

/// What was queued on one connection, in order, until it is answered.
///
/// Invariants (checked by `check_invariants` in debug builds): the outbox holds exactly the bytes
/// of the entries in flight; a reply always belongs to the first entry; an entry is removed by its
/// reply or by [`Pipeline::abandon`], never by its client's leaving (the caller's ticket then
/// simply leads nowhere).
#[derive(Debug)]
pub struct Pipeline<T> {
    outbox: Outbox,
    in_flight: VecDeque<Entry<T>>,
    /// Bytes of `in_flight`, written or not.
    queued_bytes: usize,
    framer: ReplyFramer,
    /// The head's reply so far, when it is only passed on whole.
    held: Vec<u8>,
    /// Some of the head's reply has been passed on already.
    head_in_part: bool,
    /// Bytes of it that have been passed on, while there are more to come.
    head_bytes: usize,
    /// Replies of the head that came before the one that counts.
    preludes: u16,
    /// The first error among them.
    trouble: Vec<u8>,
    pushing: bool,
    /// The push that is being received.
    push_frame: Vec<u8>,
    since_sentinel: u32,
    nonce: u64,
    last_progress: Option<Instant>,
    pushes: u64,
}

/// Writes a nonce, in hexadecimal digits, before the CRLF at the end of `bytes`.
fn write_nonce(bytes: &mut [u8], nonce: u64) {
    let mut left = nonce;
    for digit in bytes.iter_mut().rev().skip(2).take(16) {
        let nibble = left.to_le_bytes()[0] & 15;
        *digit = if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        };
        left >>= 4;
    }
}

impl<T: Ticket> Pipeline<T> {
    /// An empty pipeline. `seed` makes its sentinels differ from every other connection's.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            outbox: Outbox::default(),
            in_flight: VecDeque::new(),
            queued_bytes: 0,
            framer: ReplyFramer::new(),
            held: Vec::new(),
            head_in_part: false,
            head_bytes: 0,
            preludes: 0,
            trouble: Vec::new(),
            pushing: false,
            push_frame: Vec::new(),
            since_sentinel: 0,
            nonce: seed,
            last_progress: None,
            pushes: 0,
        }
    }

    /// Queues `request` behind everything else. `shared` is called when the request is big enough
    /// that a reference is cheaper than a copy. With `asking`, `ASKING` goes directly before it.
    pub fn push(
        &mut self,
        ticket: T,
        request: &[u8],
        shared: impl FnOnce() -> Option<Bytes>,
        asking: bool,
        now: Instant,
    ) {
        if asking {
            self.enqueue(
                Owner::Asking,
                b"*1\r\n$6\r\nASKING\r\n",
                || None,
                false,
                now,
            );
        }
        self.enqueue(Owner::Caller(ticket), request, shared, asking, now);
        self.since_sentinel += 1;
        if self.since_sentinel >= SENTINEL_INTERVAL {
            self.push_sentinel(now);
        }
        self.check_invariants();
    }

    /// Queues a request whose reply, a bulk string or an error, is for nobody.
    pub fn push_for_nobody(&mut self, request: &[u8], now: Instant) {
        self.enqueue(Owner::Nobody, request, || None, false, now);
        self.check_invariants();
    }

    fn enqueue(
        &mut self,
        owner: Owner<T>,
        request: &[u8],
        shared: impl FnOnce() -> Option<Bytes>,
        asking: bool,
        now: Instant,
    ) {
        let body = self.outbox.push(request, shared);
        self.queued_bytes += body.len();
        self.in_flight.push_back(Entry {
            owner,
            body,
            queued_at: now,
            asking,
        });
    }

    /// Queues an `ECHO` of a nonce whose answer must come back unaltered.
    pub fn push_sentinel(&mut self, now: Instant) {
        self.since_sentinel = 0;
        self.nonce = self
            .nonce
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let nonce = self.nonce;
        let mut request = *b"*2\r\n$4\r\nECHO\r\n$24\r\nkeyway: ----------------\r\n";
        write_nonce(&mut request, nonce);
        self.enqueue(Owner::Sentinel(nonce), &request, || None, false, now);
        self.check_invariants();
    }

    /// Gives back memory that was not needed since this was called last.
    pub fn relax(&mut self) {
        self.outbox.relax();
    }

    /// Requests queued or awaiting their reply.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of the requests queued or awaiting their reply.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Bytes that no write has taken yet.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.outbox.unwritten()
    }

    /// Pushes (RESP3 `>`) that came out of band.
    #[must_use]
    pub fn pushes(&self) -> u64 {
        self.pushes
    }

    /// Fills `slices` with the next bytes to write and returns how many slices it used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.outbox.slices(slices)
    }

    /// Says that the socket took the first `count` unwritten bytes.
    pub fn written(&mut self, count: usize, now: Instant) {
        let head = self.in_flight.front().map_or(0, |head| head.body.len());
        // Until it has the head whole, a node can do no more than take bytes.
        if count > 0 && self.queued_bytes - self.outbox.unwritten() < head {
            self.last_progress = Some(now);
        }
        self.outbox.written(count);
        self.check_invariants();
    }

    /// When the oldest request was queued.
    #[must_use]
    pub fn oldest_queued_at(&self) -> Option<Instant> {
        self.in_flight.front().map(|entry| entry.queued_at)
    }

    /// Since when the node has shown no life: the later of the last reply bytes and the last write
    /// before it had the oldest request whole. `None` while it owes nothing, or may take its time.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        let head = self.in_flight.front().map(|head| &head.owner);
        if matches!(head, Some(Owner::Caller(ticket)) if ticket.is_patient()) {
            return None;
        }
        (self.queued_bytes > self.outbox.unwritten())
            .then_some(self.last_progress)
            .flatten()
    }

    /// The same while the node has the oldest request whole: what it owes then is an answer, not
    /// room for more bytes.
    #[must_use]
    pub fn owing_since(&self) -> Option<Instant> {
        let head = self.in_flight.front()?.body.len();
        let whole = self.queued_bytes - self.outbox.unwritten() >= head;
        self.waiting_since().filter(|_| whole)
    }

    /// Takes bytes from the node and passes replies on. Returns how many bytes of `buf` it used:
    /// the rest, at most one unfinished line, must be presented again with more behind it.
    ///
    /// # Errors
    /// [`Poison`]: the connection must be closed, and [`Pipeline::abandon`] called.
    pub fn received(
        &mut self,
        buf: &[u8],
        now: Instant,
        replies: &mut impl Replies<T>,
    ) -> Result<usize, Poison> {
        let mut used = 0;
        if !buf.is_empty() {
            self.last_progress = Some(now);
        }
        let mut announced = 0;
        while let Some(rest) = buf.get(used..).filter(|rest| !rest.is_empty()) {
            if announced == 0 {
                announced = AHEAD;
                self.announce(replies);
            }
            announced -= 1;
            let consumed = if self.framer.is_between_replies() && !self.pushing {
                self.begin(rest)?;
                self.walk(rest, replies)?
            } else {
                self.walk(rest, replies)?
            };
            if consumed == 0 {
                break;
            }
            used += consumed;
        }
        self.check_invariants();
        Ok(used)
    }

    /// Tells whose replies are next.
    fn announce(&self, replies: &mut impl Replies<T>) {
        for entry in self.in_flight.iter().take(AHEAD) {
            if let Owner::Caller(ticket) = &entry.owner {
                replies.ahead(ticket);
            }
        }
    }

    /// The first bytes of a reply: does it belong to somebody, and can it be theirs?
    fn begin(&mut self, rest: &[u8]) -> Result<(), Poison> {
        let first = rest.first().copied().unwrap_or_default();
        if self.head_in_part || !self.held.is_empty() {
            return Ok(()); // behind an attribute, or within a held reply
        }
        if first == b'>' {
            self.pushing = true;
            return Ok(());
        }
        let Some(head) = self.in_flight.front() else {
            return Err(Poison::Unsolicited);
        };
        let written = self.queued_bytes - self.outbox.unwritten();
        let prelude = matches!(&head.owner, Owner::Caller(ticket)
            if self.preludes < ticket.preludes() || (first == b'-' && ticket.skips_errors()));
        if written < head.body.len() && !(prelude && written > 0) {
            return Err(if written == 0 {
                Poison::Unsolicited
            } else {
                Poison::Early
            });
        }
        let legal = match &head.owner {
            Owner::Caller(ticket) if self.preludes < ticket.preludes() => {
                matches!(first, b'+' | b'-' | b'$')
            }
            Owner::Caller(ticket) => first == b'|' || ticket.accepts(first),
            Owner::Asking => matches!(first, b'+' | b'-'),
            Owner::Nobody => matches!(first, b'$' | b'-'),
            Owner::Sentinel(_) => matches!(first, b'$' | b'-'),
        };
        if legal {
            Ok(())
        } else {
            Err(Poison::Shape(first))
        }
    }

    /// Walks over what is there of the current reply and passes it on.
    fn walk(&mut self, rest: &[u8], replies: &mut impl Replies<T>) -> Result<usize, Poison> {
        let walk = self.framer.advance(rest).map_err(|_| Poison::Malformed)?;
        let bytes = rest.get(..walk.consumed).unwrap_or_default();
        if self.pushing {
            self.walk_push(bytes, walk.done, replies);
            return Ok(walk.consumed);
        }
        if bytes.is_empty() && !walk.done {
            return Ok(0);
        }
        let first = self
            .held
            .first()
            .or(bytes.first())
            .copied()
            .unwrap_or_default();
        let whole = match self.in_flight.front().map(|head| (&head.owner, &head.body)) {
            Some((Owner::Caller(ticket), _))
                if self.preludes < ticket.preludes()
                    || (ticket.needs_preludes() && !self.trouble.is_empty()) =>
            {
                walk.done
            }
            Some((Owner::Caller(ticket), body))
                if self.head_in_part || !matches!(first, b'-' | b'!') =>
            {
                let short = self.held.len() + bytes.len() < CUT_BYTES_MIN && !self.head_in_part;
                if short && !(walk.done && self.held.is_empty()) {
                    self.held.extend_from_slice(bytes);
                    if walk.done {
                        replies.piece(*ticket, self.outbox.front(body), &self.held, true);
                        replies.replied(ticket, self.outbox.front(body), self.held.len());
                        self.held.clear();
                        self.pop();
                    }
                    return Ok(walk.consumed);
                }
                if !self.held.is_empty() {
                    replies.piece(*ticket, self.outbox.front(body), &self.held, false);
                    self.head_bytes += self.held.len();
                    self.held.clear();
                }
                replies.piece(*ticket, self.outbox.front(body), bytes, walk.done);
                self.head_in_part = !walk.done;
                if walk.done {
                    let whole = self.head_bytes + bytes.len();
                    replies.replied(ticket, self.outbox.front(body), whole);
                    self.pop();
                } else {
                    self.head_bytes += bytes.len();
                }
                return Ok(walk.consumed);
            }
            Some(_) => walk.done,
            None => return Err(Poison::Unsolicited),
        };
        if whole && self.held.is_empty() {
            self.finish(bytes, replies)?;
        } else {
            self.held.extend_from_slice(bytes);
            if whole {
                let held = std::mem::take(&mut self.held);
                self.finish(&held, replies)?;
            }
        }
        Ok(walk.consumed)
    }

    fn walk_push(&mut self, bytes: &[u8], done: bool, replies: &mut impl Replies<T>) {
        if !done {
            self.push_frame.extend_from_slice(bytes);
        } else if self.push_frame.is_empty() {
            self.pushed(bytes, replies);
        } else {
            let mut frame = std::mem::take(&mut self.push_frame);
            frame.extend_from_slice(bytes);
            self.pushed(&frame, replies);
        }
    }

    fn pushed(&mut self, frame: &[u8], replies: &mut impl Replies<T>) {
        self.pushing = false;
        self.pushes += 1;
        let written = self.queued_bytes - self.outbox.unwritten();
        let head = match self.in_flight.front() {
            Some(Entry {
                owner: Owner::Caller(ticket),
                body,
                ..
            }) if written >= body.len() => Some((*ticket, self.outbox.front(body))),
            _ => None,
        };
        let is_owed = head.is_some();
        if replies.push(frame, head) && is_owed {
            self.pop();
        }
    }

    /// A reply that is only looked at whole: an error, or the answer to something of our own.
    fn finish(&mut self, reply: &[u8], replies: &mut impl Replies<T>) -> Result<(), Poison> {
        if let Some(head) = self.in_flight.front() {
            match &head.owner {
                Owner::Caller(ticket) if self.preludes < ticket.preludes() => {
                    self.preludes += 1;
                    if reply.starts_with(b"-") && self.trouble.is_empty() {
                        self.trouble.extend_from_slice(reply);
                    }
                    return Ok(());
                }
                Owner::Caller(ticket) if ticket.skips_errors() => return Ok(()),
                Owner::Caller(ticket) => {
                    let void = ticket.needs_preludes() || reply.starts_with(b"-EXECABORT ");
                    let refused = void && !self.trouble.is_empty();
                    let reply = if refused { &self.trouble } else { reply };
                    replies.error(*ticket, reply, self.outbox.front(&head.body));
                }
                Owner::Asking | Owner::Nobody => {}
                Owner::Sentinel(nonce) => {
                    let mut expected = *b"$24\r\nkeyway: ----------------\r\n";
                    write_nonce(&mut expected, *nonce);
                    // An error (NOPERM, LOADING, BUSY) is a reply in the right place.
                    if reply != expected && !reply.starts_with(b"-") {
                        return Err(Poison::Sentinel);
                    }
                }
            }
        }
        self.pop();
        Ok(())
    }

    fn pop(&mut self) {
        self.head_in_part = false;
        self.head_bytes = 0;
        self.preludes = 0;
        self.trouble.clear();
        if let Some(head) = self.in_flight.pop_front() {
            self.queued_bytes -= head.body.len();
            self.outbox.release(&head.body);
        }
    }

    /// Empties the pipeline: every request that has no whole reply, oldest first.
    pub fn abandon(&mut self) -> Vec<Abandoned<T>> {
        let mut written = self.queued_bytes - self.outbox.unwritten();
        let mut in_part = self.head_in_part;
        let mut abandoned = Vec::with_capacity(self.in_flight.len());
        while let Some(head) = self.in_flight.pop_front() {
            // A transaction whose EXEC was not handed over certainly did not run.
            let block = matches!(&head.owner, Owner::Caller(ticket) if ticket.preludes() > 0);
            let touched = written > 0 && (!block || written >= head.body.len());
            written = written.saturating_sub(head.body.len());
            if let Owner::Caller(ticket) = head.owner {
                abandoned.push(Abandoned {
                    ticket,
                    request: self.outbox.front(&head.body).to_bytes(),
                    touched,
                    answered_in_part: in_part,
                    asking: head.asking,
                });
            }
            in_part = false;
            self.outbox.release(&head.body);
        }
        *self = Self {
            pushes: self.pushes,
            ..Self::new(self.nonce)
        };
        abandoned
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.in_flight.len() <= 64 {
            let bytes: usize = self.in_flight.iter().map(|entry| entry.body.len()).sum();
            debug_assert_eq!(bytes, self.queued_bytes, "bytes queued and entries differ");
            debug_assert!(
                self.outbox.unwritten() <= self.queued_bytes,
                "wrote what was not queued"
            );
        }
    }
}

#[cfg(test)]
mod tests;
