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
//! # Inertia
//!
//! The sum over all examples of |x - c|^2 is the sum of |x|^2, which never changes, plus for each cluster
//! n |c|^2 - 2 c.S, S being its sum. Among integers that is an identity, not an approximation: nothing cancels, and no
//! example has to be looked at. So inertia is exact for the values on the grid, and costs K T multiplications per
//! iteration. The squares are summed once, in 128 bits, from halves of 26 bits whose products are summed in 64.

use crate::columns::LANES;
use crate::kernels::{Kernel, Sixteen, on_grid};
use crate::shape::Block;

/// Smallest b with n <= 2^b.
pub(super) fn bits(n: usize) -> i32 {
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
    /// e.
    exponent: i32,
}

impl Grid {
    /// The finest grid on which any `n_rows` values of magnitude up to `most` can be summed in 64 bits, and the squares of
    /// `n_rows` points of `n_dims` such values in 126.
    #[must_use]
    pub fn new(most: f32, n_rows: usize, n_dims: usize) -> Self {
        let places = (62 - bits(n_rows)).min(51).min((124 - bits(n_rows) - bits(n_dims)) / 2);
        let exponent = places - exponent(most);
        Self { scale: libm::ldexp(1.0, exponent), exponent }
    }

    /// The value on the grid: rounded once, ties to even.
    #[must_use]
    #[inline]
    pub fn round(self, x: f32) -> i64 {
        on_grid(x, self.scale)
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
    /// Of all examples.
    squares: i128,
}

impl Sums {
    /// Empty clusters.
    #[must_use]
    pub fn new(n_clusters: usize, n_dims: usize) -> Self {
        Self { n_dims, totals: vec![0; n_clusters * n_dims], counts: vec![0; n_clusters], squares: 0 }
    }

    /// Members per cluster.
    #[must_use]
    pub fn counts(&self) -> &[i64] {
        &self.counts
    }

    /// An example joins the cluster `to`. What its squares are is said by [`square`](Self::square).
    #[inline]
    pub fn join(&mut self, grid: Grid, trajectory: impl Iterator<Item = f32>, to: usize) {
        self.counts[to] += 1;
        for (sum, x) in self.totals[to * self.n_dims..][..self.n_dims].iter_mut().zip(trajectory) {
            *sum += grid.round(x);
        }
    }

    /// All the examples of a block join the clusters of their numbers (`[tile][lane]`), squares included.
    pub fn join_block(&mut self, grid: Grid, block: &Block, numbers: &[Sixteen], kernel: Kernel) {
        let whole = block.n_rows() / LANES;
        let (tiles, n_dims) = (&block.tiles()[..whole * self.n_dims * LANES], self.n_dims);
        kernel.scatter(tiles, &numbers[..whole], grid.scale, n_dims, &mut self.totals);
        let found = numbers.as_flattened();
        found[..whole * LANES].iter().for_each(|number| self.counts[*number as usize] += 1);
        for (index, number) in found.iter().enumerate().take(block.n_rows()).skip(whole * LANES) {
            self.join(grid, block.trajectory(index), *number as usize);
        }
        self.square(grid, block, kernel);
    }

    /// An example whose values were [rounded](Grid::round) before joins the cluster `to`.
    #[inline]
    pub fn join_rounded(&mut self, trajectory: &[i64], to: usize) {
        self.counts[to] += 1;
        for (sum, x) in self.totals[to * self.n_dims..][..self.n_dims].iter_mut().zip(trajectory) {
            *sum += x;
        }
    }

    /// An example leaves the cluster `from` and joins the cluster `to`.
    ///
    /// # Panics
    /// A cluster beyond the last.
    #[inline]
    pub fn relabel(&mut self, grid: Grid, trajectory: impl Iterator<Item = f32>, from: usize, to: usize) {
        if from == to {
            return;
        }
        self.counts[from] -= 1;
        self.counts[to] += 1;
        let places = [from * self.n_dims..(from + 1) * self.n_dims, to * self.n_dims..(to + 1) * self.n_dims];
        let [mine, theirs] = self.totals.get_disjoint_mut(places).expect("two clusters");
        for ((mine, theirs), x) in mine.iter_mut().zip(theirs).zip(trajectory) {
            let x = grid.round(x);
            *mine -= x;
            *theirs += x;
        }
    }

    /// All the examples of some whole tiles (`[tile][dim][lane]`) join the cluster `to`, squares included. What they add up
    /// to is left in `totals` (`[dim]`).
    pub fn join_tiles(
        &mut self,
        grid: Grid,
        tiles: &[f32],
        to: usize,
        kernel: Kernel,
        totals: &mut Vec<i64>,
    ) {
        let mut lanes = vec![[0; LANES]; self.n_dims];
        kernel.add(tiles, grid.scale, &mut lanes);
        totals.clear();
        totals.extend(lanes.iter().map(|lanes| lanes.iter().sum::<i64>()));
        for (sum, total) in self.totals[to * self.n_dims..][..self.n_dims].iter_mut().zip(totals) {
            *sum += *total;
        }
        self.counts[to] += (tiles.len() / self.n_dims) as i64;
        self.squares += kernel.squares(tiles, grid.scale);
    }

    /// Adds the squares of all the examples of a block.
    pub fn square(&mut self, grid: Grid, block: &Block, kernel: Kernel) {
        let whole = block.n_rows() / LANES;
        self.squares += kernel.squares(&block.tiles()[..whole * self.n_dims * LANES], grid.scale);
        for index in whole * LANES..block.n_rows() {
            self.square_one(grid, block.trajectory(index));
        }
    }

    /// Adds the squares of one example.
    pub fn square_one(&mut self, grid: Grid, trajectory: impl Iterator<Item = f32>) {
        self.squares += trajectory.map(|x| i128::from(grid.round(x)).pow(2)).sum::<i128>();
    }

    /// Adds another's sums or changes.
    pub fn merge(&mut self, other: &Self) {
        let pairs =
            self.totals.iter_mut().zip(&other.totals).chain(self.counts.iter_mut().zip(&other.counts));
        pairs.for_each(|(mine, theirs)| *mine += theirs);
        self.squares += other.squares;
    }

    /// Adds another's sums and counts, without its squares, to sums that may go on for ever: a cluster that would have more
    /// than `most` members, which the grid has no room for, is halved first, sum and count alike, which leaves its mean.
    pub fn merge_halving(&mut self, other: &Self, most: i64) {
        for k in 0..self.counts.len() {
            let totals = k * self.n_dims..(k + 1) * self.n_dims;
            while self.counts[k] > 0 && self.counts[k] + other.counts[k] > most {
                self.counts[k] /= 2;
                self.totals[totals.clone()].iter_mut().for_each(|total| *total /= 2);
            }
            self.counts[k] += other.counts[k];
            for (mine, theirs) in self.totals[totals.clone()].iter_mut().zip(&other.totals[totals]) {
                *mine += theirs;
            }
        }
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

    /// Sum of the squared distances of all members from their clusters' centroids (`[cluster][dim]`): exact for the
    /// values on the grid, rounded once.
    #[must_use]
    pub fn inertia(&self, grid: Grid, centroids: &[f32]) -> f64 {
        let clusters = centroids.chunks_exact(self.n_dims).zip(self.totals.chunks_exact(self.n_dims));
        let mut sum = self.squares;
        for ((centroid, sums), &count) in clusters.zip(&self.counts).filter(|(_, count)| **count > 0) {
            for (&coordinate, &total) in centroid.iter().zip(sums) {
                let coordinate = i128::from(grid.round(coordinate));
                sum += coordinate * (i128::from(count) * coordinate - 2 * i128::from(total));
            }
        }
        libm::ldexp(sum as f64, -2 * grid.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn relabelling_is_exact(
            rows in prop::collection::vec((prop::array::uniform3(-50.0_f32..50.0), 0_usize..4, 0_usize..4), 1..60),
        ) {
            let grid = Grid::new(50.0, rows.len(), 3);
            let mut moved = Sums::new(4, 3);
            let mut direct = Sums::new(4, 3);
            for (x, first, then) in &rows {
                moved.join(grid, x.iter().copied(), *first);
                direct.join(grid, x.iter().copied(), *then);
            }
            for (x, first, then) in rows.iter().rev() {
                moved.relabel(grid, x.iter().copied(), *first, *then);
            }
            prop_assert_eq!(moved, direct);
        }

        #[test]
        fn inertia_is_the_sum_of_squared_distances(
            rows in prop::collection::vec((prop::array::uniform3(-50.0_f32..50.0), 0_usize..4), 1..60),
            centroids in prop::array::uniform12(-50.0_f32..50.0), offset in prop::sample::select(vec![0.0_f32, 900.0]),
        ) {
            let grid = Grid::new(950.0, rows.len(), 3);
            let centroids = centroids.map(|c| c + offset);
            let mut sums = Sums::new(4, 3);
            let mut direct = 0.0;
            for (x, k) in &rows {
                let x = x.map(|x| x + offset);
                sums.join(grid, x.into_iter(), *k);
                sums.square_one(grid, x.into_iter());
                for (x, c) in x.iter().zip(&centroids[k * 3..]) {
                    direct += (f64::from(*x) - f64::from(*c)).powi(2);
                }
            }
            let found = sums.inertia(grid, &centroids);
            prop_assert!((found - direct).abs() <= 1e-9 * direct + 1e-12, "{} {}", found, direct);
        }
    }

    #[test]
    fn tiles_join_as_their_lanes_do() {
        let tiles: Vec<f32> = (0..3 * 2 * LANES).map(|i| (i * 37 % 101) as f32 / 7.0 - 6.0).collect();
        let grid = Grid::new(12.0, 48, 2);
        let mut one_by_one = Sums::new(2, 2);
        for tile in tiles.chunks_exact(2 * LANES) {
            for lane in 0..LANES {
                one_by_one.join(grid, [tile[lane], tile[LANES + lane]].into_iter(), 1);
                one_by_one.square_one(grid, [tile[lane], tile[LANES + lane]].into_iter());
            }
        }
        for backend in crate::kernels::Backend::available() {
            let mut at_once = Sums::new(2, 2);
            at_once.join_tiles(grid, &tiles, 1, Kernel::of(backend).unwrap(), &mut Vec::new());
            assert_eq!(at_once, one_by_one);
        }
    }

    #[test]
    fn headroom_and_resolution() {
        for most in [1e15_f32, 1.0, 11.5, 1e-30, f32::from_bits(1), 0.0] {
            for n in [1, 2, 3, 1_000_000, 1 << 30] {
                for n_dims in [1, 12, 4096] {
                    let grid = Grid::new(most, n, n_dims);
                    let largest = i128::from(grid.round(most));
                    assert!(largest * n as i128 <= 1 << 62, "{most} {n}");
                    // A centroid on one side and a sum on the other are the worst of the inertia's terms.
                    assert!(largest * largest * (4 * n * n_dims) as i128 <= 1 << 126, "{most} {n} {n_dims}");
                    for x in [most, -most, most / 3.0] {
                        let exact = (f64::from(x) * grid.scale).round_ties_even();
                        assert_eq!(grid.round(x) as f64, exact, "{x} {n}");
                    }
                    assert_eq!(grid.mean(grid.round(most), 1), most, "{most} {n}");
                }
            }
        }
    }
}
