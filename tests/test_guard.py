"""A file that shrinks under a memory map: an error where the core reads it, and everywhere else what it was before."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard is Linux's")

PRELUDE = """
import faulthandler, os, signal, sys, tempfile, threading
from pathlib import Path
import numpy as np
import lossift
from lossift import _native

N = 100_000
FOLDER = Path(tempfile.mkdtemp(dir=sys.argv[1]))

def mapped(name, array=None):
    path = FOLDER / f"{name}.npy"
    np.save(path, np.random.default_rng(len(name)).random(N, dtype=np.float32) if array is None else array)
    return path, np.load(path, mmap_mode="r")

paths, columns = zip(*[mapped(name) for name in ("a", "bb", "ccc")])
columns = list(columns)
KEEP = 10 * 4096  # bytes of a truncated file: some pages stay

def cluster(columns=columns, **options):
    options = dict(n_clusters=20, n_iterations=5, seed=0, n_threads=2) | options
    return _native.cluster(columns, np.ones(N, bool), np.arange(N, dtype=np.uint64), **options)

def lost(call, **options):
    try:
        call(**options)
        print("no error", flush=True)
    except _native.LostFileError as error:
        print(str(error).split(": ")[0], flush=True)

def once(what, action):
    done = []
    def progress(now, at, total):
        if now == what and not done:
            done.append(1)
            action()
    return progress

def caught():  # whether somebody handles SIGBUS
    mask = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (signal.SIGBUS - 1) & 1)
"""


def run(tmp_path, code, *, dies=False, faults_shown=0):
    command = [sys.executable, "-c", PRELUDE + code, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (-signal.SIGBUS if dies else 0), done.stderr
    assert done.stderr.count("Bus error") == faults_shown, done.stderr
    return done.stdout.splitlines()


def test_a_file_truncated_before_the_call(tmp_path):
    code = """
good = cluster().labels
os.truncate(paths[1], KEEP)
lost(cluster)
lost(cluster)  # not zeros the second time
lost(cluster, n_threads=1)
lost(cluster, shape="relative")
assert (cluster([columns[0], columns[2]]).sizes > 0).all()
np.save(paths[1], columns[0]); columns[1] = np.load(paths[1], mmap_mode="r")
print(cluster().labels.shape == good.shape)
"""
    assert run(tmp_path, code) == ["columns[1]"] * 4 + ["True"]


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("what", ["reading", "seeding", "clustering"])
def test_a_file_truncated_during_the_call(tmp_path, what, n_threads):
    code = f"lost(cluster, n_threads={n_threads}, progress=once({what!r}, lambda: os.truncate(paths[2], KEEP)))"
    assert run(tmp_path, code) == ["columns[2]"]


def test_a_row_major_map_and_the_other_verbs(tmp_path):
    code = """
path, rows = mapped("rows", np.random.default_rng(0).random((N, 3)))
os.truncate(path, KEEP)
lost(lambda: cluster(rows))
path, ids = mapped("ids", np.arange(N, dtype=np.uint64))
clusters, quotas = np.zeros(N, np.int32), np.array([[5]])
assert len(_native.draw(quotas, ids, clusters=clusters, seed=0)) == 5
os.truncate(path, KEEP)
lost(lambda: _native.draw(quotas, ids, clusters=clusters, seed=0))
lost(lambda: _native.keys(ids, 0, "draw"))
lost(lambda: _native.census(1, 1, ids, clusters=clusters, seed=0))
"""
    assert run(tmp_path, code) == ["columns", "ids", "ids", "ids"]


def test_a_store_says_which_it_was(tmp_path):
    code = """
import json
from lossift.store import LossStore
pool = FOLDER / "pool.jsonl"
pool.write_text("".join(json.dumps({"prompt": str(i), "response": "r"}) + "\\n" for i in range(3000)))
store = LossStore.create(FOLDER / "losses", lossift.read_pool(pool))
ones = np.ones(3000, np.int32)
store.add_view("chat", n_supervised=ones, n_tokens=ones, why_invalid=np.zeros(3000, np.uint8), meta={})
for state in ("one", "two"):
    store.add_state(state)
    writer = store.writer(state, "chat", meta={"weights": state}, part_rows=3000)
    writer.write_part(0, 3000, np.random.default_rng(0).random(3000, np.float32), np.zeros(3000, np.uint8))
    writer.seal()
(column,) = (FOLDER / "losses").glob("columns/chat/*two*")
try:
    lossift.select(store, budget=5, n_clusters=3, progress=once("clustering", lambda: os.truncate(column, 100)))
except lossift.LossiftError as error:
    print(type(error).__name__, error)
"""
    (said,) = run(tmp_path, code)
    assert said.startswith("StoreError ")
    assert "/losses: columns[1]: the file under this array shrank or failed while it was being read" in said


def test_the_pages_are_lost_for_numpy_as_ever(tmp_path):
    code = "os.truncate(paths[0], KEEP); lost(cluster); print(columns[0].sum())"
    assert run(tmp_path, code, dies=True) == ["columns[0]"]


def test_calls_at_once_fail_if_they_share_the_array_and_only_then(tmp_path):
    code = """
os.truncate(paths[1], KEEP)
barrier = threading.Barrier(4)
found = {}
def call(name, columns):
    barrier.wait()
    for _ in range(20):
        try:
            found.setdefault(name, set()).add(cluster(columns, n_threads=1, n_iterations=1).n_fit_rows)
        except _native.LostFileError:
            found.setdefault(name, set()).add("lost")
work = {"all": columns, "again": columns, "good": columns[:1], "also": [columns[2]]}
threads = [threading.Thread(target=call, args=item) for item in work.items()]
[t.start() for t in threads]; [t.join() for t in threads]
print(found["all"], found["again"], found["good"], found["also"], caught())
"""
    assert run(tmp_path, code) == ["{'lost'} {'lost'} {100000} {100000} False"]


STRAY = "stray = once('clustering', lambda: print(lone.sum()))\n"


@pytest.mark.parametrize("handler", ["", "faulthandler.enable()", "signal.signal(signal.SIGBUS, signal.SIG_IGN)"])
def test_a_fault_elsewhere_during_a_call_ends_the_process_as_ever(tmp_path, handler):
    code = f"{handler}\npath, lone = mapped('lone'); os.truncate(path, KEEP)\n" + STRAY + "cluster(progress=stray)"
    shown = int("enable" in handler)
    assert run(tmp_path, code, dies=True, faults_shown=shown) == []


def test_a_handler_that_came_during_a_call_and_saved_ours(tmp_path):
    code = """
cluster(progress=once("clustering", faulthandler.enable))
path, lone = mapped("lone"); os.truncate(path, KEEP)
os.truncate(paths[0], KEEP); lost(cluster)
stray = once("reading", lambda: print(lone.sum()))
cluster(columns[1:], progress=stray)
"""
    assert run(tmp_path, code, dies=True, faults_shown=1) == ["columns[0]"]


def test_a_signal_that_somebody_sends_arrives_as_ever(tmp_path):
    code = """
send = once("clustering", lambda: os.kill(os.getpid(), signal.SIGBUS))
signal.signal(signal.SIGBUS, signal.SIG_IGN)
cluster(progress=send); print("ignored")
got = []
signal.signal(signal.SIGBUS, lambda *_: got.append(1))
for _ in range(2):
    cluster(progress=once("clustering", lambda: os.kill(os.getpid(), signal.SIGBUS)))
print(got)
signal.signal(signal.SIGBUS, signal.SIG_DFL)
cluster(progress=once("clustering", lambda: os.kill(os.getpid(), signal.SIGBUS)))
"""
    assert run(tmp_path, code, dies=True) == ["ignored", "[1, 1]"]


def test_the_handler_is_there_only_during_a_call(tmp_path):
    code = """
before, during = caught(), []
cluster(progress=once("clustering", lambda: during.append(caught())))
print(before, during, caught())
faulthandler.enable()
cluster()
faulthandler.disable()
print(caught())
"""
    assert run(tmp_path, code) == ["False [True] False", "False"]


@pytest.mark.parametrize("read", ["lost(cluster)", "print(columns[0].sum())"])
def test_the_child_of_a_fork_is_not_guarded_by_its_parents_calls(tmp_path, read):
    code = f"""
begun = threading.Event()
call = threading.Thread(target=lost, args=[cluster], kwargs={{
    "n_clusters": 2000, "n_iterations": 1000, "progress": once("clustering", begun.set)}})
call.start()
begun.wait()
child = os.fork()
if child == 0:  # the thread that is in the middle of its call isn't here
    os.truncate(paths[0], KEEP)
    {read}
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
call.join()
"""
    own_call = "lost" in read
    expected = ["columns[0]", "0", "columns[0]"] if own_call else [str(-signal.SIGBUS), "columns[0]"]
    assert sorted(run(tmp_path, code)) == sorted(expected)
