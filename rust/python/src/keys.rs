//! Keyed hashes of ids.

use crate::door;
use lossift_core::rng::Keys;
use numpy::{Ix1, PyArray1};
use pyo3::prelude::*;

/// The keyed hashes of ids: uint64[N], distinct for distinct ids.
///
/// All chance in lossift is "the smallest keys of a seed and a purpose", so it depends on ids and never on the order
/// of rows.
///
/// Parameters
/// ----------
/// ids
///     uint64[N].
/// seed
///     0 <= seed < 2**64.
/// purpose
///     What the chance is for; another purpose is another hash.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> from lossift._native import keys
/// >>> len(set(keys(np.arange(1000, dtype=np.uint64), 0, "example").tolist()))
/// 1000
#[pyfunction]
pub fn keys<'py>(
    py: Python<'py>,
    ids: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    purpose: &str,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let ids = door::array::<u64, Ix1>("ids", ids)?;
    let keys = Keys::new(door::number("seed", seed, 0)?, purpose);
    let reads = [door::read("ids", &ids)];
    let ids = ids.as_slice()?;
    let hashed = door::run(py, None, &reads, |_| Ok(ids.iter().map(|&id| keys.key(id)).collect()))?;
    Ok(PyArray1::from_vec(py, hashed))
}
