"""The one shape in which every container hands over its rows: a length, rows as dicts, a place to point at.

A source is one file (or one table in memory). It knows nothing of formats: fields go through as they are.
Text containers also give the bytes of a row (`TextSource.raw`), tables give Arrow tables (`TableSource.tables`);
that is what lets chosen rows go back untouched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift.errors import PoolError

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
Rows = np.ndarray[Any, np.dtype[np.int64]]


class Source(ABC):
    """Rows of one container.

    Attributes
    ----------
    container : str
        ``jsonl``, ``json``, ``csv``, ``tsv``, ``parquet``, ``arrow`` or ``memory``.
    name : str
        How messages call it: as a rule the file's name.
    files : list of Path
        The files it was read from; empty for data in memory.
    """

    container: str
    name: str
    files: list[Path]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> Row:
        """The fields of one row. Raises `PoolError` if it can't be parsed."""

    def rows(self, chosen: Rows | None = None) -> Iterator[Row]:
        """The fields of the chosen rows (ascending), or of all, read in one sweep."""
        indices: Iterable[int] = range(len(self)) if chosen is None else map(int, chosen)
        return map(self.row, indices)

    def line(self, index: int) -> int | None:  # noqa: ARG002  (tables have no lines)
        """The line, from 1, on which the row starts, where the container has lines."""
        return None

    def where(self, index: int) -> str:
        """Where a row stands: file, row from 0, line from 1.

        Examples
        --------
        >>> MemorySource([{"prompt": "a"}]).where(0)
        'the list, row 0'
        """
        line = self.line(index)
        return f"{self.name}, row {index}" + ("" if line is None else f" (line {line})")


class TextSource(Source):
    """Rows that are stretches of a text file."""

    @abstractmethod
    def raw(self, index: int) -> bytes:
        """The row's bytes as the file has them, with the line's end where rows are lines."""


class TableSource(Source):
    """Rows of an Arrow table, read block by block."""

    schema: pa.Schema

    @abstractmethod
    def tables(self, chosen: Rows | None = None) -> Iterator[pa.Table]:
        """The chosen rows (ascending), or all, as tables of a few thousand rows at most."""

    def rows(self, chosen: Rows | None = None) -> Iterator[Row]:
        """The fields of the chosen rows (ascending), or of all, read in one sweep."""
        for table in self.tables(chosen):
            yield from table.to_pylist()


class MemorySource(Source):
    """A list of dicts."""

    container = "memory"

    def __init__(self, rows: Sequence[Row], name: str = "the list") -> None:
        self._rows = rows
        self.name = name
        self.files = []

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        """The dict itself."""
        row = self._rows[index]
        if not isinstance(row, dict):
            raise PoolError(f"{self.where(index)}: found {kind_of(row)}; allowed: a dict of fields")
        return row


def kind_of(value: object) -> str:
    """What a parsed value is, in the words of JSON, for messages.

    Examples
    --------
    >>> kind_of(None), kind_of([1]), kind_of(True)
    ('null', 'a list', 'true or false')
    """
    words = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        tuple: "a list",
        dict: "an object",
    }
    return words.get(type(value), f"a {type(value).__name__}")
