//! What this crate's tests share: a ticket, a place for replies, requests and a clock's start.

use std::{io::IoSlice, time::Instant};

use bytes::Bytes;

use crate::{Pipeline, Poison, Replies, Retained, SLICES_MAX, Ticket};

/// The start of a test's time.
#[expect(
    clippy::disallowed_methods,
    reason = "the only way to an `Instant`; everything later is counted from it"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// A number, and the first bytes that its reply may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) usize, pub(crate) &'static [u8]);

/// A tag with this number is a block of three commands, one with that number blocks.
pub(crate) const BLOCK: usize = 90_003;
pub(crate) const STRICT: usize = 90_005;
pub(crate) const PATIENT: usize = 90_004;
pub(crate) const LENIENT: usize = 90_006;

impl Tag {
    pub(crate) fn any(number: usize) -> Self {
        Self(number, b"+-:$*_#,(!=%~|")
    }
}

impl Ticket for Tag {
    fn accepts(&self, first_byte: u8) -> bool {
        self.1.contains(&first_byte)
    }

    fn preludes(&self) -> u16 {
        if self.0 == BLOCK || self.0 == STRICT {
            2
        } else {
            0
        }
    }

    fn needs_preludes(&self) -> bool {
        self.0 == STRICT
    }

    fn is_patient(&self) -> bool {
        self.0 == PATIENT
    }

    fn skips_errors(&self) -> bool {
        self.0 == LENIENT
    }
}

/// What a pipeline passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Piece(usize, Vec<u8>, bool),
    Error {
        number: usize,
        reply: Vec<u8>,
        request: Vec<u8>,
        by_reference: bool,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Inbox(
    pub(crate) Vec<Event>,
    /// What was told of whole replies: number, bytes of the request, bytes of the reply.
    pub(crate) Vec<(usize, usize, usize)>,
    /// Whose replies were announced, and how many pieces had come then.
    pub(crate) Vec<(usize, usize)>,
);

impl Inbox {
    pub(crate) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.0)
    }
}

impl Replies<Tag> for Inbox {
    fn piece(&mut self, ticket: Tag, _: Retained<'_>, bytes: &[u8], done: bool) {
        self.0.push(Event::Piece(ticket.0, bytes.to_vec(), done));
    }

    fn ahead(&mut self, ticket: &Tag) {
        self.2.push((ticket.0, self.0.len()));
    }

    fn replied(&mut self, ticket: &Tag, request: Retained<'_>, bytes: usize) {
        self.1.push((ticket.0, request.bytes().len(), bytes));
    }

    fn error(&mut self, ticket: Tag, reply: &[u8], request: Retained<'_>) {
        self.0.push(Event::Error {
            number: ticket.0,
            reply: reply.to_vec(),
            request: request.to_bytes().to_vec(),
            by_reference: matches!(request, Retained::Big(_)),
        });
    }
}

/// The request `TEST <number> <padding>`.
pub(crate) fn request(number: usize, padding: usize) -> Bytes {
    let mut out = Vec::new();
    let padding = vec![b'x'; padding];
    resp::write::request(
        &mut out,
        &[b"TEST", number.to_string().as_bytes(), &padding],
    );
    out.into()
}

/// Queues `TEST <number>`.
pub(crate) fn push(pipeline: &mut Pipeline<Tag>, tag: Tag, now: Instant) {
    pipeline.push(tag, &request(tag.0, 0), || None, false, now);
}

/// Writes at most `count` of the bytes that wait, and returns them.
pub(crate) fn write(pipeline: &mut Pipeline<Tag>, count: usize, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < count && pipeline.unwritten() > 0 {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let used = pipeline.slices(&mut slices);
        let before = out.len();
        for slice in &slices[..used] {
            let taken = slice.len().min(count - out.len());
            out.extend_from_slice(&slice[..taken]);
        }
        pipeline.written(out.len() - before, now);
    }
    out
}

/// A node's bytes as they arrive: what a pipeline leaves is presented again with more behind it.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    unread: Vec<u8>,
}

impl Feed {
    pub(crate) fn arrive(
        &mut self,
        pipeline: &mut Pipeline<Tag>,
        bytes: &[u8],
        now: Instant,
        inbox: &mut Inbox,
    ) -> Result<(), Poison> {
        self.unread.extend_from_slice(bytes);
        let used = pipeline.received(&self.unread, now, inbox)?;
        self.unread.drain(..used);
        Ok(())
    }

    pub(crate) fn unread(&self) -> usize {
        self.unread.len()
    }
}
