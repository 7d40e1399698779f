//! What was counted last, before it goes to where it is kept.

use topology::Slot;

use crate::SlotCounts;

/// So many commands at once: 6 KiB, which stay in the nearest cache.
const COMMANDS: usize = 512;

/// Commands that were answered, on the way into a worker's [`SlotCounts`].
///
/// Those take 512 KiB, more than the caches near a core keep of it: to add to the count of a slot
/// is to wait for memory, with nothing to do meanwhile. Many at once wait together.
#[derive(Debug)]
pub struct SlotLog {
    commands: Vec<Answered>,
}

#[derive(Clone, Copy, Debug)]
struct Answered {
    bytes_in: u32,
    bytes_out: u32,
    operations: u16,
    slot: Slot,
    reads: bool,
}

impl Default for SlotLog {
    fn default() -> Self {
        Self {
            commands: Vec::with_capacity(COMMANDS),
        }
    }
}

impl SlotLog {
    /// So many commands of this slot were answered, as [`SlotCounts::answered`] has it; `counts`
    /// know of it after the next [`settle`](Self::settle).
    #[inline]
    pub fn answered(
        &mut self,
        counts: &mut SlotCounts,
        slot: Slot,
        (reads, operations): (bool, u64),
        (bytes_in, bytes_out): (u64, u64),
    ) {
        let small = (
            u32::try_from(bytes_in),
            u32::try_from(bytes_out),
            u16::try_from(operations),
        );
        let (Ok(bytes_in), Ok(bytes_out), Ok(operations)) = small else {
            counts.answered(slot, (reads, operations), (bytes_in, bytes_out));
            return;
        };
        if self.commands.len() == COMMANDS {
            self.settle(counts);
        }
        self.commands.push(Answered {
            bytes_in,
            bytes_out,
            operations,
            slot,
            reads,
        });
    }

    /// Adds everything to the counts.
    #[inline(never)]
    pub fn settle(&mut self, counts: &mut SlotCounts) {
        for one in self.commands.drain(..) {
            counts.answered(
                one.slot,
                (one.reads, one.operations.into()),
                (one.bytes_in.into(), one.bytes_out.into()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_or_counted_twice() {
        let mut log = SlotLog::default();
        let (mut counts, mut expected) = (SlotCounts::default(), SlotCounts::default());
        for number in 0..3_000_u64 {
            let slot = Slot::new(u16::try_from(number * 7 % 16_384).unwrap()).unwrap();
            let commands = (number % 3 == 0, 1 + number % 5);
            let bytes = (number, 3 * number);
            log.answered(&mut counts, slot, commands, bytes);
            expected.answered(slot, commands, bytes);
        }
        log.settle(&mut counts);
        assert_eq!(counts, expected);
        log.settle(&mut counts);
        assert_eq!(counts, expected, "settled once");
    }

    #[test]
    fn what_is_too_big_for_the_log_counts_in_full() {
        let (mut log, mut counts) = (SlotLog::default(), SlotCounts::default());
        let slot = Slot::new(9).unwrap();
        let (operations, bytes) = (1 << 16, 1 << 32);
        log.answered(&mut counts, slot, (true, 1), (bytes, 1));
        log.answered(&mut counts, slot, (true, 1), (1, bytes));
        log.answered(&mut counts, slot, (true, operations), (1, 1));
        log.settle(&mut counts);
        let count = counts.get(slot);
        assert_eq!(count.reads, operations + 2);
        assert_eq!((count.bytes_in, count.bytes_out), (bytes + 2, bytes + 2));
    }
}
