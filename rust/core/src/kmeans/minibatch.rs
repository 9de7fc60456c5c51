//! Mini-batches: every batch assigns a few thousand examples and moves their centroids at once (Sculley, 2010).
//!
//! A centroid is the mean of all examples that were ever assigned to it: the per-centroid learning rate 1 / count, as sums
//! of integers. The rows of the fit are gone through in the order of keyed hashes, in another order each time; so a batch is
//! a set of ids, whatever the order of the rows. Within a batch all examples see the same centroids.
//!
//! It ends early when the smoothed inertia per example (an exponential mean over about a tenth of a pass) has not fallen
//! for ten batches, as scikit-learn's does. An empty cluster takes the example of the batch that is farthest from its
//! centroid, ties by keyed id, but for the last tenth of the batches.
//!
//! Cost: rows x K x T multiply-adds per pass, like Lloyd's, but a fraction of a pass is often enough. Against Lloyd on a
//! sample it wins only when even that sample is too much for the time there is; its inertia is a few per cent higher.

use super::lloyd::{Pruning, Record, Step, Stop, squared_distance};
use super::sums::{Grid, Sums};
use super::sweep::Run;
use crate::columns::LANES;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::Centroids;
use crate::rng::{BATCH, Keys};
use crate::shape::{BLOCK_ROWS, Block, Trajectories};

/// Examples of a batch: so many, or so many per cluster.
const BATCH_ROWS: usize = if cfg!(test) { 64 } else { 8192 };
const BATCH_ROWS_PER_CLUSTER: usize = 16;
/// Batches without a fall of the smoothed inertia before the end.
const PATIENCE: usize = 10;
/// Batches in the rows of a fit, at most.
const MOST_BATCHES: usize = 256;

/// How many rows a batch has.
fn batch_rows(n_clusters: usize) -> usize {
    BATCH_ROWS.max(n_clusters.saturating_mul(BATCH_ROWS_PER_CLUSTER))
}

/// How many rows mini-batches are drawn from, where there are as many.
#[must_use]
pub fn n_rows(n_clusters: usize) -> usize {
    batch_rows(n_clusters).saturating_mul(MOST_BATCHES)
}

/// A worker's memory and its part of a batch.
struct Scratch {
    change: Sums,
    block: Block,
    numbers: Vec<[f32; LANES]>,
    scores: Vec<[f32; LANES]>,
    /// The examples farthest from their centroids: (squared distance's bits, key, row).
    farthest: Vec<(u64, u64, usize)>,
}

/// Moves `centroids` (`[cluster][dim]`) batch by batch through all valid rows, `n_passes` times at most. There is one
/// step per batch, whose `moved` says how many examples it had.
///
/// # Errors
/// An interrupt.
pub fn minibatch(
    (data, grid): (&Trajectories, Grid),
    (ids, ties): (Ids, Keys),
    (n_passes, seed): (usize, u64),
    centroids: &mut [f32],
    run: &mut Run,
) -> Result<Record> {
    let n_dims = data.n_dims();
    let n = centroids.len() / n_dims;
    let mut rows: Vec<(u64, usize)> = data.columns().valid_rows(0..ids.len()).map(|row| (0, row)).collect();
    let batch_rows = batch_rows(n).min(rows.len());
    let n_batches = rows.len().div_ceil(batch_rows);
    // Sums go on for all passes, the grid has room for one.
    let mut so_far = Sums::new(n, n_dims);
    let mut steps: Vec<Step> = Vec::new();
    let (mut smoothed, mut least, mut stalled) = (None, f64::INFINITY, 0);
    let weight = (20.0 / n_batches as f64).min(1.0);
    run.watch.begin("clustering", rows.len().saturating_mul(n_passes))?;
    let mut stop = Stop::Iterations;
    'passes: for pass in 0..n_passes {
        let keys = Keys::new(Keys::new(seed, BATCH).key(pass as u64), BATCH);
        for (key, row) in &mut rows {
            *key = keys.key(ids.get(*row));
        }
        rows.sort_unstable();
        for (i, batch) in rows.chunks(batch_rows).enumerate() {
            let packed = run.kernel.pack(centroids, n_dims);
            let (change, mut farthest) = assign((data, grid), (ids, ties), &packed, batch, run);
            let inertia = change.inertia(grid, centroids);
            so_far.merge_halving(&change, rows.len() as i64);
            so_far.move_centroids(grid, centroids);
            let mut reseeded = 0;
            if pass == 0 && i < n_batches - n_batches / 10 && so_far.counts().contains(&0) {
                farthest.sort_unstable();
                let mut candidates = farthest.into_iter();
                let mut block = Block::default();
                for k in (0..n).filter(|&k| so_far.counts()[k] == 0) {
                    let Some((_, _, row)) = candidates.next() else { break };
                    data.load(&[row], &mut block);
                    for (coordinate, x) in centroids[k * n_dims..].iter_mut().zip(block.trajectory(0)) {
                        *coordinate = x;
                    }
                    reseeded += 1;
                }
            }
            steps.push(Step { inertia, moved: batch.len(), reseeded });
            run.watch.advance(batch.len())?;
            let mean = inertia / batch.len() as f64;
            let now = smoothed.map_or(mean, |before: f64| before + weight * (mean - before));
            smoothed = Some(now);
            stalled = if now < least { 0 } else { stalled + 1 };
            least = now.min(least);
            if stalled >= PATIENCE {
                stop = Stop::InertiaStalled;
                break 'passes;
            }
        }
    }
    let evaluated = vec![1.0; steps.len()];
    Ok(Record { steps, stop, pruning: Pruning::None, evaluated })
}

/// Sums of a batch by nearest centroid, and the examples of the batch that are farthest from theirs, one per cluster and
/// worker at least.
fn assign(
    (data, grid): (&Trajectories, Grid),
    (ids, ties): (Ids, Keys),
    centroids: &Centroids,
    batch: &[(u64, usize)],
    run: &mut Run,
) -> (Sums, Vec<(u64, u64, usize)>) {
    let (n, n_dims, kernel) = (centroids.n_centroids(), data.n_dims(), run.kernel);
    let mut workers = run.team.workers(|| Scratch {
        change: Sums::new(n, n_dims),
        block: Block::default(),
        numbers: Vec::new(),
        scores: Vec::new(),
        farthest: Vec::new(),
    });
    run.team.each(&mut workers, batch.chunks(BLOCK_ROWS).collect(), |scratch, part: &[(u64, usize)]| {
        let Scratch { change, block, numbers, scores, farthest } = scratch;
        let rows: Vec<usize> = part.iter().map(|&(_, row)| row).collect();
        data.load(&rows, block);
        numbers.resize(block.n_tiles(), [0.0; LANES]);
        scores.resize(block.n_tiles(), [0.0; LANES]);
        kernel.nearest(block.tiles(), centroids, numbers, scores);
        change.join_block(grid, block, numbers, kernel);
        for (index, (&row, &number)) in rows.iter().zip(numbers.as_flattened()).enumerate() {
            let k = number as usize;
            let distance =
                squared_distance(block.trajectory(index), &centroids.coordinates()[k * n_dims..][..n_dims]);
            farthest.push((!distance.to_bits(), ties.key(ids.get(row)), row));
        }
    });
    let (mut change, mut farthest) = (Sums::new(n, n_dims), Vec::new());
    for scratch in workers.into_states() {
        change.merge(&scratch.change);
        farthest.extend(scratch.farthest);
    }
    (change, farthest)
}
