"""Losses of every number type and layout: the same outcome as the float32 array of the same values, and no copy."""

import re
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import lossift
from lossift import _native
from lossift.errors import ArgumentError, StoreError
from lossift.store import LossStore
from lossift.table import LossTable
from lossift.tensorfile import map_file

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def odd(n, t, dtype, seed=0):
    """Losses of a few kinds, in values that `dtype` holds: falling curves, huge ones, subnormals, zeros."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(5, size=(n, 1))
    curves = (1 + kind) * np.exp(-np.arange(t) / (2 + kind)) + 0.2 * rng.random((n, t))
    curves[kind[:, 0] == 3] *= 1e-6
    curves[kind[:, 0] == 4] *= 500
    curves[rng.random((n, t)) < 0.02] = 0.0
    return curves.astype(dtype)


def filled(shape, dtype, fill):
    """An array with something else in its gaps: NaN, where that can be."""
    array = np.full(shape, np.nan).astype(dtype)
    return array if fill else np.zeros_like(array)


def layouts(losses):
    """The same (N, T) values as they may lie in memory, by name."""
    n, t = losses.shape
    wide = filled((2 * n, 3 * t + 2), losses.dtype, fill=True)
    wide[1::2, 1 : t + 1] = losses
    every_second = filled((n, 2 * t), losses.dtype, fill=False)
    every_second[:, ::2] = losses
    record = np.zeros(n, [("id", "u8"), ("losses", losses.dtype, (t,))])
    record["losses"] = losses
    packed = np.zeros(n, [("flag", "u1"), ("losses", losses.dtype, (t,))])
    packed["losses"] = losses
    yield "rows", losses
    yield "columns", np.asfortranarray(losses)
    yield "list of columns", [np.ascontiguousarray(column) for column in losses.T]
    yield "list of views", list(losses.T)
    yield "part of wider rows", wide[1::2, 1 : t + 1]
    yield "part of longer columns", np.asfortranarray(wide)[1::2, 1 : t + 1]
    yield "every second state", every_second[:, ::2]
    yield "field of a record", record["losses"]
    yield "field of a packed record", packed["losses"]
    yield "upside down", losses[::-1].copy()[::-1]
    yield "back to front", losses[:, ::-1].copy()[:, ::-1]
    if losses.dtype != ml_dtypes.bfloat16:
        yield "foreign byte order", losses.astype(losses.dtype.newbyteorder())


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 300),
    t=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from(["raw", "relative", "zscore", "differences"]),
    share=st.sampled_from([0.0, 0.02, 0.5]),
    seed=st.integers(0, 2**32),
)
def test_every_type_layout_and_mask_clusters_the_same(n, t, dtype, shape, share, seed):
    t = max(t, 2)
    losses = odd(n, t, dtype, seed)
    if shape == "relative":
        losses[losses <= 0] = 1
    valid = np.random.default_rng(seed).random(n) >= share
    valid[0] = True
    losses[~valid, -1] = np.nan
    options = {"n_clusters": 7, "n_iterations": 8, "seed": 1, "shape": shape}
    with np.errstate(all="ignore"):
        expected = _native.cluster(losses.astype(np.float32), valid, **options)
    for name, lying in layouts(losses):
        table = LossTable(lying)
        found = _native.cluster(table.stacked(table.names), valid, **options)
        assert (found.labels == expected.labels).all(), name
        assert found.centroids.tobytes() == expected.centroids.tobytes(), name
        assert found.inertia == expected.inertia, name
        assert (table.validity(table.names) == np.where(valid, 0, 4)).all(), name
    if valid.all():
        assert (_native.cluster(losses, **options).labels == expected.labels).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_some_states(dtype):
    losses = odd(500, 12, dtype)
    for states in ([3], [0, 1, 2], [2, 3, 4, 5, 9], [11, 0, 5], list(range(1, 12, 2))):
        expected = lossift.select(losses[:, states].astype(np.float32), budget=50, n_clusters=9)
        for _, lying in layouts(losses):
            chosen = lossift.select(lying, budget=50, n_clusters=9, states=states)
            assert (chosen.clusters == expected.clusters).all()
            assert chosen.rows.tolist() == expected.rows.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["s2l", "learnability", "delta", "random"])
def test_every_method_takes_every_type(dtype, method):
    losses = np.abs(odd(300, 5, dtype)) + dtype(0.5)
    losses[7, 0] = np.nan
    by = np.arange(300) % 3
    options = {"n_clusters": 8, "preset": "released"} if method == "s2l" else {}
    options |= {"budget": 40, "by": by}
    chosen = lossift.select(losses, method, **options)
    expected = lossift.select(losses.astype(np.float64), method, **options)
    assert chosen.rows.tolist() == expected.rows.tolist()
    assert chosen.why(row=7)["because"] == "invalid: non-finite loss"
    assert chosen.summary() == expected.summary()


IN_PLACE = (
    *("rows", "columns", "list of columns", "list of views", "part of wider rows", "part of longer columns"),
    *("every second state", "field of a record"),
)


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_copied(name, dtype):
    lying = dict(layouts(odd(1 << 16, 8, dtype)))[name]
    tracemalloc.start()
    table = LossTable(lying)
    columns = table.stacked(table.names)
    some = table.stacked(table.names[1:5])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16  # a column of the smallest type is twice that
    given = lying if isinstance(lying, np.ndarray) else lying[0]
    assert np.shares_memory(columns[0] if isinstance(columns, list) else columns, given)
    assert len(some) == 4


def test_what_the_core_refuses():
    losses = odd(10, 3, np.float32)
    packed = np.zeros(10, [("flag", "u1"), ("losses", "f4", (3,))])["losses"]
    options = {"n_clusters": 2, "n_iterations": 2, "seed": 0}
    for columns, message in [
        (losses[::-1], "columns: found strides of [-12, 4] bytes, need aligned values that are whole items of 4 bytes"),
        (losses[:, ::-1], "columns: found strides of [12, -4] bytes, need aligned values"),
        (packed, "columns: found strides of [13, 4] bytes and misaligned values, need aligned values"),
        (np.broadcast_to(losses[:1], (10, 3)), "columns: found strides of [0, 4] bytes, need aligned values"),
        (losses[:, 0], "columns: found 1 dimensions, need 2"),
        ([losses], "columns[0]: found 2 dimensions, need 1"),
        ([losses[:, 0], losses[:4, 0]], "columns: found 4 elements, need 10, as many as columns[0]"),
        ([losses[:4, 0]], "columns: found 4 elements, need 10, as many as valid"),
        ([], "columns: found no state, need at least one"),
        (losses[:, :0], "columns: found no state, need at least one"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            _native.cluster(columns, np.ones(10, bool), **options)
    for columns, message in [
        (losses.astype(">f4"), "columns: found an array of >f4, need a sequence of T vectors of N, or one array"),
        (losses.astype(np.int16), "columns: found an array of int16, need a sequence of T vectors"),
        (losses.view(np.uint32), "columns: found an array of uint32, need a sequence of T vectors"),
        (
            [losses[:, 0], losses[:, 1].astype(np.float16)],
            "columns[1]: found an array of float16, need float32 like co",
        ),
        (7, "columns: found <class 'int'>, need a sequence of T vectors"),
        ([[1.0]], "columns[0]: found <class 'list'>, need a sequence of T vectors"),
    ]:
        with pytest.raises(TypeError, match=re.escape(message)):
            _native.cluster(columns, np.ones(10, bool), **options)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1), (5, 1)])
def test_strides_of_single_rows_and_states_mean_nothing(shape):
    losses = np.lib.stride_tricks.as_strided(
        odd(*shape, np.float32),
        shape,
        [s if n > 1 else -7 for s, n in zip(odd(*shape, np.float32).strides, shape, strict=True)],
    )
    labels = _native.cluster(losses, n_clusters=1, n_iterations=1, seed=0).labels
    assert labels.tolist() == [0] * shape[0]


def test_a_mask_of_odd_bytes_means_what_numpy_means():
    losses = odd(100, 3, np.float32)
    bytes_ = np.arange(100, dtype=np.uint8) % 4
    options = {"n_clusters": 3, "n_iterations": 5, "seed": 0}
    found = _native.cluster(losses, bytes_.view(bool), **options)
    assert found.labels.tolist() == _native.cluster(losses, bytes_ > 0, **options).labels.tolist()
    assert ((found.labels < 0) == (bytes_ == 0)).all()


@pytest.mark.parametrize("step", [1, 2])
def test_what_is_written_to_is_not_read(step):
    why = np.zeros(12, np.uint8)
    with pytest.raises(ValueError, match=r"columns\[0\]: found an array that other native code is writing to"):
        _native.mark_reasons(why, [why.view(np.float32)[::step]], np.array([0]), "non-finite", 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_store_of_another_type_flows_through_select(tmp_path, dtype):
    """Columns that others wrote: select reads them as they are, and finds what it finds in an array."""
    n, t = 200, 4
    losses = odd(n, t, dtype)
    losses[5, 1] = np.nan
    store, names = stored(tmp_path, losses)
    assert store.column("s0").dtype == dtype
    table = LossTable(store)
    columns = table.stacked(names)
    assert all(column.dtype == dtype and not column.flags.owndata for column in columns)
    for options in ({"n_clusters": 5}, {"method": "learnability"}):
        chosen = lossift.select(store, budget=20, **options)
        expected = lossift.select(losses.astype(np.float64), budget=20, ids=store.ids, **options)
        assert chosen.rows.tolist() == expected.rows.tolist()


def stored(path, losses, dtypes=None):
    """A store whose columns are rewritten in the types of `losses`, as by a stranger."""
    n, t = losses.shape
    pool_file = path / "pool.jsonl"
    pool_file.write_text("".join(f'{{"prompt": "{i}", "response": "r"}}\n' for i in range(n)))
    store = LossStore.create(path / "losses", lossift.read_pool(pool_file))
    ones = np.ones(n, np.int32)
    store.add_view("chat", n_supervised=ones, n_tokens=ones, why_invalid=np.zeros(n, np.uint8), meta={})
    names = [f"s{i}" for i in range(t)]
    for i, name in enumerate(names):
        store.add_state(name)
        writer = store.writer(name, "chat", meta={"weights": name}, part_rows=n)
        why = np.where(np.isfinite(losses[:, i].astype(np.float32)), 0, 4).astype(np.uint8)
        writer.write_part(0, n, losses[:, i].astype(np.float32), why)
        writer.seal()
        (file,) = (path / "losses" / "columns" / "chat").glob(f"*-{name}.safetensors")
        column = losses[:, i].astype((dtypes or [losses.dtype] * t)[i])
        file.write_bytes(safetensors.numpy.save({"loss": column, "why_invalid": why}, {"lossift": "{}"}))
    return LossStore(path / "losses"), names


def test_a_store_of_several_types(tmp_path):
    losses = odd(100, 4, ml_dtypes.bfloat16).astype(np.float32)
    store, names = stored(tmp_path, losses, [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
    losses[:, 1] = losses[:, 1].astype(np.float16)
    assert {column.dtype for column in LossTable(store).stacked(names)} == {np.dtype(np.float64)}
    assert {column.dtype for column in LossTable(store).stacked(names[:3])} == {np.dtype(np.float32)}
    chosen = lossift.select(store, budget=20, n_clusters=5)
    assert chosen.rows.tolist() == lossift.select(losses, budget=20, n_clusters=5, ids=store.ids).rows.tolist()


def test_bfloat16_without_its_package(tmp_path, monkeypatch):
    file = tmp_path / "column.safetensors"
    file.write_bytes(safetensors.numpy.save({"loss": np.zeros(3, ml_dtypes.bfloat16)}))
    assert map_file(file)[0]["loss"].dtype == ml_dtypes.bfloat16
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(StoreError) as caught:
        map_file(file)
    assert str(caught.value) == f"{file}: tensor 'loss' has dtype BF16, which NumPy doesn't know by itself"
    assert caught.value.hint == "pip install ml-dtypes"
    file.write_bytes(safetensors.numpy.save({"loss": np.zeros(3, np.int16)}))
    with pytest.raises(StoreError, match="has dtype I16, known are BF16, F16, F32, F64, I32, I64, U8, U64"):
        map_file(file)


def test_columns_of_several_types_are_refused():
    losses = odd(10, 2, np.float32)
    with pytest.raises(ArgumentError, match="dtypes \\['bfloat16', 'float32'\\]"):
        LossTable([losses[:, 0], losses[:, 1].astype(ml_dtypes.bfloat16)])
