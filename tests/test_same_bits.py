"""The same bits from any number of threads, any instruction set and any process.

Every run is a process of its own, told by the environment alone how to work, and answers with a digest of all that it
found. The data are large enough for rows to be sorted and distances to be left out, and go through many iterations.
"""

import json
import os
import subprocess
import sys
from itertools import product

import pytest

from lossift import _native

BACKENDS = _native.simd_available()
THREADS = (1, 2, 3, 8, 64)

# What each process does: N / K is 64 at least and K 40, below which nothing is pruned.
WORK = """
import hashlib, json, sys
import numpy as np
import lossift
from lossift import _native
from lossift.threads import resolve_threads

rng = np.random.default_rng(5)
n, t, k = 6000, 6, 48
kind = rng.integers(0, 60, n)
losses = (kind[:, None] % 11 + kind[:, None] / (1.0 + np.arange(t)) + rng.normal(0, 1.0, (n, t))).astype(np.float32)
losses[rng.random(n) < 0.05, 2] = np.nan
valid = np.isfinite(losses).all(axis=1)
ids = rng.permutation(n).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)

def digest(*found):
    sha = hashlib.sha256()
    for part in found:
        sha.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return sha.hexdigest()

def clustered(order=slice(None), **options):
    found = _native.cluster(
        np.ascontiguousarray(losses[order]), valid[order], ids[order],
        n_clusters=k, n_iterations=45, seed=3, n_threads=resolve_threads(), **options,
    )
    labels = np.empty(n, np.int32)
    labels[order] = found.labels
    record = (found.total_inertia, found.inertia, found.moved, found.reseeded, found.why_stopped, found.n_fit_rows)
    return found, digest(labels, found.centroids, found.sizes, *record)

told = {"simd": _native.simd(), "threads": resolve_threads()}
full, told["full"] = clustered(pruning="cells")
assert full.pruning == "cells" and len(full.evaluated) > 12 and min(full.evaluated) < 0.5, full.evaluated
plain, told["plain"] = clustered(pruning="none")
_, told["shuffled"] = clustered(np.random.default_rng(7).permutation(n))
_, told["restarts"] = clustered(init="random", n_restarts=3, tolerance=0.01)
_, told["sample"] = clustered(fit="sample", max_fit_rows=4000, shape="zscore")
_, told["minibatch"] = clustered(fit="minibatch")
chosen = lossift.select(np.where(valid[:, None], losses, 3.0), method="s2l", n_clusters=k, budget=0.11, seed=3)
told["chosen"] = digest(np.asarray(chosen.rows))
json.dump(told, sys.stdout)
"""


def run(backend, n_threads):
    settings = {"LOSSIFT_SIMD": backend, "LOSSIFT_NUM_THREADS": str(n_threads)}
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told.pop("simd"), told.pop("threads")) == (backend, n_threads)
    return told


@pytest.fixture(scope="module")
def first():
    return run(BACKENDS[0], 1)


def test_pruning_and_the_order_of_rows_leave_no_trace(first):
    assert first["plain"] == first["full"]
    assert first["shuffled"] == first["full"]
    assert len(set(first.values())) == len(first) - 2, "the others are other clusterings"


# Every backend and every number of threads, but not each with each: the slowest one once.
COMBINATIONS = [pair for pair in product(BACKENDS[:-1] or BACKENDS, THREADS) if pair != (BACKENDS[0], 1)]


@pytest.mark.parametrize(("backend", "n_threads"), [*COMBINATIONS, (BACKENDS[-1], 3)])
def test_threads_backends_and_processes_leave_no_trace(first, backend, n_threads):
    assert run(backend, n_threads) == first
