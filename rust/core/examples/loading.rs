//! Loading tiles, by layout and number type: first that all hold the same values, then the time per value.
//!
//! `cargo run --release -p lossift-core --example loading -- [VALUES BLOCK_ROWS]`: in all VALUES (65,536: in cache;
//! 32,000,000: in memory), read in blocks of so many rows. One thread. "list" gives row numbers instead of a range,
//! "1 % invalid" and "10 % invalid" the numbers of the valid rows, "every 2nd state" reads half of a row.

use half::{bf16, f16};
use lossift_core::columns::{Columns, Element, LANES, Layout, Strided};
use lossift_core::shape::{Block, Shape, Trajectories};
use std::hint::black_box;
use std::time::Instant;

/// Seconds of the fastest of some passes.
fn time(n_values: usize, mut pass: impl FnMut()) -> f64 {
    let passes = (1 << 19) / n_values + 1;
    let n_tries = if n_values < 1 << 20 { 200 } else { 15 };
    let fastest = (0..n_tries).map(|_| {
        let start = Instant::now();
        (0..passes).for_each(|_| pass());
        start.elapsed().as_secs_f64() / passes as f64
    });
    fastest.fold(f64::INFINITY, f64::min)
}

/// Values that all four types hold exactly.
fn value(row: usize, state: usize) -> f32 {
    (row * 7 % 128 + state) as f32 / 16.0
}

fn raw(columns: Columns) -> Trajectories {
    Trajectories::new(columns, Shape::Raw).expect("a shape")
}

struct Bench {
    n: usize,
    t: usize,
    block_rows: usize,
}

impl Bench {
    fn tell(&self, what: &str, seconds: f64, (n_rows, t): (usize, usize), bytes: usize) {
        let ns = seconds * 1e9 / (n_rows * t) as f64;
        println!("| {what} | {} | {ns:.3} | {:.1} |", self.t, bytes as f64 / ns);
    }

    fn check(&self, data: &Trajectories, states: &[usize]) {
        let mut block = Block::default();
        for rows in [0..self.n.min(100), self.n - 50..self.n] {
            data.load_range(rows.clone(), &mut block);
            for (i, row) in rows.enumerate() {
                assert!(block.trajectory(i).eq(states.iter().map(|&state| value(row, state))));
            }
        }
    }

    fn ranges(&self, what: &str, data: &Trajectories, bytes: usize) {
        let mut block = Block::default();
        let seconds = time(self.n * self.t, || {
            for first in (0..self.n).step_by(self.block_rows) {
                data.load_range(first..self.n.min(first + self.block_rows), &mut block);
                black_box(block.tiles());
            }
        });
        self.tell(what, seconds, (self.n, data.columns().n_states()), bytes);
    }

    fn lists(&self, what: &str, data: &Trajectories, bytes: usize) {
        let mut block = Block::default();
        for (which, every) in [("list", usize::MAX), ("1 % invalid", 100), ("10 % invalid", 10)] {
            let rows: Vec<usize> = (0..self.n).filter(|row| row % every != every - 1).collect();
            let seconds = time(self.n * self.t, || {
                for rows in rows.chunks(self.block_rows) {
                    data.load(rows, &mut block);
                    black_box(block.tiles());
                }
            });
            self.tell(&format!("{what}, {which}"), seconds, (rows.len(), self.t), bytes);
        }
    }

    fn all<E: Element>(&self, name: &str, make: impl Fn(f32) -> E) {
        let &Self { n, t, .. } = self;
        let states: Vec<usize> = (0..t).collect();
        {
            let columns: Vec<Vec<E>> =
                states.iter().map(|&s| (0..n).map(|row| make(value(row, s))).collect()).collect();
            let layout = Layout::Columns(columns.iter().map(Vec::as_slice).collect());
            let data = raw(Columns::all_valid(layout).expect("columns"));
            self.check(&data, &states);
            self.ranges(&format!("{name} columns"), &data, size_of::<E>());
            self.lists(&format!("{name} columns"), &data, size_of::<E>());
        }
        let rows: Vec<E> = (0..n)
            .flat_map(|row| (0..t).map(move |s| (row, s)))
            .map(|(row, s)| make(value(row, s)))
            .collect();
        let data = raw(Columns::all_valid(Layout::Rows { values: &rows, n_states: t }).expect("rows"));
        self.check(&data, &states);
        self.ranges(&format!("{name} rows"), &data, size_of::<E>());
        self.lists(&format!("{name} rows"), &data, size_of::<E>());
        let some: Vec<usize> = states.into_iter().step_by(2).collect();
        let strided = some.iter().map(|&s| Strided { values: &rows[s..], stride: t }).collect();
        let data =
            raw(Columns::all_valid(Layout::Strided { states: strided, n_examples: n }).expect("strided"));
        self.check(&data, &some);
        self.ranges(&format!("{name} rows, every 2nd state"), &data, size_of::<E>());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: usize| arguments.get(i).map_or(default, |a| a.parse().expect("a number"));
    println!("| layout | T | ns per value | GB/s |\n|---|---:|---:|---:|");
    for t in [8, 16, 32] {
        let n = number(0, 1 << 16) / t / LANES * LANES;
        let bench = Bench { n, t, block_rows: number(1, 512) };
        bench.all("float32", |x| x);
        bench.all("float64", f64::from);
        bench.all("float16", f16::from_f32);
        bench.all("bfloat16", bf16::from_f32);
    }
}
