//! All chance: keyed hashes of (seed, purpose, id). Nothing else in the project throws dice.
//!
//! `key = mix(mix(id ^ k1) ^ k2)` where `mix` is the 64-bit finaliser of `SplitMix64` (Stafford's variant 13:
//! xor-shift and odd multiplication, three times over) and (k1, k2) come from the seed and the purpose. Every step
//! is a bijection, so for one seed and purpose distinct ids have distinct keys and there are no ties to break.
//! "Draw m at random" is "take the m smallest keys": the answer depends on the set of ids, not on their order, and
//! the choice of m lies inside the choice of m + 1.
//!
//! The purpose keeps uses apart: the example that is lucky in one draw is not therefore lucky in the next. This is
//! not cryptography; whoever can choose ids can choose their luck. Cost: four multiplications, about 2 ns.
//!
//! The mapping is pinned by a test: changing it changes every selection ever reproduced from a manifest.

/// Which rows a fit on part of the rows works on.
pub const FIT: &str = "fit";
/// Which rows centroids are seeded on, and in which order.
pub const SEED: &str = "seed";
/// Where k-means++ puts its next candidate.
pub const SEED_CHOICE: &str = "seed-choice";
/// The seeds of further fits after the first one.
pub const RESTART: &str = "restart";
/// The order in which mini-batches go through the rows.
pub const BATCH: &str = "batch";
/// Which of two equals comes first.
pub const TIE: &str = "tie";
/// Which members of a cell are drawn.
pub const DRAW: &str = "draw";

/// The keyed hash of one seed and one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    first: u64,
    second: u64,
}

/// Weyl increment of `SplitMix64`: the golden ratio in 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// `SplitMix64`'s finaliser, a bijection.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Keys {
    /// The keyed hash of this seed and purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a: short, and purposes are few and told apart by tests, not by luck.
        let label = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let first = mix(mix(seed.wrapping_add(GOLDEN)) ^ label);
        Self { first, second: mix(first.wrapping_add(GOLDEN)) }
    }

    /// The key of an id: a bijection of the 64-bit numbers.
    #[must_use]
    #[inline]
    pub fn key(self, id: u64) -> u64 {
        mix(mix(id ^ self.first) ^ self.second)
    }

    /// The `index`-th number of a uniform sequence over the multiples of 2^-53 in [0, 1).
    #[must_use]
    pub fn uniform(self, index: u64) -> f64 {
        (self.key(index) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mapping_is_pinned() {
        let found: Vec<u64> = [(0, DRAW, 0), (0, DRAW, 1), (42, TIE, 7), (u64::MAX, "", u64::MAX)]
            .map(|(seed, purpose, id)| Keys::new(seed, purpose).key(id))
            .to_vec();
        assert_eq!(found, PINNED, "{found:#x?}");
    }

    const PINNED: [u64; 4] =
        [0x5eb3_e8b7_2c14_fdec, 0x7129_a889_7016_4f24, 0x29e4_e30d_32e9_b4c3, 0x2f68_d68a_1dd4_211c];

    #[test]
    fn keys_of_neighbours_are_uniform() {
        // 2^16 consecutive ids in 256 bins of the top byte and of the low byte: chi-square with 255 degrees of
        // freedom has mean 255 and standard deviation 22.6; six of those on either side.
        for purpose in [DRAW, TIE, FIT, SEED, SEED_CHOICE] {
            let keys = Keys::new(3, purpose);
            for shift in [56, 0] {
                let mut bins = [0_u32; 256];
                (0..1 << 16).for_each(|id| bins[(keys.key(id) >> shift) as usize & 255] += 1);
                let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 256.0).powi(2) / 256.0).sum();
                assert!((120.0..390.0).contains(&chi), "{purpose} {shift}: {chi}");
            }
        }
    }

    #[test]
    fn every_bit_of_id_and_seed_flips_half_of_the_key() {
        for flip in 0..64 {
            let (mut by_id, mut by_seed) = (0, 0);
            for i in 0..512_u64 {
                let (seed, id) = (i * 7, i * 1_000_003);
                let key = Keys::new(seed, DRAW).key(id);
                by_id += (key ^ Keys::new(seed, DRAW).key(id ^ (1 << flip))).count_ones();
                by_seed += (key ^ Keys::new(seed ^ (1 << flip), DRAW).key(id)).count_ones();
            }
            for flipped in [by_id, by_seed] {
                let mean = f64::from(flipped) / 512.0;
                assert!((30.5..33.5).contains(&mean), "bit {flip}: {mean}");
            }
        }
    }

    #[test]
    fn purposes_are_told_apart() {
        let all = [FIT, SEED, SEED_CHOICE, TIE, DRAW, "limit", ""].map(|purpose| Keys::new(0, purpose));
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b && a.key(5) != b.key(5)));
        }
    }

    proptest! {
        #[test]
        fn distinct_ids_have_distinct_keys(seed: u64, a: u64, b: u64) {
            let keys = Keys::new(seed, DRAW);
            prop_assert_eq!(a == b, keys.key(a) == keys.key(b));
            prop_assert!((0.0..1.0).contains(&keys.uniform(a)));
        }
    }
}
