//! How many clusters.

use crate::door;
use crate::losses;
use lossift_core::kernels::Kernel;
use lossift_core::kmeans::{self, Fit, Question};
use lossift_core::shape::{Shape, Trajectories};
use pyo3::prelude::*;

/// What each number of clusters comes to, in the order in which they were given.
#[pyclass(frozen, module = "lossift._native")]
pub struct Diagnoses {
    /// How many clusters have members.
    #[pyo3(get)]
    n_found: Vec<usize>,
    /// Sum of squared distances of all valid examples from their clusters' centroids.
    #[pyo3(get)]
    inertia: Vec<f64>,
    /// Mean simplified silhouette of all valid examples; None for a single cluster.
    #[pyo3(get)]
    silhouette: Vec<Option<f64>>,
    /// How many times the centroids moved.
    #[pyo3(get)]
    n_iterations: Vec<usize>,
    /// "no label moved" or "n_iterations reached".
    #[pyo3(get)]
    why_stopped: Vec<&'static str>,
    /// What the centroids were fitted on: "full" or "sample".
    #[pyo3(get)]
    fit: &'static str,
    /// How many rows the centroids were fitted on.
    #[pyo3(get)]
    n_fit_rows: usize,
}

/// Inertia and simplified silhouette for several numbers of clusters: a :class:`Diagnoses`.
///
/// All of them iterate side by side, in one pass over the data per iteration. The same bits for any number of threads, any
/// order of the rows and any CPU. `columns`, `valid`, `ids`, `seed`, `shape` and `progress` as in :func:`cluster`.
///
/// Parameters
/// ----------
/// n_clusters
///     The numbers of clusters, in any order.
/// n_iterations
///     How many times the centroids move, at most.
/// fit
///     What the centroids are fitted on: "full", "sample", or "auto", which depends on N and the largest of `n_clusters`.
///     All rows are measured in the end.
/// n_threads
///     Threads.
///
/// Raises
/// ------
/// ValueError
///     An argument outside what is allowed; the message says which, what was found and what is allowed.
/// LostFileError
///     The file under a memory-mapped column shrank or failed during the call (Linux; elsewhere a crash).
/// KeyboardInterrupt
///     Ctrl-C, within a second.
#[pyfunction]
#[pyo3(signature = (columns, valid=None, ids=None, *, n_clusters, n_iterations, seed, shape="raw", fit="auto", n_threads=None, progress=None))]
#[expect(clippy::too_many_arguments, reason = "keyword-only options have names")]
pub fn diagnose<'py>(
    py: Python<'py>,
    columns: &Bound<'py, PyAny>,
    valid: Option<&Bound<'py, PyAny>>,
    ids: Option<&Bound<'py, PyAny>>,
    n_clusters: &Bound<'py, PyAny>,
    n_iterations: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    shape: &str,
    fit: &str,
    n_threads: Option<&Bound<'py, PyAny>>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Diagnoses> {
    let shape = Shape::from_name(shape).map_err(|error| door::exception(&error))?;
    let sizes = n_clusters.try_iter()?.map(|number| door::number("n_clusters", &number?, 1));
    let sizes: Vec<usize> = sizes.collect::<PyResult<_>>()?;
    let question = Question {
        n_clusters: &sizes,
        n_iterations: door::number("n_iterations", n_iterations, 1)?,
        seed: door::number("seed", seed, 0)?,
        fit: Fit::from_name(fit).map_err(|error| door::exception(&error))?,
        n_threads: door::n_threads(n_threads)?,
        kernel: Kernel::choose().map_err(|error| door::exception(&error))?,
    };
    let found = losses::run(py, progress, (columns, valid, ids), |columns, ids, watch| {
        kmeans::diagnose(Trajectories::new(columns, shape)?, ids, question, watch)
    })?;
    Ok(Diagnoses {
        n_found: found.rows.iter().map(|row| row.n_found).collect(),
        inertia: found.rows.iter().map(|row| row.inertia).collect(),
        silhouette: found.rows.iter().map(|row| row.silhouette).collect(),
        n_iterations: found.rows.iter().map(|row| row.n_iterations).collect(),
        why_stopped: found.rows.iter().map(|row| row.stop.text()).collect(),
        fit: found.fit.name(),
        n_fit_rows: found.n_fit_rows,
    })
}
