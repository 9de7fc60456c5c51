"""How figures look in the Markdown that benches print: medians, with the fastest and slowest run beside them."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def header(*names: str, text: int = 1) -> None:
    """Prints the head of a table whose first `text` columns are words and whose others are numbers."""
    print("|", " | ".join(names), "|")
    print("|", " | ".join("---" if i < text else "---:" for i in range(len(names))), "|")


def row(*cells: object) -> None:
    """Prints one line of a table."""
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def spread(seconds: Sequence[float], unit: float = 1.0) -> str:
    """Returns ``median (fastest-slowest)`` in three significant digits, in units of `unit` seconds."""
    if len(seconds) == 1:
        return short(seconds[0] / unit)
    middle, fastest, slowest = (number / unit for number in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{short(middle)} ({short(fastest)}-{short(slowest)})"


def short(number: float) -> str:
    """Returns a positive number with three significant digits, without an exponent."""
    digits = 0 if number >= 100 else 1 if number >= 10 else 2 if number >= 1 else 3
    return f"{number:,.{digits}f}"
