//! Draws: from every cell its quota of examples.
//!
//! A cell is whatever has a quota: a cluster, a stratum, a cluster's part of a stratum. Without scores the
//! examples with the smallest keyed hashes are drawn, which is a uniform draw without replacement; with scores the
//! largest, ties by keyed hash. Either way a larger quota contains a smaller one.
//!
//! One pass over the N cells and no sort of them; memory is O(cells + chosen). Cost per example: a hash and a
//! comparison, some 3 ns.

use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::rng::{DRAW, Keys, TIE};
use crate::smallest::Smallest;

/// Examples between two looks at the watch.
const BATCH: usize = 1 << 20;

/// What a draw is made from.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// The cell of each of N examples; -1 is never drawn.
    pub cells: &'a [i32],
    /// How many to draw from each cell.
    pub quotas: &'a [i64],
    /// The N examples' ids, all distinct; should two be equal after all, the smaller row goes first.
    pub ids: Ids<'a>,
    /// The N examples' scores, of which the largest are kept; None draws at random.
    pub scores: Option<&'a [f64]>,
    /// The seed.
    pub seed: u64,
}

/// Place of a score in a descending order; equal for 0.0 and -0.0. NaN must be refused before.
fn descending(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 63 == 0 { !(bits | 1 << 63) } else { bits }
}

impl Draw<'_> {
    /// The rows drawn, ascending; as many as the quotas sum to.
    ///
    /// # Errors
    /// Unequal lengths, cells beyond the quotas, quotas beyond their cells, a NaN score in a cell, an interrupt.
    pub fn rows(&self, watch: &mut Watch) -> Result<Vec<i64>> {
        let sizes = self.check()?;
        for (cell, (&quota, &size)) in self.quotas.iter().zip(&sizes).enumerate() {
            if quota < 0 {
                let most = size as i128;
                return Err(Error::Element {
                    argument: "quotas",
                    index: cell,
                    found: quota.into(),
                    least: 0,
                    most,
                });
            }
            if quota as u64 > size as u64 {
                return Err(Error::Quota { cell, quota, size });
            }
        }
        let mut chosen: Vec<Smallest<(u64, u64, usize)>> =
            self.quotas.iter().map(|&quota| Smallest::new(quota as usize)).collect();
        let keys = Keys::new(self.seed, if self.scores.is_some() { TIE } else { DRAW });
        watch.begin("drawing", self.cells.len())?;
        for first in (0..self.cells.len()).step_by(BATCH) {
            let rows = first..self.cells.len().min(first + BATCH);
            watch.advance(rows.len())?;
            for row in rows {
                let cell = self.cells[row];
                if cell >= 0 {
                    let score = self.scores.map_or(0, |scores| descending(scores[row]));
                    chosen[cell as usize].push((score, keys.key(self.ids.get(row)), row));
                }
            }
        }
        let mut rows: Vec<i64> =
            chosen.into_iter().flat_map(Smallest::into_sorted).map(|(_, _, row)| row as i64).collect();
        rows.sort_unstable();
        Ok(rows)
    }

    /// Checks everything that is said about single examples; returns the size of each cell.
    fn check(&self) -> Result<Vec<usize>> {
        let expected = self.cells.len();
        let lengths = [("ids", Some(self.ids.len())), ("scores", self.scores.map(<[f64]>::len))];
        for (argument, found) in lengths {
            if let Some(found) = found.filter(|&found| found != expected) {
                return Err(Error::Length { argument, found, expected, of: "cells" });
            }
        }
        let sizes = cell_sizes(self.cells, self.quotas.len())?;
        if let Some(scores) = self.scores {
            let nan = |&row: &usize| self.cells[row] >= 0 && scores[row].is_nan();
            if let Some(row) = (0..expected).find(nan) {
                return Err(Error::NanScore { row, cell: self.cells[row] });
            }
        }
        Ok(sizes)
    }
}

/// How many examples are in each of `n_cells` cells.
///
/// # Errors
/// A cell below -1 or beyond the last.
pub fn cell_sizes(cells: &[i32], n_cells: usize) -> Result<Vec<usize>> {
    let mut sizes = vec![0; n_cells];
    for (index, &cell) in cells.iter().enumerate() {
        if cell == -1 {
            continue;
        }
        if cell < 0 || cell as usize >= n_cells {
            let (found, most) = (i128::from(cell), n_cells as i128 - 1);
            return Err(Error::Element { argument: "cells", index, found, least: -1, most });
        }
        sizes[cell as usize] += 1;
    }
    Ok(sizes)
}

/// The smallest key (for breaking ties) among each cell's members, `u64::MAX` where it has none.
///
/// # Errors
/// Unequal lengths, or a cell below -1 or beyond the last.
pub fn smallest_keys(cells: &[i32], n_cells: usize, ids: Ids, seed: u64) -> Result<Vec<u64>> {
    if ids.len() != cells.len() {
        return Err(Error::Length { argument: "ids", found: ids.len(), expected: cells.len(), of: "cells" });
    }
    cell_sizes(cells, n_cells)?;
    let keys = Keys::new(seed, TIE);
    let mut smallest = vec![u64::MAX; n_cells];
    for (row, &cell) in cells.iter().enumerate() {
        if cell >= 0 {
            let least = &mut smallest[cell as usize];
            *least = (*least).min(keys.key(ids.get(row)));
        }
    }
    Ok(smallest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::ControlFlow;

    fn drawn(draw: Draw) -> Result<Vec<i64>> {
        draw.rows(&mut Watch::new(&mut |_, _, _| ControlFlow::Continue(())))
    }

    /// The obvious way: sort every cell, take its first.
    fn naive(draw: Draw) -> Vec<i64> {
        let keys = Keys::new(draw.seed, if draw.scores.is_some() { TIE } else { DRAW });
        let mut rows = Vec::new();
        for (cell, &quota) in draw.quotas.iter().enumerate() {
            let mut members: Vec<usize> =
                (0..draw.cells.len()).filter(|&row| draw.cells[row] == cell as i32).collect();
            members.sort_by(|&a, &b| {
                let by_score =
                    draw.scores.map_or(std::cmp::Ordering::Equal, |s| s[b].partial_cmp(&s[a]).unwrap());
                by_score.then(keys.key(draw.ids.get(a)).cmp(&keys.key(draw.ids.get(b))))
            });
            rows.extend(members[..quota as usize].iter().map(|&row| row as i64));
        }
        rows.sort_unstable();
        rows
    }

    proptest! {
        #[test]
        fn equals_sorting_every_cell(
            examples in prop::collection::vec((-1_i32..4, prop::sample::select(
                vec![0.0, -0.0, 1.0, -1.0, 2.5, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -5e-324])), 0..400),
            fractions in prop::array::uniform4(0.0_f64..=1.0), seed: u64, scored: bool,
        ) {
            let (cells, scores): (Vec<i32>, Vec<f64>) = examples.into_iter().unzip();
            let ids: Vec<u64> = (0..cells.len() as u64).map(|i| i * i + 3).collect();
            let sizes = cell_sizes(&cells, 4).unwrap();
            let quotas: Vec<i64> = sizes.iter().zip(fractions).map(|(&n, f)| (n as f64 * f) as i64).collect();
            let given = Ids::Given(&ids);
            let draw = Draw { cells: &cells, quotas: &quotas, ids: given, scores: scored.then_some(&scores[..]), seed };
            let rows = drawn(draw).unwrap();
            prop_assert_eq!(&rows, &naive(draw));
            prop_assert!(rows.is_sorted());
            // The draw of less lies inside the draw of more, and the ids drawn don't depend on the order of rows.
            let less: Vec<i64> = quotas.iter().map(|quota| quota / 2).collect();
            let inside = drawn(Draw { quotas: &less, ..draw }).unwrap();
            prop_assert!(inside.iter().all(|row| rows.binary_search(row).is_ok()));
            let reversed = |n: usize| (0..n).rev();
            let back_cells: Vec<i32> = reversed(cells.len()).map(|i| cells[i]).collect();
            let back_ids: Vec<u64> = reversed(cells.len()).map(|i| ids[i]).collect();
            let back_scores: Vec<f64> = reversed(cells.len()).map(|i| scores[i]).collect();
            let back = drawn(Draw {
                cells: &back_cells, ids: Ids::Given(&back_ids), scores: scored.then_some(&back_scores[..]), ..draw
            }).unwrap();
            let mut back: Vec<i64> = back.iter().map(|row| cells.len() as i64 - 1 - row).collect();
            back.sort_unstable();
            prop_assert_eq!(back, rows);
        }
    }

    #[test]
    fn refusals() {
        let draw = Draw {
            cells: &[0, -1, 1, 0],
            quotas: &[1, 1],
            ids: Ids::Given(&[1, 2, 3, 4]),
            scores: None,
            seed: 0,
        };
        let nan = [0.0, f64::NAN, f64::NAN, 0.0];
        for (draw, message) in [
            (Draw { ids: Ids::Given(&[1]), ..draw }, "ids: found 1 elements, need 4, as many as cells"),
            (Draw { scores: Some(&[1.0]), ..draw }, "scores: found 1 elements, need 4, as many as cells"),
            (Draw { cells: &[0, 2, 0, 0], ..draw }, "cells: found 2 at index 1, allowed are -1 to 1"),
            (Draw { cells: &[0, 1, -2, 0], ..draw }, "cells: found -2 at index 2, allowed are -1 to 1"),
            (Draw { quotas: &[3, 1], ..draw }, "quotas: found 3 for cell 0, which has 2 examples"),
            (Draw { quotas: &[1, -1], ..draw }, "quotas: found -1 at index 1, allowed are 0 to 1"),
            (
                Draw { scores: Some(&nan), ..draw },
                "scores: found NaN in row 2, which is in cell 1; only rows outside all cells may be NaN",
            ),
        ] {
            assert_eq!(drawn(draw).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn smallest_keys_of_cells() {
        let keys = Keys::new(9, TIE);
        let found = smallest_keys(&[0, 2, 0, -1], 3, Ids::Given(&[5, 6, 7, 8]), 9).unwrap();
        assert_eq!(found, [keys.key(5).min(keys.key(7)), u64::MAX, keys.key(6)]);
    }
}
