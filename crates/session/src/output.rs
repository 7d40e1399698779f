//! Bytes on their way to the client.

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
    pub fn wrote(&mut self, count: usize, spare: &mut Vec<Vec<u8>>) {
        self.written += count.min(self.len());
        if self.is_empty() {
            self.written = 0;
            let mut bytes = std::mem::take(&mut self.bytes);
            let worth_keeping = (1..=KEEP_CAPACITY_BYTES_MAX).contains(&bytes.capacity());
            if worth_keeping && spare.len() < SPARES_MAX {
                bytes.clear();
                spare.push(bytes);
            }
        } else if self.written > KEEP_CAPACITY_BYTES_MAX && self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Takes a buffer out of `spare` if this has none.
    pub fn equip(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.bytes.capacity() == 0
            && let Some(bytes) = spare.pop()
        {
            self.bytes = bytes;
        }
    }
}

/// Emptied buffers kept for the next client that has something to say.
const SPARES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_output_gives_its_buffer_away() {
        let (mut output, mut spare) = (Output::default(), Vec::new());
        output.buffer().extend_from_slice(b"hello");
        output.wrote(2, &mut spare);
        assert_eq!(output.pending(), b"llo");
        output.wrote(3, &mut spare);
        assert!(output.is_empty() && output.buffer().capacity() == 0);
        assert_eq!(spare.len(), 1);
        output.equip(&mut spare);
        assert!(output.buffer().capacity() > 0 && spare.is_empty());
    }

    #[test]
    fn an_output_without_a_buffer_gives_none_away() {
        let (mut output, mut spare) = (Output::default(), Vec::new());
        output.wrote(0, &mut spare);
        assert!(spare.is_empty());
    }

    #[test]
    fn a_buffer_that_has_grown_is_not_kept() {
        let (mut output, mut spare) = (Output::default(), Vec::new());
        output.buffer().resize(KEEP_CAPACITY_BYTES_MAX + 1, 7);
        output.wrote(usize::MAX, &mut spare);
        assert!(output.is_empty() && output.buffer().capacity() == 0 && spare.is_empty());
    }

    #[test]
    fn a_long_written_front_is_dropped() {
        let (mut output, mut spare) = (Output::default(), Vec::new());
        output.buffer().resize(3 * KEEP_CAPACITY_BYTES_MAX, 7);
        output.buffer().push(9);
        output.wrote(2 * KEEP_CAPACITY_BYTES_MAX, &mut spare);
        assert_eq!(output.buffer().len(), KEEP_CAPACITY_BYTES_MAX + 1);
        assert_eq!(output.pending().last(), Some(&9));
    }
}
