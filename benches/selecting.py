"""A whole selection from disk, 11 % of N x 16 losses: seconds, and memory as N grows, beside a NumPy + faiss script.

Everything counts from opening the store to the chosen rows, in a fresh process each time; files are in the page cache.
Memory is the most that the process itself held (anonymous pages), without the cache. Before a time counts, the rows
are checked: the exact budget, from each cluster its quota. Usage: python benches/selecting.py [--quick]

For 100,000,000 examples it needs 12 GB of disk, in TMPDIR, and as much memory to keep them in the page cache; without
them it skips that size and says so.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import lossift
import stores
from alone import alone
from contestants import version
from exact import inertia_within
from machine import available_memory, describe
from tables import header, row, spread

N_STATES, N_CLUSTERS, N_ITERATIONS, BUDGET = 16, 100, 20, 0.11
# How many rounds at which size.
ROUNDS = {1_000_000: 3, 10_000_000: 2, 100_000_000: 1}
# The script holds the array, faiss's copies and NumPy's: it isn't asked for more.
SCRIPT_UP_TO = 10_000_000

_LOSSIFT: dict[str, dict[str, Any]] = {"lossift": {}, "lossift, fit=full": {"fit": "full"}}
_SCRIPT: dict[str, dict[str, Any]] = {
    "NumPy + faiss, all rows": {"rows_per_centroid": None},
    "NumPy + faiss, fit on 256 rows of each cluster": {"rows_per_centroid": 256},
}


def main(*options: str) -> None:
    sizes = {100_000: 1, 1_000_000: 1} if "--quick" in options else ROUNDS
    print(f"{describe()}\n")
    print(f"N x {N_STATES} float32, K = {N_CLUSTERS}, {N_ITERATIONS} iterations, budget {BUDGET:.0%}.\n")
    if not version("faiss-cpu"):
        print("faiss-cpu is not installed, so the script is not compared.\n")
    header(
        "N", "", "seconds", "times lossift's", "anonymous memory, MB", "more per million rows, MB", "inertia", text=2
    )
    before: dict[str, tuple[int, int]] = {}
    for n_examples, rounds in sizes.items():
        with tempfile.TemporaryDirectory(prefix="lossift-bench-") as folder:
            if lacking := _lacks(Path(folder), n_examples):
                row(f"{n_examples:,}", f"skipped: {lacking}", *["-"] * 5)
                continue
            _compare(Path(folder), n_examples, rounds, before)


def _lacks(folder: Path, n_examples: int) -> str | None:
    """Returns what there is too little of for this size, if anything."""
    needed = 1.2 * stores.size_on_disk(n_examples, N_STATES)
    free, memory = shutil.disk_usage(folder).free, available_memory()
    if free < needed:
        return f"needs {needed / 1e9:.1f} GB of disk in {folder.parent}, {free / 1e9:.1f} are free"
    if memory is not None and memory < needed:
        return f"needs {needed / 1e9:.1f} GB of memory to stay in the page cache, {memory / 1e9:.1f} are available"
    return None


def _compare(folder: Path, n_examples: int, rounds: int, before: dict[str, tuple[int, int]]) -> None:
    _say(f"{n_examples:,} rows: writing the store")
    store, out = folder / "losses", folder / "answer.npz"
    stores.write(store, n_examples, N_STATES)
    tasks = {name: ("selecting:timed", options) for name, options in _LOSSIFT.items()}
    if version("faiss-cpu") and n_examples <= SCRIPT_UP_TO:
        same = {"budget": BUDGET, "n_clusters": N_CLUSTERS, "n_iterations": N_ITERATIONS}
        tasks |= {name: ("script:timed", same | options) for name, options in _SCRIPT.items()}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    peaks: dict[str, list[int]] = {name: [] for name in tasks}
    inertias: dict[str, float] = {}
    notes: dict[str, str] = {}
    for number in range(rounds):
        for name, (task, options) in tasks.items():
            _say(f"{n_examples:,} rows: round {number + 1} of {rounds}, {name}")
            _warm(store)
            found = alone(task, store=str(store), out=str(out), **options)
            seconds[name].append(found.value["seconds"])
            notes[name] = found.value["note"]
            peaks[name] += [found.peak_anonymous] if found.peak_anonymous is not None else []
            if name not in inertias:
                inertias[name] = _check(store, out, n_examples)
            out.unlink()
    for name in tasks:
        peak = max(peaks[name], default=None)
        growth = "-"
        if peak is not None:
            if name in before:
                n_before, peak_before = before[name]
                growth = f"{(peak - peak_before) / (n_examples - n_before):,.1f}"  # bytes per row are MB per million
            before[name] = (n_examples, peak)
        row(
            f"{n_examples:,}",
            f"{name} ({notes[name]})" if notes[name] else name,
            spread(seconds[name]),
            f"{statistics.median(seconds[name]) / statistics.median(seconds['lossift']):.2f}",
            "not known here" if peak is None else f"{peak / 1e6:,.0f}",
            growth,
            f"{inertias[name]:,.0f}",
        )


def timed(store: str, out: str, **options: Any) -> dict[str, Any]:
    """In a process of its own: times opening and selecting; saves rows and labels."""
    started = time.perf_counter()
    chosen = lossift.select(lossift.open(store), budget=BUDGET, **options)
    seconds = time.perf_counter() - started
    np.savez(out, rows=chosen.rows, labels=chosen.clusters)
    return {"seconds": seconds, "note": ""}


def _check(store: Path, out: Path, n_examples: int) -> float:
    """Returns the exact inertia of an answer, once its rows are known to be what the rule asks for."""
    with np.load(out) as answer:
        rows, labels = answer["rows"], answer["labels"]
    assert labels.shape == (n_examples,)
    assert len(rows) == round(BUDGET * n_examples)
    assert (np.diff(rows) > 0).all()
    sizes, drawn = (np.bincount(of, minlength=N_CLUSTERS) for of in (labels, labels[rows]))
    _check_quotas(sizes, drawn)
    opened = lossift.open(store)
    return inertia_within([opened.column(state) for state in opened.states], labels, N_CLUSTERS)


def _check_quotas(sizes: np.ndarray, drawn: np.ndarray) -> None:
    """Asserts S2L's rule by its definition: smallest first, an equal share of what is left, or all there is."""
    left = int(drawn.sum())
    order = np.lexsort((drawn, sizes))
    for place, cluster in enumerate(order):
        assert drawn[cluster] == min(sizes[cluster], left // (len(order) - place)), (sizes[cluster], drawn[cluster])
        left -= int(drawn[cluster])


def _warm(folder: Path) -> None:
    """Reads every file once, so that it is in the page cache."""
    buffer = bytearray(1 << 24)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
