"""The table of scores: one number per example from loss columns, and which end of it is kept.

Scores are computed and ranked in float64, over all N examples at once; each costs one pass over its columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift.reasons import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray


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

    def __call__(self, base: NDArray[Any], ref: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Returns the scores, float64[N], NaN where there is none, and why there is none, uint8[N].

        Parameters
        ----------
        base, ref
            Mean losses of the N examples, nats per supervised token, NaN where invalid.
        """
        base, ref = np.asarray(base, dtype=np.float64), np.asarray(ref, dtype=np.float64)
        why = np.where(np.isfinite(base) & np.isfinite(ref), Reason.VALID, Reason.NON_FINITE_LOSS)
        if self.needs_positive_base:
            why[(why == Reason.VALID) & (base <= 0)] = Reason.BASE_NOT_POSITIVE
        with np.errstate(all="ignore"):  # rows that `why` has already set aside
            scores = np.where(why == Reason.VALID, self.compute(base, ref), np.nan)
        return scores, why.astype(np.uint8)


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
