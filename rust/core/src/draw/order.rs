//! Orders: by which examples of a cell are drawn first. Each example has a place, and places compare like numbers.

use crate::fences::Place;

/// An order of examples.
pub trait Order: Sync {
    /// What its places are.
    type Place: Place;
    /// The place of a row.
    fn place(&self, row: usize) -> Self::Place;
    /// Whether the row has none.
    fn refuses(&self, _row: usize) -> bool {
        false
    }
}

/// By key.
pub struct ByKey<F>(pub F);

/// By score, the largest first, equals by key.
pub struct ByScore<'a, F>(pub &'a [f64], pub F);

impl<F: Fn(usize) -> u64 + Sync> Order for ByKey<F> {
    type Place = u64;
    #[inline]
    fn place(&self, row: usize) -> u64 {
        self.0(row)
    }
}

impl<F: Fn(usize) -> u64 + Sync> Order for ByScore<'_, F> {
    type Place = (u64, u64);
    #[inline]
    fn place(&self, row: usize) -> (u64, u64) {
        (descending(self.0[row]), self.1(row))
    }
    #[inline]
    fn refuses(&self, row: usize) -> bool {
        self.0[row].is_nan()
    }
}

/// Place of a score in a descending order; equal for 0.0 and -0.0. Of NaN there is none.
fn descending(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 63 == 0 { !(bits | 1 << 63) } else { bits }
}
