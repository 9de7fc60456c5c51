"""All benches into one Markdown file: machine and versions first, then each bench's tables.

Usage: python benches [--out FILE] [--quick] [NAME ...]. Names are clustering, selecting, scoring; all without names.
`--quick` is for trying the benches out, with small pools and single rounds: its figures are no measurements.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from machine import details

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHES = {
    "clustering": "K-means beside other libraries",
    "selecting": "A whole selection from disk",
    "scoring": "Scoring with a model",
}


def main() -> int:
    """Returns 0 when every bench's assertions held."""
    parser = argparse.ArgumentParser(prog="python benches", description="Writes one Markdown file with all tables.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all without names")
    parser.add_argument("--out", type=Path, default=Path("bench.md"))
    parser.add_argument("--quick", action="store_true", help="small pools, single rounds: no measurements")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"NAME: found {', '.join(sorted(unknown))}, allowed are {', '.join(BENCHES)}")
    quick = " (--quick: small pools, single rounds, no measurements)" if options.quick else ""
    failed = 0
    with options.out.open("w") as report:

        def put(text: str) -> None:
            for stream in (report, sys.stdout):
                print(text, file=stream, flush=True)

        put(f"# What `make bench` measured{quick}\n\n{details()}")
        put("\nTimes are medians with (fastest-slowest); every answer was checked before its time counted.")
        for name in options.names or BENCHES:
            put(f"\n## {BENCHES[name]}\n")
            failed += _run(name, options.quick, put)
    return min(failed, 1)


def _run(name: str, quick: bool, put: Callable[[str], None]) -> bool:
    """Passes on what a bench prints, line by line; returns whether it failed."""
    script = Path(__file__).with_name(f"{name}.py")
    with subprocess.Popen(
        [sys.executable, script, *(["--quick"] if quick and name != "scoring" else [])],
        stdout=subprocess.PIPE,
        text=True,
    ) as bench:
        assert bench.stdout is not None
        for line in bench.stdout:
            put(line.rstrip("\n"))
    if bench.returncode:
        put(f"\n**This bench failed with status {bench.returncode}: what it printed is incomplete.**")
    return bool(bench.returncode)


if __name__ == "__main__":
    sys.exit(main())
