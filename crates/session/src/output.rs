//! Bytes on their way to the client.

use std::collections::VecDeque;

/// Emptied buffers of all clients of a worker, for the next one that has something to say: an idle
/// client owns none, and a busy one needs none from the allocator.
#[derive(Debug, Default)]
pub struct Spare {
    outputs: Vec<Vec<u8>>,
    early: Vec<Vec<u8>>,
}

/// Buffers kept for output, each of [`KEEP_CAPACITY_BYTES_MAX`] at most.
const OUTPUTS_MAX: usize = 256;
/// Buffers kept for replies that come before their turn, each of [`EARLY_CAPACITY_BYTES_MAX`].
const EARLY_MAX: usize = 1024;
const EARLY_CAPACITY_BYTES_MAX: usize = 4096;

impl Spare {
    /// An empty buffer for a reply that comes before its turn.
    pub(crate) fn early(&mut self) -> Vec<u8> {
        self.early.pop().unwrap_or_default()
    }

    /// Takes such a buffer back.
    pub(crate) fn keep_early(&mut self, mut bytes: Vec<u8>) {
        let worth_keeping = (1..=EARLY_CAPACITY_BYTES_MAX).contains(&bytes.capacity());
        if worth_keeping && self.early.len() < EARLY_MAX {
            bytes.clear();
            self.early.push(bytes);
        }
    }
}

/// A buffer that has grown beyond this is given back when it is empty.
const KEEP_CAPACITY_BYTES_MAX: usize = 64 * 1024;

/// Of so much a chunk is made; what follows begins the next one.
const CHUNK_BYTES_MIN: usize = 192 * 1024;
/// Room of a chunk: also for what is appended to it last.
const CHUNK_CAPACITY_BYTES: usize = 256 * 1024;

/// What is to be written to a client: appended at the end, written from the front.
///
/// Owns no memory while it is empty. What waits for a slow client is in chunks: one vector would,
/// whenever it grows, be there twice for a moment, once of double size.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// How much of the front is written: of the first chunk, if there are any.
    written: usize,
    chunks: Option<Box<Chunks>>,
}

/// What comes before the bytes that are appended to; never empty.
#[derive(Debug, Default)]
struct Chunks {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Output {
    /// The next bytes to write, though perhaps not all that there are.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        let front = match &self.chunks {
            None => Some(&self.bytes),
            Some(chunks) => chunks.queue.front(),
        };
        front
            .and_then(|bytes| bytes.get(self.written..))
            .unwrap_or_default()
    }

    /// How many bytes are not yet written.
    #[must_use]
    pub fn len(&self) -> usize {
        let before = self.chunks.as_ref().map_or(0, |chunks| chunks.bytes);
        before + self.bytes.len() - self.written
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to.
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.bytes.len() >= CHUNK_BYTES_MIN {
            self.begin_chunk();
        }
        &mut self.bytes
    }

    #[cold]
    fn begin_chunk(&mut self) {
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(CHUNK_CAPACITY_BYTES));
        let chunks = self.chunks.get_or_insert_default();
        chunks.bytes += bytes.len();
        chunks.queue.push_back(bytes);
    }

    /// Says that the first `count` bytes were written. `spare` takes an emptied buffer
    /// for reuse by another client, so that an idle one owns none.
    pub fn wrote(&mut self, count: usize, spare: &mut Spare) {
        self.written += count.min(self.len());
        if self.chunks.is_some() {
            self.drop_chunks();
        }
        if self.is_empty() {
            self.written = 0;
            let mut bytes = std::mem::take(&mut self.bytes);
            let worth_keeping = (1..=KEEP_CAPACITY_BYTES_MAX).contains(&bytes.capacity());
            if worth_keeping && spare.outputs.len() < OUTPUTS_MAX {
                bytes.clear();
                spare.outputs.push(bytes);
            }
        } else if self.chunks.is_none()
            && self.written > KEEP_CAPACITY_BYTES_MAX
            && self.written > self.bytes.len() / 2
        {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Drops the chunks that are written.
    #[cold]
    fn drop_chunks(&mut self) {
        let Some(chunks) = &mut self.chunks else {
            return;
        };
        while let Some(front) = chunks.queue.front()
            && front.len() <= self.written
        {
            self.written -= front.len();
            chunks.bytes -= front.len();
            chunks.queue.pop_front();
        }
        if chunks.queue.is_empty() {
            self.chunks = None;
        }
    }

    /// Takes a buffer out of `spare` if this has none.
    pub fn equip(&mut self, spare: &mut Spare) {
        if self.bytes.capacity() == 0
            && let Some(bytes) = spare.outputs.pop()
        {
            self.bytes = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_output_gives_its_buffer_away() {
        let (mut output, mut spare) = (Output::default(), Spare::default());
        output.buffer().extend_from_slice(b"hello");
        output.wrote(2, &mut spare);
        assert_eq!(output.pending(), b"llo");
        output.wrote(3, &mut spare);
        assert!(output.is_empty() && output.buffer().capacity() == 0);
        assert_eq!(spare.outputs.len(), 1);
        output.equip(&mut spare);
        assert!(output.buffer().capacity() > 0 && spare.outputs.is_empty());
    }

    #[test]
    fn an_output_without_a_buffer_gives_none_away() {
        let (mut output, mut spare) = (Output::default(), Spare::default());
        output.wrote(0, &mut spare);
        assert!(spare.outputs.is_empty());
    }

    #[test]
    fn a_buffer_that_has_grown_is_not_kept() {
        let (mut output, mut spare) = (Output::default(), Spare::default());
        output.buffer().resize(KEEP_CAPACITY_BYTES_MAX + 1, 7);
        output.wrote(usize::MAX, &mut spare);
        assert!(output.is_empty() && output.buffer().capacity() == 0 && spare.outputs.is_empty());
    }

    #[test]
    fn a_long_written_front_is_dropped() {
        let (mut output, mut spare) = (Output::default(), Spare::default());
        output.buffer().resize(3 * KEEP_CAPACITY_BYTES_MAX - 1, 7);
        output.buffer().push(9);
        output.wrote(2 * KEEP_CAPACITY_BYTES_MAX, &mut spare);
        assert_eq!(output.buffer().len(), KEEP_CAPACITY_BYTES_MAX);
        assert_eq!(output.pending().last(), Some(&9));
    }

    #[test]
    fn what_waits_takes_little_more_than_its_size_and_keeps_its_order() {
        let (mut output, mut spare) = (Output::default(), Spare::default());
        let mut piece = Vec::new();
        let mut all = Vec::new();
        for number in 0..400_u32 {
            piece.clear();
            let words = (number * 7919) % 16_000;
            (0..words).for_each(|word| piece.extend((number * 65_536 + word).to_le_bytes()));
            output.buffer().extend_from_slice(&piece);
            all.extend_from_slice(&piece);
            let chunks = output.chunks.iter().flat_map(|chunks| &chunks.queue);
            let held: usize = chunks.map(Vec::capacity).sum();
            let most = output.len() * 3 / 2 + 2 * CHUNK_CAPACITY_BYTES;
            assert!(held + output.bytes.capacity() <= most, "{held}");
            assert_eq!(output.len(), all.len());
        }
        // Also over the ends of chunks at once.
        let mut seen = all.get(..500_000).unwrap().to_vec();
        output.wrote(seen.len(), &mut spare);
        for step in 0.. {
            let count = output.pending().len().min(1 + (step * 31_337) % 70_000);
            seen.extend_from_slice(&output.pending()[..count]);
            output.wrote(count, &mut spare);
            assert_eq!(output.len(), all.len() - seen.len());
            if step % 50 == 0 {
                output.buffer().push(7);
                all.push(7);
            }
            if output.is_empty() {
                break;
            }
            assert!(!output.pending().is_empty());
        }
        assert!(seen == all);
        assert!(output.chunks.is_none() && output.buffer().capacity() == 0);
    }
}
