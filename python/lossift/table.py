"""Losses as a selection sees them: named columns of N examples, from a store or from plain arrays.

The columns stay where they lie, and in the number type they have: a store's are memory maps, an array goes to the
core whole, which reads it with its strides, and of a part of an array's states go the views. What is copied: values
in foreign byte order, misaligned, a part of an item apart (fields of packed records), in reverse or broadcast from
one; and columns of a store that are of another type than the others.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift import _native
from lossift.errors import ArgumentError, StoreError
from lossift.pool import Stratum
from lossift.reasons import Reason, merge_reasons
from lossift.store import LossStore

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MISSING_LABEL = "(missing)"

_DTYPES = ("float16", "bfloat16", "float32", "float64")

# Rows that are copied at a time where they must be: a few megabytes.
_COPIED_ROWS = 1 << 16
# Whole numbers that labels may be without being turned into text one by one.
_MOST_NUMBERS = 1 << 16


class LossTable:
    """Named loss columns of the same N examples.

    Parameters
    ----------
    losses
        A store or its path; an array ``(n_examples, n_states)``; or a sequence of columns of length N. Arrays are of
        float16, bfloat16 (of ``ml_dtypes``), float32 or float64.
    ids
        uint64[N] for arrays: what decides every draw. Row numbers when None, and then the draw depends on the
        row order.

    Attributes
    ----------
    ids
        uint64[N], or None where row numbers stand for them: a vector of those would be most of what a selection
        needs in memory.
    """

    def __init__(self, losses: object, ids: ArrayLike | None = None) -> None:
        self.store: LossStore | None = None
        self._array: NDArray[Any] | None = None
        match losses:
            case LossStore() | str() | Path():
                self.store = losses if isinstance(losses, LossStore) else LossStore(losses)
                if ids is not None:
                    raise ArgumentError("ids: a store has its own ids; found ids given beside it")
                # All that were declared: a default that isn't scored to the end is refused, not passed over.
                self.names: list[str] = [state.name for state in self.store.declared_states]
                self.n_examples = self.store.n_examples
                self.ids: NDArray[np.uint64] | None = self.store.ids
                return
            case list() | tuple() if len(losses) and np.ndim(losses[0]) == 1:
                self._columns = [_floats(column, f"losses[{i}]") for i, column in enumerate(losses)]
                _check_alike(self._columns)
            case _:
                array = _floats(losses, "losses")
                if array.ndim != 2:
                    raise ArgumentError(
                        f"losses: found an array of shape {array.shape}, allowed are (n_examples, n_states) "
                        "or a sequence of n_states columns"
                    )
                self._array = array
                self._columns = [array[:, i] for i in range(array.shape[1])]
        if not self._columns or not len(self._columns[0]):
            raise ArgumentError(f"losses: found {len(self._columns)} states, at least one example and state are needed")
        self.names = [str(i) for i in range(len(self._columns))]
        self.n_examples = len(self._columns[0])
        self.ids = None if ids is None else _check_ids(ids, self.n_examples)

    # -------------------------------------------------------------------- ids

    def ids_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Returns the ids of some rows."""
        return rows.astype(np.uint64) if self.ids is None else self.ids[rows]

    def row_of(self, id: int) -> int:
        """Returns the row of the example with this id."""
        if self.ids is None:
            found = [id] if 0 <= id < self.n_examples else []
        else:
            found = np.flatnonzero(self.ids == np.uint64(id)).tolist() if 0 <= id < 2**64 else []
        if not found:
            raise ArgumentError(f"id: no example has the id {id}")
        return int(found[0])

    def ids_digest(self) -> str:
        """Returns a digest of all ids, in the order of rows."""
        digest = hashlib.blake2b(digest_size=16)
        for first in range(0, self.n_examples, _COPIED_ROWS):
            rows = np.arange(first, min(first + _COPIED_ROWS, self.n_examples))
            digest.update(self.ids_of(rows).astype("<u8").data)
        return digest.hexdigest()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Says which store it was when the core finds that a mapped file shrank or failed underneath it."""
        try:
            yield
        except _native.LostFileError as error:
            if self.store is None:
                raise
            raise StoreError(
                f"{self.store.path}: {error}",
                hint="lossift never rewrites a column's file: see what else does, and whether the disk is well",
            ) from error

    # ---------------------------------------------------------------- columns

    def resolve(self, state: str | int, argument: str) -> str:
        """Returns the name of the column that `state` (a name, or a number for arrays) means."""
        if self.store is not None:
            if not isinstance(state, str):
                raise ArgumentError(f"{argument}: found {state!r}, allowed are state names: {', '.join(self.names)}")
            self.store.full_name(state)  # refuses what isn't there
            return state
        try:
            # The command line gives numbers as text.
            position = range(len(self.names))[int(state) if isinstance(state, str) else operator.index(state)]
        except (IndexError, ValueError, TypeError):
            raise ArgumentError(
                f"{argument}: found {state!r}, allowed are column numbers 0 to {len(self.names) - 1}"
            ) from None
        return self.names[position]

    def trajectory_names(self, states: Sequence[str | int] | None) -> list[str]:
        """Returns the columns that make up a trajectory: those named, or the default.

        Of a trace those strictly between its first and its last step, as in the authors' code; else all.
        """
        if isinstance(states, str):
            states = [states]
        if states is not None:
            if not states:
                raise ArgumentError("states: found none, at least one is needed")
            return [self.resolve(state, "states") for state in states]
        names = list(self.names)
        if self.store is not None and self.store.is_trace:
            last = max((state.step or 0) for state in self.store.declared_states)
            steps = {state.name: state.step or 0 for state in self.store.declared_states}
            names = [name for name in names if 0 < steps[name] < last]
        if not names:
            where = self.store.path if self.store else "losses"
            raise ArgumentError(
                f"{where}: no states for a trajectory; states with losses: {', '.join(self.names) or 'none'}",
                hint="trace a proxy (lossift trace POOL --model SMALL --out DIR), or name them: states=",
            )
        return [self.resolve(name, "states") for name in names]

    def column(self, name: str) -> NDArray[Any]:
        """Returns one column, N of float16, bfloat16, float32 or float64, nats, not copied."""
        return self.store.column(name) if self.store else self._columns[int(name)]

    def validity(self, names: Sequence[str], n_threads: int = 1) -> NDArray[np.uint8]:
        """Returns why each example has no loss in one of the columns `names`: uint8[N], codes of `Reason`."""
        why = np.zeros(self.n_examples, dtype=np.uint8)
        if self.store is not None:
            merge_reasons(why, *map(self.store.column_validity, names), n_threads=n_threads)
        else:  # a float64 beyond float32 has no finite loss in the core
            self._mark(why, names, "non-finite", Reason.NON_FINITE_LOSS, n_threads)
        return why

    def mark_unscalable(self, why: NDArray[np.uint8], names: Sequence[str], n_threads: int = 1) -> None:
        """Marks, in place, the examples whose first loss can't divide the others."""
        self._mark(why, names, "unscalable", Reason.FIRST_NOT_POSITIVE, n_threads)

    def _mark(self, why: NDArray[np.uint8], names: Sequence[str], rule: str, reason: Reason, n_threads: int) -> None:
        columns, states = self._lying(names), np.arange(len(names))
        if isinstance(columns, np.ndarray) or all(map(_readable, columns)):
            _native.mark_reasons(why, columns, states, rule, reason, n_threads=n_threads)
            return
        # What has to be copied is copied some rows at a time.
        for first in range(0, self.n_examples, _COPIED_ROWS):
            rows = slice(first, first + _COPIED_ROWS)
            part = [_in_place(column[rows]) for column in columns]
            _native.mark_reasons(why[rows], part, states, rule, reason, n_threads=n_threads)

    def stacked(self, names: Sequence[str]) -> NDArray[Any] | list[NDArray[Any]]:
        """Returns the columns `names` as the core takes them: the array itself, or a list of columns."""
        columns = self._lying(names)
        return columns if isinstance(columns, np.ndarray) else [_in_place(column) for column in columns]

    def _lying(self, names: Sequence[str]) -> NDArray[Any] | list[NDArray[Any]]:
        """Returns the columns `names` as they lie: the array, where the core can read it, or a list of columns."""
        if self._array is not None and list(names) == self.names and _readable(self._array):
            return self._array
        return _of_one_type([self.column(name) for name in names])

    def check_comparable(self, names: Sequence[str]) -> None:
        """Refuses columns of different views: their losses are over different tokens."""
        if self.store is None:
            return
        views = {self.store.full_name(name).partition("@")[2].partition("#")[0] for name in names}
        if len(views) > 1:
            raise ArgumentError(f"states: found columns of the views {', '.join(sorted(views))}; allowed is one")

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Returns a digest of each column's values, by full name, for the manifest."""
        return {(self.store.full_name(name) if self.store else name): self._digest(name) for name in names}

    def _digest(self, name: str) -> str:
        digest, column = hashlib.blake2b(digest_size=16), self.column(name)
        for first in range(0, self.n_examples, _COPIED_ROWS):
            # As bytes: bfloat16 is no type that Python's buffers know.
            digest.update(np.ascontiguousarray(column[first : first + _COPIED_ROWS]).view(np.uint8).data)
        return digest.hexdigest()

    # ---------------------------------------------------------------- strata

    def stratum(self, by: str | ArrayLike) -> Stratum:
        """Returns the stratum of each example: a stratum column of the store, or `by` itself as N labels.

        Examples without a label form a stratum of their own, so that none is lost unseen.
        """
        if isinstance(by, str):
            return _with_missing(self._named_stratum(by))
        labels = np.asarray(by)
        if labels.shape != (self.n_examples,):
            raise ArgumentError(
                f"by: found labels of shape {labels.shape}, one for each of the {self.n_examples} examples is needed"
            )
        return _strata_of(labels)

    def _named_stratum(self, by: str) -> Stratum:
        if self.store is None:
            raise ArgumentError(f"by: found the name {by!r}, an array of losses needs an array of N labels")
        if by not in self.store.strata:
            known = ", ".join(self.store.strata) or "none"
            raise ArgumentError(f"by: found {by!r}, stratum columns of {self.store.path}: {known}")
        return self.store.strata[by]


def _floats(values: object, argument: str) -> NDArray[Any]:
    array = np.asarray(values)
    # By name: bfloat16 is the type of a package that need not be there.
    if array.dtype.name not in _DTYPES:
        raise ArgumentError(f"{argument}: found dtype {array.dtype}, allowed are {', '.join(_DTYPES)}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _readable(array: NDArray[Any]) -> bool:
    """Returns whether the core reads the array where it lies: aligned, whole items apart, examples forward."""
    steps = [step for step, n in zip(array.strides, array.shape, strict=True) if n > 1]
    if not array.flags.aligned or any(step < 0 or step % array.itemsize for step in steps):
        return False
    return len(array) < 2 or array.strides[0] > 0


def _in_place(column: NDArray[Any]) -> NDArray[Any]:
    return column if _readable(column) else column.copy()


def _of_one_type(columns: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Returns the columns in the one type that holds all of their values: themselves, where they are of one."""
    types = {column.dtype for column in columns}
    if len(types) < 2:
        return columns
    widest = np.float64 if np.dtype(np.float64) in types else np.float32
    return [column.astype(widest, copy=False) for column in columns]


def _check_alike(columns: list[NDArray[Any]]) -> None:
    lengths, dtypes = {len(c) for c in columns}, {str(c.dtype) for c in columns}
    if len(lengths) > 1 or len(dtypes) > 1 or any(c.ndim != 1 for c in columns):
        raise ArgumentError(
            f"losses: columns must have one length and one dtype, found lengths {sorted(lengths)} "
            f"and dtypes {sorted(dtypes)}"
        )


def _check_ids(ids: ArrayLike, n_examples: int) -> NDArray[np.uint64]:
    array = np.asarray(ids)
    if array.shape != (n_examples,) or array.dtype.kind not in "ui" or (array.dtype.kind == "i" and array.min() < 0):
        raise ArgumentError(
            f"ids: found shape {array.shape} and dtype {array.dtype}, "
            f"allowed are {n_examples} whole numbers from 0 to 2**64 - 1"
        )
    array = np.ascontiguousarray(array, dtype=np.uint64)
    ordered = np.sort(array)
    if (again := np.flatnonzero(ordered[1:] == ordered[:-1])).size:
        raise ArgumentError(f"ids: found {ordered[again[0]]} more than once, every example needs its own")
    return array


def _with_missing(stratum: Stratum) -> Stratum:
    # The code of those without a label is -1, which is the last name.
    missing = len(stratum.codes) and stratum.codes.min() < 0
    return Stratum(stratum.codes, [*stratum.names, MISSING_LABEL]) if missing else stratum


def _strata_of(labels: NDArray[Any]) -> Stratum:
    """Returns the strata that labels make; they are compared as text: what one shows is what the quota table names."""
    whole = labels.dtype.kind in "iub"
    least, span = (int(labels.min()), 1 + int(labels.max()) - int(labels.min())) if whole else (0, 0)
    if not 0 < span <= _MOST_NUMBERS or abs(least) > _MOST_NUMBERS:
        names, inverse = np.unique(labels.astype(str), return_inverse=True)
        return Stratum(codes=inverse.astype(np.int32), names=names.tolist())
    # Small whole numbers are looked up, some rows at a time: turning each of them into text takes most of a minute.
    chunks = [slice(first, first + _COPIED_ROWS) for first in range(0, len(labels), _COPIED_ROWS)]
    seen = np.zeros(span, dtype=bool)
    for rows in chunks:
        seen[labels[rows].astype(np.int64) - least] = True
    numbers = np.flatnonzero(seen)
    names, order = np.unique((numbers + least).astype(labels.dtype).astype(str), return_inverse=True)
    code_of = np.zeros(span, dtype=np.int32)
    code_of[numbers] = order
    codes: NDArray[np.int32] = np.empty(len(labels), dtype=np.int32)
    for rows in chunks:
        codes[rows] = code_of[labels[rows].astype(np.int64) - least]
    return Stratum(codes=codes, names=names.tolist())
