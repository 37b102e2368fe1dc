"""The memory that the large tables announce is what their computations take."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from workflow.analysis.normalization import zscore
from workflow.analysis.svd import population_svd
from workflow.pipeline import (
    communication_subspace,
    matched_svd,
    partition_svd,
    shared_variance,
    shuffle,
    svd,
)
from workflow.pipeline.decomposition import Inputs
from workflow.pipeline.memory import DOUBLE
from workflow.pipeline.traces import Activity, Key

WHOLE: dict[str, Any] = {"time_bin": 0.0, "threshold": 0.0}
BLOCKS = {**WHOLE, "scheme": "quarters", "spontaneous": True, "block_frames": 1000, "n_components": 50}
SUBSETS = {**WHOLE, "subset_rois": 100, "n_shuffles": 3}
PART = {**WHOLE, "subset_rois": 100, "subset_frames": 500, "n_components": 50}
HALVES = {
    "time_bin": 0.0, "normalization": "zscored", "tile": 100.0, "guard": 0.0, "block": 60,
    "max_components": 100,
}  # fmt: skip
PAIR = {
    "time_bin": 0.0, "n_rois": 80, "max_rank": 10, "max_lag": 2, "folds": 20, "gap": 5, "ridge_min": 1e-3,
    "ridge_max": 1.0, "n_ridges": 3,
}  # fmt: skip


def fetched(n_rois: int, n_frames: int, dtype: type) -> Activity:
    """Traces that are made when they are used, as others are fetched."""

    def fetch(keys: list[Key]) -> np.ndarray:
        rng = np.random.default_rng(0)
        F = np.empty((len(keys), n_frames), dtype)
        for trace in F:
            trace[:] = rng.standard_normal(n_frames)
        return F

    return Activity(fetch, [{"roi_number": i} for i in range(n_rois)], 10.0, contents="known")


def inputs_for(table: Any, params: dict[str, Any], activity: Activity) -> Any:
    if table is communication_subspace.CommunicationSubspace:
        side = communication_subspace._Side("MOs", 0, activity, list(range(len(activity.keys))))
        return communication_subspace._Inputs(side, side, [], params)
    if table is not shared_variance.SharedVariance:
        return Inputs(activity, params)
    places = np.random.default_rng(1).uniform(0, 1200, (2, len(activity.keys)))
    return shared_variance._Inputs(activity, places, params, 0)


@pytest.mark.parametrize(
    ("table", "params", "n_rois", "n_frames", "dtype"),
    [
        (svd.PopulationSVD, WHOLE, 1000, 4000, np.float64),
        (svd.PopulationSVD, WHOLE, 4000, 1000, np.float32),
        (partition_svd.PartitionSVD, BLOCKS, 1000, 4000, np.float64),
        (matched_svd.MatchedAreaSVD, PART, 1000, 4000, np.float64),
        (shuffle.AreaShuffle, SUBSETS, 1000, 4000, np.float32),
        (shared_variance.SharedVariance, HALVES, 1000, 6000, np.float32),
        (shared_variance.SharedVariance, HALVES, 1000, 6000, np.float64),
        (communication_subspace.CommunicationSubspace, PAIR, 80, 1000, np.float32),
        (communication_subspace.CommunicationSubspace, {**PAIR, "folds": 4}, 80, 9000, np.float32),
        (communication_subspace.CommunicationSubspace, {**PAIR, "folds": 4}, 80, 9000, np.float64),
    ],
)
def test_a_computation_takes_no_more_than_its_table_says(
    table: Any, params: dict[str, Any], n_rois: int, n_frames: int, dtype: type
) -> None:
    inputs = inputs_for(table, params, fetched(n_rois, n_frames, dtype))
    tracemalloc.start()
    try:
        result = table.compute(table, inputs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.columns["skip_reason"] == ""
    folds = [params["folds"]] if "folds" in params else []
    announced = DOUBLE * table.held_values(n_rois, n_frames, *folds)
    assert announced / 2 < peak < announced


def test_the_direct_route_is_announced_too() -> None:
    """A trace that is nearly the same as another makes the Gram matrix of no use."""
    Z = np.random.default_rng(0).standard_normal((700, 900))
    Z[1] = Z[0] + 1e-6 * Z[1]
    tracemalloc.start()
    try:
        found = population_svd(zscore(Z).Z, max_components=500, overwrite=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.method == "gesdd"
    assert peak < DOUBLE * svd.PopulationSVD.held_values(700, 900)
