//! Lloyd's iterations: assign every example to its nearest centroid, move every centroid to its members' mean.
//!
//! Sums are integers ([`super::sums`]) and are kept from one iteration to the next: only examples that change their
//! cluster are subtracted here and added there. So after the first iteration an update costs next to nothing, and
//! the whole cost is the kernel's: N x K x T subtractions and multiply-adds per iteration; or, where that promises to
//! pay, after the first assignment, the fewer ones that [`super::bounds`] leaves. Both ways find the same bits.
//!
//! A cluster that an assignment leaves empty takes, in the order of the clusters' numbers, the example that is
//! farthest from its own centroid: ties by keyed id, no example twice, none that is alone in its cluster, none
//! that lies on its centroid. When there is none left to take, the cluster stays empty. This needs a second pass, in
//! the rare iterations that leave a cluster empty.

use super::bounds::{self, Pruned};
use super::sums::{Grid, Inertia, Sums};
use super::sweep::Run;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::Centroids;
use crate::rng::Keys;
use crate::shape::{Block, Trajectories};
use crate::smallest::Smallest;

/// What an assignment found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Sum of the squared distances from the nearest centroids, before any cluster was re-seeded.
    pub inertia: f64,
    /// How many examples changed their cluster (all of them in the first step).
    pub moved: usize,
    /// How many empty clusters took a far example.
    pub reseeded: usize,
}

/// Why the iterations ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// An assignment changed nothing, so no further one would.
    NoLabelMoved,
    /// All iterations were made.
    Iterations,
}

impl Stop {
    /// The reason in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoLabelMoved => "no label moved",
            Self::Iterations => "n_iterations reached",
        }
    }
}

/// Whether distances that can't matter were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    /// Every distance was calculated.
    None,
    /// Rows were sorted into cells, each of which has its own list of candidates: see [`super::bounds`].
    Cells,
}

impl Pruning {
    /// The way's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cells => "cells",
        }
    }
}

/// How the iterations went.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// One step per assignment.
    pub steps: Vec<Step>,
    /// Why there are no more of them.
    pub stop: Stop,
    /// Which way was taken; it leaves no trace in anything else.
    pub pruning: Pruning,
    /// For each step the share of the rows' distances from centroids that was calculated.
    pub evaluated: Vec<f64>,
}

/// The data's extent, which sets the grids of the sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Largest magnitude of a shaped value.
    pub most: f32,
    /// How many examples are summed, at most.
    pub n_rows: usize,
}

/// Iterates from `centroids` (`[cluster][dim]`), which end where `labels` belong to.
///
/// There is one step per assignment: one for each of up to `n_iterations` updates, and a last one whose labels
/// fit the final centroids. `labels` (one per row) start as -1 and stay so where a row is invalid. `ids` and `ties`
/// decide between examples that are equally far. `pruning` is the way to take;
/// None: whichever promises to be faster.
///
/// # Errors
/// An interrupt.
pub fn lloyd(
    (data, extent): (&Trajectories, Extent),
    (ids, ties): (Ids, Keys),
    (n_iterations, pruning): (usize, Option<Pruning>),
    centroids: &mut [f32],
    labels: &mut [i32],
    run: &mut Run,
) -> Result<Record> {
    let n_dims = data.n_dims();
    let grid = Grid::new(extent.most, extent.n_rows);
    let mut sums = Sums::new(centroids.len() / n_dims, n_dims);
    let (mut steps, mut evaluated) = (Vec::new(), Vec::new());
    let mut pruned: Option<Pruned> = None;
    run.watch.begin("clustering", labels.len().saturating_mul(n_iterations + 1))?;
    let stop = loop {
        let packed = Centroids::pack(centroids, n_dims);
        let (mut step, share) = match &mut pruned {
            None => (assign((data, extent), grid, &packed, labels, &mut sums, run)?, 1.0),
            Some(pruned) => pruned.assign((extent, grid), (centroids, &packed), &mut sums, run)?,
        };
        // The last assignment is left as it is: its labels are to fit the centroids.
        if steps.len() < n_iterations && sums.counts().contains(&0) {
            if let Some(pruned) = &mut pruned {
                pruned.cells().write(labels);
            }
            step.reseeded = reseed(data, grid, &packed, (ids, ties), labels, &mut sums, run)?;
            if let Some(pruned) = &mut pruned {
                pruned.cells().read(labels);
            }
        }
        steps.push(step);
        evaluated.push(share);
        if step.moved == 0 && step.reseeded == 0 {
            break Stop::NoLabelMoved;
        }
        if steps.len() > n_iterations {
            break Stop::Iterations;
        }
        if steps.len() == 1 {
            let worthwhile = match pruning {
                None => bounds::promising(data, (ids, ties), n_iterations, centroids, run.kernel),
                Some(way) => way == Pruning::Cells && bounds::safe(data, centroids),
            };
            if worthwhile {
                pruned = Some(Pruned::new(data, (ids, ties), labels, centroids, run)?);
            }
        }
        let before = centroids.to_vec();
        sums.move_centroids(grid, centroids);
        if let Some(pruned) = &mut pruned {
            pruned.follow(&before, centroids, n_dims);
        }
    };
    let pruning = if let Some(pruned) = &mut pruned {
        pruned.cells().write(labels);
        Pruning::Cells
    } else {
        Pruning::None
    };
    Ok(Record { steps, stop, pruning, evaluated })
}

/// Labels every example with its nearest centroid and brings the sums up to date.
fn assign(
    (data, extent): (&Trajectories, Extent),
    grid: Grid,
    centroids: &Centroids,
    labels: &mut [i32],
    sums: &mut Sums,
    run: &mut Run,
) -> Result<Step> {
    let make = || {
        let change = Sums::new(centroids.n_centroids(), data.n_dims());
        (change, Inertia::new(extent.most, data.n_dims(), extent.n_rows), 0)
    };
    let states =
        run.sweep(data, Some(centroids), labels, make, |(change, inertia, moved), range, labels, seen| {
            for (index, row, nearest, distance) in seen.examples() {
                inertia.add(distance);
                let label = &mut labels[row - range.start];
                if *label != nearest {
                    change.relabel(grid, seen.block.trajectory(index), *label, nearest);
                    *label = nearest;
                    *moved += 1;
                }
            }
        })?;
    let mut total = Inertia::new(extent.most, data.n_dims(), extent.n_rows);
    let mut moved = 0;
    for (change, inertia, n) in &states {
        sums.merge(change);
        total.merge(inertia);
        moved += n;
    }
    Ok(Step { inertia: total.value(), moved, reseeded: 0 })
}

/// Fills empty clusters with the farthest examples; returns how many were filled.
fn reseed(
    data: &Trajectories,
    grid: Grid,
    centroids: &Centroids,
    (ids, ties): (Ids, Keys),
    labels: &mut [i32],
    sums: &mut Sums,
    run: &mut Run,
) -> Result<usize> {
    // An example is passed over when it is the last of its cluster, which happens once per cluster at most: so
    // two candidates per cluster are enough.
    let make = || Smallest::new(2 * centroids.n_centroids());
    let states = run.sweep(data, Some(centroids), labels, make, |farthest, _, _, seen| {
        for (_, row, _, distance) in seen.examples().filter(|(_, _, _, distance)| *distance > 0.0) {
            // The bits of non-negative floats are in the order of their values.
            farthest.push((!distance.to_bits(), ties.key(ids.get(row)), row));
        }
    })?;
    let mut farthest = make();
    for state in states {
        farthest.merge(state);
    }
    let mut candidates = farthest.into_sorted().into_iter().map(|(_, _, row)| row);
    let empty: Vec<usize> = (0..centroids.n_centroids()).filter(|&k| sums.counts()[k] == 0).collect();
    let (mut block, mut filled) = (Block::default(), 0);
    for k in empty {
        let Some(row) = candidates.find(|&row| sums.counts()[labels[row] as usize] > 1) else { break };
        data.load(&[row], &mut block);
        sums.relabel(grid, block.trajectory(0), labels[row], k as i32);
        labels[row] = k as i32;
        filled += 1;
    }
    Ok(filled)
}
