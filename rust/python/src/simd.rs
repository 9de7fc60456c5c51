//! Which instruction set the kernels use.

use crate::door;
use lossift_core::kernels::Backend;
use pyo3::prelude::*;

/// Name of the instruction set that the kernels use: "avx512", "avx2", "neon" or "scalar".
///
/// The fastest that this CPU runs, or the one that the environment variable LOSSIFT_SIMD names. Results are the
/// same bits with any of them.
///
/// Raises
/// ------
/// ValueError
///     When LOSSIFT_SIMD names none, or one that this CPU doesn't run.
#[pyfunction]
pub fn simd() -> PyResult<&'static str> {
    Backend::choose().map(Backend::name).map_err(|error| door::exception(&error))
}

/// Names of the instruction sets that this CPU runs, fastest first.
#[pyfunction]
pub fn simd_available() -> Vec<&'static str> {
    Backend::available().into_iter().map(Backend::name).collect()
}
