"""The table of scores: one number per example from loss columns, and which end of it is kept.

Scores are computed and ranked in float64; each costs one pass over its columns, a chunk at a time, so that what it
takes on the way stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift.reasons import Reason, merge_reasons

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_CHUNK_ROWS = 1 << 14


@dataclass(frozen=True)
class Score:
    """One row of the table: what is computed from the losses under `base` and `ref`, and what of it is kept.

    Attributes
    ----------
    formula
        As the documentation shows it.
    source
        Where the formula comes from.
    compute
        ``(base, ref) -> score``: float64[N] each, nats per supervised token for the losses.
    needs_positive_base
        Whether an example with a base loss at or below 0 has no such score.
    """

    name: str
    formula: str
    source: str
    compute: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
    needs_positive_base: bool

    def __call__(
        self, base: NDArray[Any], ref: NDArray[Any], why: NDArray[np.uint8] | None = None, dtype: DTypeLike = np.float64
    ) -> NDArray[Any]:
        """Returns the scores, N of `dtype`, NaN where there is none.

        Parameters
        ----------
        base, ref
            Mean losses of the N examples, nats per supervised token, NaN where invalid.
        why
            uint8[N], if given: written to, why there is no score, where it holds no reason yet.
        """
        scores = np.empty(len(base), dtype)
        for first in range(0, len(base), _CHUNK_ROWS):
            rows = slice(first, first + _CHUNK_ROWS)
            scores[rows] = self._chunk(base[rows], ref[rows], None if why is None else why[rows])
        return scores

    def _chunk(self, base: NDArray[Any], ref: NDArray[Any], why: NDArray[np.uint8] | None) -> NDArray[np.float64]:
        base, ref = np.asarray(base, dtype=np.float64), np.asarray(ref, dtype=np.float64)
        found = np.where(np.isfinite(base) & np.isfinite(ref), np.uint8(Reason.VALID), np.uint8(Reason.NON_FINITE_LOSS))
        if self.needs_positive_base:
            found[(found == Reason.VALID) & (base <= 0)] = Reason.BASE_NOT_POSITIVE
        if why is not None:
            merge_reasons(why, found)
        with np.errstate(all="ignore"):  # rows that have a reason
            return np.where(found == Reason.VALID, self.compute(base, ref), np.nan)


SCORES = {
    score.name: score
    for score in (
        Score(
            name="learnability",
            formula="1 - ref / base, the largest kept",
            source="LoBaSS / DavIR, arXiv 2310.13008: the share of its loss that fine-tuning removes",
            compute=lambda base, ref: 1.0 - ref / base,
            needs_positive_base=True,
        ),
        Score(
            name="delta",
            formula="base - ref, the largest kept",
            source="RHO-LM in arXiv 2310.13008: the same, not normalised",
            compute=lambda base, ref: base - ref,
            needs_positive_base=False,
        ),
    )
}
