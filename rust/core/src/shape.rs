//! Trajectory shapes: what of a trajectory is compared. Applied to a tile as it is loaded, never materialised.
//!
//! | shape | value t | for |
//! |---|---|---|
//! | raw | `L[t]` | the papers' choice |
//! | relative | `L[t] / L[0]` | the share of the first loss that is left; needs `L[0] > 0` |
//! | zscore | `(L[t] - mean) / std` | the form of the curve alone; population std, a constant trajectory is all zeros |
//! | differences | `L[t+1] - L[t]` | the steps; one dimension fewer, needs two states |
//!
//! A *centre*, where there is one, is subtracted from what a shape makes: kernels calculate scores, whose roundings grow
//! with the distance from the origin, so losses with an offset of 10^4 and a spread of 10^-2 have to come near it.
//! (Of two numbers within a factor of two of each other the difference is exact.) What is clustered are the centred
//! values; centroids get the centre back in the end.
//!
//! Everything is IEEE arithmetic without a math library (`sqrt` is exact by the standard), so it is the same bits
//! everywhere. The z-score sums in float64, in the order of the states. A block of 512 examples is the unit in
//! which kernels are called: 24 KB at 12 states, so it stays in the first-level cache while centroids pass over it.

use crate::columns::{Columns, LANES};
use crate::error::{Error, Result};
use crate::tile::consecutive;
use std::ops::Range;

/// Examples in a full block.
pub const BLOCK_ROWS: usize = 512;

/// What of a trajectory is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The losses as they are.
    Raw,
    /// Each loss over the first one.
    Relative,
    /// Each loss minus the trajectory's mean, over its population standard deviation.
    ZScore,
    /// Each loss minus the one before it.
    Differences,
}

impl Shape {
    /// All shapes, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Relative, Self::ZScore, Self::Differences];

    /// The shape's name, as users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Relative => "relative",
            Self::ZScore => "zscore",
            Self::Differences => "differences",
        }
    }

    /// The shape of that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name).ok_or_else(|| Error::Name {
            argument: "shape",
            found: name.to_owned(),
            allowed: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// Reshapes a tile (`[state][lane]`) in place; the first `n_dims` states of it are the result.
    fn apply(self, tile: &mut [f32]) {
        let n_states = tile.len() / LANES;
        match self {
            Self::Raw => {}
            Self::Relative => {
                let (first, rest) = tile.split_at_mut(LANES);
                for lanes in rest.chunks_exact_mut(LANES) {
                    for (x, first) in lanes.iter_mut().zip(first.iter()) {
                        *x /= first;
                    }
                }
                for x in first {
                    *x /= *x;
                }
            }
            Self::ZScore => {
                let n = n_states as f64;
                let (mut mean, mut variance) = ([0.0_f64; LANES], [0.0_f64; LANES]);
                for lanes in tile.chunks_exact(LANES) {
                    for (sum, &x) in mean.iter_mut().zip(lanes) {
                        *sum += f64::from(x);
                    }
                }
                mean = mean.map(|sum| sum / n);
                for lanes in tile.chunks_exact(LANES) {
                    for ((sum, &x), mean) in variance.iter_mut().zip(lanes).zip(&mean) {
                        let deviation = f64::from(x) - mean;
                        *sum += deviation * deviation;
                    }
                }
                let std = variance.map(|sum| (sum / n).sqrt());
                // A constant trajectory may miss its own mean by a rounding: compare with the values, not with 0.
                // By subtraction, so that infinities and NaN are not taken for constants.
                let mut constant = [true; LANES];
                for lanes in tile.chunks_exact(LANES) {
                    for ((constant, x), first) in constant.iter_mut().zip(lanes).zip(tile.iter()) {
                        *constant &= x - first == 0.0;
                    }
                }
                for lanes in tile.chunks_exact_mut(LANES) {
                    for (lane, x) in lanes.iter_mut().enumerate() {
                        let z = (f64::from(*x) - mean[lane]) / std[lane];
                        *x = if constant[lane] { 0.0 } else { z as f32 };
                    }
                }
            }
            Self::Differences => {
                for state in 1..n_states {
                    for lane in 0..LANES {
                        let step = tile[state * LANES + lane] - tile[(state - 1) * LANES + lane];
                        tile[(state - 1) * LANES + lane] = step;
                    }
                }
            }
        }
    }
}

/// Columns seen through a shape, from a centre.
#[derive(Debug, Clone)]
pub struct Trajectories<'a> {
    columns: Columns<'a>,
    shape: Shape,
    /// `[dim]`.
    centre: Vec<f32>,
}

/// Up to 512 shaped examples: tiles of `[dim][lane]`, one after the other; lanes beyond `n_rows` repeat the last row.
#[derive(Debug, Clone, Default)]
pub struct Block {
    values: Vec<f32>,
    /// Where the tiles begin in `values`: at a cache line.
    start: usize,
    n_rows: usize,
    n_dims: usize,
}

impl<'a> Trajectories<'a> {
    /// The columns, seen through the shape.
    ///
    /// # Errors
    /// Fewer states than the shape needs.
    pub fn new(columns: Columns<'a>, shape: Shape) -> Result<Self> {
        let least = if shape == Shape::Differences { 2 } else { 1 };
        if columns.n_states() < least {
            return Err(Error::TooFewStates { shape: shape.name(), found: columns.n_states(), least });
        }
        let n_dims = columns.n_states() - usize::from(shape == Shape::Differences);
        Ok(Self { columns, shape, centre: vec![0.0; n_dims] })
    }

    /// The same, seen from the mean of these rows: added up in float64 in their order, rounded once.
    #[must_use]
    pub fn centred(mut self, rows: &[usize]) -> Self {
        let mut sums = vec![0.0_f64; self.n_dims()];
        let mut block = Block::default();
        self.centre.fill(0.0);
        for rows in rows.chunks(BLOCK_ROWS) {
            self.load(rows, &mut block);
            for index in 0..rows.len() {
                for (sum, x) in sums.iter_mut().zip(block.trajectory(index)) {
                    *sum += f64::from(x);
                }
            }
        }
        self.centre = sums.iter().map(|sum| (sum / rows.len().max(1) as f64) as f32).collect();
        // Rows that can't be clustered are refused later, by whoever looks at all of them.
        self.centre.iter_mut().filter(|centre| !centre.is_finite()).for_each(|centre| *centre = 0.0);
        self
    }

    /// The same columns and shape over other columns, seen from the same centre.
    ///
    /// # Errors
    /// Another number of states.
    pub fn with_columns<'b>(&self, columns: Columns<'b>) -> Result<Trajectories<'b>> {
        let centre = self.centre.clone();
        Trajectories::new(columns, self.shape).map(|other| Trajectories { centre, ..other })
    }

    /// The same, seen from this centre (`[dim]`).
    ///
    /// # Panics
    /// Another number of dimensions.
    #[must_use]
    pub fn seen_from(mut self, centre: &[f32]) -> Self {
        self.centre.copy_from_slice(centre);
        self
    }

    /// What is subtracted from every shaped trajectory, `[dim]`.
    #[must_use]
    pub fn centre(&self) -> &[f32] {
        &self.centre
    }

    /// The columns underneath.
    #[must_use]
    pub fn columns(&self) -> &Columns<'a> {
        &self.columns
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Numbers in a shaped trajectory: T, or T - 1 for differences.
    #[must_use]
    pub fn n_dims(&self) -> usize {
        self.centre.len()
    }

    /// Loads the rows (row numbers, any number of them, usually ascending and at most 512) into `block`.
    ///
    /// # Panics
    /// A row number beyond N.
    pub fn load(&self, rows: &[usize], block: &mut Block) {
        if let Some(range) = consecutive(rows) {
            return self.load_range(range, block);
        }
        self.fill(rows.len(), block, |minus, tiles| {
            for (rows, tile) in rows.chunks(LANES).zip(tiles.chunks_exact_mut(minus.len() * LANES)) {
                self.columns.load_tile(rows, minus, tile);
            }
        });
    }

    /// Loads a range of rows (any number of them, usually at most 512) into `block`: the faster way, for stretches
    /// without an invalid example.
    ///
    /// # Panics
    /// A range beyond N.
    pub fn load_range(&self, rows: Range<usize>, block: &mut Block) {
        self.fill(rows.len(), block, |minus, tiles| self.columns.load_range(rows, minus, tiles));
    }

    /// Lets `load` fill the tiles of `n_rows` rows (`[tile][state][lane]`) with losses minus a value per state, and makes
    /// of them what is to be compared.
    fn fill(&self, n_rows: usize, block: &mut Block, load: impl FnOnce(&[f32], &mut [f32])) {
        let (raw_size, size) = (self.columns.n_states() * LANES, self.n_dims() * LANES);
        block.n_rows = n_rows;
        block.n_dims = self.n_dims();
        let n_values = n_rows.div_ceil(LANES) * raw_size;
        block.values.resize(n_values + LANES - 1, 0.0);
        // Lanes of a state that straddle two cache lines make each of these travel twice where a block is larger than the
        // first-level cache: two and a half times as long at 32 states. (Kernels don't mind.)
        block.start = block.values.as_ptr().align_offset(size_of::<[f32; LANES]>()).min(LANES - 1);
        let values = &mut block.values[block.start..][..n_values];
        if self.shape == Shape::Raw {
            // Subtracted on the way in, so that there is no second pass.
            return load(&self.centre, values);
        }
        load(&vec![0.0; self.columns.n_states()], values);
        for i in 0..n_values / raw_size {
            let raw = i * raw_size..(i + 1) * raw_size;
            self.shape.apply(&mut values[raw.clone()]);
            // A shape that drops a state leaves room behind: tiles move up.
            if size < raw_size {
                values.copy_within(raw.start..raw.start + size, i * size);
            }
            let tile = values[i * size..(i + 1) * size].chunks_exact_mut(LANES);
            for (lanes, centre) in tile.zip(&self.centre) {
                for x in lanes {
                    *x -= centre;
                }
            }
        }
    }
}

impl Block {
    /// How many examples are in it.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// How many tiles it has.
    #[must_use]
    pub fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(LANES)
    }

    /// The tiles, `[tile][dim][lane]`.
    #[must_use]
    pub fn tiles(&self) -> &[f32] {
        &self.values[self.start..][..self.n_tiles() * self.n_dims * LANES]
    }

    /// The shaped trajectory of the `index`-th example.
    pub fn trajectory(&self, index: usize) -> impl Iterator<Item = f32> + '_ {
        let size = self.n_dims * LANES;
        let tile = &self.values[self.start + index / LANES * size..][..size];
        tile.iter().skip(index % LANES).step_by(LANES).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Layout;
    use proptest::prelude::*;

    /// One trajectory, shaped, the obvious way.
    fn naive(shape: Shape, x: &[f32]) -> Vec<f32> {
        match shape {
            Shape::Raw => x.to_vec(),
            Shape::Relative => x.iter().map(|v| v / x[0]).collect(),
            Shape::Differences => x.windows(2).map(|w| w[1] - w[0]).collect(),
            Shape::ZScore => {
                if x.iter().all(|v| *v == x[0]) {
                    return vec![0.0; x.len()];
                }
                let n = x.len() as f64;
                let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                let std = (x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
                x.iter().map(|&v| ((f64::from(v) - mean) / std) as f32).collect()
            }
        }
    }

    proptest! {
        #[test]
        fn a_block_holds_what_the_naive_shape_says(
            t in 2_usize..6, n in 1_usize..70, seed in 0_u32..1000, constant in any::<bool>(),
        ) {
            let value = |row: usize, state: usize| {
                let noise = ((row * 31 + state * state * 17 + seed as usize) % 97) as f32;
                if constant && row.is_multiple_of(3) { 0.1 * (row + 1) as f32 } else { 0.5 + noise / 10.0 }
            };
            let values: Vec<f32> = (0..n).flat_map(|r| (0..t).map(move |s| value(r, s))).collect();
            let valid = vec![true; n];
            let some: Vec<usize> = (0..n).filter(|row| row % 7 != 3).collect();
            for shape in Shape::ALL {
                let columns = Columns::new(Layout::Rows { values: &values, n_states: t }, &valid).unwrap();
                let trajectories = Trajectories::new(columns, shape).unwrap();
                let mut block = Block::default();
                let all: Vec<usize> = (0..n).collect();
                for (rows, as_range) in [(&some, false), (&all, false), (&all, true)] {
                    if as_range { trajectories.load_range(0..n, &mut block) } else { trajectories.load(rows, &mut block) }
                    let n_lanes = rows.len().div_ceil(LANES) * LANES;
                    prop_assert_eq!(block.tiles().len(), n_lanes * trajectories.n_dims());
                    prop_assert_eq!(block.tiles().as_ptr().align_offset(64), 0);
                    for (index, row) in rows.iter().enumerate() {
                        let found: Vec<f32> = block.trajectory(index).collect();
                        prop_assert_eq!(found, naive(shape, &values[row * t..(row + 1) * t]));
                    }
                }
            }
        }
    }

    #[test]
    fn names_round_trip_and_differences_need_two_states() {
        for shape in Shape::ALL {
            assert_eq!(Shape::from_name(shape.name()), Ok(shape));
        }
        let message = Shape::from_name("round").unwrap_err().to_string();
        assert_eq!(message, "shape: found \"round\", allowed are raw, relative, zscore, differences");
        let columns = Columns::new(Layout::Columns(vec![&[1.0_f32][..]]), &[true]).unwrap();
        assert!(Trajectories::new(columns, Shape::Differences).is_err());
    }
}
