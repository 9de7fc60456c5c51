"""Clusters of trajectories by k-means, by themselves: what `select` draws from, for whoever wants them otherwise.

The arithmetic is the core's; here arguments are checked, invalid examples set aside, and the outcome becomes a value
that says how it came about. The same bits for any number of threads, any CPU and, with ids, any order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from lossift import _native
from lossift.arguments import check_name, check_seed, check_share, check_whole
from lossift.errors import ArgumentError, LossiftError
from lossift.reasons import Reason, count_reasons
from lossift.table import LossTable
from lossift.threads import resolve_threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from lossift.store import LossStore

SHAPES = ("raw", "relative", "zscore", "differences")
FITS = ("auto", "full", "minibatch", "sample")
INITS = ("k-means++", "random")

Progress = Callable[[str, int, int], None]
T = TypeVar("T")


class Step(NamedTuple):
    """What one assignment of the fit found; of mini-batches, each batch is one.

    Attributes
    ----------
    inertia
        Sum of squared distances from the nearest centroids.
    moved
        How many examples changed their cluster: all of them in the first step, and those of a mini-batch.
    reseeded
        How many empty clusters took a far example.
    evaluated
        The share of the distances that was calculated: below 1 where pruning left out those that can't matter.
    """

    inertia: float
    moved: int
    reseeded: int
    evaluated: float


@dataclass(frozen=True, eq=False)
class Clustering:
    """Clusters of examples, numbered by their smallest keyed member id, and how they were found.

    Attributes
    ----------
    labels
        int32[N]: the cluster of each example, -1 where it is invalid.
    centroids
        float32[K, T] in the shape that was clustered; K counts the clusters that have members, and is less than what
        was asked for where there are fewer distinct examples. T is one less for ``differences``.
    sizes
        int64[K]: members per cluster.
    inertia
        Sum of squared distances of all valid examples from their centroids.
    steps
        One `Step` per assignment of the fit, about the rows of the fit.
    fit, n_fit_rows
        What the centroids were fitted on: ``full``, ``sample`` or ``minibatch``, never ``auto``; and on how many rows.
    why_stopped
        "no label moved", "few labels moved", "inertia stalled" or "n_iterations reached".
    pruning
        "cells" where distances that can't matter were left out, "none" where all were calculated; it changes no bit.
    why_invalid
        uint8[N], codes of `lossift.reasons`.
    columns
        Names of the loss columns that make up a trajectory.
    parameters
        Every parameter, as it was given.
    """

    labels: NDArray[np.int32] = field(repr=False)
    centroids: NDArray[np.float32] = field(repr=False)
    sizes: NDArray[np.int64] = field(repr=False)
    inertia: float
    steps: list[Step] = field(repr=False)
    fit: str
    n_fit_rows: int
    why_stopped: str
    pruning: str
    why_invalid: NDArray[np.uint8] = field(repr=False)
    columns: list[str] = field(repr=False)
    parameters: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return (
            f"<Clustering: {len(self.sizes):,} clusters of {self.counts['clustered']:,} examples, "
            f"inertia {self.inertia:.6g}, fit {self.fit}, {self._iterations()}, {self.why_stopped}>"
        )

    @property
    def seed(self) -> int:
        """What decided everything random."""
        return int(self.parameters["seed"])

    @property
    def n_iterations(self) -> int:
        """How often the centroids moved: once between two assignments, and once for each mini-batch."""
        return len(self.steps) - (self.fit != "minibatch")

    @property
    def counts(self) -> dict[str, Any]:
        """Examples = clustered + the sum of invalid, always."""
        reasons = count_reasons(self.why_invalid)
        return {
            "examples": len(self.labels),
            "clustered": reasons.pop(Reason.VALID),
            "invalid": {reason.text: n for reason, n in reasons.items()},
        }

    @property
    def why_fit(self) -> str:
        """Why the centroids were fitted on these rows, in a sentence."""
        asked, n_clusters = self.parameters["fit"], self.parameters["n_clusters"]
        everything = self.fit == "full"
        rows = f"all {self.n_fit_rows:,} valid rows" if everything else f"{self.n_fit_rows:,} rows"
        most, n = _native.AUTO_FULL_ROWS, len(self.labels)
        if asked == "auto" and n <= most:
            return f"auto: N = {n:,} is at most {most:,}"
        if asked == "auto":
            return f"auto: N = {n:,} is above {most:,}; K = {n_clusters:,} takes {rows}"
        return f"{asked}: K = {n_clusters:,} takes {rows}" if asked != "full" else "full: as asked for"

    def summary(self) -> str:
        """Returns what was found, from what and how, in a few lines of at most 80 columns."""
        counts, n_fit_rows = self.counts, self.n_fit_rows
        n_asked = self.parameters["n_clusters"]
        asked = "" if n_asked == len(self.sizes) else f", {n_asked:,} asked for"
        of = "all " if n_fit_rows == counts["clustered"] else f"{n_fit_rows:,} of "
        invalid = ", ".join(f"{n:,} {reason}" for reason, n in counts["invalid"].items()) or "none"
        evaluated = np.mean([step.evaluated for step in self.steps])
        return "\n".join(
            (
                f"{len(self.sizes):,} clusters of {self.sizes.min():,} to {self.sizes.max():,} examples "
                f"(median {int(np.median(self.sizes)):,}){asked}",
                f"invalid: {invalid}",
                f"trajectories of {len(self.columns)} states, {self.parameters['shape']}",
                f"inertia {self.inertia:.6g}, seed {self.seed}",
                f"fit {self.fit}, on {of}{counts['clustered']:,} valid rows ({self.parameters['init']})",
                f"    {self.why_fit}",
                f"{self._iterations()}, {self.why_stopped}",
                f"pruning: {self.pruning}, {100 * evaluated:.0f} % of the distances calculated",
            )
        )

    def _iterations(self) -> str:
        return describe_iterations(self.fit, len(self.steps))


def cluster(
    losses: LossStore | str | Path | ArrayLike | Sequence[ArrayLike],
    n_clusters: int,
    *,
    init: str | ArrayLike = "k-means++",
    n_iterations: int = 20,
    fit: str = "auto",
    shape: str = "raw",
    n_restarts: int = 1,
    seed: int = 0,
    n_threads: int | None = None,
    tolerance: float = 0.0,
    ids: ArrayLike | None = None,
    states: Sequence[str | int] | None = None,
    progress: Progress | None = None,
) -> Clustering:
    """Returns clusters of the examples' trajectories, by k-means (Euclidean, Lloyd's iterations).

    Parameters
    ----------
    losses
        What `lossift.select` takes: a loss store or its path, an array ``(n_examples, n_states)`` of mean losses in
        nats, or a sequence of ``n_states`` columns. Examples with a NaN or an infinity are invalid: they get the label
        -1, are counted by reason, and move no centroid.
    n_clusters
        K, at most: there are fewer where there are fewer distinct examples.
    init
        Where centroids start: ``k-means++`` (greedy, on a sample), ``random`` (examples), or an array of floats
        ``(n_clusters, T)`` in the shape that is clustered.
    n_iterations
        How often centroids move, at most; of mini-batches, how often all rows of the fit are gone through. 20 is the
        S2L authors' value. Labels always fit the centroids that are returned.
    fit
        What the centroids are fitted on; every valid example is assigned to them in the end. ``full``: all valid rows.
        ``sample``: 512 rows per cluster, 1,048,576 at least. ``minibatch``: batch after batch, the fastest and by some
        per cent the worst. ``auto``: ``full`` up to 2,097,152 examples, ``sample`` beyond.
    shape
        What of a trajectory is clustered: ``raw``, ``relative`` to its first loss, ``zscore``, ``differences``.
    n_restarts
        How many times to begin anew from other centroids; the fit of the smallest inertia is kept.
    seed
        Decides everything random, 0 to 2**64 - 1.
    n_threads
        Default: ``LOSSIFT_NUM_THREADS``, then what the affinity mask and the cgroup allow. It never changes
        the outcome.
    tolerance
        End when an assignment changes no more than this share of the labels.
    ids
        uint64[N], for arrays: what chance and ties hang on. Row numbers when None.
    states
        The states of a trajectory, by name (or column number, for arrays). Of a trace the default is those strictly
        between the first and the last step; of anything else, all.
    progress
        Called with (what, done, total) now and then.

    Raises
    ------
    ArgumentError
        When an argument is outside what is allowed; the message says what was found and what is allowed.
    StoreError
        When a state has no losses, or a file of the store shrank or failed meanwhile (Linux; elsewhere, and while
        NumPy reads it, that ends the process).

    Examples
    --------
    >>> import numpy as np, lossift
    >>> losses = np.random.default_rng(0).random((1000, 8), dtype=np.float32)
    >>> found = lossift.cluster(losses, 10)
    >>> found.centroids.shape, int(found.sizes.sum()), found.fit
    ((10, 8), 1000, 'full')
    """
    check_name("fit", fit, FITS)
    check_name("shape", shape, SHAPES)
    for argument, number in (("n_clusters", n_clusters), ("n_iterations", n_iterations), ("n_restarts", n_restarts)):
        check_whole(argument, number)
    check_share("tolerance", tolerance)
    check_seed(seed)
    table = LossTable(losses, ids)
    names = table.trajectory_names(states)
    start = check_init(init, n_clusters, len(names), shape, n_restarts)
    threads = resolve_threads(n_threads)
    with table.reading():
        why_invalid = valid_trajectories(table, names, shape, threads)
        found = ask_core(
            _native.cluster,
            table.stacked(names),
            why_invalid == Reason.VALID,
            table.ids,
            n_clusters=n_clusters,
            n_iterations=n_iterations,
            seed=seed,
            shape=shape,
            init=start,
            fit=fit,
            n_restarts=n_restarts,
            tolerance=tolerance,
            n_threads=threads,
            progress=progress,
        )
    steps = zip(found.inertia, found.moved, found.reseeded, found.evaluated, strict=True)
    return Clustering(
        labels=found.labels,
        centroids=found.centroids,
        sizes=found.sizes,
        inertia=found.total_inertia,
        steps=[Step(*step) for step in steps],
        fit=found.fit,
        n_fit_rows=found.n_fit_rows,
        why_stopped=found.why_stopped,
        pruning=found.pruning,
        why_invalid=why_invalid,
        columns=names,
        parameters={
            "n_clusters": int(n_clusters),
            "init": start if isinstance(start, str) else "given centroids",
            "n_iterations": int(n_iterations),
            "fit": fit,
            "shape": shape,
            "n_restarts": int(n_restarts),
            "seed": int(seed),
            "tolerance": float(tolerance),
        },
    )


# ------------------------------------------------- what other verbs need too


def check_init(
    init: object, n_clusters: int, n_states: int, shape: str, n_restarts: int = 1
) -> str | NDArray[np.float32]:
    """Returns where centroids start as the core takes it: a name, or float32[K, T]."""
    if isinstance(init, str):
        if init not in INITS:
            raise ArgumentError(f"init: found {init!r}, allowed are {', '.join(INITS)}, or an array of centroids")
        return init
    array = np.asarray(init)
    wanted = (n_clusters, n_states - (shape == "differences"))
    if array.dtype.kind != "f":
        raise ArgumentError(
            f"init: found dtype {array.dtype}, allowed are {', '.join(INITS)}, or an array of floats {wanted}"
        )
    if array.shape != wanted:
        raise ArgumentError(
            f"init: found an array of shape {array.shape}, allowed is {wanted}, "
            f"n_clusters centroids of {wanted[1]} values"
        )
    if n_restarts > 1:
        raise ArgumentError(
            f"n_restarts: found {n_restarts}, allowed is 1 where init is an array: "
            "each would start from the same centroids"
        )
    with np.errstate(over="ignore"):  # the core refuses the infinity that it becomes
        return np.ascontiguousarray(array, dtype=np.float32)


def valid_trajectories(table: LossTable, names: Sequence[str], shape: str, n_threads: int) -> NDArray[np.uint8]:
    """Returns why each example has no trajectory to cluster: uint8[N], codes of `Reason`; at least one has one."""
    table.check_comparable(names)
    why = table.validity(names, n_threads)
    if shape == "relative":
        table.mark_unscalable(why, names, n_threads)
    reasons = count_reasons(why, n_threads)
    if Reason.VALID not in reasons:
        found = ", ".join(f"{n:,} {reason.text}" for reason, n in reasons.items())
        raise ArgumentError(f"losses: found no valid example among {table.n_examples:,} ({found})")
    return why


def ask_core(verb: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Returns what a verb of the core finds; an argument that it refuses is an `ArgumentError`."""
    try:
        return verb(*arguments, **options)
    except (ValueError, RuntimeError) as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # the progress callback's own
        # The core names argument, found and allowed by itself; no argument is to blame for threads that the system
        # would not start, or for a bug of ours that says so.
        kind = ArgumentError if isinstance(error, ValueError) else LossiftError
        raise kind(str(error)) from error


def describe_iterations(fit: str, n_steps: int) -> str:
    """Returns how long a fit of so many assignments took, in words: the centroids moved between two of them."""
    number, what = (n_steps, "mini-batch") if fit == "minibatch" else (n_steps - 1, "iteration")
    plural = "es" if fit == "minibatch" else "s"
    return f"{number:,} {what}{plural if number != 1 else ''}"
