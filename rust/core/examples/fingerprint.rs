//! From losses to a selection on one thread, for every backend; one line each: its name and a digest of all bits.
//!
//! A plain, threadless program, so that an emulator can run it too: equal digests from two machines say that
//! clusterings, quotas and draws are the same bits on both. `cargo run --release -p lossift-core --example fingerprint`

use lossift_core::cells::Cells;
use lossift_core::columns::{Columns, Layout};
use lossift_core::draw::Draw;
use lossift_core::ids::Ids;
use lossift_core::interrupt::Watch;
use lossift_core::kernels::{Backend, Kernel};
use lossift_core::kmeans::{Fit, Init, Parameters, cluster};
use lossift_core::quota::smallest_first;
use lossift_core::rng::{Keys, TIE};
use lossift_core::shape::{Shape, Trajectories};
use std::ops::ControlFlow;

/// N x T x K of the clusterings: the last one has a broken tile and more dimensions than a group of centroids.
const SIZES: [[usize; 3]; 3] = [[4000, 8, 40], [6000, 3, 200], [1001, 33, 9]];

/// FNV-1a over the bytes of numbers.
struct Digest(u64);

impl Digest {
    fn add<const B: usize>(&mut self, numbers: impl IntoIterator<Item = [u8; B]>) {
        for byte in numbers.into_iter().flatten() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// T columns of N losses: falling curves of thirty kinds with noise; every ninth row is pure noise.
fn columns(n: usize, t: usize) -> Vec<Vec<f32>> {
    let (chance, kinds) = (Keys::new(n as u64, "rows"), Keys::new(t as u64, "kinds"));
    let loss = |row: usize, state: usize| {
        let kind = (chance.uniform(row as u64) * 30.0) as u64;
        let noise = chance.uniform((n + row * t + state) as u64);
        let (floor, fall) = (kinds.uniform(2 * kind), 3.0 * kinds.uniform(2 * kind + 1));
        let curve = 0.5 + floor + fall / (1 + state) as f64;
        (if row.is_multiple_of(9) { 4.0 * noise } else { curve + 0.2 * noise }) as f32
    };
    (0..t).map(|state| (0..n).map(|row| loss(row, state)).collect()).collect()
}

/// Clusters, gives each cluster its quota of a tenth, draws; adds all of it to the digest.
fn select(kernel: Kernel, [n, t, k]: [usize; 3], shape: Shape, fit: Fit, digest: &mut Digest) {
    let columns = columns(n, t);
    let valid: Vec<bool> = (0..n).map(|row| row % 7 != 3).collect();
    let ids: Vec<u64> = (0..n as u64).map(|row| row * row + 5).collect();
    let layout = Layout::Columns(columns.iter().map(Vec::as_slice).collect());
    let data = Trajectories::new(Columns::new(layout, &valid).expect("columns"), shape).expect("a shape");
    let mut go_on = |_: &str, _, _| ControlFlow::Continue(());
    let parameters = Parameters {
        n_clusters: k,
        n_iterations: 12,
        seed: 7,
        init: Init::PlusPlus,
        fit,
        n_restarts: 1,
        tolerance: 0.0,
        n_threads: 1,
        pruning: None,
        kernel,
    };
    let ids = Ids::Given(&ids);
    let found = cluster(data, ids, parameters, Watch::new(&mut go_on)).expect("a clustering");
    digest.add(found.labels.iter().map(|label| label.to_le_bytes()));
    digest.add(found.centroids.iter().map(|x| x.to_bits().to_le_bytes()));
    digest.add(found.record.steps.iter().map(|step| step.inertia.to_bits().to_le_bytes()));
    digest.add(found.record.steps.iter().map(|step| (step.moved as u64).to_le_bytes()));

    let cells = Cells::of_clusters(&found.labels, found.sizes.len());
    let census = cells.census(ids, Keys::new(7, TIE), 1, &mut Watch::new(&mut go_on)).expect("a census");
    let quotas = smallest_first(&census.sizes, &census.smallest, n as i64 / 10).expect("quotas");
    let draw = Draw { cells, quotas: &quotas, sizes: None, ids, scores: None, seed: 7 };
    let rows = draw.rows(1, &mut Watch::new(&mut go_on)).expect("a draw");
    digest.add(rows.iter().map(|row| row.to_le_bytes()));
}

fn main() {
    for backend in Backend::available() {
        let kernel = Kernel::of(backend).expect("an available backend has kernels");
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        for sizes in SIZES {
            for shape in Shape::ALL {
                select(kernel, sizes, shape, Fit::Full, &mut digest);
            }
            select(kernel, sizes, Shape::Raw, Fit::Sample(Some(600)), &mut digest);
            select(kernel, sizes, Shape::Raw, Fit::MiniBatch, &mut digest);
        }
        println!("{} {:016x}", backend.name(), digest.0);
    }
}
