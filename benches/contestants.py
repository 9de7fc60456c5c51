"""Those that are timed against each other: one way in for all, and nothing left out of anyone's time.

A contestant gets the rows as its users hold them (lossift: columns, as a store keeps them; the others: one C-ordered
array) before the clock starts. Under the clock it goes from initial centroids through a number of Lloyd iterations to
final centroids **and** the label of every row, on all cores.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


N_ITERATIONS = 20


class Fit(NamedTuple):
    """Centroids float32[K, T], labels int[N], and what else is worth telling."""

    centroids: NDArray[np.float32]
    labels: NDArray[np.integer]
    note: str = ""


def _lossift(losses: NDArray[np.float32], init: NDArray[np.float32]) -> Callable[[int], Fit]:
    import lossift

    columns = list(np.ascontiguousarray(losses.T))

    def run(n_iterations: int) -> Fit:
        found = lossift.cluster(columns, len(init), init=init, n_iterations=n_iterations, fit="full")
        return Fit(found.centroids, found.labels, f"pruning: {found.pruning}")

    return run


def _lossift_plain(losses: NDArray[np.float32], init: NDArray[np.float32]) -> Callable[[int], Fit]:
    from lossift import _native

    columns = list(np.ascontiguousarray(losses.T))
    valid = np.ones(len(losses), dtype=bool)

    def run(n_iterations: int) -> Fit:
        found = _native.cluster(
            columns,
            valid,
            None,
            n_clusters=len(init),
            n_iterations=n_iterations,
            seed=0,
            init=init,
            pruning="none",
            n_threads=granted(),
        )
        return Fit(found.centroids, found.labels)

    return run


def _lossift_rows(losses: NDArray[np.float32], init: NDArray[np.float32]) -> Callable[[int], Fit]:
    import lossift

    def run(n_iterations: int) -> Fit:
        found = lossift.cluster(losses, len(init), init=init, n_iterations=n_iterations, fit="full")
        return Fit(found.centroids, found.labels, f"pruning: {found.pruning}")

    return run


def _faiss(losses: NDArray[np.float32], init: NDArray[np.float32]) -> Callable[[int], Fit]:
    import faiss

    def run(n_iterations: int) -> Fit:
        n_clusters, n_states = init.shape
        # All rows: by default faiss fits 256 rows of each cluster.
        kmeans = faiss.Kmeans(n_states, n_clusters, niter=n_iterations, nredo=1, max_points_per_centroid=len(losses))
        kmeans.train(losses, init_centroids=init)
        _, labels = kmeans.index.search(losses, 1)
        return Fit(kmeans.centroids, labels[:, 0])

    return run


def _sklearn(losses: NDArray[np.float32], init: NDArray[np.float32]) -> Callable[[int], Fit]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)

    def run(n_iterations: int) -> Fit:
        kmeans = KMeans(
            len(init), init=init, n_init=1, max_iter=n_iterations, tol=0, algorithm="lloyd", copy_x=False
        ).fit(losses)
        return Fit(kmeans.cluster_centers_, kmeans.labels_)

    return run


def _intelex(losses: NDArray[np.float32], init: NDArray[np.float32]) -> Callable[[int], Fit]:
    from sklearnex import patch_sklearn

    patch_sklearn(verbose=False)
    return _sklearn(losses, init)


@dataclass(frozen=True)
class Contestant:
    """How to make ready, the distribution it comes from, and variables that it runs under."""

    prepare: Callable[[NDArray[np.float32], NDArray[np.float32]], Callable[[int], Fit]]
    package: str = "lossift"
    environment: dict[str, str] = field(default_factory=dict)


CONTESTANTS = {
    "lossift": Contestant(_lossift),
    "lossift, no pruning": Contestant(_lossift_plain),
    "lossift, C-ordered rows": Contestant(_lossift_rows),
    "faiss": Contestant(_faiss, "faiss-cpu"),
    # On some CPUs faiss's own choice, AVX-512, is the slower one: both run, and the faster counts.
    "faiss, AVX2": Contestant(_faiss, "faiss-cpu", {"FAISS_SIMD_LEVEL": "AVX2"}),
    "scikit-learn": Contestant(_sklearn, "scikit-learn"),
    "scikit-learn-intelex": Contestant(_intelex, "scikit-learn-intelex"),
}


# ------------------------------------------------ in a process of their own


def time_fits(name: str, folder: str) -> dict[str, Any]:
    """Returns the seconds of 1, 21 and 20 iterations, and saves the last fit."""
    losses = np.load(Path(folder) / "losses.npy")
    run = CONTESTANTS[name].prepare(losses, np.load(Path(folder) / "init.npy"))
    run(1)  # threads are started, pages are mapped
    seconds = {}
    for n_iterations in (1, N_ITERATIONS + 1, N_ITERATIONS):
        started = time.perf_counter()
        fit = run(n_iterations)
        seconds[n_iterations] = time.perf_counter() - started
    labels = np.asarray(fit.labels, np.int32)
    np.savez(Path(folder) / "fit.npz", centroids=fit.centroids, labels=labels)
    digest = hashlib.blake2b(fit.centroids.tobytes() + labels.tobytes(), digest_size=16).hexdigest()
    return {"seconds": seconds, "note": fit.note, "digest": digest, "pools": thread_pools()}


def default_lossift(folder: str, n_clusters: int, seed: int) -> dict[str, Any]:
    """Times one clustering with nothing but K and a seed given."""
    import lossift

    columns = list(np.ascontiguousarray(np.load(Path(folder) / "losses.npy").T))
    lossift.cluster([column[:100_000] for column in columns], n_clusters)  # threads are started
    started = time.perf_counter()
    found = lossift.cluster(columns, n_clusters, seed=seed)
    seconds = time.perf_counter() - started
    np.savez(Path(folder) / "fit.npz", centroids=found.centroids, labels=found.labels)
    return {"seconds": seconds, "note": f"fit: {found.fit}"}


def default_faiss(folder: str, n_clusters: int, seed: int) -> dict[str, Any]:
    """Times one default faiss clustering, and the labels of all rows."""
    import faiss

    losses = np.load(Path(folder) / "losses.npy")

    def run(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kmeans = faiss.Kmeans(losses.shape[1], n_clusters, seed=seed)
        kmeans.train(rows)
        _, labels = kmeans.index.search(rows, 1)
        return kmeans.centroids, labels[:, 0].astype(np.int32)

    run(losses[:100_000])  # threads are started
    started = time.perf_counter()
    centroids, labels = run(losses)
    seconds = time.perf_counter() - started
    np.savez(Path(folder) / "fit.npz", centroids=centroids, labels=labels)
    return {"seconds": seconds, "note": ""}


# ---------------------------------------------------------------- what is here


def version(package: str) -> str | None:
    """Returns the version of an installed distribution, None when it isn't there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def thread_pools() -> list[str]:
    """Returns which BLAS kernels and thread pools this process has loaded, and how many threads each uses."""
    from threadpoolctl import threadpool_info

    return sorted(
        f"{pool['internal_api']} {pool.get('version') or ''} {pool.get('architecture') or ''}".strip()
        + f" x{pool['num_threads']}"
        for pool in threadpool_info()
    )


def granted() -> int:
    """Returns the number of threads the parent told this process to use."""
    return int(os.environ["OMP_NUM_THREADS"])
