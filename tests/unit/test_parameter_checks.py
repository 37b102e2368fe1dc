"""The checks of parameter rows, without a database."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from workflow.pipeline.parameters import above, at_least, at_most, below, one_of, problems
from workflow.pipeline.svd import SVDParams


@pytest.mark.parametrize("value", [0, 0.0, "0.5", Decimal("1.5"), 1e300])
def test_numbers_of_every_kind_are_compared(value: Any) -> None:
    row = {"x": value, "limit": "1e301"}
    assert at_least(row, "x", 0) == ""
    assert at_most(row, "x", "limit") == ""
    assert above(row, "x", -1) == ""
    assert below(row, "x", "limit") == ""


@pytest.mark.parametrize("value", [None, "", "ten", math.nan, math.inf, -math.inf, [1, 2], b"\x00"])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    for check in (at_least, at_most, above, below):
        assert check({"x": value}, "x", 0) == f"x is {value!r}, must be a finite number"


def test_bounds_are_part_of_at_least_and_at_most_only() -> None:
    row = {"x": 5, "y": 5}
    assert at_least(row, "x", "y") == at_most(row, "x", 5) == ""
    assert above(row, "x", "y") == "x is 5, must be above y, which is 5"
    assert below(row, "x", 5) == "x is 5, must be below 5"
    assert at_least(row, "x", math.nan) != ""


def test_problems_are_joined() -> None:
    row = {"x": -1, "scheme": "thirds"}
    both = problems(at_least(row, "x", 0), "", one_of(row, "scheme", "halves", "quarters"))
    assert both == "x is -1, must be at least 0; scheme is 'thirds', must be one of halves, quarters"
    assert problems("", "") == ""


def test_parameters_of_the_decomposition() -> None:
    names = ("svd_params", "activity", "recording", "time_bin", "threshold")
    for row in SVDParams.contents:
        assert SVDParams.check(dict(zip(names, row, strict=True))) == ""
    bad = SVDParams.check({"time_bin": -0.2, "threshold": math.nan})
    assert bad == "time_bin is -0.2, must be at least 0; threshold is nan, must be a finite number"
