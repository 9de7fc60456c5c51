"""Random comparisons of numbers of clusters: what a right one fulfils, beside the clustering of the largest one."""

from __future__ import annotations

from typing import Any

import numpy as np

import fuzz_cluster
from fuzz_arguments import REFUSED, Chance, Name, Verb
from fuzz_losses import SHAPES, shaped, table
from lossift import _native

KINDS: dict[str, Any] = {
    **{name: fuzz_cluster.KINDS[name] for name in ("columns", "progress", "valid", "ids", "n_iterations", "seed")},
    "n_clusters": None,
    "shape": Name(SHAPES),
    "fit": Name(("auto", "full", "sample")),
    "n_threads": fuzz_cluster.KINDS["n_threads"],
}


def arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    """Returns arguments for `_native.diagnose` and what has to follow from them."""
    given, verdict = fuzz_cluster.spoil_and_watch(chance, *fuzz_cluster.pool_of(chance))
    sizes = [given["n_clusters"], *(chance.size(1, given["n_clusters"]) for _ in range(chance.size(0, 3)))]
    chance.rng.shuffle(sizes)
    given["n_clusters"] = [int(size) for size in sizes]
    if chance.maybe(0.5):
        given["fit"] = chance.pick(["auto", "full", "sample"])
    if chance.maybe(0.05):
        given["n_clusters"] = chance.pick([[], [3, 0], [2.5], 7, None, [2**24 + 1]])
        verdict = REFUSED
    return given, verdict


def check(given: dict[str, Any], found: Any, chance: Chance) -> None:
    """Holds the numbers to what they must fulfil, and the largest K's to a clustering by it."""
    losses = table(given["columns"])
    given = {**given, "columns": losses}
    valid = fuzz_cluster.valid_of(given, len(losses))
    sizes, n_valid = given["n_clusters"], int(valid.sum())
    assert (found.fit, found.n_fit_rows) == ("full", n_valid)
    for size, n_found, inertia, silhouette, n_iterations, why in zip(
        sizes, found.n_found, found.inertia, found.silhouette, found.n_iterations, found.why_stopped, strict=True
    ):
        assert 1 <= n_found <= min(size, n_valid)
        assert np.isfinite(inertia)
        assert inertia >= 0
        assert (silhouette is None) == (n_found == 1)
        assert silhouette is None or -1 <= silhouette <= 1
        assert 0 <= n_iterations <= int(given["n_iterations"])
        assert why == "no label moved" or n_iterations == int(given["n_iterations"])
    again = _native.diagnose(**{**given, "n_threads": chance.pick([1, 2, 3, 8])})
    for field in ("n_found", "inertia", "silhouette", "n_iterations", "why_stopped"):
        assert getattr(again, field) == getattr(found, field), f"another result with other threads: {field}"
    largest = sizes.index(max(sizes))
    same = {name: value for name, value in given.items() if name not in ("fit", "progress")}
    alone = _native.cluster(**{**same, "n_clusters": sizes[largest]})
    assert found.n_found[largest] == len(alone.sizes)
    assert found.n_iterations[largest] == len(alone.moved) - 1
    # Both are sums on a grid that has to hold the squares of the largest values.
    points = shaped(losses, given.get("shape", "raw"))[valid]
    step = 16 * float(np.abs(points).max()) ** 2 * points.shape[1] * 2.0**-50
    assert np.isclose(found.inertia[largest], alone.total_inertia, rtol=1e-6, atol=n_valid * step)


VERBS = {"diagnose": Verb(_native.diagnose, KINDS, arguments, check)}
