//! Cells: a copy of the valid rows, sorted so that neighbours in memory are neighbours in space.
//!
//! Rows go first by their cluster, as the first assignment found it, then by their distance from its centroid, equals
//! by keyed id; each cluster is cut into cells of up to 512 rows. So a cell is a shell around a centroid: near
//! ones are small and have few rivals, and the rows with the heaviest tails, which would widen any cell that they
//! are in, are with their like. (Tried on falling curves, 1M x 16, K = 100, share of the distances calculated in the
//! second, third and last assignment: distance from the centroid 13, 9, 5.6 %; second nearest centroid 33, 11, 5.8 %;
//! lead over the second nearest 37, 13, 7.0 %; order of the rows within the cluster 38, 16, 8.6 %. Two principal
//! axes, without clusters, were said to leave 18 and then 9.5 %.)
//!
//! Order decides nothing but speed: sums are integers and labels are written back to their rows. Being made from
//! distances and keyed ids, it doesn't depend on threads or on the order of the rows either, nor does the record.
//!
//! # Cost
//!
//! Memory: 4 T + 8 bytes per row for as long as the fit lasts, and while sorting, for each thread, a copy of the cluster
//! at hand. Time: about two and a half iterations at K = 100, T = 16. Rows are copied twice, because a scattered
//! access per value costs several times as much: in their own order to the end of their cluster's tiles (one open
//! tile per cluster, which the second-level cache holds), then within a cluster by distance.

use super::sweep::Run;
use crate::columns::LANES;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::{Centroids, Kernel};
use crate::rng::Keys;
use crate::shape::{BLOCK_ROWS, Block, Trajectories};
use std::ops::Range;

/// Rows of a cell, at most; whole tiles.
pub const CELL_ROWS: usize = if cfg!(test) { 32 } else { 512 };

/// In place of a row number, in a cell's spare lanes.
pub const NO_ROW: u32 = u32::MAX;

/// Values copied between two looks at the watch: some tens of milliseconds.
const BATCH_VALUES: usize = if cfg!(test) { 1 << 12 } else { 1 << 24 };

/// Sorted rows. A cell's spare lanes repeat its last row.
pub struct Cells {
    /// `[tile][dim][lane]`: the shaped values.
    pub tiles: Vec<f32>,
    /// `[tile][lane]`: row numbers; [`NO_ROW`] in spare lanes.
    pub rows: Vec<u32>,
    /// `[tile][lane]`: the rows' clusters.
    pub labels: Vec<i32>,
    /// How many tiles and rows each cell has.
    pub sizes: Vec<Size>,
}

/// The size of a cell.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Tiles.
    pub n_tiles: usize,
    /// Rows; the last tile may have spare lanes.
    pub n_rows: usize,
}

/// A cluster's part of the cells.
struct Cluster<'c> {
    number: usize,
    n_rows: usize,
    tiles: &'c mut [f32],
    rows: &'c mut [u32],
    labels: &'c mut [i32],
}

/// A worker's memory for [`Cluster::sort`].
#[derive(Default)]
struct Scratch {
    tiles: Vec<f32>,
    rows: Vec<u32>,
    keys: Vec<u64>,
    distances: Vec<[f32; LANES]>,
}

impl Cells {
    /// Sorts the rows that have a label (not negative). There are fewer than [`NO_ROW`] rows.
    ///
    /// # Errors
    /// An interrupt.
    pub fn sort(
        data: &Trajectories,
        (ids, ties): (Ids, Keys),
        labels: &[i32],
        centroids: &[f32],
        run: &mut Run,
    ) -> Result<Self> {
        let n_dims = data.n_dims();
        let mut counts = vec![0_usize; centroids.len() / n_dims];
        labels.iter().filter(|label| **label >= 0).for_each(|&label| counts[label as usize] += 1);
        let n_tiles = counts.iter().map(|n| n.div_ceil(LANES)).sum::<usize>();
        let mut cells = Self {
            tiles: vec![0.0; n_tiles * n_dims * LANES],
            rows: vec![NO_ROW; n_tiles * LANES],
            labels: vec![-1; n_tiles * LANES],
            sizes: counts.iter().flat_map(|&n_rows| cut(n_rows)).collect(),
        };
        cells.collect(data, labels, &counts, run)?;
        let mut clusters = cells.clusters(&counts, n_dims).into_iter().peekable();
        let kernel = run.kernel;
        let mut workers = run.team.workers(Scratch::default);
        while clusters.peek().is_some() {
            let mut n_values = 0;
            let some = std::iter::from_fn(|| {
                let next = clusters.next_if(|_| n_values < BATCH_VALUES)?;
                n_values += next.tiles.len();
                Some(next)
            });
            run.team.each(&mut workers, some.collect(), |scratch, cluster| {
                let centroid = &centroids[cluster.number * n_dims..][..n_dims];
                cluster.sort(&Centroids::pack(centroid, n_dims), (ids, ties), kernel, scratch);
            });
            run.watch.advance(0)?;
        }
        Ok(cells)
    }

    /// Copies the rows to their clusters, in their own order: each worker passes over all rows and takes its clusters'.
    fn collect(
        &mut self,
        data: &Trajectories,
        labels: &[i32],
        counts: &[usize],
        run: &mut Run,
    ) -> Result<()> {
        let n_dims = data.n_dims();
        let size = n_dims * LANES;
        // Contiguous clusters with about as many tiles for every thread.
        let n_threads = run.team.n_threads();
        let n_tiles = self.rows.len() / LANES;
        let (mut tiles, mut rows) = (&mut self.tiles[..], &mut self.rows[..]);
        let (mut groups, mut before) = (Vec::new(), 0);
        for thread in 1..=n_threads {
            let first: usize = groups.last().map_or(0, |group: &(Range<usize>, _, _, _)| group.0.end);
            let (mut end, mut next) = (first, Vec::new());
            let from = before;
            while end < counts.len() && before < n_tiles * thread / n_threads {
                next.push((before - from) * LANES);
                before += counts[end].div_ceil(LANES);
                end += 1;
            }
            if thread == n_threads {
                // What is left is empty clusters.
                next.resize(counts.len() - first, 0);
                end = counts.len();
            }
            let (my_tiles, other_tiles) = tiles.split_at_mut((before - from) * size);
            let (my_rows, other_rows) = rows.split_at_mut((before - from) * LANES);
            (tiles, rows) = (other_tiles, other_rows);
            groups.push((first..end, next, my_tiles, my_rows));
        }
        let mut workers = run.team.workers(|| (Block::default(), Vec::with_capacity(BLOCK_ROWS)));
        let batch_rows = (BATCH_VALUES / n_dims).max(BLOCK_ROWS);
        for (batch, batch_labels) in labels.chunks(batch_rows).enumerate() {
            let first = batch * batch_rows;
            run.team.each(&mut workers, groups.iter_mut().collect(), |(block, taken), group| {
                let (clusters, next, tiles, rows) = group;
                let mine = |(i, &label): (usize, &i32)| {
                    (label >= 0 && clusters.contains(&(label as usize))).then_some(first + i)
                };
                let mut mine = batch_labels.iter().enumerate().filter_map(mine).peekable();
                while mine.peek().is_some() {
                    taken.clear();
                    taken.extend(mine.by_ref().take(BLOCK_ROWS));
                    data.load(taken, block);
                    for (index, &row) in taken.iter().enumerate() {
                        let at = &mut next[labels[row] as usize - clusters.start];
                        rows[*at] = row as u32;
                        let to = tiles[*at / LANES * size + *at % LANES..].iter_mut().step_by(LANES);
                        for (to, x) in to.zip(block.trajectory(index)) {
                            *to = x;
                        }
                        *at += 1;
                    }
                }
            });
            run.watch.advance(0)?;
        }
        Ok(())
    }

    /// Each cluster's part.
    fn clusters(&mut self, counts: &[usize], n_dims: usize) -> Vec<Cluster<'_>> {
        let (mut tiles, mut rows, mut labels) =
            (&mut self.tiles[..], &mut self.rows[..], &mut self.labels[..]);
        let mut clusters = Vec::new();
        for (number, &n_rows) in counts.iter().enumerate().filter(|(_, n_rows)| **n_rows > 0) {
            let n_lanes = n_rows.div_ceil(LANES) * LANES;
            let (my_tiles, other_tiles) = tiles.split_at_mut(n_lanes * n_dims);
            let (my_rows, other_rows) = rows.split_at_mut(n_lanes);
            let (my_labels, other_labels) = labels.split_at_mut(n_lanes);
            (tiles, rows, labels) = (other_tiles, other_rows, other_labels);
            clusters.push(Cluster { number, n_rows, tiles: my_tiles, rows: my_rows, labels: my_labels });
        }
        clusters
    }

    /// Writes the labels to their rows.
    pub fn write(&self, labels: &mut [i32]) {
        for (&row, &label) in self.rows.iter().zip(&self.labels).filter(|(row, _)| **row != NO_ROW) {
            labels[row as usize] = label;
        }
    }

    /// Takes the labels from their rows.
    pub fn read(&mut self, labels: &[i32]) {
        for (&row, label) in self.rows.iter().zip(&mut self.labels).filter(|(row, _)| **row != NO_ROW) {
            *label = labels[row as usize];
        }
    }
}

/// Cuts a cluster into cells of nearly equal numbers of tiles.
fn cut(n_rows: usize) -> impl Iterator<Item = Size> {
    let (n_tiles, n_cells) = (n_rows.div_ceil(LANES), n_rows.div_ceil(CELL_ROWS));
    (0..n_cells).map(move |cell| {
        let (from, to) = (cell * n_tiles / n_cells, (cell + 1) * n_tiles / n_cells);
        Size { n_tiles: to - from, n_rows: (to * LANES).min(n_rows) - from * LANES }
    })
}

impl Cluster<'_> {
    /// Sorts the rows by their distances from the centroid, equals by keyed id, and fills the spare lanes.
    fn sort(self, centroid: &Centroids, (ids, ties): (Ids, Keys), kernel: Kernel, scratch: &mut Scratch) {
        let Scratch { tiles, rows, keys, distances } = scratch;
        let n_dims = centroid.n_dims();
        let size = n_dims * LANES;
        tiles.clear();
        tiles.extend_from_slice(self.tiles);
        rows.clear();
        rows.extend_from_slice(self.rows);
        distances.resize(rows.len() / LANES, [0.0; LANES]);
        kernel.distances(tiles, centroid, distances);
        // The bits of non-negative floats are in the order of their values.
        let found = distances.as_flattened().iter().take(self.n_rows).enumerate();
        keys.clear();
        keys.extend(found.map(|(at, distance)| u64::from(distance.to_bits()) << 32 | at as u64));
        keys.sort_unstable();
        for equals in keys.chunk_by_mut(|a, b| a >> 32 == b >> 32).filter(|equals| equals.len() > 1) {
            equals.sort_unstable_by_key(|key| ties.key(ids.get(rows[*key as u32 as usize] as usize)));
        }
        for (at, row) in self.rows.iter_mut().enumerate() {
            let from = keys[at.min(self.n_rows - 1)] as u32 as usize;
            *row = if at < self.n_rows { rows[from] } else { NO_ROW };
            let to = self.tiles[at / LANES * size + at % LANES..].iter_mut().step_by(LANES);
            let values = tiles[from / LANES * size + from % LANES..].iter().step_by(LANES);
            for (to, x) in to.zip(values).take(n_dims) {
                *to = *x;
            }
        }
        self.labels.fill(self.number as i32);
    }
}
