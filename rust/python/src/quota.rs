//! Quotas from sizes and a budget.

use crate::door;
use lossift_core::quota;
use numpy::{Ix1, PyArray1};
use pyo3::prelude::*;

/// Quotas of clusters that sum to the budget, smallest cluster first: int64[C].
///
/// In the order of size, the k-th of C clusters gets an equal share of what is left of the budget, rounded down, or all
/// of itself if it is no larger (SmallToLarge, arXiv 2403.07384). No quota shrinks when the budget grows.
///
/// Parameters
/// ----------
/// sizes
///     int64[C], members per cluster.
/// ranks
///     uint64[C]; of two clusters of one size the one with the smaller rank goes first.
/// budget
///     How many examples to keep in all; at most the sum of the sizes.
///
/// Raises
/// ------
/// ValueError
///     When the budget is larger than the sum of the sizes, or lengths don't agree.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> from lossift._native import smallest_first
/// >>> smallest_first(np.array([100, 2, 30]), np.arange(3, dtype=np.uint64), 50).tolist()
/// [24, 2, 24]
#[pyfunction]
pub fn smallest_first<'py>(
    py: Python<'py>,
    sizes: &Bound<'py, PyAny>,
    ranks: &Bound<'py, PyAny>,
    budget: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let sizes = door::array::<i64, Ix1>("sizes", sizes)?;
    let ranks = door::array::<u64, Ix1>("ranks", ranks)?;
    let budget = door::number("budget", budget, 0)?;
    let reads = [door::read("sizes", &sizes), door::read("ranks", &ranks)];
    let (sizes, ranks) = (sizes.as_slice()?, ranks.as_slice()?);
    let quotas = door::run(py, None, &reads, |_| quota::smallest_first(sizes, ranks, budget))?;
    Ok(PyArray1::from_vec(py, quotas))
}
