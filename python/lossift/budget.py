"""How much to keep: a count of examples, or a fraction of all of them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from numbers import Integral, Real

from lossift.errors import ArgumentError

_ALLOWED = "a count (500), a fraction of all examples (0.11; 1.0 is everything) or a percentage (11%)"


def parse_budget(budget: int | float | str, n_examples: int) -> int:
    """Returns the budget as a number of examples, at least 1.

    Parameters
    ----------
    budget
        An int or ``"500"`` is a count; a float, ``"0.11"`` or ``"11%"`` is a fraction of all N examples, halves
        rounded up: ``1`` is one example, ``1.0`` everything.
    n_examples
        N, all examples of the pool, valid or not.

    Raises
    ------
    ArgumentError
        When it is no such thing, below one example, or more than the pool.

    Examples
    --------
    >>> parse_budget("11%", 1000), parse_budget(0.5, 5), parse_budget(1, 5), parse_budget(1.0, 5)
    (110, 3, 1, 5)
    """
    fraction, count = _parts(budget)
    if fraction is not None:
        if not 0 < fraction <= 1:
            raise ArgumentError(f"budget: found {budget}, a fraction is above 0 and at most 1 (100%)")
        count = int((fraction * n_examples).to_integral_value(ROUND_HALF_UP))
        if count == 0:
            raise ArgumentError(f"budget: {budget} of {n_examples} examples is less than one example")
    if count < 1:
        raise ArgumentError(f"budget: found {budget}, the smallest is 1 example")
    if count > n_examples:
        raise ArgumentError(f"budget: found {count} examples, the pool has {n_examples}")
    return count


def _parts(budget: object) -> tuple[Decimal | None, int]:
    """Returns (fraction, 0) or (None, count)."""
    # Decimal of the shortest text, not of the float's bits: 0.145 of 100 is 14.5, and 14.5 rounds up to 15.
    match budget:
        case bool():
            pass
        case Integral():
            return None, int(budget)
        case Real():
            return _finite(str(float(budget)), budget), 0
        case str():
            text = budget.strip()
            if text.endswith("%"):
                return _finite(text[:-1], budget) / 100, 0
            number = _finite(text, budget)
            # "1" is one example, "1.0" everything: a point or an exponent makes it a fraction.
            return (None, int(number)) if text.lstrip("+-").isdecimal() else (number, 0)
    raise ArgumentError(f"budget: found {budget!r}, allowed are {_ALLOWED}")


def _finite(text: str, budget: object) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ArgumentError(f"budget: found {budget!r}, allowed are {_ALLOWED}")
    return number
