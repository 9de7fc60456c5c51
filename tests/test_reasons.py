"""Reasons for being invalid: merged, found and counted in place, against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossift import _native
from lossift.reasons import Reason, count_reasons, merge_reasons
from lossift.table import LossTable

ODD = [0.0, -1.0, 1e-45, 3e38, 1e300, np.nan, np.inf, -np.inf]


def odd_losses(n, t, seed):
    """Losses of which one in ten is a value that some rule minds."""
    rng = np.random.default_rng(seed)
    losses = rng.random((n, t)) + 0.5
    return np.where(rng.random((n, t)) < 0.1, rng.choice(ODD, size=(n, t)), losses)


@given(st.lists(st.lists(st.integers(0, 7), min_size=3, max_size=3), min_size=1))
def test_the_first_reason_stays(rows):
    first, *others = np.array(rows, np.uint8).T
    why = np.array(first)
    merge_reasons(why, *map(np.ascontiguousarray, others), n_threads=2)
    assert why.tolist() == [next((code for code in row if code), 0) for row in rows]
    assert count_reasons(why) == {Reason(code): (why == code).sum() for code in set(why.tolist())}


@pytest.mark.parametrize("n", [1, 7, 5000, 70_000])
@pytest.mark.parametrize("states", [None, [0], [1, 3], [3, 0, 2]])
def test_validity_of_any_layout_and_dtype(n, states):
    wide = odd_losses(n, 4, seed=n)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    used = narrow if states is None else narrow[:, states]
    expected = np.where(np.isfinite(used).all(axis=1), Reason.VALID, Reason.NON_FINITE_LOSS)
    with np.errstate(all="ignore"):
        scalable = (used[:, 0] > 0) & np.isfinite(used[:, 1:] / used[:, :1]).all(axis=1)
    unscalable = np.where(expected == Reason.VALID, np.where(scalable, 0, Reason.FIRST_NOT_POSITIVE), expected)
    read_only = np.asfortranarray(narrow)
    read_only.flags.writeable = False
    packed = np.zeros(n, np.dtype([("", "u1"), ("losses", "f4", 4)]))["losses"]
    packed[:] = narrow
    for losses in (
        packed,
        narrow,
        wide,
        np.asfortranarray(narrow),
        np.asfortranarray(wide),
        read_only,
        list(wide.T),
        [np.ascontiguousarray(column) for column in narrow.T],
        np.repeat(narrow, 2, axis=1)[:, ::2],
        np.repeat(wide, 3, axis=0)[::3],
        narrow[::-1][::-1],
        narrow[:, ::-1][:, ::-1],
    ):
        table = LossTable(losses)
        names = table.names if states is None else [str(state) for state in states]
        for n_threads in (1, 3):
            why = table.validity(names, n_threads)
            assert why.dtype == np.uint8
            assert why.tolist() == expected.tolist()
            table.mark_unscalable(why, names, n_threads)
            assert why.tolist() == unscalable.tolist()


def test_refused():
    why = np.zeros(4, np.uint8)
    column = np.zeros(4, np.float32)
    states = np.arange(1)
    for arguments, error, message in (
        ((why, [column[:3]], states, "non-finite", 4), ValueError, "columns: found 3 elements, need 4, as many as why"),
        ((why, [column], states - 1, "non-finite", 4), ValueError, "states: found .* at index 0, allowed are 0 to 0"),
        ((why, [column], states, "odd", 4), ValueError, 'rule: found "odd", allowed are non-finite, unscalable'),
        ((why, [column], states, "non-finite", 0), ValueError, "reason: found 0, need a whole number from 1"),
        ((why, [column], states, "non-finite", 256), ValueError, "reason: found 256, need a whole number from 1"),
        ((why.astype(int), [column], states, "non-finite", 4), TypeError, "why: found an array of int64"),
        ((why[::2], [column], states, "non-finite", 4), ValueError, "why: found a strided or misaligned array"),
    ):
        with pytest.raises(error, match=message):
            _native.mark_reasons(*arguments)
    why.flags.writeable = False
    with pytest.raises(ValueError, match="why: found an array that is read-only"):
        _native.merge_reasons(why, [])
    # What reads and what is written to must not be the same memory.
    why = np.zeros(4, np.uint8)
    with pytest.raises(ValueError, match="native code"):
        _native.merge_reasons(why, [why])
