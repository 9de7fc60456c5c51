"""How many clusters? Inertia and silhouette for a list of K, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lossift import _native
from lossift.arguments import check_name, check_seed, check_whole
from lossift.cluster import SHAPES, Progress, ask_core, valid_trajectories
from lossift.errors import ArgumentError
from lossift.reasons import Reason
from lossift.table import LossTable
from lossift.threads import resolve_threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from lossift.store import LossStore

FITS = ("auto", "full", "sample")


class ClusterDiagnosis(NamedTuple):
    """What a number of clusters comes to.

    Attributes
    ----------
    n_clusters
        How many were asked for.
    n_found
        How many have members: fewer where there are fewer distinct examples.
    inertia
        Sum of squared distances of all valid examples from their clusters' centroids.
    silhouette
        Mean simplified silhouette of all valid examples, -1 to 1; None for a single cluster.
    n_iterations
        How often the centroids moved.
    why_stopped
        "no label moved" or "n_iterations reached".
    """

    n_clusters: int
    n_found: int
    inertia: float
    silhouette: float | None
    n_iterations: int
    why_stopped: str


@dataclass(frozen=True, eq=False)
class ClusterDiagnoses:
    """A `ClusterDiagnosis` for each number of clusters; printed, a table.

    Attributes
    ----------
    rows
        In the order in which the numbers were given.
    fit, n_fit_rows
        What the centroids were fitted on, ``full`` or ``sample``, and on how many rows.
    why_invalid
        uint8[N], codes of `lossift.reasons`.
    columns
        Names of the loss columns that make up a trajectory.
    parameters
        Every parameter, as it was given.
    """

    rows: list[ClusterDiagnosis]
    fit: str
    n_fit_rows: int
    why_invalid: NDArray[np.uint8] = field(repr=False)
    columns: list[str] = field(repr=False)
    parameters: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ClusterDiagnosis]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> ClusterDiagnosis:
        return self.rows[index]

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Returns the rows as a table of at most 80 columns."""
        n_valid = int(np.count_nonzero(self.why_invalid == Reason.VALID))
        of = "all " if self.n_fit_rows == n_valid else f"{self.n_fit_rows:,} of "
        lines = [
            f"fit {self.fit}, on {of}{n_valid:,} valid rows; seed {self.parameters['seed']}",
            f"trajectories of {len(self.columns)} states, {self.parameters['shape']}",
            f"{'K':>10}  {'found':>10}  {'inertia':>12}  {'silhouette':>10}  {'iterations':>10}  stopped",
        ]
        for row in self.rows:
            silhouette = "-" if row.silhouette is None else f"{row.silhouette:.4f}"
            stopped = "at rest" if row.why_stopped == "no label moved" else "limit"
            lines.append(
                f"{row.n_clusters:>10,}  {row.n_found:>10,}  {row.inertia:>12.6g}  {silhouette:>10}  "
                f"{row.n_iterations:>10,}  {stopped}"
            )
        return "\n".join(lines)


def diagnose_clusters(
    losses: LossStore | str | Path | ArrayLike | Sequence[ArrayLike],
    n_clusters: Sequence[int] = (25, 50, 100, 200, 400),
    *,
    n_iterations: int = 20,
    fit: str = "auto",
    shape: str = "raw",
    seed: int = 0,
    n_threads: int | None = None,
    ids: ArrayLike | None = None,
    states: Sequence[str | int] | None = None,
    progress: Progress | None = None,
) -> ClusterDiagnoses:
    """Returns inertia and simplified silhouette for several numbers of clusters.

    All of them iterate side by side, in one pass over the data per iteration, from the first seeds of one greedy
    k-means++ run of the largest. The largest (or a single one) goes the very way of `lossift.cluster`; a smaller one
    would be seeded a little differently there.

    Parameters
    ----------
    losses, shape, seed, n_threads, ids, states, progress
        As in `lossift.cluster`.
    n_clusters
        The numbers of clusters to compare. The default is the S2L authors' 100, and what is around it.
    n_iterations
        How often centroids move, at most.
    fit
        What the centroids are fitted on: ``full``, all valid rows; ``sample``, 512 rows for each of the largest number
        of clusters, 1,048,576 at least; ``auto``: ``full`` up to 2,097,152 examples, ``sample`` beyond. Whatever it is,
        all valid examples are measured in the end.

    Raises
    ------
    ArgumentError
        When an argument is outside what is allowed; the message says what was found and what is allowed.
    StoreError
        When a state has no losses, or a file of the store shrank or failed meanwhile.

    Notes
    -----
    The simplified silhouette of an example is ``(b - a) / max(a, b)``, a and b being its distances from the nearest and
    the second nearest centroid (Hruschka, de Castro and Campello, 2004).

    Examples
    --------
    >>> import numpy as np, lossift
    >>> kind = np.arange(900) % 3
    >>> losses = (kind[:, None] + np.random.default_rng(0).random((900, 4)) / 10).astype(np.float32)
    >>> found = lossift.diagnose_clusters(losses, [2, 3, 4])
    >>> max(found, key=lambda row: row.silhouette).n_clusters
    3
    """
    check_name("fit", fit, FITS)
    check_name("shape", shape, SHAPES)
    if np.ndim(n_clusters) != 1 or not len(n_clusters):
        raise ArgumentError(f"n_clusters: found {n_clusters!r}, allowed is a sequence of whole numbers from 1")
    for number in n_clusters:
        check_whole("n_clusters", number)
    check_whole("n_iterations", n_iterations)
    check_seed(seed)
    table = LossTable(losses, ids)
    names = table.trajectory_names(states)
    threads = resolve_threads(n_threads)
    with table.reading():
        why_invalid = valid_trajectories(table, names, shape, threads)
        found = ask_core(
            _native.diagnose,
            table.stacked(names),
            why_invalid == Reason.VALID,
            table.ids,
            n_clusters=list(n_clusters),
            n_iterations=n_iterations,
            seed=seed,
            shape=shape,
            fit=fit,
            n_threads=threads,
            progress=progress,
        )
    sizes = [int(number) for number in n_clusters]
    rows = zip(
        sizes, found.n_found, found.inertia, found.silhouette, found.n_iterations, found.why_stopped, strict=True
    )
    return ClusterDiagnoses(
        rows=[ClusterDiagnosis(*row) for row in rows],
        fit=found.fit,
        n_fit_rows=found.n_fit_rows,
        why_invalid=why_invalid,
        columns=names,
        parameters={
            "n_clusters": sizes,
            "n_iterations": int(n_iterations),
            "fit": fit,
            "shape": shape,
            "seed": int(seed),
        },
    )
