//! From memory to tiles: sixteen examples' losses, `[state][lane]` in float32, wherever and in whatever type they lie.
//!
//! States that lie side by side (`values[row * stride + state]`) are a *run*; a column is a run of one, with stride 1.
//! Each run is loaded in the way that its memory likes:
//!
//! | run | a tile of neighbours costs |
//! |---|---|
//! | a column | sixteen values converted where they lie, no transpose; state after state over all tiles asked for, so that memory is read in long stretches |
//! | several states | rows of them, transposed four by four in registers; types other than float32 are converted row by row first |
//! | one state with a stride | sixteen reads |
//!
//! Rows that are no neighbours are copied stretch by stretch where there are few stretches (blocks with some invalid
//! examples), else value by value (the sample that seeds). Nanoseconds per value on one core of a Zen 5, compiled for any
//! x86-64, 16 states, blocks of 512 rows, data in the second-level cache (`examples/loading.rs`; from memory a float32
//! takes 0.3 to 0.5, which is the memory's time):
//!
//! | | float32 | float64 | float16 | bfloat16 |
//! |---|---:|---:|---:|---:|
//! | columns | 0.06 | 0.10 | 0.17 | 0.07 |
//! | columns, 1 % of the rows left out | 0.23 | 0.27 | 0.41 | 0.24 |
//! | columns, 10 % left out | 0.39 | 0.47 | 0.77 | 0.42 |
//! | rows | 0.13 | 0.19 | 0.28 | 0.17 |
//! | rows, every second state | 0.44 | 0.46 | 0.99 | 0.45 |

use crate::columns::LANES;
use crate::element::Element;
use crate::kernels::Kernel;
use half::{bf16, f16};
use std::ops::Range;
use wide::f32x4;

/// States transposed at a time: their rows fill 4 KB.
const CHUNK: usize = 64;

/// Stretches of neighbours in a tile up to which it is worth copying them one by one.
const MOST_STRETCHES: usize = 6;

/// Tiles that columns are loaded into together.
const SOME_TILES: usize = 8;

/// Every `stride`-th value of a slice, from its first on: one state's losses, wherever they lie.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a, E> {
    /// The values, and whatever lies between them.
    pub values: &'a [E],
    /// How many values further the next example's is.
    pub stride: usize,
}

/// States of N examples, in one number type.
#[derive(Debug, Clone)]
pub struct States<'a, E> {
    runs: Vec<Run<'a, E>>,
    rows: Vec<Rows<'a, E>>,
    /// T.
    height: usize,
}

/// Runs that share their rows' memory: what of it is asked for before it is read.
#[derive(Debug, Clone)]
struct Rows<'a, E> {
    values: &'a [E],
    stride: usize,
    /// Values from a row's first state that is read to its last one.
    width: usize,
}

/// States that lie side by side.
#[derive(Debug, Clone)]
struct Run<'a, E> {
    /// Number of the first state.
    first: usize,
    stride: usize,
    /// For each state its losses.
    states: Vec<&'a [E]>,
    /// How many rows the first state's slice holds with all their states.
    n_whole: usize,
}

/// States of one of the known number types.
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// float32.
    F32(States<'a, f32>),
    /// float64, rounded to float32 as it is loaded.
    F64(States<'a, f64>),
    /// float16.
    F16(States<'a, f16>),
    /// bfloat16.
    Bf16(States<'a, bf16>),
}

impl Values<'_> {
    /// Fills tiles (`[tile][state][lane]`) with a range of rows minus a value per state; lanes beyond the last row
    /// repeat it.
    pub(crate) fn load_range(&self, rows: Range<usize>, minus: &[f32], tiles: &mut [f32]) {
        match self {
            Self::F32(states) => states.load_range(rows, minus, tiles),
            Self::F64(states) => states.load_range(rows, minus, tiles),
            Self::F16(states) => states.load_range(rows, minus, tiles),
            Self::Bf16(states) => states.load_range(rows, minus, tiles),
        }
    }

    /// Asks for the values of a range of rows, which will be loaded soon.
    pub(crate) fn prefetch(&self, rows: Range<usize>, kernel: Kernel) {
        match self {
            Self::F32(states) => states.prefetch(rows, kernel),
            Self::F64(states) => states.prefetch(rows, kernel),
            Self::F16(states) => states.prefetch(rows, kernel),
            Self::Bf16(states) => states.prefetch(rows, kernel),
        }
    }

    /// Fills a tile (`[state][lane]`) with one to sixteen rows minus a value per state; lanes beyond the last row
    /// repeat it.
    pub(crate) fn load_rows(&self, rows: &[usize], minus: &[f32], tile: &mut [f32]) {
        match self {
            Self::F32(states) => states.load_rows(rows, minus, tile),
            Self::F64(states) => states.load_rows(rows, minus, tile),
            Self::F16(states) => states.load_rows(rows, minus, tile),
            Self::Bf16(states) => states.load_rows(rows, minus, tile),
        }
    }
}

impl<'a, E: Element> States<'a, E> {
    /// Joins the states that lie side by side. Each has a value for every example.
    pub(crate) fn new(states: &[Strided<'a, E>]) -> Self {
        let beside = |a: &Strided<E>, b: &Strided<E>| {
            a.stride > 1 && a.stride == b.stride && a.values.as_ptr().wrapping_add(1) == b.values.as_ptr()
        };
        let (mut runs, mut first) = (Vec::new(), 0);
        for run in states.chunk_by(beside) {
            let (width, stride, len) = (run.len(), run[0].stride, run[0].values.len());
            let n_whole = if len < width { 0 } else { (len - width) / stride + 1 };
            runs.push(Run { first, stride, states: run.iter().map(|state| state.values).collect(), n_whole });
            first += width;
        }
        let mut rows: Vec<Rows<E>> = Vec::new();
        for run in &runs {
            let (values, stride, width) = (run.states[0], run.stride, run.states.len());
            if let Some(last) = rows.last_mut().filter(|last| last.stride == stride && stride > 1) {
                let ahead = values.as_ptr().addr().wrapping_sub(last.values.as_ptr().addr()) / size_of::<E>();
                if ahead < stride {
                    last.width = last.width.max(ahead + width);
                    continue;
                }
            }
            rows.push(Rows { values, stride, width });
        }
        Self { runs, rows, height: first }
    }

    fn load_range(&self, rows: Range<usize>, minus: &[f32], tiles: &mut [f32]) {
        let size = self.height * LANES;
        assert!(tiles.len() == rows.len().div_ceil(LANES) * size && minus.len() == self.height);
        // A few tiles at a time: those of a whole block lie so far apart that they'd drive each other out of the cache.
        for (some, first) in tiles.chunks_mut(SOME_TILES * size).zip(rows.clone().step_by(SOME_TILES * LANES))
        {
            let rows = first..rows.end.min(first + SOME_TILES * LANES);
            for run in self.runs.iter().filter(|run| run.stride == 1) {
                let (at, minus) = (run.first * LANES, minus[run.first]);
                let (full, rest) = run.states[0][rows.clone()].as_chunks::<LANES>();
                let mut tiles = some.chunks_exact_mut(size);
                for (values, tile) in full.iter().zip(&mut tiles) {
                    E::convert(values, minus, &mut tile[at..at + LANES]);
                }
                if let (Some(tile), Some(last)) = (tiles.next(), rest.last()) {
                    let (found, others) = tile[at..at + LANES].split_at_mut(rest.len());
                    E::convert(rest, minus, found);
                    others.fill(last.to_f32() - minus);
                }
            }
        }
        if self.runs.iter().all(|run| run.stride == 1) {
            return;
        }
        // Tile by tile, so that several runs find the rows in the first-level cache.
        let mut room = [0.0; CHUNK * LANES];
        for (tile, start) in tiles.chunks_exact_mut(size).zip(rows.clone().step_by(LANES)) {
            let last = rows.end.min(start + LANES) - 1;
            let neighbours = last - start == LANES - 1;
            for run in self.runs.iter().filter(|run| run.stride > 1) {
                let picked = Picked { last, neighbours, row: |lane| last.min(start + lane) };
                run.load(&picked, minus, &mut room, tile);
            }
        }
    }

    fn prefetch(&self, rows: Range<usize>, kernel: Kernel) {
        for &Rows { values, stride, width } in &self.rows {
            let cut = |at: usize| at.min(values.len());
            if 2 * width >= stride {
                kernel.prefetch(&values[cut(rows.start * stride)..cut(rows.end * stride)]);
            } else {
                for row in rows.clone() {
                    kernel.prefetch(&values[cut(row * stride)..cut(row * stride + width)]);
                }
            }
        }
    }

    fn load_rows(&self, rows: &[usize], minus: &[f32], tile: &mut [f32]) {
        assert!((1..=LANES).contains(&rows.len()));
        assert!(tile.len() == self.height * LANES && minus.len() == self.height);
        let mut stretches = [(0, 0); MOST_STRETCHES];
        let stretches = stretches_of(rows, &mut stretches);
        let neighbours = stretches.len() == 1;
        let last = rows.iter().fold(0, |last, &row| row.max(last));
        let picked = Picked { last, neighbours, row: |lane: usize| rows[lane.min(rows.len() - 1)] };
        for run in self.runs.iter().filter(|run| run.stride == 1) {
            let (values, at) = (run.states[0], run.first * LANES);
            // Sixteen neighbours from each stretch's first one on. What that writes beyond the stretch is overwritten: by
            // the next stretch, or by the next state.
            let fits = last + LANES <= values.len() && at + 2 * LANES <= tile.len();
            if neighbours || fits && !stretches.is_empty() {
                for &(lane, row) in stretches {
                    let lanes = &mut tile[at + lane..at + lane + LANES];
                    E::convert(&values[row..row + LANES], minus[run.first], lanes);
                }
            } else {
                run.gather(&picked, minus, tile);
            }
        }
        if self.runs.iter().all(|run| run.stride == 1) {
            return;
        }
        let mut room = [0.0; CHUNK * LANES];
        for run in self.runs.iter().filter(|run| run.stride > 1) {
            run.load(&picked, minus, &mut room, tile);
        }
    }
}

/// The rows for a tile.
struct Picked<F> {
    /// The largest of them.
    last: usize,
    /// Whether there are sixteen and each is the one after that before it.
    neighbours: bool,
    /// The row of each lane.
    row: F,
}

impl<E: Element> Run<'_, E> {
    /// The run's part of a tile, or of what is subtracted: `size` values per state.
    fn part(&self, size: usize) -> Range<usize> {
        self.first * size..(self.first + self.states.len()) * size
    }

    /// Fills the run's part of a tile value by value.
    #[inline]
    fn gather(&self, picked: &Picked<impl Fn(usize) -> usize>, minus: &[f32], tile: &mut [f32]) {
        let places = std::array::from_fn(|lane| (picked.row)(lane) * self.stride);
        let lanes = tile[self.part(LANES)].as_chunks_mut().0.iter_mut();
        for ((values, minus), lanes) in self.states.iter().zip(&minus[self.part(1)]).zip(lanes) {
            E::gather(values, &places, *minus, lanes);
        }
    }

    /// Fills the run's part of a tile; `room` is scratch memory.
    #[inline]
    fn load(
        &self,
        picked: &Picked<impl Fn(usize) -> usize>,
        minus: &[f32],
        room: &mut [f32; CHUNK * LANES],
        tile: &mut [f32],
    ) {
        if self.states.len() == 1 || picked.last >= self.n_whole {
            return self.gather(picked, minus, tile);
        }
        let chunks = minus[self.part(1)].chunks(CHUNK).zip(tile[self.part(LANES)].chunks_mut(CHUNK * LANES));
        for (first, (minus, tile)) in (0..).step_by(CHUNK).zip(chunks) {
            let width = minus.len();
            let row = |lane| &self.states[0][(picked.row)(lane) * self.stride + first..];
            if picked.neighbours
                && let Some(rows) = E::as_f32(row(0))
            {
                transpose(rows, self.stride, minus, tile);
                continue;
            }
            let room = &mut room[..width * LANES];
            if picked.neighbours && self.stride == width {
                E::convert(&row(0)[..room.len()], 0.0, room);
            } else {
                for (lane, values) in room.chunks_exact_mut(width).enumerate() {
                    E::convert(&row(lane)[..width], 0.0, values);
                }
            }
            transpose(room, width, minus, tile);
        }
    }
}

/// Turns sixteen rows, of which each begins `stride` after the one before it, into sixteen lanes per state, minus a
/// value per state.
///
/// Four by four in registers, through the crate `wide`: of the same written with arrays compilers make one load and
/// one store per value, which takes three times as long.
#[inline(never)]
fn transpose(rows: &[f32], stride: usize, minus: &[f32], tile: &mut [f32]) {
    let width = minus.len();
    let (quads, others) = tile.as_chunks_mut::<LANES>().0.as_chunks_mut::<4>();
    let (minus, other_minus) = minus.as_chunks::<4>();
    // Of one known length, so that no comparison guards each of them.
    let n = quads.len().min(minus.len());
    for lane in (0..LANES).step_by(4) {
        let rows: [&[f32]; 4] = std::array::from_fn(|i| &rows[(lane + i) * stride..][..width]);
        let [a, b, c, d] = rows.map(|row| &row.as_chunks::<4>().0[..n]);
        for (i, (lanes, minus)) in quads[..n].iter_mut().zip(&minus[..n]).enumerate() {
            let rows = [a[i], b[i], c[i], d[i]].map(|values| f32x4::new(values) - f32x4::new(*minus));
            for (lanes, column) in lanes.iter_mut().zip(f32x4::transpose(rows)) {
                lanes[lane..lane + 4].copy_from_slice(&column.to_array());
            }
        }
        for (i, row) in rows.into_iter().enumerate() {
            let values = row.as_chunks::<4>().1;
            for ((lanes, value), minus) in others.iter_mut().zip(values).zip(other_minus) {
                lanes[lane + i] = value - minus;
            }
        }
    }
}

/// Where neighbours begin in a full tile, (lane, row); nothing if that is too often, or the tile isn't full.
fn stretches_of<'s>(rows: &[usize], room: &'s mut [(usize, usize); MOST_STRETCHES]) -> &'s [(usize, usize)] {
    if rows.len() < LANES {
        return &[];
    }
    room[0] = (0, rows[0]);
    let mut n = 1;
    for (i, pair) in rows.windows(2).enumerate().filter(|(_, pair)| pair[1] != pair[0] + 1) {
        let Some(stretch) = room.get_mut(n) else { return &[] };
        *stretch = (i + 1, pair[1]);
        n += 1;
    }
    &room[..n]
}

/// The range that the row numbers are, if each is the one after that before it.
pub(crate) fn consecutive(rows: &[usize]) -> Option<Range<usize>> {
    let (&first, rest) = rows.split_first()?;
    let neighbours = rest.iter().zip(first + 1..).all(|(&row, expected)| row == expected);
    neighbours.then(|| first..first + rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Columns, Layout};
    use proptest::prelude::*;

    /// How the same values may lie in memory.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Lie {
        /// T vectors.
        Columns,
        /// One row-major vector.
        Rows,
        /// Some columns of a wider row-major vector, every other row of it, in slices that all reach its end.
        View,
        /// The same, in slices that end with the last example, as views of single columns do.
        Views,
        /// Every third value of T vectors.
        Sparse,
    }

    const LIES: [Lie; 5] = [Lie::Columns, Lie::Rows, Lie::View, Lie::Views, Lie::Sparse];

    /// Calls `test` with columns that hold `value(row, state)` in this way.
    fn lay<E: Element>(
        lie: Lie,
        (n, t): (usize, usize),
        value: impl Fn(usize, usize) -> E,
        test: impl Fn(&Columns),
    ) {
        let fill = |n: usize, t: usize, value: &dyn Fn(usize, usize) -> E| -> Vec<E> {
            (0..n * t).map(|at| value(at / t, at % t)).collect()
        };
        match lie {
            Lie::Columns => {
                let columns = fill(t, n, &|state, row| value(row, state));
                let slices = columns.chunks(n).collect();
                test(&Columns::all_valid(Layout::Columns(slices)).unwrap());
            }
            Lie::Rows => {
                let rows = fill(n, t, &value);
                test(&Columns::all_valid(Layout::Rows { values: &rows, n_states: t }).unwrap());
            }
            Lie::View | Lie::Views => {
                // The states stand at places 2 to 2 + T, but for a gap after the third one.
                let (width, gap) = (t + 5, 5);
                let place = |state: usize| state + 2 + usize::from(state >= gap - 2);
                let wide = fill(2 * n, width, &|row, at| {
                    let state = (0..t).find(|&state| place(state) == at);
                    state.filter(|_| row % 2 == 1).map_or(value(0, 0), |state| value(row / 2, state))
                });
                let states = (0..t).map(|state| {
                    let first = width + place(state);
                    let end = if lie == Lie::View { wide.len() } else { first + (n - 1) * 2 * width + 1 };
                    Strided { values: &wide[first..end], stride: 2 * width }
                });
                let layout = Layout::Strided { states: states.collect(), n_examples: n };
                test(&Columns::all_valid(layout).unwrap());
            }
            Lie::Sparse => {
                let sparse = fill(t, 3 * n, &|state, at| value(at / 3, state));
                let states = sparse.chunks(3 * n).map(|values| Strided { values, stride: 3 });
                let layout = Layout::Strided { states: states.collect(), n_examples: n };
                test(&Columns::all_valid(layout).unwrap());
            }
        }
    }

    /// A number to subtract from a state.
    fn minus(state: usize) -> f32 {
        if state.is_multiple_of(3) { 0.0 } else { 1.5 * state as f32 }
    }

    /// Tiles lane by lane, state by state: what they should hold; the last row beyond it.
    fn check<E: Element>(
        columns: &Columns,
        rows: &[usize],
        value: impl Fn(usize, usize) -> E,
        tiles: &[f32],
    ) {
        let t = columns.n_states();
        for (at, &found) in tiles.iter().enumerate() {
            let (tile, state, lane) = (at / (t * LANES), at / LANES % t, at % LANES);
            let row = rows[(tile * LANES + lane).min(rows.len() - 1)];
            let expected = value(row, state).to_f32() - minus(state);
            let equal = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(equal, "row {row}, state {state}: {found}, not {expected}");
        }
    }

    fn every_lie<E: Element>(
        (n, t): (usize, usize),
        range: &Range<usize>,
        rows: &[usize],
        value: impl Fn(usize, usize) -> E + Copy,
    ) {
        let minus: Vec<f32> = (0..t).map(minus).collect();
        for lie in LIES {
            lay(lie, (n, t), value, |columns| {
                let mut tiles = vec![f32::NAN; range.len().div_ceil(LANES) * t * LANES];
                columns.load_range(range.clone(), &minus, &mut tiles);
                check(columns, &range.clone().collect::<Vec<_>>(), value, &tiles);
                for rows in rows.chunks(LANES) {
                    let mut tile = vec![f32::NAN; t * LANES];
                    columns.load_tile(rows, &minus, &mut tile);
                    check(columns, rows, value, &tile);
                }
            });
        }
    }

    proptest! {
        #[test]
        fn every_layout_and_type_holds_the_values(
            n in 1_usize..90,
            t in prop_oneof![1_usize..10, 60_usize..70, Just(2 * CHUNK)],
            (from, to) in (0_usize..90, 0_usize..90),
            holes in prop::collection::vec(any::<u8>(), 90),
            shuffled in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let range = from.min(to).min(n)..from.max(to).min(n);
            // Rows without some: stretches of neighbours of all lengths.
            let mut rows: Vec<usize> = (0..n).filter(|&row| !holes[row].is_multiple_of(holes[0] % 9 + 1)).collect();
            if shuffled {
                rows.sort_by_key(|&row| row.wrapping_mul(0x9e37_79b9) % 101);
                rows.extend_from_within(..rows.len() / 2);
            }
            // Any bits at all: subnormals, infinities and NaN among them.
            let bits = |row: usize, state: usize| {
                (seed ^ (row * 1000 + state) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
            };
            every_lie((n, t), &range, &rows, |row, state| f32::from_bits(bits(row, state) as u32));
            every_lie((n, t), &range, &rows, |row, state| f64::from_bits(bits(row, state)));
            every_lie((n, t), &range, &rows, |row, state| f16::from_bits(bits(row, state) as u16));
            every_lie((n, t), &range, &rows, |row, state| bf16::from_bits(bits(row, state) as u16));
        }
    }

    #[test]
    fn states_side_by_side_are_loaded_together() {
        let values: Vec<f32> = (0..60).map(|i| i as f32).collect();
        let view = |places: &[usize]| {
            let states = places.iter().map(|&place| Strided { values: &values[place..], stride: 6 });
            let runs = States::new(&states.collect::<Vec<_>>()).runs;
            runs.iter().map(|run| run.states.len()).collect::<Vec<_>>()
        };
        assert_eq!(view(&[0, 1, 2, 3, 4, 5]), [6]);
        assert_eq!(view(&[1, 2, 4, 5, 3]), [2, 2, 1]);
        let columns: Vec<_> = values.chunks(10).map(|values| Strided { values, stride: 1 }).collect();
        assert_eq!(States::new(&columns).runs.len(), 6);
    }

    #[test]
    fn rows_are_asked_for_once() {
        let values = [0.0_f64; 60];
        let rows = |places: &[usize], stride| {
            let states = places.iter().map(|&place| Strided { values: &values[place..], stride });
            let rows = States::new(&states.collect::<Vec<_>>()).rows;
            rows.iter().map(|rows| (60 - rows.values.len(), rows.width)).collect::<Vec<_>>()
        };
        assert_eq!(rows(&[0, 2, 4], 6), [(0, 5)]);
        assert_eq!(rows(&[1, 2, 3], 6), [(1, 3)]);
        assert_eq!(rows(&[4, 0, 1], 6), [(4, 1), (0, 2)]);
        assert_eq!(rows(&[0, 30, 32], 6), [(0, 1), (30, 3)]);
        assert_eq!(rows(&[0, 20, 40], 1), [(0, 1), (20, 1), (40, 1)]);
    }

    #[test]
    fn columns_may_overlap() {
        let values: Vec<f32> = (0..60).map(|i| i as f32).collect();
        let windows =
            Columns::all_valid(Layout::Columns((0..3).map(|s| &values[s..s + 50]).collect())).unwrap();
        let mut tiles = vec![f32::NAN; 4 * 3 * LANES];
        windows.load_range(0..50, &[minus(0), minus(1), minus(2)], &mut tiles);
        check(&windows, &(0..50).collect::<Vec<_>>(), |row, state| (row + state) as f32, &tiles);
    }

    #[test]
    fn consecutive_rows_are_a_range() {
        assert_eq!(consecutive(&[]), None);
        assert_eq!(consecutive(&[7]), Some(7..8));
        assert_eq!(consecutive(&[7, 8, 9]), Some(7..10));
        assert_eq!(consecutive(&[7, 7, 9]), None);
        assert_eq!(consecutive(&[7, 9, 8]), None);
    }
}
