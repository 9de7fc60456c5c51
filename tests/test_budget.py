"""Budgets: what each spelling means, and what is refused with which words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from lossift.budget import parse_budget
from lossift.errors import ArgumentError


@pytest.mark.parametrize(
    ("budget", "n", "count"),
    [
        ("11%", 1000, 110),
        ("11 %", 1000, 110),
        (0.11, 1000, 110),
        ("0.11", 1000, 110),
        (110, 1000, 110),
        ("110", 1000, 110),
        (1, 1000, 1),
        ("1", 1000, 1),
        (1.0, 1000, 1000),
        ("1.0", 1000, 1000),
        ("100%", 1000, 1000),
        ("2.5%", 20, 1),  # 0.5 rounds up
        (0.145, 100, 15),  # 14.5 as written, though the float is below it
        (np.int64(7), 10, 7),
        (np.float32(0.5), 10, 5),
        ("1e-1", 10, 1),
    ],
)
def test_meaning(budget, n, count):
    assert parse_budget(budget, n) == count


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (0, "budget: found 0, the smallest is 1 example"),
        ("0", "budget: found 0, the smallest is 1 example"),
        (-3, "budget: found -3, the smallest is 1 example"),
        (0.0, "budget: found 0.0, a fraction is above 0 and at most 1 (100%)"),
        ("110%", "budget: found 110%, a fraction is above 0 and at most 1 (100%)"),
        (1.5, "budget: found 1.5, a fraction is above 0 and at most 1 (100%)"),
        (101, "budget: found 101 examples, the pool has 100"),
        ("0.1%", "budget: 0.1% of 100 examples is less than one example"),
        ("a lot", "budget: found 'a lot', allowed are a count (500), a fraction"),
        ("nan", "budget: found 'nan', allowed are"),
        (float("inf"), "budget: found inf, allowed are"),
        (True, "budget: found True, allowed are"),
        (None, "budget: found None, allowed are"),
    ],
)
def test_refused(budget, message):
    with pytest.raises(ArgumentError) as caught:
        parse_budget(budget, 100)
    assert str(caught.value).startswith(message)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_fractions_round_halves_up(n, basis_points):
    text = f"{basis_points / 100:.2f}%"
    expected = reference.budget_of(str(basis_points) + "/10000", n)
    if expected == 0:
        with pytest.raises(ArgumentError):
            parse_budget(text, n)
    else:
        assert parse_budget(text, n) == expected
