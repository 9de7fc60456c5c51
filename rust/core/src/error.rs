//! What can be wrong: one enum, whose variants carry the numbers they complain about.
//!
//! A message names the argument, what was found and what is allowed; whoever shows it adds nothing.

use std::fmt;

/// Everything that the core refuses, and the caller's own wish to stop.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// An argument of another length than the others.
    Length {
        /// Name of the argument.
        argument: &'static str,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
        /// Whose length that is.
        of: &'static str,
    },
    /// A number outside its range.
    Range {
        /// Name of the argument.
        argument: &'static str,
        /// Its value.
        found: i128,
        /// The smallest value allowed.
        least: i128,
        /// The largest value allowed.
        most: i128,
    },
    /// A share outside 0 to 1.
    Share {
        /// Name of the argument.
        argument: &'static str,
        /// Its value.
        found: f64,
    },
    /// A name that is not in its list.
    Name {
        /// Name of the argument.
        argument: &'static str,
        /// Its value.
        found: String,
        /// The names allowed, with commas between them.
        allowed: String,
    },
    /// A state whose slice doesn't reach to its last example, or that doesn't get on from one to the next.
    Stride {
        /// The slice's length.
        found: usize,
        /// Its stride.
        stride: usize,
        /// How many examples there are.
        n_examples: usize,
    },
    /// No state at all.
    NoStates,
    /// Nothing to cluster.
    NoValidRows {
        /// How many examples there are, all of them invalid.
        n_examples: usize,
    },
    /// A shape that needs more states than there are.
    TooFewStates {
        /// Name of the shape.
        shape: &'static str,
        /// How many states there are.
        found: usize,
        /// How many the shape needs.
        least: usize,
    },
    /// A valid example with a value that is not a finite number, as it is or once shaped.
    NotFinite {
        /// Row of the example.
        row: usize,
        /// Number of the state, after shaping.
        state: usize,
        /// The value found.
        value: f32,
        /// Name of the shape it was found in.
        shape: &'static str,
    },
    /// A valid example with a value whose square distances would leave float32.
    TooLarge {
        /// Row of the example.
        row: usize,
        /// Number of the state, after shaping.
        state: usize,
        /// The value found.
        value: f32,
        /// The largest magnitude allowed.
        most: f32,
    },
    /// A coordinate of a centroid to start from that is not a finite number, or too large.
    InitValue {
        /// Its place among all coordinates.
        index: usize,
        /// The value found.
        value: f32,
        /// The largest magnitude allowed.
        most: f32,
    },

    /// Nothing that says which examples there are.
    NoCells,
    /// A budget beyond what there is.
    Budget {
        /// The budget.
        budget: i64,
        /// The sum of the sizes.
        available: i128,
    },
    /// A quota beyond its cell.
    Quota {
        /// Number of the cell.
        cell: usize,
        /// Its quota.
        quota: i64,
        /// How many examples are in it.
        size: usize,
    },
    /// An element of an argument outside its range.
    Element {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the element.
        index: usize,
        /// Its value.
        found: i128,
        /// The smallest value allowed.
        least: i128,
        /// The largest value allowed.
        most: i128,
    },
    /// A score that can't be ranked.
    NanScore {
        /// Row of the example.
        row: usize,
        /// The cell it is in.
        cell: i32,
    },
    /// Threads that the operating system would not start.
    Threads {
        /// How many were asked for.
        n_threads: usize,
        /// What the operating system said.
        reason: String,
    },
    /// The caller asked to stop.
    Interrupted,
}

/// `Result` with our [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The same error where its row is the place of one in `rows`.
    #[must_use]
    pub fn in_rows(mut self, rows: &[usize]) -> Self {
        if let Self::NotFinite { row, .. } | Self::TooLarge { row, .. } = &mut self {
            *row = rows[*row];
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { argument, found, expected, of } => {
                write!(f, "{argument}: found {found} elements, need {expected}, as many as {of}")
            }
            Self::Range { argument, found, least, most } => {
                write!(f, "{argument}: found {found}, allowed are {least} to {most}")
            }
            Self::Name { argument, found, allowed } => {
                write!(f, "{argument}: found {found:?}, allowed are {allowed}")
            }
            Self::Share { argument, found } => write!(f, "{argument}: found {found}, allowed are 0 to 1"),
            Self::InitValue { index, value, most } => {
                write!(
                    f,
                    "init: found {value:e} at index {index}, allowed are finite numbers of magnitudes up to {most:e}"
                )
            }
            Self::Stride { found, stride, n_examples } => {
                write!(
                    f,
                    "columns: found {found} elements with a stride of {stride}, too few for {n_examples} examples"
                )
            }
            Self::NoStates => write!(f, "columns: found no state, need at least one"),
            Self::NoValidRows { n_examples } => {
                write!(f, "valid: found no valid example among {n_examples}, need at least one")
            }
            Self::TooFewStates { shape, found, least } => {
                write!(f, "shape: {shape:?} needs at least {least} states, found {found}")
            }
            Self::NotFinite { row, state, value, shape } => {
                write!(
                    f,
                    "columns: found {value} in row {row}, state {state} (shape {shape:?}), \
                     but the row is marked valid; valid rows need finite values"
                )
            }
            Self::TooLarge { row, state, value, most } => {
                write!(
                    f,
                    "columns: found {value:e} in row {row}, state {state}, allowed are magnitudes up to {most:e}"
                )
            }
            Self::NoCells => {
                write!(f, "cells: found neither clusters nor strata nor excluded, need one of them")
            }
            Self::Budget { budget, available } => {
                write!(f, "budget: found {budget}, allowed are 0 to {available}, the sum of the sizes")
            }
            Self::Quota { cell, quota, size } => {
                write!(f, "quotas: found {quota} for cell {cell}, which has {size} examples")
            }
            Self::Element { argument, index, found, least, most } => {
                write!(f, "{argument}: found {found} at index {index}, allowed are {least} to {most}")
            }
            Self::NanScore { row, cell } => {
                write!(
                    f,
                    "scores: found NaN in row {row}, which is in cell {cell}; only rows outside all cells may be NaN"
                )
            }
            Self::Threads { n_threads, reason } => {
                write!(f, "n_threads: could not start {n_threads} threads: {reason}")
            }
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for Error {}
