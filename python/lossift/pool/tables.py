"""Table containers: Parquet files, and the tables of the `datasets` library.

In goes a path (or a `datasets.Dataset`), out comes a `TableSource`. Nothing is read beyond the footer until rows
are asked for; then one row group (or a few thousand rows) is in memory at a time. Tables are cut where they are
stored and never joined into one array, so columns of more than 2 GiB of text pass.

A folder written by `Dataset.save_to_disk` is a few Arrow files and a list of them. It is read with Arrow alone, so
that selecting from it on a laptop doesn't need `datasets` (which brings half of the scoring extra).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossift.errors import PoolError
from lossift.pool.source import Row, Rows, TableSource

_BLOCK = 4096  # rows per table handed on


class _Blocks(TableSource):
    """Rows that are read by block; the block last used by `row` stays in memory."""

    _offsets: np.ndarray  # int64[n_blocks + 1]: the first row of each block, and the end
    _held: tuple[int, pa.Table] | None = None

    @abstractmethod
    def _read(self, block: int) -> Iterator[pa.Table]:
        """The block's rows, in tables of at most `_BLOCK` rows."""

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def row(self, index: int) -> Row:
        """The row's fields; the first of a block costs reading the block."""
        block = int(np.searchsorted(self._offsets, index, side="right")) - 1
        if self._held is None or self._held[0] != block:
            self._held = (block, pa.concat_tables(list(self._read(block))))
        row: Row = self._held[1].slice(index - int(self._offsets[block]), 1).to_pylist()[0]
        return row

    def tables(self, chosen: Rows | None = None) -> Iterator[pa.Table]:
        """The chosen rows (ascending), or all; blocks without a chosen row are not read."""
        for block, start in enumerate(self._offsets[:-1]):
            if chosen is None:
                yield from self._read(block)
                continue
            low, high = np.searchsorted(chosen, self._offsets[block : block + 2])
            if low == high:
                continue
            at = int(start)
            for table in self._read(block):
                first, last = np.searchsorted(chosen, (at, at + len(table)))
                if first < last:
                    yield table.take(pa.array(chosen[first:last] - at))
                at += len(table)


class Parquet(_Blocks):
    """A Parquet file; a block is a row group."""

    container = "parquet"

    def __init__(self, path: Path, name: str) -> None:
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise PoolError(f"{name}: broken Parquet file: {_first_line(error)}") from None
        self.name = name
        self.files = [path]
        self.schema = self._file.schema_arrow
        groups = [self._file.metadata.row_group(group) for group in range(self._file.num_row_groups)]
        self._offsets = np.cumsum([0] + [group.num_rows for group in groups])
        columns = [groups[0].column(index) for index in range(groups[0].num_columns)] if groups else []
        self.codecs = {column.path_in_schema: _codec(column.compression) for column in columns}

    def _read(self, block: int) -> Iterator[pa.Table]:
        try:
            for batch in self._file.iter_batches(_BLOCK, row_groups=[block]):
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise PoolError(f"{self.name}, row group {block}: broken Parquet file: {_first_line(error)}") from None


class Arrow(_Blocks):
    """A table of the `datasets` library: a saved folder, or a `Dataset`."""

    container = "arrow"

    def __init__(self, table: Any, schema: pa.Schema, name: str, files: list[Path]) -> None:
        self._table = table
        self.schema = schema
        self.name = name
        self.files = files
        self._offsets = np.append(np.arange(0, len(table), _BLOCK), len(table)).astype(np.int64)

    def _read(self, block: int) -> Iterator[pa.Table]:
        start, stop = (int(offset) for offset in self._offsets[block : block + 2])
        if isinstance(self._table, pa.Table):
            yield self._table.slice(start, stop - start)
        else:
            yield self._table[start:stop]


def open_saved(folder: Path, split: str | None) -> Arrow:
    """The rows of a folder written by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``, mapped."""
    name = folder.name
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json")["splits"]
        chosen = choose_split(split, splits, name)
        folder, name = folder / chosen, f"{name}/{chosen}"
    state = _json(folder / "state.json")
    if split is not None and state.get("_split") not in (None, split):
        raise PoolError(f"{name}: split {split!r} asked for; this folder holds the split {state['_split']!r}")
    files = [folder / file["filename"] for file in state["_data_files"]]
    try:
        pieces = [pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files]
    except (OSError, pa.ArrowException) as error:
        raise PoolError(f"{name}: broken datasets folder: {_first_line(error)}") from None
    table = pa.concat_tables(pieces)
    return Arrow(table, table.schema, name, files)


def open_dataset(dataset: Any, name: str) -> Arrow:
    """The rows of a `datasets.Dataset`, through its own indices, with the format set to Arrow."""
    files = [Path(file["filename"]) for file in dataset.cache_files]
    return Arrow(dataset.with_format("arrow"), dataset.features.arrow_schema, name, files)


def choose_split(split: str | None, splits: list[str], name: str) -> str:
    """The split asked for, or the only one."""
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        found = "no split was named" if split is None else f"split {split!r} asked for"
        raise PoolError(f"{name}: {found}; allowed: {', '.join(splits)}", hint=f"name one, as in --split {splits[0]}")
    return split


def _codec(name: str) -> str:
    return {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}.get(name, name)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PoolError(f"{path}: broken datasets folder: {error}") from None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
