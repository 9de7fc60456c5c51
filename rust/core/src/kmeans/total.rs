//! Totals of squared distances, without an order: fixed-point numbers of 128 bits.
//!
//! A float64 has 53 bits, and a sum of them depends on the order. Here each is rounded once, to a multiple of a unit
//! so small that the sum of as many as there are just fits: 2^-96 of the farthest one possible, for a thousand million
//! rows. (Units of 2^-51, for which 64 bits would be enough, are not: one loss of 10^7 among others below 10 was
//! enough for every other distance to be rounded to 0.) Cost: a shift of 128 bits and an addition, 2 ns per row.

use crate::kmeans::sums::bits;

/// The fixed-point grid for squared distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// The unit is 2 to the minus this.
    exponent: i32,
}

impl Unit {
    /// The finest unit of which as many numbers as there are rows, none of them above `farthest`, can be summed.
    pub(super) fn new(farthest: f64, n_rows: usize) -> Self {
        Self { exponent: 126 - bits(n_rows) - libm::frexp(farthest).1 }
    }

    /// A number from 0 to the farthest in units, halves rounded up.
    #[inline]
    pub(super) fn of(self, x: f64) -> i128 {
        const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;
        let bits = x.to_bits();
        let (exponent, fraction) = ((bits >> MANTISSA) as i32, bits & ((1 << MANTISSA) - 1));
        // Subnormal numbers lack the leading 1.
        let mantissa = if exponent == 0 { fraction } else { fraction | 1 << MANTISSA };
        let shift = exponent.max(1) - 1075 + self.exponent;
        match shift {
            0.. => i128::from(mantissa) << shift.min(127),
            -63..0 => i128::from(((mantissa >> (-shift - 1)) + 1) >> 1),
            _ => 0,
        }
    }

    /// A sum of units as a number.
    pub(super) fn back(self, sum: i128) -> f64 {
        libm::ldexp(sum as f64, -self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_rounded_to_the_next_unit(mantissa in 0.5_f64..1.0, down in 0_i32..150, farthest in -300_i32..300, n in 1_usize..1 << 40) {
            let farthest = libm::ldexp(1.0, farthest);
            let (unit, x) = (Unit::new(farthest, n), mantissa * libm::ldexp(farthest, -down));
            let found = unit.of(x);
            prop_assert!((unit.back(found) - x).abs() <= libm::ldexp(0.5, -unit.exponent));
            prop_assert!(found.checked_mul(n as i128).is_some());
            prop_assert_eq!(unit.back(unit.of(farthest) * n as i128), farthest * n as f64);
            // A millionth of the farthest one keeps all its bits.
            if down < 20 {
                prop_assert_eq!(unit.back(found), x);
            }
        }
    }

    #[test]
    fn the_smallest_numbers() {
        let unit = Unit::new(f64::MIN_POSITIVE, 1);
        for x in [0.0, 5e-324, 1e-310, f64::MIN_POSITIVE] {
            assert_eq!(unit.back(unit.of(x)), x);
        }
        assert_eq!(Unit::new(1e300, 1).of(5e-324), 0);
    }
}
