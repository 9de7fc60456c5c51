//! AVX2 and FMA: sixteen lanes are two ymm registers.

use super::{LANES, Lanes, shells};
use std::arch::x86_64::{
    __m256, _CMP_LT_OQ, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm256_blendv_ps, _mm256_cmp_ps,
    _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps,
    _mm256_storeu_ps, _mm256_sub_ps,
};

#[derive(Clone, Copy)]
struct Pair(__m256, __m256);

// SAFETY (of every block below): the caller is inside a shell with these features, or passes that on; loads and
// stores stay within arrays of sixteen.
impl Lanes for Pair {
    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        let first = values.as_ptr();
        unsafe { Self(_mm256_loadu_ps(first), _mm256_loadu_ps(first.add(8))) }
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
        let value = unsafe { _mm256_set1_ps(value) };
        Self(value, value)
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        let first = values.as_mut_ptr();
        unsafe {
            _mm256_storeu_ps(first, self.0);
            _mm256_storeu_ps(first.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn squared_plus(self, sum: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, self.0, sum.0), _mm256_fmadd_ps(self.1, self.1, sum.1)) }
    }

    #[inline(always)]
    unsafe fn product_from(self, other: Self, sum: Self) -> Self {
        unsafe { Self(_mm256_fnmadd_ps(self.0, other.0, sum.0), _mm256_fnmadd_ps(self.1, other.1, sum.1)) }
    }

    #[inline(always)]
    unsafe fn least(self, other: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn most(self, other: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn closer(score: Self, number: Self, best: Self, index: Self) -> (Self, Self) {
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_LT_OQ>(score.0, best.0);
            let high = _mm256_cmp_ps::<_CMP_LT_OQ>(score.1, best.1);
            let index =
                Self(_mm256_blendv_ps(index.0, number.0, low), _mm256_blendv_ps(index.1, number.1, high));
            // Of equals, and beside NaN, the minimum is its second operand: what a blend would say.
            (score.least(best), index)
        }
    }
}

shells!(Pair, 1, 6, "avx2,fma");
