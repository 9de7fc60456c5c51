//! A clustering from beginning to end: checked parameters in, labels and the record of every step out.

use super::lloyd::{Course, Pruning, Record, lloyd};
use super::minibatch::{self, minibatch};
use super::seeding;
use super::sums::Grid;
use super::sweep::{Run, Seen};
use super::total::Unit;
use crate::columns::{Columns, LANES, Layout};
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::kernels::{Kernel, MOST_CENTROIDS};
use crate::parallel::Team;
use crate::rng::{FIT, Keys, RESTART, SEED, SEED_CHOICE, TIE};
use crate::shape::{Block, Trajectories};
use crate::smallest::smallest_rows;

/// Largest magnitude of a shaped value: seen from any centre it is no more than twice that, and scores of up to 2^24
/// dimensions stay within float32. Losses are a dozen orders of magnitude below.
pub const MOST_MAGNITUDE: f32 = 1e15;

/// [`Fit::Auto`] fits on all rows up to here: two million rows of sixteen states take about as long as reading them from
/// a disk does.
pub const AUTO_FULL_ROWS: usize = 1 << 21;
/// Rows of a [`Fit::Sample`] unless said otherwise: so many, or so many per cluster. A centroid is then the mean of about
/// a thousand rows or more, so its own error adds less to the inertia than another seed would.
const SAMPLE_ROWS: usize = 1 << 20;
const SAMPLE_ROWS_PER_CLUSTER: usize = 512;

/// Where centroids start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init<'a> {
    /// Greedy k-means++ on a sample.
    PlusPlus,
    /// Random examples.
    Random,
    /// `[cluster][dim]`: these.
    Given(&'a [f32]),
}

impl Init<'_> {
    /// The way of that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "k-means++" => Ok(Self::PlusPlus),
            "random" => Ok(Self::Random),
            _ => Err(Error::Name {
                argument: "init",
                found: name.to_owned(),
                allowed: "k-means++, random, or an array of centroids".to_owned(),
            }),
        }
    }
}

/// What the centroids are fitted on. Whatever it is, all valid rows are assigned to them in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// [`Full`](Self::Full) up to [`AUTO_FULL_ROWS`], a [`Sample`](Self::Sample) beyond.
    Auto,
    /// Lloyd's iterations over all valid rows.
    Full,
    /// Lloyd's iterations over so many rows, drawn by keyed hash; None: as many as centroids need.
    Sample(Option<usize>),
    /// Small batches of rows, drawn by keyed hash, each of which moves the centroids.
    MiniBatch,
}

impl Fit {
    /// The names of the ways to fit, as users write them.
    pub const NAMES: [&'static str; 4] = ["auto", "full", "minibatch", "sample"];

    /// The fit of that name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn from_name(name: &str) -> Result<Self> {
        [Self::Auto, Self::Full, Self::MiniBatch, Self::Sample(None)]
            .into_iter()
            .find(|fit| fit.name() == name)
            .ok_or_else(|| Error::Name {
                argument: "fit",
                found: name.to_owned(),
                allowed: Self::NAMES.join(", "),
            })
    }

    /// The fit's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Full => "full",
            Self::Sample(_) => "sample",
            Self::MiniBatch => "minibatch",
        }
    }

    /// What is done for N examples of T states and K clusters, and on how many of N valid rows.
    pub(super) fn resolve(self, n_examples: usize, n_valid: usize, n_clusters: usize) -> (Self, usize) {
        let sampled = SAMPLE_ROWS.max(n_clusters.saturating_mul(SAMPLE_ROWS_PER_CLUSTER));
        let rows = match self {
            Self::Auto if n_examples <= AUTO_FULL_ROWS => n_valid,
            Self::Full => n_valid,
            Self::MiniBatch => return (self, minibatch::n_rows(n_clusters).min(n_valid)),
            Self::Auto => sampled,
            Self::Sample(rows) => rows.unwrap_or(sampled),
        };
        if rows >= n_valid { (Self::Full, n_valid) } else { (Self::Sample(Some(rows)), rows) }
    }
}

/// What to do and how.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    /// K: how many clusters, at most.
    pub n_clusters: usize,
    /// How many times centroids move, at most; of mini-batches, how many times all rows of the fit are gone through.
    pub n_iterations: usize,
    /// The seed.
    pub seed: u64,
    /// Where centroids start.
    pub init: Init<'a>,
    /// What they are fitted on.
    pub fit: Fit,
    /// How many times to begin anew, from other centroids; the fit of the smallest inertia is kept.
    pub n_restarts: usize,
    /// End when an assignment changes no more than this share of the labels.
    pub tolerance: f64,
    /// Threads.
    pub n_threads: usize,
    /// Whether to leave out scores that can't matter; None: whenever that promises to be faster. It leaves no
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
    /// Sum of all valid rows' squared distances from their centroids.
    pub inertia: f64,
    /// What was done: never [`Fit::Auto`].
    pub fit: Fit,
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
pub fn cluster(data: Trajectories, ids: Ids, parameters: Parameters, watch: Watch) -> Result<Clustering> {
    check(&data, ids, parameters)?;
    let Parameters { n_clusters, seed, n_threads, kernel, .. } = parameters;
    let (n_examples, n_valid) = (data.columns().n_examples(), data.columns().n_valid());
    let (fit, n_fit_rows) = parameters.fit.resolve(n_examples, n_valid, n_clusters);
    let mut run = Run { kernel, team: Team::new(n_threads)?, watch };
    let mut labels = vec![-1; n_examples];
    let ties = Keys::new(seed, TIE);
    let all = (&mut labels[..], ties);
    let (data, mut centroids, record, inertia) = if n_fit_rows == n_valid && fit == Fit::Full {
        let (data, fitted) = fit_on(data, ids, all, fit, parameters, &mut run)?;
        (data, fitted.centroids, fitted.record, fitted.inertia)
    } else {
        let with = (&run.team, &mut run.watch);
        let mut rows = smallest_rows(data.columns(), ids, Keys::new(seed, FIT), n_fit_rows, with)?;
        rows.sort_unstable();
        let columns = data.columns().gather(&rows);
        let (part_ids, valid): (Vec<u64>, Vec<bool>) = rows.iter().map(|&row| (ids.get(row), true)).unzip();
        let layout = Layout::Columns(columns.iter().map(Vec::as_slice).collect());
        let part = data.with_columns(Columns::new(layout, &valid)?)?;
        let mut part_labels = vec![-1; n_fit_rows];
        let (part, fitted) =
            fit_on(part, Ids::Given(&part_ids), (&mut part_labels, ties), fit, parameters, &mut run)
                .map_err(|error| error.in_rows(&rows))?;
        let data = data.seen_from(part.centre());
        drop((part, part_labels, part_ids));
        let inertia = assign_all(&data, &fitted.centroids, &mut labels, fitted.most, &mut run)?;
        (data, fitted.centroids, fitted.record, inertia)
    };
    let sizes = number(&data, &mut centroids, ids, ties, &mut labels, &mut run)?;
    for centroid in centroids.chunks_exact_mut(data.n_dims()) {
        centroid.iter_mut().zip(data.centre()).for_each(|(coordinate, centre)| *coordinate += centre);
    }
    Ok(Clustering { labels, centroids, sizes, inertia, fit, record, n_fit_rows })
}

fn check(data: &Trajectories, ids: Ids, parameters: Parameters) -> Result<()> {
    range("n_clusters", parameters.n_clusters, MOST_CENTROIDS)?;
    range("n_iterations", parameters.n_iterations, u32::MAX as usize)?;
    range("n_restarts", parameters.n_restarts, u32::MAX as usize)?;
    if let Fit::Sample(Some(rows)) = parameters.fit {
        range("max_fit_rows", rows, usize::MAX)?;
    }
    if !(0.0..=1.0).contains(&parameters.tolerance) {
        return Err(Error::Share { argument: "tolerance", found: parameters.tolerance });
    }
    let (n_examples, n_valid) = (data.columns().n_examples(), data.columns().n_valid());
    if ids.len() != n_examples {
        return Err(Error::Length { argument: "ids", found: ids.len(), expected: n_examples, of: "valid" });
    }
    if n_valid == 0 {
        return Err(Error::NoValidRows { n_examples });
    }
    if let Init::Given(centroids) = parameters.init {
        let expected = parameters.n_clusters * data.n_dims();
        if centroids.len() != expected {
            return Err(Error::Length {
                argument: "init",
                found: centroids.len(),
                expected,
                of: "clusters times dimensions",
            });
        }
        if let Some(index) = centroids.iter().position(|c| refused(*c)) {
            return Err(Error::InitValue { index, value: centroids[index], most: MOST_MAGNITUDE });
        }
    }
    Ok(())
}

/// Refuses what is not between 1 and `most`.
pub(super) fn range(argument: &'static str, found: usize, most: usize) -> Result<()> {
    let (found, most) = (found as i128, most as i128);
    let fits = (1..=most).contains(&found);
    if fits { Ok(()) } else { Err(Error::Range { argument, found, least: 1, most }) }
}

/// Whether a value can't be clustered.
fn refused(x: f32) -> bool {
    !x.is_finite() || x.abs() > MOST_MAGNITUDE
}

/// Whether a trajectory, seen from a centre, has a value that can't be clustered.
///
/// It is the value itself that counts: whether it may lie far from the others doesn't depend on where those are. What the
/// subtraction rounded off is given back, so the largest magnitude that is allowed always is.
fn refuses(trajectory: impl Iterator<Item = f32>, centre: &[f32]) -> Option<usize> {
    let most = f64::from(MOST_MAGNITUDE) * (1.0 + 1e-6);
    let itself = |(x, centre): (f32, &f32)| f64::from(x) + f64::from(*centre);
    trajectory.zip(centre).map(itself).position(|x| !x.is_finite() || x.abs() > most)
}

/// The magnitude, seen from a centre, up to which no value is refused: nothing but a shortcut.
fn surely_fine(centre: &[f32]) -> f32 {
    centre.iter().fold(MOST_MAGNITUDE, |most, centre| most.min(MOST_MAGNITUDE - centre.abs()))
}

/// Centroids, as seen from the data's centre, and how they were found.
struct Fitted {
    centroids: Vec<f32>,
    record: Record,
    inertia: f64,
    /// Largest magnitude of a value that they were fitted on.
    most: f32,
}

/// Fits centroids on all valid rows of `data`, which comes back seen from its centre; `labels` fit them in the end, unless
/// the fit is by mini-batches.
fn fit_on<'d>(
    data: Trajectories<'d>,
    ids: Ids,
    (labels, ties): (&mut [i32], Keys),
    fit: Fit,
    parameters: Parameters,
    run: &mut Run,
) -> Result<(Trajectories<'d>, Fitted)> {
    let Parameters { n_iterations, seed, init, tolerance, pruning, .. } = parameters;
    let n_valid = data.columns().n_valid();
    let n_clusters = parameters.n_clusters.min(n_valid);
    let n_sampled = seeding::n_sampled(n_clusters);
    let with = (&run.team, &mut run.watch);
    let mut sample = smallest_rows(data.columns(), ids, Keys::new(seed, SEED), n_sampled, with)?;
    let data = data.centred(&sample);
    let mut most = survey(&data, labels, run)?;
    let n_dims = data.n_dims();
    let n_restarts = if matches!(init, Init::Given(_)) { 1 } else { parameters.n_restarts };
    let mut kept: Option<Fitted> = None;
    let mut kept_labels = Vec::new();
    for restart in 0..n_restarts as u64 {
        let seed = if restart == 0 { seed } else { Keys::new(seed, RESTART).key(restart) };
        if restart > 0 {
            let with = (&run.team, &mut run.watch);
            sample = smallest_rows(data.columns(), ids, Keys::new(seed, SEED), n_sampled, with)?;
            labels.fill(-1);
        }
        let mut centroids = match init {
            Init::PlusPlus => {
                seeding::plus_plus(&data, &sample, n_clusters, Keys::new(seed, SEED_CHOICE), run)?
            }
            Init::Random => seeding::random(&data, &sample, n_clusters),
            Init::Given(centroids) => {
                let centre = data.centre().iter().cycle();
                centroids.iter().zip(centre).map(|(c, centre)| c - centre).collect()
            }
        };
        most = centroids.iter().fold(most, |most, c| most.max(c.abs()));
        let grid = Grid::new(most, n_valid, n_dims);
        let record = if fit == Fit::MiniBatch {
            minibatch((&data, grid), (ids, ties), (n_iterations, seed), &mut centroids, run)?
        } else {
            let course = Course { n_iterations, tolerance, pruning, sample: &sample };
            lloyd((&data, grid), (ids, ties), course, &mut centroids, labels, run)?
        };
        let inertia = record.steps.last().map_or(f64::INFINITY, |step| step.inertia);
        if kept.as_ref().is_none_or(|kept| inertia < kept.inertia) {
            kept = Some(Fitted { centroids, record, inertia, most });
            if n_restarts > 1 {
                kept_labels.clear();
                kept_labels.extend_from_slice(labels);
            }
        }
    }
    if n_restarts > 1 {
        labels.copy_from_slice(&kept_labels);
    }
    Ok((data, kept.expect("there was one fit at least")))
}

/// The largest magnitude among the valid rows' shaped values; the first row that can't be clustered is an error.
pub(super) fn survey(data: &Trajectories, labels: &mut [i32], run: &mut Run) -> Result<f32> {
    run.watch.begin("reading", labels.len())?;
    let make = || (0.0_f32, usize::MAX);
    let fine = surely_fine(data.centre());
    let states = run.sweep(data, None, labels, make, |(most, bad_row), _, _, seen| {
        let found = magnitude(seen.block.tiles());
        if found.is_nan() || found > fine {
            *bad_row = first_refused(data, seen).min(*bad_row);
        }
        *most = found.max(*most);
    })?;
    match states.iter().map(|state| state.1).min() {
        None | Some(usize::MAX) => Ok(states.iter().fold(0.0, |most, state| state.0.max(most))),
        Some(row) => Err(refusal(data, row)),
    }
}

/// The largest magnitude; NaN or infinity where there is one.
fn magnitude(tiles: &[f32]) -> f32 {
    let (mut most, mut zeros) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for lanes in tiles.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let x = lanes[lane].abs();
            most[lane] = if x > most[lane] { x } else { most[lane] };
            zeros[lane] += x * 0.0; // NaN from there on, if x is not finite
        }
    }
    most.into_iter().fold(0.0, f32::max) + zeros.into_iter().sum::<f32>()
}

/// The first of some rows that can't be clustered; `usize::MAX` where all can.
fn first_refused(data: &Trajectories, seen: &Seen) -> usize {
    let refuses =
        |(index, _): &(usize, &usize)| refuses(seen.block.trajectory(*index), data.centre()).is_some();
    seen.rows.iter().enumerate().find(refuses).map_or(usize::MAX, |(_, &row)| row)
}

/// What is wrong with a row that can't be clustered.
fn refusal(data: &Trajectories, row: usize) -> Error {
    let mut block = Block::default();
    data.load(&[row], &mut block);
    let state = refuses(block.trajectory(0), data.centre());
    let state = state.expect("the row was refused because of one of its values");
    // As the user knows it, without the centre.
    let value = block.trajectory(0).nth(state).expect("one of its values") + data.centre()[state];
    if value.is_finite() {
        Error::TooLarge { row, state, value, most: MOST_MAGNITUDE }
    } else {
        Error::NotFinite { row, state, value, shape: data.shape().name() }
    }
}

/// Labels every valid row with its nearest centroid; returns the inertia. `most` is about the largest magnitude to come.
///
/// Squared distances are calculated by subtraction in float64, rounded once to a [unit](Unit), and added as integers: without
/// an order, like everything else. The unit leaves room for magnitudes sixteen times as large as the fit's; should there be
/// larger ones, the pass is made again with a larger unit.
pub(super) fn assign_all(
    data: &Trajectories,
    centroids: &[f32],
    labels: &mut [i32],
    most: f32,
    run: &mut Run,
) -> Result<f64> {
    let kernel = run.kernel;
    let packed = kernel.pack(centroids, data.n_dims());
    let mut room = most.max(f32::MIN_POSITIVE) * 16.0;
    let fine = surely_fine(data.centre());
    loop {
        run.watch.begin("assigning", labels.len())?;
        // No difference exceeds twice the room.
        let farthest = 4.0 * f64::from(room).powi(2) * data.n_dims() as f64;
        let unit = Unit::new(farthest, data.columns().n_valid());
        let make = || (0.0_f32, usize::MAX, 0_i128, Vec::new());
        let states = run.sweep(data, Some(&packed), labels, make, |state, range, labels, seen| {
            let (largest, bad_row, inertia, distances) = state;
            let found = magnitude(seen.block.tiles());
            if found.is_nan() || found > fine {
                let row = first_refused(data, seen);
                if row < usize::MAX {
                    *bad_row = row.min(*bad_row);
                    return;
                }
            }
            *largest = found.max(*largest);
            distances.resize(seen.numbers.len(), [0.0; LANES]);
            kernel.residuals(seen.block.tiles(), &packed, seen.numbers, distances);
            let distances = &distances.as_flattened()[..seen.rows.len()];
            *inertia += distances.iter().map(|&distance| unit.of(distance)).sum::<i128>();
            seen.relabel(range.start, labels, |_, _, _| ());
        })?;
        let row = states.iter().map(|state| state.1).min().unwrap_or(usize::MAX);
        if row < usize::MAX {
            return Err(refusal(data, row));
        }
        let largest = states.iter().fold(0.0_f32, |most, state| state.0.max(most));
        if largest <= room {
            let sum: i128 = states.iter().map(|state| state.2).sum();
            return Ok(unit.back(sum));
        }
        room = largest;
    }
}

/// Drops clusters without members (`centroids`: `[cluster][dim]`) and numbers the others by the smallest key of a member;
/// returns their sizes.
fn number(
    data: &Trajectories,
    centroids: &mut Vec<f32>,
    ids: Ids,
    ties: Keys,
    labels: &mut [i32],
    run: &mut Run,
) -> Result<Vec<i64>> {
    const PART_ROWS: usize = 1 << 18;
    let n_dims = data.n_dims();
    let n_clusters = centroids.len() / n_dims;
    run.watch.begin("numbering", labels.len())?;
    let empty = || vec![(u64::MAX, 0_i64); n_clusters];
    let mut workers = run.team.workers(empty);
    let parts = labels.chunks(PART_ROWS).enumerate().collect();
    run.team.each(&mut workers, parts, |members, (part, labels)| {
        for (i, &label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
            let (least, size) = &mut members[label as usize];
            *least = ties.key(ids.get(part * PART_ROWS + i)).min(*least);
            *size += 1;
        }
    });
    let mut members: Vec<(u64, usize, i64)> = (0..n_clusters).map(|k| (u64::MAX, k, 0)).collect();
    for state in workers.into_states() {
        for (member, (least, size)) in members.iter_mut().zip(state) {
            member.0 = member.0.min(least);
            member.2 += size;
        }
    }
    members.retain(|&(_, _, size)| size > 0);
    members.sort_unstable();
    let mut numbers = vec![-1; n_clusters];
    for (number, &(_, k, _)) in members.iter().enumerate() {
        numbers[k] = number as i32;
    }
    run.watch.advance(labels.len() / 2)?;
    let mut workers = run.team.workers(|| ());
    run.team.each(&mut workers, labels.chunks_mut(PART_ROWS).collect(), |(), labels| {
        labels.iter_mut().filter(|label| **label >= 0).for_each(|label| *label = numbers[*label as usize]);
    });
    *centroids = members.iter().flat_map(|&(_, k, _)| &centroids[k * n_dims..][..n_dims]).copied().collect();
    Ok(members.iter().map(|member| member.2).collect())
}
