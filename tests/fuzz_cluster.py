"""Random clusterings: what a right one fulfils, and that threads, backend, layout and row order leave no trace."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from fuzz_arguments import EITHER, FINE, REFUSED, Array, Chance, Name, Planned, Share, Verb, Whole, both
from fuzz_losses import BAD_VALUES, SHAPES, layouts, losses_of, shaped, spoil_columns, table
from lossift import _native

BACKENDS = _native.simd_available()
MOST_MAGNITUDE = 1e15  # as in the core: beyond it squares leave float32
MOST_CENTROIDS = 2**24
FITS = ("auto", "full", "minibatch", "sample")
INITS = ("k-means++", "random")
# As in the core: rows that centroids are seeded on and seen from, of a batch, and batches in the rows of a fit.
SEED_ROWS, BATCH_ROWS, MOST_BATCHES = 8192, 8192, 256
# Subtractions and multiply-adds of a case that isn't large, at most.
WORK = 3e7


class Init:
    """The name of a way to start, or centroids."""

    def spoil(self, chance: Chance, good: Any) -> tuple[Any, str]:
        if isinstance(good, np.ndarray):
            return Array(optional=True).spoil(chance, good)
        return Name(INITS, optional=True).spoil(chance, good)


# A new keyword argument gets a line here, a good value in `arguments`, and what must hold for it in `check`.
KINDS: dict[str, Any] = {
    "columns": None,
    "progress": None,
    "valid": Array(optional=True),
    "ids": Array(optional=True),
    "n_clusters": Whole(1, MOST_CENTROIDS),
    "n_iterations": Whole(1, 2**32 - 1),
    "seed": Whole(0, 2**64 - 1),
    "shape": Name(SHAPES),
    "init": Init(),
    "fit": Name(FITS),
    "max_fit_rows": Whole(1, 2**64 - 1, optional=True),
    "n_restarts": Whole(1, 2**32 - 1, optional=True),
    "tolerance": Share(),
    "pruning": Name(("cells", "none"), optional=True),
    "n_threads": Whole(1, 1024, optional=True),
}


def pool_of(chance: Chance) -> tuple[dict[str, Any], str]:
    """Returns arguments that every clustering takes, and what has to follow from them."""
    large = chance.maybe(0.05)  # enough to be worth pruning
    n = chance.size(4000, 40_000) if large else 0 if chance.maybe(0.02) else chance.size(1, 1500)
    t = chance.size(1, 70 if chance.maybe(0.1) and not large else 12)
    losses = losses_of(chance, n, t)
    n_clusters = chance.size(40, n // 64) if large else chance.size(1, int(np.clip(WORK / max(n * t, 1), 1, 3 * n + 1)))
    iterations = int(np.clip((60 * WORK if large else WORK) / max(n * t * min(n_clusters, n), 1), 1, 50))
    given: dict[str, Any] = {
        "columns": chance.pick(layouts(losses)),
        "valid": chance.rng.random(n) < chance.pick([0.0, 0.5, 0.9, 1.0, 1.0, 1.0]),
        "n_clusters": n_clusters,
        "n_iterations": iterations if large or chance.maybe(0.6) else chance.size(1, iterations),
        "seed": chance.pick([0, 1, 2**64 - 1, int(chance.rng.integers(2**63))]),
    }
    if chance.maybe(0.6):
        given["ids"] = chance.ids(n)
    if chance.maybe(0.5):
        given["shape"] = chance.pick(SHAPES)
    if chance.maybe(0.7):
        given["n_threads"] = chance.pick([None, 1, 2, 3, 8])
    if chance.maybe(0.1):  # any byte is a bool to NumPy
        given["valid"] = chance.rng.integers(0, 4, n).astype(np.uint8).view(bool)
    if chance.maybe(0.15):
        given["valid"] = None
        if chance.maybe(0.5):
            del given["valid"]
    verdict = outcome(losses, given)
    if n > 1 and "ids" in given and chance.maybe(0.03):  # which are to be distinct
        given["ids"][chance.rng.integers(n)] = given["ids"][0]
        verdict = both(verdict, EITHER)
    return given, verdict


def arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    """Returns arguments for `_native.cluster` and what has to follow from them."""
    given, verdict = pool_of(chance)
    losses = table(given["columns"])
    n = len(losses)
    if chance.maybe(0.4):
        given["fit"] = chance.pick(FITS)
    if chance.maybe(0.5 if given.get("fit") == "sample" else 0.05):
        given["max_fit_rows"] = chance.pick([None, chance.size(1, 2 * n + 1), chance.size(1, n + 1), 2**64 - 1])
    if given.get("max_fit_rows") is not None and given.get("fit") != "sample":
        verdict = both(verdict, REFUSED)
    if chance.maybe(0.3):
        given["init"] = chance.pick([None, *INITS])
    if chance.maybe(0.2) and n < 4000:
        given["n_restarts"] = chance.pick([None, 1, 2, 3])
    if chance.maybe(0.2):
        given["tolerance"] = chance.pick([0, 0.0, 1e-3, 0.1, 1.0])
    if chance.maybe(0.6):
        given["pruning"] = chance.pick([None, "cells", "cells", "none"])
    if chance.maybe(0.2):
        points = shaped(losses, given.get("shape", "raw"))
        given["init"], follows = centroids_of(chance, points, given["n_clusters"])
        verdict = both(verdict, follows)
    return spoil_and_watch(chance, given, verdict)


def spoil_and_watch(chance: Chance, given: dict[str, Any], verdict: str) -> tuple[dict[str, Any], str]:
    """Now and then spoils the columns and adds a callback."""
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
    points = shaped(losses, shape)[valid_of(given, len(losses))]
    fine = len(points) and np.isfinite(points).all() and (np.abs(points) <= np.float32(MOST_MAGNITUDE)).all()
    return FINE if fine else REFUSED


def centroids_of(chance: Chance, points: np.ndarray, n_clusters: int) -> tuple[np.ndarray, str]:
    """Returns centroids to start from, and what has to follow."""
    k, t = n_clusters, max(points.shape[1], 1)
    rows = chance.rng.integers(0, max(len(points), 1), k)
    good = points[rows] if points.size and chance.maybe(0.6) else chance.rng.random((k, t), np.float32) * 8
    good = np.where(np.abs(good) <= MOST_MAGNITUDE, good, 0).astype(np.float32)  # neither is NaN
    if chance.maybe(0.2):
        good[:] = chance.pick([0, -1e15, 5e-324, good[0]])  # all but one cluster are empty
    if chance.maybe(0.7):
        return good, FINE
    if chance.maybe(0.5):
        good[chance.rng.integers(k), chance.rng.integers(t)] = chance.pick([np.nan, np.inf, -np.inf, 1.1e15, -3e38])
        return good, REFUSED
    other = chance.pick([good.T, good[:-1], good[:, :-1], good.reshape(1, -1), good.reshape(-1, 1), good[None]])
    return np.ascontiguousarray(other), FINE if other.shape == good.shape else REFUSED


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
    losses = table(given["columns"])
    given = {**given, "columns": np.ascontiguousarray(losses)}
    valid, ids = valid_of(given, len(losses)), ids_of(given, len(losses))
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
    smallest = [min(keys) for keys in split(_native.keys(ids, given["seed"], "tie"), labels, k)]
    assert smallest == sorted(smallest), "clusters are numbered by their smallest keyed member"
    check_record(given, found, int(valid.sum()))
    init = given.get("init")
    check_inertia(points[valid], found, labels[valid], np.abs(init).max() if isinstance(init, np.ndarray) else 0)
    if len(points) * k * points.shape[1] < 2e7:
        check_nearest(points[valid], found, labels[valid])

    for _ in range(2):
        check_same(given, found, losses, chance)
    if given.get("n_restarts") not in (None, 1) and found.fit != "minibatch":
        once = _native.cluster(**(given | {"n_restarts": 1}))
        assert found.inertia[-1] <= once.inertia[-1], "the best of some fits is worse than the first of them"


def check_record(given: dict[str, Any], found: Any, n_valid: int) -> None:
    """The fit, its steps and its end go together."""
    asked, n_iterations = given.get("fit", "auto"), int(given["n_iterations"])
    n_clusters, rows = int(given["n_clusters"]), n_valid
    if asked == "sample":
        limit = given.get("max_fit_rows")
        rows = min(n_valid, max(2**20, 512 * n_clusters) if limit is None else int(limit))
    fit = "minibatch" if asked == "minibatch" else "full" if rows == n_valid else "sample"
    assert (found.fit, found.n_fit_rows) == (fit, rows)
    n_steps = len(found.inertia)
    assert n_steps == len(found.moved) == len(found.reseeded) == len(found.evaluated)
    assert all(np.isfinite(inertia) and inertia >= 0 for inertia in found.inertia)
    assert all(0 <= share <= 1 for share in found.evaluated)
    why = found.why_stopped
    if fit == "minibatch":
        # Whatever K is asked for, no more centroids than rows are started from.
        batch = min(rows, max(BATCH_ROWS, 16 * min(n_clusters, rows)))
        per_pass = -(-rows // batch)
        assert why in ("inertia stalled", "n_iterations reached")
        assert n_steps == per_pass * n_iterations if why == "n_iterations reached" else n_steps > 10
        assert n_steps <= per_pass * n_iterations
        for first in range(0, n_steps - per_pass + 1, per_pass):
            assert sum(found.moved[first : first + per_pass]) == rows, "a pass has every row once"
    else:
        assert 1 <= n_steps <= n_iterations + 1
        assert found.moved[0] == rows
        assert max(found.moved) <= rows
        pairs = zip(found.moved, found.reseeded, strict=True)
        settled = [np.inf if reseeded else moved for moved, reseeded in pairs]
        allowed = int(float(given.get("tolerance", 0)) * rows)
        assert all(moved > allowed for moved in settled[:-1]), "it went on though few labels moved"
        few = "no label moved" if found.moved[-1] == 0 else "few labels moved"
        assert why == ("n_iterations reached" if settled[-1] > allowed else few)
    pruning = given.get("pruning")
    assert (found.pruning, pruning) != ("cells", "none")
    if pruning == "cells" and fit != "minibatch" and n_steps > 3 and np.abs(found.centroids).max() < MOST_MAGNITUDE / 9:
        assert found.pruning == "cells"
    assert found.pruning == "cells" or set(found.evaluated) == {1.0}


def check_inertia(points: np.ndarray, found: Any, labels: np.ndarray, start: float) -> None:
    """The inertia is the sum of squared distances, as far as centroids rounded to float32 can tell.

    Sums are on a grid that has room for the centroids at the start, too, whose largest magnitude is `start`.
    """
    x, c = points.astype(np.float64), found.centroids.astype(np.float64)
    apart = np.abs(x - c[labels])
    error = 2.0**-22 * max(np.abs(x).max(), np.abs(c).max()) + 2.0**-44 * start
    allowed = 1e-9 * (apart**2).sum() + (error * (2 * apart + error)).sum()
    assert abs(found.total_inertia - (apart**2).sum()) <= allowed, "the inertia is another"
    if found.fit == "full":
        assert found.total_inertia == found.inertia[-1]


def check_nearest(points: np.ndarray, found: Any, labels: np.ndarray) -> None:
    """Every label is a nearest centroid's, as far as scores in float32, seen from the centre, can tell."""
    x, c = points.astype(np.float64), found.centroids.astype(np.float64)
    distances = np.zeros((len(x), len(c)))
    for xs, cs in zip(x.T, c.T, strict=True):
        distances += (xs[:, None] - cs) ** 2
    own, least = distances[np.arange(len(x)), labels], distances.min(axis=1)
    centre = x.mean(axis=0)
    far = np.linalg.norm(x - centre, axis=1) + 2 * np.linalg.norm(c - centre, axis=1).max()
    if len(x) > SEED_ROWS or found.fit != "full":  # where the mean of some rows is the centre
        far += np.linalg.norm(x - centre, axis=1).max()
    n = x.shape[1]
    rounded = 2.0**-22 * max(np.abs(x).max(), np.abs(c).max()) * np.sqrt(n)  # x - centre, c + centre
    allowed = least + 4 * (n + 4) * 2.0**-24 * far**2 + rounded * (4 * np.sqrt(own) + rounded) + n * 1e-37
    assert (own <= allowed).all(), f"row {int(np.argmax(own - allowed))} of the valid ones has a nearer centroid"


def check_same(given: dict[str, Any], found: Any, losses: np.ndarray, chance: Chance) -> None:
    """Clusters the same losses in another way, and finds the same bits."""
    other = dict(given)
    order = np.arange(len(losses))
    way = chance.pick(["threads", "backend", "layout", "order", "unlooked", "pruning", "pruning"])
    backend = os.environ.get("LOSSIFT_SIMD")
    if way == "threads":
        other["n_threads"] = chance.pick([1, 2, 3, 8, 64])
    elif way == "backend":
        # What multiplies and adds in software would take minutes for the large ones.
        os.environ["LOSSIFT_SIMD"] = chance.pick(BACKENDS if len(losses) < 4000 else BACKENDS[:-1] or BACKENDS)
    elif way == "layout":
        wide = losses.astype(np.float64) if chance.maybe(0.5) else losses
        other["columns"] = chance.pick(layouts(wide))
    elif way == "order":
        order = chance.rng.permutation(len(losses))
        other["columns"] = chance.pick(layouts(losses[order]))
    elif way == "unlooked":  # nobody looks at examples that aren't valid
        changed = losses.copy()
        changed[~valid_of(given, len(losses))] = chance.pick([np.nan, np.inf, 0, 7])
        other["columns"] = chance.pick(layouts(changed))
    elif way == "pruning":
        other["pruning"] = chance.pick([None, "cells", "none"])
    other["valid"], other["ids"] = (
        valid_of(given, len(losses))[order],
        np.ascontiguousarray(ids_of(given, len(losses))[order]),
    )
    try:
        again = _native.cluster(**other)
    finally:
        os.environ.pop("LOSSIFT_SIMD", None)
        if backend is not None:
            os.environ["LOSSIFT_SIMD"] = backend
    told = f"another result with other {way}"
    assert (again.labels == found.labels[order]).all(), told
    assert again.centroids.tobytes() == found.centroids.tobytes(), told
    fields = ["total_inertia", "inertia", "moved", "reseeded", "why_stopped", "fit", "n_fit_rows"]
    for field in fields + ([] if way == "pruning" else ["pruning", "evaluated"]):
        assert getattr(again, field) == getattr(found, field), f"{told}: {field}"


# ------------------------------------------------------------------ small words


def valid_of(given: dict[str, Any], n: int) -> np.ndarray:
    """Returns bool[N] of honest bytes, all true where none are given."""
    return np.ones(n, bool) if given.get("valid") is None else np.asarray(given["valid"]).view(np.uint8) != 0


def ids_of(given: dict[str, Any], n: int) -> np.ndarray:
    """Returns uint64[N], row numbers where none are given."""
    return np.arange(n, dtype=np.uint64) if given.get("ids") is None else np.asarray(given["ids"])


def split(values: np.ndarray, labels: np.ndarray, k: int) -> Iterable[list[int]]:
    """Returns the values of each cluster's members."""
    order = np.argsort(labels, kind="stable")
    cuts = np.searchsorted(labels[order], np.arange(k + 1))
    return [values[order[a:b]].tolist() for a, b in pairwise(cuts)]


VERBS = {"cluster": Verb(_native.cluster, KINDS, arguments, check)}
