//! Fences: where in the order of a cell the last one drawn is going to be, before anything is sorted.
//!
//! A draw takes the q first of a cell's n examples in some order. Which place in that order the q-th has is known
//! closely beforehand: keys are uniform, so the q-th smallest is near q/n of the way; of scores a sample tells. A
//! fence has two places on either side of it, so far apart that missing it is a matter of luck (five standard
//! deviations). Then one pass over the examples decides nearly all of them by two comparisons, and only what lies
//! between is collected and looked at exactly.
//!
//! A fence never decides what is drawn, only how long it takes: whoever uses one counts, and sees when it missed.

/// Standard deviations on either side: it misses once in two million times.
const WIDTH: f64 = 5.0;

/// A place in an order of examples; places compare as the examples do.
pub trait Place: Copy + Ord + Send + Sync {
    /// The first place of all.
    const FIRST: Self;
    /// The last place of all.
    const LAST: Self;
}

/// By a key: the smaller goes first.
impl Place for u64 {
    const FIRST: Self = 0;
    const LAST: Self = u64::MAX;
}

/// By a number, equals by a key.
impl Place for (u64, u64) {
    const FIRST: Self = (0, 0);
    const LAST: Self = (u64::MAX, u64::MAX);
}

/// Two places between which the last one drawn of a cell should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence<P> {
    /// What comes before this place is drawn.
    pub sure: P,
    /// What comes before this one may be drawn, what doesn't may not.
    pub open: P,
}

impl<P: Place> Fence<P> {
    /// Before which nothing is.
    pub const SHUT: Self = Self { sure: P::FIRST, open: P::FIRST };

    /// For the first `quota` of `size` examples, from the places of some of them, drawn at random and sorted here.
    pub fn of_sample(quota: usize, size: usize, sample: &mut [P]) -> Self {
        if quota == 0 {
            return Self::SHUT;
        }
        sample.sort_unstable();
        let (rank, margin) = expected(quota, size, sample.len());
        let at = |rank: f64| {
            if rank < 0.0 { P::FIRST } else { sample.get(rank as usize).copied().unwrap_or(P::LAST) }
        };
        Self { sure: at(rank - margin), open: at(rank + margin) }
    }
}

impl Fence<u64> {
    /// For the `quota` smallest of `size` keys.
    #[must_use]
    pub fn of_keys(quota: usize, size: usize) -> Self {
        if quota == 0 {
            return Self::SHUT;
        }
        let (rank, margin) = expected(quota, size, size);
        // From beyond either end, the cast goes to that end.
        let at = |rank: f64| (rank / size as f64 * 2_f64.powi(64)) as u64;
        Self { sure: at(rank - margin), open: at(rank + margin) }
    }
}

/// How many of `n` examples, out of `size`, come before the last of the first `quota`, and how far it may be off.
fn expected(quota: usize, size: usize, n: usize) -> (f64, f64) {
    let share = (quota as f64 / size.max(1) as f64).min(1.0);
    let rank = share * n as f64;
    // For a few examples the normal law is too narrow.
    (rank, WIDTH * (rank * (1.0 - share)).sqrt() + 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{DRAW, Keys};

    /// Whether the last of the first `quota` lies within.
    fn hit<P: Place>(fence: Fence<P>, places: &[P], quota: usize) -> bool {
        (fence.sure..fence.open).contains(&places[quota - 1])
    }

    #[test]
    fn the_last_one_drawn_lies_within() {
        for (seed, size) in [(0, 1), (1, 2), (2, 9), (3, 100), (4, 1000), (5, 50_000)] {
            let keys = Keys::new(seed, DRAW);
            let mut places: Vec<u64> = (0..size).map(|id| keys.key(id)).collect();
            let mut sample: Vec<u64> = places.iter().step_by(7).copied().collect();
            places.sort_unstable();
            let size = size as usize;
            for quota in
                [1, size / 9, size / 2, size - size / 9, size - 1, size].into_iter().filter(|q| *q > 0)
            {
                assert!(hit(Fence::of_keys(quota, size), &places, quota), "{quota} of {size} keys");
                let fence = Fence::of_sample(quota, size, &mut sample);
                assert!(hit(fence, &places, quota), "{quota} of {size} by sample");
            }
        }
    }

    #[test]
    fn little_is_left_open() {
        let keys = Keys::new(0, DRAW);
        let fence = Fence::of_keys(110_000, 1_000_000);
        let open = (0..1_000_000).filter(|&id| (fence.sure..fence.open).contains(&keys.key(id))).count();
        assert!((2500..4000).contains(&open), "{open}"); // ten standard deviations of 313
        let mut sample: Vec<u64> = (0..10_000).map(|id| keys.key(id)).collect();
        let fence = Fence::of_sample(110_000, 1_000_000, &mut sample);
        let open = (0..1_000_000).filter(|&id| (fence.sure..fence.open).contains(&keys.key(id))).count();
        assert!((25_000..40_000).contains(&open), "{open}");
    }

    #[test]
    fn nothing_of_nothing() {
        assert_eq!(Fence::of_keys(0, 0), Fence::SHUT);
        assert_eq!(Fence::of_sample(0, 5, &mut [(1, 1)]), Fence::SHUT);
        let all = Fence { sure: u64::FIRST, open: u64::LAST };
        assert_eq!((Fence::of_keys(5, 0), Fence::of_sample(5, 0, &mut [])), (all, all));
        assert_eq!(Fence::of_keys(50, 5).open, u64::LAST);
    }
}
