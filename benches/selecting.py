"""How long a whole selection takes: 11 % of N x T random losses, K = 100, 20 iterations.

Asserts the answer (exact budget, the same rows for every layout) before it tells the time; prints medians.
Random data is the hard case: nothing converges, so all 20 iterations are run. Usage: python benches/selecting.py [N]
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

import lossift
from machine import describe

REPEATS = 5


def main(n_examples: int = 1_000_000, n_states: int = 12) -> None:
    losses = np.random.default_rng(0).random((n_examples, n_states), dtype=np.float32)
    layouts = {"C order": losses, "Fortran order": np.asfortranarray(losses)}
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    chosen = {}
    for _ in range(REPEATS):
        for name, array in layouts.items():
            started = time.perf_counter()
            chosen[name] = lossift.select(array, method="s2l", budget=0.11, seed=0)
            seconds[name].append(time.perf_counter() - started)
    first = chosen["C order"]
    assert len(first.rows) == round(0.11 * n_examples)
    assert all(np.array_equal(other.rows, first.rows) for other in chosen.values())
    print(f"{describe()}\n")
    print("| select s2l, K = 100, 20 iterations | median s | fastest | slowest | inertia |")
    print("|---|---:|---:|---:|---:|")
    for name, times in seconds.items():
        inertia = chosen[name].fits[0]["inertia"][-1]
        print(
            f"| {n_examples:,} x {n_states} float32, {name} | {statistics.median(times):.2f} | {min(times):.2f} "
            f"| {max(times):.2f} | {inertia:,.1f} |"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
