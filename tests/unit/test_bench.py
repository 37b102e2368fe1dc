"""The benchmarks still run: every step, at a size that takes no time, and both sides agree."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cli, large_sample
from bench.measure import MeasurementError, difference
from bench.registry import BENCHMARKS

BENCH = Path(cli.__file__).parent
#: Module, baseline and sizes of every pair of steps that `compare` measures.
PAIRS = [
    ("binning", "slice_and_sum", (4, 31, 3)),
    ("binning", "slice_of_all", (4, 31, 3)),
    ("population_svd", "numpy_economy", (60, 90)),
    ("shuffle", "one_svd_each", (12, 40, 5, 3)),
    ("timescale", "correlate_each", (3, 200, 10)),
    ("lds", "textbook", (4, 2, 60, 2)),
    ("communication_subspace", "svd_per_rank", (6, 60, 3)),
]


@pytest.mark.parametrize(("module", "baseline", "sizes"), PAIRS)
def test_both_sides_of_a_comparison_run_and_agree(module: str, baseline: str, sizes: tuple[int, ...]) -> None:
    steps = importlib.import_module(f"bench.{module}")
    mine, theirs = (np.asarray(getattr(steps, side)(*sizes)()) for side in ("ours", baseline))
    assert difference(mine, theirs) < 1e-8
    if hasattr(steps, "flops"):
        assert steps.flops(*sizes) > 0


def test_no_comparison_is_left_out() -> None:
    """Those that `Step` names in the sources are those that are tried here."""
    named = {path.stem for path in BENCH.glob("*.py") if 'Step("bench.' in path.read_text()}
    assert named - {"flops"} == {module for module, *_ in PAIRS}


def test_the_command_line_knows_every_benchmark() -> None:
    """A module that registers a benchmark is imported there; each is documented."""
    declared = [path.stem for path in BENCH.glob("*.py") if "\n@benchmark(" in path.read_text()]
    assert len(declared) > 10
    for module in declared:
        assert hasattr(cli, module), f"bench/cli.py does not import {module}"
    assert all(function.__doc__ for function in BENCHMARKS.values())


def test_a_benchmark_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["svd-2x2"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: no benchmark is called 'svd-2x2'; there are: ")
    assert error.count("\n") == 1


def test_small_values_count_relative_to_themselves_where_that_is_asked_for() -> None:
    b = np.array([10.0, 0.1, 1e-3])
    a = b + np.array([0, 0.001, 0.001])
    assert difference(a, b) == pytest.approx(1e-4)
    assert difference(a, b, 1e-3) == pytest.approx(1e-2)
    assert difference(a, b, math.inf) == difference(a, b)
    with pytest.raises(MeasurementError, match="differ in shape"):
        difference(a, b[:2])


@pytest.mark.parametrize(
    ("table", "report", "words"),
    [
        ({"done": 3, "failed": 1}, "", "svd.PopulationSVD: 3 keys done, 1 failed"),
        ({"done": 0, "failed": 0}, "", "svd.PopulationSVD: 0 keys done, 0 failed"),
        ({"done": 3, "failed": 0}, "The figures of this table could not be drawn: x", "could not be drawn"),
    ],
)
def test_a_large_sample_with_gaps_is_no_result(table: dict[str, Any], report: str, words: str) -> None:
    summary = {"tables": [{"table": "svd.PopulationSVD", **table}]}
    with pytest.raises(MeasurementError, match=words):
        large_sample._require_results(summary, report)
    large_sample._require_results({"tables": [{"table": "t.T", "done": 1, "failed": 0}]}, "")
