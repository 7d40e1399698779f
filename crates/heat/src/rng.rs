//! Chance from a seed.

/// A sequence that its seed decides (SplitMix64: Steele, Lea and Flood, 2014). The same seed is the
/// same sequence on every machine, which `rand` does not promise across versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, for a part of the work that must not disturb the others.
    #[must_use]
    pub fn fork(&self, part: u64) -> Self {
        Self(Self(self.0 ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).bits())
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..count`; 0 when there is none. The bias is `count` in 2^64.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the upper half of the product is below `count`"
    )]
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    /// A number in [0, 1).
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed, of mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.fraction()).ln()
    }

    /// Normally distributed, of mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (std::f64::consts::TAU * self.fraction()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        // From the reference implementation with seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(
            [rng.bits(), rng.bits(), rng.bits()],
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn numbers_are_in_range_and_spread() {
        let mut rng = Rng::new(7);
        let mut seen = [0_u32; 10];
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..100_000 {
            seen[rng.below(10)] += 1;
            let x = rng.normal();
            (sum, squares) = (sum + x, squares + x * x);
            assert!((0.0..1.0).contains(&rng.fraction()));
        }
        assert!(seen.iter().all(|n| (9_500..10_500).contains(n)), "{seen:?}");
        assert!((sum / 1e5).abs() < 0.02 && (squares / 1e5 - 1.0).abs() < 0.03);
        assert_eq!(rng.below(0), 0);
    }
}
