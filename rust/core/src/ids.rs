//! Ids: what stands for the examples wherever chance or a tie decides.
//!
//! Losses that come as a bare array have no ids; their row numbers do, and cost no memory: a vector of them would
//! be 800 MB at 100 million rows.

/// The ids of N examples, all distinct.
#[derive(Debug, Clone, Copy)]
pub enum Ids<'a> {
    /// Row `i` has the id `i`; the number is N.
    RowNumbers(usize),
    /// One id per row.
    Given(&'a [u64]),
}

impl Ids<'_> {
    /// N.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::RowNumbers(n) => n,
            Self::Given(ids) => ids.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The id of a row.
    ///
    /// # Panics
    /// A row beyond the last of the given ids.
    #[must_use]
    #[inline]
    pub fn get(self, row: usize) -> u64 {
        match self {
            Self::RowNumbers(_) => row as u64,
            Self::Given(ids) => ids[row],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_numbers_are_what_they_stand_for() {
        let numbers: Vec<u64> = (0..10).collect();
        let (bare, given) = (Ids::RowNumbers(10), Ids::Given(&numbers));
        assert_eq!((bare.len(), bare.is_empty()), (given.len(), given.is_empty()));
        assert!((0..10).all(|row| bare.get(row) == given.get(row)));
        assert!(Ids::RowNumbers(0).is_empty() && Ids::Given(&[]).is_empty());
    }
}
