//! Pruned against plain Lloyd, in turn in one process: first the same answer, then the time.
//!
//! `cargo run --release -p lossift-core --example pruning -- [N T K THREADS REPEATS curves|noise]`; with AUTO=1 set, pruning decides for itself.

use lossift_core::columns::{Columns, Layout};
use lossift_core::ids::Ids;
use lossift_core::interrupt::Watch;
use lossift_core::kernels::Kernel;
use lossift_core::kmeans::{Fit, Init, Parameters, Pruning, cluster};
use lossift_core::rng::Keys;
use lossift_core::shape::{Shape, Trajectories};
use std::ops::ControlFlow;
use std::time::Instant;

/// A standard normal number from two uniform ones.
fn normal(a: f64, b: f64) -> f64 {
    (-2.0 * libm::log(1.0 - a)).sqrt() * libm::cos(std::f64::consts::TAU * b)
}

/// T columns: falling curves of `400` kinds with noise and heavy tails, or Gaussian noise.
fn columns(n: usize, t: usize, noise_only: bool) -> Vec<Vec<f32>> {
    let chance = Keys::new(11, "pruning");
    let kind_of = Keys::new(12, "kinds");
    let mut columns = vec![vec![0.0; n]; t];
    for row in 0..n {
        let at = |what: usize| chance.uniform((row * 64 + what) as u64);
        // Kinds are of unequal sizes: the square favours the first ones.
        let kind = (at(0) * at(0) * 400.0) as u64;
        let of = |what: u64| kind_of.uniform(kind * 8 + what);
        let (start, floor, rate) = (1.0 + 3.0 * of(0), 0.2 + 1.2 * of(1), 0.05 + 1.5 * of(2) * of(2));
        let level = 0.15 * normal(at(1), at(2));
        // One row in twenty has a tail: its level and its noise are several times as large.
        let tail = if at(3) < 0.05 { (1.0 / (1e-3 + at(4))).min(40.0).sqrt() } else { 1.0 };
        for (state, column) in columns.iter_mut().enumerate() {
            let noise = normal(at(5 + 2 * state), at(6 + 2 * state));
            column[row] = if noise_only {
                noise as f32
            } else {
                let curve = floor + (start - floor) * libm::exp(-rate * state as f64);
                (curve * libm::exp(level * tail) + 0.06 * tail * noise).max(0.0) as f32
            };
        }
    }
    columns
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: usize| arguments.get(i).map_or(default, |a| a.parse().expect("a number"));
    let (n, t, k) = (number(0, 1_000_000), number(1, 16), number(2, 100));
    let (n_threads, repeats) = (number(3, 2), number(4, 3));
    let noise_only = arguments.get(5).is_some_and(|kind| kind == "noise");
    let columns = columns(n, t, noise_only);
    let valid = vec![true; n];
    let kernel = Kernel::choose().expect("a backend");
    let fit = |pruning: Option<Pruning>| {
        let layout = Layout::Columns(columns.iter().map(Vec::as_slice).collect());
        let data =
            Trajectories::new(Columns::new(layout, &valid).expect("columns"), Shape::Raw).expect("data");
        let mut iterations = None;
        let mut go_on = |what: &str, _, _| {
            if what == "clustering" {
                iterations.get_or_insert_with(Instant::now);
            }
            ControlFlow::Continue(())
        };
        let parameters = Parameters {
            n_clusters: k,
            n_iterations: 20,
            seed: 0,
            init: Init::PlusPlus,
            fit: Fit::Full,
            n_restarts: 1,
            tolerance: 0.0,
            n_threads,
            pruning,
            kernel,
        };
        let found =
            cluster(data, Ids::RowNumbers(n), parameters, Watch::new(&mut go_on)).expect("a clustering");
        (found, iterations.expect("it began").elapsed().as_secs_f64())
    };
    let (mut plain_times, mut pruned_times) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let (plain, plain_time) = fit(Some(Pruning::None));
        let ways = if std::env::var_os("AUTO").is_some() { None } else { Some(Pruning::Cells) };
        let (pruned, pruned_time) = fit(ways);
        // A difference would be millions of numbers long: only say that there is one.
        assert!(plain.record.steps == pruned.record.steps, "the steps differ");
        assert!(plain.labels == pruned.labels, "the labels differ");
        assert!(plain.centroids == pruned.centroids, "the centroids differ");
        plain_times.push(plain_time);
        pruned_times.push(pruned_time);
        let shares: Vec<String> =
            pruned.record.evaluated.iter().map(|share| format!("{:.1}", 100.0 * share)).collect();
        println!(
            "  plain {plain_time:.3} s, {} {pruned_time:.3} s, evaluated %: {}",
            pruned.record.pruning.name(),
            shares.join(" ")
        );
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (plain, pruned) = (median(&mut plain_times), median(&mut pruned_times));
    println!(
        "{n} x {t}, K {k}, {} on {n_threads} threads: plain {plain:.3} s, pruned {pruned:.3} s, {:.2} times as fast",
        kernel.backend().name(),
        plain / pruned
    );
}
