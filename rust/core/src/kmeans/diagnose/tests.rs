//! Against Lloyd's iterations one by one, and the obvious formulas.

use super::*;
use crate::kernels::Backend;
use crate::kmeans::lloyd::{Course, Pruning, lloyd};
use crate::shape::Shape;
use std::ops::ControlFlow;

const N_STATES: usize = 3;

/// Rows of a dozen kinds with noise, and their ids; every eleventh row is NaN and invalid.
fn pool(n: usize) -> (Vec<f32>, Vec<bool>, Vec<u64>) {
    let chance = Keys::new(7, "pool");
    let value = |row: usize, state: usize| {
        let level = ((row * 5 % 12) * (state + 2) % 7) as f32;
        level + chance.uniform((row * N_STATES + state) as u64) as f32
    };
    let values = (0..n * N_STATES)
        .map(|i| if i / N_STATES % 11 == 10 { f32::NAN } else { value(i / N_STATES, i % N_STATES) });
    let valid = (0..n).map(|row| row % 11 != 10).collect();
    (values.collect(), valid, (0..n as u64).map(|row| row * row + 5).collect())
}

fn question(n_clusters: &[usize], n_threads: usize, backend: Backend) -> Question<'_> {
    let kernel = Kernel::of(backend).unwrap();
    Question { n_clusters, n_iterations: 20, seed: 3, fit: Fit::Auto, n_threads, kernel }
}

fn ask((values, valid, ids): &(Vec<f32>, Vec<bool>, Vec<u64>), question: Question) -> Result<Diagnoses> {
    let layout = Layout::Rows { values, n_states: N_STATES };
    let data = Trajectories::new(Columns::new(layout, valid)?, Shape::Raw)?;
    diagnose(data, Ids::Given(ids), question, Watch::new(&mut |_, _, _| ControlFlow::Continue(())))
}

#[test]
fn every_number_of_clusters_goes_the_way_of_lloyd_from_the_same_seeds() {
    let (values, valid, ids) = pool(3000);
    let layout = Layout::Rows { values: &values, n_states: N_STATES };
    let data = Trajectories::new(Columns::new(layout, &valid).unwrap(), Shape::Raw).unwrap();
    let ids = Ids::Given(&ids);
    let mut go_on = |_, _, _| ControlFlow::Continue(());
    let kernel = Kernel::of(Backend::Scalar).unwrap();
    let mut run = Run { kernel, team: Team::new(2).unwrap(), watch: Watch::new(&mut go_on) };
    let with = (&run.team, &mut run.watch);
    let sample = smallest_rows(data.columns(), ids, Keys::new(1, SEED), 500, with).unwrap();
    let data = data.centred(&sample);
    let mut seeds = seeding::plus_plus(&data, &sample, 40, Keys::new(1, SEED_CHOICE), &mut run).unwrap();
    // Two that no row is near: they have to be re-seeded.
    seeds[2 * N_STATES..4 * N_STATES].fill(60.0);
    let grid = Grid::new(64.0, data.columns().n_valid(), N_STATES);
    let ties = Keys::new(1, TIE);
    for n_iterations in [1, 4, 500] {
        let sizes = [1, 2, 3, 5, 8, 13, 40];
        let mut candidates: Vec<Candidate> =
            sizes.iter().map(|&k| Candidate::new(&seeds, k, N_STATES)).collect();
        let mut labels = vec![-1; 3000];
        iterate((&data, grid), (ids, ties), &mut candidates, n_iterations, &mut labels, &mut run).unwrap();
        for (n_clusters, candidate) in sizes.into_iter().zip(candidates) {
            let mut centroids = seeds[..n_clusters * N_STATES].to_vec();
            let course =
                Course { n_iterations, tolerance: 0.0, pruning: Some(Pruning::None), sample: &sample };
            let mut labels = vec![-1; 3000];
            let record =
                lloyd((&data, grid), (ids, ties), course, &mut centroids, &mut labels, &mut run).unwrap();
            assert_eq!(candidate.centroids, centroids, "{n_clusters} {n_iterations}");
            assert_eq!(candidate.n_assignments, record.steps.len());
            assert_eq!(candidate.stop, Some(record.stop));
            let reseeded: usize = record.steps.iter().map(|step| step.reseeded).sum();
            assert!(reseeded > 0 || n_clusters < 3, "{n_clusters}");
        }
    }
}

#[test]
fn measures_are_those_of_the_obvious_formula() {
    let (values, valid, _) = pool(500);
    let layout = Layout::Rows { values: &values, n_states: N_STATES };
    let data = Trajectories::new(Columns::new(layout, &valid).unwrap(), Shape::Raw).unwrap();
    let mut go_on = |_, _, _| ControlFlow::Continue(());
    let kernel = Kernel::choose().unwrap();
    let mut run = Run { kernel, team: Team::new(2).unwrap(), watch: Watch::new(&mut go_on) };
    let mut labels = vec![-1; 500];
    // A row of its own is at distance 0; the last centroid has no member and doesn't count.
    let seeds = [&values[..12], &[1.5, 2.0, 0.5, 0.0, 3.0, 2.0, 900.0, 900.0, 900.0]].concat();
    let mut candidates: Vec<Candidate> =
        [1, 4, 6, 7].iter().map(|&k| Candidate::new(&seeds, k, N_STATES)).collect();
    for candidate in &mut candidates {
        let packed = [kernel.pack(&candidate.centroids, N_STATES)];
        let grid = Grid::new(1000.0, 500, N_STATES);
        candidate.sums = assign((&data, grid), &packed, &mut labels, &mut run).unwrap().remove(0);
    }
    let found = measure(&data, &candidates, 1000.0, &mut labels, &mut run).unwrap();
    for (&(n_found, inertia, silhouette), candidate) in found.iter().zip(&candidates) {
        let (mut sum, mut mean, mut n) = (0.0, 0.0, 0.0);
        for row in (0..500).filter(|&row| valid[row]) {
            let x = &values[row * N_STATES..][..N_STATES];
            let mut distances: Vec<f64> = candidate
                .centroids
                .chunks(N_STATES)
                .filter(|c| c[0] < 900.0)
                .map(|c| x.iter().zip(c).map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum())
                .collect();
            distances.sort_by(f64::total_cmp);
            sum += distances[0];
            n += 1.0;
            if let [a, b, ..] = distances[..] {
                mean += (b.sqrt() - a.sqrt()) / b.sqrt();
            }
        }
        let expected = candidate.centroids.len() / N_STATES;
        assert_eq!(n_found, expected.min(6));
        assert!((inertia - sum).abs() < 1e-6 * sum, "{inertia} {sum}");
        assert_eq!(silhouette.is_none(), expected == 1);
        assert!(
            silhouette.is_none_or(|found| (found - mean / n).abs() < 1e-9),
            "{silhouette:?} {}",
            mean / n
        );
    }
    assert_eq!(super::silhouette(0.0, 0.0), 0.0);
}

#[test]
fn the_same_bits_for_any_threads_backend_and_row_order() {
    let pool = pool(2000);
    let sizes = [9, 2, 30, 1];
    let first = ask(&pool, question(&sizes, 1, Backend::Scalar)).unwrap();
    assert_eq!(first.rows.iter().map(|row| row.n_clusters).collect::<Vec<_>>(), sizes);
    assert!(first.rows[1].inertia > first.rows[0].inertia && first.rows[0].inertia > first.rows[2].inertia);
    for backend in Backend::available() {
        for n_threads in [1, 3] {
            assert_eq!(ask(&pool, question(&sizes, n_threads, backend)).unwrap(), first);
        }
    }
    let order: Vec<usize> = (0..2000).map(|i| i * 7 % 2000).collect();
    let shuffled = (
        order.iter().flat_map(|&row| pool.0[row * N_STATES..][..N_STATES].to_vec()).collect(),
        order.iter().map(|&row| pool.1[row]).collect(),
        order.iter().map(|&row| pool.2[row]).collect(),
    );
    assert_eq!(ask(&shuffled, question(&sizes, 2, Backend::Scalar)).unwrap(), first);
}

#[test]
fn a_sample_is_measured_on_all_rows() {
    let pool = pool(4000);
    let whole = ask(&pool, question(&[6, 20], 1, Backend::Scalar)).unwrap();
    let fit = Fit::Sample(Some(2500));
    let part = ask(&pool, Question { fit, ..question(&[6, 20], 1, Backend::Scalar) }).unwrap();
    assert_eq!((whole.fit, whole.n_fit_rows, part.n_fit_rows), (Fit::Full, 3637, 2500));
    for (whole, part) in whole.rows.iter().zip(&part.rows) {
        assert!((part.inertia / whole.inertia - 1.0).abs() < 0.2, "{} {}", part.inertia, whole.inertia);
    }
}

#[test]
fn what_can_not_be_asked_is_refused() {
    let pool = pool(20);
    let message = |question| ask(&pool, question).unwrap_err().to_string();
    let good = question(&[2], 1, Backend::Scalar);
    assert_eq!(
        message(Question { n_clusters: &[], ..good }),
        "n_clusters: found 0, allowed are 1 to 16777216"
    );
    let found = message(Question { n_clusters: &[3, 0], ..good });
    assert_eq!(found, "n_clusters: found 0, allowed are 1 to 16777216");
    let found = message(Question { fit: Fit::MiniBatch, ..good });
    assert_eq!(found, "fit: found \"minibatch\", allowed are auto, full, sample");
    let many = ask(&pool, Question { n_clusters: &[500], ..good }).unwrap();
    assert_eq!((many.rows[0].n_found, many.rows[0].inertia), (19, 0.0));
}
