"""Spectra of random subsets of the ROIs against one decomposition of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import svdvals

from bench.flops import bound_note
from bench.measure import Step, compare
from bench.population_svd import recording
from bench.registry import Options, Row, benchmark
from workflow.analysis.shuffle import shuffled_singular_values
from workflow.analysis.subsets import random_rows

SEED = 1


def one_svd_each(n_rois: int, n_frames: int, subset: int, n_shuffles: int) -> Callable[[], np.ndarray]:
    """Prepare the baseline: LAPACK's singular values, without vectors, of every subset."""
    Z = recording(n_rois, n_frames)

    def step() -> np.ndarray:
        rng = np.random.default_rng(SEED)
        subsets = [random_rows(n_rois, subset, rng) for _ in range(n_shuffles)]
        return np.stack([svdvals(Z[rows], overwrite_a=True, check_finite=False) for rows in subsets])

    return step


def ours(n_rois: int, n_frames: int, subset: int, n_shuffles: int) -> Callable[[], np.ndarray]:
    """Prepare our way."""
    Z = recording(n_rois, n_frames)
    return lambda: shuffled_singular_values(Z, subset, n_shuffles, SEED)


def flops(n_rois: int, n_frames: int, subset: int, n_shuffles: int) -> float:
    """Operations of our way: one Gram matrix, and the tridiagonal form of every piece of it."""
    return n_rois**2 * n_frames + n_shuffles * 4 / 3 * subset**3


@benchmark("shuffle")
def shuffle(options: Options) -> list[Row]:
    """Draw 500 of 2000 ROIs a hundred times."""
    sizes = (2000, 5000, 500, 100)
    result = compare(
        Step("bench.shuffle:ours", sizes),
        Step("bench.shuffle:one_svd_each", sizes),
        repeats=options.repeats or 3,
        threads=options.threads,
        relative_above=1e-3,
    )
    return [
        Row(
            step="area shuffle",
            size="100 × 500 from 2000 × 5000",
            ours=result.ours,
            baseline=result.baseline,
            ratio=result.ratio,
            required_ratio=10.0,
            memory_ratio=result.memory_ratio,
            error=result.error,
            limit_error=1e-12,
            note=bound_note(flops(*sizes), result, options),
        )
    ]
