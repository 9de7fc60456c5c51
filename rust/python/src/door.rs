//! The door between Python and the core: everything that enters is checked here, once; everything that leaves too.
//!
//! [`run`] is the only place that releases the interpreter lock, watches for Ctrl-C, reports progress, guards against
//! files that shrink underneath a map, and turns the core's errors and panics into Python's. The other functions turn arguments into slices and numbers; what they refuse is a
//! `ValueError` or `TypeError` that names the argument, what was found and what is allowed.

use crate::guard::Guard;
use lossift_core::error::{Error, Result};
use lossift_core::ids::Ids;
use lossift_core::interrupt::Watch;
use numpy::ndarray::Dimension;
use numpy::{
    Element, Ix1, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray, PyReadwriteArray, PyUntypedArray,
    PyUntypedArrayMethods, dtype,
};
use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::borrow::Cow;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};

create_exception!(
    lossift._native,
    LostFileError,
    PyOSError,
    "A file under a memory-mapped array shrank or failed while the array was being read; the array is lost."
);

/// An array that the core is about to read: the argument's name and where its memory lies.
pub struct Read {
    argument: String,
    bytes: Range<usize>,
}

/// What [`run`] has to know of an array.
pub fn read<T: Element, D: Dimension>(
    argument: impl Into<String>,
    array: &PyReadonlyArray<'_, T, D>,
) -> Read {
    let start = array.data().addr();
    Read { argument: argument.into(), bytes: start..start + array.len() * size_of::<T>() }
}

/// Runs `work` without the interpreter lock, on this thread.
///
/// Whenever the work looks at its watch, which it does on this thread only, signals are handled and `progress`, if
/// any, is called with (what, done, total). What either raises ends the work and is raised from here. So does the loss
/// of a file underneath one of the arrays in `reads`: [`LostFileError`]. A panic, here or on a worker, is a bug of ours:
/// `RuntimeError`, because pyo3's own exception passes through every `except Exception`.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    reads: &[Read],
    work: impl FnOnce(Watch) -> Result<T> + Send,
) -> PyResult<T> {
    let progress = progress.map(|progress| progress.clone().unbind());
    let mut raised = None;
    let guard = Guard::over(reads.iter().map(|read| read.bytes.clone()));
    let result = py.detach(|| {
        let mut report = |what: &'static str, done: u64, total: u64| {
            if guard.failed().is_some() {
                return ControlFlow::Break(());
            }
            let told = Python::attach(|py| {
                py.check_signals()?;
                progress
                    .as_ref()
                    .map_or(Ok(()), |progress| progress.call1(py, (what, done, total)).map(|_| ()))
            });
            match told {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    raised = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        // What the work borrows is not looked at again.
        catch_unwind(AssertUnwindSafe(|| work(Watch::new(&mut report))))
    });
    // Zeros in place of losses may be any other error too, and even a panic: they are asked for first.
    if let (None, Some(index)) = (&raised, guard.failed()) {
        let argument = &reads[index].argument;
        return Err(LostFileError::new_err(format!(
            "{argument}: the file under this array shrank or failed while it was being read; map it anew"
        )));
    }
    match result {
        Ok(result) => result.map_err(|error| raised.unwrap_or_else(|| exception(&error))),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(PyRuntimeError::new_err(format!("internal error, please report it: {said}")))
        }
    }
}

/// The core's error as Python's.
pub fn exception(error: &Error) -> PyErr {
    match error {
        Error::Threads { .. } => PyRuntimeError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// The argument as a contiguous, aligned array of `T` of the dimensions of `D`.
pub fn array<'py, T: Element, D: Dimension>(
    name: &str,
    object: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    let n_dims = D::NDIM.expect("a fixed number of dimensions");
    let wanted = || format!("a C-contiguous array of {} with {n_dims} dimension(s)", dtype::<T>(object.py()));
    let untyped = object.cast::<PyUntypedArray>().map_err(|_| {
        let found = object.get_type();
        PyTypeError::new_err(format!("{name}: found {found}, need {}", wanted()))
    })?;
    if !untyped.dtype().is_equiv_to(&dtype::<T>(object.py())) {
        return Err(PyTypeError::new_err(format!(
            "{name}: found an array of {}, need {}",
            untyped.dtype(),
            wanted()
        )));
    }
    if untyped.ndim() != n_dims {
        let found = untyped.ndim();
        return Err(PyValueError::new_err(format!("{name}: found {found} dimensions, need {}", wanted())));
    }
    let array = object.cast::<numpy::PyArray<T, D>>()?.try_readonly().map_err(|_| {
        PyValueError::new_err(format!("{name}: found an array that other native code is writing to"))
    })?;
    if !array.is_c_contiguous() || array.as_slice().is_err() {
        let message = format!("{name}: found a strided or misaligned array, need {}", wanted());
        return Err(PyValueError::new_err(message));
    }
    Ok(array)
}

/// Which examples are valid.
pub struct Mask<'py>(PyReadonlyArray<'py, u8, Ix1>);

impl<'py> Mask<'py> {
    /// The argument `valid`, a contiguous vector of NumPy's bool.
    pub fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        array::<bool, Ix1>("valid", object)?;
        array("valid", &object.call_method1("view", ("uint8",))?).map(Self)
    }

    /// The mask's memory, to be guarded.
    pub fn read(&self) -> Read {
        read("valid", &self.0)
    }

    /// The mask where it lies; a copy only if it isn't made of zeros and ones: a byte of a NumPy bool may be
    /// anything, a Rust bool may not. To look costs some 0.2 ms per million.
    pub fn get(&self) -> PyResult<Cow<'_, [bool]>> {
        let bytes = self.0.as_slice()?;
        let as_they_are = bytemuck::checked::try_cast_slice(bytes).map(Cow::Borrowed);
        Ok(as_they_are.unwrap_or_else(|_| bytes.iter().map(|&byte| byte != 0).collect()))
    }
}

/// The argument as an array to write to, as [`array`] has it to read from.
pub fn array_to_write<'py, T: Element, D: numpy::ndarray::Dimension>(
    name: &str,
    object: &Bound<'py, PyAny>,
) -> PyResult<PyReadwriteArray<'py, T, D>> {
    drop(array::<T, D>(name, object)?);
    object.cast::<numpy::PyArray<T, D>>()?.try_readwrite().map_err(|_| {
        PyValueError::new_err(format!(
            "{name}: found an array that is read-only or in use by other native code"
        ))
    })
}

/// The argument as a number of threads; None is one.
pub fn n_threads(object: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    object.map_or(Ok(1), |n_threads| number("n_threads", n_threads, 1))
}

/// The argument as the ids of `n` examples; None are their row numbers.
pub fn ids<'a>(array: Option<&'a PyReadonlyArray<'_, u64, Ix1>>, n: usize) -> PyResult<Ids<'a>> {
    Ok(array.map(|ids| ids.as_slice()).transpose()?.map_or(Ids::RowNumbers(n), Ids::Given))
}

/// The argument as a whole number of at least `least`, in a type that says how large it may be.
pub fn number<T: TryFrom<i128>>(name: &str, object: &Bound<'_, PyAny>, least: i128) -> PyResult<T> {
    // A type that has no -1 has a bit more for the rest.
    let bits = 8 * size_of::<T>() - usize::from(T::try_from(-1).is_ok());
    let wanted = || format!("a whole number from {least} to 2**{bits} - 1");
    let found = object.call_method0("__index__").map_err(|_| {
        let found = object.repr().map_or_else(|_| "something else".to_owned(), |repr| repr.to_string());
        PyTypeError::new_err(format!("{name}: found {found}, need {}", wanted()))
    })?;
    let value: Option<i128> = found.str()?.to_str()?.parse().ok();
    value
        .filter(|value| *value >= least)
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| PyValueError::new_err(format!("{name}: found {found}, need {}", wanted())))
}
