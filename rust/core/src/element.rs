//! Number types that losses come in, and how each becomes the float32 that kernels work in.
//!
//! | type | becomes float32 | ns per value, sixteen neighbours in the first-level cache (Zen 5, SSE2 baseline) |
//! |---|---|---|
//! | float32 | as it is | 0.06 |
//! | float64 | rounded once, to nearest, ties to even | 0.10 |
//! | bfloat16 | a shift: its bits are the upper half of a float32 | 0.07 |
//! | float16 | exactly, by F16C or NEON where the CPU has it | 0.17 |
//!
//! Conversion is of neighbours, by the slice: one value of float16 at a time costs 1.2 ns, most of it for asking
//! which instructions there are. (A branch-free formula on the bits, which any compiler vectorises, took 0.35.)
//! Nothing here depends on the machine: float16 and bfloat16 lie within float32, subnormals included, and a NaN stays
//! a NaN.

use crate::columns::LANES;
use crate::tile::{States, Values};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A number type that losses come in. Another one joins by saying how it becomes a float32.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The value rounded to float32.
    fn to_f32(self) -> f32;

    /// Whether kernels can work with the value: neither NaN nor infinite, as it is or once rounded to float32.
    fn is_finite_as_f32(self) -> bool {
        self.to_f32().is_finite()
    }

    /// Rounds neighbours to float32 and subtracts a number; `out` is as long as `values`.
    ///
    /// # Panics
    /// Unequal lengths.
    #[inline]
    fn convert(values: &[Self], minus: f32, out: &mut [f32]) {
        assert_eq!(values.len(), out.len());
        for (out, value) in out.iter_mut().zip(values) {
            *out = value.to_f32() - minus;
        }
    }

    /// Rounds the values at sixteen places to float32 and subtracts a number.
    ///
    /// # Panics
    /// A place beyond the values.
    #[inline]
    fn gather(values: &[Self], places: &[usize; LANES], minus: f32, out: &mut [f32; LANES]) {
        for (out, &place) in out.iter_mut().zip(places) {
            *out = values[place].to_f32() - minus;
        }
    }

    /// The neighbours themselves, where they are float32 already.
    #[inline]
    fn as_f32(_values: &[Self]) -> Option<&[f32]> {
        None
    }

    /// States under the name of their type.
    fn wrap(states: States<'_, Self>) -> Values<'_>;
}

impl Element for f32 {
    #[inline]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline]
    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }
    fn wrap(states: States<'_, Self>) -> Values<'_> {
        Values::F32(states)
    }
}

impl Element for f64 {
    #[inline]
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn wrap(states: States<'_, Self>) -> Values<'_> {
        Values::F64(states)
    }
}

impl Element for f16 {
    #[inline]
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
    fn is_finite_as_f32(self) -> bool {
        self.is_finite()
    }
    #[inline]
    fn convert(values: &[Self], minus: f32, out: &mut [f32]) {
        values.convert_to_f32_slice(out);
        for x in out {
            *x -= minus;
        }
    }
    #[inline]
    fn gather(values: &[Self], places: &[usize; LANES], minus: f32, out: &mut [f32; LANES]) {
        Self::convert(&places.map(|place| values[place]), minus, out);
    }
    fn wrap(states: States<'_, Self>) -> Values<'_> {
        Values::F16(states)
    }
}

impl Element for bf16 {
    /// `half`'s own conversion sets a bit of NaNs, which costs a branch and tells nobody anything.
    #[inline]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    fn is_finite_as_f32(self) -> bool {
        self.is_finite()
    }
    fn wrap(states: States<'_, Self>) -> Values<'_> {
        Values::Bf16(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A half's value by its definition: sign, exponent and fraction of the given widths, in float64.
    fn by_definition(bits: u16, exponent_bits: u32) -> f64 {
        let fraction_bits = 15 - exponent_bits;
        let (exponent, fraction) =
            (i32::from((bits & 0x7fff) >> fraction_bits), f64::from(bits & ((1 << fraction_bits) - 1)));
        let (last, offset) = ((1 << exponent_bits) - 1, (1 << (exponent_bits - 1)) - 1);
        let scale = f64::from(1_u32 << fraction_bits);
        let magnitude = match exponent {
            0 => libm::ldexp(fraction / scale, 1 - offset),
            _ if exponent < last => libm::ldexp(1.0 + fraction / scale, exponent - offset),
            _ if fraction == 0.0 => f64::INFINITY,
            _ => f64::NAN,
        };
        if bits >> 15 == 1 { -magnitude } else { magnitude }
    }

    /// Every one of the 65,536 bit patterns, alone and among neighbours, at every offset in a vector.
    fn all_patterns<E: Element>(from_bits: impl Fn(u16) -> E, exponent_bits: u32) {
        let values: Vec<E> = (0..=u16::MAX).map(&from_bits).collect();
        let mut converted = vec![0.0; values.len()];
        for cut in [0, 1, 5, 16, 65_531] {
            let (left, right) = converted.split_at_mut(cut);
            E::convert(&values[..cut], 0.0, left);
            E::convert(&values[cut..], 0.0, right);
            for (bits, (&value, &converted)) in (0..=u16::MAX).zip(values.iter().zip(&converted)) {
                let expected = by_definition(bits, exponent_bits);
                for found in [value.to_f32(), converted] {
                    let equal = f64::from(found).to_bits() == expected.to_bits();
                    assert!(
                        equal || (found.is_nan() && expected.is_nan()),
                        "{bits:04x}: {found}, not {expected}"
                    );
                }
                assert_eq!(value.is_finite_as_f32(), expected.is_finite());
            }
        }
    }

    #[test]
    fn float16_is_exact() {
        all_patterns(f16::from_bits, 5);
    }

    #[test]
    fn bfloat16_is_exact() {
        all_patterns(bf16::from_bits, 8);
    }

    proptest! {
        #[test]
        fn float64_is_rounded_once(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let mut out = [0.0; 3];
            f64::convert(&[value; 3], 0.0, &mut out);
            prop_assert!(out.iter().all(|x| x.to_bits() == (value as f32).to_bits()));
            prop_assert_eq!(value.is_finite_as_f32(), (value as f32).is_finite());
        }
    }

    #[test]
    fn beyond_float32_is_not_finite() {
        assert!(!1e39_f64.is_finite_as_f32() && !f64::NAN.is_finite_as_f32() && 1e38_f64.is_finite_as_f32());
        assert!(!f32::INFINITY.is_finite_as_f32() && f32::MAX.is_finite_as_f32());
    }
}
