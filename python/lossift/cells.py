"""Cells, the groups that share a budget: stratum x cluster, and the quota of each.

The rule is S2L's for strata and clusters alike (arXiv 2403.07384): smallest first, each an equal share of what is
left, or all it has. Every quota grows with the budget, so smaller subsets lie inside larger ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, eq=False)
class Grid:
    """Where each example is: cell number ``stratum * n_clusters + cluster``. Nothing of size N is made of it.

    Attributes
    ----------
    clusters
        int32[N], -1 for none; None: there are no clusters.
    strata
        None: there are none, or each cluster lies in one of its own.
    cluster_strata
        The name of the stratum that each cluster lies in, where it is one.
    excluded
        uint8[N], not 0 for examples that are in no cell; None: those without a cluster are.
    """

    clusters: NDArray[np.int32] | None = None
    n_clusters: int = 1
    strata: Stratum | None = None
    cluster_strata: list[str] | None = None
    excluded: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(number of strata, number of clusters), 1 where there are none."""
        return len(self.strata.names) if self.strata else 1, self.n_clusters

    @property
    def arrays(self) -> dict[str, Any]:
        """What the core makes cells of."""
        return {
            "clusters": self.clusters,
            "strata": self.strata.codes if self.strata else None,
            "excluded": self.excluded,
        }

    def number_of(self, row: int) -> int:
        """Returns the number of the cell that a row is in, -1 for none."""
        cluster = 0 if self.clusters is None else int(self.clusters[row])
        if cluster < 0 or (self.excluded is not None and self.excluded[row]):
            return -1
        return cluster + (self._stratum_of(row) * self.n_clusters if self.strata else 0)

    def members(self, number: int) -> NDArray[np.bool_]:
        """Returns which examples are in a cell: bool[N], a pass over all of them."""
        stratum, cluster = divmod(number, self.n_clusters)
        inside: Any = True
        if self.clusters is not None:
            inside = self.clusters == cluster
        if self.excluded is not None:
            inside = inside & (self.excluded == 0)
        if self.strata is not None:
            inside = inside & self.strata.members(stratum)
        return np.asarray(inside)

    def cells(self, sizes: NDArray[np.int64]) -> dict[int, Cell]:
        """Returns the cells that hold something, by number, ascending."""
        return {
            number: Cell(
                stratum=self._name(number),
                cluster=number % self.n_clusters if self.clusters is not None else None,
                size=int(sizes.flat[number]),
            )
            for number in np.flatnonzero(sizes).tolist()
        }

    def _stratum_of(self, row: int) -> int:
        assert self.strata is not None
        return range(len(self.strata.names))[int(self.strata.codes[row])]

    def _name(self, number: int) -> str | None:
        if self.cluster_strata is not None:
            return self.cluster_strata[number % self.n_clusters]
        return self.strata.names[number // self.n_clusters] if self.strata else None


def set_quotas(cells: dict[int, Cell], smallest: NDArray[np.uint64] | None, budget: int, preset: str) -> None:
    """Splits the budget over the strata and then over each stratum's clusters, smallest first both times.

    Parameters
    ----------
    smallest
        The smallest keyed id in each cell of the grid: ties of size go to the group with the smallest, which is also
        the order of cluster numbers. None where there is one stratum.
    """
    groups: dict[str | None, list[int]] = {}
    for number, cell in cells.items():
        groups.setdefault(cell.stratum, []).append(number)
    shares = _smallest_first(
        [sum(cells[number].size for number in members) for members in groups.values()],
        [0 if smallest is None else int(smallest.flat[members].min()) for members in groups.values()],
        budget,
    )
    for members, share in zip(groups.values(), shares, strict=True):
        left = share
        for part in _in_turn([cells[number] for number in members], preset):
            part_budget = min(left, sum(cell.size for cell in part))
            ranks = [cell.cluster or 0 for cell in part]
            for cell, quota in zip(
                part, _smallest_first([cell.size for cell in part], ranks, part_budget), strict=True
            ):
                cell.quota = quota
            left -= part_budget


def _in_turn(cells: list[Cell], preset: str) -> list[list[Cell]]:
    """Returns the cells that share a budget first, and those that only get what is left of it."""
    if preset == "paper":
        return [cells]
    tiny = [cell.cluster is not None and cell.size <= RELEASED_TINY_CLUSTER for cell in cells]
    return [_where(cells, (not last for last in tiny)), _where(cells, tiny)]


def _where(cells: list[Cell], wanted: Iterable[bool]) -> list[Cell]:
    return [cell for cell, yes in zip(cells, wanted, strict=True) if yes]


def _smallest_first(sizes: list[int], ranks: list[int], budget: int) -> list[int]:
    if not sizes:
        return []
    quotas = _native.smallest_first(np.array(sizes, np.int64), np.array(ranks, np.uint64), budget)
    return [int(quota) for quota in quotas]
