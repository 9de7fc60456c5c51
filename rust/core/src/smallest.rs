//! The k smallest of a stream, in memory O(k) and without sorting the stream.
//!
//! A buffer of up to 2k items; when it is full, a selection keeps its k smallest and everything not below the
//! largest of those is refused from then on. An item costs a comparison, and O(1) amortised when it gets in. What
//! is kept is a function of the *set* of items: neither their order nor a split into streams that are merged
//! later changes it, as long as the order on items is total.

use crate::ids::Ids;
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

/// The `n_rows` of the `rows` with the smallest keys, smallest first: a uniform sample, in uniformly random order,
/// whatever the order of the rows.
#[must_use]
pub fn smallest_rows(ids: Ids, rows: impl Iterator<Item = usize>, keys: Keys, n_rows: usize) -> Vec<usize> {
    let mut smallest = Smallest::new(n_rows);
    for row in rows {
        smallest.push((keys.key(ids.get(row)), row));
    }
    smallest.into_sorted().into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
}
