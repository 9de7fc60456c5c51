//! Lloyd's iterations: assign every example to its nearest centroid, move every centroid to its members' mean.
//!
//! Sums are integers ([`super::sums`]) and are kept from one iteration to the next: only examples that change their
//! cluster are subtracted here and added there. So after the first iteration an update costs next to nothing, and
//! the whole cost is the kernel's: N x K x T multiply-adds per iteration; or, where that promises to pay, the fewer
//! ones that [`super::bounds`] leaves after the first assignment. Both ways find the same bits.
//!
//! A cluster that an assignment leaves empty takes, in the order of the clusters' numbers, the example that is
//! farthest from its own centroid: ties by keyed id, no example twice, none that is alone in its cluster, none
//! that lies on its centroid. When there is none left to take, the cluster stays empty. This needs a second pass, in
//! the rare iterations that leave a cluster empty.

use super::bounds::Pruned;
use super::promise;
use super::sums::{Grid, Sums};
use super::sweep::Run;
use crate::error::Result;
use crate::ids::Ids;
use crate::kernels::Centroids;
use crate::rng::Keys;
use crate::shape::{Block, Trajectories};
use crate::smallest::Smallest;

/// Rows are sorted with this assignment: by then the first, largest moves are over, and clusters tell more about which
/// rows belong together.
const SORT_AT: usize = 2;

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
    /// An assignment changed no more labels than the tolerance allows.
    FewLabelsMoved,
    /// The smoothed inertia of mini-batches has stopped to fall.
    InertiaStalled,
    /// All iterations were made.
    Iterations,
}

impl Stop {
    /// The reason in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoLabelMoved => "no label moved",
            Self::FewLabelsMoved => "few labels moved",
            Self::InertiaStalled => "inertia stalled",
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

    /// The way of that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn from_name(name: &str) -> Result<Self> {
        [Self::Cells, Self::None].into_iter().find(|way| way.name() == name).ok_or_else(|| {
            crate::error::Error::Name {
                argument: "pruning",
                found: name.to_owned(),
                allowed: "cells, none".to_owned(),
            }
        })
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

/// How far to iterate, and how.
#[derive(Debug, Clone, Copy)]
pub struct Course<'r> {
    /// How many times centroids move, at most.
    pub n_iterations: usize,
    /// End when an assignment changes no more than this share of the labels.
    pub tolerance: f64,
    /// The way to take; None: whichever promises to be faster, judged by the rows of `sample`.
    pub pruning: Option<Pruning>,
    /// Row numbers in random order.
    pub sample: &'r [usize],
}

/// Iterates from `centroids` (`[cluster][dim]`), which end where `labels` belong to.
///
/// There is one step per assignment: one for each of up to `n_iterations` updates, and a last one whose labels
/// fit the final centroids. `labels` (one per row) start as -1 and stay so where a row is invalid. `ids` and `ties`
/// decide between examples that are equally far; `grid` is one that all valid rows and the centroids fit.
///
/// # Errors
/// An interrupt.
pub fn lloyd(
    (data, grid): (&Trajectories, Grid),
    (ids, ties): (Ids, Keys),
    course: Course,
    centroids: &mut [f32],
    labels: &mut [i32],
    run: &mut Run,
) -> Result<Record> {
    let n_dims = data.n_dims();
    let n_allowed = (course.tolerance * data.columns().n_valid() as f64) as usize;
    let prune = match course.pruning {
        None => promise::promising(data, course, centroids, run.kernel),
        Some(way) => way == Pruning::Cells && promise::safe(data, centroids),
    };
    let mut sums = Sums::new(centroids.len() / n_dims, n_dims);
    let (mut steps, mut evaluated) = (Vec::new(), Vec::new());
    let mut pruned: Option<Pruned> = None;
    run.watch.begin("clustering", labels.len().saturating_mul(course.n_iterations + 1))?;
    let stop = loop {
        let packed = run.kernel.pack(centroids, n_dims);
        let (moved, share) = match &mut pruned {
            Some(pruned) => pruned.assign(grid, &packed, &mut sums, run)?,
            None if prune && steps.len() == SORT_AT => {
                let (sorted, moved) =
                    Pruned::start((data, grid), (ids, ties), &packed, &mut sums, labels, run)?;
                pruned = Some(sorted);
                (moved, 1.0)
            }
            None => (assign((data, grid), &packed, labels, &mut sums, run)?, 1.0),
        };
        let mut step = Step { inertia: sums.inertia(grid, centroids), moved, reseeded: 0 };
        // The last assignment is left as it is: its labels are to fit the centroids.
        if steps.len() < course.n_iterations && sums.counts().contains(&0) {
            if let Some(pruned) = &mut pruned {
                pruned.write(labels);
            }
            step.reseeded = reseed((data, grid), &packed, (ids, ties), labels, &mut sums, run)?;
            if let Some(pruned) = &mut pruned {
                pruned.read(labels);
            }
        }
        steps.push(step);
        evaluated.push(share);
        if step.moved == 0 && step.reseeded == 0 {
            break Stop::NoLabelMoved;
        }
        if step.moved <= n_allowed && step.reseeded == 0 {
            break Stop::FewLabelsMoved;
        }
        if steps.len() > course.n_iterations {
            break Stop::Iterations;
        }
        let before = centroids.to_vec();
        sums.move_centroids(grid, centroids);
        if let Some(pruned) = &mut pruned {
            pruned.follow(&before, centroids, n_dims);
        }
    };
    if let Some(pruned) = &mut pruned {
        pruned.write(labels);
    }
    let pruning = if pruned.is_some() { Pruning::Cells } else { Pruning::None };
    Ok(Record { steps, stop, pruning, evaluated })
}

/// Labels every example with its nearest centroid and brings the sums up to date; returns how many labels changed.
fn assign(
    (data, grid): (&Trajectories, Grid),
    centroids: &Centroids,
    labels: &mut [i32],
    sums: &mut Sums,
    run: &mut Run,
) -> Result<usize> {
    let kernel = run.kernel;
    let first = sums.counts().iter().all(|&count| count == 0);
    let make = || (Sums::new(centroids.n_centroids(), data.n_dims()), 0);
    let states = run.sweep(data, Some(centroids), labels, make, |(change, moved), range, labels, seen| {
        if first {
            change.join_block(grid, seen.block, seen.numbers, kernel);
        }
        seen.relabel(range.start, labels, |index, from, to| {
            if !first {
                change.relabel(grid, seen.block.trajectory(index), from as usize, to);
            }
            *moved += 1;
        });
    })?;
    for (change, _) in &states {
        sums.merge(change);
    }
    Ok(states.iter().map(|(_, moved)| moved).sum())
}

/// Squared distance of a trajectory from a centroid, in float64.
pub fn squared_distance(trajectory: impl Iterator<Item = f32>, centroid: &[f32]) -> f64 {
    trajectory.zip(centroid).fold(0.0, |sum, (x, c)| sum + (f64::from(x) - f64::from(*c)).powi(2))
}

/// Fills empty clusters with the farthest examples; returns how many were filled.
pub(super) fn reseed(
    (data, grid): (&Trajectories, Grid),
    centroids: &Centroids,
    (ids, ties): (Ids, Keys),
    labels: &mut [i32],
    sums: &mut Sums,
    run: &mut Run,
) -> Result<usize> {
    let n_dims = data.n_dims();
    // An example is passed over when it is the last of its cluster, which happens once per cluster at most: so
    // two candidates per cluster are enough.
    let make = || Smallest::new(2 * centroids.n_centroids());
    let states = run.sweep(data, None, labels, make, |farthest, range, labels, seen| {
        for (index, &row) in seen.rows.iter().enumerate() {
            let own = labels[row - range.start] as usize;
            let centroid = &centroids.coordinates()[own * n_dims..][..n_dims];
            let distance = squared_distance(seen.block.trajectory(index), centroid);
            if distance > 0.0 {
                // The bits of non-negative floats are in the order of their values.
                farthest.push((!distance.to_bits(), ties.key(ids.get(row)), row));
            }
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
        sums.relabel(grid, block.trajectory(0), labels[row] as usize, k);
        labels[row] = k as i32;
        filled += 1;
    }
    Ok(filled)
}
