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

/// A worker's rows of a cluster, in the order in which it met them.
#[derive(Default)]
struct Bucket {
    /// `[row][dim]`.
    values: Vec<f32>,
    rows: Vec<u32>,
    /// Squared distances from the centroid, roughly.
    distances: Vec<f32>,
}

/// A cluster's part of the cells.
struct Cluster<'c> {
    number: usize,
    buckets: Vec<Bucket>,
    sizes: &'c [Size],
    tiles: &'c mut [f32],
    rows: &'c mut [u32],
    labels: &'c mut [i32],
    means: &'c mut [f32],
    radii: &'c mut [f32],
}

/// What sorting a cluster takes, and a worker's part of the sums.
struct Scratch {
    keys: Vec<u64>,
    other_keys: Vec<u64>,
    totals: Vec<i64>,
    distances: Vec<[f32; LANES]>,
    sums: Sums,
}

impl Cells {
    /// Assigns every valid row to its nearest centroid, sorts them, and adds them to the sums. `labels` (one per row) is
    /// not touched. There are fewer than [`NO_ROW`] rows.
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
    ) -> Result<Self> {
        let (n, n_dims) = (centroids.n_centroids(), data.n_dims());
        let mut buckets = collect(data, centroids, labels, run)?;
        let counts: Vec<usize> =
            buckets.iter().map(|buckets| buckets.iter().map(|bucket| bucket.rows.len()).sum()).collect();
        let n_tiles = counts.iter().map(|n| n.div_ceil(LANES)).sum::<usize>();
        let sizes: Vec<Size> = counts.iter().flat_map(|&n_rows| cut(n_rows)).collect();
        let mut cells = Self {
            tiles: vec![0.0; n_tiles * n_dims * LANES],
            rows: vec![0; n_tiles * LANES],
            labels: vec![0; n_tiles * LANES],
            means: vec![0.0; sizes.len() * n_dims],
            radii: vec![0.0; sizes.len()],
            sizes,
        };
        let mut clusters = cells.clusters(&counts, &mut buckets, n_dims).into_iter().peekable();
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
        Ok(cells)
    }

    /// Each cluster's part.
    fn clusters(&mut self, counts: &[usize], buckets: &mut [Vec<Bucket>], n_dims: usize) -> Vec<Cluster<'_>> {
        let (mut tiles, mut rows, mut labels) =
            (&mut self.tiles[..], &mut self.rows[..], &mut self.labels[..]);
        let (mut means, mut radii, mut sizes) = (&mut self.means[..], &mut self.radii[..], &self.sizes[..]);
        let mut clusters = Vec::new();
        for (number, &n_rows) in counts.iter().enumerate().filter(|(_, n_rows)| **n_rows > 0) {
            let n_lanes = n_rows.div_ceil(LANES) * LANES;
            let n_cells = cut(n_rows).count();
            clusters.push(Cluster {
                number,
                buckets: std::mem::take(&mut buckets[number]),
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

/// Copies the rows to their clusters' buckets, `[cluster][worker]`.
fn collect(
    data: &Trajectories,
    centroids: &Centroids,
    labels: &mut [i32],
    run: &mut Run,
) -> Result<Vec<Vec<Bucket>>> {
    let (n, n_dims) = (centroids.n_centroids(), data.n_dims());
    let make = || ((0..n).map(|_| Bucket::default()).collect::<Vec<_>>(), vec![0.0; n_dims * LANES]);
    let states = run.sweep(data, Some(centroids), labels, make, |(buckets, transposed), _, _, seen| {
        let Seen { rows, block, numbers, scores } = seen;
        for (i, tile) in block.tiles().chunks_exact(n_dims * LANES).enumerate() {
            let mut norms = [0.0_f32; LANES];
            for (dim, lanes) in tile.as_chunks::<LANES>().0.iter().enumerate() {
                for (lane, x) in lanes.iter().enumerate() {
                    norms[lane] += x * x;
                    transposed[lane * n_dims + dim] = *x;
                }
            }
            let rows = &rows[i * LANES..rows.len().min((i + 1) * LANES)];
            for (lane, (&row, values)) in rows.iter().zip(transposed.chunks_exact(n_dims)).enumerate() {
                let bucket = &mut buckets[numbers[i][lane] as usize];
                bucket.values.extend_from_slice(values);
                bucket.rows.push(row as u32);
                let distance = 2.0 * scores[i][lane] + norms[lane];
                bucket.distances.push(if distance > 0.0 { distance } else { 0.0 });
            }
        }
    })?;
    let mut buckets: Vec<Vec<Bucket>> = (0..n).map(|_| Vec::new()).collect();
    for (state, _) in states {
        for (buckets, bucket) in buckets.iter_mut().zip(state) {
            buckets.push(bucket);
        }
    }
    Ok(buckets)
}

/// Cuts a cluster into cells of nearly equal numbers of tiles.
fn cut(n_rows: usize) -> impl Iterator<Item = Size> {
    let (n_tiles, n_cells) = (n_rows.div_ceil(LANES), n_rows.div_ceil(CELL_ROWS));
    (0..n_cells).map(move |cell| {
        let (from, to) = (cell * n_tiles / n_cells, (cell + 1) * n_tiles / n_cells);
        Size { n_tiles: to - from, n_rows: (to * LANES).min(n_rows) - from * LANES }
    })
}

impl Scratch {
    fn new(n_clusters: usize, n_dims: usize) -> Self {
        Self {
            keys: Vec::new(),
            other_keys: Vec::new(),
            totals: Vec::new(),
            distances: Vec::new(),
            sums: Sums::new(n_clusters, n_dims),
        }
    }
}

impl Cluster<'_> {
    /// Sorts the rows by their distances from the centroid, equals by keyed id, into tiles, fills the spare lanes, and
    /// measures the cells.
    fn sort(
        mut self,
        (ids, ties): (Ids, Keys),
        n_dims: usize,
        grid: Grid,
        kernel: Kernel,
        scratch: &mut Scratch,
    ) {
        let Scratch { keys, other_keys, .. } = scratch;
        // A row is found again by its bucket and its place there.
        let starts: Vec<usize> =
            self.buckets.iter().scan(0, |sum, b| Some(std::mem::replace(sum, *sum + b.rows.len()))).collect();
        let found = |at: u32| {
            let bucket = starts.partition_point(|&start| start <= at as usize) - 1;
            (&self.buckets[bucket], at as usize - starts[bucket])
        };
        keys.clear();
        let distances = self.buckets.iter().flat_map(|bucket| &bucket.distances).enumerate();
        // The bits of non-negative floats are in the order of their values.
        keys.extend(distances.map(|(at, distance)| u64::from(distance.to_bits()) << 32 | at as u64));
        sort_by_high(keys, other_keys);
        for equals in keys.chunk_by_mut(|a, b| a >> 32 == b >> 32).filter(|equals| equals.len() > 1) {
            equals.sort_unstable_by_key(|key| {
                let (bucket, i) = found(*key as u32);
                ties.key(ids.get(bucket.rows[i] as usize))
            });
        }
        let last = keys.len() - 1;
        for (i, (tile, rows)) in
            self.tiles.chunks_exact_mut(n_dims * LANES).zip(self.rows.as_chunks_mut::<LANES>().0).enumerate()
        {
            for (lane, row) in rows.iter_mut().enumerate() {
                let at = i * LANES + lane;
                let (bucket, from) = found(keys[at.min(last)] as u32);
                *row = if at <= last { bucket.rows[from] } else { NO_ROW };
                let values = &bucket.values[from * n_dims..][..n_dims];
                for (to, x) in tile[lane..].iter_mut().step_by(LANES).zip(values) {
                    *to = *x;
                }
            }
        }
        self.labels.fill(self.number as i32);
        self.buckets.clear();
        self.measure(n_dims, grid, kernel, scratch);
    }

    /// Adds the rows to the sums; finds the cells' means (any point would do) and radii (none too small).
    fn measure(self, n_dims: usize, grid: Grid, kernel: Kernel, scratch: &mut Scratch) {
        let Scratch { totals, distances, sums, .. } = scratch;
        let mut tiles = &*self.tiles;
        let cells = self.sizes.iter().zip(self.means.chunks_exact_mut(n_dims)).zip(self.radii.iter_mut());
        for ((size, mean), radius) in cells {
            let mine = tiles.split_off(..size.n_tiles * n_dims * LANES).expect("as many as were cut");
            let n_whole = size.n_rows / LANES;
            let (whole, broken) = mine.split_at(n_whole * n_dims * LANES);
            sums.join_tiles(grid, whole, self.number, kernel, totals);
            for lane in 0..size.n_rows % LANES {
                let trajectory = || broken[lane..].iter().step_by(LANES).copied();
                sums.join(grid, trajectory(), self.number);
                sums.square_one(grid, trajectory());
                totals.iter_mut().zip(trajectory()).for_each(|(total, x)| *total += grid.round(x));
            }
            for (mean, &total) in mean.iter_mut().zip(totals.iter()) {
                *mean = grid.mean(total, size.n_rows as i64);
            }
            distances.resize(size.n_tiles, [0.0; LANES]);
            kernel.distances(mine, &kernel.pack(mean, n_dims), distances);
            *radius = super::bounds::radius(distances, n_dims);
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
        keys.iter().for_each(|&key| places[digit(key)] += 1);
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
            expected.sort();
            sort_by_high(&mut keys, &mut Vec::new());
            prop_assert_eq!(keys, expected);
        }
    }
}
