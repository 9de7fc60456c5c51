//! Draws: from every cell its quota of examples.
//!
//! Without scores the examples with the smallest keyed hashes are drawn, which is a uniform draw without replacement;
//! with scores the largest, ties by keyed hash. Either way a larger quota contains a smaller one.
//!
//! One pass over the N examples marks those before their cell's [`Fence`], in one bit each, and collects the places
//! of the few that the fence leaves open. From these the place of the last one drawn of each cell is known, and the
//! marks of those behind it are taken off. Nothing of size N is sorted or made but the marks.
//!
//! Cost per example: the cell, a hash and two comparisons, some 2 ns of one core; memory: a bit. Per example chosen:
//! another hash, and the 8 bytes of its row number.

use crate::cells::{Cells, PART_ROWS};
use crate::error::{Error, Result};
use crate::fences::{Fence, Place};
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::parallel::Team;
use crate::rng::{DRAW, Keys, TIE};
use crate::smallest::Smallest;

/// Examples that a sample of scores has, and how many more for each cell.
const SAMPLE_ROWS: usize = if cfg!(test) { 64 } else { 1 << 18 };
const SAMPLE_ROWS_PER_CELL: usize = if cfg!(test) { 16 } else { 4096 };

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

/// An order of examples.
trait Order: Sync {
    type Place: Place;
    /// The place of a row.
    fn place(&self, row: usize) -> Self::Place;
    /// Whether the row has none.
    fn refuses(&self, _row: usize) -> bool {
        false
    }
}

/// By key.
struct ByKey<F>(F);

/// By score, the largest first, equals by key.
struct ByScore<'a, F>(&'a [f64], F);

impl<F: Fn(usize) -> u64 + Sync> Order for ByKey<F> {
    type Place = u64;
    #[inline]
    fn place(&self, row: usize) -> u64 {
        self.0(row)
    }
}

impl<F: Fn(usize) -> u64 + Sync> Order for ByScore<'_, F> {
    type Place = (u64, u64);
    #[inline]
    fn place(&self, row: usize) -> (u64, u64) {
        (descending(self.0[row]), self.1(row))
    }
    #[inline]
    fn refuses(&self, row: usize) -> bool {
        self.0[row].is_nan()
    }
}

/// Place of a score in a descending order; equal for 0.0 and -0.0. Of NaN there is none.
fn descending(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 63 == 0 { !(bits | 1 << 63) } else { bits }
}

/// What a worker found in its part of the pass. Tables have a cell's number plus one for index: 0 is for no cell.
struct Found<P> {
    /// Each cell's fence and how many came before it for sure.
    cells: Vec<(Fence<P>, usize)>,
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
                    self.by_score(&ByScore(scores, |row| keys.key(row as u64)), counts(), team, watch)
                }
                Ids::Given(ids) => {
                    self.by_score(&ByScore(scores, |row| keys.key(ids[row])), counts(), team, watch)
                }
            };
        }
        let fences = counts().map(|(quota, size)| Fence::of_keys(quota, size));
        match self.ids {
            Ids::RowNumbers(_) => self.by(&ByKey(|row| keys.key(row as u64)), fences, team, watch),
            Ids::Given(ids) => self.by(&ByKey(|row| keys.key(ids[row])), fences, team, watch),
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
        let n_rows = (SAMPLE_ROWS + SAMPLE_ROWS_PER_CELL * counts.len()).min(n);
        // One row out of each stretch of them, wherever the key says.
        let (stretch, spots) = (n / n_rows.max(1), Keys::new(self.seed, TIE));
        let mut sample = vec![Vec::new(); counts.len()];
        for first in (0..n_rows).map(|index| index * stretch) {
            let row = first + (spots.key(first as u64) % stretch as u64) as usize;
            // What is wrong with a row is for the pass over all of them to say.
            if let Some(places) =
                sample.get_mut(self.cells.cell(row) as u32 as usize).filter(|_| !order.refuses(row))
            {
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
        let cells: Vec<_> = fences.iter().map(|fence| (*fence, 0)).collect();
        let make = || Found { cells: cells.clone(), open: Vec::new(), bad_row: none, nan_row: none };
        let found = self.cells.sweep(marks, (team, watch), make, |found, first, cells, marks| {
            for ((mark, cells), first) in marks.iter_mut().zip(cells.chunks(64)).zip((first..).step_by(64)) {
                for (lane, &cell) in cells.iter().enumerate() {
                    let row = first + lane;
                    let Some((fence, n_sure)) = found.cells.get_mut(cell.wrapping_add(1) as u32 as usize)
                    else {
                        found.bad_row = row.min(found.bad_row);
                        continue;
                    };
                    let place = order.place(row);
                    let (sure, may) = (place < fence.sure, place < fence.open);
                    *mark |= u64::from(may) << lane;
                    *n_sure += usize::from(sure);
                    if may && !sure {
                        found.open.push((cell as u32, place));
                    }
                    if order.refuses(row) && cell >= 0 {
                        found.nan_row = row.min(found.nan_row);
                    }
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
            n_sure.iter_mut().zip(&found.cells[1..]).for_each(|(sum, (_, n))| *sum += n);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::Numbers;
    use proptest::prelude::*;
    use std::ops::ControlFlow;

    fn drawn(draw: Draw, n_threads: usize) -> Result<Vec<i64>> {
        draw.rows(n_threads, &mut Watch::new(&mut |_, _, _| ControlFlow::Continue(())))
    }

    /// The obvious way: sort every cell, take its first.
    fn naive(draw: Draw) -> Vec<i64> {
        let keys = Keys::new(draw.seed, if draw.scores.is_some() { TIE } else { DRAW });
        let mut rows = Vec::new();
        for (cell, &quota) in draw.quotas.iter().enumerate() {
            let mut members: Vec<usize> =
                (0..draw.ids.len()).filter(|&row| draw.cells.cell(row) == cell as i32).collect();
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

    /// Examples in cells of several sizes: what a draw borrows from.
    #[derive(Debug, Clone)]
    struct Pool {
        clusters: Vec<i32>,
        strata: Vec<i32>,
        excluded: Vec<u8>,
        scores: Vec<f64>,
        ids: Vec<u64>,
        quotas: Vec<i64>,
        sizes: Vec<i64>,
    }

    impl Pool {
        fn draw(&self, parts: u8, seed: u64) -> Draw<'_> {
            Draw {
                cells: Cells {
                    clusters: Some(Numbers { of: &self.clusters, n: 4 }),
                    strata: (parts & 1 > 0).then_some(Numbers { of: &self.strata, n: 2 }),
                    excluded: (parts & 2 > 0).then_some(&self.excluded[..]),
                },
                quotas: &self.quotas,
                sizes: (parts & 4 > 0).then_some(&self.sizes),
                ids: if parts & 8 > 0 { Ids::Given(&self.ids) } else { Ids::RowNumbers(self.ids.len()) },
                scores: (parts & 16 > 0).then_some(&self.scores[..]),
                seed,
            }
        }

        /// Sets the quotas to shares of the cells' sizes.
        fn share(&mut self, parts: u8, shares: &[f64; 8]) {
            let n_threads = 1;
            let draw = self.draw(parts, 0);
            let team = draw.cells.team(n_threads).unwrap();
            let mut go_on = |_, _, _| ControlFlow::Continue(());
            self.sizes = draw.cells.sizes(&team, &mut Watch::new(&mut go_on)).unwrap();
            let quotas = self.sizes.iter().zip(shares).map(|(&n, share)| (n as f64 * share) as i64);
            self.quotas = quotas.collect();
        }

        fn reversed(&self) -> Self {
            fn back<T: Copy>(values: &[T]) -> Vec<T> {
                values.iter().rev().copied().collect()
            }
            Self {
                clusters: back(&self.clusters),
                strata: back(&self.strata),
                excluded: back(&self.excluded),
                scores: back(&self.scores),
                ids: back(&self.ids),
                ..self.clone()
            }
        }
    }

    fn pools(n: usize) -> impl Strategy<Value = Pool> {
        let scores = vec![0.0, -0.0, 1.0, -1.0, 2.5, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -5e-324];
        let scores = prop_oneof![prop::sample::select(scores), -1.0..1.0];
        // Cluster 3 is rare.
        let clusters = prop_oneof![20 => -1_i32..3, 1 => 3..4];
        prop::collection::vec((clusters, -1_i32..2, 0_u8..5, scores), 0..n).prop_map(|examples| Pool {
            clusters: examples.iter().map(|example| example.0).collect(),
            strata: examples.iter().map(|example| example.1).collect(),
            excluded: examples.iter().map(|example| u8::from(example.2 == 0)).collect(),
            scores: examples.iter().map(|example| example.3).collect(),
            ids: (0..examples.len() as u64).map(|row| row * row + 3).collect(),
            quotas: Vec::new(),
            sizes: Vec::new(),
        })
    }

    fn shares() -> impl Strategy<Value = [f64; 8]> {
        prop::array::uniform8(prop_oneof![Just(0.0), Just(1.0), 0.0..1.0])
    }

    proptest! {
        #[test]
        fn equals_sorting_every_cell(
            mut pool in pools(3000), shares in shares(), parts in 0_u8..32, seed: u64,
        ) {
            pool.share(parts, &shares);
            let rows = drawn(pool.draw(parts, seed), 1).unwrap();
            prop_assert_eq!(&rows, &naive(pool.draw(parts, seed)));
            prop_assert!(rows.is_sorted());
            for n_threads in [2, 3, 8] {
                prop_assert_eq!(&drawn(pool.draw(parts, seed), n_threads).unwrap(), &rows);
            }
            // The draw of less lies inside the draw of more.
            let mut less = pool.clone();
            less.quotas.iter_mut().for_each(|quota| *quota /= 2);
            let inside = drawn(less.draw(parts, seed), 2).unwrap();
            prop_assert!(inside.iter().all(|row| rows.binary_search(row).is_ok()));
            // The ids drawn don't depend on the order of rows.
            let back = pool.reversed();
            let mut back = drawn(back.draw(parts | 8, seed), 2).unwrap();
            back.reverse();
            let back: Vec<i64> = back.iter().map(|row| pool.ids.len() as i64 - 1 - row).collect();
            prop_assert_eq!(back, drawn(pool.draw(parts | 8, seed), 2).unwrap());
        }

        #[test]
        fn wrong_sizes_change_nothing(
            mut pool in pools(800), shares in shares(), parts in 0_u8..32, wrong in prop::array::uniform8(0_i64..900),
        ) {
            pool.share(parts, &shares);
            let rows = naive(pool.draw(parts, 5));
            // Quotas are checked against them, so they are at least these.
            pool.sizes.iter_mut().zip(wrong).zip(&pool.quotas).for_each(|((size, wrong), quota)| *size = wrong.max(*quota));
            prop_assert_eq!(drawn(pool.draw(parts | 4, 5), 3).unwrap(), rows);
        }

        #[test]
        fn of_equal_ids_the_smaller_row_goes_first(
            mut pool in pools(300), shares in shares(), parts in 0_u8..32, n_ids in 1_u64..40, right: bool,
        ) {
            pool.share(parts, &shares);
            pool.ids.iter_mut().for_each(|id| *id %= n_ids);
            if !right {
                pool.sizes.clone_from(&pool.quotas);
            }
            let rows = naive(pool.draw(parts | 8, 5));
            prop_assert_eq!(drawn(pool.draw(parts | 8, 5), 2).unwrap(), rows);
        }
    }

    #[test]
    fn unlucky_ids_are_drawn_right() {
        // The first cell has the smallest keys of all, the second the largest: no fence stands where it should.
        let keys = Keys::new(0, DRAW);
        let mut ids: Vec<u64> = (0..4000).collect();
        ids.sort_unstable_by_key(|id| keys.key(*id));
        let clusters: Vec<i32> = (0..4000).map(|row| i32::from(row >= 2000)).collect();
        let cells = Cells::of_clusters(&clusters, 2);
        let draw =
            Draw { cells, quotas: &[1000, 1000], sizes: None, ids: Ids::Given(&ids), scores: None, seed: 0 };
        let expected: Vec<i64> = (0..1000).chain(2000..3000).collect();
        assert_eq!(drawn(draw, 2).unwrap(), expected);
        // Nor does it for sizes that promise more than there is.
        let message = drawn(Draw { quotas: &[2001, 0], sizes: Some(&[5000, 0]), ..draw }, 2).unwrap_err();
        assert_eq!(message.to_string(), "quotas: found 2001 for cell 0, which has 2000 examples");
    }

    #[test]
    fn interrupts() {
        let clusters = vec![0; 10_000];
        let cells = Cells::of_clusters(&clusters, 1);
        let ids = Ids::RowNumbers(10_000);
        let draw = Draw { cells, quotas: &[5000], sizes: None, ids, scores: None, seed: 0 };
        let mut looks = 0;
        draw.rows(
            2,
            &mut Watch::new(&mut |_, _, _| {
                looks += 1;
                ControlFlow::Continue(())
            }),
        )
        .unwrap();
        assert!(looks > 30, "{looks}");
        for stop in 0..looks {
            let mut left = stop;
            let mut report = |_, _, _| {
                left -= 1;
                if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            assert_eq!(draw.rows(2, &mut Watch::new(&mut report)), Err(Error::Interrupted));
        }
    }

    #[test]
    fn refusals() {
        let draw = Draw {
            cells: Cells::of_clusters(&[0, -1, 1, 0], 2),
            quotas: &[1, 1],
            sizes: None,
            ids: Ids::Given(&[1, 2, 3, 4]),
            scores: None,
            seed: 0,
        };
        let nan = [0.0, f64::NAN, f64::NAN, 0.0];
        let bad = Draw { cells: Cells::of_clusters(&[0, 2, 0, 0], 2), ..draw };
        for (draw, message) in [
            (Draw { ids: Ids::Given(&[1]), ..draw }, "ids: found 1 elements, need 4, as many as cells"),
            (Draw { scores: Some(&[1.0]), ..draw }, "scores: found 1 elements, need 4, as many as ids"),
            (Draw { quotas: &[1], ..draw }, "quotas: found 1 elements, need 2, as many as cells"),
            (Draw { sizes: Some(&[1]), ..draw }, "sizes: found 1 elements, need 2, as many as cells"),
            (bad, "clusters: found 2 at index 1, allowed are -1 to 1"),
            (Draw { sizes: Some(&[3, 2]), ..bad }, "clusters: found 2 at index 1, allowed are -1 to 1"),
            (Draw { quotas: &[3, 1], ..draw }, "quotas: found 3 for cell 0, which has 2 examples"),
            (Draw { quotas: &[1, -1], ..draw }, "quotas: found -1 at index 1, allowed are 0 to 1"),
            (
                Draw { scores: Some(&nan), ..draw },
                "scores: found NaN in row 2, which is in cell 1; only rows outside all cells may be NaN",
            ),
        ] {
            assert_eq!(drawn(draw, 1).unwrap_err().to_string(), message);
        }
    }
}
