//! Quotas: how much of a budget each cluster gives, smallest cluster first.
//!
//! `SmallToLarge` (arXiv 2403.07384) as its authors' code does it: in the order of size, the k-th of K clusters gets
//! an equal share of what is left, `floor((B - taken) / (K - k + 1))`, or all of itself if it is no larger. Small
//! clusters are exhausted and what they could not use goes to the larger ones; equal budgets per *cluster*
//! become, example by example, a preference for the rare.
//!
//! Two properties hold exactly and are tested: the quotas sum to the budget, and with the budget no quota ever
//! shrinks (so a smaller selection lies inside a larger one). Cost: one sort of K.

use crate::error::{Error, Result};

/// Quotas for clusters of the given sizes that sum to `budget`.
///
/// `sizes`: members per cluster. `ranks`: one per cluster; of two clusters of one size the smaller rank goes first.
///
/// # Errors
/// Unequal lengths, a negative size, or a budget that is negative or larger than the sum of the sizes.
pub fn smallest_first(sizes: &[i64], ranks: &[u64], budget: i64) -> Result<Vec<i64>> {
    if ranks.len() != sizes.len() {
        return Err(Error::Length {
            argument: "ranks",
            found: ranks.len(),
            expected: sizes.len(),
            of: "sizes",
        });
    }
    if let Some(index) = sizes.iter().position(|&size| size < 0) {
        let (found, most) = (i128::from(sizes[index]), i128::from(i64::MAX));
        return Err(Error::Element { argument: "sizes", index, found, least: 0, most });
    }
    let available = sizes.iter().map(|&size| i128::from(size)).sum();
    if budget < 0 || i128::from(budget) > available {
        return Err(Error::Budget { budget, available });
    }
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_unstable_by_key(|&cluster| (sizes[cluster], ranks[cluster], cluster));
    let mut quotas = vec![0; sizes.len()];
    let mut left = budget;
    for (place, &cluster) in order.iter().enumerate() {
        let share = left / (order.len() - place) as i64;
        quotas[cluster] = share.min(sizes[cluster]);
        left -= quotas[cluster];
    }
    Ok(quotas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (sizes, ranks, budget, expected) in [
            (vec![], vec![], 0, vec![]),
            (vec![5], vec![0], 3, vec![3]),
            (vec![10, 10, 10], vec![3, 1, 2], 10, vec![4, 3, 3]), // the last in order gets the remainder
            (vec![1, 100, 100], vec![0, 1, 2], 11, vec![1, 5, 5]),
            (vec![100, 2, 0, 30], vec![0, 1, 2, 3], 50, vec![24, 2, 0, 24]),
            (vec![4, 4, 4], vec![0, 1, 2], 2, vec![0, 1, 1]), // fewer than clusters: the first get nothing
            (vec![3, 4], vec![0, 0], 7, vec![3, 4]),
        ] {
            assert_eq!(smallest_first(&sizes, &ranks, budget).unwrap(), expected, "{sizes:?} {budget}");
        }
    }

    #[test]
    fn refusals() {
        for (sizes, ranks, budget, message) in [
            (vec![1], vec![], 1, "ranks: found 0 elements, need 1, as many as sizes"),
            (vec![1, -1], vec![0, 0], 0, "sizes: found -1 at index 1, allowed are 0 to 9223372036854775807"),
            (vec![1, 2], vec![0, 0], 4, "budget: found 4, allowed are 0 to 3, the sum of the sizes"),
            (vec![1, 2], vec![0, 0], -1, "budget: found -1, allowed are 0 to 3, the sum of the sizes"),
        ] {
            assert_eq!(smallest_first(&sizes, &ranks, budget).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn sums_exactly_and_grows_with_the_budget(
            clusters in prop::collection::vec((0_i64..40, 0_u64..5), 0..20),
        ) {
            let (sizes, ranks): (Vec<i64>, Vec<u64>) = clusters.into_iter().unzip();
            let mut before = vec![0; sizes.len()];
            for budget in 0..=sizes.iter().sum() {
                let quotas = smallest_first(&sizes, &ranks, budget).unwrap();
                prop_assert_eq!(quotas.iter().sum::<i64>(), budget);
                prop_assert!(quotas.iter().zip(&sizes).all(|(quota, size)| quota <= size));
                prop_assert!(quotas.iter().zip(&before).all(|(quota, before)| quota >= before));
                before = quotas;
            }
        }
    }
}
