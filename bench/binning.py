"""Time binning against a Python loop over slices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.measure import Step, compare
from bench.registry import Options, Row, benchmark
from workflow.analysis.binning import bin_frames

FRAME_RATE = 10.0


def slice_and_sum(n_rois: int, n_frames: int, c: int) -> Callable[[], np.ndarray]:
    """Prepare the baseline."""
    F = np.random.default_rng(0).standard_normal((n_rois, n_frames))

    def step() -> np.ndarray:
        starts = range(0, n_frames - n_frames % c, c)
        return np.stack([F[:, start : start + c].sum(axis=1) / c for start in starts], axis=1)

    return step


def ours(n_rois: int, n_frames: int, c: int) -> Callable[[], np.ndarray]:
    """Prepare our way."""
    F = np.random.default_rng(0).standard_normal((n_rois, n_frames))
    return lambda: bin_frames(F, c / FRAME_RATE, FRAME_RATE)[0]


@benchmark("binning")
def binning(options: Options) -> list[Row]:
    """Average 15 frames."""
    sizes = (2000, 5000, 15)
    result = compare(
        Step("bench.binning:ours", sizes, loops=5),
        Step("bench.binning:slice_and_sum", sizes, loops=5),
        repeats=options.repeats or 5,
        threads=options.threads,
    )
    return [
        Row(
            step="binning",
            size="2000 × 5000, c = 15",
            ours=result.ours,
            baseline=result.baseline,
            ratio=result.ratio,
            required_ratio=5.0,
            memory_ratio=result.memory_ratio,
            error=result.error,
            limit_error=1e-12,
        )
    ]
