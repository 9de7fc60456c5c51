"""Random draws, quotas and keys, against the slow reference."""

from __future__ import annotations

from typing import Any

import numpy as np

import reference
from fuzz_arguments import FINE, REFUSED, Array, Chance, Text, Verb, Whole
from lossift import _native

SEED = Whole(0, 2**64 - 1)


def cells_of(chance: Chance) -> tuple[np.ndarray, int]:
    n, n_cells = (0 if chance.maybe(0.05) else chance.size(1, 400)), chance.size(1, 40)
    return chance.rng.integers(-1, n_cells, n, dtype=np.int32), n_cells


def draw_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    cells, n_cells = cells_of(chance)
    sizes = np.bincount(cells[cells >= 0], minlength=n_cells)
    quotas = np.floor(sizes * chance.pick([0, 0.3, 1, chance.rng.random(n_cells)])).astype(np.int64)
    given = {
        "cells": cells,
        "quotas": quotas,
        "ids": chance.ids(len(cells)),
        "seed": chance.pick([0, 5, 2**64 - 1]),
    }
    verdict = FINE
    if chance.maybe(0.5):
        scores = chance.rng.choice([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, 5e-324], len(cells))
        scores[cells < 0] = np.nan
        given["scores"] = scores
        if len(scores) and chance.maybe(0.1):
            row = int(chance.rng.integers(len(scores)))
            scores[row] = np.nan
            verdict = FINE if cells[row] < 0 else REFUSED
    if chance.maybe(0.15):
        quotas[chance.rng.integers(n_cells)] = chance.pick([-1, len(cells) + 1, 2**63 - 1, -(2**63)])
        verdict = REFUSED
    if len(cells) and chance.maybe(0.1):
        cells[chance.rng.integers(len(cells))] = chance.pick([-2, n_cells, 2**31 - 1, -(2**31)])
        verdict = REFUSED
    return given, verdict


def check_draw(given: dict[str, Any], found: np.ndarray, _chance: Chance) -> None:
    purpose = "draw" if given.get("scores") is None else "tie"
    keys = _native.keys(np.asarray(given["ids"]), given["seed"], purpose).tolist()
    if purpose == "draw":
        expected = reference.draw(given["cells"], given["quotas"], keys)
    else:
        expected = reference.top(given["cells"], given["quotas"], given["scores"], keys)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def smallest_keys_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    cells, n_cells = cells_of(chance)
    n_given = n_cells + chance.pick([0, 0, 1, -1, 100_000])
    verdict = FINE if not len(cells) or cells.max() < n_given else REFUSED
    return {"cells": cells, "n_cells": n_given, "ids": chance.ids(len(cells)), "seed": 3}, verdict


def check_smallest_keys(given: dict[str, Any], found: np.ndarray, _chance: Chance) -> None:
    expected = [2**64 - 1] * int(given["n_cells"])
    for cell, key in zip(
        given["cells"], _native.keys(np.asarray(given["ids"]), given["seed"], "tie").tolist(), strict=True
    ):
        if cell >= 0:
            expected[cell] = min(expected[cell], key)
    assert found.dtype == np.uint64
    assert found.tolist() == expected


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


VERBS = {
    "draw": Verb(
        _native.draw,
        {
            "cells": Array(),
            "quotas": Array(any_length=True),
            "ids": Array(),
            "seed": SEED,
            "scores": Array(optional=True),
        },
        draw_arguments,
        check_draw,
    ),
    "smallest_keys": Verb(
        _native.smallest_keys,
        {"cells": Array(), "n_cells": Whole(0, 2**32 - 1), "ids": Array(), "seed": SEED},
        smallest_keys_arguments,
        check_smallest_keys,
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
