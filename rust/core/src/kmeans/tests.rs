//! K-means against a slow, obvious twin, and its promises: one file, since all of them share the twin and the data.

use super::lloyd::{Course, lloyd, squared_distance};
use super::sums::Grid;
use super::sweep::Run;
use super::*;
use crate::columns::{Columns, Layout};
use crate::error::Error;
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::kernels::battery::naive_nearest;
use crate::kernels::{Backend, Kernel};
use crate::parallel::Team;
use crate::rng::{Keys, TIE};
use crate::shape::{Shape, Trajectories};
use proptest::prelude::*;
use std::ops::ControlFlow;

/// A pool of trajectories, row-major.
#[derive(Debug, Clone)]
struct Pool {
    values: Vec<f32>,
    n_states: usize,
    valid: Vec<bool>,
    ids: Vec<u64>,
}

impl Pool {
    /// Falling curves of a dozen kinds with noise; every eleventh row is NaN and invalid.
    fn curves(n: usize, n_states: usize, offset: f32, spread: f32) -> Self {
        let chance = Keys::new(5, "curves");
        let uniform = |row: usize, what: usize| chance.uniform((row * 1000 + what) as u64) as f32;
        let value = |row: usize, state: usize| {
            let kind = (row * 7 % 12) as f32;
            let level = kind / (1.0 + state as f32 * (kind % 3.0) / 3.0);
            if row % 11 == 10 { f32::NAN } else { offset + spread * (level + uniform(row, state) * 0.3) }
        };
        Self {
            values: (0..n).flat_map(|row| (0..n_states).map(move |state| value(row, state))).collect(),
            n_states,
            valid: (0..n).map(|row| row % 11 != 10).collect(),
            ids: (0..n as u64).map(|row| row * row + 17).collect(),
        }
    }

    /// The same pool with its rows in another order.
    fn shuffled(&self) -> Self {
        let chance = Keys::new(1, "shuffle");
        let mut order: Vec<usize> = (0..self.ids.len()).collect();
        order.sort_by_key(|&row| chance.key(row as u64));
        Self {
            values: order.iter().flat_map(|&row| self.row(row).to_vec()).collect(),
            n_states: self.n_states,
            valid: order.iter().map(|&row| self.valid[row]).collect(),
            ids: order.iter().map(|&row| self.ids[row]).collect(),
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.n_states..][..self.n_states]
    }

    fn trajectories(&self, shape: Shape) -> Trajectories<'_> {
        let layout = Layout::Rows { values: &self.values, n_states: self.n_states };
        Trajectories::new(Columns::new(layout, &self.valid).unwrap(), shape).unwrap()
    }

    fn cluster(&self, parameters: Parameters) -> crate::error::Result<Clustering> {
        self.cluster_shaped(parameters, Shape::Raw)
    }

    fn cluster_shaped(&self, parameters: Parameters, shape: Shape) -> crate::error::Result<Clustering> {
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        cluster(self.trajectories(shape), Ids::Given(&self.ids), parameters, Watch::new(&mut go_on))
    }
}

fn parameters(n_clusters: usize) -> Parameters<'static> {
    let kernel = Kernel::of(Backend::Scalar).unwrap();
    Parameters {
        n_clusters,
        n_iterations: 20,
        seed: 3,
        init: Init::PlusPlus,
        fit: Fit::Auto,
        n_restarts: 1,
        tolerance: 0.0,
        n_threads: 1,
        pruning: None,
        kernel,
    }
}

/// The label of every id, in the order of ids.
fn by_id(pool: &Pool, clustering: &Clustering) -> Vec<(u64, i32)> {
    let mut pairs: Vec<_> = pool.ids.iter().copied().zip(clustering.labels.iter().copied()).collect();
    pairs.sort_unstable();
    pairs
}

/// Lloyd's iterations the obvious way: everything recomputed, nothing in parallel, no tile.
fn naive_lloyd(
    pool: &Pool,
    n_iterations: usize,
    centroids: &mut [f32],
    labels: &mut [i32],
) -> (Vec<Step>, Stop) {
    let t = pool.n_states;
    let k = centroids.len() / t;
    let rows: Vec<usize> = (0..labels.len()).filter(|&row| pool.valid[row]).collect();
    let most = rows.iter().flat_map(|&row| pool.row(row)).fold(0.0_f32, |most, x| most.max(x.abs()));
    let most = centroids.iter().fold(most, |most, c| most.max(c.abs()));
    let grid = Grid::new(most, rows.len(), t);
    let keys = Keys::new(3, TIE);
    let size = |labels: &[i32], k: usize| labels.iter().filter(|label| **label == k as i32).count();
    let mut steps = Vec::new();
    loop {
        let (mut inertia, mut moved) = (0_i128, 0);
        for &row in &rows {
            let (nearest, _, _) = naive_nearest(pool.row(row), centroids);
            for (x, c) in pool.row(row).iter().zip(&centroids[nearest * t..]) {
                inertia += i128::from(grid.round(*x) - grid.round(*c)).pow(2);
            }
            moved += usize::from(labels[row] != nearest as i32);
            labels[row] = nearest as i32;
        }
        let mut reseeded = 0;
        if steps.len() < n_iterations {
            let distance = |row: usize| {
                let own = naive_nearest(pool.row(row), centroids).0;
                squared_distance(pool.row(row).iter().copied(), &centroids[own * t..][..t])
            };
            let mut farthest: Vec<usize> = rows.iter().copied().filter(|&row| distance(row) > 0.0).collect();
            farthest.sort_by(|&a, &b| {
                distance(b).total_cmp(&distance(a)).then(keys.key(pool.ids[a]).cmp(&keys.key(pool.ids[b])))
            });
            for empty in (0..k).filter(|&k| size(labels, k) == 0).collect::<Vec<_>>() {
                let spare = |&row: &usize| size(labels, labels[row] as usize) > 1;
                if let Some(i) = farthest.iter().position(spare) {
                    labels[farthest.remove(i)] = empty as i32;
                    reseeded += 1;
                }
            }
        }
        let unit = f64::from(grid.mean(1, 1)).powi(2);
        steps.push(Step { inertia: inertia as f64 * unit, moved, reseeded });
        if moved == 0 && reseeded == 0 {
            return (steps, Stop::NoLabelMoved);
        }
        if steps.len() > n_iterations {
            return (steps, Stop::Iterations);
        }
        for (k, centroid) in centroids.chunks_exact_mut(t).enumerate() {
            let members: Vec<usize> = rows.iter().copied().filter(|&row| labels[row] == k as i32).collect();
            for (state, coordinate) in centroid.iter_mut().enumerate().filter(|_| !members.is_empty()) {
                let sum = members.iter().map(|&row| grid.round(pool.row(row)[state])).sum();
                *coordinate = grid.mean(sum, members.len() as i64);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Small integers make ties, duplicates, empty clusters and points on their centroids.
    #[test]
    fn lloyd_equals_the_naive_twin(
        n in 1_usize..90, n_states in 1_usize..4, k in 1_usize..12, n_iterations in 1_usize..7,
        numbers in prop::collection::vec(0_u8..5, 500), backend in 0_usize..4, n_threads in 1_usize..4,
        pruning in prop::sample::select(vec![None, Some(Pruning::None), Some(Pruning::Cells)]),
    ) {
        let pool = Pool {
            values: (0..n * n_states).map(|i| f32::from(numbers[i % 400]) / 3.0).collect(),
            n_states,
            valid: (0..n).map(|row| row == 0 || numbers[row] > 0).collect(),
            ids: (0..n as u64).map(|row| row * 21 + 4).collect(),
        };
        let start: Vec<f32> = (0..k * n_states).map(|i| f32::from(numbers[499 - i])).collect();
        let (mut expected, mut labels) = (start.clone(), vec![-1; n]);
        let steps = naive_lloyd(&pool, n_iterations, &mut expected, &mut labels);

        let available = Backend::available();
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        let mut run = Run {
            kernel: Kernel::of(available[backend % available.len()]).unwrap(),
            team: Team::new(n_threads).unwrap(),
            watch: Watch::new(&mut go_on),
        };
        let data = pool.trajectories(Shape::Raw);
        let most = (0..n).filter(|&row| pool.valid[row]).flat_map(|row| pool.row(row)).fold(0.0_f32, |m, x| m.max(*x));
        let most = start.iter().fold(most, |most, c| most.max(*c));
        let grid = Grid::new(most, data.columns().n_valid(), n_states);
        let (mut found, mut found_labels) = (start, vec![-1; n]);
        let ties = (Ids::Given(&pool.ids), Keys::new(3, TIE));
        let course = Course { n_iterations, tolerance: 0.0, pruning, sample: &[0] };
        let record = lloyd((&data, grid), ties, course, &mut found, &mut found_labels, &mut run).unwrap();
        prop_assert_eq!(found_labels, labels);
        prop_assert_eq!(found, expected);
        prop_assert_eq!((record.steps, record.stop), steps);
    }
}

/// A kind of values: (number in [0, 1), row, state) to a loss.
type Kind = fn(f64, usize, usize) -> f32;

/// What has to be pruned exactly: groups and noise, ties, constants, offsets, extremes, tails.
const KINDS: [(&str, Kind); 10] = [
    ("groups", |u, row, state| ((row * 7 % 23 * (state + 2) % 17) as f64 + 0.4 * u) as f32),
    ("falling groups", |u, row, state| {
        ((row % 9) as f64 / (1.0 + (row % 5 * state) as f64) + 0.1 * u) as f32
    }),
    ("noise", |u, _, _| u as f32),
    ("ties", |u, _, _| (u * 4.0).floor() as f32),
    ("duplicates", |_, row, state| (row % 13 * (state + 1) % 7) as f32 / 3.0),
    ("constant", |_, _, _| 0.1),
    ("offset", |u, row, _| (1e4 + 1e-2 * (row % 6) as f64 + 2e-3 * u) as f32),
    ("huge", |u, row, _| ((row % 11) as f64 * 1.6e14 - 8e14 + 1e13 * u) as f32),
    ("squares underflow", |u, row, _| (1e-22 * ((row % 11) as f64 + 0.3 * u)) as f32),
    ("heavy tails", |u, row, _| ((row % 8) as f64 + 0.1 / (1e-4 + u) * f64::from(u32::from(u < 0.1))) as f32),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// One more iteration each time, so that the labels are compared after every one.
    #[test]
    fn pruned_equals_plain_at_every_iteration(
        kind in 0_usize..KINDS.len(), n in 1_usize..1500, n_states in 2_usize..7, share in 0.0_f64..1.0,
        seed: u64, masked in 2_usize..9, shape in prop::sample::select(Shape::ALL.to_vec()),
        backend in 0_usize..4, n_threads in 1_usize..4, starts_on_rows: bool,
    ) {
        let chance = Keys::new(seed, "pruned");
        let value = |row: usize, state: usize| KINDS[kind].1(chance.uniform((row * 64 + state) as u64), row, state);
        // A relative trajectory needs a first loss above 0.
        let lift = if shape == Shape::Relative && kind != 7 { value(0, 0).abs() + 1e-20 } else { 0.0 };
        let mut pool = Pool {
            values: (0..n).flat_map(|row| (0..n_states).map(move |state| value(row, state).abs() + lift)).collect(),
            n_states,
            valid: (0..n).map(|row| row == 0 || row % masked != 1).collect(),
            ids: (0..n as u64).map(|row| row * 21 + 4).collect(),
        };
        let bad: Vec<usize> = (0..n).filter(|&row| pool.row(row)[0] == 0.0 && shape == Shape::Relative).collect();
for row in bad {
 pool.valid[row] = false;
 }
        let data = pool.trajectories(shape);
        let rows: Vec<usize> = (0..n).filter(|&row| pool.valid[row]).collect();
        prop_assume!(!rows.is_empty());
        let mut shaped = crate::shape::Block::default();
        data.load(&rows, &mut shaped);
        let most = (0..rows.len()).flat_map(|i| shaped.trajectory(i)).fold(0.0_f32, |most, x| most.max(x.abs()));
        prop_assume!(most <= super::fit::MOST_MAGNITUDE);
        // From one cluster to as many as rows; mostly few.
        let k = 1 + (share * share * share * rows.len().min(400) as f64) as usize;
        let start: Vec<f32> = (0..k).flat_map(|k| {
            let row = chance.key(k as u64 + (1 << 40)) as usize % rows.len();
            let shift = if starts_on_rows { 0.0 } else { most * 0.01 * (k % 3) as f32 };
            shaped.trajectory(row).map(move |x| x - x.signum() * shift).collect::<Vec<_>>()
        }).collect();
        let most = start.iter().fold(most, |most, c| most.max(c.abs()));
        let grid = Grid::new(most, rows.len(), data.n_dims());
        let available = Backend::available();
        let kernel = Kernel::of(available[backend % available.len()]).unwrap();
        let ties = (Ids::Given(&pool.ids), Keys::new(3, TIE));
        let run = |pruning, n_iterations, kernel, n_threads| {
            let mut go_on = |_, _, _| ControlFlow::Continue(());
            let mut run = Run { kernel, team: Team::new(n_threads).unwrap(), watch: Watch::new(&mut go_on) };
            let (mut centroids, mut labels) = (start.clone(), vec![-1; n]);
            let course = Course { n_iterations, tolerance: 0.0, pruning: Some(pruning), sample: &rows };
            let record = lloyd((&data, grid), ties, course, &mut centroids, &mut labels, &mut run).unwrap();
            let bits: Vec<u32> = centroids.iter().map(|c| c.to_bits()).collect();
            let inertia: Vec<u64> = record.steps.iter().map(|step| step.inertia.to_bits()).collect();
            (labels, bits, inertia, record)
        };
        let plain_kernel = Kernel::of(available[0]).unwrap();
        for n_iterations in [1, 2, 3, 4, 5, 6, 8, 12] {
            let plain = run(Pruning::None, n_iterations, plain_kernel, 1);
            let pruned = run(Pruning::Cells, n_iterations, kernel, n_threads);
            prop_assert_eq!(&pruned.0, &plain.0, "{}", KINDS[kind].0);
            prop_assert_eq!((&pruned.1, &pruned.2), (&plain.1, &plain.2));
            prop_assert_eq!((&pruned.3.steps, pruned.3.stop), (&plain.3.steps, plain.3.stop));
            if plain.3.steps.len() <= n_iterations {
                break;
            }
        }
    }
}

#[test]
fn pruning_leaves_out_most_distances_between_groups_and_says_so() {
    let pool = Pool::curves(6000, 6, 0.0, 1.0);
    let cells = Some(Pruning::Cells);
    let pruned = pool.cluster(Parameters { pruning: cells, ..parameters(30) }).unwrap();
    let plain = pool.cluster(Parameters { pruning: Some(Pruning::None), ..parameters(30) }).unwrap();
    assert_eq!((pruned.record.pruning.name(), plain.record.pruning.name()), ("cells", "none"));
    assert_eq!(pruned.record.evaluated[..3], [1.0; 3]);
    assert!(pruned.record.evaluated[4..].iter().all(|&share| share < 0.35), "{:?}", pruned.record.evaluated);
    assert!(plain.record.evaluated.iter().all(|&share| share == 1.0));
    assert_eq!(Clustering { record: plain.record.clone(), ..pruned }, plain);
}

#[test]
fn pruning_is_chosen_where_it_promises_something() {
    let choose = |pool: &Pool, n_clusters| pool.cluster(parameters(n_clusters)).unwrap().record.pruning;
    let curves = Pool::curves(6000, 6, 0.0, 1.0);
    assert_eq!(choose(&curves, 60), Pruning::Cells);
    assert_eq!(choose(&curves, 20), Pruning::None, "too few clusters");
    assert_eq!(choose(&curves, 120), Pruning::None, "too few rows per cluster");
    let chance = Keys::new(5, "noise");
    let values = (0..6000 * 12).map(|i| (0..6).map(|j| chance.uniform(i * 6 + j) as f32).sum()).collect();
    let noise = Pool { values, n_states: 12, valid: vec![true; 6000], ids: (0..6000).collect() };
    assert_eq!(choose(&noise, 60), Pruning::None, "nothing to tell apart");
}

#[test]
fn threads_backends_and_the_order_of_rows_leave_no_trace() {
    let pool = Pool::curves(6000, 6, 0.0, 1.0);
    let shuffled = pool.shuffled();
    let fits = [
        (Shape::Raw, Fit::Full),
        (Shape::ZScore, Fit::Full),
        (Shape::Differences, Fit::Sample(Some(3000))),
        (Shape::Raw, Fit::MiniBatch),
    ];
    for (shape, fit) in fits {
        let pruning = Some(if shape == Shape::Differences { Pruning::None } else { Pruning::Cells });
        let base = Parameters { fit, n_iterations: 6, pruning, ..parameters(30) };
        let first = pool.cluster_shaped(base, shape).unwrap();
        assert!(first.record.steps.len() > 3, "{:?}", first.record.steps);
        for (backend, threads) in Backend::available().into_iter().zip([&[2, 7][..], &[1, 3], &[64]]) {
            let kernel = Kernel::of(backend).unwrap();
            for &n_threads in threads {
                let parameters = Parameters { n_threads, kernel, ..base };
                let other = shuffled.cluster_shaped(parameters, shape).unwrap();
                assert_eq!(by_id(&shuffled, &other), by_id(&pool, &first), "{backend:?} {n_threads}");
                assert_eq!(other.centroids, first.centroids);
                assert_eq!(other.record, first.record);
            }
        }
    }
}

#[test]
fn a_clustering_fits_its_own_words() {
    let pool = Pool::curves(5000, 5, 0.0, 1.0);
    let found = pool.cluster(parameters(20)).unwrap();
    let ties = Keys::new(3, TIE);
    let mut sizes = vec![0; found.sizes.len()];
    let mut least = vec![u64::MAX; sizes.len()];
    for row in 0..5000 {
        if !pool.valid[row] {
            assert_eq!(found.labels[row], -1);
            continue;
        }
        let label = found.labels[row] as usize;
        let distance =
            |k: usize| squared_distance(pool.row(row).iter().copied(), &found.centroids[k * 5..][..5]);
        assert!((0..sizes.len()).all(|k| distance(label) <= distance(k) + 1e-4), "labels fit the centroids");
        sizes[label] += 1;
        least[label] = least[label].min(ties.key(pool.ids[row]));
    }
    assert_eq!(found.sizes, sizes);
    assert!(least.is_sorted(), "numbered by the smallest keyed member id");
    assert!(found.record.steps.iter().map(|step| step.inertia).is_sorted_by(|a, b| a >= b));
    assert_eq!(found.record.steps[0].moved, found.n_fit_rows);
    let other = pool.cluster(Parameters { seed: 4, ..parameters(20) }).unwrap();
    assert_ne!(other.labels, found.labels, "the seed decides");
}

#[test]
fn an_offset_does_not_cancel() {
    // Twelve kinds, a hundredth apart on top of ten thousand, where float32 is a thousandth wide.
    let pool = Pool::curves(6000, 8, 1e4, 1e-2);
    let found = pool.cluster(Parameters { n_iterations: 50, ..parameters(12) }).unwrap();
    let plain = Pool::curves(6000, 8, 0.0, 1e-2);
    let mean = |centroids: &[f32], pool: &Pool, labels: &[i32]| {
        let rows = (0..6000).filter(|&row| pool.valid[row]);
        rows.map(|row| {
            let centroid = &centroids[labels[row] as usize * 8..][..8];
            let squares =
                pool.row(row).iter().zip(centroid).map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2));
            squares.sum::<f64>()
        })
        .sum::<f64>()
    };
    let exact = plain.cluster(Parameters { n_iterations: 50, ..parameters(12) }).unwrap();
    let (with_offset, without) =
        (mean(&found.centroids, &pool, &found.labels), mean(&exact.centroids, &plain, &exact.labels));
    assert!(with_offset < 1.5 * without, "{with_offset} {without}");
}

#[test]
fn few_distinct_examples_make_few_clusters() {
    for (n_distinct, n) in [(1, 1), (1, 700), (3, 700), (5, 5)] {
        let values: Vec<f32> = (0..n * 2).map(|i| (i / 2 % n_distinct) as f32).collect();
        let pool = Pool { values, n_states: 2, valid: vec![true; n], ids: (0..n as u64).collect() };
        let found = pool.cluster(parameters(10)).unwrap();
        assert_eq!(found.sizes.len(), n_distinct);
        assert_eq!(
            (found.record.stop, found.record.steps.last().unwrap().inertia),
            (Stop::NoLabelMoved, 0.0)
        );
    }
}

#[test]
fn a_fit_on_some_rows_still_labels_all() {
    let pool = Pool::curves(5000, 4, 0.0, 1.0);
    let found = pool.cluster(Parameters { fit: Fit::Sample(Some(1000)), ..parameters(12) }).unwrap();
    assert_eq!((found.n_fit_rows, found.record.steps[0].moved), (1000, 1000));
    assert!(found.labels.iter().zip(&pool.valid).all(|(&label, &valid)| (label >= 0) == valid));
    let all = pool.cluster(Parameters { fit: Fit::Sample(Some(9_999_999)), ..parameters(12) }).unwrap();
    assert_eq!(all, pool.cluster(parameters(12)).unwrap());
}

#[test]
fn refusals() {
    let good = Pool::curves(100, 3, 1.0, 1.0);
    let with = |row: usize, value: f32| {
        let mut pool = good.clone();
        pool.values[row * 3 + 1] = value;
        pool
    };
    let base = parameters(4);
    for (pool, parameters, message) in [
        (
            good.clone(),
            Parameters { n_clusters: 0, ..base },
            "n_clusters: found 0, allowed are 1 to 16777216",
        ),
        (
            good.clone(),
            Parameters { n_iterations: 0, ..base },
            "n_iterations: found 0, allowed are 1 to 4294967295",
        ),
        (good.clone(), Parameters { n_threads: 0, ..base }, "n_threads: found 0, allowed are 1 to 1024"),
        (
            Pool { valid: vec![false; 100], ..good.clone() },
            base,
            "valid: found no valid example among 100, need at least one",
        ),
        (Pool { ids: vec![], ..good.clone() }, base, "ids: found 0 elements, need 100, as many as valid"),
        (
            with(7, f32::NAN),
            base,
            "columns: found NaN in row 7, state 1 (shape \"raw\"), but the row is marked valid; \
             valid rows need finite values",
        ),
        (
            with(8, f32::NEG_INFINITY),
            base,
            "columns: found -inf in row 8, state 1 (shape \"raw\"), but the row is marked valid; \
             valid rows need finite values",
        ),
        (with(9, -2e15), base, "columns: found -2e15 in row 9, state 1, allowed are magnitudes up to 1e15"),
    ] {
        assert_eq!(pool.cluster(parameters).unwrap_err().to_string(), message);
    }
    let mut zero = good.clone();
    zero.values[3 * 5] = 0.0;
    let error = zero.cluster_shaped(base, Shape::Relative).unwrap_err();
    assert!(matches!(error, Error::NotFinite { row: 5, state: 0, shape: "relative", .. }), "{error}");
}

#[test]
fn stops_whenever_the_caller_says_so() {
    let pool = Pool::curves(3000, 4, 0.0, 1.0);
    let data = pool.trajectories(Shape::Raw);
    let mut calls = 0;
    let mut count = |_, done, total| {
        assert!(done <= total);
        calls += 1;
        ControlFlow::Continue(())
    };
    cluster(data.clone(), Ids::Given(&pool.ids), parameters(8), Watch::new(&mut count)).unwrap();
    for stop_at in 1..calls {
        let mut call = 0;
        let mut report = |_, _, _| {
            call += 1;
            if call == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error =
            cluster(data.clone(), Ids::Given(&pool.ids), parameters(8), Watch::new(&mut report)).unwrap_err();
        assert_eq!(error, Error::Interrupted);
        assert_eq!(call, stop_at, "no news after the stop");
    }
}
