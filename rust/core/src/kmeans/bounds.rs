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

use super::cells::{CELL_ROWS, Cells, NO_ROW, Size};
use super::fit::MOST_MAGNITUDE;
use super::lloyd::Course;
use super::sums::{Grid, Sums};
use super::sweep::Run;
use crate::columns::LANES;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::{Centroids, Found, Kernel, Sixteen, Ways};
use crate::rng::Keys;
use crate::shape::{Block, Trajectories};
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Cells of a stack: the lanes of a tile, whose "rows" are the cells' means.
const CELLS: usize = LANES;

/// Scores between two looks at the watch, were none left out, times T; see [`super::sweep`].
const BATCH_WORK: usize = if cfg!(test) { 1 << 18 } else { 1 << 30 };

/// What [`promising`] wants: so many iterations to come, so many rows of a cluster on average, so many scores of a row's
/// left out, and no more than this share of them calculated.
const LEAST_ITERATIONS: usize = 4;
const LEAST_PER_CLUSTER: usize = 64;
const LEAST_SAVED: f64 = 32.0;
const MOST_SHARE: f64 = 0.5;
/// Rows by which [`promising`] judges.
const SAMPLE_ROWS: usize = 4096;
/// Bytes of the sorted copy, at most: beyond, the plain way reads the columns where they lie.
const MOST_BYTES: usize = 1 << 29;

/// A cell that is calculated as a whole is so with all the centroids that would become candidates within so many steps like
/// the last one, so that it need not be again when they do; from the second assignment of the cells on, when steps have
/// begun to shrink.
const HORIZON: f32 = 2.0;
const SETTLED: u32 = 2;

/// Assignments that leads are remembered for.
const HISTORY: usize = 32;
/// Rows are sorted by their leads when steps have begun to shrink, and when so many assignments later more than a quarter
/// of the tiles may change.
const ORDER_AGAIN: u32 = 6;

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

/// What is known of one cell.
struct Cell {
    size: Size,
    /// `[dim]`: m.
    mean: Vec<f32>,
    /// The candidates that all tiles were calculated with, ascending.
    covered: Vec<Candidate>,
    /// Per tile: its lead, less the error of measuring, and when it was calculated.
    leads: Vec<(f32, u32)>,
    /// When its rows were sorted by their leads.
    ordered: u32,
}

#[derive(Clone, Copy)]
struct Candidate {
    number: u32,
    /// s(m, c) at the last assignment.
    score: f32,
    /// Whether it may have been nearest to some row then, or before, since the whole cell was calculated.
    best: bool,
}

/// What all workers look at.
#[derive(Clone, Copy)]
struct Now<'n> {
    centroids: &'n Centroids,
    /// |c|, rounded up.
    norms: &'n [f32],
    paths: &'n [f64],
    /// By age: how the centroids have gone since so many assignments ago.
    ways: &'n [Ways],
    reaches: &'n [f32],
    strides: &'n [f64],
    time: u32,
    grid: Grid,
    kernel: Kernel,
}

/// A worker's part of the result, and its memory.
struct Scratch {
    change: Sums,
    moved: usize,
    n_evaluated: u64,
    /// `[centroid][cell]`: s(m, c), and squared distances between centroids.
    scores: Vec<[f32; CELLS]>,
    apart: Vec<[f32; CELLS]>,
    /// `[cell]`: candidates, ascending; and those that may become some soon.
    lists: Vec<Vec<u32>>,
    wide_lists: Vec<Vec<u32>>,
    candidates: Centroids,
    found: Results,
    order: Order,
    /// Per time: how much leads that were measured then have decayed, where that has been asked.
    decays: Vec<Option<f32>>,
    /// `[tile]`: whether it may change.
    changing: Vec<bool>,
}

/// What the kernel finds for the tiles of a cell.
#[derive(Default)]
struct Results {
    /// `[tile][lane]`.
    numbers: Vec<[f32; LANES]>,
    scores: Vec<[f32; LANES]>,
    seconds: Vec<[f32; LANES]>,
    /// `[candidate][lane]`.
    room: Vec<[f32; LANES]>,
    gaps: Vec<[f32; LANES]>,
}

/// What sorting a cell's rows takes.
#[derive(Default)]
struct Order {
    /// Old places, in the new order.
    places: Vec<u16>,
    values: Vec<f32>,
    numbers: Vec<u32>,
    leads: Vec<f32>,
}

/// A cell's part of the sorted rows.
struct Rows<'r> {
    tiles: &'r mut [f32],
    numbers: &'r mut [u32],
    labels: &'r mut [i32],
}

/// What a sum may be wrong by, as a share of its terms' magnitudes.
fn slack(n_dims: usize) -> f32 {
    (2 * n_dims + 40) as f32 * (f32::EPSILON / 2.0)
}

/// What underflows may cost in all.
fn tiny(n_dims: usize) -> f64 {
    libm::ldexp((n_dims + 16) as f64, -120)
}

/// A radius that holds points with these squared distances (as a kernel calculates them) from its centre.
#[must_use]
pub fn radius(distances: &[[f32; LANES]], n_dims: usize) -> f32 {
    let far = f64::from(largest(distances)) * (1.0 + f64::from(slack(n_dims))) + tiny(n_dims);
    (far.sqrt() as f32).next_up()
}

/// The norm, rounded up.
fn norm(point: impl Iterator<Item = f32>) -> f64 {
    point.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() * (1.0 + 1e-12)
}

/// Whether bounds hold: row numbers fit, and no score overflows.
#[must_use]
pub fn safe(data: &Trajectories, centroids: &[f32]) -> bool {
    data.columns().n_examples() < NO_ROW as usize && centroids.iter().all(|c| c.abs() <= MOST_MAGNITUDE)
}

/// Whether sorting is going to pay. This depends on rows, ids and parameters, not on the machine.
///
/// It asks a sample how many centroids j there are within 2 d of a row's nearest centroid b, itself at the distance d:
/// by the triangle inequality no others could be nearer. Shells around b leave about these as candidates: all of them in
/// unstructured data of many dimensions, an eighth of a hundred in falling curves.
#[must_use]
pub fn promising(data: &Trajectories, course: Course, centroids: &[f32], kernel: Kernel) -> bool {
    let packed = kernel.pack(centroids, data.n_dims());
    let (n, n_rows) = (packed.n_centroids(), data.columns().n_valid());
    let enough = course.n_iterations >= LEAST_ITERATIONS
        && n_rows / n >= LEAST_PER_CLUSTER
        && n_rows.saturating_mul(4 * data.n_dims()) <= MOST_BYTES;
    if !enough || (n as f64) < LEAST_SAVED || !safe(data, centroids) {
        return false;
    }
    let sample = &course.sample[..course.sample.len().min(SAMPLE_ROWS)];
    let mut block = Block::default();
    let (mut numbers, mut scores) = ([[0.0; LANES]], [[0.0; LANES]]);
    let (mut apart, mut near) = (vec![[0.0; LANES]; n], vec![[0.0; LANES]; n]);
    let mut n_kept = 0;
    for rows in sample.chunks(LANES) {
        data.load(rows, &mut block);
        kernel.nearest(block.tiles(), &packed, &mut numbers, &mut scores);
        kernel.distances(block.tiles(), &packed, &mut near);
        kernel.distances(&tile_of(&numbers[0], centroids, data.n_dims()), &packed, &mut apart);
        for lane in 0..rows.len() {
            let radius = 4.0 * near[numbers[0][lane] as usize][lane];
            n_kept += apart.iter().filter(|apart| apart[lane] <= radius).count();
        }
    }
    let share = n_kept as f64 / (sample.len() * n) as f64;
    share <= MOST_SHARE && (1.0 - share) * n as f64 >= LEAST_SAVED
}

/// A tile of the centroids of these numbers.
fn tile_of(numbers: &[f32; LANES], coordinates: &[f32], n_dims: usize) -> Vec<f32> {
    let mut tile = vec![0.0; n_dims * LANES];
    for (lane, &number) in numbers.iter().enumerate() {
        let centroid = &coordinates[number as usize * n_dims..][..n_dims];
        for (lanes, &coordinate) in tile.chunks_exact_mut(LANES).zip(centroid) {
            lanes[lane] = coordinate;
        }
    }
    tile
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
        let rows = self.cells.rows.as_chunks::<LANES>().0.iter();
        let tiles = rows.zip(self.cells.labels.as_chunks_mut::<LANES>().0);
        let leads =
            self.stacks.iter_mut().flat_map(|stack| &mut stack.cells).flat_map(|cell| &mut cell.leads);
        for ((rows, mine), lead) in tiles.zip(leads) {
            for (&row, label) in rows.iter().zip(mine).filter(|(row, _)| **row != NO_ROW) {
                if *label != labels[row as usize] {
                    *label = labels[row as usize];
                    lead.0 = f32::NEG_INFINITY;
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

impl Scratch {
    fn new(centroids: &Centroids) -> Self {
        let n = centroids.n_centroids();
        Self {
            change: Sums::new(n, centroids.n_dims()),
            moved: 0,
            n_evaluated: 0,
            scores: vec![[0.0; CELLS]; n],
            apart: Vec::new(),
            lists: vec![Vec::new(); CELLS],
            wide_lists: vec![Vec::new(); CELLS],
            candidates: centroids.none_of(),
            found: Results::default(),
            order: Order::default(),
            decays: Vec::new(),
            changing: Vec::new(),
        }
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

/// Where a cell is in its stack, and how large.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    radius: f32,
    norm: f32,
}

/// The place of a number in a list that has it.
fn place_of(list: &[u32], number: u32) -> usize {
    list.binary_search(&number).expect("it is on the list")
}

impl Past {
    /// How the centroids have gone from then until now.
    fn ways(&self, now: &Self) -> Ways {
        let less = |now: &[f32], then: &[f32]| now.iter().zip(then).map(|(now, then)| now - then).collect();
        Ways { ways: less(&now.coordinates, &self.coordinates), halves: less(&now.halves, &self.halves) }
    }
}

impl Cell {
    fn new(size: Size, mean: &[f32]) -> Self {
        let leads = vec![(f32::NEG_INFINITY, 0); size.n_tiles];
        Self { size, mean: mean.to_vec(), covered: Vec::new(), leads, ordered: 0 }
    }

    /// What two scores of covered candidates may be wrong by, now and at any time before: twice that.
    fn error(&self, place: Place, now: Now) -> f64 {
        let magnitude = |k: usize| {
            // On its way the centroid may have been that much farther out.
            let reach = f64::from(now.norms[k]) + now.paths[k];
            reach * (reach + f64::from(place.norm))
        };
        let most =
            self.covered.iter().map(|candidate| magnitude(candidate.number as usize)).fold(0.0, f64::max);
        2.0 * f64::from(slack(now.centroids.n_dims())) * most + tiny(now.centroids.n_dims())
    }

    /// How many tiles may change (`changing` says which), if all candidates of the list are covered.
    fn changing(&mut self, list: &[u32], place: Place, now: Now, scratch: &mut Scratch) -> Option<usize> {
        let Scratch { scores, decays, changing, .. } = scratch;
        for candidate in &mut self.covered {
            candidate.score = scores[candidate.number as usize][place.at];
        }
        let mut covered = self.covered.iter();
        if !list.iter().all(|number| covered.any(|candidate| candidate.number == *number)) {
            return None;
        }
        let error = self.error(place, now);
        let ball = (&self.mean[..], place.radius * (1.0 + slack(self.mean.len())));
        let bests = || self.covered.iter().filter(|candidate| candidate.best).map(|best| best.number);
        decays.clear();
        decays.resize(now.ways.len(), None);
        changing.clear();
        changing.extend(self.leads.iter().map(|&(lead, time)| {
            // A row between two centroids: nothing needs to be known about these.
            if lead <= 0.0 {
                return true;
            }
            let age = (now.time - time) as usize;
            let Some(decay) = decays.get_mut(age) else { return true };
            let decay = *decay.get_or_insert_with(|| {
                let mut most = f32::NEG_INFINITY;
                for b in bests() {
                    most = most.max(now.kernel.decay(&now.ways[age], ball, b, list));
                }
                ((f64::from(most) + error) as f32).next_up()
            });
            // NaN may change.
            lead.partial_cmp(&decay) != Some(Ordering::Greater)
        }));
        Some(changing.iter().filter(|changing| **changing).count())
    }

    /// Labels the rows of the tiles that may change.
    fn assign_some(&mut self, rows: &mut Rows, place: Place, now: Now, scratch: &mut Scratch) {
        let size = now.centroids.n_dims() * LANES;
        let error = self.error(place, now);
        let numbers: Vec<u32> = self.covered.iter().map(|candidate| candidate.number).collect();
        scratch.candidates.gather(now.centroids, &numbers);
        let mut to = 0;
        while let Some(from) = scratch.changing[to..].iter().position(|changing| *changing) {
            let from = to + from;
            let run = scratch.changing[from..].iter().position(|changing| !changing);
            to = run.map_or(self.leads.len(), |n| from + n);
            let Results { numbers, scores, seconds, .. } = &mut scratch.found;
            for values in [&mut *numbers, scores, seconds] {
                values.resize(to - from, [0.0; LANES]);
            }
            let tiles = &rows.tiles[from * size..to * size];
            now.kernel.nearest_two(tiles, &scratch.candidates, &mut Found { numbers, scores, seconds });
            let n_rows = self.size.n_rows.min(to * LANES) - from * LANES;
            scratch.n_evaluated += (self.covered.len() * n_rows) as u64;
            let mut marked = -1.0;
            for &number in numbers.as_flattened() {
                // Neighbours mostly have the same one.
                if number != marked {
                    marked = number;
                    let place = self.covered.iter().position(|candidate| candidate.number == number as u32);
                    self.covered[place.expect("what is found is on the list")].best = true;
                }
            }
            for (lead, found) in self.leads[from..to].iter_mut().zip(scores.iter().zip(seconds.iter())) {
                *lead = (measured(found, error), now.time);
            }
            let labels = &mut rows.labels[from * LANES..to * LANES];
            relabel((tiles, labels), n_rows, now, scratch);
        }
    }

    /// Labels all rows, and measures the candidates' gaps and the tiles' leads.
    fn assign_all(&mut self, rows: &mut Rows, list: &[u32], place: Place, now: Now, scratch: &mut Scratch) {
        scratch.candidates.gather(now.centroids, list);
        scratch.n_evaluated += (list.len() * self.size.n_rows) as u64;
        let Results { numbers, scores, seconds, room, gaps } = &mut scratch.found;
        for values in [&mut *numbers, scores, seconds] {
            values.resize(self.size.n_tiles, [0.0; LANES]);
        }
        gaps.resize(list.len(), [0.0; LANES]);
        now.kernel.nearest_and_gaps(
            rows.tiles,
            &scratch.candidates,
            &mut Found { numbers, scores, seconds },
            (room, gaps),
        );
        self.covered.clear();
        self.covered.extend(list.iter().map(|&number| Candidate {
            number,
            score: scratch.scores[number as usize][place.at],
            best: false,
        }));
        relabel((rows.tiles, rows.labels), self.size.n_rows, now, scratch);
        let again = self.ordered == 0 || now.time >= self.ordered + ORDER_AGAIN;
        if now.time >= SETTLED && again && list.len() > 1 && self.size.n_tiles > 1 {
            order(rows, self.size.n_rows, scratch);
            self.ordered = now.time;
        }
        let error = self.error(place, now);
        let Results { scores, seconds, .. } = &scratch.found;
        for (lead, found) in self.leads.iter_mut().zip(scores.iter().zip(seconds)) {
            *lead = (measured(found, error), now.time);
        }
    }
}

/// A tile's lead, less the error of measuring: the least difference of (smallest, second smallest) scores.
fn measured((scores, seconds): (&Sixteen, &Sixteen), error: f64) -> f32 {
    let lead = smallest(&std::array::from_fn(|lane| seconds[lane] - scores[lane]));
    ((f64::from(lead) - error) as f32).next_down()
}

/// Gives the rows of some tiles the labels that were found.
fn relabel((tiles, labels): (&[f32], &mut [i32]), n_rows: usize, now: Now, scratch: &mut Scratch) {
    let size = now.centroids.n_dims() * LANES;
    for (i, (labels, numbers)) in
        labels.as_chunks_mut::<LANES>().0.iter_mut().zip(&scratch.found.numbers).enumerate()
    {
        let nearest = numbers.map(|number| number as i32);
        // Without a branch, and without a call to compare memory.
        if labels.iter().zip(&nearest).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0 {
            continue;
        }
        // Spare lanes are labelled like the row that they repeat, but don't count.
        for lane in (0..LANES).take(n_rows - i * LANES).filter(|&lane| labels[lane] != nearest[lane]) {
            let trajectory = tiles[i * size + lane..][..size - lane].iter().step_by(LANES).copied();
            scratch.change.relabel(now.grid, trajectory, labels[lane] as usize, nearest[lane] as usize);
            scratch.moved += 1;
        }
        *labels = nearest;
    }
}

/// Sorts a cell's rows by their leads, the smallest first, roughly: by counting, eight steps to an octave. What was found
/// for the rows follows them, but for the numbers, which are their labels by now.
fn order(rows: &mut Rows, n_rows: usize, scratch: &mut Scratch) {
    let Results { scores, seconds, .. } = &mut scratch.found;
    let Order { places, values, numbers, leads } = &mut scratch.order;
    leads.clear();
    leads
        .extend(seconds.as_flattened().iter().zip(scores.as_flattened()).map(|(second, best)| second - best));
    // Leads are not negative: their bits are in the order of their values. The largest one sets the top octave.
    let bits = |lead: &f32| (lead.to_bits() >> 20) as usize;
    let top = leads[..n_rows].iter().map(bits).max().unwrap_or(0);
    let step = |lead: &f32| 255 - (top - bits(lead)).min(255);
    let mut next = [0_u16; 256];
    leads[..n_rows].iter().for_each(|lead| next[step(lead)] += 1);
    let mut before = 0;
    for next in &mut next {
        before += std::mem::replace(next, before);
    }
    places.resize(leads.len(), 0);
    for (place, lead) in leads[..n_rows].iter().enumerate() {
        let next = &mut next[step(lead)];
        places[*next as usize] = place as u16;
        *next += 1;
    }
    // Spare lanes repeat the last row.
    let last = places[n_rows - 1];
    places[n_rows..].fill(last);

    let size = rows.tiles.len() / (leads.len() / LANES);
    values.clear();
    values.extend_from_slice(rows.tiles);
    for (tile, places) in rows.tiles.chunks_exact_mut(size).zip(places.as_chunks::<LANES>().0) {
        let from = places.map(|place| place as usize / LANES * size + place as usize % LANES);
        for (dim, lanes) in tile.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            *lanes = from.map(|from| values[from + dim * LANES]);
        }
    }
    let old = |place: &u16| *place as usize;
    numbers.clear();
    numbers.extend_from_slice(rows.numbers);
    rows.numbers.iter_mut().zip(&*places).take(n_rows).for_each(|(row, place)| *row = numbers[old(place)]);
    numbers.clear();
    numbers.extend(rows.labels.iter().map(|&label| label as u32));
    rows.labels.iter_mut().zip(&*places).for_each(|(label, place)| *label = numbers[old(place)] as i32);
    // Only their differences are asked for from here on.
    let both = scores.as_flattened_mut().iter_mut().zip(seconds.as_flattened_mut()).zip(&*places);
    for ((score, second), place) in both {
        (*score, *second) = (0.0, leads[old(place)]);
    }
}

/// The smallest of the lanes.
fn smallest(lanes: &[f32; LANES]) -> f32 {
    lanes.iter().fold(f32::INFINITY, |least, &x| if x < least { x } else { least })
}

/// The largest of non-negative numbers: their bits, even as signed numbers, are in their order.
fn largest(numbers: &[[f32; LANES]]) -> f32 {
    let bits = numbers.iter().fold([0; LANES], |most: [i32; LANES], numbers| {
        std::array::from_fn(|lane| most[lane].max(numbers[lane].to_bits() as i32))
    });
    f32::from_bits(bits.into_iter().fold(0, i32::max) as u32)
}
