//! Exact counts for every slot.

use topology::Slot;

const SLOTS: usize = Slot::COUNT as usize;

/// What went through one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCount {
    /// Commands that only read.
    pub reads: u64,
    /// All other commands.
    pub writes: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of replies.
    pub bytes_out: u64,
}

impl SlotCount {
    /// Commands of both kinds.
    #[must_use]
    pub fn operations(self) -> u64 {
        self.reads.saturating_add(self.writes)
    }

    fn with(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            reads: join(self.reads, other.reads),
            writes: join(self.writes, other.writes),
            bytes_in: join(self.bytes_in, other.bytes_in),
            bytes_out: join(self.bytes_out, other.bytes_out),
        }
    }
}

/// Counts for all slots: 512 KiB, owned by one worker, which only ever adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotCounts(Box<[SlotCount; SLOTS]>);

impl Default for SlotCounts {
    fn default() -> Self {
        // Not by way of the stack, which it might be too big for.
        let all = vec![SlotCount::default(); SLOTS].into_boxed_slice();
        Self(
            all.try_into()
                .unwrap_or_else(|_| Box::new([SlotCount::default(); SLOTS])),
        )
    }
}

impl SlotCounts {
    /// A command of this slot was sent.
    #[inline]
    pub fn request(&mut self, slot: Slot, reads: bool, bytes: u64) {
        if let Some(count) = self.0.get_mut(usize::from(slot.get())) {
            if reads {
                count.reads += 1;
            } else {
                count.writes += 1;
            }
            count.bytes_in += bytes;
        }
    }

    /// Bytes of a reply of this slot came.
    #[inline]
    pub fn reply(&mut self, slot: Slot, bytes: u64) {
        if let Some(count) = self.0.get_mut(usize::from(slot.get())) {
            count.bytes_out += bytes;
        }
    }

    /// So many commands of this slot were answered: all of it at once, where one place knows it.
    #[inline]
    pub fn answered(
        &mut self,
        slot: Slot,
        (reads, operations): (bool, u64),
        (bytes_in, bytes_out): (u64, u64),
    ) {
        if let Some(count) = self.0.get_mut(usize::from(slot.get())) {
            if reads {
                count.reads += operations;
            } else {
                count.writes += operations;
            }
            count.bytes_in += bytes_in;
            count.bytes_out += bytes_out;
        }
    }

    /// What went through a slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> SlotCount {
        let count = self.0.get(usize::from(slot.get()));
        count.copied().unwrap_or_default()
    }

    /// Every slot and what went through it.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, SlotCount)> {
        Slot::all().zip(self.0.iter().copied())
    }

    /// Takes over another's counts, without a new allocation.
    pub fn copy_from(&mut self, other: &Self) {
        self.0.copy_from_slice(&*other.0);
    }

    /// Forgets everything, without giving memory back.
    pub fn clear(&mut self) {
        self.0.fill(SlotCount::default());
    }

    /// The sum over all slots.
    #[must_use]
    pub fn total(&self) -> SlotCount {
        self.0.iter().fold(SlotCount::default(), |sum, count| {
            sum.with(*count, u64::saturating_add)
        })
    }

    /// Adds what another worker counted.
    pub fn add(&mut self, other: &Self) {
        self.join(other, u64::saturating_add);
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.clone();
        counts.join(earlier, u64::saturating_sub);
        counts
    }

    /// The `count` slots with the most of what `weight` says, heaviest first; none that has nothing.
    #[must_use]
    pub fn heaviest(
        &self,
        count: usize,
        weight: impl Fn(SlotCount) -> u64,
    ) -> Vec<(Slot, SlotCount)> {
        let mut slots: Vec<_> = self
            .iter()
            .filter(|(_, count)| weight(*count) > 0)
            .collect();
        slots.sort_by_key(|(slot, count)| (std::cmp::Reverse(weight(*count)), *slot));
        slots.truncate(count);
        slots
    }

    fn join(&mut self, other: &Self, join: fn(u64, u64) -> u64) {
        for (count, other) in self.0.iter_mut().zip(other.0.iter()) {
            *count = count.with(*other, join);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    #[test]
    fn counts_are_exact_and_add_up() {
        let (mut one, mut two) = (SlotCounts::default(), SlotCounts::default());
        one.request(slot(0), true, 10);
        one.reply(slot(0), 100);
        one.answered(slot(16383), (false, 1), (7, 0));
        let earlier = one.clone();
        one.request(slot(16383), false, 5);
        two.request(slot(16383), true, 1);
        let mut all = one.clone();
        all.add(&two);
        let count = |reads, writes, bytes_in, bytes_out| SlotCount {
            reads,
            writes,
            bytes_in,
            bytes_out,
        };
        assert_eq!(all.get(slot(0)), count(1, 0, 10, 100));
        assert_eq!(all.get(slot(16383)), count(1, 2, 13, 0));
        assert_eq!(all.total(), count(2, 2, 23, 100));
        two.copy_from(&all);
        assert_eq!(two, all);
        assert_eq!(one.since(&earlier).get(slot(16383)), count(0, 1, 5, 0));
        assert_eq!(one.since(&earlier).get(slot(0)), SlotCount::default());
    }

    #[test]
    fn the_heaviest_come_first() {
        let mut counts = SlotCounts::default();
        for (number, times) in [(5, 3), (6, 9), (7, 3)] {
            (0..times).for_each(|_| counts.request(slot(number), true, 1));
        }
        let order: Vec<u16> = counts
            .heaviest(9, SlotCount::operations)
            .iter()
            .map(|(slot, _)| slot.get())
            .collect();
        assert_eq!(order, [6, 5, 7]);
        assert_eq!(counts.heaviest(1, SlotCount::operations).len(), 1);
    }
}
