//! K-means over trajectories.

use crate::door;
use crate::losses;
use lossift_core::kernels::Kernel;
use lossift_core::kmeans::{self, Fit, Init, Parameters, Pruning};
use lossift_core::shape::{Shape, Trajectories};
use numpy::{Ix2, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Clusters of examples, numbered by their smallest keyed member id, and the record of how they were found.
#[pyclass(frozen, module = "lossift._native")]
pub struct Clustering {
    /// int32[N]: the cluster of each example; -1 where it is not valid.
    #[pyo3(get)]
    labels: Py<PyArray1<i32>>,
    /// float32[K, T]: the centroids of the clusters that have members.
    #[pyo3(get)]
    centroids: Py<PyArray2<f32>>,
    /// int64[K]: members per cluster.
    #[pyo3(get)]
    sizes: Py<PyArray1<i64>>,
    /// Sum of squared distances of all valid examples from their clusters' centroids.
    #[pyo3(get)]
    total_inertia: f64,
    /// Sum of squared distances at each assignment of the fit: one per iteration, and the last one; or one per mini-batch.
    #[pyo3(get)]
    inertia: Vec<f64>,
    /// How many examples changed their cluster at each assignment.
    #[pyo3(get)]
    moved: Vec<usize>,
    /// How many empty clusters took a far example after each assignment.
    #[pyo3(get)]
    reseeded: Vec<usize>,
    /// "no label moved", "few labels moved", "inertia stalled" or "n_iterations reached".
    #[pyo3(get)]
    why_stopped: &'static str,
    /// "cells" where distances that can't matter were left out, "none" where all were calculated; all else is the same.
    #[pyo3(get)]
    pruning: &'static str,
    /// The share of the distances that was calculated at each assignment.
    #[pyo3(get)]
    evaluated: Vec<f64>,
    /// What the centroids were fitted on: "full", "sample" or "minibatch".
    #[pyo3(get)]
    fit: &'static str,
    /// How many rows the centroids were fitted on; the record of the assignments is about these.
    #[pyo3(get)]
    n_fit_rows: usize,
}

/// Clusters of trajectories by k-means: a :class:`Clustering`.
///
/// The same bits for any number of threads, any order of the rows and any CPU.
///
/// Parameters
/// ----------
/// columns
///     A sequence of T vectors of N, or one array (N, T), of float16, bfloat16 (of ml_dtypes), float32 or float64, one
///     type for all. Read where it lies, with any forward strides; clustering works in float32.
/// valid
///     bool[N], read where it lies; other examples are not looked at. A valid one that is not finite, once shaped, is an
///     error. None: all are valid.
/// ids
///     uint64[N], distinct: they stand for the rows wherever chance or a tie decides; None stands for the row numbers.
/// n_clusters
///     How many clusters, at most: fewer when there are fewer distinct examples.
/// n_iterations
///     How many times the centroids move, at most; labels always fit the centroids that are returned.
/// seed
///     0 <= seed < 2**64.
/// shape
///     "raw", "relative" (to the first state), "zscore" or "differences".
/// init
///     "k-means++", "random" (examples), or float32[K, T]: the centroids to start from.
/// fit
///     What the centroids are fitted on: "full", all valid rows; "sample", a part drawn by keyed hash; "minibatch", small
///     batches one after the other; "auto", which depends on N and K only. All rows are assigned to them in the end.
/// max_fit_rows
///     Size of a "sample"; None takes as many as centroids need.
/// n_restarts
///     How many times to begin anew, from other centroids; the fit of the smallest inertia is kept.
/// tolerance
///     End when an assignment changes no more than this share of the labels.
/// pruning
///     "cells" leaves out scores that can't matter, "none" calculates all, None does whichever promises to be faster. The
///     result is the same to the last bit.
/// n_threads
///     Threads.
/// progress
///     Called with (what, done, total) some times a second, from the calling thread; may raise to stop.
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
#[pyo3(signature = (columns, valid=None, ids=None, *, n_clusters, n_iterations, seed, shape="raw", init=None, fit="auto", max_fit_rows=None, n_restarts=None, tolerance=0.0, pruning=None, n_threads=None, progress=None))]
#[expect(clippy::too_many_arguments, reason = "keyword-only options have names")]
pub fn cluster<'py>(
    py: Python<'py>,
    columns: &Bound<'py, PyAny>,
    valid: Option<&Bound<'py, PyAny>>,
    ids: Option<&Bound<'py, PyAny>>,
    n_clusters: &Bound<'py, PyAny>,
    n_iterations: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    shape: &str,
    init: Option<&Bound<'py, PyAny>>,
    fit: &str,
    max_fit_rows: Option<&Bound<'py, PyAny>>,
    n_restarts: Option<&Bound<'py, PyAny>>,
    tolerance: f64,
    pruning: Option<&str>,
    n_threads: Option<&Bound<'py, PyAny>>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Clustering> {
    let shape = Shape::from_name(shape).map_err(|error| door::exception(&error))?;
    let mut fit = Fit::from_name(fit).map_err(|error| door::exception(&error))?;
    if let Some(rows) = max_fit_rows {
        if !matches!(fit, Fit::Sample(_)) {
            let message = format!("max_fit_rows: found {rows}, but fit {:?} takes none", fit.name());
            return Err(PyValueError::new_err(message));
        }
        fit = Fit::Sample(Some(door::number("max_fit_rows", rows, 1)?));
    }
    let centroids = init.filter(|init| !init.is_instance_of::<PyString>());
    let centroids = centroids.map(|init| door::array::<f32, Ix2>("init", init)).transpose()?;
    let init = match (&centroids, init) {
        (Some(centroids), _) => Init::Given(centroids.as_slice()?),
        (None, None) => Init::PlusPlus,
        (None, Some(name)) => {
            Init::from_name(&name.extract::<String>()?).map_err(|error| door::exception(&error))?
        }
    };
    let n_clusters: usize = door::number("n_clusters", n_clusters, 1)?;
    if let Some(centroids) = centroids.as_ref().filter(|centroids| centroids.shape()[0] != n_clusters) {
        let found = centroids.shape()[0];
        let message = format!("init: found {found} centroids, need {n_clusters}, as many as n_clusters");
        return Err(PyValueError::new_err(message));
    }
    let parameters = Parameters {
        n_clusters,
        n_iterations: door::number("n_iterations", n_iterations, 1)?,
        seed: door::number("seed", seed, 0)?,
        init,
        fit,
        n_restarts: n_restarts.map_or(Ok(1), |n_restarts| door::number("n_restarts", n_restarts, 1))?,
        tolerance,
        n_threads: door::n_threads(n_threads)?,
        pruning: pruning.map(Pruning::from_name).transpose().map_err(|error| door::exception(&error))?,
        kernel: Kernel::choose().map_err(|error| door::exception(&error))?,
    };
    let found = losses::run(py, progress, (columns, valid, ids), |columns, ids, watch| {
        kmeans::cluster(Trajectories::new(columns, shape)?, ids, parameters, watch)
    })?;
    let n_dims = found.centroids.len() / found.sizes.len();
    Ok(Clustering {
        labels: PyArray1::from_vec(py, found.labels).unbind(),
        centroids: PyArray1::from_vec(py, found.centroids).reshape([found.sizes.len(), n_dims])?.unbind(),
        sizes: PyArray1::from_vec(py, found.sizes).unbind(),
        total_inertia: found.inertia,
        fit: found.fit.name(),
        inertia: found.record.steps.iter().map(|step| step.inertia).collect(),
        moved: found.record.steps.iter().map(|step| step.moved).collect(),
        reseeded: found.record.steps.iter().map(|step| step.reseeded).collect(),
        why_stopped: found.record.stop.text(),
        pruning: found.record.pruning.name(),
        evaluated: found.record.evaluated,
        n_fit_rows: found.n_fit_rows,
    })
}
