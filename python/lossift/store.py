"""The loss store: one folder of memory-mapped columns, written once and never rewritten.

::

    losses/
      store.json                            N, pool, views, states in training order
      examples.safetensors                  id uint64[N]; one int32[N] per stratum column
      views/chat.safetensors                n_supervised int32[N], n_tokens int32[N], why_invalid uint8[N]
      columns/chat/0000-base.safetensors    loss float32[N] (NaN where invalid), why_invalid uint8[N]
      columns/chat/0500-step-500.parts/     while it is being scored: immutable parts of contiguous rows

Every file appears whole or not at all (`lossift.atomic`). Metadata sit under one key, ``lossift``, as sorted
JSON without times or paths, so equal columns are equal files. A stranger reads all of it with `safetensors`
alone. Opening maps files and reads none: the cost is a few headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift.column_writer import ColumnWriter
from lossift.errors import ArgumentError, StoreError
from lossift.pool import ID_HASH, Stratum
from lossift.reasons import Reason, merge_reasons
from lossift.store_index import (
    check_name,
    check_same_pool,
    difference,
    holds_something_else,
    new_index,
    read_index,
    reopen_unchanged,
    write_index,
)
from lossift.tensorfile import map_file, write_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.pool import Pool

DEFAULT_QUANTITY = "loss"
# Two columns of one name are the same losses when these agree; the rest of the metadata says how they were computed.
_IDENTITY = ("weights", "dtype")


@dataclass(frozen=True)
class View:
    """How examples became tokens, and what that says about each of them."""

    name: str
    n_supervised: NDArray[np.int32]
    n_tokens: NDArray[np.int32]
    why_invalid: NDArray[np.uint8]
    meta: dict[str, Any]


@dataclass(frozen=True)
class State:
    """One set of model weights, in its place in the training order."""

    name: str
    step: int | None
    meta: dict[str, Any]


class LossStore:
    """Losses of N examples under several states of a model, as memory-mapped columns.

    Parameters
    ----------
    path
        The folder, as `lossift score` and `lossift trace` write it.

    Raises
    ------
    StoreError
        When the folder isn't a loss store, is of an unknown version, or a file of it is broken.

    Examples
    --------
    >>> import lossift
    >>> store = lossift.open("losses/")  # doctest: +SKIP
    >>> store.column("base")  # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._index = read_index(self.path)
        tensors, meta = map_file(self.path / "examples.safetensors")
        self.ids: NDArray[np.uint64] = tensors["id"]
        self._source_rows: NDArray[np.int64] | None = tensors.get("source_row")
        self.strata = {
            name: Stratum(codes=tensors[f"stratum.{name}"], names=names) for name, names in meta["strata"].items()
        }
        self._views = {name: self._open_view(name) for name in self._index["views"]}

    # ---------------------------------------------------------------- reading

    @property
    def n_examples(self) -> int:
        """N, the number of examples of the pool."""
        return int(self._index["n_examples"])

    @property
    def info(self) -> dict[str, Any]:
        """What the writer of the store noted about its making: recipe, model, options."""
        return dict(self._index["info"])

    @property
    def views(self) -> dict[str, View]:
        """The views by name."""
        return dict(self._views)

    @property
    def states(self) -> list[str]:
        """Names of the states that have a sealed column, in training order."""
        return [state.name for state in self.declared_states if self._sealed_views(state)]

    @property
    def declared_states(self) -> list[State]:
        """All states in training order, scored to the end or not."""
        states = [State(**entry) for entry in self._index["states"]]
        # Those with a step are in step order among themselves; the others keep the place they were declared at.
        in_order = iter(sorted((s for s in states if s.step is not None), key=lambda s: s.step or 0))
        return [state if state.step is None else next(in_order) for state in states]

    @property
    def is_trace(self) -> bool:
        """Whether the states are one training run of a proxy, from `base` to `final`."""
        return bool(self._index["info"].get("trace"))

    @property
    def valid(self) -> NDArray[np.bool_]:
        """bool[N]: the examples that every sealed column has a loss for."""
        valid: NDArray[np.bool_] = self._why() == Reason.VALID
        return valid

    def why_invalid(self, row: int) -> str | None:
        """Returns why an example is invalid, in words, or None when it is valid.

        Parameters
        ----------
        row
            Row number in the pool, from 0.
        """
        if not 0 <= row < self.n_examples:
            raise ArgumentError(f"row: found {row}, allowed are 0 to {self.n_examples - 1}")
        codes = [int(view.why_invalid[row]) for view in self._views.values()]
        codes += [int(self.column_validity(name)[row]) for name in self._sealed_columns()]
        return next((Reason(code).text for code in codes if code != Reason.VALID), None)

    def column(self, name: str) -> NDArray[Any]:
        """Returns one loss column: float32[N], nats per supervised token, NaN where invalid; read-only, mapped.

        A column that others wrote may be of float16, bfloat16 (then `ml_dtypes` has to be there) or float64.

        Parameters
        ----------
        name
            ``state``, or in full ``state@view#quantity``.

        Raises
        ------
        StoreError
            When there is no such column; the message lists those there are.
        """
        loss, _ = self._column(name)
        return loss

    def column_validity(self, name: str) -> NDArray[np.uint8]:
        """Returns why each example of a column is invalid: uint8[N], codes of `lossift.reasons`."""
        _, why = self._column(name)
        return why

    def column_meta(self, name: str) -> dict[str, Any]:
        """Returns how a column was computed: state, digest of the weights, dtype, software."""
        state, view, _ = self._resolve(name)
        return map_file(self._column_path(state, view))[1]

    def full_name(self, name: str) -> str:
        """Returns a column's full name, ``state@view#quantity``."""
        state, view, quantity = self._resolve(name)
        return f"{state.name}@{view}#{quantity}"

    @property
    def pool_record(self) -> dict[str, Any]:
        """What is known of the pool: how to read it again, and its fingerprint."""
        return dict(self._index["pool"])

    def pool(self) -> Pool:
        """Returns the pool the losses are of, after checking that its files haven't changed.

        Sizes and modification times are compared; the digest is read only when those differ.

        Raises
        ------
        StoreError
            When the files changed since they were scored; the message shows both fingerprints.
        """
        return reopen_unchanged(self.path, self._index, self._source_rows)

    def check_pool(self, pool: Pool) -> None:
        """Refuses a pool whose examples aren't those of the store, with both fingerprints.

        Raises
        ------
        StoreError
            When ids differ.
        """
        check_same_pool(self.path, self._index, self.ids, pool)

    # ---------------------------------------------------------------- writing

    @classmethod
    def create(cls, path: str | Path, pool: Pool) -> LossStore:
        """Returns the store at `path` for `pool`: a new one, or the one that is there.

        Raises
        ------
        StoreError
            When a store is there and holds the losses of another pool, or the folder holds something else.
        """
        path = Path(path)
        if (path / "store.json").exists():
            store = cls(path)
            store.check_pool(pool)
            return store
        if path.exists() and (not path.is_dir() or holds_something_else(path)):
            raise StoreError(
                f"{path}: is there already and is not a loss store",
                hint="give --out a new folder",
            )
        tensors: dict[str, NDArray[Any]] = {"id": np.ascontiguousarray(pool.ids)}
        if pool.source_rows is not None:
            tensors["source_row"] = pool.source_rows
        for name, stratum in pool.strata.items():
            tensors[f"stratum.{name}"] = stratum.codes
        names = {name: stratum.names for name, stratum in pool.strata.items()}
        write_file(path / "examples.safetensors", tensors, {"id_hash": ID_HASH, "strata": names})
        write_index(path, new_index(pool))
        return cls(path)

    def update_info(self, **fields: Any) -> None:
        """Notes how the store came about (JSON values), beside what is noted already."""
        self._index["info"] |= fields
        write_index(self.path, self._index)

    def add_view(
        self,
        name: str,
        *,
        n_supervised: NDArray[np.int32],
        n_tokens: NDArray[np.int32],
        why_invalid: NDArray[np.uint8],
        meta: dict[str, Any],
    ) -> View:
        """Returns the view `name`, written now or found equal to the one that is there.

        Raises
        ------
        StoreError
            When a view of that name was made with another tokenizer, template or length; both are shown.
        """
        check_name("view", name)
        if existing := self._views.get(name):
            if existing.meta != meta:
                raise StoreError(
                    f"{self.path}: view {name!r} was made differently: {difference(existing.meta, meta)}",
                    hint="losses of different tokenizers or templates can't be compared: give another --out",
                )
            return existing
        tensors: dict[str, NDArray[Any]] = {
            "n_supervised": n_supervised,
            "n_tokens": n_tokens,
            "why_invalid": why_invalid,
        }
        for key, tensor in tensors.items():
            self._check_length(key, tensor)
        write_file(self._view_path(name), tensors, meta)
        self._index["views"].append(name)
        write_index(self.path, self._index)
        self._views[name] = self._open_view(name)
        return self._views[name]

    def add_state(self, name: str, *, step: int | None = None, meta: dict[str, Any] | None = None) -> State:
        """Returns the state `name`, declared now or before; its place is its step, else the order of declaring."""
        check_name("state", name)
        entry: dict[str, Any] = {"name": name, "step": step, "meta": meta or {}}
        for known in self._index["states"]:
            if known["name"] == name:
                if known != entry:
                    raise StoreError(
                        f"{self.path}: state {name!r} is another one here: {difference(known, entry)}",
                        hint="give the new one another name (NAME=PATH) or another --out",
                    )
                return State(**entry)
        self._index["states"].append(entry)
        write_index(self.path, self._index)
        return State(**entry)

    def writer(self, state: str, view: str, *, meta: dict[str, Any], part_rows: int) -> ColumnWriter:
        """Returns the writer of the column ``state@view``, with the parts that are there already.

        Parameters
        ----------
        meta
            How the losses are computed: ``weights`` (digest), ``dtype``, anything that decides the bits.
            Nothing that depends on the run. Parts written under other metadata are discarded.
        part_rows
            Rows per part; part i holds the rows from ``i * part_rows``.

        Raises
        ------
        StoreError
            When the column is sealed and holds the losses of other weights.
        """
        meta = meta | {"state": state, "view": view, "part_rows": part_rows}
        path = self._column_path(self._state(state), view)
        if path.exists():
            sealed = map_file(path)[1]
            old, new = ({key: held.get(key) for key in _IDENTITY} for held in (sealed, meta))
            if old != new:
                raise StoreError(
                    f"{self.path}: column {state}@{view} holds losses of other weights: {difference(old, new)}",
                    hint="give this model another name (NAME=PATH) or another --out",
                )
        return ColumnWriter(path, self.n_examples, self._views[view].why_invalid, meta, part_rows)

    # ---------------------------------------------------------------- inside

    def _why(self) -> NDArray[np.uint8]:
        why = np.zeros(self.n_examples, dtype=np.uint8)
        merge_reasons(why, *(view.why_invalid for view in self._views.values()))
        merge_reasons(why, *map(self.column_validity, self._sealed_columns()))
        return why

    def _sealed_columns(self) -> list[str]:
        return [f"{state.name}@{view}" for state in self.declared_states for view in self._sealed_views(state)]

    def _column(self, name: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        state, view, quantity = self._resolve(name)
        path = self._column_path(state, view)
        tensors, _ = map_file(path)
        if quantity not in tensors:
            quantities = ", ".join(sorted(set(tensors) - {"why_invalid"}))
            raise StoreError(f"{path}: no quantity {quantity!r}; there are: {quantities}")
        self._check_length(name, tensors[quantity])
        return tensors[quantity], tensors["why_invalid"]

    def _resolve(self, name: str) -> tuple[State, str, str]:
        rest, _, quantity = name.partition("#")
        state_name, _, view = rest.partition("@")
        state = next((s for s in self.declared_states if s.name == state_name), None)
        views = self._sealed_views(state) if state else []
        if state is None or not views or (view and view not in views):
            known = ", ".join(self.states) or "none"
            hint = f"score it: lossift score POOL --model {state_name}=PATH --out {self.path}"
            if state is not None and not views:
                verb = "trace" if self.is_trace else "score"
                hint = f"its scoring isn't finished: run the same lossift {verb} command again, it goes on"
            raise StoreError(f"{self.path}: no losses of state {rest!r}; states with losses: {known}", hint=hint)
        if not view and len(views) > 1:
            raise StoreError(
                f"{self.path}: state {name!r} has losses in {len(views)} views: {', '.join(views)}",
                hint=f"say which: {state_name}@{views[0]}",
            )
        return state, view or views[0], quantity or DEFAULT_QUANTITY

    def _state(self, name: str) -> State:
        for state in self.declared_states:
            if state.name == name:
                return state
        raise StoreError(f"{self.path}: state {name!r} is not declared")

    def _sealed_views(self, state: State) -> list[str]:
        return [view for view in self._views if self._column_path(state, view).exists()]

    def _column_path(self, state: State, view: str) -> Path:
        names = [entry["name"] for entry in self._index["states"]]
        order = names.index(state.name) if state.step is None else state.step
        return self.path / "columns" / view / f"{order:04d}-{state.name}.safetensors"

    def _view_path(self, name: str) -> Path:
        return self.path / "views" / f"{name}.safetensors"

    def _open_view(self, name: str) -> View:
        tensors, meta = map_file(self._view_path(name))
        for key, tensor in tensors.items():
            self._check_length(key, tensor)
        return View(name=name, meta=meta, **tensors)

    def _check_length(self, what: str, tensor: NDArray[Any]) -> None:
        if tensor.shape != (self.n_examples,):
            raise StoreError(f"{self.path}: {what} has shape {tensor.shape}, the pool has {self.n_examples} examples")
