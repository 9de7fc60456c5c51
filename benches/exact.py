"""Quality in float64, by the plain definition, the same for every contestant: nothing here uses what it judges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Distances, or losses, held at once.
_BLOCK = 1 << 23


def inertia(
    losses: NDArray[np.float32], centroids: NDArray[np.float32], labels: NDArray[np.integer] | None = None
) -> float:
    """Returns the sum of squared distances of the rows to their nearest centroid, or to the one that labels name.

    Parameters
    ----------
    losses
        float32[N, T].
    centroids
        float32[K, T].
    labels
        int[N]; the nearest centroid, found in float64, when None.
    """
    centres = centroids.astype(np.float64)
    half_squares = (centres**2).sum(axis=1) / 2
    rows = max(1, _BLOCK // len(centres))
    sums = []
    for start in range(0, len(losses), rows):
        block = losses[start : start + rows].astype(np.float64)
        # The product form only finds the nearest; its distance is then taken by subtraction.
        given = None if labels is None else labels[start : start + rows]
        nearest = (half_squares - block @ centres.T).argmin(axis=1) if given is None else given
        sums.append(float(((block - centres[nearest]) ** 2).sum()))
    return math.fsum(sums)


def inertia_within(columns: Sequence[NDArray[np.float32]], labels: NDArray[np.integer], n_clusters: int) -> float:
    """Returns the sum of squared distances of the rows to the mean of their own cluster, one column at a time.

    For data too large to hold as rows: `columns` are T vectors of N, mapped from disk, read block by block.
    """
    sizes = np.maximum(np.bincount(labels, minlength=n_clusters), 1)
    parts = []
    for column in columns:
        sums, squares = np.zeros(n_clusters), []
        for start in range(0, len(column), _BLOCK):
            values = column[start : start + _BLOCK].astype(np.float64)
            sums += np.bincount(labels[start : start + _BLOCK], weights=values, minlength=n_clusters)
            squares.append(float(values @ values))
        parts.append(math.fsum(squares) - float((sums**2 / sizes).sum()))
    return math.fsum(parts)
