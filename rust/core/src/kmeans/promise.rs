//! Whether sorting rows into [cells](super::cells) promises to pay.

use super::cells::NO_ROW;
use super::fit::MOST_MAGNITUDE;
use super::lloyd::Course;
use crate::columns::LANES;
use crate::kernels::{Kernel, Sixteen};
use crate::shape::{Block, Trajectories};

/// What [`promising`] wants: so many iterations to come, so many rows of a cluster on average, so many scores of a row's
/// left out, and no more than this share of them calculated.
const LEAST_ITERATIONS: usize = 4;
const LEAST_PER_CLUSTER: usize = 64;
const LEAST_SAVED: f64 = 32.0;
const MOST_SHARE: f64 = 0.5;
/// Rows by which [`promising`] judges.
const SAMPLE_ROWS: usize = 4096;
/// Bytes of the sorted copy, at most: beyond, the plain way reads the columns where they lie.
const MOST_BYTES: usize = 1 << 30;

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
pub(super) fn tile_of(numbers: &Sixteen, coordinates: &[f32], n_dims: usize) -> Vec<f32> {
    let mut tile = vec![0.0; n_dims * LANES];
    for (lane, &number) in numbers.iter().enumerate() {
        let centroid = &coordinates[number as usize * n_dims..][..n_dims];
        for (lanes, &coordinate) in tile.chunks_exact_mut(LANES).zip(centroid) {
            lanes[lane] = coordinate;
        }
    }
    tile
}
