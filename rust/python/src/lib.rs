//! `lossift._native`: one thin wrapper per verb of the core. Arrays, numbers and names cross, nothing else.

#![allow(clippy::doc_markdown, reason = "the documentation of what Python sees is written for Python")]

mod cluster;
mod diagnose;
mod door;
mod draw;
#[cfg_attr(not(target_os = "linux"), path = "unguarded.rs")]
mod guard;
mod keys;
mod losses;
mod quota;
mod reasons;
mod simd;
mod threads;

use pyo3::prelude::*;

/// Clustering, quotas and draws over columns of per-example losses, in Rust.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::cluster::{Clustering, cluster};
    #[pymodule_export]
    use super::diagnose::{Diagnoses, diagnose};
    #[pymodule_export]
    use super::door::LostFileError;
    #[pymodule_export]
    use super::draw::{census, draw};
    #[pymodule_export]
    use super::keys::keys;
    #[pymodule_export]
    use super::quota::smallest_first;
    #[pymodule_export]
    use super::reasons::{count_reasons, mark_reasons, merge_reasons};
    #[pymodule_export]
    use super::simd::{simd, simd_available};
    #[pymodule_export]
    use super::threads::available_threads;

    /// The package's version: Cargo's, which the wheel takes over. And up to how many examples "auto" fits on all rows.
    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::PyModuleMethods;
        module.add("AUTO_FULL_ROWS", lossift_core::kmeans::fit::AUTO_FULL_ROWS)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
