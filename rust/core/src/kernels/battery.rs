//! The battery: every backend that runs here against the naive twin, comparing bits.
//!
//! Threadless and without test harness, so that it also runs as a plain program, for instance under an emulator.

use super::{Backend, Found, Kernel, Sixteen, half_square, on_grid};
use crate::columns::LANES;
use crate::rng::Keys;

/// Squared distance of a trajectory from a centroid, by subtraction: the sum that every lane of every backend runs.
#[must_use]
pub fn naive_distance(x: impl IntoIterator<Item = f32>, centroid: &[f32]) -> f32 {
    x.into_iter().zip(centroid).fold(0.0, |sum, (x, c)| (x - c).mul_add(x - c, sum))
}

/// Score of a centroid for a trajectory, half the squared distance less half the trajectory's squared norm: the sum that
/// every lane of every backend runs.
#[must_use]
pub fn naive_score(x: impl IntoIterator<Item = f32>, centroid: &[f32]) -> f32 {
    x.into_iter().zip(centroid).fold(half_square(centroid), |sum, (x, c)| (-x).mul_add(*c, sum))
}

/// Number and score of the nearest centroid, the first of several, and the second smallest score: the twin of
/// [`Kernel::nearest_two`].
#[must_use]
pub fn naive_nearest(x: &[f32], centroids: &[f32]) -> (usize, f32, f32) {
    let mut best = (0, f32::INFINITY, f32::INFINITY);
    for (k, centroid) in centroids.chunks_exact(x.len()).enumerate() {
        let score = naive_score(x.iter().copied(), centroid);
        let behind = if score > best.1 { score } else { best.1 };
        best.2 = if behind < best.2 { behind } else { best.2 };
        if score < best.1 {
            (best.0, best.1) = (k, score);
        }
    }
    best
}

/// A value of some kind, from a uniform number in [0, 1).
type Value = fn(f64) -> f32;

/// The kinds of values that have broken kernels elsewhere.
const KINDS: [(&str, Value); 7] = [
    ("losses", |u| (u * 8.0) as f32),
    ("offset", |u| (1e4 + u * 1e-2) as f32),
    ("huge", |u| ((u - 0.5) * 2e15) as f32),
    ("beyond float32 squares", |u| ((u - 0.5) * 3e38) as f32),
    ("subnormal", |u| f32::from_bits((u * 200.0) as u32)),
    ("squares underflow", |u| (u * 1e-22) as f32),
    ("ties", |u| (u * 3.0).floor() as f32),
];

/// Runs every available backend on every kind of value and many sizes; returns their names.
///
/// # Errors
/// The first difference from the naive twin, in words.
pub fn run() -> Result<Vec<&'static str>, String> {
    let mut names = Vec::new();
    for backend in Backend::available() {
        let kernel = Kernel::of(backend).ok_or("an available backend has kernels")?;
        for (kind, value) in KINDS {
            for n_dims in [1, 2, 3, 12, 33] {
                for n_centroids in [1, 3, 4, 5, 8, 9, 21, 100] {
                    for n_tiles in [0, 1, 5] {
                        let seed = (n_dims * 10_000 + n_centroids * 10 + n_tiles) as u64;
                        compare(&kernel, kind, value, [n_tiles, n_centroids, n_dims], seed)?;
                    }
                }
            }
        }
        names.push(backend.name());
    }
    Ok(names)
}

fn compare(kernel: &Kernel, kind: &str, value: Value, sizes: [usize; 3], seed: u64) -> Result<(), String> {
    let [n_tiles, n_centroids, n_dims] = sizes;
    let chance = Keys::new(seed, "battery");
    let numbers =
        |from: usize, n: usize| (0..n).map(|i| value(chance.uniform((from + i) as u64))).collect::<Vec<_>>();
    let tiles = numbers(0, n_tiles * n_dims * LANES);
    let centroids = numbers(tiles.len(), n_centroids * n_dims);
    let packed = kernel.pack(&centroids, n_dims);
    let empty = || vec![[0.0; LANES]; n_tiles];
    let (mut found, mut near, mut next) = (empty(), empty(), empty());
    let mut all_found = Found { numbers: &mut found, scores: &mut near, seconds: &mut next };
    kernel.nearest_two(&tiles, &packed, &mut all_found);
    let (mut squares, mut scores) =
        (vec![[0.0; LANES]; n_tiles * n_centroids], vec![[0.0; LANES]; n_tiles * n_centroids]);
    kernel.distances(&tiles, &packed, &mut squares);
    kernel.scores(&tiles, &packed, &mut scores);
    same(kernel, (&tiles, &centroids, n_dims), (&found, &near, &next), &scores)
        .map_err(|what| format!("{}, {kind}, sizes {sizes:?}: {what}", kernel.backend().name()))?;
    for (i, tile) in tiles.chunks_exact(n_dims * LANES).enumerate() {
        for lane in 0..LANES {
            let x: Vec<f32> = tile.iter().skip(lane).step_by(LANES).copied().collect();
            let told =
                || format!("{}, {kind}, sizes {sizes:?}, tile {i}, lane {lane}", kernel.backend().name());
            let (number, score, second) = naive_nearest(&x, &centroids);
            let kernel_found = (found[i][lane], near[i][lane].to_bits(), next[i][lane].to_bits());
            if kernel_found != (number as f32, score.to_bits(), second.to_bits()) {
                let found = (found[i][lane], near[i][lane], next[i][lane]);
                return Err(format!("{}: naive {number}, {score:e}, {second:e}, kernel {found:?}", told()));
            }
            for (k, centroid) in centroids.chunks_exact(n_dims).enumerate() {
                let naive =
                    [naive_distance(x.iter().copied(), centroid), naive_score(x.iter().copied(), centroid)];
                let kernel = [squares[i * n_centroids + k][lane], scores[i * n_centroids + k][lane]];
                if naive.map(f32::to_bits) != kernel.map(f32::to_bits) {
                    return Err(format!("{}: centroid {k}: naive {naive:?}, kernel {kernel:?}", told()));
                }
            }
        }
    }
    Ok(())
}

/// The other kernels must find what `nearest_two` and `scores` say.
fn same(
    kernel: &Kernel,
    (tiles, centroids, n_dims): (&[f32], &[f32], usize),
    (numbers, near, next): (&[Sixteen], &[Sixteen], &[Sixteen]),
    all: &[Sixteen],
) -> Result<(), String> {
    let n_centroids = centroids.len() / n_dims;
    let packed = kernel.pack(centroids, n_dims);
    let empty = || vec![[0.0; LANES]; near.len()];
    let (mut found, mut scores, mut seconds) = (empty(), empty(), empty());
    kernel.nearest(tiles, &packed, &mut found, &mut scores);
    if (&found[..], &scores[..]) != (numbers, near) {
        return Err("nearest and nearest_two find different ones".to_owned());
    }
    let mut gathered = packed.none_of();
    // A longer list first: nothing of it may be left.
    gathered.gather(&packed, &vec![0; n_centroids + 5]);
    gathered.gather(&packed, &(0..n_centroids as u32).collect::<Vec<_>>());
    let (mut room, mut gaps) = (Vec::new(), vec![[0.0; LANES]; n_centroids]);
    let mut all_found = Found { numbers: &mut found, scores: &mut scores, seconds: &mut seconds };
    kernel.nearest_and_gaps(tiles, &gathered, &mut all_found, (&mut room, &mut gaps));
    if (&found[..], &scores[..], &seconds[..]) != (numbers, near, next) {
        return Err("nearest_and_gaps finds other nearest ones".to_owned());
    }
    for (k, gaps) in gaps.iter().enumerate() {
        for (lane, gap) in gaps.iter().enumerate() {
            let differences =
                near.iter().enumerate().map(|(i, near)| all[i * n_centroids + k][lane] - near[lane]);
            // Infinity less infinity: a comparison with NaN keeps what was there.
            let least = differences.fold(f32::INFINITY, |least, gap| if gap < least { gap } else { least });
            if least.to_bits() != gap.to_bits() && least.is_finite() {
                return Err(format!("centroid {k}, lane {lane}: gap {gap:e}, naive {least:e}"));
            }
        }
    }
    let mut totals = vec![[7; LANES]; n_dims];
    kernel.add(tiles, 1024.0, &mut totals);
    for (dim, totals) in totals.iter().enumerate() {
        for (lane, total) in totals.iter().enumerate() {
            let values = tiles.iter().skip(dim * LANES + lane).step_by(n_dims * LANES);
            let naive = values.fold(7_i64, |sum, x| sum.wrapping_add(on_grid(*x, 1024.0)));
            if *total != naive {
                return Err(format!("dim {dim}, lane {lane}: total {total}, naive {naive}"));
            }
        }
    }
    let mut sums = vec![3; n_centroids * n_dims];
    kernel.scatter(tiles, numbers, 1024.0, n_dims, &mut sums);
    let mut naive = vec![3_i64; n_centroids * n_dims];
    for (tile, numbers) in tiles.chunks_exact(n_dims * LANES).zip(numbers) {
        for (i, x) in tile.iter().enumerate() {
            let sum = &mut naive[numbers[i % LANES] as usize * n_dims + i / LANES];
            *sum = sum.wrapping_add(on_grid(*x, 1024.0));
        }
    }
    if sums != naive {
        return Err("scattered sums are others".to_owned());
    }
    let largest = tiles.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let scale = libm::ldexp(1.0, 51 - libm::frexpf(largest).1);
    let naive: i128 = tiles.iter().map(|x| i128::from(on_grid(*x, scale)).pow(2)).sum();
    if kernel.squares(tiles, scale) != naive {
        return Err(format!("squares {}, naive {naive}", kernel.squares(tiles, scale)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_equals_the_naive_twin() {
        let names = run().unwrap_or_else(|difference| panic!("{difference}"));
        println!("backends that ran: {}", names.join(", "));
        assert!(names.contains(&"scalar"));
        #[cfg(target_arch = "aarch64")]
        assert!(names.contains(&"neon"));
    }

    #[test]
    fn names_are_checked() {
        for backend in Backend::available() {
            assert_eq!(Backend::from_name(backend.name()), Ok(backend));
        }
        for name in ["sse9", "AVX2", "auto"] {
            let message = Backend::from_name(name).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("LOSSIFT_SIMD: found \"{name}\", allowed are ")),
                "{message}"
            );
        }
    }
}
