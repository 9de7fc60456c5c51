//! Draws from cells.

use crate::door;
use lossift_core::draw::Draw;
use numpy::{Ix1, PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

/// Rows drawn from each cell, its quota of them: int64[sum of quotas], ascending.
///
/// Parameters
/// ----------
/// cells
///     int32[N], the cell of each example; -1 is never drawn.
/// quotas
///     int64[C].
/// ids
///     uint64[N], distinct; None stands for the row numbers.
/// seed
///     0 <= seed < 2**64.
/// scores
///     float64[N], of which each cell keeps the largest, ties by keyed id; None draws uniformly, without replacement. A
///     larger quota contains a smaller one either way.
///
/// Raises
/// ------
/// ValueError
///     When a quota is larger than its cell, a score in a cell is NaN, or lengths don't agree.
#[pyfunction]
#[pyo3(signature = (cells, quotas, ids=None, *, seed, scores=None))]
pub fn draw<'py>(
    py: Python<'py>,
    cells: &Bound<'py, PyAny>,
    quotas: &Bound<'py, PyAny>,
    ids: Option<&Bound<'py, PyAny>>,
    seed: &Bound<'py, PyAny>,
    scores: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let cells = door::array::<i32, Ix1>("cells", cells)?;
    let quotas = door::array::<i64, Ix1>("quotas", quotas)?;
    let ids = ids.map(|ids| door::array::<u64, Ix1>("ids", ids)).transpose()?;
    let scores = scores.map(|scores| door::array::<f64, Ix1>("scores", scores)).transpose()?;
    let draw = Draw {
        cells: cells.as_slice()?,
        quotas: quotas.as_slice()?,
        ids: door::ids(ids.as_ref(), cells.len())?,
        scores: scores.as_ref().map(|scores| scores.as_slice()).transpose()?,
        seed: door::number("seed", seed, 0)?,
    };
    let mut reads = vec![door::read("cells", &cells), door::read("quotas", &quotas)];
    reads.extend(ids.as_ref().map(|ids| door::read("ids", ids)));
    reads.extend(scores.as_ref().map(|scores| door::read("scores", scores)));
    let rows = door::run(py, None, &reads, |mut watch| draw.rows(&mut watch))?;
    Ok(PyArray1::from_vec(py, rows))
}

/// The smallest keyed id among each cell's members: uint64[C], 2**64 - 1 where it has none.
///
/// What breaks ties between cells of one size, and numbers clusters.
///
/// Parameters
/// ----------
/// cells
///     int32[N], the cell of each example, or -1.
/// n_cells
///     C.
/// ids
///     uint64[N], distinct; None stands for the row numbers.
/// seed
///     0 <= seed < 2**64.
#[pyfunction]
#[pyo3(signature = (cells, n_cells, ids=None, *, seed))]
pub fn smallest_keys<'py>(
    py: Python<'py>,
    cells: &Bound<'py, PyAny>,
    n_cells: &Bound<'py, PyAny>,
    ids: Option<&Bound<'py, PyAny>>,
    seed: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let cells = door::array::<i32, Ix1>("cells", cells)?;
    let ids = ids.map(|ids| door::array::<u64, Ix1>("ids", ids)).transpose()?;
    let (n_cells, seed) =
        (door::number::<u32>("n_cells", n_cells, 0)? as usize, door::number("seed", seed, 0)?);
    let mut reads = vec![door::read("cells", &cells)];
    reads.extend(ids.as_ref().map(|ids| door::read("ids", ids)));
    let (cells, ids) = (cells.as_slice()?, door::ids(ids.as_ref(), cells.len())?);
    let smallest =
        door::run(py, None, &reads, |_| lossift_core::draw::smallest_keys(cells, n_cells, ids, seed))?;
    Ok(PyArray1::from_vec(py, smallest))
}
