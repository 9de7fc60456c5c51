"""One function in a process of its own, with nothing in its environment that steers BLAS or OpenMP.

Libraries bring their own thread pools and their own OpenBLAS; in one process they hold each other up, and a variable
meant for one of them slows another. So every contestant of every bench runs alone, one after the other, and the parent
sleeps meanwhile. Starting costs about half a second, outside all clocks.

The parent also watches the child's anonymous memory (RssAnon: what the process itself holds, without the page cache
of mapped files), every few milliseconds, whatever the child's threads are doing.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

_STEERS = ("OPENBLAS", "GOTO", "BLIS", "MKL", "OMP", "GOMP", "KMP", "FAISS", "SKLEARN", "LOSSIFT")
# Seconds; a look costs 0.03 ms of a core that contestants would like to have.
_WATCH_EVERY = 0.01


class Alone(NamedTuple):
    """What the function returned, and the most anonymous memory its process held, in bytes (None: not known here)."""

    value: Any
    peak_anonymous: int | None


def alone(task: str, *, environment: dict[str, str] | None = None, **arguments: Any) -> Alone:
    """Runs ``module:function`` of this folder with JSON values as arguments, in a fresh process.

    The child imports that module and nothing else: not lossift, unless the module does.

    Raises
    ------
    RuntimeError
        When the process fails; what it said is on stderr already.
    """
    from lossift.threads import resolve_threads

    steered = {name: value for name, value in os.environ.items() if not name.startswith(_STEERS)}
    # All contestants get the same number of threads, those that lossift would take by itself.
    threads = {name: str(resolve_threads()) for name in ("OMP_NUM_THREADS", "LOSSIFT_NUM_THREADS")}
    command = [sys.executable, __file__, task, json.dumps(arguments)]
    kept = {name: os.environ[name] for name in ("LOSSIFT_SIMD",) if name in os.environ}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=steered | threads | kept | (environment or {})
    )
    peak: list[int] = []
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(child.pid, done, peak))
    watcher.start()
    try:
        output, _ = child.communicate()
    finally:
        done.set()
        watcher.join()
        child.kill()
    if child.returncode:
        raise RuntimeError(f"{task}: failed with status {child.returncode}, arguments {arguments}")
    return Alone(json.loads(output.splitlines()[-1]), max(peak, default=None))


def _watch(pid: int, done: threading.Event, peak: list[int]) -> None:
    status = Path(f"/proc/{pid}/status")
    while not done.wait(_WATCH_EVERY):
        try:
            lines = status.read_text().splitlines()
        except OSError:  # no /proc on this system, or the process is gone
            return
        peak += [1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")]


if __name__ == "__main__":
    _module, _, _function = sys.argv[1].partition(":")
    print(json.dumps(getattr(importlib.import_module(_module), _function)(**json.loads(sys.argv[2]))))
