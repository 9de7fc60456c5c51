"""Random losses for the door: good ones in every layout that is read where it lies, and spoiled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from fuzz_arguments import EITHER, FINE, REFUSED, Array, Chance

SHAPES = ("raw", "relative", "zscore", "differences")
# What the core reads: a new type gets a place here, a new layout one in `layouts` and a word in `in_place`.
DTYPES = [np.float32, np.float32, np.float64, np.float16, ml_dtypes.bfloat16]

# What losses may look like, from N x T uniform numbers.
VALUES: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda u: 8 * u,
    lambda u: np.sort(u, axis=1)[:, ::-1] * 4 + (u[:, :1] * 5).astype(int),  # falling curves of five levels
    lambda u: 8 * (u[:, :1] * 99).astype(int) + u,
    lambda u: (u * 3).astype(int),  # ties
    lambda u: np.resize(u[: max(1, len(u) // 9)], u.shape),  # duplicates
    np.ones_like,
    lambda u: 1e4 + 1e-2 * u,
    lambda u: (u - 0.5) * 2e15,
    lambda u: np.where(u < 0.99, -1e15, 1e15),  # as far from the mean as may be
    lambda u: (u - 0.5) * 10.0 ** (30 * u - 15),
    lambda u: u * 1e-40,  # subnormal
    lambda u: u * 1e-22,  # squares underflow
]
BAD_VALUES = [np.nan, np.inf, -np.inf, 3e38, -2e15, 1e300]


def losses_of(chance: Chance, n: int, t: int) -> np.ndarray:
    """Returns N x T losses, mostly finite."""
    with np.errstate(over="ignore"):
        losses = chance.pick(VALUES)(chance.rng.random((n, t))).astype(chance.pick(DTYPES))
        if n and chance.maybe(0.15):
            losses[chance.rng.integers(n), chance.rng.integers(t)] = chance.pick(BAD_VALUES)
    return losses


def layouts(losses: np.ndarray) -> list[Any]:
    """Returns N x T losses in all the ways that the core takes, with something else in every gap."""
    n, t = losses.shape
    wide = np.full((2 * n, 2 * t + 1), 7, losses.dtype)
    wide[1::2, 1::2] = losses
    return [
        np.ascontiguousarray(losses),
        [np.ascontiguousarray(column) for column in losses.T],
        np.asfortranarray(losses),
        np.asfortranarray(wide)[1::2, 1::2],
        wide[1::2, 1::2],
        list(wide[1::2, 1::2].T),
    ]


def in_place(array: np.ndarray) -> bool:
    """Whether such an array is read where it lies: the next example, if there is one, is whole items further on."""
    whole = all(stride % array.itemsize == 0 for stride, n in zip(array.strides, array.shape, strict=True) if n > 1)
    least = [1, 0][: array.ndim]
    forward = all(s >= m for s, m, n in zip(array.strides, least, array.shape, strict=True) if n > 1)
    return array.dtype in DTYPES and array.dtype.isnative and array.flags.aligned and whole and forward


def table(columns: Any) -> np.ndarray:
    """Returns what was given as `columns` as N x T."""
    return columns if isinstance(columns, np.ndarray) else np.stack(list(columns), axis=1)


def spoil_columns(chance: Chance, columns: Any) -> tuple[Any, str]:
    """Returns other columns, and what has to follow."""
    if isinstance(columns, np.ndarray):
        value, verdict = Array().spoil(chance, columns)
        return value, follows(columns, value, verdict, alone=True)
    whole = chance.pick(["tuple", "view", "iterator", "twice", "none", "empty", "text", "number", "one", "one", "one"])
    if whole == "one":
        index = int(chance.rng.integers(len(columns)))
        value, verdict = Array().spoil(chance, columns[index])
        verdict = follows(columns[index], value, verdict, alone=len(columns) == 1)
        return [*columns[:index], value, *columns[index + 1 :]], verdict
    return {
        "tuple": (tuple(columns), FINE),
        "view": (dict(enumerate(columns)).values(), FINE),
        "iterator": (iter(columns), EITHER),  # used up by the time anybody could check
        "twice": ([*columns, columns[0]], EITHER),
        "none": (None, REFUSED),
        "empty": ([], REFUSED),
        "text": ("columns", REFUSED),
        "number": (3, REFUSED),
    }[whole]


def follows(good: np.ndarray, value: Any, verdict: str, *, alone: bool) -> str:
    """Returns what has to follow from a spoiled array: of losses more is read than of other arrays."""
    if not isinstance(value, np.ndarray) or value.ndim != good.ndim or not in_place(value):
        return REFUSED
    if value.dtype == good.dtype and np.array_equal(value, good, equal_nan=True):
        return FINE
    # The others of its kind disagree, or it is another pool by itself.
    return EITHER if alone or verdict != REFUSED else REFUSED


def shaped(losses: np.ndarray, shape: str) -> np.ndarray:
    """Returns trajectories as the core sees them: float32, the same operations in the same order."""
    with np.errstate(all="ignore"):
        x = np.asarray(losses).astype(np.float32)
        if shape == "relative":
            return x / x[:, :1]
        if shape == "differences":
            return x[:, 1:] - x[:, :-1]
        if shape == "zscore":
            n, mean, variance = x.shape[1], np.zeros(len(x)), np.zeros(len(x))
            for column in x.T:
                mean = mean + column.astype(np.float64)
            mean = mean / n
            for column in x.T:
                variance = variance + (column.astype(np.float64) - mean) ** 2
            z = (x.astype(np.float64) - mean[:, None]) / np.sqrt(variance / n)[:, None]
            return np.where((x - x[:, :1] == 0).all(axis=1, keepdims=True), 0, z).astype(np.float32)
        return x
