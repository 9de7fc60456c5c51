//! Reasons for being invalid: merged, found and counted where they lie.

use crate::door;
use crate::losses::Losses;
use lossift_core::reasons::{self, Rule};
use numpy::{Ix1, PyArray1, PyReadonlyArray};
use pyo3::prelude::*;

/// Takes over the reasons of others where `why` has none, in place: the first reason found is the one told.
///
/// Parameters
/// ----------
/// why
///     uint8[N], 0 for none. Written to.
/// others
///     A sequence of uint8[N].
/// n_threads
///     Threads.
#[pyfunction]
#[pyo3(signature = (why, others, *, n_threads=None))]
pub fn merge_reasons(
    py: Python<'_>,
    why: &Bound<'_, PyAny>,
    others: &Bound<'_, PyAny>,
    n_threads: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let mut why = door::array_to_write::<u8, Ix1>("why", why)?;
    let name = |index: usize| format!("others[{index}]");
    let others = others.try_iter()?.enumerate();
    let others = others.map(|(index, other)| door::array::<u8, Ix1>(&name(index), &other?));
    let others: Vec<PyReadonlyArray<u8, Ix1>> = others.collect::<PyResult<_>>()?;
    let reads: Vec<door::Read> =
        others.iter().enumerate().map(|(index, other)| door::read(name(index), other)).collect();
    let others: Vec<&[u8]> = others.iter().map(|other| other.as_slice()).collect::<Result<_, _>>()?;
    let (why, n_threads) = (why.as_slice_mut()?, door::n_threads(n_threads)?);
    door::run(py, None, &reads, |mut watch| reasons::merge(why, &others, n_threads, &mut watch))
}

/// Writes `reason` into `why`, in place, where it has none and the losses break a rule.
///
/// Parameters
/// ----------
/// why
///     uint8[N], 0 for none. Written to.
/// columns
///     As for `cluster`.
/// states
///     int64[S]: numbers of the columns that are looked at.
/// rule
///     "non-finite": one of the losses is not finite in float32; "unscalable": the first is not positive, or another
///     one over it is not finite.
/// reason
///     1 to 255.
/// n_threads
///     Threads.
#[pyfunction]
#[pyo3(signature = (why, columns, states, rule, reason, *, n_threads=None))]
pub fn mark_reasons<'py>(
    py: Python<'py>,
    why: &Bound<'py, PyAny>,
    columns: &Bound<'py, PyAny>,
    states: &Bound<'py, PyAny>,
    rule: &str,
    reason: &Bound<'py, PyAny>,
    n_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let rule = Rule::from_name(rule).map_err(|error| door::exception(&error))?;
    let mut why = door::array_to_write::<u8, Ix1>("why", why)?;
    let states = door::array::<i64, Ix1>("states", states)?;
    // A negative number is beyond any, and refused as such.
    let states: Vec<usize> = states.as_slice()?.iter().map(|&state| state as usize).collect();
    let losses = Losses::new(columns)?;
    let reads = losses.reads();
    let how = (rule, door::number("reason", reason, 1)?);
    let n_threads = door::n_threads(n_threads)?;
    let (why, columns) = (why.as_slice_mut()?, losses.borrow(None)?);
    door::run(py, None, &reads, move |mut watch| {
        reasons::mark(why, (&columns?, &states), how, n_threads, &mut watch)
    })
}

/// How often each reason stands in `why`: int64[256].
///
/// Parameters
/// ----------
/// why
///     uint8[N].
/// n_threads
///     Threads.
#[pyfunction]
#[pyo3(signature = (why, *, n_threads=None))]
pub fn count_reasons<'py>(
    py: Python<'py>,
    why: &Bound<'py, PyAny>,
    n_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let why = door::array::<u8, Ix1>("why", why)?;
    let reads = [door::read("why", &why)];
    let (why, n_threads) = (why.as_slice()?, door::n_threads(n_threads)?);
    let counts = door::run(py, None, &reads, |mut watch| reasons::count(why, n_threads, &mut watch))?;
    Ok(PyArray1::from_slice(py, &counts))
}
