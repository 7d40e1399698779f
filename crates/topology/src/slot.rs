//! Hash slots.

use std::fmt;

use crate::crc::crc16;

/// One of the 16384 hash slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Number of slots of every cluster.
    pub const COUNT: u16 = 16384;

    /// The slot of this number, if there is one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The slot a key lives in: CRC16 (XMODEM) of the key, or of its hash tag: what stands between
    /// the first `{` and the first `}` behind it, unless that is nothing.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key).unwrap_or(key)) % Self::COUNT)
    }

    /// The number, below [`Slot::COUNT`].
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// All slots in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..Self::COUNT).map(Self)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether there may be a `{`: eight bytes at a time, for most keys have none.
fn may_open(key: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte of zeros borrows from above; so may one behind it, which is why this is no more than
    // a guess when it says yes.
    let opens = |eight: &[u8; 8]| {
        let word = u64::from_ne_bytes(*eight) ^ u64::from_ne_bytes([b'{'; 8]);
        word.wrapping_sub(ONES) & !word & HIGH != 0
    };
    match key.last_chunk::<8>() {
        Some(last) => key.as_chunks::<8>().0.iter().any(opens) || opens(last),
        None => key.contains(&b'{'),
    }
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    if !may_open(key) {
        return None;
    }
    let open = key.iter().position(|&byte| byte == b'{')?;
    let behind = key.get(open + 1..)?;
    let close = behind.iter().position(|&byte| byte == b'}')?;
    if close == 0 {
        None
    } else {
        behind.get(..close)
    }
}

/// Slots from `first` to `last`, both included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotRange {
    first: Slot,
    last: Slot,
}

impl SlotRange {
    /// Every slot.
    pub const ALL: Self = Self {
        first: Slot(0),
        last: Slot(Slot::COUNT - 1),
    };

    /// The range between two slots; `None` when they are in the wrong order.
    #[must_use]
    pub fn new(first: Slot, last: Slot) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Lowest slot.
    #[must_use]
    pub fn first(self) -> Slot {
        self.first
    }

    /// Highest slot.
    #[must_use]
    pub fn last(self) -> Slot {
        self.last
    }

    /// Its slots in order.
    pub fn slots(self) -> impl Iterator<Item = Slot> {
        (self.first.0..=self.last.0).map(Slot)
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_hash_as_the_server_hashes_them() {
        // Numbers from CLUSTER KEYSLOT.
        for (key, slot) in [
            ("", 0),
            ("a", 15495),
            ("foo", 12182),
            ("123456789", 12739),
            ("{user1000}.following", 3443),
            ("user1000", 3443),
            ("x{user1000}y{other}", 3443),
        ] {
            assert_eq!(Slot::of_key(key.as_bytes()).get(), slot, "{key}");
        }
    }

    #[test]
    fn an_empty_or_open_tag_is_no_tag() {
        let whole = |key: &str| Slot(crc16(key.as_bytes()) % Slot::COUNT);
        for key in ["foo{}{bar}", "{}", "foo{bar", "foo}bar{", "{"] {
            assert_eq!(Slot::of_key(key.as_bytes()), whole(key), "{key}");
        }
        assert_eq!(Slot::of_key(b"foo{{bar}}zap"), whole("{bar"));
        assert_eq!(Slot::of_key(b"foo{bar}{zap}"), whole("bar"));
    }

    proptest! {
        #[test]
        fn the_tag_is_what_a_byte_by_byte_search_finds(
            key in prop::collection::vec(
                prop_oneof![Just(b'{'), Just(b'}'), Just(b'z'), Just(b'|'), any::<u8>()],
                0..40,
            ),
        ) {
            let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
                let behind = &key[open + 1..];
                let close = behind.iter().position(|&byte| byte == b'}')?;
                (close > 0).then(|| &behind[..close])
            });
            prop_assert_eq!(hash_tag(&key), tag);
        }
    }

    #[test]
    fn slots_end_at_16383() {
        assert_eq!(Slot::new(16383).map(Slot::get), Some(16383));
        assert_eq!(Slot::new(16384), None);
        assert_eq!(Slot::all().len(), 16384);
    }
}
