//! Draws: from every cell its quota of examples.
//!
//! Without scores the examples with the smallest keyed hashes are drawn, which is a uniform draw without replacement;
//! with scores the largest, ties by keyed hash. Either way a larger quota contains a smaller one.
//!
//! One pass over the N examples marks those before their cell's `Fence`, in one bit each, and collects the places
//! of the few that the fence leaves open. From these the place of the last one drawn of each cell is known, and the
//! marks of those behind it are taken off. Nothing of size N is sorted or made but the marks.
//!
//! Cost per example: the cell, a hash and two comparisons, some 3 ns of one core (4.5 by score); memory: a bit. Per example
//! chosen: another hash, and the 8 bytes of its row number.

mod order;
#[cfg(test)]
mod tests;

use self::order::{ByKey, ByScore, Order};
use crate::cells::{Cells, PART_ROWS};
use crate::error::{Error, Result};
use crate::fences::{Fence, Place};
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::parallel::Team;
use crate::rng::{DRAW, Keys, TIE};
use crate::smallest::Smallest;

/// Examples that a sample of scores has, and how many more for each cell; but no more than a share of all of them,
/// since sorting one takes as long as a pass over thirty.
const SAMPLE_ROWS: usize = if cfg!(test) { 64 } else { 1 << 18 };
const SAMPLE_ROWS_PER_CELL: usize = if cfg!(test) { 16 } else { 4096 };
const SAMPLE_SHARE: usize = if cfg!(test) { 3 } else { 32 };

/// What a draw is made from.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// The cells of N examples.
    pub cells: Cells<'a>,
    /// How many to draw from each cell.
    pub quotas: &'a [i64],
    /// How many there are in each cell, as a census found them; None: they are counted first.
    pub sizes: Option<&'a [i64]>,
    /// The N examples' ids, all distinct; should two be equal after all, the smaller row goes first.
    pub ids: Ids<'a>,
    /// The N examples' scores, of which the largest are kept; None draws at random.
    pub scores: Option<&'a [f64]>,
    /// The seed.
    pub seed: u64,
}

/// What a worker found in its part of the pass.
struct Found<P> {
    /// How many came before each cell's fence.
    n_sure: Vec<usize>,
    /// The cells and places of those within.
    open: Vec<(u32, P)>,
    bad_row: usize,
    nan_row: usize,
}

/// The last one drawn of a cell.
#[derive(Clone, Copy)]
struct Last<P> {
    place: P,
    /// Of those at this very place, which only equal ids share, how many are drawn; None: all.
    n_equal: Option<usize>,
}

impl Draw<'_> {
    /// The rows drawn, ascending; as many as the quotas sum to.
    ///
    /// # Errors
    /// Unequal lengths, clusters or strata that there aren't, quotas beyond their cells, a NaN score in a cell, an
    /// interrupt.
    pub fn rows(&self, n_threads: usize, watch: &mut Watch) -> Result<Vec<i64>> {
        let n = self.cells.check_ids(self.ids)?;
        let n_cells = self.cells.n_cells()?;
        let lengths = [
            ("scores", self.scores.map(<[f64]>::len), n, "ids"),
            ("quotas", Some(self.quotas.len()), n_cells, "cells"),
            ("sizes", self.sizes.map(<[i64]>::len), n_cells, "cells"),
        ];
        for (argument, found, expected, of) in lengths {
            if let Some(found) = found.filter(|&found| found != expected) {
                return Err(Error::Length { argument, found, expected, of });
            }
        }
        let team = &self.cells.team(n_threads)?;
        watch.begin("drawing", 2 * n)?;
        let counted = if self.sizes.is_none() { self.cells.sizes(team, watch)? } else { Vec::new() };
        let sizes = self.sizes.unwrap_or(&counted);
        for (cell, (&quota, &size)) in self.quotas.iter().zip(sizes).enumerate() {
            check_quota(cell, quota, size)?;
        }
        let counts = || self.quotas.iter().zip(sizes).map(|(&quota, &size)| (quota as usize, size as usize));
        let keys = Keys::new(self.seed, if self.scores.is_some() { TIE } else { DRAW });
        if let Some(scores) = self.scores {
            return match self.ids {
                Ids::RowNumbers(_) => {
                    self.by_score(&ByScore(scores, move |row| keys.key(row as u64)), counts(), team, watch)
                }
                Ids::Given(ids) => {
                    self.by_score(&ByScore(scores, move |row| keys.key(ids[row])), counts(), team, watch)
                }
            };
        }
        let fences = counts().map(|(quota, size)| Fence::of_keys(quota, size));
        match self.ids {
            Ids::RowNumbers(_) => self.by(&ByKey(move |row| keys.key(row as u64)), fences, team, watch),
            Ids::Given(ids) => self.by(&ByKey(move |row| keys.key(ids[row])), fences, team, watch),
        }
    }

    /// The rows drawn in an order whose fences a sample of the rows tells.
    fn by_score<O: Order>(
        &self,
        order: &O,
        counts: impl ExactSizeIterator<Item = (usize, usize)>,
        team: &Team,
        watch: &mut Watch,
    ) -> Result<Vec<i64>> {
        let n = self.ids.len();
        let n_rows = (SAMPLE_ROWS + SAMPLE_ROWS_PER_CELL * counts.len()).min(n / SAMPLE_SHARE);
        let spots = Keys::new(self.seed, TIE);
        let mut sample = vec![Vec::new(); counts.len()];
        for index in 0..n_rows {
            // One row out of each stretch of them, wherever the key says.
            let (first, next) = (index * n / n_rows, (index + 1) * n / n_rows);
            let row = first + (spots.key(index as u64) % (next - first) as u64) as usize;
            // What is wrong with a row is for the pass over all of them to say.
            let places = sample.get_mut(self.cells.cell(row) as u32 as usize);
            if let Some(places) = places.filter(|_| !order.refuses(row)) {
                places.push(order.place(row));
            }
        }
        let fences =
            counts.zip(&mut sample).map(|((quota, size), places)| Fence::of_sample(quota, size, places));
        self.by(order, fences, team, watch)
    }

    /// The rows drawn in an order, given a fence for each cell.
    fn by<O: Order>(
        &self,
        order: &O,
        fences: impl Iterator<Item = Fence<O::Place>>,
        team: &Team,
        watch: &mut Watch,
    ) -> Result<Vec<i64>> {
        let fences: Vec<_> = std::iter::once(Fence::SHUT).chain(fences).collect();
        let mut marks = vec![0; self.ids.len().div_ceil(64)];
        let found = self.mark(order, &fences, &mut marks, (team, watch))?;
        let mut lasts = self.settle(found);
        let missed: Vec<bool> =
            lasts.iter().zip(self.quotas).map(|(last, &quota)| last.is_none() && quota > 0).collect();
        if missed.contains(&true) {
            self.settle_missed(order, &missed, &mut lasts, &mut marks, (team, watch))?;
        }
        self.unmark(order, &lasts, &mut marks, (team, watch))?;
        let mut rows = marked(&marks, team);
        let more = |last: &Option<Last<_>>| last.is_some_and(|last| last.n_equal.is_some());
        if lasts.iter().any(more) {
            self.drop_equals(order, &mut lasts, &mut rows);
        }
        Ok(rows)
    }

    /// Marks the rows before their cells' fences, collects what is open.
    fn mark<O: Order>(
        &self,
        order: &O,
        fences: &[Fence<O::Place>],
        marks: &mut [u64],
        (team, watch): (&Team, &mut Watch),
    ) -> Result<Vec<Found<O::Place>>> {
        let none = usize::MAX;
        let n_cells = self.quotas.len();
        let make = || Found { n_sure: vec![0; n_cells], open: Vec::new(), bad_row: none, nan_row: none };
        let found = self.cells.sweep(marks, (team, watch), make, |found, first, cells, marks| {
            let mut places = [O::Place::FIRST; 64];
            for ((mark, cells), first) in marks.iter_mut().zip(cells.chunks(64)).zip((first..).step_by(64)) {
                // Bits first and branches after: one row in so many is drawn, which no CPU foresees.
                let (mut sure, mut may, mut refused) = (0, 0, 0);
                for ((lane, place), &cell) in places.iter_mut().enumerate().zip(cells) {
                    let row = first + lane;
                    let Some(fence) = fences.get(cell.wrapping_add(1) as u32 as usize) else {
                        found.bad_row = found.bad_row.min(row);
                        continue;
                    };
                    *place = order.place(row);
                    sure |= u64::from(*place < fence.sure) << lane;
                    may |= u64::from(*place < fence.open) << lane;
                    refused |= u64::from(order.refuses(row)) << lane;
                }
                *mark = may;
                for lane in ones(sure) {
                    found.n_sure[cells[lane] as usize] += 1;
                }
                for lane in ones(may & !sure) {
                    found.open.push((cells[lane] as u32, places[lane]));
                }
                for lane in ones(refused).filter(|lane| cells[*lane] >= 0) {
                    found.nan_row = found.nan_row.min(first + lane);
                }
            }
        })?;
        if let Some(row) = found.iter().map(|found| found.bad_row).min().filter(|row| *row != none) {
            return Err(self.cells.refusal(row));
        }
        if let Some(row) = found.iter().map(|found| found.nan_row).min().filter(|row| *row != none) {
            return Err(Error::NanScore { row, cell: self.cells.cell(row) });
        }
        Ok(found)
    }

    /// The last one drawn of each cell; None where nothing is to be drawn or the fence missed.
    fn settle<P: Place>(&self, found: Vec<Found<P>>) -> Vec<Option<Last<P>>> {
        let n_cells = self.quotas.len();
        let mut ends = vec![0; n_cells + 1];
        let mut n_sure = vec![0; n_cells];
        for found in &found {
            n_sure.iter_mut().zip(&found.n_sure).for_each(|(sum, n)| *sum += n);
            found.open.iter().for_each(|&(cell, _)| ends[cell as usize + 1] += 1);
        }
        for cell in 0..n_cells {
            ends[cell + 1] += ends[cell];
        }
        let starts = ends.clone();
        let mut places = vec![P::FIRST; ends[n_cells]];
        for (cell, place) in found.into_iter().flat_map(|found| found.open) {
            places[ends[cell as usize]] = place;
            ends[cell as usize] += 1;
        }
        let settle = |cell: usize| {
            let quota = self.quotas[cell] as usize;
            let places = &mut places[starts[cell]..starts[cell + 1]];
            let index = quota.checked_sub(n_sure[cell] + 1).filter(|index| *index < places.len())?;
            let (before, &mut place, after) = places.select_nth_unstable(index);
            let n_equal = before.iter().filter(|other| **other == place).count() + 1;
            Some(Last { place, n_equal: after.contains(&place).then_some(n_equal) })
        };
        (0..n_cells).map(settle).collect()
    }

    /// The last one drawn of each cell whose fence missed, by looking at all of the cell; marks all of it.
    ///
    /// This is how a wrong size, unlucky ids and one draw in a million end.
    fn settle_missed<O: Order>(
        &self,
        order: &O,
        missed: &[bool],
        lasts: &mut [Option<Last<O::Place>>],
        marks: &mut [u64],
        (team, watch): (&Team, &mut Watch),
    ) -> Result<()> {
        // One more than the quota: does it share the place of the last one?
        let keep = |cell: usize| if missed[cell] { self.quotas[cell] as usize + 1 } else { 0 };
        let make = || (0..missed.len()).map(|cell| (0_i64, Smallest::new(keep(cell)))).collect::<Vec<_>>();
        let mut states = self.cells.sweep(marks, (team, watch), make, |state, first, cells, marks| {
            for (index, &cell) in cells.iter().enumerate().filter(|(_, cell)| **cell >= 0) {
                if missed[cell as usize] {
                    let (size, smallest) = &mut state[cell as usize];
                    *size += 1;
                    smallest.push(order.place(first + index));
                    marks[index / 64] |= 1 << (index % 64);
                }
            }
        })?;
        for cell in (0..missed.len()).filter(|cell| missed[*cell]) {
            let (mut size, mut smallest) = (0, Smallest::new(keep(cell)));
            for state in &mut states {
                let (n, part) = std::mem::replace(&mut state[cell], (0, Smallest::new(0)));
                size += n;
                smallest.merge(part);
            }
            check_quota(cell, self.quotas[cell], size)?;
            let (places, quota) = (smallest.into_sorted(), self.quotas[cell] as usize);
            let place = places[quota - 1];
            let n_equal = places[..quota].iter().filter(|other| **other == place).count();
            lasts[cell] =
                Some(Last { place, n_equal: (places.get(quota) == Some(&place)).then_some(n_equal) });
        }
        Ok(())
    }

    /// Takes the marks off those behind the last ones drawn.
    fn unmark<O: Order>(
        &self,
        order: &O,
        lasts: &[Option<Last<O::Place>>],
        marks: &mut [u64],
        (team, watch): (&Team, &mut Watch),
    ) -> Result<()> {
        let sweep = self.cells.sweep(
            marks,
            (team, watch),
            || (),
            |(), first, cells, marks| {
                for ((mark, cells), first) in
                    marks.iter_mut().zip(cells.chunks(64)).zip((first..).step_by(64))
                {
                    for lane in ones(*mark) {
                        let last =
                            lasts[cells[lane] as usize].as_ref().expect("something of the cell is drawn");
                        *mark &= !(u64::from(order.place(first + lane) > last.place) << lane);
                    }
                }
            },
        );
        sweep.map(|_| ())
    }

    /// Drops, of the rows at the place of the last one drawn, those that are too many.
    fn drop_equals<O: Order>(&self, order: &O, lasts: &mut [Option<Last<O::Place>>], rows: &mut Vec<i64>) {
        rows.retain(|&row| {
            let last = lasts[self.cells.cell(row as usize) as usize].as_mut();
            let Some(Last { place, n_equal: Some(left) }) = last else { return true };
            if order.place(row as usize) != *place {
                return true;
            }
            let drawn = *left > 0;
            *left -= usize::from(drawn);
            drawn
        });
    }
}

fn check_quota(cell: usize, quota: i64, size: i64) -> Result<()> {
    if quota < 0 {
        let (found, most) = (quota.into(), size.into());
        return Err(Error::Element { argument: "quotas", index: cell, found, least: 0, most });
    }
    if quota > size {
        return Err(Error::Quota { cell, quota, size: size as usize });
    }
    Ok(())
}

/// The numbers of the ones in a word, ascending.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = (word != 0).then_some(word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(lane)
    })
}

/// The numbers of all marks, ascending.
fn marked(marks: &[u64], team: &Team) -> Vec<i64> {
    let count = |marks: &[u64]| marks.iter().map(|mark| mark.count_ones() as usize).sum::<usize>();
    let mut rows = vec![0; count(marks)];
    let mut parts = Vec::new();
    let mut left = &mut rows[..];
    for (part, marks) in marks.chunks(PART_ROWS / 64).enumerate() {
        let (mine, others) = left.split_at_mut(count(marks));
        left = others;
        parts.push((part * PART_ROWS, marks, mine));
    }
    team.each(&mut team.workers(|| ()), parts, |(), (first, marks, rows)| {
        let all = marks.iter().zip((first..).step_by(64));
        let all = all.flat_map(|(&mark, first)| ones(mark).map(move |lane| first + lane));
        rows.iter_mut().zip(all).for_each(|(row, number)| *row = number as i64);
    });
    rows
}
