//! How many clusters? Inertia and simplified silhouette for a list of K, from one pass over the data per iteration.
//!
//! All K run Lloyd's iterations side by side: a block of rows is loaded, shaped and rounded to the grid of the sums once,
//! and then meets every K's centroids. Each K takes the very steps that [`super::lloyd`] would take from the same seeds,
//! re-seeding of empty clusters included; whichever comes to rest is left out of further passes. Sums are made anew in
//! every pass, so no labels are kept: memory is a sum per centroid and thread, whatever N. "No label moved" is
//! judged by the sums: where they are the same to the last bit, so are the next centroids.
//!
//! # Seeds
//!
//! One greedy k-means++ run of the largest K; a smaller K starts from the first of its seeds. They are a greedy run of
//! their own but for the number of candidates per step, 2 + ln K, which is the largest K's. So the largest K (and a single
//! one) is diagnosed exactly as [`super::cluster()`] would cluster, and the others nearly so.
//!
//! # Simplified silhouette
//!
//! The mean over all examples of (b - a) / max(a, b): a is the distance from the nearest centroid, b that from the
//! second nearest (Hruschka, de Castro and Campello, 2004). 1: clusters far apart, 0: no clusters to speak of. The two are found by
//! their scores, their distances calculated by subtraction in float64, and what comes of it rounded to a multiple of
//! 2^-51 and summed in 128 bits, without an order. There is none for a single cluster.
//!
//! # Cost
//!
//! Per iteration N x (sum of all K) x T multiply-adds, and N x T additions per K where Lloyd's own would only follow the
//! few examples that move: about what one plain fit after the other costs, for one reading of the data instead of one per
//! K. Nothing is pruned (centroids of many K side by side would need many sorted copies), so where pruning pays, and the data
//! lie in memory, one fit after the other is faster. The last pass, over all rows, costs as much as six iterations: all
//! scores are written down, and their two smallest found, by plain code.

#[cfg(test)]
mod tests;

use super::fit::{Fit, range, survey};
use super::lloyd::{Stop, reseed};
use super::seeding;
use super::sums::{Grid, Sums};
use super::sweep::Run;
use super::total::Unit;
use crate::columns::{Columns, LANES, Layout};
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::kernels::{Centroids, Kernel, MOST_CENTROIDS};
use crate::parallel::Team;
use crate::rng::{FIT, Keys, SEED, SEED_CHOICE, TIE};
use crate::shape::Trajectories;
use crate::smallest::smallest_rows;

/// What to diagnose and how.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The numbers of clusters to compare, in any order.
    pub n_clusters: &'a [usize],
    /// How many times centroids move, at most.
    pub n_iterations: usize,
    /// The seed.
    pub seed: u64,
    /// What the centroids are fitted on; not by mini-batches.
    pub fit: Fit,
    /// Threads.
    pub n_threads: usize,
    /// The kernels; like the threads, they leave no trace in the result.
    pub kernel: Kernel,
}

/// What a number of clusters comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diagnosis {
    /// How many clusters were asked for.
    pub n_clusters: usize,
    /// How many of them have members.
    pub n_found: usize,
    /// Sum of all valid rows' squared distances from their centroids.
    pub inertia: f64,
    /// Mean simplified silhouette of all valid rows; None for a single cluster.
    pub silhouette: Option<f64>,
    /// How many times the centroids moved.
    pub n_iterations: usize,
    /// Why they didn't move again.
    pub stop: Stop,
}

/// One diagnosis per number of clusters, in the order of the question, and what the centroids were fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnoses {
    /// Per number of clusters.
    pub rows: Vec<Diagnosis>,
    /// Full or a sample.
    pub fit: Fit,
    /// Of how many rows.
    pub n_fit_rows: usize,
}

/// A number of clusters on its way.
struct Candidate {
    /// `[centroid][dim]`.
    centroids: Vec<f32>,
    /// Of the last assignment.
    sums: Sums,
    n_assignments: usize,
    stop: Option<Stop>,
}

/// Compares numbers of clusters of the same trajectories.
///
/// `ids` (one per row, distinct) stand for the rows wherever chance or a tie decides.
///
/// # Errors
/// A question out of range, ids of another length, no valid row, a valid row that is not finite once shaped or too large, an
/// interrupt.
///
/// # Panics
/// Never: every number of clusters is iterated to its end.
pub fn diagnose(data: Trajectories, ids: Ids, question: Question, watch: Watch) -> Result<Diagnoses> {
    check(&data, ids, question)?;
    let Question { n_clusters, n_iterations, seed, n_threads, kernel, .. } = question;
    let (n_examples, n_valid) = (data.columns().n_examples(), data.columns().n_valid());
    let largest = n_clusters.iter().copied().max().unwrap_or(1).min(n_valid);
    let (fit, n_fit_rows) = question.fit.resolve(n_examples, n_valid, largest);
    let mut run = Run { kernel, team: Team::new(n_threads)?, watch };
    let mut labels = vec![-1; n_examples];
    let keys = |purpose| Keys::new(seed, purpose);
    let seeds = |data: &Trajectories, ids: Ids, run: &mut Run| {
        let with = (&run.team, &mut run.watch);
        smallest_rows(data.columns(), ids, keys(SEED), seeding::n_sampled(largest), with)
    };
    let start = |data: &Trajectories, sample: &[usize], run: &mut Run| -> Result<Vec<Candidate>> {
        let seeds = seeding::plus_plus(data, sample, largest, keys(SEED_CHOICE), run)?;
        Ok(n_clusters.iter().map(|&k| Candidate::new(&seeds, k, data.n_dims())).collect())
    };
    let (data, candidates, most) = if n_fit_rows == n_valid {
        let sample = seeds(&data, ids, &mut run)?;
        let data = data.centred(&sample);
        let most = survey(&data, &mut labels, &mut run)?;
        let mut candidates = start(&data, &sample, &mut run)?;
        let grid = Grid::new(most, n_valid, data.n_dims());
        iterate((&data, grid), (ids, keys(TIE)), &mut candidates, n_iterations, &mut labels, &mut run)?;
        (data, candidates, most)
    } else {
        let with = (&run.team, &mut run.watch);
        let mut rows = smallest_rows(data.columns(), ids, keys(FIT), n_fit_rows, with)?;
        rows.sort_unstable();
        let columns = data.columns().gather(&rows);
        let part_ids: Vec<u64> = rows.iter().map(|&row| ids.get(row)).collect();
        let layout = Layout::Columns(columns.iter().map(Vec::as_slice).collect());
        let part = data.with_columns(Columns::all_valid(layout)?)?;
        let part_ids = Ids::Given(&part_ids);
        let sample = seeds(&part, part_ids, &mut run)?;
        let part = part.centred(&sample);
        let data = data.seen_from(part.centre());
        let most = survey(&data, &mut labels, &mut run)?;
        let mut candidates = start(&part, &sample, &mut run)?;
        let grid = Grid::new(most, n_fit_rows, data.n_dims());
        let mut labels = vec![-1; n_fit_rows];
        iterate((&part, grid), (part_ids, keys(TIE)), &mut candidates, n_iterations, &mut labels, &mut run)?;
        (data, candidates, most)
    };
    let found = measure(&data, &candidates, most, &mut labels, &mut run)?;
    let rows = n_clusters.iter().zip(candidates).zip(found);
    let rows = rows.map(|((&n_clusters, candidate), (n_found, inertia, silhouette))| Diagnosis {
        n_clusters,
        n_found,
        inertia,
        silhouette,
        n_iterations: candidate.n_assignments - 1,
        stop: candidate.stop.expect("every candidate was iterated to its end"),
    });
    Ok(Diagnoses { rows: rows.collect(), fit, n_fit_rows })
}

fn check(data: &Trajectories, ids: Ids, question: Question) -> Result<()> {
    if question.n_clusters.is_empty() {
        return Err(Error::Range {
            argument: "n_clusters",
            found: 0,
            least: 1,
            most: MOST_CENTROIDS as i128,
        });
    }
    for &n_clusters in question.n_clusters {
        range("n_clusters", n_clusters, MOST_CENTROIDS)?;
    }
    range("n_iterations", question.n_iterations, u32::MAX as usize)?;
    if question.fit == Fit::MiniBatch {
        let (found, allowed) = (question.fit.name().to_owned(), "auto, full, sample".to_owned());
        return Err(Error::Name { argument: "fit", found, allowed });
    }
    let (n_examples, n_valid) = (data.columns().n_examples(), data.columns().n_valid());
    if ids.len() != n_examples {
        return Err(Error::Length { argument: "ids", found: ids.len(), expected: n_examples, of: "valid" });
    }
    if n_valid == 0 {
        return Err(Error::NoValidRows { n_examples });
    }
    Ok(())
}

impl Candidate {
    /// The first `n_clusters` of the seeds.
    fn new(seeds: &[f32], n_clusters: usize, n_dims: usize) -> Self {
        let centroids = seeds[..seeds.len().min(n_clusters.saturating_mul(n_dims))].to_vec();
        let sums = Sums::new(centroids.len() / n_dims, n_dims);
        Self { centroids, sums, n_assignments: 0, stop: None }
    }
}

/// Moves every candidate's centroids until it stops. `labels` (one per row) are room for those of one candidate.
fn iterate(
    (data, grid): (&Trajectories, Grid),
    (ids, ties): (Ids, Keys),
    candidates: &mut [Candidate],
    n_iterations: usize,
    labels: &mut [i32],
    run: &mut Run,
) -> Result<()> {
    run.watch.begin("clustering", labels.len().saturating_mul(n_iterations + 1))?;
    loop {
        let mut active: Vec<&mut Candidate> = candidates.iter_mut().filter(|c| c.stop.is_none()).collect();
        if active.is_empty() {
            return Ok(());
        }
        let packed: Vec<Centroids> =
            active.iter().map(|c| run.kernel.pack(&c.centroids, data.n_dims())).collect();
        let sums = assign((data, grid), &packed, labels, run)?;
        for ((candidate, packed), mut sums) in active.iter_mut().zip(&packed).zip(sums) {
            candidate.n_assignments += 1;
            let mut moved = sums != candidate.sums;
            // As in Lloyd's, the last assignment is left as it is.
            if candidate.n_assignments <= n_iterations && sums.counts().contains(&0) {
                labels.fill(-1);
                run.sweep(
                    data,
                    Some(packed),
                    labels,
                    || (),
                    |(), range, labels, seen| {
                        seen.relabel(range.start, labels, |_, _, _| ());
                    },
                )?;
                moved |= reseed((data, grid), packed, (ids, ties), labels, &mut sums, run)? > 0;
            }
            candidate.sums = sums;
            if !moved {
                candidate.stop = Some(Stop::NoLabelMoved);
            } else if candidate.n_assignments > n_iterations {
                candidate.stop = Some(Stop::Iterations);
            } else {
                candidate.sums.move_centroids(grid, &mut candidate.centroids);
            }
        }
    }
}

/// Multiply-adds per row of meeting all these centroids.
fn work(centroids: &[Centroids], n_dims: usize) -> usize {
    centroids.iter().map(Centroids::n_centroids).sum::<usize>().saturating_mul(n_dims)
}

/// Sums by nearest centroid (but not of squares) for each set of centroids.
fn assign(
    (data, grid): (&Trajectories, Grid),
    centroids: &[Centroids],
    labels: &mut [i32],
    run: &mut Run,
) -> Result<Vec<Sums>> {
    let (kernel, n_dims) = (run.kernel, data.n_dims());
    let make_sums = || centroids.iter().map(|c| Sums::new(c.n_centroids(), n_dims)).collect::<Vec<_>>();
    let make = || (make_sums(), Vec::new(), Vec::new(), Vec::new());
    let states = run.sweep_at(work(centroids, n_dims), data, None, labels, make, |scratch, _, _, seen| {
        let (sums, rounded, numbers, scores) = scratch;
        rounded.clear();
        for index in 0..seen.rows.len() {
            rounded.extend(seen.block.trajectory(index).map(|x| grid.round(x)));
        }
        numbers.resize(seen.block.n_tiles(), [0.0; LANES]);
        scores.resize(seen.block.n_tiles(), [0.0; LANES]);
        for (centroids, sums) in centroids.iter().zip(sums) {
            kernel.nearest(seen.block.tiles(), centroids, numbers, scores);
            for (trajectory, &number) in rounded.chunks_exact(n_dims).zip(numbers.as_flattened()) {
                sums.join_rounded(trajectory, number as usize);
            }
        }
    })?;
    let mut all = make_sums();
    for (sums, ..) in states {
        for (all, sums) in all.iter_mut().zip(&sums) {
            all.merge(sums);
        }
    }
    Ok(all)
}

/// A worker's memory of [`measure`] and, per candidate, its part of the inertia and of the silhouettes.
struct Scratch {
    totals: Vec<(i128, i128)>,
    /// `[centroid][lane]`.
    scores: Vec<[f32; LANES]>,
    /// `[tile][lane]`: the numbers of the nearest and of the second nearest centroids, and the squared distances.
    numbers: [Vec<[f32; LANES]>; 2],
    distances: [Vec<[f64; LANES]>; 2],
}

/// The number of clusters with members, the inertia and the silhouette of each candidate, over all rows of `data`; none of
/// their values exceeds `most`.
fn measure(
    data: &Trajectories,
    candidates: &[Candidate],
    most: f32,
    labels: &mut [i32],
    run: &mut Run,
) -> Result<Vec<(usize, f64, Option<f64>)>> {
    const SILHOUETTE_SCALE: f64 = (1_u64 << 51) as f64;
    let (kernel, n_dims) = (run.kernel, data.n_dims());
    // No difference exceeds twice the largest value.
    let farthest = 4.0 * f64::from(most.max(f32::MIN_POSITIVE)).powi(2) * n_dims as f64;
    let unit = Unit::new(farthest, data.columns().n_valid());
    let packed: Vec<Centroids> = candidates
        .iter()
        .map(|candidate| {
            let clusters = candidate.centroids.chunks_exact(n_dims).zip(candidate.sums.counts());
            let used: Vec<f32> =
                clusters.filter(|(_, count)| **count > 0).flat_map(|(c, _)| c).copied().collect();
            kernel.pack(&used, n_dims)
        })
        .collect();
    let make = || Scratch {
        totals: vec![(0, 0); packed.len()],
        scores: Vec::new(),
        numbers: [Vec::new(), Vec::new()],
        distances: [Vec::new(), Vec::new()],
    };
    run.watch.begin("measuring", labels.len())?;
    let states =
        run.sweep_at(2 * work(&packed, n_dims), data, None, labels, make, |scratch, _, _, seen| {
            let Scratch { totals, scores, numbers: [first, second], distances: [near, far] } = scratch;
            let (tiles, n_tiles) = (seen.block.tiles(), seen.block.n_tiles());
            for numbers in [&mut *first, &mut *second] {
                numbers.resize(n_tiles, [0.0; LANES]);
            }
            for distances in [&mut *near, &mut *far] {
                distances.resize(n_tiles, [0.0; LANES]);
            }
            for (centroids, (inertia, silhouettes)) in packed.iter().zip(totals) {
                scores.resize(centroids.n_centroids(), [0.0; LANES]);
                for (i, tile) in tiles.chunks_exact(n_dims * LANES).enumerate() {
                    kernel.scores(tile, centroids, scores);
                    (first[i], second[i]) = two_nearest(scores);
                }
                kernel.residuals(tiles, centroids, first, near);
                kernel.residuals(tiles, centroids, second, far);
                let rows = near.as_flattened().iter().zip(far.as_flattened()).take(seen.rows.len());
                for (&near, &far) in rows {
                    *inertia += unit.of(near);
                    *silhouettes += i128::from(round(silhouette(near, far) * SILHOUETTE_SCALE));
                }
            }
        })?;
    let n = data.columns().n_valid() as f64;
    let total = |index: usize| {
        states.iter().fold((0, 0), |sum: (i128, i128), state| {
            (sum.0 + state.totals[index].0, sum.1 + state.totals[index].1)
        })
    };
    let found = packed.iter().enumerate().map(|(index, centroids)| {
        let (inertia, silhouettes) = total(index);
        let mean = silhouettes as f64 / SILHOUETTE_SCALE / n;
        let n_found = centroids.n_centroids();
        (n_found, unit.back(inertia), (n_found > 1).then_some(mean))
    });
    Ok(found.collect())
}

/// The numbers of every lane's smallest and second smallest score (`[centroid][lane]`), the first ones if there are equals.
///
/// Eight lanes at a time, and without a branch: so that what is known of them stays in the registers that every CPU has.
fn two_nearest(scores: &[[f32; LANES]]) -> ([f32; LANES], [f32; LANES]) {
    const TOGETHER: usize = 8;
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    for from in (0..LANES).step_by(TOGETHER) {
        let (mut least, mut next) = ([f32::INFINITY; TOGETHER], [f32::INFINITY; TOGETHER]);
        let (mut numbers, mut seconds) = ([0.0; TOGETHER], [0.0; TOGETHER]);
        let mut number = 0.0;
        for scores in scores {
            for lane in 0..TOGETHER {
                let score = scores[from + lane];
                let (is_least, is_next) = (score < least[lane], score < next[lane]);
                let passed = if is_next { number } else { seconds[lane] };
                seconds[lane] = if is_least { numbers[lane] } else { passed };
                numbers[lane] = if is_least { number } else { numbers[lane] };
                let larger = if is_least { least[lane] } else { score };
                next[lane] = if larger < next[lane] { larger } else { next[lane] };
                least[lane] = if is_least { score } else { least[lane] };
            }
            number += 1.0;
        }
        first[from..from + TOGETHER].copy_from_slice(&numbers);
        second[from..from + TOGETHER].copy_from_slice(&seconds);
    }
    (first, second)
}

/// The nearest whole number, ties to even, of one up to 2^51.
fn round(x: f64) -> i64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    (x + SHIFT).to_bits() as i64 - SHIFT.to_bits() as i64
}

/// (b - a) / max(a, b) of the distances whose squares these are; 0 where both are none.
fn silhouette(near: f64, far: f64) -> f64 {
    let (a, b) = (near.sqrt(), far.sqrt());
    let larger = a.max(b);
    if larger > 0.0 { (b - a) / larger } else { 0.0 }
}
