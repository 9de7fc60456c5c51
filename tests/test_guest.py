"""Being a good guest in a process: threads, forks, the interpreter lock, callbacks that raise, bugs of ours."""

import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import lossift
from lossift import _native
from lossift.threads import resolve_threads

N = 20_000
LOSSES = np.random.default_rng(0).random((N, 4), dtype=np.float32)


def cluster(losses=LOSSES, **options):
    options = {"n_clusters": 20, "n_iterations": 5, "seed": 0, "n_threads": 2} | options
    n = len(losses)
    return _native.cluster(losses, np.ones(n, bool), np.arange(n, dtype=np.uint64), **options)


def workers():
    """Returns how many threads of ours there are now."""
    if sys.platform != "linux":
        pytest.skip("threads are counted in /proc")
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum(name.startswith("lossift-") for name in names)


def run(code, **environment):
    command = [sys.executable, "-c", "import os, numpy as np, lossift\nfrom lossift import _native\n" + code]
    environment = {k: v for k, v in os.environ.items() if k != "LOSSIFT_NUM_THREADS"} | environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# ------------------------------------------------------------------ threads


def test_so_many_threads_during_a_call_and_none_after_it(monkeypatch):
    def seen(**options):
        counts = []
        lossift.select(LOSSES, budget=5, n_clusters=5, progress=lambda *_: counts.append(workers()), **options)
        assert workers() == 0
        return max(counts)

    monkeypatch.setenv("LOSSIFT_NUM_THREADS", "3")
    assert seen() == 3
    assert seen(n_threads=2) == 2
    assert seen(n_threads=1) == 0  # one means the caller's own


def test_the_argument_then_the_environment_then_the_affinity_mask():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity masks")
    code = """
from lossift.threads import resolve_threads
cpu = min(os.sched_getaffinity(0))
print(_native.available_threads() <= len(os.sched_getaffinity(0)))
os.sched_setaffinity(0, {cpu})
print(_native.available_threads(), resolve_threads(), resolve_threads(5))
os.environ["LOSSIFT_NUM_THREADS"] = "4"
print(resolve_threads(), resolve_threads(5))
os.environ["LOSSIFT_NUM_THREADS"] = ""
print(resolve_threads())
"""
    assert run(code) == ["True", "1", "1", "5", "4", "5", "1"]


def test_available_threads_is_at_least_one(monkeypatch):
    monkeypatch.delenv("LOSSIFT_NUM_THREADS", raising=False)
    assert resolve_threads() == _native.available_threads() >= 1


# --------------------------------------------------------------------- fork


def test_works_in_the_child_of_a_process_that_has_used_threads():
    code = """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
losses = np.random.default_rng(0).random((5000, 4), dtype=np.float32)
def select(_=None):
    return lossift.select(losses, budget=50, n_clusters=9, n_threads=3).rows.tolist()
rows = select()
child = os.fork()
if child == 0:
    os._exit(0 if select() == rows else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print([found == rows for found in pool.map(select, range(4))] == [True] * 4)
print(select() == rows)
"""
    assert run(code) == ["0", "True", "True"]


# --------------------------------------------------------- the interpreter lock


@pytest.mark.parametrize("n_threads", [1, 2])
def test_other_threads_run_during_a_call(n_threads):
    losses = np.random.default_rng(1).random((200_000, 16), dtype=np.float32)
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        start = time.monotonic()
        cluster(losses, n_clusters=400, n_iterations=20, n_threads=n_threads)
        end = time.monotonic()
    finally:
        done.set()
        thread.join()
    within = [start, *(tick for tick in ticks if start < tick < end), end]
    # With the lock held there would be one gap as long as the call, about half a second.
    longest = max(later - earlier for earlier, later in pairwise(within))
    assert longest < (end - start) / 2


# ----------------------------------------------------------------- callbacks


def test_progress_is_told_on_the_calling_thread():
    told = []
    cluster(progress=lambda *news: told.append((*news, threading.get_ident())))
    assert {thread for *_, thread in told} == {threading.get_ident()}
    assert {"reading", "seeding", "clustering"} <= {what for what, *_ in told}
    assert all(0 <= done <= total for _, done, total, _ in told)


class Enough(Exception):  # noqa: N818
    """What a callback of somebody's raises."""


@pytest.mark.parametrize("kind", [Enough, ValueError, RuntimeError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("what", ["reading", "seeding", "clustering"])
def test_what_progress_raises_is_raised_and_nothing_is_left_behind(kind, what):
    mine = kind("mine")

    def progress(now, done, total):
        if now == what:
            raise mine

    expected = cluster().labels
    for call in (
        lambda: cluster(progress=progress),
        lambda: lossift.select(LOSSES, budget=5, n_clusters=5, n_threads=2, progress=progress),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert caught.value is mine
    assert workers() == 0
    assert (cluster().labels == expected).all()


def test_a_callback_that_is_none():
    with pytest.raises(TypeError, match="not callable"):
        cluster(progress=3)


# --------------------------------------------------------------- bugs of ours


def test_no_panic_crosses_into_python(capfd):
    """The core takes for granted that losses stay what they are; a callback that changes them breaks its word."""
    losses = LOSSES.copy()
    losses[7, 1] = np.inf

    def progress(what, done, total):
        if what == "reading" and done == total:
            losses[7, 1] = 0.5

    # An Exception, that is, and not pyo3's PanicException, which is none.
    with pytest.raises((RuntimeError, ValueError)) as caught:
        cluster(losses, progress=progress)
    if caught.type is RuntimeError:
        assert str(caught.value).startswith("internal error, please report it: ")
        assert "panicked" in capfd.readouterr().err
    assert cluster().n_fit_rows == N
