//! Bytes on their way to the client.

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

/// What is to be written to a client: appended at the end, written from the front.
///
/// Owns no memory while it is empty.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// Bytes not yet written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// How many bytes are not yet written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Says that the first `count` pending bytes were written. `spare` takes an emptied buffer
    /// for reuse by another client, so that an idle one owns none.
    pub fn wrote(&mut self, count: usize, spare: &mut Spare) {
        self.written += count.min(self.len());
        if self.is_empty() {
            self.written = 0;
            let mut bytes = std::mem::take(&mut self.bytes);
            let worth_keeping = (1..=KEEP_CAPACITY_BYTES_MAX).contains(&bytes.capacity());
            if worth_keeping && spare.outputs.len() < OUTPUTS_MAX {
                bytes.clear();
                spare.outputs.push(bytes);
            }
        } else if self.written > KEEP_CAPACITY_BYTES_MAX && self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
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
        output.buffer().resize(3 * KEEP_CAPACITY_BYTES_MAX, 7);
        output.buffer().push(9);
        output.wrote(2 * KEEP_CAPACITY_BYTES_MAX, &mut spare);
        assert_eq!(output.buffer().len(), KEEP_CAPACITY_BYTES_MAX + 1);
        assert_eq!(output.pending().last(), Some(&9));
    }
}
