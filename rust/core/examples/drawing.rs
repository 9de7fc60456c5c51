//! How long a draw takes, after checking that it draws what sorting would.
//!
//! `cargo run --release --example drawing -- [N] [K] [THREADS] [REPEATS]`: 11 % of N examples in K clusters, at
//! random and by score. The twin sorts all of them.

use lossift_core::cells::Cells;
use lossift_core::draw::Draw;
use lossift_core::ids::Ids;
use lossift_core::interrupt::Watch;
use lossift_core::rng::{DRAW, Keys, TIE};
use std::ops::ControlFlow;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: usize| arguments.get(i).map_or(default, |a| a.parse().expect("a number"));
    let (n, k) = (number(0, 10_000_000), number(1, 100));
    let (n_threads, repeats) = (number(2, 2), number(3, 5));
    let chance = Keys::new(1, "drawing");
    let clusters: Vec<i32> = (0..n as u64).map(|row| (chance.uniform(row) * k as f64) as i32).collect();
    let scores: Vec<f64> = (0..n as u64).map(|row| 1.0 - 2.0 * chance.uniform(!row)).collect();
    let cells = Cells::of_clusters(&clusters, k);
    let mut go_on = |_, _, _| ControlFlow::Continue(());
    let census = cells.census(Ids::RowNumbers(n), chance, n_threads, &mut Watch::new(&mut go_on));
    let sizes = census.expect("a census").sizes;
    let quotas: Vec<i64> = sizes.iter().map(|size| size * 11 / 100).collect();
    for (name, scores) in [("at random", None), ("by score", Some(&scores[..]))] {
        let draw =
            Draw { cells, quotas: &quotas, sizes: Some(&sizes), ids: Ids::RowNumbers(n), scores, seed: 0 };
        let mut seconds = Vec::new();
        let mut rows = Vec::new();
        for _ in 0..repeats {
            let started = Instant::now();
            rows = draw.rows(n_threads, &mut Watch::new(&mut go_on)).expect("a draw");
            seconds.push(started.elapsed().as_secs_f64());
        }
        assert_eq!(rows, sorted(&clusters, &quotas, scores), "{name}");
        seconds.sort_unstable_by(f64::total_cmp);
        let median = seconds[repeats / 2];
        println!(
            "{name}: {n} examples in {k} clusters, {n_threads} threads: {:.1} ms, {:.2} ns per example",
            1e3 * median,
            1e9 * median / n as f64
        );
    }
}

/// What sorting finds.
fn sorted(clusters: &[i32], quotas: &[i64], scores: Option<&[f64]>) -> Vec<i64> {
    let keys = Keys::new(0, if scores.is_some() { TIE } else { DRAW });
    let mut rows: Vec<usize> = (0..clusters.len()).collect();
    rows.sort_unstable_by(|&a, &b| {
        let by_score = scores.map_or(std::cmp::Ordering::Equal, |scores| scores[b].total_cmp(&scores[a]));
        let by_cluster = clusters[a].cmp(&clusters[b]);
        by_cluster.then(by_score).then(keys.key(a as u64).cmp(&keys.key(b as u64)))
    });
    let mut left = quotas.to_vec();
    rows.retain(|&row| {
        let left = &mut left[clusters[row] as usize];
        *left -= 1;
        *left >= 0
    });
    rows.sort_unstable();
    rows.into_iter().map(|row| row as i64).collect()
}
