//! Passes over the data: every valid example once, in blocks, by all threads, in batches between which the caller is
//! asked whether to go on.
//!
//! A *part* is what a worker takes at a time (up to 4,096 rows); a *batch* is as many parts as make some tens of
//! milliseconds. Only valid rows are loaded, so invalid ones cost a look at the mask.

use crate::columns::LANES;
use crate::error::Result;
use crate::interrupt::Watch;
use crate::kernels::{Centroids, Kernel};
use crate::parallel::{Team, Workers};
use crate::shape::{BLOCK_ROWS, Block, Trajectories};
use std::ops::Range;

/// Rows of a part, at most.
const PART_ROWS: usize = if cfg!(test) { 1024 } else { 4096 };

/// Multiply-adds between two looks at the watch: 5 ms of one AVX-512 core, half a second of software multiply-adds.
/// (Tests, being small, take small bites, so as to see several.)
const BATCH_WORK: usize = if cfg!(test) { 1 << 18 } else { 1 << 28 };

/// Tiles that the kernel gets at a time.
const SOME_TILES: usize = 4;

/// What every pass needs besides the data.
pub struct Run<'a> {
    /// The kernels.
    pub kernel: Kernel,
    /// The threads.
    pub team: Team,
    /// The caller.
    pub watch: Watch<'a>,
}

/// A worker's memory: its part of the result, and room for a block and what the kernel says about it.
struct Scratch<S> {
    state: S,
    rows: Vec<usize>,
    block: Block,
    numbers: Vec<[f32; LANES]>,
    scores: Vec<[f32; LANES]>,
}

/// A block of examples, as a visitor sees it.
pub struct Seen<'s> {
    /// Row numbers, ascending.
    pub rows: &'s [usize],
    /// Their trajectories.
    pub block: &'s Block,
    /// `[tile][lane]`: the numbers of their nearest centroids; lanes beyond the rows repeat the last one.
    pub numbers: &'s [[f32; LANES]],
    /// `[tile][lane]`: their scores.
    pub scores: &'s [[f32; LANES]],
}

impl Seen<'_> {
    /// Gives every example its nearest centroid as its label (`labels[row - first]`) and tells of each that had another
    /// one: (index in the block, label before, label now).
    pub fn relabel(&self, first: usize, labels: &mut [i32], mut changed: impl FnMut(usize, i32, usize)) {
        let rows = self.rows;
        let neighbours = rows.last().is_some_and(|last| last - rows[0] == rows.len() - 1);
        for (tile, numbers) in self.numbers.iter().enumerate() {
            let rows = &rows[tile * LANES..rows.len().min((tile + 1) * LANES)];
            let found = numbers.map(|number| number as i32);
            // Without a call to compare memory.
            let same = |(label, found): (&i32, &i32)| label ^ found;
            if neighbours
                && labels[rows[0] - first..].iter().zip(&found[..rows.len()]).map(same).fold(0, |a, b| a | b)
                    == 0
            {
                continue;
            }
            for (lane, (&row, &now)) in rows.iter().zip(&found).enumerate() {
                let label = &mut labels[row - first];
                if *label != now {
                    changed(tile * LANES + lane, *label, now as usize);
                    *label = now;
                }
            }
        }
    }
}

impl Run<'_> {
    /// Shows every valid example to `visit`, in blocks, and returns the workers' states.
    ///
    /// With `centroids`, blocks come with their nearest ones. `labels` (one per row) is cut along with the
    /// rows: `visit` gets its worker's state, the rows' range, their labels, and a block from that range.
    ///
    /// # Errors
    /// An interrupt.
    pub fn sweep<S: Send>(
        &mut self,
        data: &Trajectories,
        centroids: Option<&Centroids>,
        labels: &mut [i32],
        make: impl Fn() -> S,
        visit: impl Fn(&mut S, &Range<usize>, &mut [i32], &Seen) + Sync,
    ) -> Result<Vec<S>> {
        let work_per_row = data.n_dims() * centroids.map_or(1, Centroids::n_centroids);
        self.sweep_at(work_per_row, data, centroids, labels, make, visit)
    }

    /// As [`sweep`](Self::sweep), for a visitor who does so many multiply-adds per row himself.
    ///
    /// # Errors
    /// An interrupt.
    pub fn sweep_at<S: Send>(
        &mut self,
        work_per_row: usize,
        data: &Trajectories,
        centroids: Option<&Centroids>,
        labels: &mut [i32],
        make: impl Fn() -> S,
        visit: impl Fn(&mut S, &Range<usize>, &mut [i32], &Seen) + Sync,
    ) -> Result<Vec<S>> {
        let part_rows = (BATCH_WORK / work_per_row).clamp(BLOCK_ROWS, PART_ROWS);
        let parts_per_batch = (BATCH_WORK / (work_per_row * part_rows)).max(2 * self.team.n_threads());
        let batch_rows = part_rows * parts_per_batch;
        let kernel = self.kernel;
        let mut workers: Workers<Scratch<S>> = self.team.workers(|| Scratch {
            state: make(),
            rows: Vec::with_capacity(BLOCK_ROWS),
            block: Block::default(),
            numbers: Vec::new(),
            scores: Vec::new(),
        });
        for (batch, labels) in labels.chunks_mut(batch_rows).enumerate() {
            let n_rows = labels.len();
            let first = batch * batch_rows;
            let parts: Vec<(Range<usize>, &mut [i32])> = labels
                .chunks_mut(part_rows)
                .enumerate()
                .map(|(i, labels)| {
                    let first = first + i * part_rows;
                    (first..first + labels.len(), labels)
                })
                .collect();
            self.team.each(&mut workers, parts, |scratch, (range, labels)| {
                let Scratch { state, rows, block, numbers, scores } = scratch;
                let columns = data.columns();
                for from in range.clone().step_by(BLOCK_ROWS) {
                    let to = range.end.min(from + BLOCK_ROWS);
                    rows.clear();
                    if columns.are_valid(from..to) {
                        rows.extend(from..to);
                    } else {
                        rows.extend(columns.valid_rows(from..to));
                    }
                    if rows.is_empty() {
                        continue;
                    }
                    data.load(rows, block);
                    numbers.resize(block.n_tiles(), [0.0; LANES]);
                    scores.resize(block.n_tiles(), [0.0; LANES]);
                    if let Some(centroids) = centroids {
                        // A few tiles at a time: meanwhile the memory answers for as many of the next block. (Asked for
                        // all of it at once, the CPU forgets most of the questions.)
                        let some = block.tiles().chunks(SOME_TILES * data.n_dims() * LANES);
                        let found = numbers.chunks_mut(SOME_TILES).zip(scores.chunks_mut(SOME_TILES));
                        for (i, (tiles, (numbers, scores))) in some.zip(found).enumerate() {
                            let next = (to + i * SOME_TILES * LANES).min(columns.n_examples());
                            columns.prefetch(
                                next..(next + SOME_TILES * LANES).min(columns.n_examples()),
                                kernel,
                            );
                            kernel.nearest(tiles, centroids, numbers, scores);
                        }
                    }
                    visit(state, &range, labels, &Seen { rows, block, numbers, scores });
                }
            });
            self.watch.advance(n_rows)?;
        }
        Ok(workers.into_states().map(|scratch| scratch.state).collect())
    }
}
