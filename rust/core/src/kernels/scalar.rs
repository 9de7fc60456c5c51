//! The portable backend: arrays of sixteen and `f32::mul_add`.
//!
//! The only backend that runs everywhere, and what the others must equal. Where the target has no fused
//! multiply-add the compiler calls the C library's `fmaf`, which is exact by the standard and slow.

use super::{LANES, Lanes, shells};

impl Lanes for [f32; LANES] {
    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        *values
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        *values = self;
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] - other[lane])
    }

    #[inline(always)]
    unsafe fn squared_plus(self, sum: Self) -> Self {
        std::array::from_fn(|lane| self[lane].mul_add(self[lane], sum[lane]))
    }

    #[inline(always)]
    unsafe fn product_from(self, other: Self, sum: Self) -> Self {
        std::array::from_fn(|lane| (-self[lane]).mul_add(other[lane], sum[lane]))
    }

    #[inline(always)]
    unsafe fn most(self, other: Self) -> Self {
        std::array::from_fn(|lane| if self[lane] > other[lane] { self[lane] } else { other[lane] })
    }

    #[inline(always)]
    unsafe fn least(self, other: Self) -> Self {
        std::array::from_fn(|lane| if self[lane] < other[lane] { self[lane] } else { other[lane] })
    }

    #[inline(always)]
    unsafe fn closer(score: Self, number: Self, best: Self, index: Self) -> (Self, Self) {
        let choose = |yes: Self, no: Self| {
            std::array::from_fn(|lane| if score[lane] < best[lane] { yes[lane] } else { no[lane] })
        };
        (choose(score, best), choose(number, index))
    }
}

shells!([f32; super::LANES], 1, 1);
