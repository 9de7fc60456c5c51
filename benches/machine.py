"""What stands beside every figure: which machine, backend, threads and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from lossift import _native
from lossift.threads import resolve_threads

# Whatever decides the speed of a contestant, or its answer.
PACKAGES = ("numpy", "faiss-cpu", "scikit-learn", "scikit-learn-intelex", "torch", "safetensors", "pyarrow")


def describe() -> str:
    """Returns CPU, SIMD backend, threads and Python, in one line."""
    return f"{cpu()}, {_native.simd()}, {resolve_threads()} threads, Python {platform.python_version()}"


def details() -> str:
    """Returns the machine and the versions of everything, as Markdown lines."""
    memory = available_memory()
    ours = f"lossift {_native.__version__}{_commit()}, Python {platform.python_version()}"
    others = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    lines = {
        "CPU": f"{cpu()}; caches {_caches()}",
        "threads": f"{resolve_threads()}, every contestant the same (of {os.cpu_count()} logical CPUs)",
        "SIMD backends": f"{', '.join(_native.simd_available())}; in use: {_native.simd()}",
        "memory": f"{memory / 1e9:.1f} GB available" if memory is not None else "not known here",
        "load when started": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "not known here",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "versions": f"{ours}, {others}",
    }
    return "\n".join(f"- {what}: {found}" for what, found in lines.items())


def cpu() -> str:
    """Returns the CPU's name, with family and model where the name alone is vague."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor() or platform.machine()
    found: dict[str, str] = {}
    for line in information.read_text().splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    name = found.get("model name") or platform.machine()
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def available_memory() -> int | None:
    """Returns how many bytes a new process could have, None where the system doesn't say."""
    information = Path("/proc/meminfo")
    if not information.exists():
        return None
    lines = information.read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)


def _caches() -> str:
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    found = []
    for folder in folders:
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "not known here"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _commit() -> str:
    """Returns the commit that was measured, and whether files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return f" (commit {found.stdout.strip()})" if found.returncode == 0 else ""
