//! The kernels' rates on one thread, in GFLOP/s: two per dimension, centroid and row, whatever else they do.
//!
//! `cargo run --release -p lossift-core --example rates`

use lossift_core::columns::LANES;
use lossift_core::kernels::{Backend, Found, Kernel};
use lossift_core::rng::Keys;
use std::hint::black_box;
use std::time::Instant;

/// Tiles of a block.
const TILES: usize = 32;
/// Multiply-adds per measurement, of which the fastest of five counts.
const WORK: usize = 400_000_000;

fn main() {
    let chance = Keys::new(1, "rates");
    let numbers = |n: usize| (0..n as u64).map(|i| chance.uniform(i) as f32).collect::<Vec<_>>();
    println!("backend      T     K   nearest  two    and gaps  distances");
    for backend in Backend::available() {
        let kernel = Kernel::of(backend).expect("it is available");
        for (t, k) in [(8, 100), (16, 100), (32, 100), (16, 1000), (16, 8)] {
            let tiles = numbers(TILES * t * LANES);
            let centroids = kernel.pack(&numbers(k * t), t);
            let (mut found, mut scores, mut seconds) =
                ([[0.0; LANES]; TILES], [[0.0; LANES]; TILES], [[0.0; LANES]; TILES]);
            let (mut room, mut gaps) = (Vec::new(), vec![[0.0; LANES]; k]);
            let mut all = vec![[0.0; LANES]; TILES * k];
            let repeats = WORK / (TILES * LANES * t * k);
            let rate = |work: &mut dyn FnMut()| {
                let seconds = (0..5).map(|_| {
                    let start = Instant::now();
                    (0..repeats).for_each(|_| work());
                    start.elapsed().as_secs_f64()
                });
                (2 * repeats * TILES * LANES * t * k) as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e9
            };
            let rates = [
                rate(&mut || kernel.nearest(black_box(&tiles), &centroids, &mut found, &mut scores)),
                rate(&mut || {
                    let (numbers, scores, seconds) = (&mut found[..], &mut scores[..], &mut seconds[..]);
                    kernel.nearest_two(
                        black_box(&tiles),
                        &centroids,
                        &mut Found { numbers, scores, seconds },
                    );
                }),
                rate(&mut || {
                    let (numbers, scores, seconds) = (&mut found[..], &mut scores[..], &mut seconds[..]);
                    kernel.nearest_and_gaps(
                        black_box(&tiles),
                        &centroids,
                        &mut Found { numbers, scores, seconds },
                        (&mut room, &mut gaps),
                    );
                }),
                rate(&mut || kernel.distances(black_box(&tiles), &centroids, &mut all)),
            ];
            let rates = rates.map(|rate| format!("{rate:9.0}")).join("");
            println!("{:10} {t:3} {k:5} {rates}", backend.name());
        }
    }
}
