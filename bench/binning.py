"""Time binning against Python loops over slices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.flops import bound_note
from bench.measure import Step, compare
from bench.registry import Options, Row, benchmark
from workflow.analysis.binning import bin_frames

FRAME_RATE = 10.0


def slice_and_sum(n_rois: int, n_frames: int, c: int) -> Callable[[], np.ndarray]:
    """Prepare the usual loop: for every ROI and every bin, cut a slice, add it up, divide."""
    F = np.random.default_rng(0).standard_normal((n_rois, n_frames))

    def step() -> np.ndarray:
        starts = range(0, n_frames - n_frames % c, c)
        return np.array([[trace[start : start + c].sum() / c for start in starts] for trace in F])

    return step


def slice_of_all(n_rois: int, n_frames: int, c: int) -> Callable[[], np.ndarray]:
    """Prepare the better loop: for every bin, cut a slice of all ROIs at once."""
    F = np.random.default_rng(0).standard_normal((n_rois, n_frames))

    def step() -> np.ndarray:
        starts = range(0, n_frames - n_frames % c, c)
        return np.stack([F[:, start : start + c].sum(axis=1) / c for start in starts], axis=1)

    return step


def ours(n_rois: int, n_frames: int, c: int) -> Callable[[], np.ndarray]:
    """Prepare our way."""
    F = np.random.default_rng(0).standard_normal((n_rois, n_frames))
    return lambda: bin_frames(F, c / FRAME_RATE, FRAME_RATE)


@benchmark("binning")
def binning(options: Options) -> list[Row]:
    """Average 15 frames."""
    return [
        _row("binning, slice by slice", "slice_and_sum", 25.0, options),
        _row("binning, slice of all ROIs", "slice_of_all", 5.0, options),
    ]


def _row(step: str, baseline: str, required_ratio: float, options: Options) -> Row:
    n_rois, n_frames, c = sizes = (2000, 5000, 15)
    result = compare(
        Step("bench.binning:ours", sizes, loops=5),
        Step(f"bench.binning:{baseline}", sizes, loops=3),
        repeats=options.repeats or 5,
        threads=options.threads,
    )
    return Row(
        step=step,
        size=f"{n_rois} × {n_frames}, c = {c}",
        ours=result.ours,
        baseline=result.baseline,
        ratio=result.ratio,
        required_ratio=required_ratio,
        memory_ratio=result.memory_ratio,
        error=result.error,
        limit_error=1e-12,
        note=bound_note(n_rois * n_frames, result, options),
    )
