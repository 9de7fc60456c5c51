"""Cells, the groups that share a budget: stratum x cluster, and the quota of each.

The rule is S2L's for strata and clusters alike (arXiv 2403.07384): smallest first, each an equal share of what is
left, or all it has. Every quota grows with the budget, so smaller subsets lie inside larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lossift import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.pool import Stratum

# The authors' code: clusters this small are used last.
RELEASED_TINY_CLUSTER = 2


@dataclass
class Cell:
    """One stratum x cluster (or one of them, or the whole pool): what it holds and what it gave.

    Attributes
    ----------
    stratum, cluster
        None where the selection has no strata, no clusters.
    size
        Examples that could be chosen.
    quota, drawn
        Examples that were to be chosen, and that were.
    """

    stratum: str | None
    cluster: int | None
    size: int
    quota: int = 0
    drawn: int = 0


def make_cells(
    eligible: NDArray[np.bool_], strata: Stratum | None, labels: NDArray[np.int32] | None, n_clusters: int
) -> tuple[list[Cell], NDArray[np.int32]]:
    """Returns the non-empty cells (stratum x cluster), in order, and the cell of each example (-1: not eligible)."""
    group = np.zeros(len(eligible), dtype=np.int64)
    if strata is not None:
        group += strata.codes.astype(np.int64) * n_clusters
    if labels is not None:
        group += labels
    used, cell_of_eligible, sizes = np.unique(group[eligible], return_inverse=True, return_counts=True)
    cell_of = np.full(len(eligible), -1, dtype=np.int32)
    cell_of[eligible] = cell_of_eligible
    cells = [
        Cell(
            stratum=strata.names[int(g) // n_clusters] if strata else None,
            cluster=int(g) % n_clusters if labels is not None else None,
            size=int(size),
        )
        for g, size in zip(used, sizes, strict=True)
    ]
    return cells, cell_of


def set_quotas(
    cells: list[Cell],
    cell_of: NDArray[np.int32],
    ids: NDArray[np.uint64] | None,
    budget: int,
    seed: int,
    preset: str,
) -> None:
    """Splits the budget over the strata and then over each stratum's clusters, smallest first both times."""
    # Ties of size go to the group with the smallest keyed member id, which is also the order of cluster numbers.
    smallest = _native.smallest_keys(cell_of, len(cells), ids, seed=seed)
    groups: dict[str | None, list[int]] = {}
    for i, cell in enumerate(cells):
        groups.setdefault(cell.stratum, []).append(i)
    shares = _smallest_first(
        [sum(cells[i].size for i in members) for members in groups.values()],
        [min(int(smallest[i]) for i in members) for members in groups.values()],
        budget,
    )
    for members, share in zip(groups.values(), shares, strict=True):
        left = share
        for part in _in_turn(members, cells, preset):
            part_budget = min(left, sum(cells[i].size for i in part))
            ranks = [cells[i].cluster or 0 for i in part]
            for i, quota in zip(part, _smallest_first([cells[i].size for i in part], ranks, part_budget), strict=True):
                cells[i].quota = quota
            left -= part_budget


def _in_turn(members: list[int], cells: list[Cell], preset: str) -> list[list[int]]:
    """Returns the cells that share a budget first, and those that only get what is left of it."""
    if preset == "paper":
        return [members]
    tiny = [i for i in members if cells[i].cluster is not None and cells[i].size <= RELEASED_TINY_CLUSTER]
    return [[i for i in members if i not in set(tiny)], tiny]


def _smallest_first(sizes: list[int], ranks: list[int], budget: int) -> list[int]:
    if not sizes:
        return []
    quotas = _native.smallest_first(np.array(sizes, np.int64), np.array(ranks, np.uint64), budget)
    return [int(quota) for quota in quotas]
