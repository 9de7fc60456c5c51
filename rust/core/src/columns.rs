//! Borrowed losses: T states of N examples, and which examples are valid. The only way to the kernels.
//!
//! Enters: either T slices of N values (one per state, as they lie in memory-mapped columns) or one row-major
//! slice of N x T. Leaves: *tiles* of [`LANES`] examples, `[state][lane]` in float32, where the kernels work.
//!
//! Cost of a tile: from columns, T loads of sixteen neighbours, no transpose; from rows, 16 T strided reads, which
//! is a seventh of the arithmetic that a hundred centroids then do. A float64 value is rounded to float32 here,
//! once. Invalid examples never reach a tile: tiles are filled with the valid rows only, and where sixteen valid
//! rows are neighbours (nearly always) they are copied as one run.

use crate::error::{Error, Result};

/// Examples in a tile: one AVX-512 register of float32, two of AVX2, four of NEON.
pub const LANES: usize = 16;

/// A number type that losses come in. Another one joins by saying how it becomes a float32.
pub trait Element: Copy + Send + Sync {
    /// The value rounded to float32.
    fn to_f32(self) -> f32;
    /// This layout under the name of its type.
    fn wrap(layout: Layout<'_, Self>) -> Values<'_>;
}

impl Element for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn wrap(layout: Layout<'_, Self>) -> Values<'_> {
        Values::F32(layout)
    }
}

impl Element for f64 {
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn wrap(layout: Layout<'_, Self>) -> Values<'_> {
        Values::F64(layout)
    }
}

/// How N examples x T states lie in memory.
#[derive(Debug, Clone)]
pub enum Layout<'a, E> {
    /// T slices of N values.
    Columns(Vec<&'a [E]>),
    /// One slice of N x T values, an example's states side by side.
    Rows {
        /// The N x T values.
        values: &'a [E],
        /// T.
        n_states: usize,
    },
}

/// A layout of one of the known number types.
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// float32.
    F32(Layout<'a, f32>),
    /// float64, rounded to float32 as it is loaded.
    F64(Layout<'a, f64>),
}

/// N examples' losses under T states, and which of the examples are valid.
#[derive(Debug, Clone)]
pub struct Columns<'a> {
    values: Values<'a>,
    valid: &'a [bool],
    n_states: usize,
    n_valid: usize,
}

impl<'a> Columns<'a> {
    /// Columns over a layout and a mask of its N examples.
    ///
    /// # Errors
    /// No state, or slices of unequal length.
    pub fn new<E: Element>(layout: Layout<'a, E>, valid: &'a [bool]) -> Result<Self> {
        let n_states = match &layout {
            Layout::Columns(columns) => columns.len(),
            Layout::Rows { n_states, .. } => *n_states,
        };
        if n_states == 0 {
            return Err(Error::NoStates);
        }
        let lengths = match &layout {
            Layout::Columns(columns) => columns.iter().map(|column| column.len()).collect(),
            Layout::Rows { values, .. } if values.len() % n_states == 0 => vec![values.len() / n_states],
            Layout::Rows { values, .. } => {
                let expected = valid.len() * n_states;
                return Err(Error::Length {
                    argument: "columns",
                    found: values.len(),
                    expected,
                    of: "valid times states",
                });
            }
        };
        for found in lengths {
            if found != valid.len() {
                return Err(Error::Length { argument: "columns", found, expected: valid.len(), of: "valid" });
            }
        }
        let n_valid = valid.iter().filter(|&&valid| valid).count();
        Ok(Self { values: E::wrap(layout), valid, n_states, n_valid })
    }

    /// N, valid or not.
    #[must_use]
    pub fn n_examples(&self) -> usize {
        self.valid.len()
    }

    /// T.
    #[must_use]
    pub fn n_states(&self) -> usize {
        self.n_states
    }

    /// How many examples are valid.
    #[must_use]
    pub fn n_valid(&self) -> usize {
        self.n_valid
    }

    /// Which examples are valid.
    #[must_use]
    pub fn valid(&self) -> &'a [bool] {
        self.valid
    }

    /// Fills `tile` (`[state][lane]`, T x 16) with up to sixteen rows; lanes beyond them are zero.
    ///
    /// # Panics
    /// A row number beyond N, more than sixteen rows, or a tile of another size.
    pub fn load_tile(&self, rows: &[usize], tile: &mut [f32]) {
        assert!(rows.len() <= LANES && tile.len() == self.n_states * LANES);
        match &self.values {
            Values::F32(layout) => layout.load_tile(rows, tile),
            Values::F64(layout) => layout.load_tile(rows, tile),
        }
    }

    /// The given rows copied into T owned columns of float32: what a fit on part of the rows works on.
    #[must_use]
    pub fn gather(&self, rows: &[usize]) -> Vec<Vec<f32>> {
        let mut columns = vec![Vec::with_capacity(rows.len()); self.n_states];
        let mut tile = vec![0.0; self.n_states * LANES];
        for rows in rows.chunks(LANES) {
            self.load_tile(rows, &mut tile);
            for (column, lanes) in columns.iter_mut().zip(tile.chunks_exact(LANES)) {
                column.extend_from_slice(&lanes[..rows.len()]);
            }
        }
        columns
    }
}

impl<E: Element> Layout<'_, E> {
    fn load_tile(&self, rows: &[usize], tile: &mut [f32]) {
        let neighbours =
            rows.len() == LANES && rows[LANES - 1].wrapping_sub(rows[0]) == LANES - 1 && rows.is_sorted();
        if rows.len() < LANES {
            tile.fill(0.0);
        }
        match self {
            Self::Columns(columns) if neighbours => {
                for (column, lanes) in columns.iter().zip(tile.chunks_exact_mut(LANES)) {
                    for (lane, value) in lanes.iter_mut().zip(&column[rows[0]..rows[0] + LANES]) {
                        *lane = value.to_f32();
                    }
                }
            }
            Self::Columns(columns) => {
                for (column, lanes) in columns.iter().zip(tile.chunks_exact_mut(LANES)) {
                    for (lane, &row) in lanes.iter_mut().zip(rows) {
                        *lane = column[row].to_f32();
                    }
                }
            }
            Self::Rows { values, n_states } => {
                for (lane, &row) in rows.iter().enumerate() {
                    let trajectory = &values[row * n_states..(row + 1) * n_states];
                    for (lanes, value) in tile.chunks_exact_mut(LANES).zip(trajectory) {
                        lanes[lane] = value.to_f32();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value of example `row` under state `state`, distinct for all of both.
    fn value(row: usize, state: usize) -> f32 {
        (row * 10 + state) as f32
    }

    #[test]
    fn every_layout_and_type_loads_the_same_tile() {
        let (n, t) = (50, 3);
        let columns32: Vec<Vec<f32>> = (0..t).map(|s| (0..n).map(|r| value(r, s)).collect()).collect();
        let columns64: Vec<Vec<f64>> =
            columns32.iter().map(|c| c.iter().map(|&v| f64::from(v)).collect()).collect();
        let rows32: Vec<f32> = (0..n).flat_map(|r| (0..t).map(move |s| value(r, s))).collect();
        let rows64: Vec<f64> = rows32.iter().map(|&v| f64::from(v)).collect();
        let valid = vec![true; n];
        let all = [
            Columns::new(Layout::Columns(columns32.iter().map(Vec::as_slice).collect()), &valid).unwrap(),
            Columns::new(Layout::Columns(columns64.iter().map(Vec::as_slice).collect()), &valid).unwrap(),
            Columns::new(Layout::Rows { values: &rows32, n_states: t }, &valid).unwrap(),
            Columns::new(Layout::Rows { values: &rows64, n_states: t }, &valid).unwrap(),
        ];
        let neighbours: Vec<usize> = (5..21).collect();
        let scattered: Vec<usize> = (0..16).map(|i| (i * 7) % 50).collect();
        for rows in [&neighbours[..], &scattered[..], &[3, 49, 0], &[]] {
            for columns in &all {
                let mut tile = vec![f32::NAN; t * LANES];
                columns.load_tile(rows, &mut tile);
                for state in 0..t {
                    for lane in 0..LANES {
                        let expected = rows.get(lane).map_or(0.0, |&row| value(row, state));
                        assert_eq!(tile[state * LANES + lane], expected);
                    }
                }
                let gathered = columns.gather(rows);
                for (state, column) in gathered.iter().enumerate() {
                    assert_eq!(*column, rows.iter().map(|&row| value(row, state)).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn lengths_must_agree() {
        let (a, b) = ([0.0_f32; 4], [0.0_f32; 5]);
        let error = Columns::new(Layout::Columns(vec![&a, &b[..]]), &[true; 4]).unwrap_err();
        assert_eq!(error.to_string(), "columns: found 5 elements, need 4, as many as valid");
        assert!(Columns::new(Layout::Columns::<f32>(vec![]), &[true; 4]).is_err());
        assert!(Columns::new(Layout::Rows { values: &b, n_states: 2 }, &[true; 2]).is_err());
    }
}
