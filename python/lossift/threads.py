"""How many threads the core may use: the argument, then the environment, then what the machine grants."""

from __future__ import annotations

import os

from lossift import _native
from lossift.errors import ArgumentError

VARIABLE = "LOSSIFT_NUM_THREADS"
MOST_THREADS = 1024  # as in the core: more than anyone has


def resolve_threads(n_threads: int | None = None) -> int:
    """Returns the number of threads: `n_threads`, else ``LOSSIFT_NUM_THREADS``, else the granted cores.

    The last honours the CPU affinity mask and the cgroup limit. The number never changes a result.

    Raises
    ------
    ArgumentError
        When it is not a whole number from 1 to 1024.
    """
    source: object = n_threads
    argument = "n_threads"
    if n_threads is None:
        source, argument = os.environ.get(VARIABLE), VARIABLE
        if not source:
            return _native.available_threads()
    try:
        threads = int(str(source))
    except ValueError:
        threads = 0
    if not 1 <= threads <= MOST_THREADS:
        raise ArgumentError(f"{argument}: found {source!r}, allowed are whole numbers from 1 to {MOST_THREADS}")
    return threads
