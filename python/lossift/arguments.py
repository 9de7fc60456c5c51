"""What arguments may be: the checks that several verbs share, so that every refusal is worded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lossift.errors import ArgumentError


def check_name(argument: str, found: object, allowed: Sequence[str]) -> None:
    """Refuses what is not one of the names `allowed`."""
    if not isinstance(found, str) or found not in allowed:
        raise ArgumentError(f"{argument}: found {found!r}, allowed are {', '.join(allowed)}")


def check_whole(argument: str, number: object) -> None:
    """Refuses what is not a whole number from 1."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ArgumentError(f"{argument}: found {number!r}, allowed are whole numbers from 1")


def check_share(argument: str, share: object) -> None:
    """Refuses what is not a number from 0 to 1."""
    number = isinstance(share, int | float | np.integer | np.floating) and not isinstance(share, bool)
    if not number or not 0 <= share <= 1:  # type: ignore[operator]  # NaN is refused too
        raise ArgumentError(f"{argument}: found {share!r}, allowed are 0 to 1")


def check_seed(seed: object) -> None:
    """Refuses what is not a seed."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ArgumentError(f"seed: found {seed!r}, allowed are whole numbers from 0 to 2**64 - 1")
