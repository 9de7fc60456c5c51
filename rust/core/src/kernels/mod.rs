//! Kernels: sixteen examples at a time against all centroids. The only unsafe code in the project.
//!
//! # One body, thin shells
//!
//! [`nearest`](Kernel::nearest), [`distances`](Kernel::distances) and [`nearest_and_gaps`](Kernel::nearest_and_gaps)
//! are each written once, over [`Lanes`]: sixteen float32 in whatever registers an instruction set has. A backend
//! implements seven operations and gets its `#[target_feature]` shells. Each lane runs the same subtractions and
//! *fused* multiply-adds in the same order everywhere, so the bits are the same on every backend; [`battery`] holds
//! them all to a naive twin. (The file is long because the bodies and the argument for their safety are one thing.)
//!
//! Squared distances are sums of (x - c)^2, not c^2 - 2xc: a third more work per dimension at worst, and losses with
//! an offset of 10^4 and a spread of 10^-2 still cluster right. Of equally near centroids the first one wins: the
//! comparison is strict and runs in the order of the numbers.
//!
//! # Cost
//!
//! Per tile, centroid and dimension: one subtraction and one fused multiply-add of sixteen lanes, and a broadcast of the
//! centroid's coordinate; per tile and centroid a compare and two blends. `TOGETHER` centroids go in parallel, so a
//! tile's row is loaded once for all of them and the accumulators hide the latency of the multiply-add:
//!
//! | backend | registers of 16 lanes | TOGETHER | live registers |
//! |---|---|---|---|
//! | avx512 | 1 zmm | 8 | 8 sums, 1 x, 1 difference of 32 |
//! | avx2 | 2 ymm | 4 | 8 sums, 2 x, 2 differences, 1 broadcast of 16 |
//! | neon | 4 q | 4 | 16 sums, 4 x, 4 differences, 1 broadcast of 32 |
//! | scalar | arrays | 1 | left to the compiler |

#![allow(clippy::inline_always, reason = "the body has to end up inside a shell to get its instruction set")]

mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub mod battery;

use crate::columns::LANES;
use crate::error::{Error, Result};

/// Centroids in a group of [`Centroids`], a multiple of every backend's `TOGETHER`.
const GROUP: usize = 8;

/// More centroids than this can't be numbered exactly in a float32 lane.
pub const MOST_CENTROIDS: usize = 1 << 24;

/// Sixteen float32.
///
/// # Safety
/// Every method needs the instruction set of its implementation: call them only inside its shell.
trait Lanes: Copy {
    unsafe fn load(values: &[f32; LANES]) -> Self;
    /// Asks for values that will be loaded soon.
    unsafe fn prefetch(_values: &[f32; LANES]) {}
    unsafe fn splat(value: f32) -> Self;
    unsafe fn store(self, values: &mut [f32; LANES]);
    unsafe fn minus(self, other: Self) -> Self;
    /// `self * self + sum`, rounded once.
    unsafe fn squared_plus(self, sum: Self) -> Self;
    /// The smaller one of two numbers.
    unsafe fn least(self, other: Self) -> Self;
    /// (`distance`, `number`) where `distance < best`, else (`best`, `index`); lane by lane.
    unsafe fn closer(distance: Self, number: Self, best: Self, index: Self) -> (Self, Self);
}

/// Centroids as kernels read them: groups of eight, `[group][dim][8]`, the last one filled up with infinities.
#[derive(Debug, Clone, PartialEq)]
pub struct Centroids {
    groups: Vec<f32>,
    /// The number of each centroid, as lanes hold it.
    numbers: Vec<f32>,
    len: usize,
    n_dims: usize,
}

impl Centroids {
    /// None yet; see [`gather`](Self::gather).
    #[must_use]
    pub fn none(n_dims: usize) -> Self {
        Self { groups: Vec::new(), numbers: Vec::new(), len: 0, n_dims }
    }

    /// Becomes the centroids of these numbers, in this order, out of `coordinates` (`[centroid][dim]`).
    ///
    /// # Panics
    /// A number beyond the centroids.
    pub fn gather(&mut self, coordinates: &[f32], numbers: &[u32]) {
        let size = self.n_dims * GROUP;
        self.len = numbers.len();
        self.numbers.clear();
        self.numbers.extend(numbers.iter().map(|&number| number as f32));
        self.groups.resize(numbers.len().div_ceil(GROUP) * size, f32::INFINITY);
        for (group, numbers) in self.groups.chunks_exact_mut(size).zip(numbers.chunks(GROUP)) {
            for (i, &number) in numbers.iter().enumerate() {
                let centroid = &coordinates[number as usize * self.n_dims..][..self.n_dims];
                for (room, &coordinate) in group.iter_mut().skip(i).step_by(GROUP).zip(centroid) {
                    *room = coordinate;
                }
            }
            // What an earlier list left behind must not come back.
            for i in numbers.len()..GROUP {
                group.iter_mut().skip(i).step_by(GROUP).for_each(|room| *room = f32::INFINITY);
            }
        }
    }

    /// Packs `n_dims` coordinates per centroid, one centroid after the other.
    ///
    /// # Panics
    /// When the coordinates are not whole centroids, or too many.
    #[must_use]
    pub fn pack(coordinates: &[f32], n_dims: usize) -> Self {
        assert!(n_dims > 0 && coordinates.len().is_multiple_of(n_dims));
        let n_centroids = coordinates.len() / n_dims;
        assert!(n_centroids <= MOST_CENTROIDS);
        // An infinitely far centroid is never strictly nearer than another one.
        let mut groups = vec![f32::INFINITY; n_centroids.div_ceil(GROUP) * n_dims * GROUP];
        for (k, centroid) in coordinates.chunks_exact(n_dims).enumerate() {
            let group = &mut groups[k / GROUP * n_dims * GROUP..];
            for (dim, &coordinate) in centroid.iter().enumerate() {
                group[dim * GROUP + k % GROUP] = coordinate;
            }
        }
        Self { groups, numbers: (0..n_centroids).map(|k| k as f32).collect(), len: n_centroids, n_dims }
    }

    /// How many centroids there are.
    #[must_use]
    pub fn n_centroids(&self) -> usize {
        self.len
    }

    /// Coordinates per centroid.
    #[must_use]
    pub fn n_dims(&self) -> usize {
        self.n_dims
    }
}

/// Squared distances of a tile from `C` centroids of a group, from the `offset`-th on.
///
/// # Safety
/// The instruction set of `L` is there.
#[inline(always)]
unsafe fn squared_distances<L: Lanes, const C: usize>(tile: &[f32], group: &[f32], offset: usize) -> [L; C] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut sums = [L::splat(0.0); C];
        for (x, coordinates) in tile.as_chunks::<LANES>().0.iter().zip(group.as_chunks::<GROUP>().0) {
            let x = L::load(x);
            for i in 0..C {
                let difference = x.minus(L::splat(coordinates[offset + i]));
                sums[i] = difference.squared_plus(sums[i]);
            }
        }
        sums
    }
}

/// For every lane of every tile the nearest centroid's number (as a float32) and squared distance.
///
/// # Safety
/// The instruction set of `L` is there.
#[inline(always)]
unsafe fn nearest<L: Lanes, const C: usize>(
    tiles: &[f32],
    centroids: &Centroids,
    numbers: &mut [[f32; LANES]],
    distances: &mut [[f32; LANES]],
) {
    let n_dims = centroids.n_dims;
    for ((tile, numbers), distances) in tiles.chunks_exact(n_dims * LANES).zip(numbers).zip(distances) {
        // SAFETY: passed on to the caller.
        unsafe {
            let (mut best, mut index) = (L::splat(f32::INFINITY), L::splat(0.0));
            let mut number = 0.0;
            for group in centroids.groups.chunks_exact(n_dims * GROUP) {
                for offset in (0..GROUP).step_by(C) {
                    let sums = squared_distances::<L, C>(tile, group, offset);
                    // By reference: an array iterator by value is moved, registers and all, through the stack.
                    for sum in &sums {
                        (best, index) = L::closer(*sum, L::splat(number), best, index);
                        number += 1.0;
                    }
                }
            }
            best.store(distances);
            index.store(numbers);
        }
    }
}

/// For every tile the squared distances from every centroid, `[tile][centroid][lane]`.
///
/// # Safety
/// The instruction set of `L` is there.
#[inline(always)]
unsafe fn distances<L: Lanes, const C: usize>(
    tiles: &[f32],
    centroids: &Centroids,
    distances: &mut [[f32; LANES]],
) {
    let (n_dims, n_centroids) = (centroids.n_dims, centroids.len);
    for (tile, distances) in tiles.chunks_exact(n_dims * LANES).zip(distances.chunks_exact_mut(n_centroids)) {
        for (group, distances) in
            centroids.groups.chunks_exact(n_dims * GROUP).zip(distances.chunks_mut(GROUP))
        {
            for (part, distances) in distances.chunks_mut(C).enumerate() {
                // SAFETY: passed on to the caller.
                unsafe {
                    let sums = squared_distances::<L, C>(tile, group, part * C);
                    for (sum, distances) in sums.iter().zip(distances) {
                        sum.store(distances);
                    }
                }
            }
        }
    }
}

/// As [`nearest`], and for every centroid how near it comes to being the nearest one: the smallest difference, lane
/// by lane over all tiles, between the squared distance from it and that from the nearest.
///
/// `gaps` (`[centroid][lane]`) starts with infinities. `room` holds a tile's distances
/// (`[centroid][lane]`): a few cache lines, written and read again while the next tile's arithmetic begins. The last,
/// broken group is calculated only as far as it goes: lists are short, and half a group of infinities would cost
/// as much as real centroids do.
///
/// # Safety
/// The instruction set of `L` is there.
#[inline(always)]
unsafe fn nearest_and_gaps<L: Lanes, const C: usize>(
    tiles: &[f32],
    centroids: &Centroids,
    (numbers, distances): (&mut [[f32; LANES]], &mut [[f32; LANES]]),
    (room, gaps): (&mut [[f32; LANES]], &mut [[f32; LANES]]),
) {
    let n_dims = centroids.n_dims;
    let size = n_dims * LANES;
    for (i, ((tile, numbers), distances)) in tiles.chunks_exact(size).zip(numbers).zip(distances).enumerate()
    {
        // SAFETY: passed on to the caller.
        unsafe {
            // Two tiles ahead: with a short list the arithmetic doesn't last as long as the memory takes to answer.
            if let Some(ahead) = tiles.get((i + 2) * size..(i + 3) * size) {
                for values in ahead.as_chunks::<LANES>().0 {
                    L::prefetch(values);
                }
            }
            let (mut best, mut index) = (L::splat(f32::INFINITY), L::splat(0.0));
            let groups = centroids.groups.chunks_exact(n_dims * GROUP).zip(room.chunks_mut(GROUP));
            for ((group, room), numbers) in groups.zip(centroids.numbers.chunks(GROUP)) {
                for (part, (room, numbers)) in room.chunks_mut(C).zip(numbers.chunks(C)).enumerate() {
                    macro_rules! some {
                        ($n:expr) => {{
                            let sums = squared_distances::<L, { $n }>(tile, group, part * C);
                            for ((sum, room), number) in sums.iter().zip(room).zip(numbers) {
                                sum.store(room);
                                (best, index) = L::closer(*sum, L::splat(*number), best, index);
                            }
                        }};
                    }
                    match room.len() {
                        1 => some!(1),
                        2 if C >= 2 => some!(2),
                        3 if C >= 3 => some!(3),
                        4 if C >= 4 => some!(4),
                        5 if C >= 5 => some!(5),
                        6 if C >= 6 => some!(6),
                        7 if C >= 7 => some!(7),
                        8 if C >= 8 => some!(8),
                        _ => unreachable!("a part has 1 to C centroids, and no C is larger than 8"),
                    }
                }
            }
            best.store(distances);
            index.store(numbers);
            for (distance, gap) in room.iter().zip(gaps.iter_mut()) {
                L::load(distance).minus(best).least(L::load(gap)).store(gap);
            }
        }
    }
}

/// An instruction set that kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// AVX-512F.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// ARM's Advanced SIMD.
    Neon,
    /// Arrays and `mul_add`, for everything else.
    Scalar,
}

/// The environment variable that overrides the choice of backend.
pub const OVERRIDE: &str = "LOSSIFT_SIMD";

impl Backend {
    /// All backends, fastest first.
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar];

    /// The backend's name, as users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }

    /// The backends that this CPU runs, fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|backend| backend.shells().is_some()).collect()
    }

    /// The backend named by [`OVERRIDE`], or the fastest one.
    ///
    /// # Errors
    /// [`OVERRIDE`] names none, or one that this CPU doesn't run.
    pub fn choose() -> Result<Self> {
        match std::env::var_os(OVERRIDE) {
            Some(name) if !name.is_empty() => Self::from_name(&name.to_string_lossy()),
            _ => Ok(Self::available()[0]),
        }
    }

    /// The backend of that name.
    ///
    /// # Errors
    /// An unknown name, or a backend that this CPU doesn't run.
    pub fn from_name(name: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|backend| backend.name() == name).ok_or_else(|| Error::Name {
            argument: OVERRIDE,
            found: name.to_owned(),
            allowed: available.iter().map(|backend| backend.name()).collect::<Vec<_>>().join(", ")
                + " on this CPU",
        })
    }

    /// The backend's entry points if this CPU runs them: the one place where that is decided.
    fn shells(self) -> Option<Shells> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if std::arch::is_x86_feature_detected!("avx512f") => Some(avx512::SHELLS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2
                if std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma") =>
            {
                Some(avx2::SHELLS)
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Some(neon::SHELLS),
            Self::Scalar => Some(scalar::SHELLS),
            _ => None,
        }
    }
}

/// See [`nearest`].
type Nearest = unsafe fn(&[f32], &Centroids, &mut [[f32; LANES]], &mut [[f32; LANES]]);
/// See [`distances`].
type Distances = unsafe fn(&[f32], &Centroids, &mut [[f32; LANES]]);

/// See [`nearest_and_gaps`].
type NearestAndGaps = unsafe fn(
    &[f32],
    &Centroids,
    (&mut [[f32; LANES]], &mut [[f32; LANES]]),
    (&mut [[f32; LANES]], &mut [[f32; LANES]]),
);

/// A backend's entry points.
#[derive(Debug, Clone, Copy)]
struct Shells {
    nearest: Nearest,
    distances: Distances,
    nearest_and_gaps: NearestAndGaps,
}

/// The shells of a backend: what its file has to end with.
macro_rules! shells {
    ($lanes:ty, $together:literal $(, $features:literal)?) => {
        pub(super) const SHELLS: super::Shells = super::Shells { nearest, distances, nearest_and_gaps };

        /// # Safety
        /// The CPU has this backend's features.
        $(#[target_feature(enable = $features)])?
        unsafe fn nearest(
            tiles: &[f32],
            centroids: &super::Centroids,
            numbers: &mut [[f32; super::LANES]],
            distances: &mut [[f32; super::LANES]],
        ) {
            // SAFETY: passed on to the caller.
            unsafe { super::nearest::<$lanes, $together>(tiles, centroids, numbers, distances) }
        }

        /// # Safety
        /// The CPU has this backend's features.
        $(#[target_feature(enable = $features)])?
        unsafe fn distances(tiles: &[f32], centroids: &super::Centroids, distances: &mut [[f32; super::LANES]]) {
            // SAFETY: passed on to the caller.
            unsafe { super::distances::<$lanes, $together>(tiles, centroids, distances) }
        }

        /// # Safety
        /// The CPU has this backend's features.
        $(#[target_feature(enable = $features)])?
        unsafe fn nearest_and_gaps(
            tiles: &[f32],
            centroids: &super::Centroids,
            nearest: (&mut [[f32; super::LANES]], &mut [[f32; super::LANES]]),
            gaps: (&mut [[f32; super::LANES]], &mut [[f32; super::LANES]]),
        ) {
            // SAFETY: passed on to the caller.
            unsafe { super::nearest_and_gaps::<$lanes, $together>(tiles, centroids, nearest, gaps) }
        }
    };
}
use shells;

/// The kernels of one backend, known to run here.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    backend: Backend,
    shells: Shells,
}

impl Kernel {
    /// The kernels of a backend, if this CPU runs them.
    #[must_use]
    pub fn of(backend: Backend) -> Option<Self> {
        backend.shells().map(|shells| Self { backend, shells })
    }

    /// The kernels of the [chosen](Backend::choose) backend.
    ///
    /// # Errors
    /// As [`Backend::choose`].
    ///
    /// # Panics
    /// Never: a backend that was chosen runs.
    pub fn choose() -> Result<Self> {
        Backend::choose().map(|backend| Self::of(backend).expect("chosen among the available"))
    }

    /// Which backend it is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Finds every lane's nearest centroid.
    ///
    /// `tiles`: `[tile][dim][lane]`. `numbers`, `distances`: `[tile][lane]`, the number of the nearest centroid (the
    /// first, if there are several) and the squared distance from it. A lane that holds NaN gets number 0.
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn nearest(
        &self,
        tiles: &[f32],
        centroids: &Centroids,
        numbers: &mut [[f32; LANES]],
        distances: &mut [[f32; LANES]],
    ) {
        assert_eq!(tiles.len(), numbers.len() * centroids.n_dims * LANES);
        assert_eq!(numbers.len(), distances.len());
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.nearest)(tiles, centroids, numbers, distances) }
    }

    /// Finds every lane's squared distance from every centroid.
    ///
    /// `tiles`: `[tile][dim][lane]`. `distances`: `[tile][centroid][lane]`.
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn distances(&self, tiles: &[f32], centroids: &Centroids, distances: &mut [[f32; LANES]]) {
        assert!(centroids.len > 0);
        assert_eq!(tiles.len() * centroids.len, distances.len() * centroids.n_dims * LANES);
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.distances)(tiles, centroids, distances) }
    }

    /// Finds every lane's nearest centroid, and for every centroid how near it comes to being the nearest one.
    ///
    /// `tiles`, `numbers`, `distances`: as in [`nearest`](Self::nearest); gathered centroids keep their numbers. `room`: `[centroid][lane]`, for the kernel's
    /// use. `gaps`: `[centroid][lane]`, the smallest difference over all tiles between the squared distance
    /// from this centroid and that from the nearest one.
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn nearest_and_gaps(
        &self,
        tiles: &[f32],
        centroids: &Centroids,
        (numbers, distances): (&mut [[f32; LANES]], &mut [[f32; LANES]]),
        (room, gaps): (&mut [[f32; LANES]], &mut [[f32; LANES]]),
    ) {
        assert_eq!(tiles.len(), numbers.len() * centroids.n_dims * LANES);
        assert_eq!(numbers.len(), distances.len());
        assert_eq!((room.len(), gaps.len()), (centroids.len, centroids.len));
        gaps.fill([f32::INFINITY; LANES]);
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.nearest_and_gaps)(tiles, centroids, (numbers, distances), (room, gaps)) }
    }
}
