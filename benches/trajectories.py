"""Made-up data for the benches: rows that look like loss trajectories, and rows that look like nothing.

A pool has `N_KINDS` kinds of example, a few large and many small. A kind's loss falls from its own start to its own
floor, early or late, fast or slowly; one kind in twenty rises again (forgotten). An example is its kind's curve times
its own level, plus noise that partly carries over from one state to the next and whose strength differs from row to row
(a log-normal mixture of normals: heavy tails, no far-away clumps). So neighbours overlap, as they do in real traces,
and k-means has no right answer to find.

Rows come in blocks of `BLOCK`, each from a stream of its own (seed, block), so the first million rows of a pool are the
same whatever N is, and 100,000,000 rows never need to be in memory. Costs about 0.4 s per million rows and 16 states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

N_KINDS = 400
# Share of a state's noise that is still there at the next state.
CARRIED_OVER = np.float32(0.6)
BLOCK = 1 << 18
SHAPES = ("trajectories", "noise")


def make(shape: str, n_examples: int, n_states: int, seed: int = 0) -> NDArray[np.float32]:
    """Returns float32[N, T], one row per example, of a `shape` in `SHAPES`."""
    losses = np.empty((n_examples, n_states), np.float32)
    for start, block in blocks(shape, n_examples, n_states, seed):
        losses[start : start + block.shape[1]] = block.T
    return losses


def blocks(shape: str, n_examples: int, n_states: int, seed: int = 0) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yields the first row of each block, and the block as float32[T, rows]: one contiguous piece of each column."""
    fill = _noise if shape == "noise" else _trajectories(n_states, seed)
    for number, start in enumerate(range(0, n_examples, BLOCK)):
        rng = np.random.Generator(np.random.SFC64([seed, 1 + number]))
        # A block is always drawn whole: a shorter pool is a prefix of a longer one.
        block = np.empty((n_states, BLOCK), np.float32)
        fill(rng, block)
        yield start, block[:, : n_examples - start]


def _noise(rng: np.random.Generator, block: NDArray[np.float32]) -> None:
    """Fills a block with independent normals: no clusters, nothing for a bound to leave out."""
    rng.standard_normal(out=block, dtype=np.float32)


def _trajectories(n_states: int, seed: int) -> Callable[[np.random.Generator, NDArray[np.float32]], None]:
    rng = np.random.Generator(np.random.SFC64([seed, 0]))
    curves = _curves(rng, n_states)
    # A table of 65,536 kinds to look up 16 random bits in: the fastest unequal draw there is.
    weights = np.exp(rng.normal(0, 1.2, N_KINDS))
    kinds = np.repeat(np.arange(N_KINDS), rng.multinomial(1 << 16, weights / weights.sum())).astype(np.int16)

    def fill(rng: np.random.Generator, block: NDArray[np.float32]) -> None:
        kind = kinds[rng.integers(1 << 16, size=BLOCK, dtype=np.uint16)]
        level = np.exp(0.25 * rng.standard_normal(BLOCK, np.float32))
        strength = 0.06 * np.exp(0.8 * rng.standard_normal(BLOCK, np.float32))
        carried = np.zeros(BLOCK, np.float32)
        for curve, column in zip(curves, block, strict=True):
            rng.standard_normal(out=column, dtype=np.float32)
            np.multiply(column, strength, out=column)
            carried *= CARRIED_OVER
            carried += column
            np.multiply(curve.take(kind), level, out=column)
            np.abs(column + carried, out=column)

    return fill


def _curves(rng: np.random.Generator, n_states: int) -> NDArray[np.float32]:
    """Returns float32[T, N_KINDS]: the loss in nats of each kind at evenly spaced states."""
    when = (np.arange(n_states)[:, None] + 0.5) / n_states
    start = np.exp(rng.normal(0.7, 0.45, N_KINDS))
    floor = start * rng.beta(1.5, 2.5, N_KINDS)
    begins = np.maximum(0, rng.normal(0, 0.15, N_KINDS))
    lasts = np.exp(rng.normal(-1.5, 0.8, N_KINDS))
    falls = np.exp(-np.maximum(0, when - begins) / lasts)
    rises = np.where(rng.random(N_KINDS) < 0.05, 0.4, 0) * np.maximum(0, when - 0.5)
    return (floor + (start - floor) * falls + start * rises).astype(np.float32)
