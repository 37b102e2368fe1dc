"""Population SVD against NumPy's economy SVD."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.flops import bound_note
from bench.measure import Step, compare
from bench.registry import Options, Row, benchmark
from workflow.analysis.normalization import zscore
from workflow.analysis.svd import population_svd

LATENTS = 50


def recording(n_rois: int, n_frames: int) -> np.ndarray:
    """Z-scores of latent signals of falling strength in noise, built without large temporary copies."""
    rng = np.random.default_rng(0)
    F = rng.standard_normal((n_rois, n_frames))
    latents = rng.standard_normal((LATENTS, n_frames)) / np.arange(1, LATENTS + 1)[:, None]
    for rows in np.array_split(np.arange(n_rois), 50):
        F[rows] += rng.standard_normal((len(rows), LATENTS)) @ latents
    return zscore(F, overwrite=True).Z


def numpy_economy(n_rois: int, n_frames: int) -> Callable[[], np.ndarray]:
    """Prepare the baseline."""
    Z = recording(n_rois, n_frames)

    def step() -> np.ndarray:
        _U, s, _Vt = np.linalg.svd(Z, full_matrices=False)
        return s

    return step


def ours(n_rois: int, n_frames: int) -> Callable[[], np.ndarray]:
    """Prepare our way."""
    Z = recording(n_rois, n_frames)
    return lambda: population_svd(Z).s


def flops(n_rois: int, n_frames: int, n_vectors: int = 1000) -> float:
    """Operations of the Gram route: Gram matrix, tridiagonal form, vectors carried back, the other side."""
    n, longer = sorted((n_rois, n_frames))
    k = min(n_vectors, n)
    return n**2 * longer + 4 / 3 * n**3 + 2 * n**2 * k + 2 * k * n * longer


def _row(options: Options, n_rois: int, n_frames: int, *, required_ratio: float, repeats: int) -> Row:
    size = (n_rois, n_frames)
    result = compare(
        Step("bench.population_svd:ours", size),
        Step("bench.population_svd:numpy_economy", size),
        repeats=options.repeats or repeats,
        threads=options.threads,
        relative_above=1e-3,
    )
    return Row(
        step="population SVD",
        size=f"{n_rois} × {n_frames}",
        ours=result.ours,
        baseline=result.baseline,
        ratio=result.ratio,
        required_ratio=required_ratio,
        memory_ratio=result.memory_ratio,
        limit_memory_ratio=0.55,
        error=result.error,
        limit_error=1e-12,
        note=bound_note(flops(n_rois, n_frames), result, options),
    )


@benchmark("svd-2000x5000")
def small(options: Options) -> list[Row]:
    """Decompose a usual field of view."""
    return [_row(options, 2000, 5000, required_ratio=3.5, repeats=3)]


@benchmark("svd-3000x10000")
def large(options: Options) -> list[Row]:
    """Decompose a large field of view."""
    return [_row(options, 3000, 10000, required_ratio=4.5, repeats=3)]
