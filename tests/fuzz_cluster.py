"""Random clusterings: what a right one fulfils, and that threads, backend, layout and row order leave no trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from fuzz_arguments import EITHER, FINE, REFUSED, Array, Chance, Name, Planned, Verb, Whole, both
from lossift import _native

SHAPES = ("raw", "relative", "zscore", "differences")
BACKENDS = _native.simd_available()
MOST_MAGNITUDE = 1e15  # as in the core: beyond it squares leave float32
MOST_CENTROIDS = 2**24
# Subtractions and multiply-adds of a case that isn't large, at most.
WORK = 3e7

# A new keyword argument gets a line here, a good value in `arguments`, and what must hold for it in `check`.
KINDS: dict[str, Any] = {
    "columns": None,
    "progress": None,
    "valid": Array(),
    "ids": Array(),
    "n_clusters": Whole(1, MOST_CENTROIDS),
    "n_iterations": Whole(1, 2**32 - 1),
    "seed": Whole(0, 2**64 - 1),
    "shape": Name(SHAPES),
    "max_fit_rows": Whole(1, 2**64 - 1, optional=True),
    "n_threads": Whole(1, 1024, optional=True),
}

# What losses may look like, from N x T uniform numbers.
VALUES: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda u: 8 * u,
    lambda u: np.sort(u, axis=1)[:, ::-1] * 4 + (u[:, :1] * 5).astype(int),  # falling curves of five levels
    lambda u: 8 * (u[:, :1] * 99).astype(int) + u,
    lambda u: (u * 3).astype(int),  # ties
    np.ones_like,
    lambda u: 1e4 + 1e-2 * u,
    lambda u: (u - 0.5) * 2e15,
    lambda u: (u - 0.5) * 10.0 ** (30 * u - 15),
    lambda u: u * 1e-40,  # subnormal
    lambda u: u * 1e-22,  # squares underflow
]
BAD_VALUES = [np.nan, np.inf, -np.inf, 3e38, -2e15, 1e300]


def arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    """Returns arguments for `_native.cluster` and what has to follow from them."""
    large = chance.maybe(0.05)  # enough to be worth pruning
    n = chance.size(4000, 40_000) if large else 0 if chance.maybe(0.02) else chance.size(1, 1500)
    t = chance.size(1, 70 if chance.maybe(0.1) else 12)
    dtype = chance.pick([np.float32, np.float32, np.float64])
    with np.errstate(over="ignore"):
        losses = chance.pick(VALUES)(chance.rng.random((n, t))).astype(dtype)
        if n and chance.maybe(0.15):
            losses[chance.rng.integers(n), chance.rng.integers(t)] = chance.pick(BAD_VALUES)
    n_clusters = chance.size(40, n // 64) if large else chance.size(1, int(np.clip(WORK / max(n * t, 1), 1, 3 * n + 1)))
    iterations = 12 if large else int(np.clip(WORK / max(n * t * min(n_clusters, n), 1), 1, 40))
    given: dict[str, Any] = {
        "columns": layouts(losses)[chance.pick(["columns", "rows"])],
        "valid": chance.rng.random(n) < chance.pick([0.0, 0.5, 0.9, 1.0, 1.0, 1.0]),
        "ids": chance.ids(n) if chance.maybe(0.5) else np.arange(n, dtype=np.uint64),
        "n_clusters": n_clusters,
        "n_iterations": iterations if large else chance.size(1, iterations),
        "seed": chance.pick([0, 1, 2**64 - 1, int(chance.rng.integers(2**63))]),
    }
    if chance.maybe(0.5):
        given["shape"] = chance.pick(SHAPES)
    if chance.maybe(0.3):
        given["max_fit_rows"] = chance.pick([None, chance.size(1, 2 * n + 1), 2**64 - 1])
    if chance.maybe(0.7):
        given["n_threads"] = chance.pick([None, 1, 2, 3, 8])
    if chance.maybe(0.1):  # any byte is a bool to NumPy
        given["valid"] = chance.rng.integers(0, 4, n).astype(np.uint8).view(bool)
    verdict = outcome(losses, given)
    if chance.maybe(0.15):
        given["columns"], follows = spoil_columns(chance, given["columns"])
        verdict = both(verdict, follows)
    if chance.maybe(0.2):
        given["progress"], follows = callback(chance, given["columns"])
        verdict = both(verdict, follows)
    return given, verdict


def outcome(losses: np.ndarray, given: dict[str, Any]) -> str:
    """Returns what has to follow from these values."""
    shape = given.get("shape", "raw")
    if shape == "differences" and losses.shape[1] < 2:
        return REFUSED
    points = shaped(losses, shape)[truth(given["valid"])]
    fine = len(points) and np.isfinite(points).all() and (np.abs(points) <= np.float32(MOST_MAGNITUDE)).all()
    return FINE if fine else REFUSED


def spoil_columns(chance: Chance, columns: Any) -> tuple[Any, str]:
    """Returns other columns, and what has to follow."""
    if isinstance(columns, np.ndarray):
        if chance.maybe(0.2):
            strided = columns.shape[0] > 1 and columns.shape[1] > 1
            return np.asfortranarray(columns), REFUSED if strided else FINE
        value, verdict = Array().spoil(chance, columns)
        # A row more or less, columns as a list of lists: refused as well, but one array of another float is not.
        other_float = isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64)
        return value, EITHER if other_float and verdict == REFUSED else verdict
    whole = chance.pick(["tuple", "view", "iterator", "twice", "none", "empty", "text", "number", "one", "one", "one"])
    if whole == "one":
        index = int(chance.rng.integers(len(columns)))
        value, verdict = Array().spoil(chance, columns[index])
        alone = len(columns) == 1 and isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64)
        return [*columns[:index], value, *columns[index + 1 :]], EITHER if alone and verdict == REFUSED else verdict
    return {
        "tuple": (tuple(columns), FINE),
        "view": (dict(enumerate(columns)).values(), FINE),
        "iterator": (iter(columns), EITHER),  # used up by the time anybody could check
        "twice": ([*columns, columns[0]], EITHER),
        "none": (None, REFUSED),
        "empty": ([], REFUSED),
        "text": ("columns", REFUSED),
        "number": (3, REFUSED),
    }[whole]


def callback(chance: Chance, columns: Any) -> tuple[Any, str]:
    """Returns something for `progress`, and what has to follow."""
    way = chance.pick(["none", "listens", "listens", "raises", "changes", "not callable"])
    turn = chance.size(1, 30)
    told: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        assert isinstance(what, str)
        assert 0 <= done <= total
        told.append((what, done, total))
        if way == "raises" and len(told) == turn:
            raise Planned
        if way == "changes" and len(told) == turn:  # which nobody may do; but it must not crash
            for column in [columns] if isinstance(columns, np.ndarray) else columns:
                if isinstance(column, np.ndarray) and column.flags.writeable and column.dtype.kind == "f":
                    column.reshape(-1)[:: chance.size(1, 9)] = chance.pick(BAD_VALUES[:5])

    verdict = EITHER if way in ("raises", "changes") else REFUSED if way == "not callable" else FINE
    return {"none": None, "not callable": 3}.get(way, progress), verdict


def check(given: dict[str, Any], found: Any, chance: Chance) -> None:
    """Holds a clustering to what it must fulfil, and to others of the same losses."""
    given = {
        **given,
        "columns": list(given["columns"]) if not isinstance(given["columns"], np.ndarray) else given["columns"],
    }
    losses = given["columns"] if isinstance(given["columns"], np.ndarray) else np.stack(given["columns"], axis=1)
    valid, ids = truth(given["valid"]), given["ids"]
    points = shaped(losses, given.get("shape", "raw"))
    labels, k = found.labels, len(found.sizes)

    assert (labels.dtype, labels.shape) == (np.int32, (len(losses),))
    assert ((labels == -1) == ~valid).all(), "a label is -1 exactly where the example is not valid"
    assert labels[valid].min() == 0
    assert labels.max() == k - 1
    assert k <= min(int(given["n_clusters"]), valid.sum())
    assert found.sizes.dtype == np.int64
    assert (found.sizes == np.bincount(labels[valid], minlength=k)).all()
    assert found.sizes.min() > 0
    assert (found.centroids.dtype, found.centroids.shape) == (np.float32, (k, points.shape[1]))
    assert np.isfinite(found.centroids).all()
    smallest = [min(keys) for keys in split(_native.keys(np.asarray(ids), given["seed"], "tie"), labels, k)]
    assert smallest == sorted(smallest), "clusters are numbered by their smallest keyed member"

    rows = given.get("max_fit_rows")
    assert found.n_fit_rows == min(valid.sum(), 2**64 if rows is None else int(rows))
    n_steps = len(found.inertia)
    assert 1 <= n_steps <= int(given["n_iterations"]) + 1
    assert n_steps == len(found.moved) == len(found.reseeded) == len(found.evaluated)
    assert all(np.isfinite(inertia) and inertia >= 0 for inertia in found.inertia)
    assert found.moved[0] == found.n_fit_rows
    assert found.why_stopped == ("no label moved" if found.moved[-1] == 0 else "n_iterations reached")
    assert all(0 <= share <= 1 for share in found.evaluated)
    if len(points) * k * points.shape[1] < 2e7:
        check_nearest(points[valid], found.centroids, labels[valid])

    for _ in range(2):
        check_same(given, found, losses, chance)


def check_nearest(points: np.ndarray, centroids: np.ndarray, labels: np.ndarray) -> None:
    """Every label is a nearest centroid's, as far as sums of float32 can tell."""
    distances = np.zeros((len(points), len(centroids)))
    for x, c in zip(points.T.astype(np.float64), centroids.T.astype(np.float64), strict=True):
        distances += (x[:, None] - c) ** 2
    own = distances[np.arange(len(points)), labels]
    n = points.shape[1]
    allowed = distances.min(axis=1) * (1 + 4 * (n + 3) * 2.0**-24) + n * 1e-37
    assert (own <= allowed).all(), f"row {int(np.argmax(own - allowed))} of the valid ones has a nearer centroid"


def check_same(given: dict[str, Any], found: Any, losses: np.ndarray, chance: Chance) -> None:
    """Clusters the same losses in another way, and finds the same bits."""
    other = dict(given)
    order = np.arange(len(losses))
    way = chance.pick(["threads", "backend", "layout", "order", "unlooked"])
    backend = os.environ.get("LOSSIFT_SIMD")
    if way == "threads":
        other["n_threads"] = chance.pick([1, 2, 3, 8, 64])
    elif way == "backend":
        os.environ["LOSSIFT_SIMD"] = chance.pick(BACKENDS)
    elif way == "layout":
        wide = losses.astype(np.float64) if losses.dtype == np.float32 and chance.maybe(0.5) else losses
        other["columns"] = layouts(wide)[chance.pick(["columns", "rows"])]
    elif way == "order":
        order = chance.rng.permutation(len(losses))
        other["columns"] = layouts(losses[order])[chance.pick(["columns", "rows"])]
    elif way == "unlooked":  # nobody looks at examples that aren't valid
        changed = losses.copy()
        changed[~truth(given["valid"])] = chance.pick([np.nan, np.inf, 0, 7])
        other["columns"] = layouts(changed)["columns"]
    other["valid"], other["ids"] = truth(given["valid"])[order], np.ascontiguousarray(given["ids"][order])
    try:
        again = _native.cluster(**other)
    finally:
        os.environ.pop("LOSSIFT_SIMD", None)
        if backend is not None:
            os.environ["LOSSIFT_SIMD"] = backend
    told = f"another result with other {way}"
    assert (again.labels == found.labels[order]).all(), told
    assert again.centroids.tobytes() == found.centroids.tobytes(), told
    for field in ("inertia", "moved", "reseeded", "why_stopped", "n_fit_rows"):
        assert getattr(again, field) == getattr(found, field), f"{told}: {field}"


# ------------------------------------------------------------------ small words


def truth(valid: np.ndarray) -> np.ndarray:
    """Returns bool[N] of honest bytes."""
    return np.asarray(valid).view(np.uint8) != 0


def layouts(losses: np.ndarray) -> dict[str, Any]:
    """Returns N x T losses as the core may get them."""
    columns = [np.ascontiguousarray(column) for column in losses.T]
    return {"columns": columns, "rows": np.ascontiguousarray(losses)}


def split(values: np.ndarray, labels: np.ndarray, k: int) -> list[list[int]]:
    """Returns the values of each cluster's members."""
    order = np.argsort(labels, kind="stable")
    cuts = np.searchsorted(labels[order], np.arange(k + 1))
    return [values[order[a:b]].tolist() for a, b in pairwise(cuts)]


def shaped(losses: np.ndarray, shape: str) -> np.ndarray:
    """Returns trajectories as the core sees them: float32, the same operations in the same order."""
    with np.errstate(all="ignore"):
        x = np.asarray(losses).astype(np.float32)
        if shape == "relative":
            return x / x[:, :1]
        if shape == "differences":
            return x[:, 1:] - x[:, :-1]
        if shape == "zscore":
            n, mean, variance = x.shape[1], np.zeros(len(x)), np.zeros(len(x))
            for column in x.T:
                mean = mean + column.astype(np.float64)
            mean = mean / n
            for column in x.T:
                variance = variance + (column.astype(np.float64) - mean) ** 2
            z = (x.astype(np.float64) - mean[:, None]) / np.sqrt(variance / n)[:, None]
            return np.where((x - x[:, :1] == 0).all(axis=1, keepdims=True), 0, z).astype(np.float32)
        return x


VERBS = {"cluster": Verb(_native.cluster, KINDS, arguments, check)}
