"""Reduced-rank regression cross-validated at every rank, against one SVD per rank."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from bench.flops import bound_note
from bench.measure import Step, compare
from bench.registry import Options, Row, benchmark
from workflow.analysis.communication_subspace import communication_subspace

SHARED = 8
RIDGE = 0.1
FOLDS = 4


def areas(n_rois: int, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Two areas of which the second repeats a few dimensions of the first."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rois, n_frames))
    weights = rng.standard_normal((n_rois, SHARED)) @ rng.standard_normal((SHARED, n_rois))
    return X, weights @ X / np.sqrt(SHARED * n_rois) + rng.standard_normal((n_rois, n_frames))


def svd_per_rank(n_rois: int, n_frames: int, max_rank: int) -> Callable[[], np.ndarray]:
    """Prepare the baseline: a ridge regression per fold, its fitted values decomposed for every rank."""
    X, Y = areas(n_rois, n_frames)

    def fold_r2(tested: np.ndarray) -> list[float]:
        x_mean, y_mean = X[:, ~tested].mean(axis=1), Y[:, ~tested].mean(axis=1)
        A, B = X[:, ~tested].T - x_mean, Y[:, ~tested].T - y_mean
        x, y = X[:, tested].T - x_mean, Y[:, tested].T - y_mean
        penalty = RIDGE * np.mean((A**2).sum(axis=0))
        weights = np.linalg.solve(A.T @ A + penalty * np.eye(n_rois), A.T @ B)
        fitted = np.vstack([A, np.sqrt(penalty) * np.eye(n_rois)]) @ weights
        r2 = [0.0]
        for rank in range(1, max_rank + 1):
            _, _, Vt = np.linalg.svd(fitted, full_matrices=False)
            prediction = x @ (weights @ Vt[:rank].T @ Vt[:rank])
            r2.append(1 - ((y - prediction) ** 2).sum() / (y**2).sum())
        return r2

    def step() -> np.ndarray:
        edges = np.linspace(0, n_frames, FOLDS + 1).astype(int)
        frames = np.arange(n_frames)
        tested = [(frames >= start) & (frames < stop) for start, stop in pairwise(edges)]
        return np.asarray(np.mean([fold_r2(block) for block in tested], axis=0))

    return step


def ours(n_rois: int, n_frames: int, max_rank: int) -> Callable[[], np.ndarray]:
    """Prepare our way."""
    X, Y = areas(n_rois, n_frames)
    options = {"max_rank": max_rank, "max_lag": 0, "folds": FOLDS, "gap": 0}
    return lambda: communication_subspace(X, Y, **options, ridges=[RIDGE]).r2[0]


def flops(n: int, n_frames: int, k: int) -> float:
    """Operations: products over the frames; per fold two eigenproblems, changes of basis, k components."""
    products = 2 * 2 * n_frames * n**2
    source = 4 / 3 * n**3 + 4 / 3 * n**3 + 2 * n**3  # tridiagonal form, its vectors, all carried back
    target = 4 / 3 * n**3 + 4 / 3 * n**3 + 2 * n**2 * k
    basis = 4 * n**3 + 2 * n**3 + 2 * n**3  # test in the basis, cross products in it, their square
    return products + FOLDS * (source + target + basis + 10 * n**2 * k)


@benchmark("communication-subspace")
def subspace(options: Options) -> list[Row]:
    """Find R² at 40 ranks by cross-validation."""
    sizes = (500, 2500, 40)
    result = compare(
        Step("bench.communication_subspace:ours", sizes),
        Step("bench.communication_subspace:svd_per_rank", sizes),
        repeats=options.repeats or 3,
        threads=options.threads,
    )
    return [
        Row(
            step="communication subspace",
            size=f"500 × 500, T 2500, 40 ranks, {FOLDS} folds",
            ours=result.ours,
            baseline=result.baseline,
            ratio=result.ratio,
            required_ratio=15.0,
            memory_ratio=result.memory_ratio,
            error=result.error,
            limit_error=1e-8,
            note=bound_note(flops(*sizes), result, options),
        )
    ]
