//! Cells: a copy of the valid rows, sorted so that neighbours in memory are neighbours in space.
//!
//! Rows go first by their cluster, as the first assignment found it, then by their distance from its centroid, equals
//! by keyed id; each cluster is cut into cells of up to 512 rows. So a cell is a shell around a centroid: near
//! ones are small and have few rivals, and the rows with the heaviest tails, which would widen any cell that they
//! are in, are with their like. (Tried on falling curves, 1M x 16, K = 100, share of the distances calculated in the
//! second, third and last assignment: distance from the centroid 13, 9, 5.6 %; second nearest centroid 33, 11, 5.8 %;
//! lead over the second nearest 37, 13, 7.0 %; order of the rows within the cluster 38, 16, 8.6 %.)
//!
//! The order of cells decides nothing but speed: sums are integers and labels are written back to their rows. Being made
//! from distances and keyed ids, it doesn't depend on threads or on the order of the rows either, nor does the record.
//!
//! # Cost
//!
//! Memory: 4 T + 8 bytes per row for as long as the fit lasts, and as much again while sorting. Time: some 1.5
//! iterations at K = 100, T = 16. Rows are copied twice, because a scattered access per value costs several times
//! as much: with the first assignment, while a block is in the cache, row by row to the end of their cluster's bucket (each
//! worker has its own), then within a cluster, which the second-level cache mostly holds, by distance to tiles.

use super::sums::{Grid, Sums};
use super::sweep::{Run, Seen};
use crate::columns::LANES;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::{Centroids, Kernel};
use crate::pages;
use crate::rng::Keys;
use crate::shape::Trajectories;

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
    /// `[cell][dim]`: a point amid each cell's rows.
    pub means: Vec<f32>,
    /// No row of the cell is farther from its mean than that.
    pub radii: Vec<f32>,
}

/// The size of a cell.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Tiles.
    pub n_tiles: usize,
    /// Rows; the last tile may have spare lanes.
    pub n_rows: usize,
}

/// Rows of a chunk: few, since every worker and cluster has an unfinished one.
const CHUNK_ROWS: usize = 64;
/// Values of a slab.
const SLAB: usize = if cfg!(test) { 1 << 14 } else { 1 << 20 };

/// A worker's copy of the rows that it met: chunks of records of one cluster each, cut from slabs. A record is a row's
/// number and its squared distance from the centroid, roughly (both by their bits), and its values, `[dim]`.
struct Arena {
    slabs: Vec<Vec<f32>>,
    /// Numbers used of the last slab.
    used: usize,
    /// `[cluster]`.
    buckets: Vec<Bucket>,
    /// Numbers of a record.
    size: usize,
}

/// Numbers of a record before the values.
const HEAD: usize = 2;

/// A worker's rows of a cluster, in the order in which it met them.
#[derive(Default, Clone)]
struct Bucket {
    /// Slab and place of each chunk.
    chunks: Vec<(u32, u32)>,
    n_rows: usize,
}

impl Arena {
    fn new(n_clusters: usize, n_dims: usize) -> Self {
        let buckets = vec![Bucket::default(); n_clusters];
        Self { slabs: Vec::new(), used: SLAB, buckets, size: HEAD + n_dims }
    }

    /// Room for another record of the cluster.
    #[inline]
    fn push(&mut self, cluster: usize) -> &mut [f32] {
        let place = self.buckets[cluster].n_rows % CHUNK_ROWS;
        if place == 0 {
            self.push_chunk(cluster);
        }
        let bucket = &mut self.buckets[cluster];
        bucket.n_rows += 1;
        let (slab, start) = bucket.chunks[bucket.chunks.len() - 1];
        &mut self.slabs[slab as usize][start as usize + place * self.size..][..self.size]
    }

    fn push_chunk(&mut self, cluster: usize) {
        let size = CHUNK_ROWS * self.size;
        if self.used + size > self.slabs.last().map_or(0, Vec::len) {
            self.slabs.push(pages::zeros(SLAB.max(size)));
            self.used = 0;
        }
        self.buckets[cluster].chunks.push((self.slabs.len() as u32 - 1, self.used as u32));
        self.used += size;
    }

    /// The records of each chunk of a cluster.
    fn chunks(&self, cluster: usize) -> impl Iterator<Item = &[f32]> {
        let Bucket { chunks, n_rows } = &self.buckets[cluster];
        chunks.iter().enumerate().map(move |(i, &(slab, start))| {
            let rows = (n_rows - i * CHUNK_ROWS).min(CHUNK_ROWS);
            &self.slabs[slab as usize][start as usize..][..rows * self.size]
        })
    }
}

/// A cluster's part of the cells.
struct Cluster<'c> {
    number: usize,
    /// `[worker]`.
    arenas: &'c [Arena],
    sizes: &'c [Size],
    tiles: &'c mut [f32],
    rows: &'c mut [u32],
    labels: &'c mut [i32],
    means: &'c mut [f32],
    radii: &'c mut [f32],
}

/// What sorting a cluster takes, and a worker's part of the sums.
struct Scratch<'a> {
    /// The records of each chunk of the cluster.
    chunks: Vec<&'a [f32]>,
    keys: Vec<u64>,
    other_keys: Vec<u64>,
    totals: Vec<i64>,
    distances: Vec<[f32; LANES]>,
    sums: Sums,
}

impl Cells {
    /// Labels every valid row with its nearest centroid, sorts them, and makes the sums theirs; also returns how many
    /// labels changed. There are fewer than [`NO_ROW`] rows.
    ///
    /// # Errors
    /// An interrupt.
    pub fn sort(
        (data, grid): (&Trajectories, Grid),
        (ids, ties): (Ids, Keys),
        centroids: &Centroids,
        sums: &mut Sums,
        labels: &mut [i32],
        run: &mut Run,
    ) -> Result<(Self, usize)> {
        let (n, n_dims) = (centroids.n_centroids(), data.n_dims());
        let (arenas, moved) = collect(data, centroids, labels, run)?;
        *sums = Sums::new(n, n_dims);
        let size = |k: usize| arenas.iter().map(|arena| arena.buckets[k].n_rows).sum();
        let counts: Vec<usize> = (0..n).map(size).collect();
        let n_tiles = counts.iter().map(|n| n.div_ceil(LANES)).sum::<usize>();
        let sizes: Vec<Size> = counts.iter().flat_map(|&n_rows| cut(n_rows)).collect();
        let mut cells = Self {
            tiles: pages::zeros(n_tiles * n_dims * LANES),
            rows: vec![0; n_tiles * LANES],
            labels: vec![0; n_tiles * LANES],
            means: vec![0.0; sizes.len() * n_dims],
            radii: vec![0.0; sizes.len()],
            sizes,
        };
        let mut clusters = cells.clusters(&counts, &arenas, n_dims).into_iter().peekable();
        let kernel = run.kernel;
        let mut workers = run.team.workers(|| Scratch::new(n, n_dims));
        while clusters.peek().is_some() {
            let mut n_values = 0;
            let some = std::iter::from_fn(|| {
                let next = clusters.next_if(|_| n_values < BATCH_VALUES)?;
                n_values += next.tiles.len();
                Some(next)
            });
            run.team.each(&mut workers, some.collect(), |scratch, cluster| {
                cluster.sort((ids, ties), n_dims, grid, kernel, scratch);
            });
            run.watch.advance(0)?;
        }
        workers.into_states().for_each(|scratch| sums.merge(&scratch.sums));
        Ok((cells, moved))
    }

    /// Each cluster's part.
    fn clusters<'c>(&'c mut self, counts: &[usize], arenas: &'c [Arena], n_dims: usize) -> Vec<Cluster<'c>> {
        let (mut tiles, mut rows, mut labels) =
            (&mut self.tiles[..], &mut self.rows[..], &mut self.labels[..]);
        let (mut means, mut radii, mut sizes) = (&mut self.means[..], &mut self.radii[..], &self.sizes[..]);
        let mut clusters = Vec::new();
        for (number, &n_rows) in counts.iter().enumerate().filter(|(_, n_rows)| **n_rows > 0) {
            let n_lanes = n_rows.div_ceil(LANES) * LANES;
            let n_cells = cut(n_rows).count();
            clusters.push(Cluster {
                number,
                arenas,
                sizes: sizes.split_off(..n_cells).expect("as many as were cut"),
                tiles: tiles.split_off_mut(..n_lanes * n_dims).expect("as many as were cut"),
                rows: rows.split_off_mut(..n_lanes).expect("as many as were cut"),
                labels: labels.split_off_mut(..n_lanes).expect("as many as were cut"),
                means: means.split_off_mut(..n_cells * n_dims).expect("as many as were cut"),
                radii: radii.split_off_mut(..n_cells).expect("as many as were cut"),
            });
        }
        clusters
    }
}

/// Labels the rows and copies them to their clusters' buckets, each worker to its own; also returns how many labels changed.
fn collect(
    data: &Trajectories,
    centroids: &Centroids,
    labels: &mut [i32],
    run: &mut Run,
) -> Result<(Vec<Arena>, usize)> {
    let (n, n_dims) = (centroids.n_centroids(), data.n_dims());
    let make = || (Arena::new(n, n_dims), 0);
    let states = run.sweep(data, Some(centroids), labels, make, |(arena, moved), range, labels, seen| {
        seen.relabel(range.start, labels, |_, _, _| *moved += 1);
        let Seen { rows, block, numbers, scores } = seen;
        for (i, tile) in block.tiles().chunks_exact(n_dims * LANES).enumerate() {
            let mut norms = [0.0_f32; LANES];
            for lanes in tile.as_chunks::<LANES>().0 {
                for (norm, x) in norms.iter_mut().zip(lanes) {
                    *norm += x * x;
                }
            }
            let rows = &rows[i * LANES..rows.len().min((i + 1) * LANES)];
            for (lane, &row) in rows.iter().enumerate() {
                let distance = 2.0 * scores[i][lane] + norms[lane];
                let (head, values) = arena.push(numbers[i][lane] as usize).split_at_mut(HEAD);
                head[0] = f32::from_bits(row as u32);
                head[1] = if distance > 0.0 { distance } else { 0.0 };
                for (to, x) in values.iter_mut().zip(tile[lane..].iter().step_by(LANES)) {
                    *to = *x;
                }
            }
        }
    })?;
    let moved = states.iter().map(|(_, moved)| moved).sum();
    Ok((states.into_iter().map(|(arena, _)| arena).collect(), moved))
}

/// Cuts a cluster into cells of nearly equal numbers of tiles.
fn cut(n_rows: usize) -> impl Iterator<Item = Size> {
    let (n_tiles, n_cells) = (n_rows.div_ceil(LANES), n_rows.div_ceil(CELL_ROWS));
    (0..n_cells).map(move |cell| {
        let (from, to) = (cell * n_tiles / n_cells, (cell + 1) * n_tiles / n_cells);
        Size { n_tiles: to - from, n_rows: (to * LANES).min(n_rows) - from * LANES }
    })
}

impl Scratch<'_> {
    fn new(n_clusters: usize, n_dims: usize) -> Self {
        Self {
            chunks: Vec::new(),
            keys: Vec::new(),
            other_keys: Vec::new(),
            totals: Vec::new(),
            distances: Vec::new(),
            sums: Sums::new(n_clusters, n_dims),
        }
    }
}

impl<'c> Cluster<'c> {
    /// Sorts the rows by their distances from the centroid, equals by keyed id, into tiles, fills the spare lanes, and
    /// measures the cells.
    fn sort(
        self,
        (ids, ties): (Ids, Keys),
        n_dims: usize,
        grid: Grid,
        kernel: Kernel,
        scratch: &mut Scratch<'c>,
    ) {
        let Scratch { chunks, keys, other_keys, .. } = &mut *scratch;
        chunks.clear();
        keys.clear();
        for chunk in self.arenas.iter().flat_map(|arena| arena.chunks(self.number)) {
            // The bits of non-negative floats are in the order of their values.
            let at = chunks.len() * CHUNK_ROWS;
            let key = |(i, record): (usize, &[f32])| u64::from(record[1].to_bits()) << 32 | (at + i) as u64;
            keys.extend(chunk.chunks_exact(HEAD + n_dims).enumerate().map(key));
            chunks.push(chunk);
        }
        sort_by_high(keys, other_keys);
        for equals in keys.chunk_by_mut(|a, b| a >> 32 == b >> 32).filter(|equals| equals.len() > 1) {
            equals.sort_unstable_by_key(|key| {
                let row = record_of(chunks, *key, n_dims)[0].to_bits();
                ties.key(ids.get(row as usize))
            });
        }
        self.labels.fill(self.number as i32);
        let Scratch { chunks, keys, totals, distances, sums, .. } = scratch;
        let (mut all_tiles, mut all_rows, mut all_keys) = (self.tiles, self.rows, &keys[..]);
        let cells = self.sizes.iter().zip(self.means.chunks_exact_mut(n_dims)).zip(self.radii);
        for ((size, mean), radius) in cells {
            let mine = all_tiles.split_off_mut(..size.n_tiles * n_dims * LANES).expect("as many as were cut");
            let rows = all_rows.split_off_mut(..size.n_tiles * LANES).expect("as many as were cut");
            let keys = all_keys.split_off(..size.n_rows).expect("as many as were cut");
            gather(chunks, keys, n_dims, mine, rows);
            // The rows join the sums, while they are near.
            let (whole, broken) = mine.split_at(size.n_rows / LANES * n_dims * LANES);
            sums.join_tiles(grid, whole, self.number, kernel, totals);
            for lane in 0..size.n_rows % LANES {
                let trajectory = || broken[lane..].iter().step_by(LANES).copied();
                sums.join(grid, trajectory(), self.number);
                sums.square_one(grid, trajectory());
                totals.iter_mut().zip(trajectory()).for_each(|(total, x)| *total += grid.round(x));
            }
            // Any point would do as a mean, no radius may be too small.
            for (mean, &total) in mean.iter_mut().zip(totals.iter()) {
                *mean = grid.mean(total, size.n_rows as i64);
            }
            distances.resize(size.n_tiles, [0.0; LANES]);
            kernel.distances(mine, &kernel.pack(mean, n_dims), distances);
            *radius = super::margin::radius(distances, n_dims);
        }
    }
}

/// The record that a key's low half stands for.
fn record_of<'c>(chunks: &[&'c [f32]], key: u64, n_dims: usize) -> &'c [f32] {
    let at = key as u32 as usize;
    &chunks[at / CHUNK_ROWS][at % CHUNK_ROWS * (HEAD + n_dims)..][..HEAD + n_dims]
}

/// Copies the rows of these keys to tiles, and their numbers; spare lanes repeat the last row.
fn gather(chunks: &[&[f32]], keys: &[u64], n_dims: usize, tiles: &mut [f32], rows: &mut [u32]) {
    let mut values = [&[][..]; LANES];
    let tiles = tiles.chunks_exact_mut(n_dims * LANES).zip(rows.as_chunks_mut::<LANES>().0);
    for (keys, (tile, rows)) in keys.chunks(LANES).zip(tiles) {
        for (lane, (row, values)) in rows.iter_mut().zip(&mut values).enumerate() {
            let record = record_of(chunks, keys[lane.min(keys.len() - 1)], n_dims);
            *row = if lane < keys.len() { record[0].to_bits() } else { NO_ROW };
            *values = &record[HEAD..];
        }
        for (dim, lanes) in tile.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            *lanes = values.map(|values| values[dim]);
        }
    }
}

/// Sorts by the high halves; equals keep their order. Three passes of counting.
fn sort_by_high(keys: &mut Vec<u64>, other: &mut Vec<u64>) {
    const DIGIT: u32 = 11;
    if keys.len() < 1 << 9 {
        // Equals are sorted again by the caller.
        return keys.sort_unstable();
    }
    other.clear();
    other.resize(keys.len(), 0);
    for shift in [32, 32 + DIGIT, 32 + 2 * DIGIT] {
        let digit = |key: u64| (key >> shift) as usize & ((1 << DIGIT) - 1);
        let mut places = [0_u32; 1 << DIGIT];
        for &key in &*keys {
            places[digit(key)] += 1;
        }
        let mut before = 0;
        for place in &mut places {
            before += std::mem::replace(place, before);
        }
        for &key in &*keys {
            let place = &mut places[digit(key)];
            other[*place as usize] = key;
            *place += 1;
        }
        std::mem::swap(keys, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counting_sorts(high in prop::collection::vec(any::<u32>(), 0..3000), coarse: bool) {
            let mask = if coarse { 0xff00_0000 } else { u32::MAX };
            let mut keys: Vec<u64> =
                high.iter().enumerate().map(|(i, h)| u64::from(h & mask) << 32 | i as u64).collect();
            let mut expected = keys.clone();
            expected.sort_unstable();
            sort_by_high(&mut keys, &mut Vec::new());
            prop_assert_eq!(keys, expected);
        }
    }
}
