//! Losses as they come from NumPy: which arrays are read where they lie, and how they become the core's columns.
//!
//! One array (N, T), or T vectors of N: float16, bfloat16, float32 or float64, one type for all, in native byte order.
//! C or Fortran order and views with any forward strides are read in place: an array enters as the *span* of memory
//! from its first value to its last one (`as_strided`), together with how far apart examples and states are in it.
//! What the machine can't read in place is refused, for the caller to copy: misaligned values, values that are not
//! whole items apart (a field of a packed record), examples in reverse or broadcast from one.
//!
//! NumPy's own bfloat16 is none; the type is known by its name, as `ml_dtypes` registers it. Both halves cross as the
//! uint16 of their bits, so that nothing here depends on that package.

use crate::door;
use half::slice::HalfBitsSliceExt;
use lossift_core::columns::{Columns, Element, Layout, Strided};
use lossift_core::error::{Error, Result};
use lossift_core::ids::Ids;
use lossift_core::interrupt::Watch;
use numpy::{
    Ix1, IxDyn, PyArray, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

const WANTED: &str = "a sequence of T vectors of N, or one array (N, T), of float16, bfloat16, float32 or float64, \
                      one type for all, in native byte order";

/// Losses in one number type.
pub struct Losses<'py> {
    values: Values<'py>,
    /// The argument, or its elements.
    names: Vec<String>,
}

enum Values<'py> {
    F32(Vec<Span<'py, f32>>),
    F64(Vec<Span<'py, f64>>),
    F16(Vec<Span<'py, u16>>),
    Bf16(Vec<Span<'py, u16>>),
}

/// An array, read where it lies.
struct Span<'py, E: numpy::Element> {
    /// Everything from the first value to the last one.
    values: PyReadonlyArray<'py, E, Ix1>,
    /// The array as it was given: that it is being read is noted under its own memory.
    _given: PyReadonlyArray<'py, E, IxDyn>,
    n_examples: usize,
    n_states: usize,
    /// Values from one example to the next.
    example_step: usize,
    /// Values from one state to the next.
    state_step: usize,
}

/// Runs `work` on losses, on which of the examples are valid and on their ids, as Python gives them: all arrays are guarded
/// and read where they lie. What `work` returns, and what ends it, as in [`door::run`].
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    (columns, valid, ids): (&Bound<'_, PyAny>, Option<&Bound<'_, PyAny>>, Option<&Bound<'_, PyAny>>),
    work: impl FnOnce(Columns, Ids, Watch) -> Result<T> + Send,
) -> PyResult<T> {
    let valid = valid.map(door::Mask::new).transpose()?;
    let ids = ids.map(|ids| door::array::<u64, Ix1>("ids", ids)).transpose()?;
    let losses = Losses::new(columns)?;
    let mut reads = losses.reads();
    reads.extend(valid.as_ref().map(door::Mask::read));
    reads.extend(ids.as_ref().map(|ids| door::read("ids", ids)));
    let valid = valid.as_ref().map(door::Mask::get).transpose()?;
    let ids = door::ids(ids.as_ref(), valid.as_ref().map_or(losses.n_examples(), |valid| valid.len()))?;
    let columns = losses.borrow(valid.as_deref())?;
    door::run(py, progress, &reads, move |watch| work(columns?, ids, watch))
}

impl<'py> Losses<'py> {
    /// The argument `columns` as losses.
    pub fn new(columns: &Bound<'py, PyAny>) -> PyResult<Self> {
        let one = columns.cast::<PyUntypedArray>().is_ok();
        let arrays: Vec<Bound<'py, PyAny>> = if one {
            vec![columns.clone()]
        } else {
            let arrays = columns.try_iter().and_then(Iterator::collect);
            arrays.map_err(|_| {
                PyTypeError::new_err(format!("columns: found {}, need {WANTED}", columns.get_type()))
            })?
        };
        let name = |index| if one { "columns".to_owned() } else { format!("columns[{index}]") };
        let names: Vec<String> = (0..arrays.len()).map(name).collect();
        let mut kinds = Vec::new();
        for (array, name) in arrays.iter().zip(&names) {
            let kind = kind_of(name, array)?;
            if let Some(first) = kinds.first().filter(|first| **first != kind) {
                let message = format!("{name}: found an array of {kind}, need {first} like {}", names[0]);
                return Err(PyTypeError::new_err(message));
            }
            kinds.push(kind);
        }
        let given = || arrays.iter().zip(&names);
        let n_dims = if one { 2 } else { 1 };
        let bits = || {
            given().map(|(array, name)| Span::new(name, &array.call_method1("view", ("uint16",))?, n_dims))
        };
        let values = match kinds.first().map_or("float32", String::as_str) {
            "float64" => {
                Values::F64(given().map(|(a, name)| Span::new(name, a, n_dims)).collect::<PyResult<_>>()?)
            }
            "float16" => Values::F16(bits().collect::<PyResult<_>>()?),
            "bfloat16" => Values::Bf16(bits().collect::<PyResult<_>>()?),
            _ => Values::F32(given().map(|(a, name)| Span::new(name, a, n_dims)).collect::<PyResult<_>>()?),
        };
        Ok(Self { values, names })
    }

    /// The arrays' memory, to be guarded.
    pub fn reads(&self) -> Vec<door::Read> {
        fn all<E: numpy::Element>(spans: &[Span<'_, E>], names: &[String]) -> Vec<door::Read> {
            spans.iter().zip(names).map(|(span, name)| door::read(name, &span.values)).collect()
        }
        match &self.values {
            Values::F32(spans) => all(spans, &self.names),
            Values::F64(spans) => all(spans, &self.names),
            Values::F16(spans) | Values::Bf16(spans) => all(spans, &self.names),
        }
    }

    /// N; 0 without a state.
    pub fn n_examples(&self) -> usize {
        match &self.values {
            Values::F32(spans) => spans.first().map_or(0, |span| span.n_examples),
            Values::F64(spans) => spans.first().map_or(0, |span| span.n_examples),
            Values::F16(spans) | Values::Bf16(spans) => spans.first().map_or(0, |span| span.n_examples),
        }
    }

    /// The core's columns, all valid where no mask is given; the inner result is the core's own verdict.
    pub fn borrow<'a>(&'a self, valid: Option<&'a [bool]>) -> PyResult<Result<Columns<'a>>> {
        match &self.values {
            Values::F32(spans) => columns(spans, valid, |values| values),
            Values::F64(spans) => columns(spans, valid, |values| values),
            Values::F16(spans) => columns(spans, valid, |values| values.reinterpret_cast::<half::f16>()),
            Values::Bf16(spans) => columns(spans, valid, |values| values.reinterpret_cast::<half::bf16>()),
        }
    }
}

/// The name of the number type of an array.
fn kind_of(name: &str, array: &Bound<'_, PyAny>) -> PyResult<String> {
    let untyped = array
        .cast::<PyUntypedArray>()
        .map_err(|_| PyTypeError::new_err(format!("{name}: found {}, need {WANTED}", array.get_type())))?;
    let dtype = untyped.dtype();
    let kind: String = dtype.getattr("name")?.extract()?;
    let known = ["float16", "bfloat16", "float32", "float64"].contains(&kind.as_str());
    if known && dtype.is_native_byteorder() != Some(false) {
        return Ok(kind);
    }
    Err(PyTypeError::new_err(format!("{name}: found an array of {}, need {WANTED}", dtype.str()?)))
}

fn columns<'a, N: numpy::Element, E: Element>(
    spans: &'a [Span<'_, N>],
    valid: Option<&'a [bool]>,
    cast: impl Fn(&'a [N]) -> &'a [E],
) -> PyResult<Result<Columns<'a>>> {
    let n_examples = spans.first().map_or(0, |span| span.n_examples);
    let mut states = Vec::new();
    for span in spans {
        if span.n_examples != n_examples {
            let (found, expected, of) = (span.n_examples, n_examples, "columns[0]");
            return Ok(Err(Error::Length { argument: "columns", found, expected, of }));
        }
        let values = cast(span.values.as_slice()?);
        states.extend((0..span.n_states).map(|state| Strided {
            values: values.get(state * span.state_step..).unwrap_or(&[]),
            stride: span.example_step,
        }));
    }
    let layout = Layout::Strided { states, n_examples };
    Ok(match valid {
        Some(valid) => Columns::new(layout, valid),
        None => Columns::all_valid(layout),
    })
}

impl<'py, E: numpy::Element> Span<'py, E> {
    fn new(name: &str, array: &Bound<'py, PyAny>, n_dims: usize) -> PyResult<Self> {
        let py = array.py();
        let given = array.cast::<PyArray<E, IxDyn>>()?;
        if given.ndim() != n_dims {
            let message = format!("{name}: found {} dimensions, need {n_dims}", given.ndim());
            return Err(PyValueError::new_err(message));
        }
        let (n_examples, n_states) = (given.shape()[0], given.shape().get(1).map_or(1, |n| *n));
        let item = size_of::<E>().cast_signed();
        let strides = given.strides();
        // Where there is no next one, NumPy may say anything of how far away it is.
        let step = |axis: usize, n: usize| if n > 1 { strides[axis] } else { item };
        let (example_step, state_step) = (step(0, n_examples), step(1, n_states));
        let whole = example_step % item == 0 && state_step % item == 0;
        if !given.is_aligned() || !whole || example_step <= 0 || state_step < 0 {
            return Err(PyValueError::new_err(format!(
                "{name}: found strides of {strides:?} bytes{}, need aligned values that are whole items of {item} bytes \
                 apart, examples forward; copy it (numpy.ascontiguousarray)",
                if given.is_aligned() { "" } else { " and misaligned values" },
            )));
        }
        let steps = [example_step / item, state_step / item].map(isize::cast_unsigned);
        let [example_step, state_step] = steps;
        let n_values = match (n_examples, n_states) {
            (0, _) | (_, 0) => 0,
            _ => (n_examples - 1) * example_step + (n_states - 1) * state_step + 1,
        };
        let borrowed =
            || PyValueError::new_err(format!("{name}: found an array that other native code is writing to"));
        let read = given.try_readonly().map_err(|_| borrowed())?;
        let options: Bound<'py, PyDict> = [("writeable", false)].into_py_dict(py)?;
        let values = py
            .import("numpy.lib.stride_tricks")?
            .call_method("as_strided", (array, (n_values,), (item,)), Some(&options))?
            .cast_into::<PyArray<E, Ix1>>()?
            .try_readonly()
            .map_err(|_| borrowed())?;
        Ok(Self { values, _given: read, n_examples, n_states, example_step, state_step })
    }
}
