//! The kernels' bodies, each written once over [`Lanes`]: a shell gives them its instruction set.
//!
//! # Scores
//!
//! The nearest centroid is the one with the smallest *score*, `|c|^2 / 2 - x.c`: half the squared distance less
//! `|x|^2 / 2`, which is the same for all centroids. That is one fused multiply-add per dimension, where
//! `(x - c)^2` needs a subtraction as well. What it loses by cancellation is in proportion to `|x| |c|`, so values
//! have to be centred before: [`crate::shape`] does that as it loads them.
//!
//! # Registers
//!
//! V tiles meet C centroids at a time. Per dimension that takes V loads, C broadcasts and V x C multiply-adds, into as many
//! accumulators, which also hide the latency of the multiply-add. A dozen or two of them leave the arithmetic
//! as the bound:
//!
//! | backend | registers of 16 lanes | V x C | live registers |
//! |---|---|---|---|
//! | avx512 | 1 zmm | 4 x 4 | 16 sums, 4 x, 1 broadcast, 8 bests of 32 |
//! | avx2 | 2 ymm | 1 x 6 | 12 sums, 2 x, 1 broadcast of 16; bests wait in the first-level cache |
//! | neon | 4 q | 1 x 6 | 24 sums, 4 x, 1 broadcast of 32 |
//! | scalar | arrays | 1 x 1 | left to the compiler |
//!
//! Per tile and centroid come a compare, a minimum and a blend, which run beside the multiply-adds of the next group
//! where a CPU has ports to spare. Tried and worse on Zen 5: 1 x 8 (164 to 188 GFLOP/s where 4 x 4 has 232 to 249), 2 x 12 and
//! 4 x 6 (4 to 15 % behind), two blends instead of minimum and blend (0 to 8 % behind).

use super::centroids::Centroids;
use super::lanes::Lanes;
use super::{Sixteen, Ways};
use crate::columns::LANES;

/// The chunk of sixteen values at `values[at..]`.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn lanes_at(values: &[f32], at: usize) -> &[f32; LANES] {
    debug_assert!(at + LANES <= values.len());
    // SAFETY: the caller's promise; f32 arrays need no more alignment than f32.
    unsafe { &*values.as_ptr().add(at).cast::<[f32; LANES]>() }
}

/// Scores of V tiles against the first N of a group of C centroids.
///
/// # Safety
/// The instruction set of `L` is there; `tiles` has V tiles, `group` a group.
#[inline(always)]
unsafe fn scores<L: Lanes, const V: usize, const N: usize, const C: usize>(
    tiles: &[f32],
    group: &[f32],
    n_dims: usize,
) -> [[L; N]; V] {
    debug_assert!(N <= C && tiles.len() >= V * n_dims * LANES && group.len() >= (1 + n_dims) * C);
    // SAFETY: passed on to the caller; all indices are below the lengths that it promised.
    unsafe {
        let mut sums = [[L::splat(0.0); N]; V];
        for i in 0..N {
            let half = L::splat(*group.get_unchecked(i));
            for sums in &mut sums {
                sums[i] = half;
            }
        }
        for dim in 0..n_dims {
            let mut x = [L::splat(0.0); V];
            for (tile, x) in x.iter_mut().enumerate() {
                *x = L::load(lanes_at(tiles, (tile * n_dims + dim) * LANES));
            }
            for i in 0..N {
                let coordinate = L::splat(*group.get_unchecked((1 + dim) * C + i));
                for (x, sums) in x.iter().zip(&mut sums) {
                    sums[i] = x.product_from(coordinate, sums[i]);
                }
            }
        }
        sums
    }
}

/// Squared distances of a tile from the first N of a group of C centroids, by subtraction.
///
/// # Safety
/// The instruction set of `L` is there; `tile` is one, `group` a group.
#[inline(always)]
unsafe fn squares<L: Lanes, const N: usize, const C: usize>(tile: &[f32], group: &[f32]) -> [L; N] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut sums = [L::splat(0.0); N];
        for (x, coordinates) in
            tile.as_chunks::<LANES>().0.iter().zip(group.as_chunks::<C>().0.iter().skip(1))
        {
            let x = L::load(x);
            for i in 0..N {
                sums[i] = x.minus(L::splat(coordinates[i])).squared_plus(sums[i]);
            }
        }
        sums
    }
}

/// Runs `some!(N)` for the N that `n` is; N never passes C, which never passes 6.
macro_rules! for_n {
    ($n:expr, $c:ident, $some:ident) => {
        match $n {
            1 => $some!(1),
            2 if $c >= 2 => $some!(2),
            3 if $c >= 3 => $some!(3),
            4 if $c >= 4 => $some!(4),
            5 if $c >= 5 => $some!(5),
            6 if $c >= 6 => $some!(6),
            _ => unreachable!("a group has 1 to C centroids, and no C is larger than 6"),
        }
    };
}

/// What is found for each lane of some tiles: `[tile][lane]` each.
pub struct Found<'f> {
    /// The number of the nearest centroid.
    pub numbers: &'f mut [Sixteen],
    /// Its score.
    pub scores: &'f mut [Sixteen],
    /// The second smallest score; nothing where it isn't asked for.
    pub seconds: &'f mut [Sixteen],
}

/// Room and result of measuring gaps: see [`nearest`].
pub(super) struct Gaps<'g> {
    /// `[tile of V][centroid][lane]`, for the kernel's use.
    pub(super) room: &'g mut [Sixteen],
    /// `[centroid][lane]`.
    pub(super) gaps: &'g mut [Sixteen],
}

/// For every lane of every tile the number (as a float32) of the centroid with the smallest score, the first of
/// several, and that score; where `TWO`, also the second smallest.
///
/// Where `GAPS`, also for every centroid how near it comes to being the nearest one: the smallest difference, lane by
/// lane over all tiles, between its score and the smallest. `room` holds V tiles' scores: a few cache lines, written
/// and read again. `gaps` starts with infinities.
///
/// # Safety
/// The instruction set of `L` is there, the lengths agree.
#[inline(always)]
pub(super) unsafe fn nearest<L: Lanes, const V: usize, const C: usize, const TWO: bool, const GAPS: bool>(
    tiles: &[f32],
    centroids: &Centroids,
    found: &mut Found,
    gaps: &mut Gaps,
) {
    let n_dims = centroids.n_dims();
    let n_tiles = found.numbers.len();
    let size = n_dims * LANES;
    let mut from = 0;
    // SAFETY: passed on to the caller.
    unsafe {
        macro_rules! run {
            ($v:expr) => {
                while n_tiles - from >= $v {
                    let some = &tiles[from * size..(from + $v) * size];
                    let ahead = tiles.get((from + $v) * size..(from + 2 * $v) * size).unwrap_or(&[]);
                    some_nearest::<L, { $v }, C, TWO, GAPS>(
                        some,
                        ahead,
                        centroids,
                        &mut Found {
                            numbers: &mut found.numbers[from..from + $v],
                            scores: &mut found.scores[from..from + $v],
                            seconds: if TWO { &mut found.seconds[from..from + $v] } else { &mut [] },
                        },
                        gaps,
                    );
                    from += $v;
                }
            };
        }
        run!(V);
        if V > 2 {
            run!(2);
        }
        run!(1);
    }
}

/// [`nearest`] for V tiles.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn some_nearest<L: Lanes, const V: usize, const C: usize, const TWO: bool, const GAPS: bool>(
    tiles: &[f32],
    ahead: &[f32],
    centroids: &Centroids,
    found: &mut Found,
    gaps: &mut Gaps,
) {
    let Gaps { room, gaps } = gaps;
    let (n_dims, n) = (centroids.n_dims(), centroids.n_centroids());
    // SAFETY: passed on to the caller.
    unsafe {
        if GAPS {
            // With a short list the arithmetic doesn't last as long as the memory takes to answer.
            for values in ahead.as_chunks::<LANES>().0 {
                L::prefetch(values);
            }
        }
        let mut best = [L::splat(f32::INFINITY); V];
        let mut second = [L::splat(f32::INFINITY); V];
        let mut index = [L::splat(0.0); V];
        let groups = centroids.groups().chunks_exact((1 + n_dims) * C).zip(centroids.numbers().chunks(C));
        for (i, (group, numbers)) in groups.enumerate() {
            macro_rules! some {
                ($n:expr) => {{
                    let sums = scores::<L, V, { $n }, C>(tiles, group, n_dims);
                    for centroid in 0..$n {
                        let number = L::splat(numbers[centroid]);
                        for tile in 0..V {
                            let score = sums[tile][centroid];
                            if GAPS {
                                score.store(&mut room[tile * n + i * C + centroid]);
                            }
                            if TWO {
                                second[tile] = score.most(best[tile]).least(second[tile]);
                            }
                            (best[tile], index[tile]) = L::closer(score, number, best[tile], index[tile]);
                        }
                    }
                }};
            }
            for_n!(numbers.len(), C, some);
        }
        for tile in 0..V {
            best[tile].store(&mut found.scores[tile]);
            index[tile].store(&mut found.numbers[tile]);
            if TWO {
                second[tile].store(&mut found.seconds[tile]);
            }
            if GAPS {
                for (score, gap) in room[tile * n..(tile + 1) * n].iter().zip(gaps.iter_mut()) {
                    L::load(score).minus(best[tile]).least(L::load(gap)).store(gap);
                }
            }
        }
    }
}

/// For every tile its scores (or, where `SQUARES`, its squared distances) against every centroid,
/// `[tile][centroid][lane]`.
///
/// # Safety
/// The instruction set of `L` is there, the lengths agree.
#[inline(always)]
pub(super) unsafe fn all<L: Lanes, const C: usize, const SQUARES: bool>(
    tiles: &[f32],
    centroids: &Centroids,
    found: &mut [Sixteen],
) {
    let (n_dims, n_centroids) = (centroids.n_dims(), centroids.n_centroids());
    for (tile, found) in tiles.chunks_exact(n_dims * LANES).zip(found.chunks_exact_mut(n_centroids)) {
        for (group, found) in centroids.groups().chunks_exact((1 + n_dims) * C).zip(found.chunks_mut(C)) {
            macro_rules! some {
                ($n:expr) => {{
                    // SAFETY: passed on to the caller.
                    unsafe {
                        let values = if SQUARES {
                            squares::<L, { $n }, C>(tile, group)
                        } else {
                            scores::<L, 1, { $n }, C>(tile, group, n_dims)[0]
                        };
                        for (value, found) in values.iter().zip(found) {
                            value.store(found);
                        }
                    }
                }};
            }
            for_n!(found.len(), C, some);
        }
    }
}

/// Adds every lane of every tile, on the grid of `scale`, to `totals` (`[dim][lane]`); see [`crate::kmeans::sums`].
///
/// Plain code: inside a shell the compiler makes vectors of it.
#[inline(always)]
pub(super) fn add(tiles: &[f32], scale: f64, totals: &mut [[i64; LANES]]) {
    for tile in tiles.as_chunks::<LANES>().0.chunks_exact(totals.len()) {
        for (x, totals) in tile.iter().zip(totals.iter_mut()) {
            for (x, total) in x.iter().zip(totals) {
                *total = total.wrapping_add(super::on_grid(*x, scale));
            }
        }
    }
}

/// Adds every lane of every tile, on the grid of `scale`, to the totals (`[centroid][dim]`) of its number.
///
/// Plain code: inside a shell the compiler makes vectors of the rounding.
#[inline(always)]
pub(super) fn scatter(tiles: &[f32], numbers: &[Sixteen], scale: f64, n_dims: usize, totals: &mut [i64]) {
    let mut rounded = vec![[0_i64; LANES]; n_dims];
    for (tile, numbers) in tiles.chunks_exact(n_dims * LANES).zip(numbers) {
        for (x, rounded) in tile.as_chunks::<LANES>().0.iter().zip(&mut rounded) {
            for (x, rounded) in x.iter().zip(rounded) {
                *rounded = super::on_grid(*x, scale);
            }
        }
        for (lane, number) in numbers.iter().enumerate() {
            let totals = &mut totals[*number as usize * n_dims..][..n_dims];
            for (total, rounded) in totals.iter_mut().zip(&rounded) {
                *total = total.wrapping_add(rounded[lane]);
            }
        }
    }
}

/// The sum of the squares of all values on the grid of `scale`: their halves of 26 bits are multiplied and summed in 64.
///
/// Plain code: inside a shell the compiler makes vectors of it.
#[inline(always)]
pub(super) fn square(values: &[f32], scale: f64) -> i128 {
    // The products are below 2^52: a lane may take 2^10 of them.
    let mut total = 0;
    for values in values.as_chunks::<LANES>().0.chunks(1 << 10) {
        let (mut high, mut cross, mut low) = ([0_i64; LANES], [0_i64; LANES], [0_i64; LANES]);
        for x in values {
            for lane in 0..LANES {
                let x = super::on_grid(x[lane], scale);
                let (h, l) = (i64::from((x >> 26) as i32), i64::from((x & 0x3ff_ffff) as i32));
                high[lane] += h * h;
                cross[lane] += h * l;
                low[lane] += l * l;
            }
        }
        let sum = |lanes: [i64; LANES]| lanes.into_iter().map(i128::from).sum::<i128>();
        total += (sum(high) << 52) + (sum(cross) << 27) + sum(low);
    }
    total
}

/// Squared distances of every lane from the centroid of its number, by subtraction in float64, `[tile][lane]`.
///
/// Plain code: inside a shell the compiler makes vectors of it.
#[inline(always)]
pub(super) fn residuals(
    tiles: &[f32],
    centroids: &Centroids,
    numbers: &[Sixteen],
    found: &mut [[f64; LANES]],
) {
    let (coordinates, n_dims) = (centroids.coordinates(), centroids.n_dims());
    let mut own = [&[][..]; LANES];
    for ((tile, numbers), found) in tiles.chunks_exact(n_dims * LANES).zip(numbers).zip(found) {
        for (own, number) in own.iter_mut().zip(numbers) {
            *own = &coordinates[*number as usize * n_dims..][..n_dims];
        }
        *found = [0.0; LANES];
        for (dim, x) in tile.as_chunks::<LANES>().0.iter().enumerate() {
            let c = own.map(|own| own[dim]);
            for lane in 0..LANES {
                let difference = f64::from(x[lane]) - f64::from(c[lane]);
                found[lane] += difference * difference;
            }
        }
    }
}

/// Asks for bytes that will be read soon.
///
/// # Safety
/// The instruction set of `L` is there.
#[inline(always)]
pub(super) unsafe fn prefetch<L: Lanes>(bytes: std::ops::Range<*const u8>) {
    let mut line = bytes.start;
    while line < bytes.end {
        // SAFETY: passed on to the caller; asking for memory reads none, so any address will do.
        unsafe { L::prefetch_line(line) }
        line = line.wrapping_add(64);
    }
}

/// The sum of sixteen lanes, in halves.
#[inline(always)]
fn sum(lanes: &[f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 8]);
    let four: [f32; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// See [`super::Kernel::decay`]. Products and squares are added up in sixteen sums side by side.
///
/// Plain code: inside a shell the compiler makes vectors of it.
#[inline(always)]
pub(super) fn decay(
    Ways { ways, halves }: &Ways,
    (mean, radius): (&[f32], f32),
    b: u32,
    list: &[u32],
) -> f32 {
    let n_dims = mean.len();
    let way_of = |k: u32| ways[k as usize * n_dims..][..n_dims].as_chunks::<LANES>();
    let ((b_way, b_rest), (mean, mean_rest)) = (way_of(b), mean.as_chunks::<LANES>());
    let mut most = f32::NEG_INFINITY;
    for &j in list.iter().filter(|&&j| j != b) {
        let (mut products, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (j_way, j_rest) = way_of(j);
        for ((j, b), mean) in j_way.iter().zip(b_way).zip(mean) {
            for lane in 0..LANES {
                let way = j[lane] - b[lane];
                products[lane] += mean[lane] * way;
                squares[lane] += way * way;
            }
        }
        for (lane, ((j, b), mean)) in j_rest.iter().zip(b_rest).zip(mean_rest).enumerate() {
            let way = j - b;
            products[lane] += mean * way;
            squares[lane] += way * way;
        }
        let shift = halves[b as usize] - halves[j as usize];
        most = most.max(shift + sum(&products) + radius * sum(&squares).sqrt());
    }
    most
}
