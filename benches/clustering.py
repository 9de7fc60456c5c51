"""K-means beside faiss and scikit-learn: same rows, same initial centroids, same iterations, all cores, in turn.

Before a time counts, the answer is checked in float64 (`exact.py`): labels are the nearest of the centroids, and all
contestants' inertias agree, so they did the same work. Usage: python benches/clustering.py [--quick]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alone import alone
from contestants import CONTESTANTS, N_ITERATIONS, version
from exact import inertia
from lossift import _native
from machine import describe
from tables import header, row, short, spread
from trajectories import make

# Equal work: inertias from the same start differ by less than this. (Rounding decides near ties, and twenty
# iterations carry that on: 4e-5 was seen with a million rows, 1.2e-3 with ten; small pools, in --quick, more so.)
SAME_WORK, SAME_WORK_QUICK = 2e-3, 2e-2
# Labels are the nearest centroids: their inertia exceeds the exact one by no more than float32 near ties can.
NEAREST = 1e-6


class Setting(NamedTuple):
    """One shape of work, and how often it is repeated."""

    data: str
    n_examples: int
    n_states: int
    n_clusters: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.data} {_millions(self.n_examples)} x {self.n_states}, K = {self.n_clusters:,}"


SETTINGS = [
    Setting("trajectories", 1_000_000, 8, 100, 3),
    Setting("trajectories", 1_000_000, 16, 100, 3),
    Setting("trajectories", 1_000_000, 32, 100, 3),
    Setting("trajectories", 1_000_000, 16, 1000, 2),
    Setting("trajectories", 10_000_000, 16, 100, 1),
    Setting("noise", 1_000_000, 16, 100, 2),
]


def main(*options: str) -> None:
    quick = "--quick" in options
    settings = [s._replace(n_examples=s.n_examples // 10, rounds=1) if quick else s for s in SETTINGS]
    contestants = [name for name, one in CONTESTANTS.items() if version(one.package)]
    if "avx512" not in _native.simd_available():
        contestants.remove("faiss, AVX2")
    print(f"{describe()}\n")
    if absent := sorted({one.package for one in CONTESTANTS.values() if not version(one.package)}):
        print(f"Not installed, so not compared: {', '.join(absent)}.\n")
    loaded: dict[str, list[str]] = {}
    results = [_compare(setting, contestants, SAME_WORK_QUICK if quick else SAME_WORK, loaded) for setting in settings]
    _print_ratios(settings, results)
    print("\nThread pools and BLAS kernels loaded:\n")
    for name, pools in loaded.items():
        print(f"- {name}: {', '.join(pools) or 'none but its own'}")
    _default_quality(1_000_000 if quick else 10_000_000)


# ------------------------------------------------------- the same iterations


def _compare(
    setting: Setting, contestants: list[str], same_work: float, loaded: dict[str, list[str]]
) -> dict[str, Any]:
    """Prints one table and returns its medians: seconds of a fit and of an iteration, and GEMM's rate.

    Notes in `loaded` which thread pools each contestant has.
    """
    fits: dict[str, list[float]] = defaultdict(list)
    iterations: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, set[str]] = defaultdict(set)
    inertias: dict[str, float] = {}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="lossift-bench-") as folder:
        losses = make(setting.data, setting.n_examples, setting.n_states)
        chosen = np.random.default_rng(1).choice(len(losses), setting.n_clusters, replace=False)
        np.save(Path(folder) / "losses.npy", losses)
        np.save(Path(folder) / "init.npy", losses[np.sort(chosen)])
        for number in range(setting.rounds):
            for library in ("numpy", "torch") if version("torch") else ("numpy",):
                found = alone(f"gemm:{library}_rate").value
                rates[found["kernel"]].append(found["gflops"])
            for name in contestants:
                _say(f"{setting}: round {number + 1} of {setting.rounds}, {name}")
                found = alone(
                    "contestants:time_fits", environment=CONTESTANTS[name].environment, name=name, folder=folder
                ).value
                notes[name] = found["note"]
                loaded[name] = found["pools"]
                answers[name].add(found["digest"])
                seconds = {int(n): s for n, s in found["seconds"].items()}
                fits[name].append(seconds[N_ITERATIONS])
                iterations[name].append((seconds[N_ITERATIONS + 1] - seconds[1]) / N_ITERATIONS)
                if name not in inertias:
                    inertias[name] = _check(losses, Path(folder) / "fit.npz")
    best = min(inertias.values())
    for name, value in inertias.items():
        assert value <= best * (1 + same_work), (str(setting), name, value, best)
    # Ours is one answer, whatever the run, the layout of the rows and the pruning.
    ours = set.union(*(answers[name] for name in contestants if name.startswith("lossift")))
    assert len(ours) == 1, (str(setting), answers)

    print(f"\n**{setting}**; rounds: {setting.rounds}\n")
    header("", "one iteration, ms", f"{N_ITERATIONS} iterations, s", "times lossift's", "inertia", "above the least")
    fit = {name: statistics.median(seconds) for name, seconds in fits.items()}
    for name in contestants:
        label = f"{name} ({notes[name]})" if notes[name] else name
        row(
            label,
            spread(iterations[name], 1e-3),
            spread(fits[name]),
            f"{fit[name] / fit['lossift']:.2f}",
            f"{inertias[name]:,.1f}",
            f"{inertias[name] / best - 1:.1e}",
        )
    iteration = {name: statistics.median(seconds) for name, seconds in iterations.items()}
    kernel, gflops = max(((kernel, statistics.median(all_)) for kernel, all_ in rates.items()), key=lambda one: one[1])
    return {"fit": fit, "iteration": iteration, "kernel": kernel, "gflops": gflops}


def _check(losses: np.ndarray, saved: Path) -> float:
    """Returns the exact inertia of a saved fit, once its labels are known to be those of its centroids."""
    with np.load(saved) as fit:
        centroids, labels = fit["centroids"], fit["labels"]
    assert labels.shape == (len(losses),)
    value = inertia(losses, centroids)
    of_labels = inertia(losses, centroids, labels)
    assert value <= of_labels * (1 + 1e-12), (value, of_labels)
    assert of_labels <= value * (1 + NEAREST), (value, of_labels)
    return value


def _print_ratios(settings: list[Setting], results: list[dict[str, Any]]) -> None:
    print("\n**lossift beside the fastest of the others, and beside the machine's float32 matrix product**\n")
    print("An iteration without pruning is 2 N K T operations for the distances, and the clusters' sums on top.\n")
    header(
        "",
        "iteration, no pruning: times as fast",
        "fit: times as fast",
        "pruning's own gain",
        "iteration, no pruning, GFLOP/s",
        "GEMM, GFLOP/s",
        "share",
        "GEMM by",
    )
    for setting, found in zip(settings, results, strict=True):
        fit, iteration = found["fit"], found["iteration"]
        others = [name for name in fit if not name.startswith("lossift")]
        plain = iteration["lossift, no pruning"]
        fastest = min(others, key=fit.__getitem__, default=None)
        rate = 2 * setting.n_examples * setting.n_clusters * setting.n_states / plain / 1e9
        row(
            setting,
            f"{min(iteration[name] for name in others) / plain:.2f}" if others else "-",
            f"{fit[fastest] / fit['lossift']:.2f} ({fastest})" if fastest else "-",
            f"{fit['lossift, no pruning'] / fit['lossift']:.2f}",
            short(rate),
            short(found["gflops"]),
            f"{rate / found['gflops']:.0%}",
            found["kernel"],
        )


# ------------------------------------------------------------- left to itself


def _default_quality(n_examples: int, n_states: int = 16, n_clusters: int = 100) -> None:
    """Prints what both make of the same rows with nothing but K given, five seeds each."""
    print(
        f"\n**Nothing given but K = {n_clusters}: trajectories {_millions(n_examples)} x {n_states}, seeds 0 to 4**\n"
    )
    print("faiss fits 256 rows of each cluster, 25 iterations; the time has the labels of all rows in it.\n")
    header("", "seconds", "least inertia", "median", "greatest")
    with tempfile.TemporaryDirectory(prefix="lossift-bench-") as folder:
        losses = make("trajectories", n_examples, n_states)
        np.save(Path(folder) / "losses.npy", losses)
        for name in ("lossift", "faiss"):
            if not version(CONTESTANTS[name].package):
                continue
            seconds, values, notes = [], [], set()
            for seed in range(5):
                _say(f"default fit: {name}, seed {seed}")
                found = alone(f"contestants:default_{name}", folder=folder, n_clusters=n_clusters, seed=seed).value
                seconds.append(found["seconds"])
                notes |= {found["note"]} - {""}
                values.append(_check(losses, Path(folder) / "fit.npz"))
            least, *_, greatest = sorted(values)
            label = f"{name} ({'; '.join(sorted(notes))})" if notes else name
            row(label, spread(seconds), f"{least:,.0f}", f"{statistics.median(values):,.0f}", f"{greatest:,.0f}")


def _millions(n_examples: int) -> str:
    return f"{n_examples / 1e6:g}M"


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
