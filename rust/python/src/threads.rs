//! How many threads the machine grants.

use pyo3::prelude::*;

/// How many threads this process may keep busy: the CPU affinity mask and the cgroup's quota are honoured.
#[pyfunction]
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
