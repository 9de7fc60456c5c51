//! Exact pruning: which centroids may be nearest to some row of a cell, which tiles of a cell may change at all.
//!
//! The rows lie sorted in [cells](super::cells). A cell calculates scores from its *candidates* only, by the very
//! operations of the plain way and in the order of the centroids' numbers, and only for the tiles whose rows may have
//! another nearest centroid than before. (Over 400 lines, because the derivation has to stand beside the few lines that
//! it is about.) So labels, ties, sums, inertia and centroids are the plain way's, bit for bit, after every assignment, as
//! long as no row's nearest centroid is ever left out and no row that changes is passed over. What follows says why
//! neither happens.
//!
//! # The bound for a cell
//!
//! Write s(x, c) = |c|^2 / 2 - x.c for the true score, m for a point amid the cell, r for the largest distance of a row
//! from m. When a centroid moves from c to c', s(x, c') - s(x, c) = s(m, c') - s(m, c) - (c' - c)(x - m), so for each row
//!
//! > | s(x, c') - s(x, c) - (s(m, c') - s(m, c)) | <= r |c' - c|
//!
//! The shift at m is known exactly; only how the move looks from the rest of the cell is estimated, and cells are small.
//! Let the *gap* of a centroid j be the minimum of s(x, j) - s(x, nearest centroid of x) over the rows of the cell.
//! It is measured whenever j is a candidate and the whole cell is calculated, and from then on bounded from below:
//!
//! > gap' >= gap + (s(m, j') - s(m, j)) - r |path of j| - sum of the rises
//!
//! where the *rise* of an assignment is the maximum of s(m, b') - s(m, b) + r |b' - b| over the centroids b
//! that were nearest to some row: no row's smallest score gets larger by more than that. `credits` keep
//! gap - s(m, j) + r path + rises from the time of measuring; so a centroid that is not a candidate
//! costs nothing but the comparison of `credits` + s(m, j') with r path' + rises', and is charged for all the way
//! that it went meanwhile. j is left out where the bound is above the error below.
//!
//! The first assignment of the cells has nothing measured: there the gap is bounded through the centroid b nearest to
//! m, s(x, j) - s(x, b) >= s(m, j) - s(m, b) - r |j - b|.
//!
//! # The bound for a tile
//!
//! Let a tile's *lead* be the smallest difference between the second smallest score and the smallest one over its rows,
//! among the candidates it was calculated with. For a row x whose nearest centroid was b, and any other candidate j, what
//! has become of s(x, j) - s(x, b) since then is what has become of it at m, less (x - m) times the difference of the
//! ways that j and b have gone. So the lead has decayed by no more than
//!
//! > max over b, j of (shift of s(m, b) - shift of s(m, j) + r |shift of j - shift of b|)
//!
//! where b has been nearest to some row of the cell: centroids that go together cost nothing. A tile remembers when it
//! was calculated, and the centroids of the last [`HISTORY`] assignments are kept. A tile whose lead is larger than the
//! decay (and the error) keeps its labels unseen. This speaks of the candidates that the tile was
//! calculated with; the cell keeps the list that all its tiles *cover*, and a candidate that isn't on it, one that was
//! left out before and comes back, makes the whole cell be calculated. (All others are left out by the bound for the
//! cell, which holds for all its rows.) Then the gaps are measured anew, and so are the leads.
//!
//! Rows of a tile should have similar leads: one row between two clusters is enough to have its tile looked at. So a cell
//! that is calculated as a whole may sort its rows by their leads while it is at it.
//!
//! # The error
//!
//! Let u = 2^-24, T the dimensions and M(x, c) = |c|^2 / 2 + |x| |c|. A kernel's score is the rounded |c|^2 / 2 and T
//! fused subtractions whose partial sums stay below M: it errs by at most (T + 1) u M to first order, and T 2^-150
//! from underflow. So it is certain that the score of j is above that of b, as calculated, when the true difference is
//! above (T + 1) u (M(x, j) + M(x, b)) + 2 T 2^-150. A measured gap or lead is uncertain by as much, and each s(m, .) by
//! (T + 1) u M(m, .); |x| and |m| are at most |m| + r. Each bound adds half a dozen float32 numbers, rounded a few times
//! each. Altogether, once when a credit or a lead is written and once when it is compared: (2 T + 40) u, [`slack`], of the
//! sum of the magnitudes of *all* terms, M of the centroids included, and [`tiny`], (T + 16) 2^-120, for all underflows.
//! This is twice as much as needed, or more. Paths, rises and decays are added in float64; radii and paths are rounded up.
//! Overflow makes infinities and NaN, which compare as "not left out". [`safe`] refuses what could overflow in the kernels.
//!
//! So a centroid that is left out has a strictly larger score for each row of the cell, *as calculated*, than another one;
//! hence the first of the nearest is never left out, and among the candidates it is found. Lists are never empty. What
//! is nearest to a row of a tile that is passed over is not left out either: it is on the list.
//!
//! # Cost
//!
//! Per cell and centroid: T multiply-adds for s(m, j), lanes being cells, and a dozen operations: 0.5 % of the plain
//! way's. Per candidate and tile that is looked at: the kernel's score. A tile that isn't costs a comparison, and its
//! rows are not read: inertia comes from the sums. Memory: 8 bytes per cell and centroid.

#[cfg(test)]
mod tests;

use super::cell::{CELLS, Cell, Now, ORDER_AGAIN, Place, Rows, SETTLED, Scratch, place_of};
use super::cells::{CELL_ROWS, Cells, NO_ROW, Size};
use super::margin::{norm, slack, smallest, tiny};
use super::promise::tile_of;
use super::sums::{Grid, Sums};
use super::sweep::Run;
use crate::columns::LANES;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::{Centroids, Ways};
use crate::rng::Keys;
use crate::shape::Trajectories;
use std::collections::VecDeque;

/// Scores between two looks at the watch, were none left out, times T; see [`super::sweep`].
const BATCH_WORK: usize = if cfg!(test) { 1 << 18 } else { 1 << 30 };

/// A cell that is calculated as a whole is so with all the centroids that would become candidates within so many steps like
/// the last one, so that it need not be again when they do; from the assignment
/// [`SETTLED`] on.
const HORIZON: f32 = 2.0;

/// Assignments that leads are remembered for.
const HISTORY: usize = 32;

/// Sorted rows and what is known about their scores.
pub struct Pruned {
    cells: Cells,
    stacks: Vec<Stack>,
    /// The centroids of the last assignments of the cells, the newest first.
    history: VecDeque<Past>,
    /// Assignments of the cells so far.
    time: u32,
    /// How far each centroid has come since the rows were sorted, all its steps added.
    paths: Vec<f64>,
    /// The same, rounded up.
    reaches: Vec<f32>,
    /// Its last step.
    strides: Vec<f64>,
}

/// The centroids of one assignment.
struct Past {
    /// `[centroid][dim]`.
    coordinates: Vec<f32>,
    /// Half of each squared norm.
    halves: Vec<f32>,
}

/// Sixteen cells, side by side.
struct Stack {
    /// `[dim][cell]`: m.
    means: Vec<f32>,
    /// r.
    radii: [f32; CELLS],
    /// |m| + r, rounded up: no row has a larger norm.
    norms: [f32; CELLS],
    /// `[centroid][cell]`; empty before the first assignment.
    credits: Vec<[f32; CELLS]>,
    /// The sum of the rises.
    rises: [f64; CELLS],
    /// The last one.
    rise: [f64; CELLS],
    cells: Vec<Cell>,
}

impl Pruned {
    /// Makes the first assignment: finds the nearest centroid of every valid row, sorts them, adds them to the sums.
    /// `centroids` are [`safe`].
    ///
    /// # Errors
    /// An interrupt.
    pub fn start(
        (data, grid): (&Trajectories, Grid),
        ties: (Ids, Keys),
        centroids: &Centroids,
        sums: &mut Sums,
        labels: &mut [i32],
        run: &mut Run,
    ) -> Result<(Self, usize)> {
        let (cells, moved) = Cells::sort((data, grid), ties, centroids, sums, labels, run)?;
        let n_dims = data.n_dims();
        let stacks =
            cells.sizes.chunks(CELLS).zip(cells.means.chunks(CELLS * n_dims)).zip(cells.radii.chunks(CELLS));
        let stacks = stacks.map(|((sizes, means), radii)| Stack::new(sizes, means, radii, n_dims)).collect();
        let n = centroids.n_centroids();
        let pruned = Self {
            cells,
            stacks,
            history: VecDeque::new(),
            time: 0,
            paths: vec![0.0; n],
            reaches: vec![0.0; n],
            strides: vec![0.0; n],
        };
        Ok((pruned, moved))
    }

    /// Writes the labels to their rows.
    pub fn write(&self, labels: &mut [i32]) {
        for (&row, &label) in
            self.cells.rows.iter().zip(&self.cells.labels).filter(|(row, _)| **row != NO_ROW)
        {
            labels[row as usize] = label;
        }
    }

    /// Takes the labels from their rows; a tile with another one than before has to be looked at again.
    pub fn read(&mut self, labels: &[i32]) {
        let mut tiles =
            self.cells.rows.as_chunks::<LANES>().0.iter().zip(self.cells.labels.as_chunks_mut::<LANES>().0);
        for cell in self.stacks.iter_mut().flat_map(|stack| &mut stack.cells) {
            for (lead, (rows, mine)) in cell.leads.iter_mut().zip(&mut tiles) {
                for (&row, label) in rows.iter().zip(mine).filter(|(row, _)| **row != NO_ROW) {
                    let now = labels[row as usize];
                    if *label != now {
                        *label = now;
                        lead.0 = f32::NEG_INFINITY;
                        // The label may stay, unseen, and is then nearest to the row.
                        let known = cell.covered.iter_mut().find(|candidate| candidate.number == now as u32);
                        if let Some(candidate) = known {
                            candidate.best = true;
                        }
                    }
                }
            }
        }
    }

    /// Takes note that the centroids have moved.
    pub fn follow(&mut self, before: &[f32], after: &[f32], n_dims: usize) {
        // A 10^12th more covers the roundings in float64.
        const UP: f64 = 1.0 + 1e-12;
        for (k, (before, after)) in before.chunks_exact(n_dims).zip(after.chunks_exact(n_dims)).enumerate() {
            let steps = before.iter().zip(after).map(|(a, b)| f64::from(*a) - f64::from(*b));
            self.strides[k] = steps.map(|step| step * step).sum::<f64>().sqrt() * UP;
            self.paths[k] = (self.paths[k] + self.strides[k]) * UP;
            self.reaches[k] = (self.paths[k] as f32).next_up();
        }
    }

    /// Labels every row with its nearest centroid and brings the sums up to date; returns how many labels changed, and
    /// the share of the scores that were calculated.
    ///
    /// # Errors
    /// An interrupt.
    ///
    /// # Panics
    /// Never: the nearest centroid is never left out.
    pub fn assign(
        &mut self,
        grid: Grid,
        centroids: &Centroids,
        sums: &mut Sums,
        run: &mut Run,
    ) -> Result<(usize, f64)> {
        let (n, n_dims) = (centroids.n_centroids(), centroids.n_dims());
        let norms: Vec<f32> = centroids
            .coordinates()
            .chunks_exact(n_dims)
            .map(|centroid| (norm(centroid.iter().copied()) as f32).next_up())
            .collect();
        self.time += 1;
        if self.history.len() == HISTORY {
            self.history.pop_back();
        }
        let present =
            Past { coordinates: centroids.coordinates().to_vec(), halves: centroids.halves().to_vec() };
        self.history.push_front(present);
        let ways: Vec<Ways> = self.history.iter().map(|past| past.ways(&self.history[0])).collect();
        let Self { cells, stacks, paths, reaches, strides, time, .. } = self;
        let (norms, ways, time, kernel) = (&norms[..], &ways[..], *time, run.kernel);
        let now = Now { centroids, norms, paths, ways, reaches, strides, time, grid, kernel };
        let (mut tiles, mut rows, mut labels) =
            (&mut cells.tiles[..], &mut cells.rows[..], &mut cells.labels[..]);
        let mut parts = stacks
            .iter_mut()
            .map(|stack| {
                let n_lanes = stack.cells.iter().map(|cell| cell.size.n_tiles).sum::<usize>() * LANES;
                let mine = Rows {
                    tiles: tiles.split_off_mut(..n_lanes * n_dims).expect("as many as the cells have"),
                    numbers: rows.split_off_mut(..n_lanes).expect("as many as the cells have"),
                    labels: labels.split_off_mut(..n_lanes).expect("as many as the cells have"),
                };
                (stack, mine)
            })
            .peekable();
        let n_together = (BATCH_WORK / (CELLS * CELL_ROWS * n_dims * n)).max(2 * run.team.n_threads());
        let mut workers = run.team.workers(|| Scratch::new(centroids));
        while parts.peek().is_some() {
            let some: Vec<_> = parts.by_ref().take(n_together).collect();
            let n_rows = some.iter().flat_map(|(stack, _)| &stack.cells).map(|cell| cell.size.n_rows).sum();
            run.team.each(&mut workers, some, |scratch, (stack, rows)| {
                now.kernel.scores(&stack.means, centroids, &mut scratch.scores);
                if stack.credits.is_empty() {
                    stack.estimate(now, scratch);
                } else {
                    stack.rise(now, &scratch.scores);
                }
                stack.list(now, scratch);
                stack.assign(rows, now, scratch);
            });
            run.watch.advance(n_rows)?;
        }
        let (mut moved, mut n_evaluated) = (0, 0);
        for scratch in workers.into_states() {
            sums.merge(&scratch.change);
            moved += scratch.moved;
            n_evaluated += scratch.n_evaluated;
        }
        let n_rows: usize = cells.sizes.iter().map(|size| size.n_rows).sum();
        Ok((moved, n_evaluated as f64 / (n_rows * n) as f64))
    }
}

impl Stack {
    /// `means`: `[cell][dim]`.
    fn new(sizes: &[Size], means: &[f32], radii: &[f32], n_dims: usize) -> Self {
        let mut stack = Self {
            means: vec![0.0; n_dims * CELLS],
            radii: [0.0; CELLS],
            norms: [0.0; CELLS],
            credits: Vec::new(),
            rises: [0.0; CELLS],
            rise: [0.0; CELLS],
            cells: sizes
                .iter()
                .zip(means.chunks_exact(n_dims))
                .map(|(&s, mean)| Cell::new(s, mean))
                .collect(),
        };
        for (cell, (mean, &radius)) in means.chunks_exact(n_dims).zip(radii).enumerate() {
            for (dim, &mean) in mean.iter().enumerate() {
                stack.means[dim * CELLS + cell] = mean;
            }
            stack.radii[cell] = radius;
            stack.norms[cell] = ((norm(mean.iter().copied()) + f64::from(radius)) as f32).next_up();
        }
        stack
    }

    /// Gives credits where nothing has been measured yet.
    fn estimate(&mut self, now: Now, scratch: &mut Scratch) {
        let (n_dims, coordinates) = (now.centroids.n_dims(), now.centroids.coordinates());
        let (slack, tiny) = (slack(n_dims), tiny(n_dims) as f32);
        let (mut numbers, mut near) = ([[0.0; CELLS]], [[0.0; CELLS]]);
        now.kernel.nearest(&self.means, now.centroids, &mut numbers, &mut near);
        let near = near[0];
        scratch.apart.resize(now.reaches.len(), [0.0; CELLS]);
        let tile = tile_of(&numbers[0], coordinates, n_dims);
        now.kernel.distances(&tile, now.centroids, &mut scratch.apart);
        let halves = now.centroids.halves();
        let magnitudes: [f32; CELLS] = std::array::from_fn(|cell| {
            let best = numbers[0][cell] as usize;
            near[cell].abs() + halves[best] + self.norms[cell] * now.norms[best]
        });
        let credit = |(apart, reach): (&[f32; CELLS], &f32)| {
            std::array::from_fn(|cell| {
                let radius = self.radii[cell];
                let (turn, path) = (radius * (apart[cell] + tiny).sqrt(), radius * reach);
                (path - near[cell] - turn) - (slack * (magnitudes[cell] + turn + path) + tiny)
            })
        };
        self.credits = scratch.apart.iter().zip(now.reaches).map(credit).collect();
    }

    /// Adds the rises of the centroids' last move.
    fn rise(&mut self, now: Now, scores: &[[f32; CELLS]]) {
        let (slack, tiny) = (f64::from(slack(now.centroids.n_dims())), tiny(now.centroids.n_dims()));
        for (cell, known) in self.cells.iter().enumerate() {
            let (radius, row_norm) =
                (f64::from(self.radii[cell]) * (1.0 + 1e-12), f64::from(self.norms[cell]));
            let rise = known.covered.iter().filter(|candidate| candidate.best).map(|candidate| {
                let k = candidate.number as usize;
                let (before, after) = (f64::from(candidate.score), f64::from(scores[k][cell]));
                let reach = f64::from(now.norms[k]) + now.strides[k];
                let magnitudes = before.abs() + after.abs() + reach * (reach + 2.0 * row_norm);
                after - before + radius * now.strides[k] + slack * magnitudes + tiny
            });
            self.rise[cell] = rise.fold(f64::NEG_INFINITY, f64::max);
            self.rises[cell] += self.rise[cell];
        }
    }

    /// Lists each cell's candidates, and those that would be some if all went on for a while as in the last step.
    fn list(&self, now: Now, scratch: &mut Scratch) {
        let Scratch { scores, lists, wide_lists, .. } = scratch;
        let (slack, tiny) = (slack(now.centroids.n_dims()), tiny(now.centroids.n_dims()) as f32);
        let rises = self.rises.map(|rises| rises as f32);
        // The first moves are no measure of those to come.
        let horizon = if now.time < SETTLED { 0.0 } else { HORIZON };
        let rises_to_come = self.rise.map(|rise| horizon * rise.max(0.0) as f32);
        // What the nearest centroids' scores may be wrong by: they are among the covered ones.
        let halves = now.centroids.halves();
        let mut nearest = [0.0_f32; CELLS];
        for (cell, known) in self.cells.iter().enumerate() {
            for candidate in known.covered.iter().filter(|candidate| candidate.best) {
                let k = candidate.number as usize;
                nearest[cell] = nearest[cell].max(halves[k] + self.norms[cell] * now.norms[k]);
            }
        }
        lists.iter_mut().chain(wide_lists.iter_mut()).for_each(Vec::clear);
        for (k, (credits, scores)) in self.credits.iter().zip(scores.iter()).enumerate() {
            let (reach, half, norm) = (now.reaches[k], halves[k], now.norms[k]);
            let to_come = horizon * now.strides[k] as f32;
            let (mut out, mut far) = ([false; CELLS], [false; CELLS]);
            for cell in 0..CELLS {
                let path = self.radii[cell] * reach;
                let gap = (credits[cell] + scores[cell]) - (path + rises[cell]);
                let magnitudes = (credits[cell].abs() + scores[cell].abs())
                    + (path + rises[cell].abs())
                    + ((half + self.norms[cell] * norm) + nearest[cell]);
                let error = slack * magnitudes + tiny;
                // NaN is not above anything.
                out[cell] = gap > error;
                far[cell] = gap - (self.radii[cell] * to_come + rises_to_come[cell]) > error;
            }
            if far != [true; CELLS] {
                for cell in (0..self.cells.len()).filter(|&cell| !far[cell]) {
                    wide_lists[cell].push(k as u32);
                    if !out[cell] {
                        lists[cell].push(k as u32);
                    }
                }
            }
        }
    }

    /// Labels the rows of every cell.
    fn assign(&mut self, mut rows: Rows, now: Now, scratch: &mut Scratch) {
        let n_dims = now.centroids.n_dims();
        let (lists, wide_lists) =
            (std::mem::take(&mut scratch.lists), std::mem::take(&mut scratch.wide_lists));
        for (at, cell) in self.cells.iter_mut().enumerate() {
            let n_lanes = cell.size.n_tiles * LANES;
            let mut mine = Rows {
                tiles: rows.tiles.split_off_mut(..n_lanes * n_dims).expect("as many as the cell has"),
                numbers: rows.numbers.split_off_mut(..n_lanes).expect("as many as the cell has"),
                labels: rows.labels.split_off_mut(..n_lanes).expect("as many as the cell has"),
            };
            assert!(!lists[at].is_empty(), "the nearest centroid is never left out");
            let place = Place { at, radius: self.radii[at], norm: self.norms[at] };
            let whole = match cell.changing(&lists[at], place, now, scratch) {
                None => true,
                Some(0) => continue,
                Some(n) => {
                    n * 8 > cell.size.n_tiles * 7
                        || n * 4 > cell.size.n_tiles && now.time >= cell.ordered + ORDER_AGAIN
                }
            };
            if !whole {
                cell.assign_some(&mut mine, place, now, scratch);
                continue;
            }
            let list = &wide_lists[at];
            cell.assign_all(&mut mine, list, place, now, scratch);
            let (rises, credits) = (self.rises[at] as f32, &mut self.credits);
            let (slack, tiny) = (slack(n_dims), tiny(n_dims) as f32);
            let halves = now.centroids.halves();
            for candidate in &mut cell.covered {
                let k = candidate.number as usize;
                let gap = smallest(&scratch.found.gaps[place_of(list, candidate.number)]);
                candidate.best = gap == 0.0;
                let path = place.radius * now.reaches[k];
                let magnitude = |k: usize| halves[k] + place.norm * now.norms[k];
                let error = slack * ((gap + candidate.score.abs()) + (path + rises.abs()) + magnitude(k));
                credits[k][at] = ((gap - candidate.score) + (path + rises)) - (error + tiny);
            }
            let nearest = cell.covered.iter().filter(|candidate| candidate.best);
            let most = nearest.map(|c| halves[c.number as usize] + place.norm * now.norms[c.number as usize]);
            let error = slack * most.fold(0.0, f32::max);
            for candidate in &cell.covered {
                credits[candidate.number as usize][at] -= error;
            }
        }
        (scratch.lists, scratch.wide_lists) = (lists, wide_lists);
    }
}

impl Past {
    /// How the centroids have gone from then until now.
    fn ways(&self, now: &Self) -> Ways {
        let less = |now: &[f32], then: &[f32]| now.iter().zip(then).map(|(now, then)| now - then).collect();
        Ways { ways: less(&now.coordinates, &self.coordinates), halves: less(&now.halves, &self.halves) }
    }
}
