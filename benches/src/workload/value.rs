//! Values that say whose they are: `crc32|key|client|sequence|run|padding`.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::check::Flaw;
use super::mix::Span;

/// The smallest value: room for the longest key, client, sequence, run and checksum.
pub const VALUE_BYTES_MIN: u32 = 64;

/// Hex digits of the checksum, at the value's beginning.
const CRC_LEN: usize = 8;
/// The padding starts at one of so many places, by the sequence.
const PADDING_STARTS: usize = 256;

/// How the values of a run look.
#[derive(Clone, Debug)]
pub struct ValueShape {
    bytes: Span,
    run: u32,
    /// Printable bytes; a value takes a window of them.
    padding: Box<[u8]>,
    /// Check the checksum of what comes back, too.
    full: bool,
}

/// What a value says about itself.
struct Label<'a> {
    key: &'a [u8],
    client: u32,
}

impl ValueShape {
    /// Values of `bytes` length, of the run numbered `run`. `full`: their checksums are checked;
    /// otherwise only what they name.
    #[must_use]
    pub fn new(bytes: Span, run: u32, full: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(u64::from(run));
        let len = bytes.most as usize + PADDING_STARTS;
        let padding = (0..len).map(|_| rng.random_range(b'a'..=b'z')).collect();
        Self {
            bytes,
            run,
            padding,
            full,
        }
    }

    /// The length of a client's value: fixed by its sequence, so that a check needs no memory.
    #[inline]
    #[must_use]
    pub fn len(&self, client: u32, sequence: u32) -> usize {
        let Span { least, most } = self.bytes;
        let range = u64::from(most - least) + 1;
        let more = scatter((u64::from(client) << 32) | u64::from(sequence)) % range;
        least as usize + usize::try_from(more).unwrap_or_default()
    }

    /// Appends the value.
    #[inline]
    pub fn write(&self, key: &[u8], client: u32, sequence: u32, out: &mut Vec<u8>) {
        let start = out.len();
        let end = start + self.len(client, sequence);
        out.extend_from_slice(&[b'0'; CRC_LEN]);
        self.label(key, client, sequence, out);
        debug_assert!(out.len() <= end, "a value has room for its label");
        let from = sequence as usize % PADDING_STARTS;
        let padding = from..from + end.saturating_sub(out.len());
        out.extend_from_slice(self.padding.get(padding).unwrap_or_default());
        let crc = crc32fast::hash(out.get(start + CRC_LEN..).unwrap_or_default());
        if let Some(place) = out.get_mut(start..start + CRC_LEN) {
            place.copy_from_slice(&hex(crc));
        }
    }

    fn label(&self, key: &[u8], client: u32, sequence: u32, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.push(b'|');
        out.extend_from_slice(key);
        out.push(b'|');
        out.extend_from_slice(digits.format(client).as_bytes());
        out.push(b'|');
        out.extend_from_slice(digits.format(sequence).as_bytes());
        out.push(b'|');
        out.extend_from_slice(&hex(self.run));
        out.push(b'|');
    }

    /// The value must be the one that `client` wrote under `key` as `sequence`. `label` is scratch.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn check_exact(
        &self,
        value: &[u8],
        key: &[u8],
        client: u32,
        sequence: u32,
        label: &mut Vec<u8>,
    ) -> Result<(), Flaw> {
        label.clear();
        self.label(key, client, sequence, label);
        let labelled = value
            .get(CRC_LEN..)
            .is_some_and(|rest| rest.starts_with(label));
        if !labelled {
            self.check_named(value, key, Some(client))?;
            return Err(Flaw::Stale);
        }
        if value.len() != self.len(client, sequence) {
            return Err(Flaw::Corrupt);
        }
        self.check_sum(value)
    }

    /// The value must be whole and name `key`, and `client` where given.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn check_named(&self, value: &[u8], key: &[u8], client: Option<u32>) -> Result<(), Flaw> {
        self.check_sum(value)?;
        let named = read(value).ok_or(Flaw::Corrupt)?;
        if named.key != key || client.is_some_and(|client| client != named.client) {
            return Err(Flaw::Swapped);
        }
        Ok(())
    }

    fn check_sum(&self, value: &[u8]) -> Result<(), Flaw> {
        if !self.full {
            return Ok(());
        }
        let (sum, rest) = value.split_at_checked(CRC_LEN).ok_or(Flaw::Corrupt)?;
        if sum == hex(crc32fast::hash(rest)) {
            Ok(())
        } else {
            Err(Flaw::Corrupt)
        }
    }
}

fn read(value: &[u8]) -> Option<Label<'_>> {
    let mut parts = value.get(CRC_LEN + 1..)?.splitn(5, |byte| *byte == b'|');
    let key = parts.next()?;
    let client = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let _sequence: u32 = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let _run = parts.next()?;
    Some(Label { key, client })
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";

fn digit(nibble: u64) -> u8 {
    let at = usize::try_from(nibble & 15).unwrap_or_default();
    DIGITS.get(at).copied().unwrap_or(b'0')
}

fn hex(number: u32) -> [u8; CRC_LEN] {
    std::array::from_fn(|at| digit(u64::from(number) >> (28 - 4 * at)))
}

/// Appends `digits` hex digits of `number`.
pub(super) fn put_hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    out.extend(
        (0..digits)
            .rev()
            .map(|at| digit(number.checked_shr(4 * at).unwrap_or(0))),
    );
}

/// SplitMix64's finaliser: neighbours become strangers.
pub(super) fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
