"""Choosing the subset: losses -> { scores | clusters } -> quotas -> draw. Reads like the papers' pseudo-code.

Nothing here depends on row order, threads or machine: whatever is random is decided by keyed hashes of
(seed, example id), in the core.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lossift import _native
from lossift.arguments import check_name, check_seed, check_share, check_whole
from lossift.budget import parse_budget
from lossift.cells import Grid, set_quotas
from lossift.cluster import FITS, SHAPES, Progress, ask_core, check_init
from lossift.errors import ArgumentError
from lossift.reasons import Reason, count_reasons
from lossift.scores import SCORES
from lossift.selection import Selection
from lossift.table import LossTable
from lossift.threads import resolve_threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from lossift.pool import Stratum
    from lossift.store import LossStore

METHODS = ("s2l", *SCORES, "random")
PRESETS = ("paper", "released")
# What each method looks at, besides the arguments that all of them do.
KMEANS = ("preset", "shape", "n_clusters", "n_iterations", "init", "fit", "n_restarts", "tolerance")
USED = {"s2l": ("states", *KMEANS), "random": ("states",)} | dict.fromkeys(SCORES, ("base", "ref", "min_score"))

# The authors' code: centroids see at most this many rows per cluster.
RELEASED_FIT_ROWS = 256


def select(
    losses: LossStore | str | Path | ArrayLike | Sequence[ArrayLike],
    method: str = "s2l",
    budget: int | float | str = 0.11,
    seed: int = 0,
    by: str | ArrayLike | None = None,
    states: Sequence[str | int] | None = None,
    base: str | int | None = None,
    ref: str | int | None = None,
    ids: ArrayLike | None = None,
    preset: str = "paper",
    shape: str = "raw",
    n_clusters: int = 100,
    n_iterations: int = 20,
    n_threads: int | None = None,
    *,
    init: str | ArrayLike = "k-means++",
    fit: str = "auto",
    n_restarts: int = 1,
    tolerance: float = 0.0,
    min_score: float | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Returns the chosen examples, with the reason for each and all that is needed to choose them again.

    Parameters
    ----------
    losses
        A loss store or its path, an array ``(n_examples, n_states)`` of mean losses in nats (float16,
        bfloat16 of ``ml_dtypes``, float32 or float64; any order, views too), or a sequence of ``n_states`` columns.
        They are read where they lie. Examples with a NaN or an infinity in a column that the method uses are invalid
        and never chosen.
    method
        ``s2l``: k-means over trajectories, then draws from the clusters, smallest first (arXiv 2403.07384);
        ``learnability``: the largest ``1 - ref / base`` (arXiv 2310.13008); ``delta``: the largest
        ``base - ref``; ``random``: the control.
    budget
        How many examples: a count (500), a fraction of all N (0.11), or a percentage ("11%"). Met exactly. The
        default is the share that S2L's abstract claims to match all of its data.
    seed
        Decides everything random, 0 to 2**64 - 1.
    by
        Strata that share the budget evenly, smallest first: the name of a stratum column, or N labels.
    states
        ``s2l``: the states of a trajectory, by name (or column number, for arrays). Of a trace the default is
        those strictly between the first and the last step; of anything else, all. ``random``: the states in
        which an example must be valid.
    base, ref
        Scores: the states before and after training; by default the first and the last.
    ids
        uint64[N], for arrays: what the draws hang on. Row numbers when None.
    preset
        How ``s2l`` treats strata: ``paper`` has one clustering over the pool, ``released`` one for each stratum,
        fitted on at most 256 rows per cluster, as the authors' code does.
    shape
        What of a trajectory is clustered: ``raw``, ``relative`` to its first loss, ``zscore``, ``differences``.
    n_clusters, n_iterations
        K = 100 and 20 iterations are the authors' values.
    n_threads
        Default: ``LOSSIFT_NUM_THREADS``, then what the affinity mask and the cgroup allow. It never changes
        the outcome.
    init, fit, n_restarts, tolerance
        How ``s2l`` clusters: see `lossift.cluster`. ``released`` has a fit of its own.
    min_score
        Scores: examples below it are not chosen, even if the budget is not met then.
    progress
        Called with (what, done, total) now and then.

    Raises
    ------
    ArgumentError
        When an argument is outside what is allowed; the message says what was found and what is allowed.
    StoreError
        When a state that the method needs has no losses, or a file of the store shrank or failed under a clustering
        or a draw (Linux; elsewhere, and while NumPy reads it, that ends the process).

    Examples
    --------
    >>> import numpy as np, lossift
    >>> losses = np.random.default_rng(0).random((1000, 8), dtype=np.float32)
    >>> chosen = lossift.select(losses, budget=0.11)
    >>> len(chosen.rows)
    110
    """
    _check_options(method, preset, shape, by, n_clusters, n_iterations, fit, n_restarts, tolerance, seed)
    _check_use(
        method,
        states=states,
        base=base,
        ref=ref,
        min_score=min_score,
        preset=preset,
        shape=shape,
        n_clusters=n_clusters,
        n_iterations=n_iterations,
        init=init,
        fit=fit,
        n_restarts=n_restarts,
        tolerance=tolerance,
    )
    table = LossTable(losses, ids)
    threads = resolve_threads(n_threads)
    strata = table.stratum(by) if by is not None else None
    names = _columns_needed(method, table, states, base, ref)
    if method != "random":
        table.check_comparable(names)
    start = check_init(init, n_clusters, len(names), shape, n_restarts)
    why_invalid = table.validity(names, threads)
    scores: NDArray[np.float64] | None = None
    clustering: Clustering | None = None

    if method in SCORES:
        before, after = map(table.column, names)
        scores = SCORES[method](before, after, why_invalid)
    if method == "s2l" and shape == "relative":
        table.mark_unscalable(why_invalid, names, threads)

    count = _check_budget(parse_budget(budget, table.n_examples), budget, count_reasons(why_invalid, threads), method)
    excluded = why_invalid
    if min_score is not None and scores is not None:
        excluded = why_invalid | (scores < min_score)
        n_eligible = table.n_examples - int(np.count_nonzero(excluded))
        if not n_eligible:
            raise ArgumentError(f"min_score: found {min_score}, the highest score is {np.nanmax(scores):.6g}")
        count = min(count, n_eligible)

    if method == "s2l":
        with table.reading():
            clustering = _cluster(
                table,
                names,
                why_invalid,
                strata if preset == "released" else None,
                n_clusters=n_clusters,
                n_iterations=n_iterations,
                shape=shape,
                init=start,
                fit=fit,
                n_restarts=n_restarts,
                tolerance=tolerance,
                seed=seed,
                n_threads=threads,
                progress=progress,
            )
    grid, sizes = _grid(clustering, strata, excluded)
    smallest = None
    with table.reading():
        if sizes is None:
            sizes, smallest = _native.census(*grid.shape, table.ids, **grid.arrays, seed=seed, n_threads=threads)
        cells = grid.cells(sizes)
        set_quotas(cells, smallest, count, preset)
        quotas = np.zeros(grid.shape, dtype=np.int64)
        for number, cell in cells.items():
            quotas.flat[number] = cell.quota
        rows = _native.draw(quotas, table.ids, **grid.arrays, seed=seed, sizes=sizes, scores=scores, n_threads=threads)
    for cell in cells.values():
        cell.drawn = cell.quota  # a draw gives every quota in full, or fails

    return Selection(
        table=table,
        rows=rows,
        why_invalid=why_invalid,
        cells=cells,
        grid=grid,
        strata=strata,
        columns=names,
        parameters={
            "method": method,
            "budget": budget if isinstance(budget, str) else _plain(budget),
            "seed": int(seed),
            "by": by if isinstance(by, str) or by is None else {"labels": "given"},
            "states": None if method in SCORES else names,
            "base": names[0] if method in SCORES else None,
            "ref": names[1] if method in SCORES else None,
            "preset": preset,
            "shape": shape,
            "n_clusters": int(n_clusters),
            "n_iterations": int(n_iterations),
            "init": start if isinstance(start, str) else {"centroids": _digest(start)},
            "fit": fit,
            "n_restarts": int(n_restarts),
            "tolerance": float(tolerance),
            "min_score": min_score,
        },
        fits=clustering.fits if clustering else [],
    )


# ------------------------------------------------------------------ columns


def _columns_needed(
    method: str,
    table: LossTable,
    states: Sequence[str | int] | None,
    base: str | int | None,
    ref: str | int | None,
) -> list[str]:
    """Returns the names of the columns that the method reads; an example is valid when all of them are."""
    if method == "s2l":
        return table.trajectory_names(states)
    if method == "random":
        # A control draws from what the methods could have drawn from: the examples with losses.
        return [table.resolve(state, "states") for state in (table.names if states is None else states)]
    if len(table.names) < 2 and (base is None or ref is None):
        raise ArgumentError(
            f"{method}: needs two states, a base and a ref; there are: {', '.join(table.names) or 'none'}",
            hint="score the model before and after training: lossift score POOL --model BASE REF --out DIR",
        )
    found = [
        table.resolve(table.names[0] if base is None else base, "base"),
        table.resolve(table.names[-1] if ref is None else ref, "ref"),
    ]
    if found[0] == found[1]:
        raise ArgumentError(f"{method}: base and ref are both {found[0]!r}, two different states are needed")
    return found


# ----------------------------------------------------------------- clusters


class Clustering(NamedTuple):
    """Cluster of each example (int32[N], -1 where invalid), their sizes (int64[K]), and how each fit went.

    `strata` are the names of the strata that the clusters lie in, where each stratum has clusters of its own.
    """

    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    fits: list[dict[str, Any]]
    strata: list[str] | None = None


def _cluster(
    table: LossTable,
    names: list[str],
    why_invalid: NDArray[np.uint8],
    strata: Stratum | None,
    *,
    progress: Progress | None,
    **options: Any,
) -> Clustering:
    """Clusters the trajectories: once over the pool, or (`strata`) once for each stratum."""
    columns, valid = table.stacked(names), why_invalid == Reason.VALID
    if strata is None:
        found = ask_core(_native.cluster, columns, valid, table.ids, progress=progress, **options)
        return Clustering(found.labels, found.sizes, [_describe_fit(found, None)])
    labels = np.full(table.n_examples, -1, dtype=np.int32)
    sizes: list[int] = []
    fits, strata_of = [], []
    options |= {"fit": "sample", "max_fit_rows": RELEASED_FIT_ROWS * options["n_clusters"]}
    for code, name in enumerate(strata.names):
        rows = np.flatnonzero(valid & strata.members(code))
        if not len(rows):
            continue
        part = [column[rows] for column in columns] if isinstance(columns, list) else columns[rows]
        report = _in_stratum(progress, name)
        found = ask_core(_native.cluster, part, None, table.ids_of(rows), progress=report, **options)
        labels[rows] = found.labels + len(sizes)
        sizes += found.sizes.tolist()
        strata_of += [name] * len(found.sizes)
        fits.append(_describe_fit(found, name))
    return Clustering(labels, np.array(sizes, dtype=np.int64), fits, strata_of)


def _grid(
    clustering: Clustering | None, strata: Stratum | None, excluded: NDArray[np.uint8]
) -> tuple[Grid, NDArray[np.int64] | None]:
    """Returns the grid of cells, and how many examples each holds where that is known and nothing else is needed."""
    if clustering is None:
        return Grid(strata=strata, excluded=excluded), None
    # Who is invalid has no cluster.
    grid = Grid(clusters=clustering.labels, n_clusters=len(clustering.sizes))
    if strata is None:
        return grid, clustering.sizes[np.newaxis]
    if clustering.strata is None:
        return replace(grid, strata=strata), None
    return replace(grid, cluster_strata=clustering.strata), None


def _in_stratum(progress: Progress | None, name: str) -> Progress | None:
    return None if progress is None else lambda what, done, total: progress(f"{name}: {what}", done, total)


def _describe_fit(found: _native.Clustering, stratum: str | None) -> dict[str, Any]:
    return {
        "stratum": stratum,
        "n_clusters": len(found.sizes),
        "fit": found.fit,
        "n_fit_rows": found.n_fit_rows,
        "total_inertia": found.total_inertia,
        "inertia": list(found.inertia),
        "moved": list(found.moved),
        "reseeded": list(found.reseeded),
        "why_stopped": found.why_stopped,
        "pruning": found.pruning,
        "evaluated": list(found.evaluated),
    }


# ------------------------------------------------------------------- checks


def _check_options(
    method: str,
    preset: str,
    shape: str,
    by: object,
    n_clusters: int,
    n_iterations: int,
    fit: str,
    n_restarts: int,
    tolerance: float,
    seed: int,
) -> None:
    check_name("method", method, METHODS)
    check_name("preset", preset, PRESETS)
    check_name("shape", shape, SHAPES)
    check_name("fit", fit, FITS)
    for argument, number in (("n_clusters", n_clusters), ("n_iterations", n_iterations), ("n_restarts", n_restarts)):
        check_whole(argument, number)
    check_share("tolerance", tolerance)
    check_seed(seed)
    if method == "s2l" and preset == "released":
        if by is None:
            raise ArgumentError("preset: 'released' clusters each stratum by itself and needs by=; found none")
        if fit != "auto":
            raise ArgumentError(f"fit: found {fit!r}, but preset 'released' fits on at most 256 rows per cluster")


def _check_use(method: str, **given: Any) -> None:
    """Refuses arguments that the method would not look at: whoever gave them expects otherwise.

    A default that is given can't be told from one that isn't, and asks for nothing.
    """
    defaults = inspect.signature(select).parameters
    for argument, value in given.items():
        default = defaults[argument].default
        if argument in USED[method] or value is default or (np.isscalar(value) and value == default):
            continue
        found = "an array" if isinstance(value, np.ndarray) else repr(value)
        raise ArgumentError(f"{argument}: found {found}, but method {method!r} uses {', '.join(sorted(USED[method]))}")
    if given["min_score"] is not None and not np.isfinite(given["min_score"]):
        raise ArgumentError(f"min_score: found {given['min_score']}, allowed are finite numbers")


def _digest(centroids: NDArray[np.float32]) -> str:
    """Returns what tells these centroids to start from from others, for the manifest."""
    return hashlib.blake2b(centroids.astype("<f4").tobytes(), digest_size=16).hexdigest()


def _check_budget(count: int, budget: object, reasons: dict[Reason, int], method: str) -> int:
    n_valid = reasons.pop(Reason.VALID, 0)
    if count <= n_valid:
        return count
    found = ", ".join(f"{n} {reason.text}" for reason, n in reasons.items())
    raise ArgumentError(f"budget: found {budget} ({count} examples), {n_valid} are valid for {method} ({found})")


def _plain(number: int | float) -> int | float:
    return int(number) if isinstance(number, int | np.integer) else float(number)
