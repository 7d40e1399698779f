//! Finding a name without regard to case and without allocation.
//!
//! Names of up to 16 bytes, which is every name of the server but a few, are packed in lower case
//! into one `u128`; two such names are equal when the words and the lengths are. The slots hold
//! ids only, so that the part touched by a lookup stays small: two bytes of a slot, sixteen of a
//! packed name.

use crate::table::CommandId;

/// Longer names are compared byte by byte.
const PACKED_BYTES_MAX: usize = 16;

/// A slot without an entry. An id of this value is never given, see `CommandTable`.
const EMPTY: u16 = u16::MAX;

/// An open-addressing hash table from names to ids; at most half full.
#[derive(Clone, Debug)]
pub(crate) struct NameIndex {
    /// A power of two of them.
    slots: Box<[u16]>,
    /// By slot content: the packed name, its length, its id.
    entries: Vec<Entry>,
    /// Names over `PACKED_BYTES_MAX`, in lower case.
    long: Vec<(Box<[u8]>, CommandId)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    packed: u128,
    len: u8,
    id: CommandId,
}

impl NameIndex {
    /// Indexes `names`, which are distinct without regard to case; of equals the first is found.
    pub(crate) fn new<'a>(names: impl Iterator<Item = (&'a str, CommandId)>) -> Self {
        let mut index = Self {
            slots: Box::default(),
            entries: Vec::new(),
            long: Vec::new(),
        };
        for (name, id) in names {
            match pack(name.as_bytes()) {
                Some((packed, len)) => index.entries.push(Entry { packed, len, id }),
                None => index
                    .long
                    .push((name.to_ascii_lowercase().into_bytes().into(), id)),
            }
        }
        debug_assert!(
            index.entries.len() < usize::from(EMPTY),
            "more names than ids"
        );
        index.slots = vec![EMPTY; (index.entries.len() * 2 + 1).next_power_of_two()].into();
        for (number, entry) in (0_u16..).zip(&index.entries) {
            let mut at = index.start(entry.packed);
            while let Some(slot) = index.slots.get_mut(at) {
                if *slot == EMPTY {
                    *slot = number;
                    break;
                }
                at = (at + 1) & (index.slots.len() - 1);
            }
        }
        index
    }

    /// The id of a name in any case.
    #[inline]
    pub(crate) fn get(&self, name: &[u8]) -> Option<CommandId> {
        let Some((packed, len)) = pack(name) else {
            return self.get_long(name);
        };
        let mut at = self.start(packed);
        loop {
            // An empty slot is no index into `entries`; half of the slots are empty.
            let entry = self.entries.get(usize::from(*self.slots.get(at)?))?;
            if entry.packed == packed && entry.len == len {
                return Some(entry.id);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[cold]
    fn get_long(&self, name: &[u8]) -> Option<CommandId> {
        self.long
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, id)| *id)
    }

    /// Fibonacci hashing of the two halves; the slots' number is a power of two.
    #[inline]
    fn start(&self, packed: u128) -> usize {
        const GOLDEN: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let mixed = packed.wrapping_mul(GOLDEN) >> 96;
        usize::try_from(mixed).unwrap_or_default() & (self.slots.len().wrapping_sub(1))
    }
}

/// The name in lower case, and its length, so that a name with a trailing NUL is another.
#[inline]
fn pack(name: &[u8]) -> Option<(u128, u8)> {
    if name.len() > PACKED_BYTES_MAX {
        return None;
    }
    let mut bytes = [0_u8; PACKED_BYTES_MAX];
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    bytes.make_ascii_lowercase();
    Some((u128::from_le_bytes(bytes), u8::try_from(name.len()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names_in_any_case_and_nothing_else() {
        let names = [
            "get",
            "getex",
            "sixteen-bytes-ab",
            "seventeen-bytes-x",
            "clu|ster",
        ];
        let index = NameIndex::new(
            names
                .iter()
                .enumerate()
                .map(|(id, name)| (*name, CommandId::new(u16::try_from(id).unwrap()))),
        );
        for (id, name) in names.iter().enumerate() {
            let id = Some(CommandId::new(u16::try_from(id).unwrap()));
            assert_eq!(index.get(name.as_bytes()), id);
            assert_eq!(index.get(name.to_uppercase().as_bytes()), id);
        }
        for name in [
            "",
            "ge",
            "get\0",
            "get ",
            "gets",
            "sixteen-bytes-abc",
            "seventeen-bytes-y",
        ] {
            assert_eq!(index.get(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(NameIndex::new(std::iter::empty()).get(b"get"), None);
    }
}
