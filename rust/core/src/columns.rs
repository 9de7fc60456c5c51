//! Borrowed losses: T states of N examples, and which examples are valid. The only way to the kernels.
//!
//! Enters: T slices of N values (one per state, as they lie in memory-mapped columns), one row-major slice of N x T, or
//! T slices with a stride (views of either); in float32, float64, float16 or bfloat16. Leaves: *tiles* of [`LANES`]
//! examples, `[state][lane]` in float32, where the kernels work. Nothing is copied and nothing converted but on the
//! way into a tile: see [`crate::tile`] for how that goes and what it costs, [`crate::element`] for the types.
//!
//! Invalid examples never reach a tile: tiles are filled with the valid rows only. Where all rows of a stretch are
//! valid (nearly always) they are loaded as a range, else as a list of row numbers.

pub use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernels::Kernel;
pub use crate::tile::Strided;
use crate::tile::{States, Values};
use std::ops::Range;

/// Examples in a tile: one AVX-512 register of float32, two of AVX2, four of NEON.
pub const LANES: usize = 16;

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
    /// T slices, of which every so-manieth value is an example's: views of columns or of rows. States that lie side by
    /// side are found out and loaded together.
    Strided {
        /// T slices that begin at the first example's value and reach at least to the last one's.
        states: Vec<Strided<'a, E>>,
        /// N.
        n_examples: usize,
    },
}

/// N examples' losses under T states, and which of the examples are valid.
#[derive(Debug, Clone)]
pub struct Columns<'a> {
    values: Values<'a>,
    /// None: all of them.
    valid: Option<&'a [bool]>,
    n_examples: usize,
    n_states: usize,
    n_valid: usize,
}

impl<'a> Columns<'a> {
    /// Columns over a layout and a mask of its N examples.
    ///
    /// # Errors
    /// No state, or slices of unequal length.
    pub fn new<E: Element>(layout: Layout<'a, E>, valid: &'a [bool]) -> Result<Self> {
        let mut columns = Self::checked(layout, Some((valid.len(), "valid")))?;
        columns.n_valid = valid.iter().filter(|&&valid| valid).count();
        columns.valid = Some(valid);
        Ok(columns)
    }

    /// Columns over a layout whose N examples are all valid.
    ///
    /// # Errors
    /// No state, or slices of unequal length.
    pub fn all_valid<E: Element>(layout: Layout<'a, E>) -> Result<Self> {
        Self::checked(layout, None)
    }

    /// Columns of `n_examples` and whose number that is, or of as many as the layout has; all of them valid.
    fn checked<E: Element>(layout: Layout<'a, E>, expected: Option<(usize, &'static str)>) -> Result<Self> {
        let (states, n_examples) = match layout {
            Layout::Columns(columns) => {
                let (expected, of) =
                    expected.unwrap_or((columns.first().map_or(0, |c| c.len()), "columns[0]"));
                if let Some(column) = columns.iter().find(|column| column.len() != expected) {
                    return Err(Error::Length { argument: "columns", found: column.len(), expected, of });
                }
                (columns.into_iter().map(|values| Strided { values, stride: 1 }).collect(), expected)
            }
            Layout::Rows { n_states: 0, .. } => return Err(Error::NoStates),
            Layout::Rows { values, n_states } => {
                let n_examples = expected.map_or(values.len() / n_states, |(n_examples, _)| n_examples);
                if values.len() != n_examples * n_states {
                    return Err(Error::Length {
                        argument: "columns",
                        found: values.len(),
                        expected: n_examples * n_states,
                        of: "valid times states",
                    });
                }
                let state = |state| Strided { values: values.get(state..).unwrap_or(&[]), stride: n_states };
                ((0..n_states).map(state).collect::<Vec<_>>(), n_examples)
            }
            Layout::Strided { states, .. } if states.is_empty() => return Err(Error::NoStates),
            Layout::Strided { states, n_examples } => {
                if let Some((expected, of)) = expected.filter(|(expected, _)| *expected != n_examples) {
                    return Err(Error::Length { argument: "columns", found: n_examples, expected, of });
                }
                for &Strided { values, stride } in &states {
                    let least = if n_examples == 0 { 0 } else { (n_examples - 1) * stride + 1 };
                    if values.len() < least || stride == 0 {
                        return Err(Error::Stride { found: values.len(), stride, n_examples });
                    }
                }
                (states, n_examples)
            }
        };
        if states.is_empty() {
            return Err(Error::NoStates);
        }
        let n_states = states.len();
        Ok(Self {
            values: E::wrap(States::new(&states)),
            valid: None,
            n_examples,
            n_states,
            n_valid: n_examples,
        })
    }

    /// N, valid or not.
    #[must_use]
    pub fn n_examples(&self) -> usize {
        self.n_examples
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

    /// Which examples are valid; None: all of them.
    #[must_use]
    pub fn valid(&self) -> Option<&'a [bool]> {
        self.valid
    }

    /// Whether an example is valid.
    ///
    /// # Panics
    /// A row number beyond N.
    #[must_use]
    pub fn is_valid(&self, row: usize) -> bool {
        self.valid.is_none_or(|valid| valid[row])
    }

    /// Whether all examples of a range are valid.
    ///
    /// # Panics
    /// A range beyond N.
    #[must_use]
    pub fn are_valid(&self, rows: Range<usize>) -> bool {
        // Without a way out in the middle, so that the compiler compares many at a time.
        self.valid.is_none_or(|valid| valid[rows].iter().fold(true, |all, &valid| all & valid))
    }

    /// The row numbers of a range that are valid, ascending.
    pub fn valid_rows(&self, rows: Range<usize>) -> impl Iterator<Item = usize> + use<'a> {
        let valid = self.valid;
        rows.filter(move |&row| valid.is_none_or(|valid| valid[row]))
    }

    /// Fills `tile` (`[state][lane]`, T x 16) with one to sixteen rows; lanes beyond the last one repeat it.
    ///
    /// Of each loss the value of `minus` (`[state]`) for its state is subtracted: zeros leave all as it is.
    ///
    /// # Panics
    /// A row number beyond N, no row or more than sixteen, a tile of another size or not T numbers to subtract.
    pub fn load_tile(&self, rows: &[usize], minus: &[f32], tile: &mut [f32]) {
        self.values.load_rows(rows, minus, tile);
    }

    /// Fills `tiles` (`[tile][state][lane]`, one for every sixteen rows) with a range of rows; lanes beyond the last one
    /// repeat it. The faster way, the more so the longer the range: 512 rows are a good one.
    ///
    /// Of each loss the value of `minus` (`[state]`) for its state is subtracted: zeros leave all as it is.
    ///
    /// # Panics
    /// A range beyond N, tiles of another size or not T numbers to subtract.
    pub fn load_range(&self, rows: Range<usize>, minus: &[f32], tiles: &mut [f32]) {
        self.values.load_range(rows, minus, tiles);
    }

    /// Asks for a range of rows that will be loaded soon.
    pub fn prefetch(&self, rows: Range<usize>, kernel: Kernel) {
        self.values.prefetch(rows, kernel);
    }

    /// The given rows copied into T owned columns of float32: what a fit on part of the rows works on.
    #[must_use]
    pub fn gather(&self, rows: &[usize]) -> Vec<Vec<f32>> {
        let mut columns = vec![Vec::with_capacity(rows.len()); self.n_states];
        let (minus, mut tile) = (vec![0.0; self.n_states], vec![0.0; self.n_states * LANES]);
        for rows in rows.chunks(LANES) {
            self.load_tile(rows, &minus, &mut tile);
            for (column, lanes) in columns.iter_mut().zip(tile.chunks_exact(LANES)) {
                column.extend_from_slice(&lanes[..rows.len()]);
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_rows_are_columns() {
        let columns: Vec<Vec<f32>> = (0..3).map(|s| (0..50).map(|r| (r * 10 + s) as f32).collect()).collect();
        let all = Columns::all_valid(Layout::Columns(columns.iter().map(Vec::as_slice).collect())).unwrap();
        let rows: Vec<usize> = (0..40).map(|i| (i * 7) % 50).collect();
        for (gathered, column) in all.gather(&rows).iter().zip(&columns) {
            assert_eq!(*gathered, rows.iter().map(|&row| column[row]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_mask_says_which_rows_are_valid() {
        let column = [0.0_f32; 100];
        let valid: Vec<bool> = (0..100).map(|row| row % 10 != 3).collect();
        let some = Columns::new(Layout::Columns(vec![&column[..]]), &valid).unwrap();
        let all = Columns::all_valid(Layout::Columns(vec![&column[..]])).unwrap();
        assert_eq!((some.n_valid(), all.n_valid()), (90, 100));
        assert_eq!(some.valid_rows(2..15).collect::<Vec<_>>(), [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14]);
        assert!(all.valid_rows(2..15).eq(2..15));
        assert!(
            some.are_valid(4..13) && !some.are_valid(4..14) && some.are_valid(3..3) && all.are_valid(0..100)
        );
        assert!(!some.is_valid(93) && some.is_valid(94) && all.is_valid(93));
    }

    #[test]
    fn lengths_must_agree() {
        let (a, b) = ([0.0_f32; 4], [0.0_f32; 5]);
        let error = Columns::new(Layout::Columns(vec![&a, &b[..]]), &[true; 4]).unwrap_err();
        assert_eq!(error.to_string(), "columns: found 5 elements, need 4, as many as valid");
        assert!(Columns::new(Layout::Columns::<f32>(vec![]), &[true; 4]).is_err());
        assert!(Columns::new(Layout::Rows { values: &b, n_states: 2 }, &[true; 2]).is_err());
        assert!(Columns::all_valid(Layout::Rows { values: &b, n_states: 2 }).is_err());
        assert!(Columns::all_valid(Layout::Rows { values: &b, n_states: 0 }).is_err());
        let error = Columns::all_valid(Layout::Columns(vec![&a, &b[..]])).unwrap_err();
        assert_eq!(error.to_string(), "columns: found 5 elements, need 4, as many as columns[0]");
        let strided = |stride, n_examples| {
            let states = vec![Strided { values: &b[..], stride }];
            Columns::all_valid(Layout::Strided { states, n_examples }).map(|columns| columns.n_examples())
        };
        assert_eq!(
            (strided(2, 3), strided(4, 2), strided(9, 1), strided(1, 0)),
            (Ok(3), Ok(2), Ok(1), Ok(0))
        );
        assert!(strided(2, 4).is_err() && strided(0, 1).is_err());
        let message = strided(3, 3).unwrap_err().to_string();
        assert_eq!(message, "columns: found 5 elements with a stride of 3, too few for 3 examples");
    }
}
