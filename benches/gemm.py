"""The machine's own float32 matrix product, the physical limit that kernels are measured against.

Square products, large enough that memory doesn't count: the rate that a library reaches when nothing hinders it. The
narrow products that k-means is made of (T = 16) run at a quarter of it, because their result must be stored.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from contestants import granted, thread_pools

SIDES = (1024, 2048, 4096)
REPEATS = 5


def numpy_rate() -> dict[str, Any]:
    """Returns GFLOP/s of NumPy's BLAS, and which kernel it is."""
    rate = _rate(lambda n: np.random.default_rng(0).standard_normal((n, n), np.float32))
    return {"gflops": rate, "kernel": ", ".join(pool for pool in thread_pools() if not pool.startswith("openmp"))}


def torch_rate() -> dict[str, Any]:
    """Returns GFLOP/s of torch's matrix product, and which library it is."""
    import torch

    torch.set_num_threads(granted())
    library = "MKL" if torch.backends.mkl.is_available() else "BLAS"
    return {"gflops": _rate(lambda n: torch.randn(n, n)), "kernel": f"torch {torch.__version__} {library}"}


def _rate(make: Any) -> float:
    """Returns the best over the sizes of the median rate."""
    rates = []
    for n in SIDES:
        a, b = make(n), make(n)
        a @ b
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - started)
        rates.append(2 * n**3 / statistics.median(seconds) / 1e9)
    return max(rates)
