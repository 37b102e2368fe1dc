"""The checks of parameter rows, without a database."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from workflow.pipeline import schemas
from workflow.pipeline.communication_subspace import CommunicationSubspaceParams
from workflow.pipeline.lds import LDSParams
from workflow.pipeline.matched_svd import MatchedAreaSVDParams
from workflow.pipeline.parameters import CheckedLookup, above, at_least, at_most, below, one_of, problems
from workflow.pipeline.shuffle import AreaShuffleParams
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
    bad = SVDParams.check({"activity": "dff", "recording": "other", "time_bin": -0.2, "threshold": math.nan})
    assert bad == "time_bin is -0.2, must be at least 0; threshold is nan, must be a finite number"


#: Lookup tables with a choice of traces and recordings.
CHOOSING = [
    value
    for module in schemas.served().values()
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, CheckedLookup) and "activity :" in str(value.definition)
]


def columns_of(table: type[CheckedLookup]) -> list[str]:
    """Names of the columns, in the order of the definition."""
    lines = [line.split("#")[0] for line in str(table.definition).splitlines()]
    return [line.split(":")[0].strip() for line in lines if ":" in line]


@pytest.mark.parametrize(
    ("table", "changes", "refused"),
    [
        (MatchedAreaSVDParams, {"seed": -5}, "seed is -5, must be at least 0"),
        (AreaShuffleParams, {"seed": -5}, "seed is -5, must be at least 0"),
        (
            MatchedAreaSVDParams,
            dict.fromkeys(["subset_rois", "subset_frames", "n_components"], 40000),
            "n_components is 40000, must be at most 32767",
        ),
        (
            LDSParams,
            {"n_observed": 2000, "min_frames": 10000, "min_frames_area": 10000},
            "n_observed is 2000, must be at most 1000",
        ),
        (CommunicationSubspaceParams, {"ridge_min": 1e-300}, "ridge_min is 1e-300, must be at least 1e-12"),
    ],
)
def test_what_could_never_be_computed_or_stored_is_refused(
    table: type[CheckedLookup], changes: dict[str, Any], refused: str
) -> None:
    row = dict(zip(columns_of(table), table.contents[0], strict=True))
    assert table.check(row) == ""
    assert table.check(row | changes) == refused


def test_the_tables_with_a_choice_are_found() -> None:
    assert SVDParams in CHOOSING
    assert len(CHOOSING) >= 7


@pytest.mark.parametrize("table", CHOOSING)
def test_kinds_that_do_not_exist_are_refused(table: type[CheckedLookup]) -> None:
    row = dict(zip(columns_of(table), table.contents[0], strict=True))
    assert table.check(row) == ""
    assert table.check({**row, "activity": "spikes", "recording": "other"}) == ""
    assert table.check({**row, "activity": "dF/F"}) == "activity is 'dF/F', must be one of dff, spikes"
    refused = "recording is 'two-photon', must be one of mesoscope, other"
    assert table.check({**row, "recording": "two-photon"}) == refused
    assert table.check({**row, "time_bin": 1e18}) == "time_bin is 1e+18, must be at most 1e+06"
    if "normalization" in row:
        refused = "normalization is 'scaled', must be one of centred, zscored"
        assert table.check({**row, "normalization": "scaled"}) == refused
