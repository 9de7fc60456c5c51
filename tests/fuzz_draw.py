"""Random draws, quotas and keys, against the slow reference."""

from __future__ import annotations

from typing import Any

import numpy as np

import reference
from fuzz_arguments import EITHER, FINE, REFUSED, Array, Chance, Text, Verb, Whole, both
from lossift import _native

SEED = Whole(0, 2**64 - 1)
THREADS = Whole(1, 1024, optional=True)


def cells_of(chance: Chance) -> tuple[dict[str, Any], np.ndarray, tuple[int, int]]:
    """Returns arguments that say where examples are, the number of each one's cell (-1: in none), and (S, K)."""
    n = 0 if chance.maybe(0.05) else chance.size(100_000, 300_000) if chance.maybe(0.01) else chance.size(1, 400)
    n_strata, n_clusters = (1 if chance.maybe(0.4) else chance.size(1, most) for most in (9, 40))
    has_clusters, has_strata = (of > 1 or chance.maybe(0.5) for of in (n_clusters, n_strata))
    given: dict[str, Any] = {}
    cells = np.zeros(n, np.int64)
    if has_strata:
        given["strata"] = chance.rng.integers(-1, n_strata, n, dtype=np.int32)
        cells += np.where(given["strata"] == -1, n_strata - 1, given["strata"]) * n_clusters
    if has_clusters:
        given["clusters"] = chance.rng.integers(-1, n_clusters, n, dtype=np.int32)
        cells = np.where(given["clusters"] == -1, -1, cells + given["clusters"])
    if chance.maybe(0.5) or not given:
        given["excluded"] = (chance.rng.random(n) < chance.pick([0, 0.3, 1])).astype(np.uint8) * chance.pick([1, 255])
        cells = np.where(given["excluded"] != 0, -1, cells)
    if chance.maybe(0.1):
        given |= dict.fromkeys({"strata", "clusters", "excluded"} - set(given))
    if chance.maybe(0.7):
        given["ids"] = chance.ids(n)
    if chance.maybe(0.5):
        given["n_threads"] = chance.pick([None, 1, 2, 3, 8])
    return given, cells, (n_strata, n_clusters)


def misplace(chance: Chance, given: dict[str, Any], shape: tuple[int, int]) -> str:
    """Now and then puts an example where there is no cell; returns what has to follow."""
    of = dict(zip(("strata", "clusters"), shape, strict=True))
    name = chance.pick(list(of))
    if given.get(name) is None or not len(given[name]) or chance.maybe(0.9):
        return FINE
    row = int(chance.rng.integers(len(given[name])))
    given[name][row] = chance.pick([-2, of[name], 2**31 - 1, -(2**31)])
    # Nobody looks at the stratum of an example without a cluster, or at an example that is excluded.
    clusters, excluded = given.get("clusters"), given.get("excluded")
    unseen = (excluded is not None and excluded[row] != 0) or (clusters is not None and clusters[row] == -1)
    return FINE if unseen else REFUSED


def ids_of(given: dict[str, Any]) -> np.ndarray:
    if given.get("ids") is not None:
        return np.asarray(given["ids"])
    known = (given.get(name) for name in ("clusters", "strata", "excluded"))
    return np.arange(next(len(array) for array in known if array is not None), dtype=np.uint64)


def cells_again(given: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Returns the number of each example's cell, one example at a time."""
    n = len(ids_of(given))
    cells = np.empty(n, np.int64)
    for row in range(n):
        stratum, cluster, excluded = (
            0 if given.get(name) is None else int(given[name][row]) for name in ("strata", "clusters", "excluded")
        )
        stratum = shape[0] - 1 if stratum == -1 else stratum
        cells[row] = -1 if excluded or cluster == -1 else stratum * shape[1] + cluster
    return cells


def census_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    given, _, (n_strata, n_clusters) = cells_of(chance)
    verdict = misplace(chance, given, (n_strata, n_clusters))
    given |= {"n_strata": n_strata, "n_clusters": n_clusters, "seed": chance.pick([0, 5, 2**64 - 1])}
    if chance.maybe(0.05):
        given["n_strata"] += 100_000  # there may be more than are met
        if given.get("strata") is None:
            verdict = REFUSED
        elif (given["strata"] == n_strata).any():  # what was out of range is no longer
            verdict = EITHER
    return given, verdict


def check_census(given: dict[str, Any], found: tuple[np.ndarray, np.ndarray], _chance: Chance) -> None:
    shape = (int(given["n_strata"]), int(given["n_clusters"]))
    sizes, smallest = [0] * (shape[0] * shape[1]), [2**64 - 1] * (shape[0] * shape[1])
    keys = _native.keys(ids_of(given), given["seed"], "tie").tolist()
    for cell, key in zip(cells_again(given, shape), keys, strict=True):
        if cell >= 0:
            sizes[cell] += 1
            smallest[cell] = min(smallest[cell], key)
    assert [array.dtype for array in found] == [np.int64, np.uint64]
    assert [array.shape for array in found] == [shape, shape]
    assert [array.reshape(-1).tolist() for array in found] == [sizes, smallest]


def draw_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    given, cells, shape = cells_of(chance)
    sizes = np.bincount(cells[cells >= 0], minlength=shape[0] * shape[1]).reshape(shape)
    quotas = np.floor(sizes * chance.pick([0, 0.3, 1, chance.rng.random(shape)])).astype(np.int64)
    given |= {"quotas": quotas, "seed": chance.pick([0, 5, 2**64 - 1])}
    if chance.maybe(0.5):
        given["sizes"] = chance.pick([None, sizes])
    verdict = FINE
    if chance.maybe(0.5):
        scores = chance.rng.choice([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, 5e-324], len(cells))
        if chance.maybe(0.5):
            scores = chance.rng.random(len(cells))
        scores[cells < 0] = np.nan
        given["scores"] = scores
        if len(scores) and chance.maybe(0.1):
            row = int(chance.rng.integers(len(scores)))
            scores[row] = np.nan
            verdict = FINE if cells[row] < 0 else REFUSED
    if chance.maybe(0.1):
        at = tuple(chance.rng.integers(shape))
        quotas[at] = chance.pick([-1, len(cells) + 1, 2**63 - 1, -(2**63)])
        verdict = REFUSED
    if given.get("sizes") is not None and chance.maybe(0.1):  # which are taken on trust: any answer, but an answer
        given["sizes"] = chance.pick([sizes + 1, sizes * 2, np.full(shape, 2**63 - 1), sizes // 2, sizes - 1])
        verdict = EITHER
    return given, both(verdict, misplace(chance, given, shape))


def check_draw(given: dict[str, Any], found: np.ndarray, _chance: Chance) -> None:
    purpose = "draw" if given.get("scores") is None else "tie"
    ids, quotas = ids_of(given), given["quotas"]
    keys = _native.keys(ids, given["seed"], purpose).tolist()
    members: dict[int, list[int]] = {}
    for row, cell in enumerate(cells_again(given, quotas.shape).tolist()):
        members.setdefault(cell, []).append(row)
    scores = np.zeros(len(ids)) if given.get("scores") is None else given["scores"]
    expected = []
    for cell, quota in enumerate(quotas.reshape(-1).tolist()):
        expected += sorted(members.get(cell, []), key=lambda row: (-scores[row], keys[row]))[:quota]
    assert found.dtype == np.int64
    assert found.tolist() == sorted(expected)


def smallest_first_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    n = chance.size(1, 60) if chance.maybe(0.95) else 0
    sizes = chance.rng.integers(0, chance.pick([1, 5, 1000, 2**62]), n)
    ranks = chance.rng.integers(0, chance.pick([1, 4, 2**63]), n).astype(np.uint64)
    total = int(sum(sizes.tolist()))
    budget = int(chance.pick([0, 1, total, total + 1, total * chance.rng.random()]))
    verdict = FINE if 0 <= budget <= min(total, 2**63 - 1) else REFUSED
    if n and chance.maybe(0.1):
        sizes[chance.rng.integers(n)] = chance.pick([-1, -(2**63)])
        verdict = REFUSED
    return {"sizes": sizes, "ranks": ranks, "budget": budget}, verdict


def check_smallest_first(given: dict[str, Any], found: np.ndarray, _chance: Chance) -> None:
    expected = reference.smallest_first(given["sizes"].tolist(), given["ranks"].tolist(), int(given["budget"]))
    assert found.dtype == np.int64
    assert found.tolist() == expected
    assert sum(found.tolist()) == int(given["budget"])


def keys_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    ids = chance.ids(chance.size(1, 1000) - 1)
    return {"ids": ids, "seed": int(chance.rng.integers(2**63)), "purpose": chance.pick(["draw", "", "é"])}, FINE


def check_keys(given: dict[str, Any], found: np.ndarray, chance: Chance) -> None:
    assert found.dtype == np.uint64
    assert len(set(found.tolist())) == len(given["ids"])
    order = chance.rng.permutation(len(found))
    again = _native.keys(np.ascontiguousarray(given["ids"][order]), given["seed"], given["purpose"])
    assert (again == found[order]).all()


CELLS = {
    "ids": Array(optional=True),
    "clusters": Array(optional=True, any_length=True),
    "strata": Array(optional=True, any_length=True),
    "excluded": Array(optional=True, any_length=True),
    "seed": SEED,
    "n_threads": THREADS,
}
VERBS = {
    "census": Verb(
        _native.census,
        {"n_strata": Whole(1, 2**32 - 1), "n_clusters": Whole(1, 2**32 - 1)} | CELLS,
        census_arguments,
        check_census,
    ),
    "draw": Verb(
        _native.draw,
        {"quotas": Array(any_length=True), "sizes": Array(optional=True), "scores": Array(optional=True)} | CELLS,
        draw_arguments,
        check_draw,
    ),
    "smallest_first": Verb(
        _native.smallest_first,
        {"sizes": Array(), "ranks": Array(), "budget": Whole(0, 2**63 - 1)},
        smallest_first_arguments,
        check_smallest_first,
    ),
    "keys": Verb(
        _native.keys, {"ids": Array(any_length=True), "seed": SEED, "purpose": Text()}, keys_arguments, check_keys
    ),
}
