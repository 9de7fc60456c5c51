"""The papers' procedures, slow and obvious: what every fast path is tested against, and never optimised.

Pure Python and NumPy, written from the text of arXiv 2403.07384 (S2L) and 2310.13008 (LoBaSS / DavIR); the one
thing shared with the core is the definition of the keyed hash, repeated here.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

MASK = 2**64 - 1


def smallest_first(sizes: list[int], ranks: list[int], budget: int) -> list[int]:
    """Quotas: groups by (size, rank); the k-th of K gets floor((B - taken) / (K - k + 1)), or all it has."""
    quotas = [0] * len(sizes)
    taken = 0
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], ranks[i]))
    for k, i in enumerate(order, start=1):
        share = (budget - taken) // (len(sizes) - k + 1)
        quotas[i] = min(sizes[i], share)
        taken += quotas[i]
    return quotas


def draw(cells, quotas, keys):
    """Rows: in each cell the `quota` examples with the smallest key."""
    chosen = []
    for cell, quota in enumerate(quotas):
        members = [row for row, c in enumerate(cells) if c == cell]
        chosen += sorted(members, key=lambda row: keys[row])[:quota]
    return sorted(chosen)


def top(cells, quotas, scores, tie_keys):
    """Rows: in each cell the `quota` examples with the largest score, ties by the smaller key."""
    chosen = []
    for cell, quota in enumerate(quotas):
        members = [row for row, c in enumerate(cells) if c == cell]
        chosen += sorted(members, key=lambda row: (-scores[row], tie_keys[row]))[:quota]
    return sorted(chosen)


def learnability(base: float, ref: float) -> float | None:
    """The share of its loss that training removes; None where there is no such number."""
    if not np.isfinite(base) or not np.isfinite(ref) or base <= 0:
        return None
    return 1.0 - ref / base


def budget_of(fraction: str, n: int) -> int:
    """A fraction of n, halves rounded up, by exact arithmetic."""
    return int(Fraction(fraction) * n + Fraction(1, 2))


def shaped(losses: np.ndarray, shape: str) -> np.ndarray:
    """Trajectories (N, T) in one of the four shapes, in float64."""
    losses = losses.astype(np.float64)
    if shape == "relative":
        return losses / losses[:, :1]
    if shape == "differences":
        return np.diff(losses, axis=1)
    if shape == "zscore":
        spread = losses.std(axis=1, keepdims=True)
        return np.where(spread > 0, (losses - losses.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1), 0)
    return losses


def nearest(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each point (the first of equals) and the squared distances to all, in float64."""
    distances = ((points[:, None, :].astype(np.float64) - centroids[None, :, :].astype(np.float64)) ** 2).sum(axis=2)
    return distances.argmin(axis=1), distances


def silhouette(points: np.ndarray, centroids: np.ndarray) -> float:
    """Mean over the points of (b - a) / max(a, b): distances from the nearest and the second nearest centroid."""
    a, b = np.sqrt(np.sort(nearest(points, centroids)[1], axis=1)[:, :2].T)
    return float(np.mean(np.where(b > 0, (b - a) / np.where(b > 0, b, 1), 0)))


def stratum_shares(labels, strata, budget, tie_keys):
    """For each stratum its valid rows by cluster, and its share of the budget, smallest stratum first."""
    strata_rows = {}
    for row, (label, stratum) in enumerate(zip(labels, strata, strict=True)):
        if label >= 0:
            strata_rows.setdefault(stratum, {}).setdefault(label, []).append(row)
    groups = list(strata_rows.values())
    sizes = [sum(len(rows) for rows in group.values()) for group in groups]
    ranks = [min(tie_keys[row] for rows in group.values() for row in rows) for group in groups]
    return zip(groups, smallest_first(sizes, ranks, budget), strict=True)


def s2l_paper(labels, strata, budget, cluster_keys, tie_keys, draw_keys):
    """The `paper` preset from cluster labels: budget over strata, then over each stratum's part of the clusters."""
    chosen = []
    for rows_of, share in stratum_shares(labels, strata, budget, tie_keys):
        clusters = list(rows_of)
        sizes = [len(rows_of[c]) for c in clusters]
        quotas = smallest_first(sizes, [cluster_keys[c] for c in clusters], share)
        for cluster, quota in zip(clusters, quotas, strict=True):
            chosen += sorted(rows_of[cluster], key=lambda row: draw_keys[row])[:quota]
    return sorted(chosen)


def s2l_released(labels, strata, budget, tie_keys, draw_keys):
    """The `released` preset from given per-stratum labels: clusters of at most 2 members are used last."""
    chosen = []
    for rows_of, share in stratum_shares(labels, strata, budget, tie_keys):
        large = [rows for rows in rows_of.values() if len(rows) > 2]
        tiny = [rows for rows in rows_of.values() if len(rows) <= 2]
        first = min(share, sum(len(rows) for rows in large))
        for clusters, part in ((large, first), (tiny, share - first)):
            ranks = [min(tie_keys[row] for row in rows) for rows in clusters]
            for rows, quota in zip(clusters, smallest_first([len(r) for r in clusters], ranks, part), strict=True):
                chosen += sorted(rows, key=lambda row: draw_keys[row])[:quota]
    return sorted(chosen)
