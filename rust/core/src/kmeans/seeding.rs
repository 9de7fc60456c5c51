//! Where centroids start: on random examples, or by greedy k-means++ on a sample.
//!
//! The sample is the max(64 K, 8,192) valid examples with the smallest keyed hashes, in the order of these: a uniform
//! sample whatever the order of the rows. Sixty-four examples per centroid place the seeds almost as well as
//! all of them would (Lloyd, which sees every row, does the rest) and cost less than one iteration from about
//! 64 K ln K rows on. The sample serves the centre of the data too, and the question whether pruning promises anything.
//!
//! k-means++ (Arthur and Vassilvitskii, 2007) puts each next centroid on an example drawn with probability
//! proportional to its squared distance from the nearest centroid so far; greedily, it draws 2 + ln K candidates and
//! keeps the one that leaves the smallest sum. Examples that are equal have distance 0 and are never drawn twice, so with
//! fewer distinct examples than K there are fewer centroids.
//!
//! Sums are float64 over blocks of 512 in the fixed order of the sample, so threads leave no trace. Cost: K steps, each
//! |sample| x candidates x T multiply-adds; memory: the sample, and its distances from the candidates.

use super::sweep::Run;
use crate::columns::LANES;
use crate::error::Result;
use crate::kernels::{Centroids, Kernel};
use crate::rng::Keys;
use crate::shape::{BLOCK_ROWS, Block, Trajectories};

/// Rows of the sample per centroid.
const ROWS_PER_CENTROID: usize = 64;
/// Rows of the sample at least, for small K.
const LEAST_ROWS: usize = 8192;

/// How many rows the sample has, where there are as many.
#[must_use]
pub fn n_sampled(n_clusters: usize) -> usize {
    ROWS_PER_CENTROID.saturating_mul(n_clusters).max(LEAST_ROWS)
}

/// The first `n_clusters` rows of the sample (all of them, if there are fewer), `[centroid][dim]`.
#[must_use]
pub fn random(data: &Trajectories, sample: &[usize], n_clusters: usize) -> Vec<f32> {
    let mut block = Block::default();
    let mut centroids = Vec::with_capacity(n_clusters * data.n_dims());
    for rows in sample[..n_clusters.min(sample.len())].chunks(BLOCK_ROWS) {
        data.load(rows, &mut block);
        (0..rows.len()).for_each(|index| centroids.extend(block.trajectory(index)));
    }
    centroids
}

/// A block of the sample.
struct Part {
    block: Block,
    /// `[tile][lane]`: squared distance from the nearest centroid so far; 0 in lanes without an example.
    nearest: Vec<[f32; LANES]>,
    /// Sum of `nearest`.
    potential: f64,
    /// `[tile][candidate][lane]`: squared distances from the candidates.
    distances: Vec<[f32; LANES]>,
    /// Sum of `nearest` for each candidate, were it chosen.
    potentials: Vec<f64>,
}

/// Up to `n_clusters` distinct examples of the sample (row numbers in random order, at least one) to start from,
/// `[centroid][dim]`; `chance` throws the dice.
///
/// # Errors
/// An interrupt.
pub fn plus_plus(
    data: &Trajectories,
    sample: &[usize],
    n_clusters: usize,
    chance: Keys,
    run: &mut Run,
) -> Result<Vec<f32>> {
    let mut parts: Vec<Part> = sample.chunks(BLOCK_ROWS).map(|rows| Part::load(data, rows)).collect();
    let n_candidates = 2 + libm::log(n_clusters as f64) as u64;
    let n_dims = data.n_dims();
    let mut workers = run.team.workers(|| ());
    // The sample is in random order: its first example is one drawn uniformly.
    let mut candidates: Vec<f32> = parts[0].block.trajectory(0).collect();
    let mut centroids = Vec::with_capacity(n_clusters * n_dims);
    run.watch.begin("seeding", n_clusters)?;
    for step in 1..=n_clusters as u64 {
        let kernel = run.kernel;
        let packed = kernel.pack(&candidates, n_dims);
        run.team.each(&mut workers, parts.iter_mut().collect(), |(), part| part.measure(kernel, &packed));
        let left = |candidate: usize| parts.iter().map(|part| part.potentials[candidate]).sum::<f64>();
        let left: Vec<f64> = (0..packed.n_centroids()).map(left).collect();
        let chosen = (1..left.len()).fold(0, |best, next| if left[next] < left[best] { next } else { best });
        centroids.extend_from_slice(&candidates[chosen * n_dims..(chosen + 1) * n_dims]);
        for part in &mut parts {
            part.accept(chosen, packed.n_centroids());
        }
        run.watch.advance(1)?;
        if left[chosen] == 0.0 {
            break;
        }
        candidates.clear();
        for candidate in 0..n_candidates {
            candidates.extend(pick(&parts, chance.uniform(step * n_candidates + candidate) * left[chosen]));
        }
    }
    Ok(centroids)
}

/// The first example at which the running sum of distances passes `target`.
fn pick(parts: &[Part], mut target: f64) -> impl Iterator<Item = f32> + '_ {
    // Roundings may carry the target past the end: then it is the last example that is any distance away.
    let mut chosen = parts.iter().rposition(|part| part.potential > 0.0).expect("the sum is positive");
    for (i, part) in parts[..chosen].iter().enumerate() {
        if target < part.potential {
            chosen = i;
            break;
        }
        target -= part.potential;
    }
    let part = &parts[chosen];
    let mut index = 0;
    for (i, &distance) in
        part.nearest.as_flattened().iter().enumerate().filter(|(_, distance)| **distance > 0.0)
    {
        index = i;
        target -= f64::from(distance);
        if target < 0.0 {
            break;
        }
    }
    part.block.trajectory(index)
}

/// Sum of float32 tiles in float64: lane by lane, then over the lanes.
fn total<'a>(tiles: impl Iterator<Item = &'a [f32; LANES]>) -> f64 {
    let mut sums = [0.0; LANES];
    for tile in tiles {
        for (sum, &x) in sums.iter_mut().zip(tile) {
            *sum += f64::from(x);
        }
    }
    sums.iter().sum()
}

impl Part {
    fn load(data: &Trajectories, rows: &[usize]) -> Self {
        let mut block = Block::default();
        data.load(rows, &mut block);
        let mut nearest = vec![[0.0; LANES]; block.n_tiles()];
        nearest.as_flattened_mut()[..rows.len()].fill(f32::INFINITY);
        Self { block, nearest, potential: 0.0, distances: Vec::new(), potentials: Vec::new() }
    }

    /// Measures the distances from the candidates and what each would leave.
    fn measure(&mut self, kernel: Kernel, candidates: &Centroids) {
        let n = candidates.n_centroids();
        self.distances.resize(self.nearest.len() * n, [0.0; LANES]);
        kernel.distances(self.block.tiles(), candidates, &mut self.distances);
        for (distances, nearest) in self.distances.chunks_exact_mut(n).zip(&self.nearest) {
            for (distance, nearest) in distances.iter_mut().flat_map(|lanes| lanes.iter_mut().zip(nearest)) {
                *distance = if *distance < *nearest { *distance } else { *nearest };
            }
        }
        let potential = |candidate: usize| total(self.distances.iter().skip(candidate).step_by(n));
        self.potentials = (0..n).map(potential).collect();
    }

    /// Makes one of `n` candidates a centroid.
    fn accept(&mut self, candidate: usize, n: usize) {
        for (nearest, distances) in self.nearest.iter_mut().zip(self.distances.chunks_exact(n)) {
            *nearest = distances[candidate];
        }
        self.potential = self.potentials[candidate];
    }
}
