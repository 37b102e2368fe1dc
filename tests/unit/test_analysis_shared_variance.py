"""Shared variance against planted latents, and its own promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.analysis.shared_variance import (
    FIRST,
    GUARD,
    SECOND,
    SharedVariance,
    checkerboard,
    shared_variance,
    training_bins,
)

ROOT = Path(__file__).parents[2]
quick = settings(max_examples=60, deadline=None)


def planted(
    variances: list[float], n_rois: int = 120, n_bins: int = 12_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two halves with the same latents, each along orthonormal directions, in noise of variance 1."""
    rng = np.random.default_rng(seed)
    latents = np.sqrt(variances)[:, None] * rng.standard_normal((len(variances), n_bins))
    halves = []
    for _ in range(2):
        directions, _ = np.linalg.qr(rng.standard_normal((n_rois, len(variances))))
        halves.append(directions @ latents + rng.standard_normal((n_rois, n_bins)))
    return halves[0], halves[1]


def noise(n_rois: int, n_bins: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_rois, n_bins))


@pytest.mark.parametrize("variances", [[20.0, 8.0, 4.0, 2.0], [5.0], [10.0, 6.0, 4.0, 3.0, 2.2, 1.6]])
def test_planted_latents_are_as_reliable_as_they_are_strong(variances: list[float]) -> None:
    result = shared_variance(*planted(variances))
    expected = np.array(variances) / (np.array(variances) + 1)
    np.testing.assert_allclose(result.reliable[: len(variances)], expected, atol=0.03)
    assert np.count_nonzero(result.reliable > expected[-1] / 2) == len(variances)
    assert (result.n_train, result.n_test) == (6000, 6000)
    np.testing.assert_allclose(result.shared[: len(variances)] / 6000, variances, rtol=0.1)


def test_noise_shares_nothing_although_it_did_in_training() -> None:
    """The slip would be to measure in the training blocks, where every component seems to be shared."""
    F1, F2 = noise(80, 2400, 1), noise(80, 2400, 2)
    result = shared_variance(F1, F2)
    assert np.abs(result.reliable).max() < 0.15
    assert abs(result.reliable.mean()) < 0.01
    train = training_bins(2400, 60)
    U, s, Vt = np.linalg.svd(F1[:, train] @ F2[:, train].T)
    in_sample = s / ((U.T @ F1[:, train]) ** 2 + (Vt @ F2[:, train]) ** 2).sum(axis=1) * 2
    assert in_sample[0] > 0.3


def test_definition_term_by_term() -> None:
    """Against a transcription of the definition by explicit loops."""
    F1, F2 = noise(7, 50, 3) + 4, noise(5, 50, 4) - 1
    F2[:3] += F1[:3] / 2
    result = shared_variance(F1, F2, block=6)
    test = [bin_ for bin_ in range(50) if bin_ // 6 % 2 == 1]
    train = [bin_ for bin_ in range(50) if bin_ // 6 % 2 == 0]
    means = [[F[:, part].mean(axis=1) for part in (train, test)] for F in (F1, F2)]
    C = sum(np.outer(F1[:, t] - means[0][0], F2[:, t] - means[1][0]) for t in train)
    U, _, Vt = np.linalg.svd(C, full_matrices=False)
    assert len(result.shared) == 5
    for i in range(5):
        s1 = np.array([U[:, i] @ (F1[:, t] - means[0][1]) for t in test])
        s2 = np.array([Vt[i] @ (F2[:, t] - means[1][1]) for t in test])
        assert result.shared[i] == pytest.approx(sum(s1 * s2))
        assert result.total[i] == pytest.approx((sum(s1**2) + sum(s2**2)) / 2)
        assert result.reliable[i] == pytest.approx(result.shared[i] / result.total[i])
    energy = sum(((F[:, test].T - m[1]) ** 2).sum() for F, m in zip((F1, F2), means, strict=True))
    assert result.variance == pytest.approx(energy / 2)


def test_directions_come_from_training_blocks_alone() -> None:
    """What the test blocks hold must change nothing but what is measured in them."""
    F1, F2 = planted([6.0, 3.0], n_rois=20, n_bins=480)
    train = training_bins(480, 60)
    flipped1, flipped2 = F1.copy(), F2.copy()
    flipped1[:, ~train] *= -3
    flipped2[:, ~train] *= -3
    before, after = shared_variance(F1, F2), shared_variance(flipped1, flipped2)
    np.testing.assert_allclose(after.shared, 9 * before.shared, rtol=1e-9, atol=1e-9)


@quick
@given(
    seed=st.integers(0, 50),
    gain=st.floats(0.01, 100),
    offset=st.floats(-1000, 1000),
    zscored=st.booleans(),
)
def test_offsets_order_and_a_common_gain_do_not_matter(
    seed: int, gain: float, offset: float, zscored: bool
) -> None:
    F1, F2 = planted([4.0, 2.0], n_rois=9, n_bins=260, seed=seed)
    rng = np.random.default_rng(seed)
    before = shared_variance(F1, F2, zscored=zscored)
    after = shared_variance(
        gain * F1[rng.permutation(9)] + offset * rng.uniform(size=(9, 1)),
        gain * F2[rng.permutation(9)] - offset,
        zscored=zscored,
    )
    np.testing.assert_allclose(after.reliable, before.reliable, atol=1e-6)
    assert after.variance == pytest.approx(before.variance * (1 if zscored else gain**2), rel=1e-6)


@quick
@given(seed=st.integers(0, 50))
def test_rotations_within_a_half_do_not_matter(seed: int) -> None:
    F1, F2 = planted([4.0, 2.0], n_rois=9, n_bins=260, seed=seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((9, 9)))
    before, after = shared_variance(F1, F2), shared_variance(rotation @ F1, F2)
    np.testing.assert_allclose(after.reliable, before.reliable, atol=1e-6)


@quick
@given(seed=st.integers(0, 50))
def test_with_zscores_the_gain_of_each_roi_does_not_matter(seed: int) -> None:
    F1, F2 = planted([4.0, 2.0], n_rois=9, n_bins=260, seed=seed)
    gain = np.random.default_rng(seed).uniform(0.01, 100, (9, 1))
    before, after = (shared_variance(F, F2, zscored=True) for F in (F1, gain * F1))
    np.testing.assert_allclose(after.reliable, before.reliable, atol=1e-6)


@quick
@given(seed=st.integers(0, 200), n1=st.integers(1, 8), n2=st.integers(1, 8), n_bins=st.integers(8, 60))
def test_reliable_variance_never_exceeds_the_whole(seed: int, n1: int, n2: int, n_bins: int) -> None:
    result = shared_variance(noise(n1, n_bins, seed), noise(n2, n_bins, seed + 1), block=4)
    assert (np.abs(result.shared) <= result.total * (1 + 1e-12)).all()
    assert result.total.sum() <= result.variance * (1 + 1e-9)
    assert len(result.shared) <= min(n1, n2, result.n_train - 1)
    assert result.n_train + result.n_test == n_bins


def test_components_beyond_the_rank_are_not_made_up() -> None:
    F1, F2 = planted([4.0, 2.0], n_rois=9, n_bins=300)
    F1[5:] = F1[:4]
    assert len(shared_variance(F1, F2).shared) == 5
    assert len(shared_variance(F1, F2, max_components=3).shared) == 3
    assert len(shared_variance(noise(30, 16), noise(30, 16, 1), block=8).shared) == 7


def test_silent_halves() -> None:
    """A half that is constant in training spans no direction; one constant in the test shares nothing."""
    F1, F2 = planted([4.0], n_rois=3, n_bins=240)
    train = training_bins(240, 60)
    F1[:, train] = 5.0
    for zscored in (False, True):
        assert len(shared_variance(F1, F2, zscored=zscored).shared) == 0
    G1, G2 = planted([4.0], n_rois=3, n_bins=240)
    G1[:, ~train] = G2[:, ~train] = 5.0
    result = shared_variance(G1, G2)
    assert result.shared.tolist() == [0, 0, 0]
    assert np.isnan(result.reliable).all()


def test_one_roi_in_each_half_and_other_precisions() -> None:
    F1, F2 = planted([9.0], n_rois=1, n_bins=2400)
    assert shared_variance(F1, F2).reliable == pytest.approx([0.9], abs=0.03)
    single = shared_variance(F1.astype(np.float32), F2.astype(np.float32))
    assert single.reliable == pytest.approx(shared_variance(F1, F2).reliable, abs=1e-6)


@pytest.mark.parametrize(
    ("F1", "F2", "options", "words"),
    [
        (noise(0, 240), noise(3, 240), {}, "both halves must have ROIs, not 0 and 3"),
        (noise(3, 240), noise(3, 239), {}, "equally long, not 240 and 239"),
        (noise(3, 119), noise(3, 119), {}, "too short: 119 time bin\\(s\\), needs 120"),
        (noise(3, 2), noise(3, 2), {}, "too short: 2 time bin"),
        (np.full((3, 240), np.nan), noise(3, 240), {}, "must be finite"),
        (noise(3, 240), np.full((3, 240), np.inf), {}, "must be finite"),
        (noise(3, 240), noise(3, 240), {"block": 0}, "block must be at least 1"),
        (noise(3, 240), noise(3, 240), {"max_components": 0}, "max_components must be at least 1"),
        (noise(3, 240)[0], noise(3, 240), {}, "F1 must be a 2-D array"),
        (noise(3, 240), noise(3, 240) * 1j, {}, "F2 must hold real numbers"),
    ],
)
def test_bad_input_is_refused(F1: np.ndarray, F2: np.ndarray, options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shared_variance(F1, F2, **options)


@quick
@given(seed=st.integers(0, 2**32 - 1), tile=st.floats(5, 200), share=st.floats(0, 0.6))
def test_halves_are_apart_and_interleaved(seed: int, tile: float, share: float) -> None:
    x, y = np.random.default_rng(seed).uniform(-50, 1200, (2, 400))
    halves = checkerboard(x, y, tile=tile, guard=share * tile, seed=seed)
    assert set(halves.tolist()) <= {FIRST, SECOND, GUARD}
    first, second = halves == FIRST, halves == SECOND
    for half in (first, second):  # in every part of the field
        assert np.ptp(x[half]) > 600
        assert np.ptp(y[half]) > 600
    between = np.hypot(x[first][:, None] - x[second], y[first][:, None] - y[second])
    assert between.min() >= share * tile - 1e-9


def test_halves_cover_the_field_alike() -> None:
    x, y = np.random.default_rng(0).uniform(0, 1200, (2, 20_000))
    halves = checkerboard(x, y, tile=60, guard=12, seed=3)
    assert np.mean(halves != GUARD) == pytest.approx(0.8**2, abs=0.02)
    for half in (FIRST, SECOND):
        assert np.mean(halves == half) == pytest.approx(0.32, abs=0.02)
        assert x[halves == half].mean() == pytest.approx(600, abs=15)
        assert y[halves == half].mean() == pytest.approx(600, abs=15)


def test_the_seed_moves_the_board_and_order_does_not_matter() -> None:
    x, y = np.random.default_rng(0).uniform(0, 1200, (2, 500))
    halves = checkerboard(x, y, tile=100, guard=15, seed=1)
    assert checkerboard(x, y, tile=100, guard=15, seed=1).tobytes() == halves.tobytes()
    assert (checkerboard(x, y, tile=100, guard=15, seed=2) != halves).any()
    order = np.random.default_rng(1).permutation(500)
    assert (checkerboard(x[order], y[order], tile=100, guard=15, seed=1) == halves[order]).all()
    assert len(checkerboard([], [], tile=100, guard=15, seed=1)) == 0


@pytest.mark.parametrize(
    ("tile", "guard", "x", "words"),
    [
        (10.0, 10.0, [1.0], "guard < tile"),
        (10.0, -1.0, [1.0], "guard < tile"),
        (np.inf, 1.0, [1.0], "guard < tile"),
        (0.0, 0.0, [1.0], "guard < tile"),
        (np.nan, 1.0, [1.0], "guard < tile"),
        (10.0, 1.0, [np.nan], "centroids must be finite"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(
    tile: float, guard: float, x: list[float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        checkerboard(x, [1.0], tile=tile, guard=guard, seed=0)


def test_equal_bit_by_bit_on_one_thread() -> None:
    script = """
import hashlib, numpy as np
from workflow.analysis.shared_variance import checkerboard, shared_variance
rng = np.random.default_rng(5)
F, (x, y) = rng.standard_normal((150, 600)), rng.uniform(0, 500, (2, 150))
halves = checkerboard(x, y, tile=60, guard=10, seed=9)
result = shared_variance(F[halves == 1], F[halves == 2])
print(hashlib.sha256(halves.tobytes() + result.shared.tobytes() + result.total.tobytes()).hexdigest())
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        ).stdout
        for _ in range(2)
    }  # fmt: skip
    assert len(runs) == 1


def test_result_is_typed_as_promised() -> None:
    result = shared_variance(noise(4, 240), noise(4, 240, 1))
    assert isinstance(result, SharedVariance)
    assert result.shared.dtype == result.total.dtype == result.reliable.dtype == np.float64
