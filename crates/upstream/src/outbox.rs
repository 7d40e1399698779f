//! The bytes of a pipeline's requests, from the moment they are queued until they are answered.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

/// Requests at least this long are kept by reference instead of being copied.
pub(crate) const BY_REFERENCE_BYTES_MIN: usize = 16 * 1024;

/// As many slices as one vectored write is worth.
pub const SLICES_MAX: usize = 64;

/// A request's bytes, given back with its reply so that the caller can send them elsewhere.
#[derive(Debug)]
pub enum Retained<'a> {
    /// A small request, still inside the pipeline's buffer.
    Small(&'a [u8]),
    /// A big request, shared.
    Big(&'a Bytes),
}

impl Retained<'_> {
    /// The request's bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Big(bytes) => bytes,
        }
    }

    /// The request's bytes as an owned, cheaply cloned buffer.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Small(bytes) => Bytes::copy_from_slice(bytes),
            Self::Big(bytes) => (*bytes).clone(),
        }
    }
}

/// Where one request's bytes are.
#[derive(Debug)]
pub(crate) enum Body {
    Small(usize),
    Big(Bytes),
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Small(len) => *len,
            Self::Big(bytes) => bytes.len(),
        }
    }
}

/// What is still to be written, in order.
#[derive(Debug)]
enum Chunk {
    Small(usize),
    Big(Bytes),
}

/// A first-in first-out store of request bytes with a write cursor inside it.
///
/// Invariant: `small` holds the small requests that were queued and not yet released, in order;
/// its last `small_unwritten` bytes are those that no write has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    small: BytesMut,
    small_unwritten: usize,
    /// The most that `small` has held since [`Outbox::relax`].
    peak: usize,
    chunks: VecDeque<Chunk>,
    unwritten: usize,
}

impl Outbox {
    /// Queues a request and returns where it lies. `big` is asked for only when it pays.
    pub(crate) fn push(&mut self, bytes: &[u8], big: impl FnOnce() -> Option<Bytes>) -> Body {
        self.unwritten += bytes.len();
        if bytes.len() >= BY_REFERENCE_BYTES_MIN
            && let Some(shared) = big()
        {
            debug_assert_eq!(
                shared.len(),
                bytes.len(),
                "the shared bytes are the request's"
            );
            self.chunks.push_back(Chunk::Big(shared.clone()));
            return Body::Big(shared);
        }
        self.small.extend_from_slice(bytes);
        self.small_unwritten += bytes.len();
        self.peak = self.peak.max(self.small.len());
        match self.chunks.back_mut() {
            Some(Chunk::Small(len)) => *len += bytes.len(),
            _ => self.chunks.push_back(Chunk::Small(bytes.len())),
        }
        Body::Small(bytes.len())
    }

    /// Bytes that no write has taken yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Fills `slices` with the next bytes to write and returns how many slices it used.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut small = self.small.len().saturating_sub(self.small_unwritten);
        let mut used = 0;
        for (chunk, slice) in self.chunks.iter().zip(slices.iter_mut()) {
            let bytes: &[u8] = match chunk {
                Chunk::Small(len) => {
                    let start = small;
                    small += len;
                    self.small.get(start..small).unwrap_or_default()
                }
                Chunk::Big(bytes) => bytes,
            };
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        used
    }

    /// Says that the first `count` unwritten bytes were taken by the socket.
    pub(crate) fn written(&mut self, mut count: usize) {
        debug_assert!(count <= self.unwritten, "more written than queued");
        self.unwritten = self.unwritten.saturating_sub(count);
        while count > 0 {
            let Some(chunk) = self.chunks.front_mut() else {
                return;
            };
            let (left, small) = match chunk {
                Chunk::Small(len) => (len, true),
                Chunk::Big(bytes) => {
                    let taken = count.min(bytes.len());
                    bytes.advance(taken);
                    count -= taken;
                    if bytes.is_empty() {
                        self.chunks.pop_front();
                    }
                    continue;
                }
            };
            let taken = count.min(*left);
            *left -= taken;
            count -= taken;
            if small {
                self.small_unwritten = self.small_unwritten.saturating_sub(taken);
            }
            if matches!(chunk, Chunk::Small(0)) {
                self.chunks.pop_front();
            }
        }
    }

    /// The bytes of the oldest request kept, whose place is `body`.
    pub(crate) fn front<'a>(&'a self, body: &'a Body) -> Retained<'a> {
        match body {
            Body::Small(len) => Retained::Small(self.small.get(..*len).unwrap_or_default()),
            Body::Big(bytes) => Retained::Big(bytes),
        }
    }

    /// Forgets the oldest request kept. It must have been written, or the outbox be abandoned.
    pub(crate) fn release(&mut self, body: &Body) {
        if let Body::Small(len) = body {
            self.small.advance((*len).min(self.small.len()));
        }
    }

    /// Gives back memory that was not needed since this was called last.
    pub(crate) fn relax(&mut self) {
        let needed = std::mem::take(&mut self.peak).max(IDLE_CAPACITY_BYTES_MAX);
        // `capacity` would not count the front of the allocation, which was read already.
        if self.small.is_empty() && self.small.try_reclaim(needed.saturating_mul(2)) {
            self.small = BytesMut::new();
        }
    }
}

/// A buffer that has grown beyond twice this is given back when it is not needed.
const IDLE_CAPACITY_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while outbox.unwritten() > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = outbox.slices(&mut slices);
            let first = &slices[..used][0];
            let taken = step.min(first.len());
            out.extend_from_slice(&first[..taken]);
            outbox.written(taken);
        }
        out
    }

    #[test]
    fn writes_in_order_whatever_the_size_of_a_write() {
        for step in [1, 7, 1000, 100_000] {
            let mut outbox = Outbox::default();
            let mut all = Vec::new();
            let mut bodies = Vec::new();
            for n in 0..50_usize {
                let len = if n % 7 == 3 {
                    BY_REFERENCE_BYTES_MIN + n
                } else {
                    n + 1
                };
                let bytes = vec![u8::try_from(n).unwrap(); len];
                all.extend_from_slice(&bytes);
                bodies.push(outbox.push(&bytes, || Some(Bytes::copy_from_slice(&bytes))));
            }
            assert_eq!(drain(&mut outbox, step), all);
            for (n, body) in bodies.iter().enumerate() {
                let front = outbox.front(body).to_bytes();
                assert!(front.iter().all(|b| usize::from(*b) == n), "request {n}");
                assert_eq!(front.len(), body.len());
                outbox.release(body);
            }
            assert!(outbox.small.is_empty());
        }
    }

    #[test]
    fn a_buffer_that_has_grown_is_given_back() {
        let mut outbox = Outbox::default();
        let bodies: Vec<_> = (0..100)
            .map(|_| outbox.push(&[7; 8 * 1024], || None))
            .collect();
        drain(&mut outbox, usize::MAX);
        let (last, others) = bodies.split_last().unwrap();
        others.iter().for_each(|body| outbox.release(body));
        assert_eq!(outbox.front(last).to_bytes(), [7; 8 * 1024][..]);
        outbox.release(last);
        outbox.relax();
        assert!(
            outbox.small.try_reclaim(2 * IDLE_CAPACITY_BYTES_MAX),
            "it was needed"
        );
        outbox.relax();
        assert!(!outbox.small.try_reclaim(2 * IDLE_CAPACITY_BYTES_MAX));
        let body = outbox.push(b"small", || None);
        drain(&mut outbox, usize::MAX);
        outbox.release(&body);
        outbox.relax();
        outbox.relax();
        assert!(outbox.small.try_reclaim(5), "a small one is kept");
    }

    #[test]
    fn a_request_can_be_released_while_later_ones_are_unwritten() {
        let mut outbox = Outbox::default();
        let first = outbox.push(b"first", || None);
        let second = outbox.push(b"second", || None);
        outbox.written(5);
        outbox.release(&first);
        assert_eq!(drain(&mut outbox, 2), b"second");
        assert!(matches!(outbox.front(&second), Retained::Small(b"second")));
    }
}
