"""The communication subspace against planted ones, a term-by-term transcription, and its own promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.analysis.communication_subspace import (
    RIDGES,
    CommunicationSubspace,
    communication_subspace,
    shortest,
    smallest_good_rank,
)

ROOT = Path(__file__).parents[2]
quick = settings(max_examples=25, deadline=None)


def planted(
    rank: int = 8, lag: int = 0, n_rois: int = 40, n_frames: int = 3000, noise: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A white source, and a target that repeats ``rank`` equally strong dimensions of it ``lag`` frames on.

    The repeated part has the variance 1 in every target ROI, on average.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rois, n_frames + lag))
    inputs, _ = np.linalg.qr(rng.standard_normal((n_rois, rank)))
    outputs, _ = np.linalg.qr(rng.standard_normal((n_rois, rank)))
    signal = np.sqrt(n_rois / rank) * outputs @ (inputs.T @ X)
    Y = np.roll(signal, lag, axis=1) + noise * rng.standard_normal(X.shape)
    return X[:, lag:], Y[:, lag:]


def white(n_rois: int, n_frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_rois, n_frames))


def slow(n_rois: int, n_frames: int, seed: int) -> np.ndarray:
    """Independent traces that each resemble themselves for about fifty frames."""
    steps = white(n_rois, n_frames, seed)
    for frame in range(1, n_frames):
        steps[:, frame] = 0.98 * steps[:, frame - 1] + np.sqrt(1 - 0.98**2) * steps[:, frame]
    return steps


def reference(
    X: np.ndarray, Y: np.ndarray, *, max_rank: int, max_lag: int, folds: int, gap: int, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Every fit from the traces themselves: one ridge regression and one SVD per fold, lag and rank."""
    n = X.shape[1] - max_lag
    r2 = np.zeros((max_lag + 1, folds, max_rank + 1))
    edges = [fold * n // folds for fold in range(folds + 1)]
    for lag in range(max_lag + 1):
        x, y = X[:, :n], Y[:, lag : lag + n]
        for fold in range(folds):
            tested = np.zeros(n, bool)
            tested[edges[fold] : edges[fold + 1]] = True
            train = np.ones(n, bool)
            train[max(edges[fold] - gap, 0) : edges[fold + 1] + gap] = False
            x_mean, y_mean = x[:, train].mean(axis=1), y[:, train].mean(axis=1)
            A, B = x[:, train].T - x_mean, y[:, train].T - y_mean
            penalty = ridge * np.mean((A**2).sum(axis=0))
            A = np.vstack([A, np.sqrt(penalty) * np.eye(len(X))])
            B = np.vstack([B, np.zeros((len(X), len(Y)))])
            weights = np.linalg.lstsq(A, B, rcond=None)[0]
            total = ((y[:, tested].T - y_mean) ** 2).sum()
            for rank in range(max_rank + 1):
                _, _, Vt = np.linalg.svd(A @ weights, full_matrices=False)
                prediction = (x[:, tested].T - x_mean) @ weights @ Vt[:rank].T @ Vt[:rank]
                r2[lag, fold, rank] = 1 - ((y[:, tested].T - y_mean - prediction) ** 2).sum() / total
    return r2.mean(axis=1), r2.std(axis=1, ddof=1) / np.sqrt(folds)


@pytest.mark.parametrize(("p", "q"), [(7, 5), (4, 9)])
@pytest.mark.parametrize(("ridge", "gap"), [(1e-6, 0), (0.3, 7)])
def test_agrees_with_the_definition_term_by_term(p: int, q: int, ridge: float, gap: int) -> None:
    X = slow(p, 200, 1) + 3
    Y = white(q, p, 2) @ np.roll(X, 2, axis=1) + white(q, 200, 3)
    sizes = {"max_rank": 4, "max_lag": 3, "folds": 4, "gap": gap}
    result = communication_subspace(X, Y, **sizes, ridges=[ridge])
    mean, error = reference(X, Y, **sizes, ridge=ridge)
    np.testing.assert_allclose(result.r2, mean, atol=1e-9)
    np.testing.assert_allclose(result.standard_error, error, atol=1e-9)
    assert (result.ridge == ridge).all()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_planted_rank_is_found(rank: int) -> None:
    """The wrong factor of the decomposition would leave almost nothing of R² at that rank."""
    X, Y = planted(rank)
    result = communication_subspace(X, Y, max_lag=2)
    assert result.best_rank.tolist() == [rank, 0, 0]
    assert result.best_lag == 0
    assert result.r2[0, rank] == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(result.r2[0, : rank + 1], 0.5 * np.arange(rank + 1) / rank, atol=0.03)


@pytest.mark.parametrize("make", [white, slow])
@pytest.mark.parametrize("seed", [0, 10])
def test_null_data_predict_nothing_at_any_rank(make: Any, seed: int) -> None:
    """Measured in sample, noise alone reaches R² > 0; what is slow does so across the edge of a block too."""
    result = communication_subspace(make(50, 1500, seed), make(50, 1500, seed + 1), max_lag=5)
    assert (result.r2 <= 0).all()
    assert (result.r2[:, 0] == 0).all()
    assert (result.r2[:, 10:] < 0).all()
    assert (result.best_rank == 0).all()
    assert result.best_lag == 0


def test_the_gap_keeps_slow_activity_from_reaching_over_the_edges_of_blocks() -> None:
    X, Y = slow(50, 1500, 0), slow(50, 1500, 1)
    leaking, tight = (communication_subspace(X, Y, max_lag=0, gap=gap) for gap in (0, 50))
    assert leaking.r2[0].max() > 0
    assert tight.r2[0].max() == 0


@pytest.mark.parametrize("lag", [1, 7, 12])
def test_a_source_that_leads_peaks_at_a_positive_lag(lag: int) -> None:
    X, Y = planted(4, lag=lag)
    forwards = communication_subspace(X, Y, max_lag=12)
    assert forwards.best_lag == lag
    assert forwards.best_rank[lag] == 4
    assert forwards.r2[lag, 4] == pytest.approx(0.5, abs=0.03)
    assert np.delete(forwards.r2, lag, axis=0).max() < 0.01
    backwards = communication_subspace(Y, X, max_lag=12)
    assert backwards.r2.max() < 0.01


def test_each_lag_has_a_ridge_of_its_own() -> None:
    X, Y = planted(4, lag=3, noise=0.1)
    result = communication_subspace(X, Y, max_lag=4)
    assert result.ridge.shape == (5, 10)
    assert result.ridge[3].max() < 0.1 < np.delete(result.ridge, 3, axis=0).min()
    assert set(np.unique(result.ridge)) <= set(RIDGES)


def test_the_ridge_is_chosen_by_cross_validation_in_the_blocks_elsewhere() -> None:
    """A transcription: for each block, the least error in all blocks but it and those next to it."""
    folds, gap, n = 6, 5, 600
    X, Y = planted(3, n_rois=12, n_frames=n, noise=2.0)
    ridges = [0.001, 0.01, 0.1, 1.0]
    found = communication_subspace(X, Y, max_rank=5, max_lag=0, folds=folds, gap=gap, ridges=ridges)
    edges = [fold * n // folds for fold in range(folds + 1)]
    choices = []
    for fold in range(folds):
        errors = np.zeros(len(ridges))
        for other in (block for block in range(folds) if abs(block - fold) > 1):
            train = np.ones(n, bool)
            for block in (fold, other):
                train[max(edges[block] - gap, 0) : edges[block + 1] + gap] = False
            x, y = (Z - Z[:, train].mean(axis=1, keepdims=True) for Z in (X, Y))
            A, B, tested = x[:, train], y[:, train], slice(edges[other], edges[other + 1])
            for i, ridge in enumerate(ridges):
                penalty = ridge * np.mean((A**2).sum(axis=1)) * np.eye(len(X))
                weights = np.linalg.solve(A @ A.T + penalty, A @ B.T)
                errors[i] += ((y[:, tested] - weights.T @ x[:, tested]) ** 2).sum()
        choices.append(ridges[int(np.argmin(errors))])
    assert found.ridge[0].tolist() == choices
    assert len(set(choices)) > 1 or 0 < ridges.index(choices[0]) < len(ridges) - 1


def test_the_tested_block_has_no_part_in_the_choice_of_its_ridge() -> None:
    """Traces changed in one block alone leave the ridge that was chosen to predict that block."""
    X, Y = planted(3, n_rois=12, n_frames=600)
    before = communication_subspace(X, Y, max_rank=5, max_lag=0, folds=6, gap=5)
    for fold in range(6):
        changed = Y.copy()
        changed[:, 100 * fold : 100 * (fold + 1)] = white(12, 100, fold)
        after = communication_subspace(X, changed, max_rank=5, max_lag=0, folds=6, gap=5)
        assert after.ridge[0, fold] == before.ridge[0, fold]


@quick
@given(seed=st.integers(0, 30), gain=st.floats(0.01, 100), offset=st.floats(-100, 100))
def test_offsets_order_and_a_common_gain_do_not_matter(seed: int, gain: float, offset: float) -> None:
    X, Y = planted(2, n_rois=7, n_frames=300, seed=seed)
    rng = np.random.default_rng(seed)
    options = {"max_rank": 6, "max_lag": 2, "folds": 5, "gap": 10}
    before = communication_subspace(X, Y, **options)
    after = communication_subspace(
        gain * X[rng.permutation(7)] + offset * rng.uniform(size=(7, 1)),
        Y[rng.permutation(7)] / gain - offset,
        **options,
    )
    np.testing.assert_allclose(after.r2, before.r2, atol=1e-8)
    assert (after.best_rank == before.best_rank).all()


@quick
@given(seed=st.integers(0, 30))
def test_rotations_of_either_side_do_not_matter(seed: int) -> None:
    X, Y = planted(2, n_rois=7, n_frames=300, seed=seed)
    rotate = [np.linalg.qr(white(7, 7, seed + extra))[0] for extra in (0, 1000)]
    options = {"max_rank": 6, "max_lag": 2, "folds": 5, "gap": 10}
    before = communication_subspace(X, Y, **options)
    after = communication_subspace(rotate[0] @ X, rotate[1] @ Y, **options)
    np.testing.assert_allclose(after.r2, before.r2, atol=1e-8)


@quick
@given(seed=st.integers(0, 30))
def test_without_a_ridge_to_speak_of_gains_of_the_source_do_not_matter(seed: int) -> None:
    X, Y = planted(2, n_rois=7, n_frames=300, seed=seed)
    gain = np.random.default_rng(seed).uniform(0.1, 10, (7, 1))
    options = {"max_rank": 6, "max_lag": 1, "folds": 5, "gap": 10, "ridges": [1e-12]}
    before, after = (communication_subspace(source, Y, **options) for source in (X, gain * X))
    np.testing.assert_allclose(after.r2, before.r2, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "error", "rank"),
    [
        ([0, 0.2, 0.39, 0.4], [0, 0.1, 0.1, 0.02], 2),  # the error that counts is the best rank's
        ([0, 0.2, 0.375, 0.4], [0, 0.1, 0.1, 0.02], 3),
        ([0, -0.1, -0.2], [0, 0.01, 0.01], 0),
        ([0, 0.5, 0.5], [0, 0, 0], 1),
        ([0, 0.1, 0.05], [0, 0.2, 0.0], 0),
    ],
)
def test_smallest_rank_within_one_standard_error(mean: list[float], error: list[float], rank: int) -> None:
    assert smallest_good_rank(np.array([mean]), np.array([error])).tolist() == [rank]


def test_one_roi_on_each_side() -> None:
    X, Y = planted(1, n_rois=1, n_frames=1000)
    result = communication_subspace(X, Y, max_rank=1, max_lag=0)
    assert result.r2[0].tolist() == pytest.approx([0, 0.5], abs=0.05)
    assert result.best_rank.tolist() == [1]


def test_more_rois_than_frames_and_other_precisions() -> None:
    """A singular covariance, single precision: nothing but a ridge keeps the regression finite."""
    X, Y = planted(3, n_rois=60, n_frames=45)
    result = communication_subspace(X.astype(np.float32), Y.astype(np.float32), max_rank=20, max_lag=3, gap=1)
    assert np.isfinite(result.r2).all()
    wide = communication_subspace(X, Y, max_rank=20, max_lag=3, gap=1)
    np.testing.assert_allclose(result.r2, wide.r2, atol=1e-4)


def test_rois_that_are_silent_for_a_while() -> None:
    X, Y = planted(2, n_rois=6, n_frames=600)
    X[0, 100:] = Y[0, :500] = 0
    result = communication_subspace(X, Y, max_rank=6, max_lag=2, folds=4)
    assert np.isfinite(result.r2).all()
    only = np.zeros((1, 600))
    only[0, 170:280] = white(1, 110, 0)  # silent in training wherever the second block is tested
    silent = communication_subspace(only, Y[1:], max_rank=1, max_lag=0, folds=4, gap=50)
    assert silent.r2[0, 1] <= 0


def test_no_more_frames_than_needed() -> None:
    needed = shortest(4, 5, 3)
    X, Y = planted(1, n_rois=3, n_frames=needed)
    assert communication_subspace(X, Y, max_rank=2, max_lag=4, folds=5, gap=3).r2.shape == (5, 3)
    with pytest.raises(ValueError, match=rf"too short: {needed - 1} frame\(s\), needs {needed}"):
        communication_subspace(X[:, 1:], Y[:, 1:], max_rank=2, max_lag=4, folds=5, gap=3)


GOOD = white(5, 300, 0)


@pytest.mark.parametrize(
    ("X", "Y", "options", "words"),
    [
        (GOOD, GOOD[:, 1:], {}, "equally long, not 300 and 299"),
        (GOOD[:, :2], GOOD[:, :2], {}, "too short: 2 frame"),
        (np.full((5, 300), np.nan), GOOD, {}, "X must be finite"),
        (GOOD, np.full((5, 300), np.inf), {}, "Y must be finite"),
        (GOOD, np.ones((5, 300)), {}, "Y must not be constant"),
        (GOOD[:0], GOOD, {}, "X must hold at least one ROI"),
        (GOOD[0], GOOD, {}, "X must be a 2-D array"),
        (GOOD, GOOD, {"max_rank": 6}, "max_rank must be 0 … min\\(p, q\\) = 5, not 6"),
        (GOOD, GOOD, {"max_rank": -1}, "max_rank must be"),
        (GOOD, GOOD, {"max_lag": -1}, "max_lag must be 0 or more"),
        (GOOD, GOOD, {"gap": -1}, "gap must be 0 or more"),
        (GOOD, GOOD, {"gap": 30}, "too short: 300 frame\\(s\\), needs 303"),
        (GOOD, GOOD, {"folds": 3}, "folds must be 4 … 50, not 3"),
        (GOOD, GOOD, {"folds": 51}, "folds must be 4 … 50, not 51"),
        (GOOD, GOOD, {"ridges": []}, "ridges must be positive"),
        (GOOD, GOOD, {"ridges": [0.0, 1.0]}, "ridges must be positive"),
        (GOOD, GOOD, {"ridges": [np.nan]}, "ridges must be positive"),
    ],
)
def test_bad_input_is_refused(X: np.ndarray, Y: np.ndarray, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        communication_subspace(X, Y, **{"max_rank": 2, "max_lag": 3, "folds": 5, "gap": 5, **options})


def test_a_target_that_rests_at_its_mean_has_no_r2() -> None:
    Y = np.zeros((1, 300))
    Y[0, 100::2], Y[0, 101::2] = 1, -1  # the first of four blocks stays at the mean of the others
    with pytest.raises(ValueError, match="the target does not vary in block 1 of 4"):
        communication_subspace(GOOD, Y, max_rank=1, max_lag=0, folds=4, gap=25)


def test_equal_bit_by_bit_on_one_thread() -> None:
    script = """
import hashlib, numpy as np
from workflow.analysis.communication_subspace import communication_subspace
X, Y = np.random.default_rng(5).standard_normal((2, 45, 700))
for _ in range(2):
    result = communication_subspace(X, Y, max_lag=3, gap=10)
    print(hashlib.sha256(result.r2.tobytes() + result.ridge.tobytes()).hexdigest())
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    digests = [
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(set("".join(digests).split())) == 1


def test_best_lag_is_that_of_the_best_prediction() -> None:
    r2 = np.array([[0, 0.1, 0.3], [0, 0.25, 0.2]])
    result = CommunicationSubspace(r2, np.zeros_like(r2), np.array([1, 1]), np.ones((2, 3)))
    assert result.best_lag == 1
