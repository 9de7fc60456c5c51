//! Sixteen float32 in whatever registers an instruction set has: all that a backend is.

use crate::columns::LANES;

/// Sixteen float32.
///
/// # Safety
/// Every method needs the instruction set of its implementation: call them only inside its shell.
pub(super) trait Lanes: Copy {
    unsafe fn load(values: &[f32; LANES]) -> Self;
    /// Asks for values that will be loaded soon.
    unsafe fn prefetch(_values: &[f32; LANES]) {}
    /// Asks for a line of the second-level cache that will be loaded later.
    unsafe fn prefetch_line(_line: *const u8) {}
    unsafe fn splat(value: f32) -> Self;
    unsafe fn store(self, values: &mut [f32; LANES]);
    unsafe fn minus(self, other: Self) -> Self;
    /// `self * self + sum`, rounded once.
    unsafe fn squared_plus(self, sum: Self) -> Self;
    /// `sum - self * other`, rounded once.
    unsafe fn product_from(self, other: Self, sum: Self) -> Self;
    /// `self` where `self < other`, else `other`.
    unsafe fn least(self, other: Self) -> Self;
    /// `self` where `self > other`, else `other`.
    unsafe fn most(self, other: Self) -> Self;
    /// (`score`, `number`) where `score < best`, else (`best`, `index`); lane by lane.
    unsafe fn closer(score: Self, number: Self, best: Self, index: Self) -> (Self, Self);
}
