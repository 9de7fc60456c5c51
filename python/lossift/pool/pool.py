"""The pool: the user's rows, seen as examples with ids and strata, and written back as they were.

`read_pool` finds the sources, recognises the format and goes over every row once: what can't be an example is reported
there, by file, row and line, before anything costly starts. Cost: about 15 µs a row on one core.
`reopen` does none of that: it finds the rows' boundaries and trusts the losses' own ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lossift.errors import ArgumentError, PoolError
from lossift.pool.example import Example
from lossift.pool.find import Found, find, reopen_files
from lossift.pool.formats import Mapping, RowError, recognise
from lossift.pool.identity import content_digest, number
from lossift.pool.source import Row, Rows, Source
from lossift.pool.strata import StrataBuilder, Stratum
from lossift.pool.write import write_rows

Ids = np.ndarray[Any, np.dtype[np.uint64]]

_FIRST_ROWS = 20  # rows whose fields decide the format
_DIGEST_STEP = 1 << 20


def read_pool(
    pool: Any,
    *,
    mapping: dict[str, str] | str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Pool:
    """The pool that a path, a data set or a list stands for, every row of it checked.

    Parameters
    ----------
    pool
        A `Pool` (returned as it is), a path, several, a glob, a folder of shards, a folder saved by `datasets`, a
        hub id (``owner/name`` or ``owner/name:config``), a `datasets.Dataset`, or a list of dicts.
    mapping
        Which fields to use, as ``"prompt=question,response=answer"`` or a dict; None to recognise them.
    split
        Which split of a hub id or of a saved folder; None if there is only one.
    limit
        Take a part: the ``limit`` examples with the smallest keyed hash of their ids, in pool order.
    seed
        Keys that hash.

    Raises
    ------
    PoolError
        If it can't be read as examples; the message names file, row and line. `PoolNotFoundError` if it isn't there.
    ArgumentError
        If an option is outside what is allowed.
    MissingExtraError
        If it is a hub id and `datasets` isn't installed.

    Examples
    --------
    >>> pool = read_pool([{"question": "1 + 1?", "answer": "2"}])
    >>> pool.mapping, pool.example(0).messages[-1].text
    ('question/answer: prompt=question, response=answer', '2')
    """
    if isinstance(pool, Pool):
        return pool
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ArgumentError(f"limit: found {limit!r}; allowed: a whole number of examples, 1 or more")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ArgumentError(f"seed: found {seed!r}; allowed: a whole number from 0 to 2**64 - 1")
    found = find(pool, split)
    names = ", ".join(source.name for source in found.sources[:3])
    if sum(map(len, found.sources)) == 0:
        raise PoolError(f"{names}: holds no examples; allowed: 1 or more")
    first = (row for source in found.sources for row in source.rows())
    chosen_mapping = recognise(islice(first, _FIRST_ROWS), mapping, names)
    whole = Pool(found, chosen_mapping, split=split, limit=limit, seed=seed)
    whole._survey()
    return whole


def reopen(spec: dict[str, Any], source_rows: Rows | None = None) -> Pool:
    """The pool that `Pool.spec` described, without going over its rows.

    Whether it still is that pool is not asked here: compare `Pool.fingerprint`, and `Pool.digest` where that differs.

    Parameters
    ----------
    spec
        What `Pool.spec` gave.
    source_rows
        What `Pool.source_rows` gave; if None and the pool was a part, the part is taken again (which costs as much as
        `read_pool`).

    Raises
    ------
    PoolError
        If it isn't there any more, can't be read, or was never a file.
    """
    sources = reopen_files(spec["paths"], spec["hub"], spec["split"])
    return Pool(
        Found(sources, spec["paths"], spec["hub"]),
        Mapping.from_spec(spec["mapping"]),
        split=spec["split"],
        limit=spec["limit"],
        seed=spec["seed"],
        source_rows=source_rows,
    )


class Pool:
    """N examples in the order of the user's files.

    Made by `read_pool` and `reopen`. Rows are numbered from 0 in pool order.

    Attributes
    ----------
    source_rows : int64[N] or None
        Where `limit` took a part: the rows' numbers in the whole. None otherwise.
    """

    def __init__(
        self,
        found: Found,
        mapping: Mapping,
        *,
        split: str | None,
        limit: int | None,
        seed: int,
        source_rows: Rows | None = None,
    ) -> None:
        self._found = found
        self._sources = found.sources
        self._offsets = np.cumsum([0, *map(len, found.sources)])
        self._mapping = mapping
        self._read = mapping.reader()
        self._asked: dict[str, Any] = {"split": split, "limit": limit, "seed": seed}
        self._ids: Ids | None = None
        self._strata: dict[str, Stratum] | None = None
        self._stamps = [_stamp(file) for source in found.sources for file in source.files]
        self.source_rows = None if source_rows is None else np.asarray(source_rows, np.int64)
        if self.source_rows is None and limit is not None and limit < self._offsets[-1]:
            self._survey()

    @property
    def n_examples(self) -> int:
        """N."""
        return int(self._offsets[-1]) if self.source_rows is None else len(self.source_rows)

    def __len__(self) -> int:
        return self.n_examples

    def __repr__(self) -> str:
        names = ", ".join(source.name for source in self._sources[:3])
        more = ", ..." if len(self._sources) > 3 else ""
        return f"<Pool of {self.n_examples:,} examples from {names}{more} ({self.mapping})>"

    @property
    def mapping(self) -> str:
        """Which field holds what, in one line."""
        return str(self._mapping)

    @property
    def ids(self) -> Ids:
        """uint64[N]: the examples' ids; read-only, computed once."""
        if self._ids is None:
            self._survey()
        assert self._ids is not None
        return self._ids

    @property
    def strata(self) -> dict[str, Stratum]:
        """The groups that the pool's own columns suggest, by field; ``file`` where it is of several files."""
        if self._strata is None:
            self._survey()
        assert self._strata is not None
        return self._strata

    @property
    def spec(self) -> dict[str, Any]:
        """What `reopen` takes: JSON-able, with absolute paths."""
        return {
            "paths": self._found.paths,
            "hub": self._found.hub,
            "mapping": self._mapping.spec(),
            **self._asked,
            "n_rows": int(self._offsets[-1]),
            "n_examples": self.n_examples,
        }

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells this pool from a changed one at a glance: JSON-able; no bytes are read."""
        return {"n_rows": int(self._offsets[-1]), "n_examples": self.n_examples, "files": self._stamps}

    def digest(self) -> str:
        """BLAKE2b over the bytes of the pool's files, or over its ids if it has none, in hex. Reads every byte."""
        if not self._stamps:
            return blake2b(self.ids.tobytes(), digest_size=16).hexdigest()
        return digest_files([Path(stamp["path"]) for stamp in self._stamps])

    def example(self, row: int) -> Example:
        """One example."""
        source, index = self._place(row)
        return self._example(source.row(index), lambda: self.where(row))

    def examples(self, rows: Rows | Iterable[int] | None = None) -> Iterator[Example]:
        """The examples of ascending rows, or all, in one sweep; for tables much faster than one by one."""
        chosen = np.arange(self.n_examples) if rows is None else np.asarray(rows, np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < self.n_examples:
            found = f"{int(chosen.min())} to {int(chosen.max())}"
            raise ArgumentError(f"rows: found {found}; allowed: 0 to {self.n_examples - 1}")
        for row, fields in zip(chosen, self._fields(self._in_source(chosen)), strict=True):
            yield self._example(fields, lambda row=row: self.where(int(row)))  # type: ignore[misc]

    def where(self, row: int) -> str:
        """Where an example stands, for messages: ``gsm8k.jsonl, row 17 (line 18)``."""
        source, index = self._place(row)
        return source.where(index)

    def write(self, rows: Rows | Iterable[int], path: str | os.PathLike[str]) -> None:
        """Write the user's own rows, untouched; the extension says the container.

        Parameters
        ----------
        rows
            Ascending row numbers, int64.
        path
            Ends in ``.jsonl``, ``.ndjson``, ``.json``, ``.csv``, ``.tsv`` (each also with ``.gz``) or ``.parquet``.
            What stands there is replaced once all is written; if anything fails, it is left as it was.

        Raises
        ------
        ArgumentError
            If rows aren't ascending numbers of this pool, or the extension is unknown.
        DiskError
            If the disk is full or the folder can't be written.
        """
        chosen = np.asarray(rows, np.int64)
        if chosen.ndim != 1 or (np.diff(chosen) <= 0).any():
            raise ArgumentError("rows: allowed: ascending row numbers, each once")
        if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < self.n_examples:
            raise ArgumentError(
                f"rows: found {int(chosen[0])} to {int(chosen[-1])}; allowed: 0 to {self.n_examples - 1}"
            )
        parts = list(self._parts(self._in_source(chosen)))
        write_rows(parts, Path(path).expanduser())

    def _in_source(self, rows: Rows) -> Rows:
        """Row numbers of this pool as row numbers of the whole."""
        return rows if self.source_rows is None else self.source_rows[rows]

    def _parts(self, rows: Rows) -> Iterator[tuple[Source, Rows]]:
        """Each source with its share of ascending rows of the whole."""
        bounds = np.searchsorted(rows, self._offsets)
        for source, offset, first, last in zip(self._sources, self._offsets[:-1], bounds[:-1], bounds[1:], strict=True):
            yield source, rows[first:last] - offset

    def _place(self, row: int) -> tuple[Source, int]:
        if not 0 <= row < self.n_examples:
            raise IndexError(f"row {row} of a pool with rows 0 to {self.n_examples - 1}")
        return self._place_in_source(row if self.source_rows is None else int(self.source_rows[row]))

    def _place_in_source(self, row: int) -> tuple[Source, int]:
        number_of_source = int(np.searchsorted(self._offsets, row, side="right")) - 1
        return self._sources[number_of_source], row - int(self._offsets[number_of_source])

    def _fields(self, rows: Rows) -> Iterator[Row]:
        """The fields of ascending rows of the whole."""
        for source, part in self._parts(rows):
            yield from source.rows(part)

    def _example(self, fields: Row, where: Callable[[], str]) -> Example:
        try:
            return self._read(fields)
        except RowError as error:
            raise PoolError(f"{where()}: {error}") from None

    def _survey(self) -> None:
        """Go over every row of the whole once: check it, and compute ids, strata and the part that `limit` takes."""

        def where(row: int) -> str:
            source, index = self._place_in_source(row)
            return source.where(index)

        digests = bytearray()
        builder = StrataBuilder(self._mapping.fields.values())
        every_row = (fields for source in self._sources for fields in source.rows())
        for row, fields in enumerate(every_row):
            example = self._example(fields, lambda row=row: where(row))  # type: ignore[misc]
            digests += content_digest(example)
            builder.add(row, fields)
        n_rows = int(self._offsets[-1])
        ids = number(bytes(digests), self._fields, where)
        strata = builder.strata(n_rows)
        if len(self._sources) > 1 and "file" not in strata:
            strata["file"] = _files_stratum([source.name for source in self._sources], self._offsets)
        limit, seed = self._asked["limit"], self._asked["seed"]
        if self.source_rows is None and limit is not None and limit < n_rows:
            from lossift import _native

            keys = _native.keys(ids, seed, "limit")
            self.source_rows = np.sort(np.argsort(keys, kind="stable")[:limit]).astype(np.int64)
        if self.source_rows is not None:
            rows = self.source_rows
            ids = ids[rows]
            parts = {field: stratum.part(rows) for field, stratum in strata.items()}
            strata = {field: part for field, part in parts.items() if 0 < len(part.names) < len(rows)}
        ids.flags.writeable = False
        self._ids, self._strata = ids, strata


def _files_stratum(names: list[str], offsets: np.ndarray) -> Stratum:
    in_order = sorted(names)
    codes = np.array([in_order.index(name) for name in names], np.int32)
    return Stratum(np.repeat(codes, np.diff(offsets)), in_order)


def _stamp(file: Path) -> dict[str, Any]:
    status = file.stat()
    return {"path": str(file.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def digest_files(files: Iterable[Path]) -> str:
    """BLAKE2b over the BLAKE2b of each file's bytes, in hex."""
    whole = blake2b(digest_size=16)
    for file in files:
        whole.update(_digest_of(file))
    return whole.hexdigest()


def _digest_of(file: Path) -> bytes:
    digest = blake2b(digest_size=16)
    with file.open("rb") as data:
        while step := data.read(_DIGEST_STEP):
            digest.update(step)
    return digest.digest()
