//! Cells and draws from them.

use crate::door;
use lossift_core::cells::{Cells, Numbers};
use lossift_core::draw::Draw;
use lossift_core::rng::{Keys, TIE};
use numpy::{Ix1, Ix2, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// How many examples are in each cell, and the smallest keyed id among them: (int64[S, K], uint64[S, K]).
///
/// A cell is a stratum x cluster. The smallest keyed id is what breaks ties between groups of one size, and numbers
/// clusters; it is 2**64 - 1 where there is no example.
///
/// Parameters
/// ----------
/// n_strata, n_clusters
///     S and K, at least 1.
/// ids
///     uint64[N], distinct; None stands for the row numbers.
/// clusters
///     int32[N], the cluster of each example, -1 for none; None: all are in the only one.
/// strata
///     int32[N], the stratum of each example, -1 for the last one; None: all are in the only one.
/// excluded
///     uint8[N], not 0 for examples that are in no cell; None: those without a cluster are.
/// seed
///     0 <= seed < 2**64.
/// n_threads
///     Threads.
///
/// Raises
/// ------
/// ValueError
///     When lengths don't agree or a number is out of range.
#[pyfunction]
#[pyo3(signature = (n_strata, n_clusters, ids=None, *, clusters=None, strata=None, excluded=None, seed, n_threads=None))]
#[expect(clippy::too_many_arguments, reason = "keyword-only options have names")]
#[expect(clippy::type_complexity, reason = "two arrays are returned")]
pub fn census<'py>(
    py: Python<'py>,
    n_strata: &Bound<'py, PyAny>,
    n_clusters: &Bound<'py, PyAny>,
    ids: Option<&Bound<'py, PyAny>>,
    clusters: Option<&Bound<'py, PyAny>>,
    strata: Option<&Bound<'py, PyAny>>,
    excluded: Option<&Bound<'py, PyAny>>,
    seed: &Bound<'py, PyAny>,
    n_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<u64>>)> {
    let n_strata = door::number::<u32>("n_strata", n_strata, 1)? as usize;
    let shape = [n_strata, door::number::<u32>("n_clusters", n_clusters, 1)? as usize];
    let arrays = Arrays::new(clusters, strata, excluded)?;
    let id_array = ids.map(|ids| door::array::<u64, Ix1>("ids", ids)).transpose()?;
    let cells = arrays.cells(shape)?;
    let ids = door::ids(id_array.as_ref(), arrays.n_examples())?;
    let keys = Keys::new(door::number("seed", seed, 0)?, TIE);
    let n_threads = door::n_threads(n_threads)?;
    let mut reads = arrays.reads();
    reads.extend(id_array.as_ref().map(|ids| door::read("ids", ids)));
    let found = door::run(py, None, &reads, |mut watch| cells.census(ids, keys, n_threads, &mut watch))?;
    Ok((
        PyArray1::from_vec(py, found.sizes).reshape(shape)?,
        PyArray1::from_vec(py, found.smallest).reshape(shape)?,
    ))
}

/// Rows drawn from each cell, its quota of them: int64[sum of quotas], ascending.
///
/// Parameters
/// ----------
/// quotas
///     int64[S, K], one for each cell: stratum x cluster.
/// ids
///     uint64[N], distinct; None stands for the row numbers.
/// clusters, strata, excluded
///     The cells, as for `census`.
/// seed
///     0 <= seed < 2**64.
/// sizes
///     int64[S, K], how many examples there are in each cell, as `census` found them: saves counting them.
/// scores
///     float64[N], of which each cell keeps the largest, ties by keyed id; None draws uniformly, without replacement. A
///     larger quota contains a smaller one either way.
/// n_threads
///     Threads.
///
/// Raises
/// ------
/// ValueError
///     When a quota is larger than its cell, a score in a cell is NaN, a number is out of range, or lengths don't agree.
#[pyfunction]
#[pyo3(signature = (quotas, ids=None, *, clusters=None, strata=None, excluded=None, seed, sizes=None, scores=None, n_threads=None))]
#[expect(clippy::too_many_arguments, reason = "keyword-only options have names")]
pub fn draw<'py>(
    py: Python<'py>,
    quotas: &Bound<'py, PyAny>,
    ids: Option<&Bound<'py, PyAny>>,
    clusters: Option<&Bound<'py, PyAny>>,
    strata: Option<&Bound<'py, PyAny>>,
    excluded: Option<&Bound<'py, PyAny>>,
    seed: &Bound<'py, PyAny>,
    sizes: Option<&Bound<'py, PyAny>>,
    scores: Option<&Bound<'py, PyAny>>,
    n_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let quotas = door::array::<i64, Ix2>("quotas", quotas)?;
    let ids = ids.map(|ids| door::array::<u64, Ix1>("ids", ids)).transpose()?;
    let arrays = Arrays::new(clusters, strata, excluded)?;
    let sizes = sizes.map(|sizes| door::array::<i64, Ix2>("sizes", sizes)).transpose()?;
    let scores = scores.map(|scores| door::array::<f64, Ix1>("scores", scores)).transpose()?;
    let draw = Draw {
        cells: arrays.cells([quotas.shape()[0], quotas.shape()[1]])?,
        quotas: quotas.as_slice()?,
        sizes: sizes.as_ref().map(|sizes| sizes.as_slice()).transpose()?,
        ids: door::ids(ids.as_ref(), arrays.n_examples())?,
        scores: scores.as_ref().map(|scores| scores.as_slice()).transpose()?,
        seed: door::number("seed", seed, 0)?,
    };
    let n_threads = door::n_threads(n_threads)?;
    let mut reads = arrays.reads();
    reads.push(door::read("quotas", &quotas));
    reads.extend(ids.as_ref().map(|ids| door::read("ids", ids)));
    reads.extend(sizes.as_ref().map(|sizes| door::read("sizes", sizes)));
    reads.extend(scores.as_ref().map(|scores| door::read("scores", scores)));
    let rows = door::run(py, None, &reads, |mut watch| draw.rows(n_threads, &mut watch))?;
    Ok(PyArray1::from_vec(py, rows))
}

/// What cells are made from.
struct Arrays<'py> {
    clusters: Option<PyReadonlyArray<'py, i32, Ix1>>,
    strata: Option<PyReadonlyArray<'py, i32, Ix1>>,
    excluded: Option<PyReadonlyArray<'py, u8, Ix1>>,
}

impl<'py> Arrays<'py> {
    fn new(
        clusters: Option<&Bound<'py, PyAny>>,
        strata: Option<&Bound<'py, PyAny>>,
        excluded: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            clusters: clusters.map(|clusters| door::array("clusters", clusters)).transpose()?,
            strata: strata.map(|strata| door::array("strata", strata)).transpose()?,
            excluded: excluded.map(|excluded| door::array("excluded", excluded)).transpose()?,
        })
    }

    /// The arrays' memory, to be guarded.
    fn reads(&self) -> Vec<door::Read> {
        let numbers = [("clusters", &self.clusters), ("strata", &self.strata)];
        let mut reads: Vec<door::Read> = numbers
            .into_iter()
            .filter_map(|(name, array)| array.as_ref().map(|array| door::read(name, array)))
            .collect();
        reads.extend(self.excluded.as_ref().map(|excluded| door::read("excluded", excluded)));
        reads
    }

    /// N, as the first of the arrays says; that the others agree is for the core to say.
    fn n_examples(&self) -> usize {
        let numbers = self.clusters.as_ref().or(self.strata.as_ref()).map(|numbers| numbers.len());
        numbers.or(self.excluded.as_ref().map(|excluded| excluded.len())).unwrap_or(0)
    }

    fn cells(&self, [n_strata, n_clusters]: [usize; 2]) -> PyResult<Cells<'_>> {
        Ok(Cells {
            clusters: numbers("clusters", self.clusters.as_ref(), n_clusters)?,
            strata: numbers("strata", self.strata.as_ref(), n_strata)?,
            excluded: self.excluded.as_ref().map(|excluded| excluded.as_slice()).transpose()?,
        })
    }
}

fn numbers<'a>(
    name: &str,
    array: Option<&'a PyReadonlyArray<'_, i32, Ix1>>,
    n: usize,
) -> PyResult<Option<Numbers<'a>>> {
    match array {
        Some(array) => Ok(Some(Numbers { of: array.as_slice()?, n })),
        None if n == 1 => Ok(None),
        None => Err(PyValueError::new_err(format!("{name}: found none, but there are to be {n}"))),
    }
}
