//! The k smallest of a stream, in memory O(k) and without sorting the stream.
//!
//! A buffer of up to 2k items; when it is full, a selection keeps its k smallest and everything not below the
//! largest of those is refused from then on. An item costs a comparison, and O(1) amortised when it gets in. What
//! is kept is a function of the *set* of items: neither their order nor a split into streams that are merged
//! later changes it, as long as the order on items is total.

use crate::cells::{BATCH_ROWS, PART_ROWS};
use crate::columns::Columns;
use crate::error::Result;
use crate::fences::Fence;
use crate::ids::Ids;
use crate::interrupt::Watch;
use crate::parallel::Team;
use crate::rng::Keys;

/// Collects the k smallest items of a stream.
#[derive(Debug, Clone)]
pub struct Smallest<T> {
    k: usize,
    kept: Vec<T>,
    /// The k-th smallest at the last selection: items not below it can't be among the k smallest.
    bound: Option<T>,
}

impl<T: Ord + Copy> Smallest<T> {
    /// A collector of `k` items.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self { k, kept: Vec::new(), bound: None }
    }

    /// Offers an item.
    #[inline]
    pub fn push(&mut self, item: T) {
        if self.k == 0 || self.bound.is_some_and(|bound| item >= bound) {
            return;
        }
        self.kept.push(item);
        if self.kept.len() >= self.k.saturating_mul(2).max(64) {
            self.select();
        }
    }

    /// Offers everything that another collector kept.
    pub fn merge(&mut self, other: Self) {
        for item in other.kept {
            self.push(item);
        }
    }

    /// The k smallest items (all of them, if fewer were offered), smallest first.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<T> {
        self.kept.sort_unstable();
        self.kept.truncate(self.k);
        self.kept
    }

    fn select(&mut self) {
        if self.kept.len() > self.k {
            let (_, &mut bound, _) = self.kept.select_nth_unstable(self.k - 1);
            self.kept.truncate(self.k);
            self.bound = Some(bound);
        }
    }
}

/// The `n_rows` valid rows with the smallest keys (all, if they are fewer), smallest first: a uniform sample, in uniformly
/// random order, whatever the order of the rows.
///
/// One pass on all threads, some 3 ns per row of one core. Where keys that small end is known beforehand, so that workers
/// hold little more than the sample between them; should it be too few (once in millions of times), another pass takes all.
///
/// # Errors
/// An interrupt.
pub fn smallest_rows(
    columns: &Columns,
    ids: Ids,
    keys: Keys,
    n_rows: usize,
    (team, watch): (&Team, &mut Watch),
) -> Result<Vec<usize>> {
    let n = columns.n_examples();
    let n_rows = n_rows.min(columns.n_valid());
    let mut open = Some(Fence::of_keys(n_rows, columns.n_valid()).open);
    loop {
        watch.begin("sampling", n)?;
        let mut workers = team.workers(|| Smallest::new(n_rows));
        for first in (0..n).step_by(BATCH_ROWS) {
            let end = n.min(first + BATCH_ROWS);
            let parts =
                (first..end).step_by(PART_ROWS).map(|first| first..end.min(first + PART_ROWS)).collect();
            team.each(&mut workers, parts, |smallest, rows| {
                for row in columns.valid_rows(rows) {
                    let key = keys.key(ids.get(row));
                    if open.is_none_or(|open| key < open) {
                        smallest.push((key, row));
                    }
                }
            });
            watch.advance(end - first)?;
        }
        let mut smallest = Smallest::new(n_rows);
        workers.into_states().for_each(|state| smallest.merge(state));
        let rows: Vec<usize> = smallest.into_sorted().into_iter().map(|(_, row)| row).collect();
        if rows.len() == n_rows || open.take().is_none() {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Layout;
    use crate::error::Error;
    use proptest::prelude::*;
    use std::ops::ControlFlow;

    fn sample(valid: &[bool], ids: Ids, keys: Keys, n_rows: usize, n_threads: usize) -> Vec<usize> {
        let column = vec![0.0_f32; valid.len()];
        let columns = Columns::new(Layout::Columns(vec![&column[..]]), valid).unwrap();
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        let team = Team::new(n_threads).unwrap();
        smallest_rows(&columns, ids, keys, n_rows, (&team, &mut Watch::new(&mut go_on))).unwrap()
    }

    /// The obvious way: sort all of them.
    fn sorted(valid: &[bool], ids: Ids, keys: Keys, n_rows: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = (0..valid.len()).filter(|&row| valid[row]).collect();
        rows.sort_by_key(|&row| (keys.key(ids.get(row)), row));
        rows.truncate(n_rows);
        rows
    }

    proptest! {
        #[test]
        fn keeps_what_sorting_would(items in prop::collection::vec(0_u64..500, 0..600), k in 0_usize..80, cut in 0_usize..600) {
            let cut = cut.min(items.len());
            let (mut left, mut right) = (Smallest::new(k), Smallest::new(k));
            items[..cut].iter().for_each(|&item| left.push(item));
            items[cut..].iter().for_each(|&item| right.push(item));
            left.merge(right);
            let mut sorted = items;
            sorted.sort_unstable();
            sorted.truncate(k);
            prop_assert_eq!(left.into_sorted(), sorted);
        }
    }

    proptest! {
        #[test]
        fn a_sample_is_what_sorting_finds(
            valid in prop::collection::vec(prop::bool::weighted(0.8), 0..2000), share in 0.0..1.3, seed: u64,
        ) {
            let keys = Keys::new(seed, "test");
            let n_rows = (valid.len() as f64 * share) as usize;
            let given: Vec<u64> = (0..valid.len() as u64).map(|row| row * row + 7).collect();
            for ids in [Ids::RowNumbers(valid.len()), Ids::Given(&given)] {
                let expected = sorted(&valid, ids, keys, n_rows);
                for n_threads in [1, 2, 5] {
                    prop_assert_eq!(&sample(&valid, ids, keys, n_rows, n_threads), &expected);
                }
            }
        }
    }

    #[test]
    fn unlucky_ids_are_sampled_right() {
        // The valid ones have the largest keys of ten times as many: none lies where so few should end.
        let keys = Keys::new(1, "test");
        let mut ids: Vec<u64> = (0..5000).collect();
        ids.sort_unstable_by_key(|id| !keys.key(*id));
        ids.truncate(500);
        let (valid, ids) = (vec![true; 500], Ids::Given(&ids));
        let expected = sorted(&valid, ids, keys, 20);
        assert!(keys.key(ids.get(expected[0])) > Fence::of_keys(20, 500).open);
        assert_eq!(sample(&valid, ids, keys, 20, 2), expected);
    }

    #[test]
    fn interrupts() {
        let column = vec![0.0_f32; 5000];
        let columns = Columns::all_valid(Layout::Columns(vec![&column[..]])).unwrap();
        let mut left = 3;
        let mut report = |_, _, _| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let with = (&Team::new(2).unwrap(), &mut Watch::new(&mut report));
        let found = smallest_rows(&columns, Ids::RowNumbers(5000), Keys::new(0, "test"), 10, with);
        assert_eq!(found, Err(Error::Interrupted));
    }
}
