//! Exact pruning: which centroids may be nearest to some row of a cell, and which cannot.
//!
//! The rows lie sorted in [cells](super::cells). A cell calculates distances from its *candidates* only, by the very
//! operations of the plain way and in the order of the centroids' numbers. (Over 400 lines, because the derivation has to
//! stand beside the few lines that it is about.) So labels, ties, distances, inertia and
//! centroids are the plain way's, bit for bit, after every assignment, as long as no row's nearest centroid is ever
//! left out. What follows says why it isn't.
//!
//! # The bound
//!
//! Write s(x, c) for the true squared distance, m for a point amid the cell, r for the largest distance of a row from m.
//! When a centroid moves from c to c', s(x, c') - s(x, c) = s(m, c') - s(m, c) - 2 (c' - c)(x - m), so for each row x
//!
//! > | s(x, c') - s(x, c) - (s(m, c') - s(m, c)) | <= 2 r |c' - c|
//!
//! The shift at m is known exactly; only how the move looks from the rest of the cell is estimated, and cells are small.
//! Let the *gap* of a centroid j be the minimum of s(x, j) - s(x, nearest centroid of x) over the rows of the cell.
//! It is measured whenever j is a candidate, and from then on bounded from below:
//!
//! > gap' >= gap + (s(m, j') - s(m, j)) - 2 r |path of j| - sum of the rises
//!
//! where the *rise* of an assignment is the maximum of s(m, b') - s(m, b) + 2 r |b' - b| over the centroids b
//! that were nearest to some row (those with gap 0): no row is farther from its nearest centroid than that takes it.
//! `credits` keep gap - s(m, j) + 2 r path + rises from the time of measuring; so a centroid that is not a candidate
//! costs nothing but the comparison of `credits` + s(m, j') with 2 r path' + rises', and is charged for all the way
//! that it went meanwhile. j is left out where the bound is above the error below.
//!
//! The first assignment of the cells has nothing measured: there the gap is bounded through the centroid b nearest to
//! m, s(x, j) - s(x, b) >= s(m, j) - s(m, b) - 2 r |j - b|.
//!
//! # The error
//!
//! Let u = 2^-24 and T the dimensions. A kernel's distance is T differences (one rounding each, squared) and T fused
//! additions: D = s (1 + e) + h with |e| <= (T + 2) u, to first order, and |h| <= T 2^-150 from underflow. So it is
//! certain that D(x, j) exceeds D(x, b) when s(x, j) - s(x, b) exceeds (T + 3) u (gap + 2 s(x, b)) + 2 T 2^-150. A
//! measured gap is uncertain by as much, and each s(m, .) by (T + 2) u of itself. Each bound adds half a dozen
//! float32 numbers, rounded a few times each. Altogether, once when a credit is written and once when it is compared:
//! (2 T + 40) u, [`slack`], of the sum of the magnitudes of *all* terms, and [`tiny`], (T + 16) 2^-140, for all
//! underflows; the square root of a distance that may have underflowed is taken with `tiny` added. This is twice as
//! much as needed, or more, and still some 10^-5 of the distances at T = 64, where gaps are of the distances' order.
//! Paths and rises are added in float64; radii and paths are rounded up. Overflow makes infinities and NaN, which
//! compare as "not left out". [`safe`] refuses what could overflow in the kernels themselves.
//!
//! So a centroid that is left out is strictly farther from each row of the cell, *as calculated*, than another one; hence
//! the first of the nearest is never left out, and among the candidates it is found. Lists are never empty.
//!
//! # Cost
//!
//! Per cell and centroid: T multiply-adds for s(m, j), lanes being cells, and a dozen operations: 0.5 % of the plain
//! way's. Per candidate and tile: the kernel's distance, stored, loaded and compared once more for the gap. Memory: 4
//! bytes per cell and centroid. With half a dozen candidates of a hundred left an assignment is bound by reading the
//! cells' values from memory.

use super::cells::{CELL_ROWS, Cells, NO_ROW, Size};
use super::fit::MOST_MAGNITUDE;
use super::lloyd::{Extent, Step};
use super::sums::{Grid, Inertia, Sums};
use super::sweep::Run;
use crate::columns::LANES;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::{Centroids, Kernel};
use crate::rng::Keys;
use crate::shape::{Block, Trajectories};
use crate::smallest::smallest_rows;

/// Cells of a stack: the lanes of a tile, whose "rows" are the cells' means.
const CELLS: usize = LANES;

/// Distances between two looks at the watch, were none left out, times T; see [`super::sweep`].
const BATCH_WORK: usize = if cfg!(test) { 1 << 18 } else { 1 << 29 };

/// What [`promising`] wants: so many iterations to come, so many rows of a cluster on average, so many distances of a row's
/// left out, and no more than this share of them calculated. Sorting costs about as much as 130 distances per row,
/// and a pruned assignment, however few its candidates, as much as ten to twenty.
const LEAST_ITERATIONS: usize = 8;
const LEAST_PER_CLUSTER: usize = 64;
const LEAST_SAVED: f64 = 32.0;
const MOST_SHARE: f64 = 0.5;
/// Rows by which [`promising`] judges.
const SAMPLE_ROWS: usize = 4096;

/// Sorted rows and what is known about their distances.
pub struct Pruned {
    cells: Cells,
    stacks: Vec<Stack>,
    /// How far each centroid has come since the rows were sorted, all its steps added.
    paths: Vec<f64>,
    /// The same, rounded up.
    reaches: Vec<f32>,
    /// Its last step.
    strides: Vec<f64>,
}

/// Sixteen cells, side by side.
struct Stack {
    sizes: Vec<Size>,
    /// `[dim][cell]`: m.
    means: Vec<f32>,
    /// r.
    radii: [f32; CELLS],
    /// `[centroid][cell]`; empty before the first assignment.
    credits: Vec<[f32; CELLS]>,
    /// The sum of the rises.
    rises: [f64; CELLS],
    /// No row is farther from its nearest centroid, squared.
    far: [f64; CELLS],
    /// `[cell]`: the centroids that were nearest to some row, and their squared distances from m.
    bests: Vec<Vec<(u32, f32)>>,
}

/// What all workers look at.
#[derive(Clone, Copy)]
struct Now<'n> {
    coordinates: &'n [f32],
    centroids: &'n Centroids,
    reaches: &'n [f32],
    strides: &'n [f64],
    grid: Grid,
    kernel: Kernel,
}

/// A worker's part of the result, and its memory.
struct Scratch {
    change: Sums,
    inertia: Inertia,
    moved: usize,
    n_evaluated: u64,
    /// `[centroid][cell]`: s(m, c), and squared distances between centroids.
    squares: Vec<[f32; CELLS]>,
    apart: Vec<[f32; CELLS]>,
    /// `[cell]`: candidates, ascending.
    lists: Vec<Vec<u32>>,
    candidates: Centroids,
    /// `[tile][lane]`.
    numbers: Vec<[f32; LANES]>,
    distances: Vec<[f32; LANES]>,
    /// `[candidate][lane]`.
    room: Vec<[f32; LANES]>,
    gaps: Vec<[f32; LANES]>,
}

/// What a sum may be wrong by, as a share of its terms' magnitudes.
fn slack(n_dims: usize) -> f32 {
    (2 * n_dims + 40) as f32 * (f32::EPSILON / 2.0)
}

/// What underflows may cost in all.
fn tiny(n_dims: usize) -> f64 {
    libm::ldexp((n_dims + 16) as f64, -140)
}

/// Whether bounds hold: row numbers fit, and no squared distance overflows.
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
pub fn promising(
    data: &Trajectories,
    (ids, ties): (Ids, Keys),
    n_iterations: usize,
    centroids: &[f32],
    kernel: Kernel,
) -> bool {
    let packed = Centroids::pack(centroids, data.n_dims());
    let n = packed.n_centroids();
    let enough = n_iterations >= LEAST_ITERATIONS && data.columns().n_valid() / n >= LEAST_PER_CLUSTER;
    if !enough || (n as f64) < LEAST_SAVED || !safe(data, centroids) {
        return false;
    }
    let sample = smallest_rows(ids, data.columns().valid(), ties, SAMPLE_ROWS);
    let mut block = Block::default();
    let (mut numbers, mut near) = ([[0.0; LANES]], [[0.0; LANES]]);
    let mut apart = vec![[0.0; LANES]; n];
    let mut n_kept = 0;
    for rows in sample.chunks(LANES) {
        data.load(rows, &mut block);
        kernel.nearest(block.tiles(), &packed, &mut numbers, &mut near);
        kernel.distances(&tile_of(&numbers[0], centroids, data.n_dims()), &packed, &mut apart);
        let kept = |apart: &[f32; LANES]| (0..rows.len()).filter(|&i| apart[i] <= 4.0 * near[0][i]).count();
        n_kept += apart.iter().map(kept).sum::<usize>();
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
    /// Sorts the rows by their labels; what they are [`safe`] with are the centroids that these belong to.
    ///
    /// # Errors
    /// An interrupt.
    pub fn new(
        data: &Trajectories,
        (ids, ties): (Ids, Keys),
        labels: &[i32],
        centroids: &[f32],
        run: &mut Run,
    ) -> Result<Self> {
        let cells = Cells::sort(data, (ids, ties), labels, centroids, run)?;
        let n_dims = data.n_dims();
        let mut stacks: Vec<Stack> =
            cells.sizes.chunks(CELLS).map(|sizes| Stack::new(sizes, n_dims)).collect();
        let (kernel, mut rest) = (run.kernel, &cells.tiles[..]);
        let parts = stacks.iter_mut().map(|stack| {
            let (mine, others) = rest.split_at(stack.n_tiles() * n_dims * LANES);
            rest = others;
            (stack, mine)
        });
        let mut workers = run.team.workers(|| ());
        run.team
            .each(&mut workers, parts.collect(), |(), (stack, tiles)| stack.measure(tiles, n_dims, kernel));
        run.watch.advance(0)?;
        let n = centroids.len() / n_dims;
        Ok(Self { cells, stacks, paths: vec![0.0; n], reaches: vec![0.0; n], strides: vec![0.0; n] })
    }

    /// The sorted rows, whose labels may be written and read.
    pub fn cells(&mut self) -> &mut Cells {
        &mut self.cells
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

    /// Labels every row with its nearest centroid and brings the sums up to date; also returns the share of the
    /// distances that were calculated.
    ///
    /// # Errors
    /// An interrupt.
    pub fn assign(
        &mut self,
        (extent, grid): (Extent, Grid),
        (coordinates, centroids): (&[f32], &Centroids),
        sums: &mut Sums,
        run: &mut Run,
    ) -> Result<(Step, f64)> {
        let (n, n_dims) = (centroids.n_centroids(), centroids.n_dims());
        let Self { cells, stacks, reaches, strides, .. } = self;
        let now = Now { coordinates, centroids, reaches, strides, grid, kernel: run.kernel };
        let (mut tiles, mut labels) = (&cells.tiles[..], &mut cells.labels[..]);
        let mut parts = stacks
            .iter_mut()
            .map(|stack| {
                let n_tiles = stack.n_tiles();
                let (my_tiles, other_tiles) = tiles.split_at(n_tiles * n_dims * LANES);
                let (my_labels, other_labels) = std::mem::take(&mut labels).split_at_mut(n_tiles * LANES);
                (tiles, labels) = (other_tiles, other_labels);
                (stack, my_tiles, my_labels)
            })
            .peekable();
        let n_together = (BATCH_WORK / (CELLS * CELL_ROWS * n_dims * n)).max(2 * run.team.n_threads());
        let mut workers = run.team.workers(|| Scratch::new(n, n_dims, extent));
        while parts.peek().is_some() {
            let some: Vec<_> = parts.by_ref().take(n_together).collect();
            let n_rows = some.iter().map(|(stack, ..)| stack.n_rows()).sum();
            run.team.each(&mut workers, some, |scratch, (stack, tiles, labels)| {
                now.kernel.distances(&stack.means, centroids, &mut scratch.squares);
                if stack.credits.is_empty() {
                    stack.estimate(now, scratch);
                } else {
                    stack.rise(now, &scratch.squares);
                }
                stack.list(now, scratch);
                stack.assign(tiles, labels, now, scratch);
            });
            run.watch.advance(n_rows)?;
        }
        let mut total = Scratch::new(0, n_dims, extent);
        for scratch in workers.into_states() {
            sums.merge(&scratch.change);
            total.inertia.merge(&scratch.inertia);
            total.moved += scratch.moved;
            total.n_evaluated += scratch.n_evaluated;
        }
        let step = Step { inertia: total.inertia.value(), moved: total.moved, reseeded: 0 };
        Ok((step, total.n_evaluated as f64 / (extent.n_rows as f64 * n as f64)))
    }
}

impl Scratch {
    fn new(n: usize, n_dims: usize, extent: Extent) -> Self {
        Self {
            change: Sums::new(n, n_dims),
            inertia: Inertia::new(extent.most, n_dims, extent.n_rows),
            moved: 0,
            n_evaluated: 0,
            squares: vec![[0.0; CELLS]; n],
            apart: Vec::new(),
            lists: vec![Vec::new(); CELLS],
            candidates: Centroids::none(n_dims),
            numbers: Vec::new(),
            distances: Vec::new(),
            room: Vec::new(),
            gaps: Vec::new(),
        }
    }
}

impl Stack {
    fn new(sizes: &[Size], n_dims: usize) -> Self {
        Self {
            sizes: sizes.to_vec(),
            means: vec![0.0; n_dims * CELLS],
            radii: [0.0; CELLS],
            credits: Vec::new(),
            rises: [0.0; CELLS],
            far: [0.0; CELLS],
            bests: vec![Vec::new(); sizes.len()],
        }
    }

    fn n_tiles(&self) -> usize {
        self.sizes.iter().map(|size| size.n_tiles).sum()
    }

    fn n_rows(&self) -> usize {
        self.sizes.iter().map(|size| size.n_rows).sum()
    }

    /// Finds the cells' means (any point would do) and radii (none too small).
    fn measure(&mut self, mut tiles: &[f32], n_dims: usize, kernel: Kernel) {
        let mut distances = Vec::new();
        for (cell, size) in self.sizes.iter().enumerate() {
            let (mine, others) = tiles.split_at(size.n_tiles * n_dims * LANES);
            tiles = others;
            let mut mean = vec![0.0; n_dims];
            for (dim, mean) in mean.iter_mut().enumerate() {
                let mut sums = [0.0_f64; LANES];
                for tile in mine.chunks_exact(n_dims * LANES) {
                    for (sum, &x) in sums.iter_mut().zip(&tile[dim * LANES..][..LANES]) {
                        *sum += f64::from(x);
                    }
                }
                *mean = (sums.iter().sum::<f64>() / (size.n_tiles * LANES) as f64) as f32;
                self.means[dim * CELLS + cell] = *mean;
            }
            distances.resize(size.n_tiles, [0.0; LANES]);
            kernel.distances(mine, &Centroids::pack(&mean, n_dims), &mut distances);
            let far = f64::from(largest(&distances)) * (1.0 + f64::from(slack(n_dims))) + tiny(n_dims);
            self.radii[cell] = (far.sqrt() as f32).next_up();
        }
    }

    /// Gives credits where nothing has been measured yet.
    fn estimate(&mut self, now: Now, scratch: &mut Scratch) {
        let n_dims = now.centroids.n_dims();
        let (slack, tiny) = (slack(n_dims), tiny(n_dims) as f32);
        let (mut numbers, mut near) = ([[0.0; CELLS]], [[0.0; CELLS]]);
        now.kernel.nearest(&self.means, now.centroids, &mut numbers, &mut near);
        let near = near[0];
        scratch.apart.resize(now.reaches.len(), [0.0; CELLS]);
        let tile = tile_of(&numbers[0], now.coordinates, n_dims);
        now.kernel.distances(&tile, now.centroids, &mut scratch.apart);
        let credit = |(apart, reach): (&[f32; CELLS], &f32)| {
            std::array::from_fn(|cell| {
                let wide = 2.0 * self.radii[cell];
                let (turn, path) = (wide * (apart[cell] + tiny).sqrt(), wide * reach);
                (path - near[cell] - turn) - slack * (near[cell] + turn + path)
            })
        };
        self.credits = scratch.apart.iter().zip(now.reaches).map(credit).collect();
        for ((far, near), radius) in self.far.iter_mut().zip(near).zip(self.radii) {
            // (a + b)^2 <= 2 (a^2 + b^2).
            *far = 2.1 * (f64::from(near) + f64::from(radius).powi(2));
        }
    }

    /// Adds the rises of the centroids' last move.
    fn rise(&mut self, now: Now, squares: &[[f32; CELLS]]) {
        let (slack, tiny) = (f64::from(slack(now.centroids.n_dims())), tiny(now.centroids.n_dims()));
        for (cell, bests) in self.bests.iter().enumerate() {
            let wide = 2.0 * f64::from(self.radii[cell]) * (1.0 + 1e-12);
            let rise = bests.iter().map(|&(k, before)| {
                let (before, after) = (f64::from(before), f64::from(squares[k as usize][cell]));
                after - before + wide * now.strides[k as usize] + slack * (after + before) + tiny
            });
            let rise = rise.fold(f64::NEG_INFINITY, f64::max);
            self.rises[cell] += rise;
            self.far[cell] += rise.max(0.0);
        }
    }

    /// Lists each cell's candidates.
    fn list(&self, now: Now, scratch: &mut Scratch) {
        let Scratch { squares, lists, .. } = scratch;
        let (slack, tiny) = (slack(now.centroids.n_dims()), tiny(now.centroids.n_dims()) as f32);
        let wide = self.radii.map(|radius| 2.0 * radius);
        let rises = self.rises.map(|rises| rises as f32);
        let far = self.far.map(|far| 2.0 * far as f32);
        lists.iter_mut().for_each(Vec::clear);
        let centroids = self.credits.iter().zip(squares.iter()).zip(now.reaches);
        for (k, ((credits, squares), &reach)) in centroids.enumerate() {
            let mut out = [false; CELLS];
            for cell in 0..CELLS {
                let path = wide[cell] * reach;
                let gap = (credits[cell] + squares[cell]) - (path + rises[cell]);
                let magnitudes =
                    (credits[cell].abs() + squares[cell]) + (path + rises[cell].abs()) + far[cell];
                // NaN is not above anything.
                out[cell] = gap > slack * magnitudes + tiny;
            }
            if out != [true; CELLS] {
                for (list, _) in
                    lists.iter_mut().zip(&self.sizes).zip(out).filter(|(_, out)| !out).map(|(l, _)| l)
                {
                    list.push(k as u32);
                }
            }
        }
    }

    /// Labels the rows of every cell, and measures the candidates' gaps.
    fn assign(&mut self, mut tiles: &[f32], mut labels: &mut [i32], now: Now, scratch: &mut Scratch) {
        let Scratch { squares, lists, candidates, numbers, distances, room, gaps, .. } = scratch;
        let n_dims = now.centroids.n_dims();
        let (size, slack) = (n_dims * LANES, slack(n_dims));
        for (cell, &Size { n_tiles, n_rows }) in self.sizes.iter().enumerate() {
            let (mine, others) = tiles.split_at(n_tiles * size);
            let (my_labels, other_labels) = labels.split_at_mut(n_tiles * LANES);
            (tiles, labels) = (others, other_labels);
            let list = &lists[cell];
            assert!(!list.is_empty(), "the nearest centroid is never left out");
            scratch.n_evaluated += (list.len() * n_rows) as u64;
            candidates.gather(now.coordinates, list);
            numbers.resize(n_tiles, [0.0; LANES]);
            distances.resize(n_tiles, [0.0; LANES]);
            room.resize(list.len(), [0.0; LANES]);
            gaps.resize(list.len(), [0.0; LANES]);
            now.kernel.nearest_and_gaps(mine, candidates, (numbers, distances), (room, gaps));

            scratch.inertia.add_all(&distances.as_flattened()[..n_rows]);
            let far = largest(distances);
            self.far[cell] = f64::from(far) * (1.0 + f64::from(slack)) + tiny(n_dims);
            let (wide, rises) = (2.0 * self.radii[cell], self.rises[cell] as f32);
            self.bests[cell].clear();
            for (&k, gaps) in list.iter().zip(gaps.iter()) {
                let gap =
                    gaps.iter().fold(f32::INFINITY, |least, &gap| if gap < least { gap } else { least });
                let square = squares[k as usize][cell];
                if gap == 0.0 {
                    self.bests[cell].push((k, square));
                }
                let path = wide * now.reaches[k as usize];
                let error = slack * ((gap + 2.0 * far) + (square + path) + rises.abs());
                self.credits[k as usize][cell] = ((gap - square) + (path + rises)) - error;
            }

            for (i, (labels, numbers)) in
                my_labels.as_chunks_mut().0.iter_mut().zip(numbers.iter()).enumerate()
            {
                let nearest = numbers.map(|number| number as i32);
                if *labels == nearest {
                    continue;
                }
                // Spare lanes are labelled like the row that they repeat, but don't count.
                for lane in (0..LANES).take(n_rows - i * LANES).filter(|&lane| labels[lane] != nearest[lane])
                {
                    let trajectory = mine[i * size + lane..][..size - lane].iter().step_by(LANES).copied();
                    scratch.change.relabel(now.grid, trajectory, labels[lane], nearest[lane]);
                    scratch.moved += 1;
                }
                *labels = nearest;
            }
        }
    }
}

/// The largest of non-negative numbers: their bits, even as signed numbers, are in their order.
fn largest(numbers: &[[f32; LANES]]) -> f32 {
    let bits = numbers.iter().fold([0; LANES], |most: [i32; LANES], numbers| {
        std::array::from_fn(|lane| most[lane].max(numbers[lane].to_bits() as i32))
    });
    f32::from_bits(bits.into_iter().fold(0, i32::max) as u32)
}
