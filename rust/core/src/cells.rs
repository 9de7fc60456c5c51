//! Cells: stratum x cluster, the groups that share a budget, and how many examples each holds.
//!
//! The cell of an example is worked out where it is needed, from the cluster and the stratum that lie in memory
//! anyway: a vector of cells would be another 4 bytes per example. It is worked out for a block of examples at a
//! time, in the first-level cache; where the clusters are the cells, they are read where they lie. Cost: less than
//! a nanosecond per example, and a hash where smallest keys are asked for.

use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::parallel::Team;
use crate::rng::Keys;
use std::ops::Range;

/// Rows whose cells are worked out at a time: 16 KB of them, half a first-level cache.
const BLOCK_ROWS: usize = 4096;
/// Rows that a worker takes at a time, a multiple of 64. (Tests, being small, take small bites, so as to see several.)
pub const PART_ROWS: usize = if cfg!(test) { 128 } else { 1 << 16 };
/// Rows between two looks at the watch: some tens of milliseconds.
pub const BATCH_ROWS: usize = if cfg!(test) { 512 } else { 1 << 23 };
/// Examples per cell that a worker's own table of cells is worth: with fewer there are fewer workers, so that
/// tables don't outgrow the examples.
const ROWS_PER_CELL: usize = 8;

/// Among cells, "there is no such cluster or stratum"; -1 is "in no cell".
const BAD: i32 = i32::MIN;

/// A group for each of N examples, by number.
#[derive(Debug, Clone, Copy)]
pub struct Numbers<'a> {
    /// N numbers from -1 on.
    pub of: &'a [i32],
    /// How many groups there are.
    pub n: usize,
}

/// Where N examples are: in which cluster, in which stratum, or in no cell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cells<'a> {
    /// The clusters, -1 for none; None: all examples are in one.
    pub clusters: Option<Numbers<'a>>,
    /// The strata, -1 for the last of them; None: all examples are in one.
    pub strata: Option<Numbers<'a>>,
    /// Not 0 for each of N examples that is in no cell, whatever its numbers are; None: those without a cluster only.
    pub excluded: Option<&'a [u8]>,
}

/// What a pass over the examples found in each of the cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Examples per cell.
    pub sizes: Vec<i64>,
    /// The smallest key among each cell's examples, `u64::MAX` where it has none.
    pub smallest: Vec<u64>,
}

impl<'a> Cells<'a> {
    /// Cells that are clusters.
    #[must_use]
    pub fn of_clusters(of: &'a [i32], n: usize) -> Self {
        Self { clusters: Some(Numbers { of, n }), ..Self::default() }
    }

    /// How many cells there are, numbered `stratum * n_clusters + cluster`.
    ///
    /// # Errors
    /// None, or more than 2^31 - 2.
    pub fn n_cells(&self) -> Result<usize> {
        let [clusters, strata] =
            [self.clusters, self.strata].map(|numbers| numbers.map_or(1, |numbers| numbers.n));
        let (found, most) = (clusters as i128 * strata as i128, i128::from(i32::MAX - 1));
        if !(1..=most).contains(&found) {
            return Err(Error::Range { argument: "cells", found, least: 1, most });
        }
        Ok(clusters * strata)
    }

    /// N.
    ///
    /// # Errors
    /// Unequal lengths, or nothing that says how many examples there are.
    pub fn n_examples(&self) -> Result<usize> {
        let lengths = [
            ("clusters", self.clusters.map(|clusters| clusters.of.len())),
            ("strata", self.strata.map(|strata| strata.of.len())),
            ("excluded", self.excluded.map(<[u8]>::len)),
        ];
        let mut known = lengths.into_iter().filter_map(|(argument, found)| Some((argument, found?)));
        let (of, expected) = known.next().ok_or(Error::NoCells)?;
        match known.find(|&(_, found)| found != expected) {
            Some((argument, found)) => Err(Error::Length { argument, found, expected, of }),
            None => Ok(expected),
        }
    }

    /// N, if there are as many ids.
    pub(crate) fn check_ids(&self, ids: Ids) -> Result<usize> {
        let expected = self.n_examples()?;
        if ids.len() != expected {
            return Err(Error::Length { argument: "ids", found: ids.len(), expected, of: "cells" });
        }
        Ok(expected)
    }

    /// At most `n_threads`, as many as have something to do.
    pub(crate) fn team(&self, n_threads: usize) -> Result<Team> {
        let n = self.n_examples()?;
        let most = n.div_ceil(PART_ROWS).min(n / (ROWS_PER_CELL * self.n_cells()?));
        Team::of_at_most(n_threads, most)
    }

    /// The cells of some rows, as many as the buffer holds at most: -1 for those in none, another number out of range
    /// for a cluster or a stratum that there isn't.
    fn block<'b>(&self, rows: Range<usize>, buffer: &'b mut [i32]) -> &'b [i32]
    where
        'a: 'b,
    {
        let buffer = &mut buffer[..rows.len()];
        match (self.clusters, self.strata) {
            (Some(clusters), None) if self.excluded.is_none() => return &clusters.of[rows],
            (Some(clusters), None) => buffer.copy_from_slice(&clusters.of[rows.clone()]),
            (None, None) => buffer.fill(0),
            (None, Some(strata)) => {
                for (cell, &code) in buffer.iter_mut().zip(&strata.of[rows.clone()]) {
                    *cell = strata.stratum(code);
                }
            }
            (Some(clusters), Some(strata)) => {
                let codes = strata.of[rows.clone()].iter().map(|&code| strata.stratum(code));
                let n = clusters.n as i32;
                for ((cell, &cluster), stratum) in
                    buffer.iter_mut().zip(&clusters.of[rows.clone()]).zip(codes)
                {
                    let bad = stratum == BAD || !(0..n).contains(&cluster);
                    let number = stratum.wrapping_mul(n).wrapping_add(cluster);
                    *cell = if bad { BAD } else { number };
                    *cell = if cluster == -1 { -1 } else { *cell };
                }
            }
        }
        if let Some(excluded) = self.excluded {
            for (cell, &excluded) in buffer.iter_mut().zip(&excluded[rows]) {
                *cell = if excluded == 0 { *cell } else { -1 };
            }
        }
        buffer
    }

    /// The cell of one row, as in [`Self::block`].
    pub(crate) fn cell(&self, row: usize) -> i32 {
        self.block(row..row + 1, &mut [0])[0]
    }

    /// The error that a row is whose cell is out of range.
    pub(crate) fn refusal(&self, row: usize) -> Error {
        for (argument, numbers) in [("clusters", self.clusters), ("strata", self.strata)] {
            if let Some(Numbers { of, n }) = numbers {
                let (found, most) = (i128::from(of[row]), n as i128 - 1);
                if found < -1 || found > most {
                    return Error::Element { argument, index: row, found, least: -1, most };
                }
            }
        }
        unreachable!("the row was refused because of one of its numbers")
    }

    /// Shows every row's cell to `visit`, on all threads, and returns the workers' states.
    ///
    /// `visit` gets its worker's state, the first row of a block, the cells of the block (as in [`Self::block`]),
    /// and its part of `words`, which has one word per 64 rows or none at all.
    ///
    /// # Errors
    /// An interrupt.
    pub(crate) fn sweep<S: Send>(
        &self,
        words: &mut [u64],
        (team, watch): (&Team, &mut Watch),
        make: impl Fn() -> S,
        visit: impl Fn(&mut S, usize, &[i32], &mut [u64]) + Sync,
    ) -> Result<Vec<S>> {
        let n = self.n_examples()?;
        let mut workers = team.workers(|| (make(), vec![0; BLOCK_ROWS]));
        let mut words = words.chunks_mut(PART_ROWS / 64);
        for first in (0..n).step_by(BATCH_ROWS) {
            let batch = first..n.min(first + BATCH_ROWS);
            let part = |first| (first..batch.end.min(first + PART_ROWS), words.next().unwrap_or_default());
            let parts = batch.clone().step_by(PART_ROWS).map(part).collect();
            team.each(&mut workers, parts, |(state, buffer), (rows, words)| {
                let mut words = words.chunks_mut(BLOCK_ROWS / 64);
                for first in rows.clone().step_by(BLOCK_ROWS) {
                    let cells = self.block(first..rows.end.min(first + BLOCK_ROWS), buffer);
                    visit(state, first, cells, words.next().unwrap_or_default());
                }
            });
            watch.advance(batch.len())?;
        }
        Ok(workers.into_states().map(|(state, _)| state).collect())
    }

    /// How many examples are in each cell, and the smallest key among them.
    ///
    /// # Errors
    /// Unequal lengths, a cluster or a stratum that there isn't, an interrupt.
    pub fn census(&self, ids: Ids, keys: Keys, n_threads: usize, watch: &mut Watch) -> Result<Census> {
        let n = self.check_ids(ids)?;
        let team = &self.team(n_threads)?;
        watch.begin("counting", n)?;
        match ids {
            Ids::RowNumbers(_) => self.count(|row| keys.key(row as u64), team, watch),
            Ids::Given(ids) => self.count(|row| keys.key(ids[row]), team, watch),
        }
    }

    /// How many examples are in each cell.
    pub(crate) fn sizes(&self, team: &Team, watch: &mut Watch) -> Result<Vec<i64>> {
        self.count(|_| u64::MAX, team, watch).map(|census| census.sizes)
    }

    fn count(&self, key: impl Fn(usize) -> u64 + Sync, team: &Team, watch: &mut Watch) -> Result<Census> {
        let n_cells = self.n_cells()?;
        let make = || (vec![(0, u64::MAX); n_cells], usize::MAX);
        let states = self.sweep(&mut [], (team, watch), make, |(counts, bad_row), first, cells, _| {
            for (row, &cell) in (first..).zip(cells).filter(|(_, cell)| **cell != -1) {
                match counts.get_mut(cell as u32 as usize) {
                    Some((size, smallest)) => {
                        *size += 1;
                        *smallest = key(row).min(*smallest);
                    }
                    None => *bad_row = row.min(*bad_row),
                }
            }
        })?;
        let mut census = Census { sizes: vec![0; n_cells], smallest: vec![u64::MAX; n_cells] };
        let mut bad_row = usize::MAX;
        for (counts, bad) in states {
            bad_row = bad.min(bad_row);
            for (cell, (size, smallest)) in counts.into_iter().enumerate() {
                census.sizes[cell] += size;
                census.smallest[cell] = smallest.min(census.smallest[cell]);
            }
        }
        if bad_row == usize::MAX { Ok(census) } else { Err(self.refusal(bad_row)) }
    }
}

impl Numbers<'_> {
    /// The number of a stratum by its code, of which -1 is the last.
    fn stratum(&self, code: i32) -> i32 {
        let number = if code == -1 { self.n as i32 - 1 } else { code };
        // Unsigned, a negative number is beyond any.
        if (number as u32) < self.n as u32 { number } else { BAD }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::TIE;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;

    fn census(cells: &Cells, ids: Ids, n_threads: usize) -> Result<Census> {
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        cells.census(ids, Keys::new(9, TIE), n_threads, &mut Watch::new(&mut go_on))
    }

    /// The obvious way: one example after the other into a map.
    fn naive(cells: &Cells, ids: Ids) -> Census {
        let n_clusters = cells.clusters.map_or(1, |clusters| clusters.n) as i32;
        let mut found: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
        for row in 0..cells.n_examples().unwrap() {
            let cluster = cells.clusters.map_or(0, |clusters| clusters.of[row]);
            let stratum = match cells.strata.map(|strata| (strata.of[row], strata.n as i32)) {
                Some((-1, n)) => n - 1,
                Some((code, _)) => code,
                None => 0,
            };
            if cluster >= 0 && cells.excluded.is_none_or(|excluded| excluded[row] == 0) {
                found
                    .entry(stratum * n_clusters + cluster)
                    .or_default()
                    .push(Keys::new(9, TIE).key(ids.get(row)));
            }
        }
        let of = |cell: usize| found.get(&(cell as i32)).map_or(&[][..], Vec::as_slice);
        let n_cells = cells.n_cells().unwrap();
        Census {
            sizes: (0..n_cells).map(|cell| of(cell).len() as i64).collect(),
            smallest: (0..n_cells).map(|cell| of(cell).iter().copied().min().unwrap_or(u64::MAX)).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_census_is_what_counting_finds(
            rows in prop::collection::vec((-1_i32..5, -1_i32..3, 0_u8..3), 0..3000), parts in 1_u8..8, given: bool,
        ) {
            let clusters: Vec<i32> = rows.iter().map(|row| row.0).collect();
            let strata: Vec<i32> = rows.iter().map(|row| row.1).collect();
            let excluded: Vec<u8> = rows.iter().map(|row| row.2 / 2 * 7).collect();
            let numbers: Vec<u64> = (0..rows.len() as u64).map(|row| row * 3 + 1).collect();
            let ids = if given { Ids::Given(&numbers) } else { Ids::RowNumbers(rows.len()) };
            let cells = Cells {
                clusters: (parts & 1 > 0).then_some(Numbers { of: &clusters, n: 5 }),
                strata: (parts & 2 > 0).then_some(Numbers { of: &strata, n: 3 }),
                excluded: (parts & 4 > 0).then_some(&excluded[..]),
            };
            let expected = naive(&cells, ids);
            for n_threads in [1, 2, 3, 8] {
                prop_assert_eq!(&census(&cells, ids, n_threads).unwrap(), &expected);
            }
        }
    }

    #[test]
    fn refusals() {
        let of = |of: &'static [i32], n| Some(Numbers { of, n });
        let ids = Ids::RowNumbers(4);
        let cells = Cells { clusters: of(&[0, -1, 1, 0], 2), strata: of(&[0, 0, -1, 1], 2), excluded: None };
        census(&cells, ids, 1).unwrap();
        for (cells, ids, message) in [
            (cells, Ids::Given(&[1]), "ids: found 1 elements, need 4, as many as cells"),
            (
                Cells::default(),
                ids,
                "cells: found neither clusters nor strata nor excluded, need one of them",
            ),
            (
                Cells { excluded: Some(&[0]), ..cells },
                ids,
                "excluded: found 1 elements, need 4, as many as clusters",
            ),
            (
                Cells { clusters: of(&[0, 2, 0, 0], 2), ..cells },
                ids,
                "clusters: found 2 at index 1, allowed are -1 to 1",
            ),
            (
                Cells::of_clusters(&[0, 1, -2, 0], 2),
                ids,
                "clusters: found -2 at index 2, allowed are -1 to 1",
            ),
            (
                Cells { strata: of(&[0, 9, 5, -2], 5), ..cells },
                ids,
                "strata: found 5 at index 2, allowed are -1 to 4",
            ),
            (
                Cells { strata: of(&[0, 9, 4, -2], 5), clusters: None, ..cells },
                ids,
                "strata: found 9 at index 1, allowed are -1 to 4",
            ),
            (Cells { strata: of(&[0; 4], 0), ..cells }, ids, "cells: found 0, allowed are 1 to 2147483646"),
            (
                Cells { clusters: of(&[0; 4], 1 << 16), strata: of(&[0; 4], 1 << 16), ..cells },
                ids,
                "cells: found 4294967296, allowed are 1 to 2147483646",
            ),
        ] {
            assert_eq!(census(&cells, ids, 2).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn who_is_excluded_may_have_any_number() {
        let cells = Cells { excluded: Some(&[0, 1]), ..Cells::of_clusters(&[0, 99], 1) };
        assert_eq!(census(&cells, Ids::RowNumbers(2), 1).unwrap().sizes, [1]);
    }
}
