//! Sums without an order: values on a fixed-point grid, added as integers.
//!
//! Floating-point addition depends on the order of its terms, integer addition does not. So every value is rounded
//! once, to a multiple of 2^-e, and summed in 64 bits: the same sums for any thread count, any order of the rows,
//! any split. And what was added can be taken away again exactly, so an example that changes its cluster is
//! subtracted here and added there, for ever without drift.
//!
//! The grid is as fine as the headroom allows: with every |x| <= 2^m and at most 2^b examples, e = 62 - b - m keeps
//! any sum of any of them within 2^62. A million losses below 16 get e = 38: finer than their own float32 spacing for
//! every value above 2^-14. (Beyond 51 - m nothing is gained, and rounding by addition needs |x| 2^e <= 2^51.)
//!
//! Inertia is a sum of float32 squared distances. These are integers already, times their power of two; they are added
//! in 128 bits, with everything below 2^-100 or so of the largest possible distance cut off.

/// Smallest b with n <= 2^b.
fn bits(n: usize) -> i32 {
    n.next_power_of_two().trailing_zeros() as i32
}

/// Smallest m with x < 2^m; 0 for 0.
fn exponent(x: f32) -> i32 {
    libm::frexpf(x).1
}

/// The fixed-point grid for coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// 2^e.
    scale: f64,
}

impl Grid {
    /// The finest grid on which any `n_rows` values of magnitude up to `most` can be summed in 64 bits.
    #[must_use]
    pub fn new(most: f32, n_rows: usize) -> Self {
        Self { scale: libm::ldexp(1.0, (62 - bits(n_rows)).min(51) - exponent(most)) }
    }

    /// The value on the grid: rounded once, ties to even.
    ///
    /// Scaling by a power of two is exact in float64. Adding 1.5 x 2^52 pushes the fraction out of the mantissa, whose
    /// low bits are then the integer: two vector instructions, where `round` would call the C library.
    #[must_use]
    #[inline]
    pub fn round(self, x: f32) -> i64 {
        const SHIFT: f64 = 6_755_399_441_055_744.0;
        (f64::from(x) * self.scale + SHIFT).to_bits() as i64 - SHIFT.to_bits() as i64
    }

    /// The mean of `count` values with this sum.
    #[must_use]
    pub fn mean(self, sum: i64, count: i64) -> f32 {
        (sum as f64 / count as f64 / self.scale) as f32
    }
}

/// Per-cluster sums and counts of examples; or changes of these, which add up in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    n_dims: usize,
    /// `[cluster][dim]`.
    totals: Vec<i64>,
    counts: Vec<i64>,
}

impl Sums {
    /// Empty clusters.
    #[must_use]
    pub fn new(n_clusters: usize, n_dims: usize) -> Self {
        Self { n_dims, totals: vec![0; n_clusters * n_dims], counts: vec![0; n_clusters] }
    }

    /// Members per cluster.
    #[must_use]
    pub fn counts(&self) -> &[i64] {
        &self.counts
    }

    /// An example leaves the cluster `from` (none, if negative) and joins the cluster `to`.
    #[inline]
    pub fn relabel(&mut self, grid: Grid, trajectory: impl Iterator<Item = f32>, from: i32, to: i32) {
        let (to, dims) = (to as usize, self.n_dims);
        self.counts[to] += 1;
        if from < 0 {
            for (sum, x) in self.totals[to * dims..][..dims].iter_mut().zip(trajectory) {
                *sum += grid.round(x);
            }
        } else {
            let from = from as usize;
            self.counts[from] -= 1;
            for (dim, x) in trajectory.enumerate() {
                let x = grid.round(x);
                self.totals[from * dims + dim] -= x;
                self.totals[to * dims + dim] += x;
            }
        }
    }

    /// Adds another's sums or changes.
    pub fn merge(&mut self, other: &Self) {
        let pairs =
            self.totals.iter_mut().zip(&other.totals).chain(self.counts.iter_mut().zip(&other.counts));
        pairs.for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Moves each centroid (`[cluster][dim]`) to its members' mean; an empty cluster's stays where it is.
    pub fn move_centroids(&self, grid: Grid, centroids: &mut [f32]) {
        let clusters = centroids.chunks_exact_mut(self.n_dims).zip(self.totals.chunks_exact(self.n_dims));
        for ((centroid, sums), &count) in clusters.zip(&self.counts) {
            if count > 0 {
                for (coordinate, &sum) in centroid.iter_mut().zip(sums) {
                    *coordinate = grid.mean(sum, count);
                }
            }
        }
    }
}

/// A sum of squared distances that doesn't depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inertia {
    sum: u128,
    /// The sum is in units of 2^unit.
    unit: i32,
}

impl Inertia {
    /// No distances yet; there will be at most `n_rows`, between points whose coordinates are at most `most`.
    #[must_use]
    pub fn new(most: f32, n_dims: usize, n_rows: usize) -> Self {
        // A squared distance is at most n_dims (2 most)^2, roundings included within one bit more.
        let top = bits(n_dims) + 2 * (exponent(most) + 1) + 1;
        // Below 2^-149 there is nothing: it is the smallest subnormal.
        Self { sum: 0, unit: (top + bits(n_rows) - 127).max(-149) }
    }

    /// Adds a squared distance, finite and not negative.
    #[inline]
    pub fn add(&mut self, distance: f32) {
        let bits = distance.to_bits();
        let (exponent, fraction) = ((bits >> 23) as i32, u128::from(bits & 0x7f_ffff));
        // A subnormal has no hidden bit, and the exponent of the smallest normal.
        let (mantissa, exponent) = if exponent == 0 { (fraction, 1) } else { (fraction | 1 << 23, exponent) };
        let shift = exponent - 150 - self.unit;
        self.sum +=
            if shift >= 0 { mantissa << shift } else { mantissa.checked_shr(-shift as u32).unwrap_or(0) };
    }

    /// Adds squared distances, finite and not negative: as many calls of [`add`](Self::add), but faster where
    /// they are of similar size.
    ///
    /// Float32 numbers within 2^17 of each other are multiples of 2^-40 of the largest one's power of two, and
    /// 4,096 of them stay below 2^12 times that: so their sum is exact in float64, in any order.
    pub fn add_all(&mut self, distances: &[f32]) {
        for distances in distances.chunks(4096) {
            // The bits of non-negative floats, even as signed numbers, are in the order of their values.
            let (mut least, mut most) = ([i32::MAX; 8], [0; 8]);
            let (eights, rest) = distances.as_chunks::<8>();
            for eight in eights {
                for lane in 0..8 {
                    least[lane] = (eight[lane].to_bits() as i32).min(least[lane]);
                    most[lane] = (eight[lane].to_bits() as i32).max(most[lane]);
                }
            }
            let bits = |distance: &f32| distance.to_bits() as i32;
            let least = least.into_iter().chain(rest.iter().map(bits)).min().unwrap_or(0) >> 23;
            let most = most.into_iter().chain(rest.iter().map(bits)).max().unwrap_or(0) >> 23;
            // The smallest one's last bit has to be one that `add` wouldn't cut off.
            if least > 0 && most - least < 17 && least - 150 >= self.unit {
                let mut sums = [0.0_f64; 8];
                for eight in eights {
                    for (sum, &distance) in sums.iter_mut().zip(eight) {
                        *sum += f64::from(distance);
                    }
                }
                let sum: f64 = sums.iter().sum::<f64>() + rest.iter().map(|&d| f64::from(d)).sum::<f64>();
                let (fraction, exponent) = (sum.to_bits() & ((1 << 52) - 1) | 1 << 52, sum.to_bits() >> 52);
                // A shift to the right drops zeros: the sum is a multiple of the unit.
                let shift = exponent as i32 - 1075 - self.unit;
                let fraction = u128::from(fraction);
                self.sum += if shift >= 0 { fraction << shift } else { fraction >> -shift };
            } else {
                for &distance in distances {
                    self.add(distance);
                }
            }
        }
    }

    /// Adds another's distances.
    pub fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
    }

    /// The sum.
    #[must_use]
    pub fn value(&self) -> f64 {
        libm::ldexp(self.sum as f64, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn relabelling_is_exact(
            rows in prop::collection::vec((prop::array::uniform3(-50.0_f32..50.0), 0_i32..4, 0_i32..4), 1..60),
        ) {
            let grid = Grid::new(50.0, rows.len());
            let mut moved = Sums::new(4, 3);
            let mut direct = Sums::new(4, 3);
            for (x, first, then) in &rows {
                moved.relabel(grid, x.iter().copied(), -1, *first);
                direct.relabel(grid, x.iter().copied(), -1, *then);
            }
            for (x, first, then) in rows.iter().rev() {
                moved.relabel(grid, x.iter().copied(), *first, *then);
            }
            prop_assert_eq!(moved, direct);
        }

        #[test]
        fn inertia_is_the_sum_and_splits_anywhere(values in prop::collection::vec(0.0_f32..100.0, 1..50), cut in 0_usize..50) {
            let empty = Inertia::new(10.0, 1, values.len());
            let sum = |values: &[f32]| values.iter().fold(empty, |mut sum, &v| { sum.add(v); sum });
            let cut = cut.min(values.len());
            let mut split = sum(&values[cut..]);
            split.merge(&sum(&values[..cut]));
            prop_assert_eq!(split, sum(&values));
            let mut at_once = empty;
            at_once.add_all(&values);
            prop_assert_eq!(at_once, sum(&values));
            let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
            prop_assert!((split.value() - exact).abs() <= exact * 1e-14);
        }
    }

    #[test]
    fn headroom_and_resolution() {
        for most in [1e15_f32, 1.0, 11.5, 1e-30, f32::from_bits(1), 0.0] {
            for n in [1, 2, 3, 1_000_000, 1 << 30] {
                let grid = Grid::new(most, n);
                assert!(i128::from(grid.round(most)) * n as i128 <= 1 << 62, "{most} {n}");
                for x in [most, -most, most / 3.0] {
                    let exact = (f64::from(x) * grid.scale).round_ties_even();
                    assert_eq!(grid.round(x) as f64, exact, "{x} {n}");
                }
                assert_eq!(grid.mean(grid.round(most), 1), most, "{most} {n}");
                let mut inertia = Inertia::new(most, 64, n);
                let farthest = 64.0 * 4.0 * most * most * 1.0001;
                inertia.add(farthest);
                assert!(inertia.sum.checked_mul(n as u128).is_some());
                assert_eq!(inertia.value(), f64::from(farthest));
            }
        }
    }
}
