"""Why an example is invalid: one small table, shared by every file, message and report.

The codes are written to disk (``why_invalid``, uint8) and never change their meaning; new ones are appended.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from lossift import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reason(IntEnum):
    """Why an example has no usable loss; 0 means that it has one."""

    VALID = 0
    EMPTY_RESPONSE = 1
    TRUNCATED_RESPONSE = 2
    TEMPLATE_BREAKS_PREFIX = 3
    NON_FINITE_LOSS = 4
    BASE_NOT_POSITIVE = 5
    FIRST_NOT_POSITIVE = 6
    TEMPLATE_REFUSES = 7

    @property
    def text(self) -> str:
        """The reason in words, as every message and report shows it."""
        return _TEXT[self]


_TEXT = {
    Reason.VALID: "valid",
    Reason.EMPTY_RESPONSE: "empty response",
    Reason.TRUNCATED_RESPONSE: "truncated response",
    Reason.TEMPLATE_BREAKS_PREFIX: "template changes earlier turns",
    Reason.NON_FINITE_LOSS: "non-finite loss",
    Reason.BASE_NOT_POSITIVE: "base loss not positive",
    Reason.FIRST_NOT_POSITIVE: "first loss not positive",
    Reason.TEMPLATE_REFUSES: "template refuses it",
}


def merge_reasons(why: NDArray[np.uint8], *others: NDArray[np.uint8], n_threads: int = 1) -> None:
    """Takes over, in place, the reasons of `others` where `why` has none: the first reason found is the one told."""
    _native.merge_reasons(why, others, n_threads=n_threads)


def count_reasons(why: NDArray[np.uint8], n_threads: int = 1) -> dict[Reason, int]:
    """Returns how many examples have each reason, `Reason.VALID` among them, without those that none has."""
    counts = _native.count_reasons(why, n_threads=n_threads)
    return {Reason(code): int(counts[code]) for code in np.flatnonzero(counts).tolist()}
