"""Strata: the groups that a pool's own columns suggest.

Every top-level field of text, whole numbers or booleans that the mapping doesn't use, with at most 1,000 different
values and fewer than there are rows, is one. Cost: a dict look-up per row and field; a field is dropped as soon as
it has too many values.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossift.pool.source import Row

MAX_NAMES = 1000


@dataclass(frozen=True)
class Stratum:
    """Which group each example belongs to.

    Attributes
    ----------
    codes : int32[N]
        Index into `names`; -1 where the row has no value. Whoever wants these in a stratum of their own appends its
        name, which -1 then means as it does everywhere in Python.
    names : list of str
        Sorted.
    """

    codes: np.ndarray[Any, np.dtype[np.int32]]
    names: list[str]

    def members(self, code: int) -> np.ndarray:
        """Which rows are in a stratum: bool[N]. Those of -1 are in the last one, if any is to be theirs."""
        last = code == len(self.names) - 1
        return np.isin(self.codes, [code, -1]) if last else np.asarray(self.codes == code)

    def part(self, rows: np.ndarray) -> Stratum:
        """The stratum of some of the rows, with only the names that occur there."""
        codes = self.codes[rows]
        present = np.unique(codes[codes >= 0])
        places = np.full(len(self.names) + 1, -1, np.int32)
        places[present] = np.arange(len(present), dtype=np.int32)
        return Stratum(places[codes], [self.names[code] for code in present])


class StrataBuilder:
    """Collects the fields of one row after another."""

    def __init__(self, mapped: Collection[str]) -> None:
        self._dropped = set(mapped)
        self._open: dict[str, tuple[dict[str, int], array[int]]] = {}

    def add(self, index: int, row: Row) -> None:
        """Take in the row with this number; numbers ascend."""
        for field, value in row.items():
            if field in self._dropped or value is None:
                continue
            kind = type(value)
            if kind is str:
                name = value
            elif kind is int:
                name = str(value)
            elif kind is bool:
                name = "true" if value else "false"
            else:
                self._drop(field)
                continue
            places, codes = self._open.setdefault(field, ({}, array("i")))
            code = places.setdefault(name, len(places))
            if code >= MAX_NAMES:
                self._drop(field)
                continue
            if len(codes) < index:
                codes.extend([-1] * (index - len(codes)))
            codes.append(code)

    def _drop(self, field: str) -> None:
        self._dropped.add(field)
        self._open.pop(field, None)

    def strata(self, n_examples: int) -> dict[str, Stratum]:
        """The strata found, by field, in the order of the fields' names."""
        return {
            field: _sorted(places, codes, n_examples)
            for field, (places, codes) in sorted(self._open.items())
            if len(places) < n_examples
        }


def _sorted(places: dict[str, int], codes: array[int], n_examples: int) -> Stratum:
    names = sorted(places)
    new = np.full(len(names) + 1, -1, np.int32)
    new[[places[name] for name in names]] = np.arange(len(names), dtype=np.int32)
    full = np.full(n_examples, -1, np.int32)
    full[: len(codes)] = new[np.array(codes, np.int32)]
    return Stratum(full, names)
