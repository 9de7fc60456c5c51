//! A clustering from beginning to end: checked parameters in, labels and the record of every step out.

use super::lloyd::{Extent, Pruning, Record, lloyd};
use super::seeding;
use super::sweep::Run;
use crate::columns::{Columns, Layout};
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::kernels::{Centroids, Kernel, MOST_CENTROIDS};
use crate::parallel::Team;
use crate::rng::{FIT, Keys, TIE};
use crate::shape::{Block, Trajectories};
use crate::smallest::smallest_rows;

/// Largest magnitude of a shaped value: square distances of up to 2^24 dimensions stay within float32. Losses are
/// a dozen orders of magnitude below.
pub const MOST_MAGNITUDE: f32 = 1e15;

/// What to do and how.
#[derive(Debug, Clone, Copy)]
pub struct Parameters {
    /// K: how many clusters, at most.
    pub n_clusters: usize,
    /// How many times centroids move, at most.
    pub n_iterations: usize,
    /// The seed.
    pub seed: u64,
    /// Fit the centroids on so many rows drawn by keyed hash; None: on all valid rows.
    pub max_fit_rows: Option<usize>,
    /// Threads.
    pub n_threads: usize,
    /// Whether to leave out distances that can't matter; None: whenever that promises to be faster. It leaves no
    /// trace in the result but the record of itself.
    pub pruning: Option<Pruning>,
    /// The kernels; like the threads, they leave no trace in the result.
    pub kernel: Kernel,
}

/// The clusters, numbered by their smallest keyed member id.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// Cluster of each of N examples; -1 where it is invalid.
    pub labels: Vec<i32>,
    /// `[cluster][dim]`; as many clusters as have members, K at most.
    pub centroids: Vec<f32>,
    /// Members per cluster.
    pub sizes: Vec<i64>,
    /// What each assignment found, and why they ended. It is about the rows of the fit.
    pub record: Record,
    /// How many rows the centroids were fitted on.
    pub n_fit_rows: usize,
}

/// Clusters trajectories by k-means.
///
/// `ids` (one per row, distinct) stand for the rows wherever chance or a tie decides.
///
/// # Errors
/// Parameters out of range, ids of another length, no valid row, a valid row that is not finite once shaped or
/// beyond [`MOST_MAGNITUDE`], an interrupt.
pub fn cluster(data: &Trajectories, ids: Ids, parameters: Parameters, watch: Watch) -> Result<Clustering> {
    let Parameters { n_clusters, n_iterations, seed, max_fit_rows, n_threads, pruning, kernel } = parameters;
    check_range("n_clusters", n_clusters, MOST_CENTROIDS)?;
    check_range("n_iterations", n_iterations, u32::MAX as usize)?;
    check_range("max_fit_rows", max_fit_rows.unwrap_or(1), usize::MAX)?;
    let (n_examples, n_valid) = (data.columns().n_examples(), data.columns().n_valid());
    if ids.len() != n_examples {
        return Err(Error::Length { argument: "ids", found: ids.len(), expected: n_examples, of: "valid" });
    }
    if n_valid == 0 {
        return Err(Error::NoValidRows { n_examples });
    }
    let mut run = Run { kernel, team: Team::new(n_threads)?, watch };
    let n_fit_rows = max_fit_rows.map_or(n_valid, |rows| rows.min(n_valid));

    let mut labels = vec![-1; n_examples];
    let most = survey(data, &mut labels, &mut run)?;
    let n_clusters = n_clusters.min(n_fit_rows);
    let fit = |data: &Trajectories, ids: Ids, labels: &mut [i32], run: &mut Run| {
        let mut centroids = seeding::plus_plus(data, ids, n_clusters, seed, run)?;
        let extent = Extent { most, n_rows: n_fit_rows };
        let ties = (ids, Keys::new(seed, TIE));
        let record = lloyd((data, extent), ties, (n_iterations, pruning), &mut centroids, labels, run)?;
        Ok((centroids, record))
    };
    let (centroids, record) = if n_fit_rows == n_valid {
        fit(data, ids, &mut labels, &mut run)?
    } else {
        let mut rows = smallest_rows(ids, data.columns().valid(), Keys::new(seed, FIT), n_fit_rows);
        rows.sort_unstable();
        let columns = data.columns().gather(&rows);
        let (ids, valid): (Vec<u64>, Vec<bool>) = rows.iter().map(|&row| (ids.get(row), true)).unzip();
        let layout = Layout::Columns(columns.iter().map(Vec::as_slice).collect());
        let part = Trajectories::new(Columns::new(layout, &valid)?, data.shape())?;
        let fitted = fit(&part, Ids::Given(&ids), &mut vec![-1; n_fit_rows], &mut run)?;
        assign_all(data, &fitted.0, &mut labels, &mut run)?;
        fitted
    };
    let (centroids, sizes) = number(data, &centroids, ids, Keys::new(seed, TIE), &mut labels, &mut run)?;
    Ok(Clustering { labels, centroids, sizes, record, n_fit_rows })
}

fn check_range(argument: &'static str, found: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::Range { argument, found: found as i128, least: 1, most: most as i128 })
}

/// The largest magnitude among the valid rows' shaped values; the first row that can't be clustered is an error.
fn survey(data: &Trajectories, labels: &mut [i32], run: &mut Run) -> Result<f32> {
    run.watch.begin("reading", labels.len())?;
    let refused = |x: f32| !x.is_finite() || x.abs() > MOST_MAGNITUDE;
    let make = || (0.0_f32, usize::MAX);
    let states = run.sweep(data, None, labels, make, |(most, bad_row), _, _, seen| {
        // The bits of magnitudes are in the order of their values, infinities and NaN last. Lanes without an example
        // hold zeros, or what a shape makes of them: NaN, which sends us to the exact look below, or 0 again.
        let bits = seen.block.tiles().iter().fold(0, |most, x| x.abs().to_bits().max(most));
        if refused(f32::from_bits(bits)) {
            for (index, &row) in seen.rows.iter().enumerate() {
                let largest = seen.block.trajectory(index).map(f32::abs).fold(0.0, f32::max);
                *most = largest.max(*most);
                if seen.block.trajectory(index).any(refused) {
                    *bad_row = row.min(*bad_row);
                }
            }
        } else {
            *most = f32::from_bits(bits).max(*most);
        }
    })?;
    let row = states.iter().map(|state| state.1).min().unwrap_or(usize::MAX);
    if row == usize::MAX {
        return Ok(states.iter().fold(0.0, |most, state| state.0.max(most)));
    }
    let mut block = Block::default();
    data.load(&[row], &mut block);
    let found = block.trajectory(0).enumerate().find(|(_, x)| refused(*x));
    let (state, value) = found.expect("the row was refused because of one of its values");
    Err(if value.is_finite() {
        Error::TooLarge { row, state, value, most: MOST_MAGNITUDE }
    } else {
        Error::NotFinite { row, state, value, shape: data.shape().name() }
    })
}

/// Labels every valid row with its nearest centroid.
fn assign_all(data: &Trajectories, centroids: &[f32], labels: &mut [i32], run: &mut Run) -> Result<()> {
    run.watch.begin("assigning", labels.len())?;
    let packed = Centroids::pack(centroids, data.n_dims());
    run.sweep(
        data,
        Some(&packed),
        labels,
        || (),
        |(), range, labels, seen| {
            for (_, row, nearest, _) in seen.examples() {
                labels[row - range.start] = nearest;
            }
        },
    )?;
    Ok(())
}

/// Drops clusters without members and numbers the others by the smallest key of a member.
fn number(
    data: &Trajectories,
    centroids: &[f32],
    ids: Ids,
    ties: Keys,
    labels: &mut [i32],
    run: &mut Run,
) -> Result<(Vec<f32>, Vec<i64>)> {
    let n_clusters = centroids.len() / data.n_dims();
    let mut members: Vec<(u64, usize, i64)> = (0..n_clusters).map(|k| (u64::MAX, k, 0)).collect();
    for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
        let (least, _, size) = &mut members[label as usize];
        *least = ties.key(ids.get(row)).min(*least);
        *size += 1;
    }
    members.retain(|&(_, _, size)| size > 0);
    members.sort_unstable();
    let mut numbers = vec![-1; n_clusters];
    for (number, &(_, k, _)) in members.iter().enumerate() {
        numbers[k] = number as i32;
    }
    run.watch.advance(0)?;
    labels.iter_mut().filter(|label| **label >= 0).for_each(|label| *label = numbers[*label as usize]);
    let coordinates =
        members.iter().flat_map(|&(_, k, _)| &centroids[k * data.n_dims()..(k + 1) * data.n_dims()]);
    Ok((coordinates.copied().collect(), members.iter().map(|member| member.2).collect()))
}
