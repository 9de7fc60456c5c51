//! AVX-512F: sixteen lanes are one zmm register.

use super::{LANES, Lanes, shells};
use std::arch::x86_64::{
    __m512, _CMP_LT_OQ, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_cmp_ps_mask, _mm512_fmadd_ps,
    _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_set1_ps,
    _mm512_storeu_ps, _mm512_sub_ps,
};

#[derive(Clone, Copy)]
struct Whole(__m512);

// SAFETY (of every block below): the caller is inside a shell with this feature, or passes that on; loads and
// stores stay within arrays of sixteen.
impl Lanes for Whole {
    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        unsafe { Self(_mm512_loadu_ps(values.as_ptr())) }
    }

    #[inline(always)]
    unsafe fn prefetch(values: &[f32; LANES]) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_line(line: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn squared_plus(self, sum: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(self.0, self.0, sum.0)) }
    }

    #[inline(always)]
    unsafe fn product_from(self, other: Self, sum: Self) -> Self {
        unsafe { Self(_mm512_fnmadd_ps(self.0, other.0, sum.0)) }
    }

    #[inline(always)]
    unsafe fn least(self, other: Self) -> Self {
        unsafe { Self(_mm512_min_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn most(self, other: Self) -> Self {
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn closer(score: Self, number: Self, best: Self, index: Self) -> (Self, Self) {
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(score.0, best.0);
            // Of equals, and beside NaN, the minimum is its second operand: what a blend by the mask would say.
            (score.least(best), Self(_mm512_mask_blend_ps(mask, index.0, number.0)))
        }
    }
}

shells!(Whole, 4, 4, "avx512f");
