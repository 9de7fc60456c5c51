//! Kernels: sixteen examples at a time against all centroids. The only unsafe code of the core, but for one hint to the
//! operating system ([`crate::pages`]).
//!
//! # One body, thin shells
//!
//! Each kernel is written once, in [`bodies`], over [`lanes`]: sixteen float32 in whatever registers an instruction set
//! has. A backend implements ten operations and gets its `#[target_feature]` shells. Each lane runs the same *fused*
//! multiply-adds in the same order everywhere, so the bits are the same on every backend; [`battery`] holds
//! them all to a naive twin. Of equally near centroids the first one wins: the comparison is strict and runs in the
//! order of the numbers.
//!
//! # Cost
//!
//! [`nearest`](Kernel::nearest): per tile, centroid and dimension one multiply-add of sixteen lanes; per tile and centroid
//! a compare, a minimum and a blend. With 8 dimensions and more it runs at nine tenths of a matrix product's rate, or
//! above. [`nearest_two`](Kernel::nearest_two) adds two operations per tile and centroid,
//! [`nearest_and_gaps`](Kernel::nearest_and_gaps) a store and, later, a load, a subtraction and a minimum.
//! [`distances`](Kernel::distances) calculates by subtraction: twice the arithmetic, for the few places where small
//! distances matter by themselves.

#![allow(clippy::inline_always, reason = "the body has to end up inside a shell to get its instruction set")]

mod bodies;
mod centroids;
mod lanes;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub mod battery;

pub use centroids::{Centroids, MOST_CENTROIDS, half_square};

use crate::columns::LANES;
use crate::error::{Error, Result};
pub use bodies::Found;
use bodies::Gaps;
use lanes::Lanes;
use std::ops::Range;

/// A number for each lane of a tile.
pub type Sixteen = [f32; LANES];

/// How centroids have gone from one assignment to another.
#[derive(Debug, Clone)]
pub struct Ways {
    /// `[centroid][dim]`: where they are less where they were.
    pub ways: Vec<f32>,
    /// `[centroid]`: the same of half of each squared norm.
    pub halves: Vec<f32>,
}

/// A value on the fixed-point grid of `scale` (a power of two): rounded once, ties to even.
///
/// Scaling by a power of two is exact in float64. Adding 1.5 x 2^52 pushes the fraction out of the mantissa, whose
/// low bits are then the integer: two vector instructions, where `round` would call the C library. Beyond 2^51 it is some
/// number, the same everywhere.
#[must_use]
#[inline(always)]
pub fn on_grid(x: f32, scale: f64) -> i64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    ((f64::from(x) * scale + SHIFT).to_bits() as i64).wrapping_sub(SHIFT.to_bits() as i64)
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

/// See [`Kernel::residuals`].
type Residuals = unsafe fn(&[f32], &Centroids, &[Sixteen], &mut [[f64; LANES]]);

/// See [`Kernel::decay`].
type Decay = unsafe fn(&Ways, (&[f32], f32), u32, &[u32]) -> f32;

/// A backend's entry points, and how it likes its centroids.
#[derive(Debug, Clone, Copy)]
struct Shells {
    /// Centroids in a group: C.
    together: usize,
    /// Tiles at a time, at most: V.
    most_tiles: usize,
    nearest: unsafe fn(&[f32], &Centroids, &mut Found),
    nearest_two: unsafe fn(&[f32], &Centroids, &mut Found),
    nearest_and_gaps: unsafe fn(&[f32], &Centroids, &mut Found, &mut Gaps),
    scores: unsafe fn(&[f32], &Centroids, &mut [Sixteen]),
    distances: unsafe fn(&[f32], &Centroids, &mut [Sixteen]),
    add: unsafe fn(&[f32], f64, &mut [[i64; LANES]]),
    scatter: unsafe fn(&[f32], &[Sixteen], f64, usize, &mut [i64]),
    square: unsafe fn(&[f32], f64) -> i128,
    residuals: Residuals,
    prefetch: unsafe fn(Range<*const u8>),
    decay: Decay,
}

/// The shells of a backend: what its file has to end with.
macro_rules! shells {
    ($lanes:ty, $v:literal, $c:literal $(, $features:literal)?) => {
        use super::bodies::{self, Found, Gaps};

        pub(super) const SHELLS: super::Shells = super::Shells {
            together: $c,
            most_tiles: $v,
            nearest,
            nearest_two,
            nearest_and_gaps,
            scores,
            distances,
            add,
            scatter,
            square,
            residuals,
            prefetch,
            decay,
        };

        $crate::kernels::shell!($($features)?; fn nearest(tiles: &[f32], centroids: &super::Centroids, found: &mut Found) {
            let gaps = &mut Gaps { room: &mut [], gaps: &mut [] };
            bodies::nearest::<$lanes, $v, $c, false, false>(tiles, centroids, found, gaps)
        });
        $crate::kernels::shell!($($features)?; fn nearest_two(tiles: &[f32], centroids: &super::Centroids, found: &mut Found) {
            let gaps = &mut Gaps { room: &mut [], gaps: &mut [] };
            bodies::nearest::<$lanes, $v, $c, true, false>(tiles, centroids, found, gaps)
        });
        $crate::kernels::shell!($($features)?; fn nearest_and_gaps(tiles: &[f32], centroids: &super::Centroids, found: &mut Found, gaps: &mut Gaps) {
            bodies::nearest::<$lanes, $v, $c, true, true>(tiles, centroids, found, gaps)
        });
        $crate::kernels::shell!($($features)?; fn scores(tiles: &[f32], centroids: &super::Centroids, found: &mut [super::Sixteen]) {
            bodies::all::<$lanes, $c, false>(tiles, centroids, found)
        });
        $crate::kernels::shell!($($features)?; fn distances(tiles: &[f32], centroids: &super::Centroids, found: &mut [super::Sixteen]) {
            bodies::all::<$lanes, $c, true>(tiles, centroids, found)
        });
        $crate::kernels::shell!($($features)?; fn add(tiles: &[f32], scale: f64, totals: &mut [[i64; super::LANES]]) {
            bodies::add(tiles, scale, totals)
        });
        $crate::kernels::shell!($($features)?; fn scatter(tiles: &[f32], numbers: &[super::Sixteen], scale: f64, n_dims: usize, totals: &mut [i64]) {
            bodies::scatter(tiles, numbers, scale, n_dims, totals)
        });
        $crate::kernels::shell!($($features)?; fn square(values: &[f32], scale: f64) -> i128 {
            bodies::square(values, scale)
        });
        $crate::kernels::shell!($($features)?; fn residuals(tiles: &[f32], centroids: &super::Centroids, numbers: &[super::Sixteen], found: &mut [[f64; super::LANES]]) {
            bodies::residuals(tiles, centroids, numbers, found)
        });
        $crate::kernels::shell!($($features)?; fn prefetch(bytes: std::ops::Range<*const u8>) {
            bodies::prefetch::<$lanes>(bytes)
        });
        $crate::kernels::shell!($($features)?; fn decay(ways: &super::Ways, ball: (&[f32], f32), b: u32, list: &[u32]) -> f32 {
            bodies::decay(ways, ball, b, list)
        });
    };
}
use shells;

/// One shell: a body compiled with a backend's features.
macro_rules! shell {
    ($($features:literal)?; fn $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)? $body:block) => {
        /// # Safety
        /// The CPU has this backend's features.
        $(#[target_feature(enable = $features)])?
        #[allow(unused_unsafe, reason = "one of the bodies is safe code")]
        unsafe fn $name($($argument: $kind),*) $(-> $result)? {
            // SAFETY: passed on to the caller.
            unsafe { $body }
        }
    };
}
use shell;

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

    /// Centroids as these kernels want them, from `[centroid][dim]`.
    ///
    /// # Panics
    /// When the coordinates are not whole centroids, or too many.
    #[must_use]
    pub fn pack(&self, coordinates: &[f32], n_dims: usize) -> Centroids {
        Centroids::pack(coordinates, n_dims, self.shells.together)
    }

    /// Finds every lane's nearest centroid.
    ///
    /// `tiles`: `[tile][dim][lane]`. `numbers`, `scores`: `[tile][lane]`, the number of the nearest centroid (the
    /// first, if there are several) and its score, half the squared distance less half the lane's squared norm. A lane
    /// that is not finite gets a score that isn't.
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn nearest(
        &self,
        tiles: &[f32],
        centroids: &Centroids,
        numbers: &mut [Sixteen],
        scores: &mut [Sixteen],
    ) {
        check(tiles, centroids, numbers, scores);
        // SAFETY: `of` checked that the CPU has the features, `check` the lengths.
        unsafe { (self.shells.nearest)(tiles, centroids, &mut Found { numbers, scores, seconds: &mut [] }) }
    }

    /// Finds every lane's nearest centroid, and how far behind the second one is.
    ///
    /// As [`nearest`](Self::nearest); `seconds`: `[tile][lane]`, the second smallest score (infinite, if there is none).
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn nearest_two(&self, tiles: &[f32], centroids: &Centroids, found: &mut Found) {
        check(tiles, centroids, found.numbers, found.scores);
        assert_eq!(found.numbers.len(), found.seconds.len());
        // SAFETY: `of` checked that the CPU has the features, `check` the lengths.
        unsafe { (self.shells.nearest_two)(tiles, centroids, found) }
    }

    /// Finds every lane's nearest centroid, and for every centroid how near it comes to being the nearest one.
    ///
    /// As [`nearest_two`](Self::nearest_two); gathered centroids keep their numbers. `gaps`: `[centroid][lane]`,
    /// the smallest difference over all tiles between the score of this centroid and that of the nearest one.
    /// `room` is for the kernel's use.
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn nearest_and_gaps(
        &self,
        tiles: &[f32],
        centroids: &Centroids,
        found: &mut Found,
        (room, gaps): (&mut Vec<Sixteen>, &mut [Sixteen]),
    ) {
        check(tiles, centroids, found.numbers, found.scores);
        assert_eq!((found.numbers.len(), gaps.len()), (found.seconds.len(), centroids.n_centroids()));
        room.resize(self.shells.most_tiles * gaps.len(), [0.0; LANES]);
        gaps.fill([f32::INFINITY; LANES]);
        // SAFETY: `of` checked that the CPU has the features, `check` the lengths.
        unsafe { (self.shells.nearest_and_gaps)(tiles, centroids, found, &mut Gaps { room, gaps }) }
    }

    /// Finds every lane's score against every centroid.
    ///
    /// `tiles`: `[tile][dim][lane]`. `scores`: `[tile][centroid][lane]`.
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn scores(&self, tiles: &[f32], centroids: &Centroids, scores: &mut [Sixteen]) {
        assert!(centroids.n_centroids() > 0);
        assert_eq!(tiles.len() * centroids.n_centroids(), scores.len() * centroids.n_dims() * LANES);
        // SAFETY: `of` checked that the CPU has the features, and the lengths agree.
        unsafe { (self.shells.scores)(tiles, centroids, scores) }
    }

    /// Finds every lane's squared distance from every centroid, by subtraction.
    ///
    /// `tiles`: `[tile][dim][lane]`. `distances`: `[tile][centroid][lane]`.
    ///
    /// # Panics
    /// Lengths that don't agree.
    pub fn distances(&self, tiles: &[f32], centroids: &Centroids, distances: &mut [Sixteen]) {
        assert!(centroids.n_centroids() > 0);
        assert_eq!(tiles.len() * centroids.n_centroids(), distances.len() * centroids.n_dims() * LANES);
        // SAFETY: `of` checked that the CPU has the features, and the lengths agree.
        unsafe { (self.shells.distances)(tiles, centroids, distances) }
    }

    /// Adds every lane of every tile, [on the grid](on_grid) of `scale`, to its total.
    ///
    /// `tiles`: `[tile][dim][lane]`. `totals`: `[dim][lane]`; sums wrap around.
    ///
    /// # Panics
    /// Tiles that aren't whole.
    pub fn add(&self, tiles: &[f32], scale: f64, totals: &mut [[i64; LANES]]) {
        assert!(tiles.len().is_multiple_of(totals.len() * LANES));
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.add)(tiles, scale, totals) }
    }

    /// Adds every lane of every tile, [on the grid](on_grid) of `scale`, to the totals of its centroid.
    ///
    /// `tiles`: `[tile][dim][lane]`. `numbers`: `[tile][lane]`. `totals`: `[centroid][dim]`; sums wrap around.
    ///
    /// # Panics
    /// Lengths that don't agree, numbers beyond the totals.
    pub fn scatter(&self, tiles: &[f32], numbers: &[Sixteen], scale: f64, n_dims: usize, totals: &mut [i64]) {
        assert_eq!(tiles.len(), numbers.len() * n_dims * LANES);
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.scatter)(tiles, numbers, scale, n_dims, totals) }
    }

    /// The sum of the squares of all the tiles' values, [on the grid](on_grid) of `scale`, where they are at most 2^51.
    #[must_use]
    pub fn squares(&self, tiles: &[f32], scale: f64) -> i128 {
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.square)(tiles, scale) }
    }

    /// By how much, at most, scores of the centroids of `list` (but b) have fallen relative to that of b for the points of a
    /// ball, when centroids have gone these ways; see [`crate::kmeans::bounds`].
    ///
    /// `ball`: its centre, `[dim]`,
    /// and radius. Not to the last bit: within `n_dims` + 8 roundings of the terms' magnitudes.
    #[must_use]
    pub fn decay(&self, ways: &Ways, ball: (&[f32], f32), b: u32, list: &[u32]) -> f32 {
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.decay)(ways, ball, b, list) }
    }

    /// Asks for values that will be read soon.
    pub fn prefetch<T>(&self, values: &[T]) {
        let Range { start, end } = values.as_ptr_range();
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.prefetch)(start.cast()..end.cast()) }
    }

    /// Finds every lane's squared distance from the centroid of its number, by subtraction in float64.
    ///
    /// `tiles`: `[tile][dim][lane]`. `numbers`, `distances`: `[tile][lane]`.
    ///
    /// # Panics
    /// Lengths that don't agree, numbers beyond the centroids, or centroids that were gathered.
    pub fn residuals(
        &self,
        tiles: &[f32],
        centroids: &Centroids,
        numbers: &[Sixteen],
        distances: &mut [[f64; LANES]],
    ) {
        assert_eq!(tiles.len(), numbers.len() * centroids.n_dims() * LANES);
        assert_eq!(numbers.len(), distances.len());
        // SAFETY: `of` checked that the CPU has the features.
        unsafe { (self.shells.residuals)(tiles, centroids, numbers, distances) }
    }
}

/// Whether there is a result for every tile and a centroid for it to find.
fn check(tiles: &[f32], centroids: &Centroids, numbers: &[Sixteen], scores: &[Sixteen]) {
    assert_eq!(tiles.len(), numbers.len() * centroids.n_dims() * LANES);
    assert_eq!(numbers.len(), scores.len());
}
