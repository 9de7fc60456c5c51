//! NEON: sixteen lanes are four q registers.

use super::{LANES, Lanes, shells};
use std::arch::aarch64::{
    float32x4_t, vbslq_f32, vcgtq_f32, vcltq_f32, vdupq_n_f32, vfmaq_f32, vfmsq_f32, vld1q_f32, vst1q_f32,
    vsubq_f32,
};

#[derive(Clone, Copy)]
struct Four([float32x4_t; 4]);

// SAFETY (of every block below): every aarch64 CPU that Rust compiles for has NEON; loads and stores stay within
// arrays of sixteen.
impl Lanes for Four {
    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        let quads = values.as_chunks::<4>().0;
        Self(std::array::from_fn(|i| unsafe { vld1q_f32(quads[i].as_ptr()) }))
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        for (quad, values) in self.0.into_iter().zip(values.as_chunks_mut::<4>().0) {
            unsafe { vst1q_f32(values.as_mut_ptr(), quad) }
        }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| unsafe { vsubq_f32(self.0[i], other.0[i]) }))
    }

    #[inline(always)]
    unsafe fn squared_plus(self, sum: Self) -> Self {
        Self(std::array::from_fn(|i| unsafe { vfmaq_f32(sum.0[i], self.0[i], self.0[i]) }))
    }

    #[inline(always)]
    unsafe fn product_from(self, other: Self, sum: Self) -> Self {
        Self(std::array::from_fn(|i| unsafe { vfmsq_f32(sum.0[i], self.0[i], other.0[i]) }))
    }

    // By comparison: the minimum and maximum of NEON order zeros by their signs and have their own mind about NaN.
    #[inline(always)]
    unsafe fn least(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| unsafe {
            vbslq_f32(vcltq_f32(self.0[i], other.0[i]), self.0[i], other.0[i])
        }))
    }

    #[inline(always)]
    unsafe fn most(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| unsafe {
            vbslq_f32(vcgtq_f32(self.0[i], other.0[i]), self.0[i], other.0[i])
        }))
    }

    #[inline(always)]
    unsafe fn closer(score: Self, number: Self, best: Self, index: Self) -> (Self, Self) {
        let masks: [_; 4] = std::array::from_fn(|i| unsafe { vcltq_f32(score.0[i], best.0[i]) });
        let blend = |no: Self, yes: Self| {
            Self(std::array::from_fn(|i| unsafe { vbslq_f32(masks[i], yes.0[i], no.0[i]) }))
        };
        (blend(best, score), blend(index, number))
    }
}

shells!(Four, 1, 6, "neon");
