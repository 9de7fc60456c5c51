//! The pruned way against the plain one, bit for bit, where bounds have the most occasions to be wrong. What is compared
//! is the labels, the centroids, and for every step the inertia, which is exact: a row that was in another cluster for one
//! step only is seen. Each test says how it knows that it got where it wanted to be.

use super::*;
use crate::columns::{Columns, Layout};
use crate::interrupt::Watch;
use crate::kernels::{Backend, Kernel};
use crate::kmeans::fit::MOST_MAGNITUDE;
use crate::kmeans::lloyd::{Course, Pruning, Record, lloyd};
use crate::parallel::Team;
use crate::rng::TIE;
use crate::shape::{Block, Shape};
use proptest::prelude::*;
use std::ops::ControlFlow;

/// Rows to cluster, and centroids to start from.
struct Case {
    /// `[row][state]`.
    values: Vec<f32>,
    n_states: usize,
    valid: Vec<bool>,
    shape: Shape,
    /// `[cluster][dim]`.
    start: Vec<f32>,
    /// The largest magnitude among shaped values and centroids.
    most: f32,
}

impl Case {
    /// All rows valid, as they are.
    fn raw(values: Vec<f32>, n_states: usize, start: Vec<f32>) -> Self {
        let most = values.iter().chain(&start).fold(0.0_f32, |most, x| most.max(x.abs()));
        let valid = vec![true; values.len() / n_states];
        Self { values, n_states, valid, shape: Shape::Raw, start, most }
    }

    fn data(&self) -> Trajectories<'_> {
        let layout = Layout::Rows { values: &self.values, n_states: self.n_states };
        Trajectories::new(Columns::new(layout, &self.valid).unwrap(), self.shape).unwrap()
    }

    fn rows(&self) -> Vec<usize> {
        (0..self.valid.len()).filter(|&row| self.valid[row]).collect()
    }

    fn run(
        &self,
        pruning: Pruning,
        n_iterations: usize,
        kernel: Kernel,
        n_threads: usize,
    ) -> (Vec<i32>, Vec<u32>, Record) {
        let (data, rows) = (self.data(), self.rows());
        let ids: Vec<u64> = (0..self.valid.len() as u64).map(|row| row * 21 + 4).collect();
        let grid = Grid::new(self.most, rows.len(), data.n_dims());
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        let mut run = Run { kernel, team: Team::new(n_threads).unwrap(), watch: Watch::new(&mut go_on) };
        let (mut centroids, mut labels) = (self.start.clone(), vec![-1; ids.len()]);
        let ties = (Ids::Given(&ids), Keys::new(3, TIE));
        let course = Course { n_iterations, tolerance: 0.0, pruning: Some(pruning), sample: &rows };
        let record = lloyd((&data, grid), ties, course, &mut centroids, &mut labels, &mut run).unwrap();
        (labels, centroids.iter().map(|c| c.to_bits()).collect(), record)
    }

    /// What both ways find; how the pruned one got there is returned.
    fn check(&self, n_iterations: usize, kernel: Kernel, n_threads: usize) -> Record {
        let plain = self.run(Pruning::None, n_iterations, Kernel::of(Backend::available()[0]).unwrap(), 1);
        let pruned = self.run(Pruning::Cells, n_iterations, kernel, n_threads);
        let bits = |record: &Record| -> Vec<(u64, usize, usize)> {
            let step =
                |step: &crate::kmeans::lloyd::Step| (step.inertia.to_bits(), step.moved, step.reseeded);
            record.steps.iter().map(step).collect()
        };
        assert_eq!(bits(&pruned.2), bits(&plain.2));
        assert_eq!(pruned.2.stop, plain.2.stop);
        assert_eq!((&pruned.0, &pruned.1), (&plain.0, &plain.1));
        pruned.2
    }

    /// By all backends, with one thread and with three.
    fn check_all(&self, n_iterations: usize) -> Record {
        let check = |(i, &backend)| self.check(n_iterations, Kernel::of(backend).unwrap(), 1 + i % 2 * 2);
        let records: Vec<Record> = Backend::available().iter().enumerate().map(check).collect();
        records.into_iter().next().expect("there is the scalar one")
    }
}

/// A kind of values: (number in [0, 1), row, state) to a loss.
type Kind = fn(f64, usize, usize) -> f32;

/// What has to be pruned exactly: groups and noise, ties, constants, offsets, extremes, tails.
const KINDS: [(&str, Kind); 13] = [
    ("groups", |u, row, state| ((row * 7 % 23 * (state + 2) % 17) as f64 + 0.4 * u) as f32),
    ("falling groups", |u, row, state| {
        ((row % 9) as f64 / (1.0 + (row % 5 * state) as f64) + 0.1 * u) as f32
    }),
    ("noise", |u, _, _| u as f32),
    ("groups amid noise", |u, row, _| (u * if row % 2 == 0 { 0.1 } else { 9.0 } + (row % 6) as f64) as f32),
    ("ties", |u, _, _| (u * 4.0).floor() as f32),
    ("duplicates", |_, row, state| (row % 13 * (state + 1) % 7) as f32 / 3.0),
    ("constant", |_, _, _| 0.1),
    ("offset", |u, row, _| (1e4 + 1e-2 * (row % 6) as f64 + 2e-3 * u) as f32),
    ("huge", |u, row, _| ((row % 11) as f64 * 1.6e14 - 8e14 + 1e13 * u) as f32),
    ("as huge as may be", |u, row, _| if u < 0.5 { MOST_MAGNITUDE } else { (row % 3) as f32 * 4e14 }),
    ("squares underflow", |u, row, _| (1e-22 * ((row % 11) as f64 + 0.3 * u)) as f32),
    ("subnormal", |u, row, _| (1e-42 * ((row % 11) as f64 + u)) as f32),
    ("heavy tails", |u, row, _| ((row % 8) as f64 + 0.1 / (1e-4 + u) * f64::from(u32::from(u < 0.1))) as f32),
];

/// Where centroids start.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    Rows,
    NearRows,
    /// All on nearly one spot, from where they have a long way to go.
    Corner,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Few iterations, so that the labels are compared after each, and many, so that cells are old.
    #[test]
    fn pruned_equals_plain_at_every_iteration(
        kind in 0_usize..KINDS.len(), n in 1_usize..1500, n_states in prop_oneof![4 => 1_usize..7, 1 => 15_usize..66],
        share in 0.0_f64..1.0, seed: u64, masked in 2_usize..9, shape in prop::sample::select(Shape::ALL.to_vec()),
        backend in 0_usize..4, n_threads in 1_usize..4,
        from in prop::sample::select(vec![Start::Rows, Start::NearRows, Start::Corner]),
    ) {
        let (name, kind) = KINDS[kind];
        let n_states = if shape == Shape::Differences { n_states + 1 } else { n_states };
        let n = if n_states > 7 { n.div_ceil(4) } else { n };
        let chance = Keys::new(seed, "pruned");
        let value = |row: usize, state: usize| kind(chance.uniform((row * 128 + state) as u64), row, state);
        // A relative trajectory needs a first loss above 0.
        let lift = if shape == Shape::Relative && !name.contains("huge") { value(0, 0).abs() + 1e-20 } else { 0.0 };
        let values: Vec<f32> =
            (0..n).flat_map(|row| (0..n_states).map(move |state| value(row, state).abs() + lift)).collect();
        let scalable = |row: usize| shape != Shape::Relative || values[row * n_states] != 0.0;
        let valid = (0..n).map(|row| (row == 0 || row % masked != 1) && scalable(row)).collect();
        let mut case = Case { values: values.clone(), n_states, valid, shape, start: Vec::new(), most: 0.0 };
        let rows = case.rows();
        prop_assume!(!rows.is_empty());
        let mut shaped = Block::default();
        case.data().load(&rows, &mut shaped);
        let most = (0..rows.len()).flat_map(|i| shaped.trajectory(i)).fold(0.0_f32, |most, x| most.max(x.abs()));
        prop_assume!(most <= MOST_MAGNITUDE);
        // From one cluster to as many as rows; mostly few.
        let k = 1 + (share * share * share * rows.len().min(400) as f64) as usize;
        case.start = (0..k).flat_map(|k| {
            let row = if from == Start::Corner { 0 } else { chance.key(k as u64 + (1 << 40)) as usize % rows.len() };
            let shift = match from {
                Start::Rows => 0.0,
                Start::NearRows => most * 0.01 * (k % 3) as f32,
                Start::Corner => most * 1e-3 * k as f32 / 400.0,
            };
            shaped.trajectory(row).map(move |x| x - x.signum() * shift).collect::<Vec<_>>()
        }).collect();
        case.most = case.start.iter().fold(most, |most, c| most.max(c.abs()));
        let available = Backend::available();
        let kernel = Kernel::of(available[backend % available.len()]).unwrap();
        for n_iterations in [1, 2, 3, 4, 5, 7, 45] {
            let record = case.check(n_iterations, kernel, n_threads);
            if record.steps.len() <= n_iterations {
                break;
            }
        }
    }
}

/// Uniform numbers, `[row][state]`.
fn noise(n: usize, n_states: usize, seed: u64) -> Vec<f32> {
    let chance = Keys::new(seed, "noise");
    (0..n * n_states).map(|i| chance.uniform(i as u64) as f32).collect()
}

/// Centroids along the diagonal, from 0 to `to`.
fn row_of_centroids(k: usize, n_states: usize, to: f32) -> Vec<f32> {
    (0..k).flat_map(|i| std::iter::repeat_n(to * i as f32 / k as f32, n_states)).collect()
}

/// Centroids that start in a corner spread like a wave: most rows rest for longer than leads are remembered, and then
/// change after all.
#[test]
fn waves_reach_cells_that_were_at_rest() {
    for (n_states, seed) in [(1, 1), (1, 2), (2, 3), (3, 4)] {
        let case = Case::raw(noise(1500, n_states, seed), n_states, row_of_centroids(24, n_states, 0.05));
        let record = case.check_all(150);
        assert!(record.steps.len() > 2 * HISTORY, "{n_states}: {}", record.steps.len());
        assert!(record.steps[HISTORY + 5..].iter().any(|step| step.moved > 0));
        let late = &record.evaluated[HISTORY + 5..];
        assert!(late.iter().sum::<f64>() < 0.5 * late.len() as f64, "{n_states}: most rows are at rest");
    }
}

/// Groups whose rows and centroids are at the grain of float32, far from the origin: roundings decide which is nearest.
#[test]
fn roundings_decide_the_same_way() {
    for (offset, step) in [(1e3_f32, 1e-4_f32), (1e4, 1e-2), (300.0, 1e-3), (30.0, 1e-5)] {
        for n_states in [1, 2, 5, 17] {
            let u = noise(700, n_states, 7);
            let value = |(i, u): (usize, &f32)| offset + step * ((i / n_states % 6) as f32 + 9.0 * u);
            let values: Vec<f32> = u.iter().enumerate().map(value).collect();
            let start = values[..20 * n_states].to_vec();
            let record = Case::raw(values, n_states, start).check_all(30);
            assert!(record.steps.len() > 3, "{offset} {n_states}");
        }
    }
}

/// An example that is re-seeded gets its label from outside the cells.
#[test]
fn clusters_that_run_empty_late_are_filled_the_same_way() {
    let mut n_late = 0;
    for seed in 0..60 {
        let n_states = 1 + seed as usize % 3;
        let chance = Keys::new(seed, "tails");
        // Far outliers, a few of which are one cluster each until their centroids are drawn away.
        let values: Vec<f32> = noise(300, n_states, seed)
            .iter()
            .enumerate()
            .map(|(i, u)| {
                let row = (i / n_states) as u64;
                (u * 4.0).floor()
                    + if chance.uniform(row) < 0.05 { 50.0 * chance.uniform(row + 1000) as f32 } else { 0.0 }
            })
            .collect();
        let record = Case::raw(values, n_states, row_of_centroids(30, n_states, 9.0)).check_all(40);
        n_late += record.steps.iter().skip(4).map(|step| step.reseeded).sum::<usize>();
    }
    assert!(n_late > 20, "{n_late} clusters were filled after rows were sorted");
}

/// As many clusters as rows, or more; one row; cells of one row each.
#[test]
fn as_many_clusters_as_rows() {
    for (n, k) in [(1, 1), (1, 5), (2, 2), (15, 15), (16, 16), (17, 17), (40, 39), (100, 100), (100, 130)] {
        for n_states in [1, 4] {
            let case = Case::raw(noise(n, n_states, 5), n_states, row_of_centroids(k, n_states, 1.0));
            case.check_all(12);
        }
    }
}

/// Numbers from 0 to 1, one after the other.
struct Dice(Keys, u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.1 += 1;
        self.0.uniform(self.1)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() * n as f64) as usize).min(n - 1)
    }
}

/// Moves some centroids, none of which goes beyond `most`: a little, back to where they were once, or onto a row.
fn move_some(centroids: &mut [f32], home: &[f32], case: &Case, dice: &mut Dice) {
    let (n_states, most) = (case.n_states, case.most);
    let k = centroids.len() / n_states;
    let n_movers = [0, 1, 1, 2, k / 2, k][dice.below(6)];
    for _ in 0..n_movers {
        let mover = dice.below(k);
        let at = mover * n_states..(mover + 1) * n_states;
        match dice.below(8) {
            0 => centroids[at.clone()].copy_from_slice(&home[at]),
            1 => {
                let row = dice.below(case.valid.len());
                centroids[at].copy_from_slice(&case.values[row * n_states..][..n_states]);
            }
            _ => {
                let step = f64::from(most) * libm::pow(10.0, -4.0 * dice.next());
                for c in &mut centroids[at] {
                    *c = ((f64::from(*c) + step * (dice.next() - 0.5)) as f32).clamp(-most, most);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    /// Bounds speak of any way that centroids may go, not only of Lloyd's, which mostly go straight on; and labels may be
    /// changed from outside at any time.
    #[test]
    fn bounds_hold_however_centroids_move(
        kind in 0_usize..KINDS.len(), n in 1_usize..700, n_states in 1_usize..5, k in 1_usize..40, seed: u64,
        backend in 0_usize..4, n_threads in 1_usize..4,
    ) {
        let mut dice = Dice(Keys::new(seed, "moves"), 0);
        let values = (0..n * n_states).map(|i| KINDS[kind].1(dice.next(), i / n_states, i % n_states)).collect();
        let mut case = Case::raw(values, n_states, Vec::new());
        let mut centroids: Vec<f32> = (0..k)
            .flat_map(|_| {
                let row = dice.below(n);
                case.values[row * n_states..][..n_states].to_vec()
            })
            .collect();
        case.start = centroids.clone();
        let available = Backend::available();
        let kernel = Kernel::of(available[backend % available.len()]).unwrap();
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        let mut run = Run { kernel, team: Team::new(n_threads).unwrap(), watch: Watch::new(&mut go_on) };
        let (data, rows, grid) = (case.data(), case.rows(), Grid::new(case.most, n, n_states));
        let ties = (Ids::RowNumbers(n), Keys::new(3, TIE));
        let (mut sums, mut labels) = (Sums::new(k, n_states), vec![-1; n]);
        let packed = kernel.pack(&centroids, n_states);
        let (mut pruned, _) =
            Pruned::start((&data, grid), ties, &packed, &mut sums, &mut labels, &mut run).unwrap();
        let mut block = Block::default();
        data.load(&rows, &mut block);
        let (mut numbers, mut scores) =
            (vec![[0.0; LANES]; block.n_tiles()], vec![[0.0; LANES]; block.n_tiles()]);
        let reference = Kernel::of(available[0]).unwrap();
        let relabel_share = 0.3 * dice.next();
        for time in 0..80 {
            let before = centroids.clone();
            pruned.write(&mut labels);
            let mut taker = None;
            if dice.next() < relabel_share {
                let (row, to) = (dice.below(n), dice.below(k));
                sums.relabel(grid, block.trajectory(row), labels[row] as usize, to);
                labels[row] = to as i32;
                pruned.read(&labels);
                taker = (dice.next() < 0.5).then_some((row, to));
            }
            move_some(&mut centroids, &case.start, &case, &mut dice);
            if let Some((row, to)) = taker {
                centroids[to * n_states..][..n_states].copy_from_slice(&case.values[row * n_states..][..n_states]);
            }
            pruned.follow(&before, &centroids, n_states);
            let packed = kernel.pack(&centroids, n_states);
            let (moved, _) = pruned.assign(grid, &packed, &mut sums, &mut run).unwrap();
            let mut found = vec![-1; n];
            pruned.write(&mut found);
            reference.nearest(block.tiles(), &reference.pack(&centroids, n_states), &mut numbers, &mut scores);
            let expected: Vec<i32> = numbers.as_flattened()[..n].iter().map(|number| *number as i32).collect();
            prop_assert_eq!(&found, &expected, "{} at {}", KINDS[kind].0, time);
            prop_assert_eq!(moved, found.iter().zip(&labels).filter(|(now, then)| now != then).count());
            let mut anew = Sums::new(k, n_states);
            for (row, &label) in found.iter().enumerate() {
                anew.join(grid, block.trajectory(row), label as usize);
                anew.square_one(grid, block.trajectory(row));
            }
            prop_assert_eq!(&sums, &anew);
        }
    }
}
