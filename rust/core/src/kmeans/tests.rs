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
        n in 1_usize..90, n_states in prop_oneof![3 => 1_usize..4, 1 => 15_usize..66], k in 1_usize..12, n_iterations in 1_usize..20,
        numbers in prop::collection::vec(0_u8..5, 500), backend in 0_usize..4, n_threads in 1_usize..4,
        pruning in prop::sample::select(vec![None, Some(Pruning::None), Some(Pruning::Cells)]),
    ) {
        let pool = Pool {
            values: (0..n * n_states).map(|i| f32::from(numbers[i % 400]) / 3.0).collect(),
            n_states,
            valid: (0..n).map(|row| row == 0 || numbers[row] > 0).collect(),
            ids: (0..n as u64).map(|row| row * 21 + 4).collect(),
        };
        let start: Vec<f32> = (0..k * n_states).map(|i| f32::from(numbers[499 - i % 500])).collect();
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

#[test]
fn inertia_over_all_rows_is_the_sum_of_squared_distances() {
    for (offset, outlier) in [(0.0, 9.0), (0.0, 1e7), (1e4, 3e4), (0.0, -1e12)] {
        let mut pool = Pool::curves(3000, 5, offset, 1.0);
        pool.values[5 * 700 + 2] = outlier;
        let data = pool.trajectories(Shape::Raw);
        // The outlier is a cluster by itself.
        let centroids: Vec<f32> =
            [1, 2, 3, 4, 700].iter().flat_map(|&row| pool.row(row).iter().map(|x| x + 0.2)).collect();
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        for backend in Backend::available() {
            let kernel = Kernel::of(backend).unwrap();
            let mut run = Run { kernel, team: Team::new(2).unwrap(), watch: Watch::new(&mut go_on) };
            let mut labels = vec![-1; 3000];
            // What the fit saw was smaller.
            let found = super::fit::assign_all(&data, &centroids, &mut labels, 10.0, &mut run).unwrap();
            let distance = |row: usize| {
                let centroid = &centroids[labels[row] as usize * 5..][..5];
                squared_distance(pool.row(row).iter().copied(), centroid)
            };
            let expected: f64 = (0..3000).filter(|&row| pool.valid[row]).map(distance).sum();
            assert!((found / expected - 1.0).abs() <= 1e-12, "{offset} {outlier}: {found} {expected}");
        }
    }
}

#[test]
fn a_sample_fit_tells_the_inertia_of_all_rows_beside_a_loss_far_from_the_others() {
    let mut pool = Pool::curves(3000, 4, 0.0, 1.0);
    pool.values[4 * 40] = 1e7;
    let fit = Fit::Sample(Some(2000));
    let found = pool.cluster(Parameters { fit, n_iterations: 50, ..parameters(12) }).unwrap();
    let distance = |row: usize| {
        let centroid = &found.centroids[found.labels[row] as usize * 4..][..4];
        squared_distance(pool.row(row).iter().copied(), centroid)
    };
    let valid = (0..3000).filter(|&row| pool.valid[row] && row != 40);
    let expected = valid.map(distance).sum::<f64>() + distance(40);
    assert!((found.inertia / expected - 1.0).abs() < 1e-4, "{} {expected}", found.inertia);
}

#[test]
fn what_is_too_large_does_not_depend_on_where_the_others_lie() {
    let with = |others: f32, row: usize, value: f32| {
        let mut values = vec![others; 200 * 2];
        values[row * 2 + 1] = value;
        Pool { values, n_states: 2, valid: vec![true; 200], ids: (0..200).collect() }
    };
    for fit in [Fit::Full, Fit::Sample(Some(20)), Fit::MiniBatch] {
        let base = Parameters { fit, ..parameters(3) };
        // Some of these are farther from the mean than the largest magnitude; a sample of 20 mostly lacks the odd row.
        for row in [0, 7, 199] {
            for (others, value) in [(-1e15, 1e15), (1e15, -1e15), (0.0, 1e15), (1e15, 1e15), (-9e14, 3.0)] {
                let found = with(others, row, value).cluster(base).unwrap();
                let (label, other) = (found.labels[row], found.labels[(row + 1) % 200]);
                assert!(label != other || others == value || fit != Fit::Full, "{others} {value}");
            }
            for (others, value) in [(-1e15, 1.1e15), (0.0, -1.1e15), (1e15, 2e15), (3.0, 3e38)] {
                let error = with(others, row, value).cluster(base).unwrap_err();
                let named = matches!(error, Error::TooLarge { row: found, state: 1, .. } if found == row);
                assert!(named, "{others} {value}: {error}");
            }
        }
        for all in [1.1e15, -3e38] {
            let error = with(all, 5, all).cluster(base).unwrap_err();
            assert!(matches!(error, Error::TooLarge { state: 0, .. }), "{all}: {error}");
        }
    }
}

#[test]
fn restarts_keep_the_fit_of_the_least_inertia() {
    let pool = Pool::curves(2000, 4, 0.0, 1.0);
    let init = Init::Random;
    let tried = |n_restarts| pool.cluster(Parameters { init, n_restarts, ..parameters(12) }).unwrap();
    let fits: Vec<Clustering> = (1..9).map(tried).collect();
    let inertia = |fit: &Clustering| fit.record.steps.last().unwrap().inertia;
    assert!(fits.is_sorted_by(|few, many| inertia(many) <= inertia(few)));
    assert!(inertia(&fits[7]) < inertia(&fits[0]), "one of eight is better than the first");
    for fit in &fits {
        let distance = |row: usize| {
            let centroid = &fit.centroids[fit.labels[row] as usize * 4..][..4];
            squared_distance(pool.row(row).iter().copied(), centroid)
        };
        let direct: f64 = (0..2000).filter(|&row| pool.valid[row]).map(distance).sum();
        assert!((fit.inertia / direct - 1.0).abs() < 1e-6, "labels and centroids are of the same fit");
    }
}

#[test]
fn a_tolerance_ends_the_same_steps_earlier() {
    let pool = Pool::curves(4000, 6, 0.0, 1.0);
    for pruning in [Pruning::None, Pruning::Cells] {
        let fit = |tolerance| {
            let parameters =
                Parameters { tolerance, n_iterations: 60, pruning: Some(pruning), ..parameters(40) };
            pool.cluster(parameters).unwrap()
        };
        let all = fit(0.0);
        for tolerance in [1e-3, 0.01, 0.1] {
            let found = fit(tolerance);
            let allowed = (tolerance * found.n_fit_rows as f64) as usize;
            let few = |step: &Step| step.moved <= allowed && step.reseeded == 0;
            let n = all.record.steps.iter().position(few).unwrap() + 1;
            assert!(
                (2..all.record.steps.len()).contains(&n) && (n > 4 || tolerance > 0.001),
                "{tolerance}: {n}"
            );
            assert_eq!(
                (&found.record.steps[..], found.record.stop),
                (&all.record.steps[..n], Stop::FewLabelsMoved)
            );
        }
    }
}

#[test]
fn given_centroids_count_and_not_their_order() {
    let pool = Pool::curves(3000, 4, 0.0, 1.0);
    let centroids: Vec<f32> = (0..24).flat_map(|k| pool.row(k * 55 + 1).to_vec()).collect();
    let backwards: Vec<f32> = centroids.chunks_exact(4).rev().flatten().copied().collect();
    for pruning in [Pruning::None, Pruning::Cells] {
        let fit = |init| {
            let n_iterations = 300;
            let parameters =
                Parameters { init, n_iterations, pruning: Some(pruning), n_restarts: 3, ..parameters(24) };
            pool.cluster(parameters).unwrap()
        };
        let found = fit(Init::Given(&centroids));
        assert!(found == fit(Init::Given(&backwards)), "whatever their order");
        assert!(found.record.steps.len() > 4 && found.record.stop == Stop::NoLabelMoved);
        assert!(found.labels == fit(Init::Given(&found.centroids)).labels, "it goes on from there");
    }
}
