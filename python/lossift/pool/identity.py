"""Example ids: 64 bits that say which content this is, whatever the file, the field names or the row order.

An example's content is the canonical JSON of its turns, ``[[role, text], ...]``, and its tools. Its BLAKE2b-128
has two halves: the first is the id, both together tell a repeated content from two contents that collide.

Contents that repeat are numbered, and the number goes into the id of all but the first. They are numbered in the
order of a hash of the whole row, so the same row keeps the same id when the pool is shuffled, even where two rows
differ only in a field that the model never sees.

Cost: one JSON dump and one hash per example, about 5 µs; rows are looked at again only where contents repeat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import numpy as np

from lossift.errors import PoolError
from lossift.pool.example import Example
from lossift.pool.source import Row, Rows

ID_HASH = "blake2b-128, first 64 bits"

_canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str).encode


def content_digest(example: Example) -> bytes:
    r"""16 bytes of BLAKE2b over what the model sees of an example.

    Examples
    --------
    >>> from lossift.pool import Example, Message
    >>> one = Example((Message("user", "Add up.", "1 2"), Message("assistant", "3")))
    >>> two = Example((Message("user", "Add up.\n\n1 2"), Message("assistant", "3")))
    >>> content_digest(one) == content_digest(two)
    True
    """
    content: list[Any] = [[message.role, message.text] for message in example.messages]
    if example.tools is not None:
        content = [content, example.tools]
    return blake2b(_canonical(content).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def row_digest(row: Row) -> bytes:
    """16 bytes of BLAKE2b over a whole row; a null field is the same as none, as tables can't tell them apart."""
    return blake2b(_canonical(without_nulls(row)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def number(
    digests: bytes, rows: Callable[[Rows], Iterable[Row]], where: Callable[[int], str]
) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Ids of a pool, one of a kind.

    Parameters
    ----------
    digests
        The `content_digest` of each example, in pool order, joined.
    rows
        Gives the rows of ascending row numbers; asked only for those whose content repeats.
    where
        Names a row in a message.

    Returns
    -------
    uint64[N]

    Raises
    ------
    PoolError
        If two different contents fall on one id; both rows are shown.
    """
    halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
    ids = halves[:, 0].astype(np.uint64)
    order = np.argsort(ids, kind="stable")
    equal = ids[order[1:]] == ids[order[:-1]]
    if not equal.any():
        return ids
    clash = np.flatnonzero(equal & (halves[order[1:], 1] != halves[order[:-1], 1]))
    if len(clash):
        raise _collision(int(order[clash[0]]), int(order[clash[0] + 1]), ids, where)
    repeated = np.zeros(len(ids), bool)
    repeated[order[1:][equal]] = repeated[order[:-1][equal]] = True
    again = np.flatnonzero(repeated)
    by_row = {int(row): row_digest(fields) for row, fields in zip(again, rows(again), strict=True)}
    seen: dict[int, int] = {}
    content = ids.copy()
    for row in sorted(by_row, key=lambda row: (by_row[row], row)):
        occurrence = seen.get(int(content[row]), 0)
        seen[int(content[row])] = occurrence + 1
        if occurrence:
            salted = digests[16 * row : 16 * row + 16] + occurrence.to_bytes(8, "little")
            ids[row] = int.from_bytes(blake2b(salted, digest_size=8).digest(), "little")
    order = np.argsort(ids, kind="stable")
    clash = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if len(clash):
        raise _collision(int(order[clash[0]]), int(order[clash[0] + 1]), ids, where)
    return ids


def without_nulls(value: Any) -> Any:
    """The value without the null fields of its objects, at any depth."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def _collision(one: int, other: int, ids: np.ndarray, where: Callable[[int], str]) -> PoolError:
    return PoolError(
        f"two different examples have the id {int(ids[one]):016x}: {where(one)} and {where(other)}",
        hint="leave one of the two out: ids have 64 bits, and this is the one pool in billions where that shows",
    )
