"""Random reasons for being invalid, merged, found and counted, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from fuzz_arguments import FINE, REFUSED, Array, Chance, Name, Several, Verb, Whole, both
from fuzz_losses import layouts, losses_of, spoil_columns, table
from lossift import _native

THREADS = Whole(1, 1024, optional=True)


def keeping(call: Callable[..., Any]) -> Callable[..., Any]:
    """The verb that writes into `why`, made to return (what was in there before, what is in there now)."""

    @wraps(call)
    def kept(**given: Any) -> tuple[np.ndarray, np.ndarray]:
        why = given["why"]
        before = np.array(why, copy=True)
        found = call(**given)
        assert found is None, f"it returned {found!r}"
        return before, np.array(why, copy=True)

    return kept


def why_of(chance: Chance, n: int) -> np.ndarray:
    why = np.zeros(n, np.uint8)
    some = chance.rng.random(n) < chance.pick([0, 0.01, 0.5])
    why[some] = chance.rng.integers(0, 256, int(some.sum()))
    return why


def some_rows(chance: Chance) -> int:
    if chance.maybe(0.05):
        return 0
    return chance.size(100_000, 200_000) if chance.maybe(0.02) else chance.size(1, 2000)


def with_threads(chance: Chance, given: dict[str, Any]) -> dict[str, Any]:
    return given | ({"n_threads": chance.pick([None, 1, 2, 3, 8])} if chance.maybe(0.5) else {})


def merge_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    n = some_rows(chance)
    why, others = why_of(chance, n), [why_of(chance, n) for _ in range(chance.size(1, 6) - 1)]
    verdict = FINE
    if n > 1 and chance.maybe(0.05):  # it would be read while it is written to
        others.append(chance.pick([why, why.view(), why[: n // 2]]))
        verdict = REFUSED
    return with_threads(chance, {"why": why, "others": others}), verdict


def check_merge(given: dict[str, Any], found: tuple[np.ndarray, np.ndarray], _chance: Chance) -> None:
    expected, now = found
    for other in given["others"]:
        expected = np.where(expected == 0, other, expected)
    assert (now == expected).all()


def mark_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    n, t = some_rows(chance), chance.size(1, 9)
    losses = losses_of(chance, n, t)
    if n and chance.maybe(0.6):
        rows = chance.rng.integers(0, n, chance.size(1, n))
        losses[rows, chance.rng.integers(t)] = chance.pick([np.nan, np.inf, -np.inf, 0, -0.0, -1])
    states = chance.rng.integers(0, t, chance.size(1, 2 * t) - 1)
    verdict = FINE
    if chance.maybe(0.1):
        states = np.append(states, chance.pick([t, -1, 2**62, -(2**63)]))
        verdict = REFUSED
    columns = chance.pick(layouts(losses))
    if chance.maybe(0.15):
        columns, follows = spoil_columns(chance, columns)
        verdict = both(verdict, follows)
    given = {
        "why": why_of(chance, n),
        "columns": columns,
        "states": states.astype(np.int64),
        "rule": chance.pick(["non-finite", "unscalable"]),
        "reason": chance.pick([1, 7, 255]),
    }
    return with_threads(chance, given), verdict


def check_mark(given: dict[str, Any], found: tuple[np.ndarray, np.ndarray], _chance: Chance) -> None:
    before, now = found
    with np.errstate(all="ignore"):
        looked_at = table(given["columns"]).astype(np.float32)[:, given["states"]]
        broken = ~np.isfinite(looked_at).all(axis=1)
        if given["rule"] == "unscalable":
            ratios = looked_at / looked_at[:, :1]
            broken |= ~np.isfinite(ratios).all(axis=1)
            broken |= ~(looked_at > 0)[:, 0] if looked_at.shape[1] else True
    assert (now == np.where((before == 0) & broken, int(given["reason"]), before)).all()


def count_arguments(chance: Chance) -> tuple[dict[str, Any], str]:
    return with_threads(chance, {"why": why_of(chance, some_rows(chance))}), FINE


def check_count(given: dict[str, Any], found: np.ndarray, _chance: Chance) -> None:
    assert (found.dtype, found.shape) == (np.int64, (256,))
    assert (found == np.bincount(given["why"], minlength=256)).all()


VERBS = {
    "merge_reasons": Verb(
        keeping(_native.merge_reasons),
        {"why": Array(written=True, any_length=True), "others": Several(), "n_threads": THREADS},
        merge_arguments,
        check_merge,
    ),
    "mark_reasons": Verb(
        keeping(_native.mark_reasons),
        {
            "why": Array(written=True),
            "columns": None,
            "states": Array(any_length=True),
            "rule": Name(("non-finite", "unscalable")),
            "reason": Whole(1, 255),
            "n_threads": THREADS,
        },
        mark_arguments,
        check_mark,
    ),
    "count_reasons": Verb(
        _native.count_reasons, {"why": Array(any_length=True), "n_threads": THREADS}, count_arguments, check_count
    ),
}
