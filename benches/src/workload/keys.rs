//! Which keys there are, how they are named, and how they are drawn.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use rand::{Rng, RngExt};
use rand_distr::{Distribution as _, Zipf};

use super::value::scatter;

/// Keys of one run at most; bounds the length of a key's name and the model's memory (4 bytes a
/// key).
pub const KEYS_MAX: u32 = 100_000_000;
/// Counters of one client at most.
const OWN_COUNTERS_MAX: u32 = 16;
/// Counters all clients share.
const SHARED_COUNTERS: u32 = 64;
/// Slots of a cluster.
const SLOTS: u16 = 16384;

/// How keys are drawn from a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// The key of rank r (from 1) with a probability in proportion to r^-exponent, exactly
    /// (rejection-inversion after Hörmann and Derflinger).
    Zipf {
        /// Above 0; YCSB's is 0.99.
        exponent: f64,
    },
}

/// One key: a number within the client's own or the shared range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(u32);

const SHARED: u32 = 1 << 31;
const COUNTER: u32 = 1 << 30;

impl KeyId {
    /// An integer key, only ever incremented.
    #[must_use]
    pub fn is_counter(self) -> bool {
        self.0 & COUNTER != 0
    }

    /// Written by every client.
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.0 & SHARED != 0
    }

    fn index(self) -> u32 {
        self.0 & !(SHARED | COUNTER)
    }

    /// Where the model of an own key is.
    pub(super) fn own_index(self) -> Option<usize> {
        let own = self.0 & (SHARED | COUNTER) == 0;
        own.then_some(self.index() as usize)
    }

    /// Where the model of an own counter is.
    pub(super) fn own_counter_index(self) -> Option<usize> {
        let own = self.0 & (SHARED | COUNTER) == COUNTER;
        own.then_some(self.index() as usize)
    }
}

/// A key space that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpaceError(&'static str);

impl std::fmt::Display for KeySpaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeySpaceError {}

#[derive(Clone, Debug)]
enum Draw {
    Uniform,
    Zipf { own: Zipf<f64>, shared: Zipf<f64> },
}

/// All keys of a run: `c{client}:k{n}` and `c{client}:n{n}` (counters) that a client owns,
/// `s:k{n}` and `s:n{n}` that all share; behind a `{tag}` when only some slots are wanted.
#[derive(Clone, Debug)]
pub struct KeySpace {
    own: u32,
    shared: u32,
    /// A draw is from the shared range when 32 random bits are below this.
    shared_below: u64,
    draw: Draw,
    tags: Vec<Box<str>>,
}

impl KeySpace {
    /// `keys` in all, `shared_percent` of them (and of the draws) shared, the rest divided among
    /// the clients; one key a client at least. With `slots`, every key is in one of them.
    ///
    /// # Errors
    /// Too many or no keys, a percentage above 100, a bad exponent, slots out of range.
    pub fn new(
        keys: u32,
        shared_percent: u8,
        clients: u32,
        distribution: Distribution,
        slots: Option<RangeInclusive<u16>>,
    ) -> Result<Self, KeySpaceError> {
        if keys == 0 || keys > KEYS_MAX {
            return Err(KeySpaceError("keys must be between 1 and 100000000"));
        }
        if shared_percent > 100 {
            return Err(KeySpaceError("the shared part is a percentage, 0 to 100"));
        }
        let percent = u64::from(shared_percent);
        let shared = u32::try_from(u64::from(keys) * percent / 100).unwrap_or(KEYS_MAX);
        let own = ((keys - shared) / clients.max(1)).max(1);
        let shared = shared.max(1);
        let draw = match distribution {
            Distribution::Uniform => Draw::Uniform,
            Distribution::Zipf { exponent } => {
                let zipf = |keys: u32| {
                    Zipf::new(f64::from(keys), exponent)
                        .map_err(|_| KeySpaceError("the zipf exponent must be a number from 0 up"))
                };
                Draw::Zipf {
                    own: zipf(own)?,
                    shared: zipf(shared)?,
                }
            }
        };
        Ok(Self {
            own,
            shared,
            shared_below: (percent << 32) / 100,
            draw,
            tags: slots.map_or(Ok(Vec::new()), tags)?,
        })
    }

    /// Keys of one client.
    #[must_use]
    pub fn own(&self) -> u32 {
        self.own
    }

    /// Counters of one client.
    #[must_use]
    pub fn own_counters(&self) -> u32 {
        self.own.min(OWN_COUNTERS_MAX)
    }

    /// Counters that one client can see: its own, then the shared ones.
    #[must_use]
    pub fn counters(&self) -> u32 {
        self.own_counters() + SHARED_COUNTERS
    }

    /// Where a counter is among [`Self::counters`].
    pub(super) fn counter_index(&self, key: KeyId) -> usize {
        let before = if key.is_shared() {
            self.own_counters()
        } else {
            0
        };
        (before + key.index()) as usize
    }

    /// Draws a key that holds a value.
    #[inline]
    pub fn sample(&self, rng: &mut impl Rng) -> KeyId {
        let shared = self.sample_shared(rng);
        let keys = if shared { self.shared } else { self.own };
        let index = match &self.draw {
            Draw::Uniform => rng.random_range(0..keys),
            Draw::Zipf { own, shared: all } => {
                rank(if shared { all } else { own }.sample(rng), keys)
            }
        };
        KeyId(index | if shared { SHARED } else { 0 })
    }

    /// Draws a counter, all alike likely.
    pub fn sample_counter(&self, rng: &mut impl Rng) -> KeyId {
        if self.sample_shared(rng) {
            KeyId(rng.random_range(0..SHARED_COUNTERS) | SHARED | COUNTER)
        } else {
            KeyId(rng.random_range(0..self.own_counters()) | COUNTER)
        }
    }

    fn sample_shared(&self, rng: &mut impl Rng) -> bool {
        u64::from(rng.random::<u32>()) < self.shared_below
    }

    /// The `step`-th key that `client` of `clients` gives its first value to; `None` past the
    /// last.
    #[must_use]
    pub fn fill(&self, step: u32, client: u32, clients: u32) -> Option<KeyId> {
        let counters = self.own_counters();
        if step < self.own {
            return Some(KeyId(step));
        }
        let step = step - self.own;
        if step < counters {
            return Some(KeyId(step | COUNTER));
        }
        let index = (step - counters)
            .checked_mul(clients.max(1))?
            .checked_add(client)?;
        if index < self.shared {
            return Some(KeyId(index | SHARED));
        }
        // The shared counters follow the shared keys in one line, so that they are divided too.
        let counter = index - self.shared;
        (counter < SHARED_COUNTERS).then_some(KeyId(counter | SHARED | COUNTER))
    }

    /// Appends the name of `key` as `client` knows it.
    #[inline]
    pub fn name(&self, client: u32, key: KeyId, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        if !self.tags.is_empty() {
            // A shared key has the same tag for every client.
            let owner = if key.is_shared() { 0 } else { client };
            let seed = u64::from(key.0) ^ (u64::from(owner) << 32);
            let at = scatter(seed) % self.tags.len() as u64;
            let tag = usize::try_from(at).ok().and_then(|at| self.tags.get(at));
            out.extend_from_slice(tag.map_or("", AsRef::as_ref).as_bytes());
        }
        if key.is_shared() {
            out.extend_from_slice(b"s:");
        } else {
            out.push(b'c');
            out.extend_from_slice(digits.format(client).as_bytes());
            out.push(b':');
        }
        out.push(if key.is_counter() { b'n' } else { b'k' });
        out.extend_from_slice(digits.format(key.index()).as_bytes());
    }
}

/// From a sample of 1.0 to `keys` to an index from 0.
fn rank(sample: f64, keys: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 1 and a u32"
    )]
    let rank = sample as u32;
    rank.clamp(1, keys) - 1
}

/// One hash tag, braces and all, for every slot of the range.
fn tags(slots: RangeInclusive<u16>) -> Result<Vec<Box<str>>, KeySpaceError> {
    if slots.is_empty() || *slots.end() >= SLOTS {
        return Err(KeySpaceError("slots are A-B with A <= B <= 16383"));
    }
    let wanted = slots.clone().count();
    let mut found: HashMap<u16, Box<str>> = HashMap::new();
    // 16384 slots are all met after some 170,000 words; the bound is far above.
    for word in 0..4_000_000_u32 {
        let text = format!("{word:x}");
        let slot = crc16::State::<crc16::XMODEM>::calculate(text.as_bytes()) % SLOTS;
        if slots.contains(&slot) {
            found
                .entry(slot)
                .or_insert_with(|| format!("{{{text}}}").into());
            if found.len() == wanted {
                break;
            }
        }
    }
    let mut tags: Vec<(u16, Box<str>)> = found.into_iter().collect();
    tags.sort();
    Ok(tags.into_iter().map(|(_, tag)| tag).collect())
}
