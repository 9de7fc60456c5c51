"""One loss column on its way to disk: immutable parts of contiguous rows, then the one file.

While it is being scored a column is a folder of parts, each written whole (`lossift.atomic`) and never again; when
all parts are there they are joined. A crash at any instant loses the part in flight and nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift.errors import ArgumentError, StoreError
from lossift.reasons import Reason, merge_reasons
from lossift.tensorfile import map_file, write_file

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ColumnWriter:
    """Writes one column part by part; what is written survives any crash, and a rerun goes on from there."""

    def __init__(
        self,
        path: Path,
        n_examples: int,
        view_why_invalid: NDArray[np.uint8],
        meta: dict[str, Any],
        part_rows: int,
    ) -> None:
        self._path = path
        self._parts = path.with_suffix(".parts")
        self._n_examples = n_examples
        self._view_why_invalid = view_why_invalid
        self._meta = meta
        self._part_rows = part_rows
        if self.sealed:
            # A crash between sealing and tidying up leaves parts that nobody needs.
            shutil.rmtree(self._parts, ignore_errors=True)
        else:
            self._discard_others()

    @property
    def sealed(self) -> bool:
        """Whether the column is complete, in its one file."""
        return self._path.exists()

    @property
    def missing(self) -> list[tuple[int, int]]:
        """The row ranges (start, stop) that have no part yet, ascending."""
        if self.sealed:
            return []
        return [bounds for bounds in self._ranges() if not self._part_path(*bounds).exists()]

    def write_part(self, start: int, stop: int, loss: NDArray[np.float32], why_invalid: NDArray[np.uint8]) -> None:
        """Writes the losses of the rows from `start` to `stop` (one of `missing`), for good."""
        if (start, stop) not in self._ranges():
            raise ArgumentError(f"part: found rows {start} to {stop}, parts are {self._part_rows} rows long")
        why = np.array(self._view_why_invalid[start:stop])
        merge_reasons(why, why_invalid.astype(np.uint8))
        loss = np.where(why == Reason.VALID, loss, np.float32(np.nan)).astype(np.float32)
        write_file(self._part_path(start, stop), {"loss": loss, "why_invalid": why}, self._meta)

    def seal(self) -> None:
        """Joins all parts into the one file of the column and removes them."""
        if self.sealed:
            return
        if missing := self.missing:
            raise StoreError(f"{self._path}: can't be sealed, {len(missing)} parts are missing")
        parts = [map_file(self._part_path(*bounds))[0] for bounds in self._ranges()]
        tensors = {key: np.concatenate([part[key] for part in parts]) for key in ("loss", "why_invalid")}
        write_file(self._path, tensors, self._meta)
        shutil.rmtree(self._parts)

    def _ranges(self) -> list[tuple[int, int]]:
        starts = range(0, self._n_examples, self._part_rows)
        return [(start, min(start + self._part_rows, self._n_examples)) for start in starts]

    def _part_path(self, start: int, stop: int) -> Path:
        return self._parts / f"{start:012d}-{stop:012d}.safetensors"

    def _discard_others(self) -> None:
        """Removes temporary files, and parts that other weights or options produced."""
        if not self._parts.is_dir():
            return
        ours = {self._part_path(*bounds).name for bounds in self._ranges()}
        for path in self._parts.iterdir():
            if path.name not in ours or map_file(path)[1] != self._meta:
                path.unlink()
