"""The line that stands beside every figure: which machine, backend and threads."""

from __future__ import annotations

import platform
from pathlib import Path

from lossift import _native
from lossift.threads import resolve_threads


def describe() -> str:
    """Returns CPU, SIMD backend, threads and Python, in one line."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    return f"{cpu}, {_native.simd()}, {resolve_threads()} threads, Python {platform.python_version()}"
