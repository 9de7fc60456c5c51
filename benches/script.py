"""The rival of a whole selection: the script that a good engineer would write with NumPy and faiss.

It loads the columns into one array (N, T), clusters it, and draws evenly from the clusters, smallest first. It knows
nothing of lossift. A store's files are plain safetensors, so `safetensors` reads them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from safetensors import safe_open

if TYPE_CHECKING:
    from numpy.typing import NDArray


def quotas(sizes: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Returns what each cluster gives: smallest first, each an equal share of what is left, or all it has."""
    given = np.zeros_like(sizes)
    left = budget
    for place, cluster in enumerate(np.argsort(sizes, kind="stable")):
        given[cluster] = min(sizes[cluster], left // (len(sizes) - place))
        left -= given[cluster]
    return given


def select(
    store: Path, budget: float, n_clusters: int, n_iterations: int, rows_per_centroid: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the chosen rows, ascending, and the cluster of every row."""
    files = sorted((store / "columns" / "plain").glob("*.safetensors"))
    n_examples = json.loads((store / "store.json").read_text())["n_examples"]
    losses = np.empty((n_examples, len(files)), np.float32)
    for state, path in enumerate(files):
        with safe_open(path, framework="numpy") as file:
            losses[:, state] = file.get_tensor("loss")
    assert np.isfinite(losses).all()
    kmeans = faiss.Kmeans(
        losses.shape[1], n_clusters, niter=n_iterations, seed=0, max_points_per_centroid=rows_per_centroid or n_examples
    )
    kmeans.train(losses)
    _, nearest = kmeans.index.search(losses, 1)
    labels = nearest[:, 0]
    sizes = np.bincount(labels, minlength=n_clusters)
    by_cluster = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    rng = np.random.default_rng(0)
    drawn = [
        rng.choice(members, quota, replace=False)
        for members, quota in zip(by_cluster, quotas(sizes, round(budget * n_examples)), strict=True)
    ]
    return np.sort(np.concatenate(drawn)), labels


def timed(store: str, out: str, **options: Any) -> dict[str, Any]:
    """Times one selection; saves rows and labels."""
    started = time.perf_counter()
    rows, labels = select(Path(store), **options)
    seconds = time.perf_counter() - started
    np.savez(out, rows=rows, labels=labels.astype(np.int32))
    return {"seconds": seconds, "note": ""}
