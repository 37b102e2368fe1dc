"""Singular values of random subsets: against direct decompositions, and what any subset must obey."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard, svdvals

from workflow.analysis import shuffle as module
from workflow.analysis.normalization import zscore
from workflow.analysis.shuffle import shuffled_singular_values
from workflow.analysis.subsets import random_block, random_rows

ROOT = Path(__file__).parents[2]


def noise(n_rois: int, n_frames: int, seed: int = 0) -> np.ndarray:
    return zscore(np.random.default_rng(seed).standard_normal((n_rois, n_frames))).Z


def drawn(n_rois: int, subset: int, n_shuffles: int, seed: int) -> list[np.ndarray]:
    """The subsets that a seed stands for."""
    rng = np.random.default_rng(seed)
    return [random_rows(n_rois, subset, rng) for _ in range(n_shuffles)]


@pytest.mark.parametrize("shape", [(60, 300), (60, 21), (60, 20), (60, 19), (60, 8), (20, 50)])
def test_every_subset_agrees_with_its_direct_decomposition(shape: tuple[int, int]) -> None:
    Z = noise(*shape)
    spectra = shuffled_singular_values(Z, 20, 7, seed=3)
    assert spectra.shape == (7, min(20, shape[1]))
    for s, rows in zip(spectra, drawn(shape[0], 20, 7, 3), strict=True):
        direct = svdvals(Z[rows])
        direct[direct < 1e-7 * direct[0]] = 0
        np.testing.assert_allclose(s, direct, rtol=0, atol=1e-12 * direct[0])


def test_a_planted_spectrum_is_found_in_every_subset() -> None:
    """With two patterns of ±1 weights, a subset's overlap of the two is all that its spectrum depends on."""
    n_rois, n_frames, subset = 64, 200, 24
    U = hadamard(n_rois)[:, 1:3]
    white = np.random.default_rng(0).standard_normal((n_frames, 2))
    V, _ = np.linalg.qr(white - white.mean(axis=0))
    fractions = np.array([0.7, 0.3])
    Z = (U * np.sqrt(fractions * n_frames)) @ V.T  # rows need not have unit variance here
    spectra = shuffled_singular_values(Z, subset, 30, seed=1)
    overlaps = []
    for s, rows in zip(spectra, drawn(n_rois, subset, 30, 1), strict=True):
        overlap = (U[rows, 0] * U[rows, 1]).sum() / subset
        root = np.sqrt((fractions[0] - fractions[1]) ** 2 + 4 * fractions.prod() * overlap**2)
        expected = np.sqrt(subset * n_frames * (1 + np.array([root, -root])) / 2)
        assert np.abs(s[:2] - expected).max() / expected[0] <= 1e-10
        assert not s[2:].any()
        overlaps.append(overlap)
    assert len(set(overlaps)) > 3


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(3, 25), st.integers(3, 40)), seed=st.integers(0, 2**32 - 1), data=st.data()
)
def test_subsets_hold_their_variance_and_interlace(
    shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    Z = noise(*shape, seed=seed)
    n_rois, n_frames = Z.shape
    subset = data.draw(st.integers(1, n_rois))
    spectra = shuffled_singular_values(Z, subset, 3, seed)
    np.testing.assert_allclose((spectra**2).sum(axis=1), subset * n_frames, rtol=1e-10)
    assert (np.diff(spectra, axis=1) <= 0).all()
    whole = np.zeros(n_rois)
    direct = svdvals(Z)
    whole[: len(direct)] = direct
    padded = np.zeros((3, subset))
    padded[:, : spectra.shape[1]] = spectra
    slack = 1e-6 * whole[0]
    assert (padded <= whole[:subset] + slack).all()
    assert (padded >= whole[n_rois - subset :] - slack).all()


def test_white_noise_reaches_the_edge_of_its_spectrum() -> None:
    spectra = shuffled_singular_values(noise(400, 1500), 200, 5, seed=0)
    edge = np.sqrt(1500) + np.sqrt(200)
    assert ((spectra[:, 0] / edge > 0.96) & (spectra[:, 0] / edge < 1.02)).all()


def test_every_roi_can_be_drawn_and_none_is_favoured() -> None:
    """ROI 0 and the last one take part as often as the others: 5 standard deviations of a binomial."""
    counts = np.zeros(20)
    for rows in drawn(20, 5, 4000, seed=0):
        assert len(np.unique(rows)) == 5
        counts[rows] += 1
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


def test_a_subset_of_all_rois_is_the_whole() -> None:
    Z = noise(30, 80)
    spectra = shuffled_singular_values(Z, 30, 3, seed=0)
    np.testing.assert_array_equal(spectra[0], spectra[1])
    np.testing.assert_allclose(spectra[2], svdvals(Z), rtol=1e-12)


def test_more_shuffles_begin_with_the_same_ones_and_seeds_differ() -> None:
    Z = noise(40, 90)
    few, many = (shuffled_singular_values(Z, 10, n, seed=7) for n in (3, 8))
    np.testing.assert_array_equal(few, many[:3])
    assert np.abs(shuffled_singular_values(Z, 10, 3, seed=8) - few).max() > 1e-3
    assert len({tuple(s) for s in many}) == 8


@pytest.mark.parametrize("n_frames", [200, 8])
def test_one_blas_thread_gives_the_same_bits_every_time(n_frames: int) -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from workflow.analysis.normalization import zscore\n"
        "from workflow.analysis.shuffle import shuffled_singular_values\n"
        f"Z = zscore(np.random.default_rng(0).standard_normal((120, {n_frames}))).Z\n"
        "for _ in range(2):\n"
        "    print(hashlib.sha256(shuffled_singular_values(Z, 40, 5, seed=2).tobytes()).hexdigest())\n"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert len(set("".join(runs).split())) == 1


@pytest.mark.parametrize("n_frames", [60, 5])
def test_small_singular_values_take_the_direct_route(n_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five ROIs in a hundred thousandth of the others' directions: the Gram matrix would lose them."""
    rng = np.random.default_rng(0)
    strengths = np.geomspace(1, 2e-6, 5)
    V, _ = np.linalg.qr(rng.standard_normal((n_frames, 5)))
    Z = (rng.standard_normal((12, 5)) * strengths) @ V.T
    direct_calls = []

    def counted(matrix: np.ndarray, **options: bool) -> np.ndarray:
        direct_calls.append(matrix.shape)
        return svdvals(matrix, **options)

    monkeypatch.setattr(module, "svdvals", counted)
    spectra = shuffled_singular_values(Z, 6, 4, seed=0)
    assert direct_calls == [(6, n_frames)] * 4
    for s, rows in zip(spectra, drawn(12, 6, 4, 0), strict=True):
        expected = svdvals(Z[rows])
        np.testing.assert_allclose(s[:5], expected[:5], rtol=1e-8)
        assert not s[5:].any()


@pytest.mark.parametrize("n_frames", [100, 12])
def test_duplicated_traces_are_exact_zeros_and_need_no_direct_route(
    n_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "svdvals")
    Z = noise(8, n_frames)[np.arange(40) % 8]
    for s in shuffled_singular_values(Z, 30, 4, seed=0):
        assert np.count_nonzero(s) == 8


def test_layouts_and_precisions_agree_and_the_input_survives() -> None:
    Z = noise(30, 70).astype(np.float32)
    expected = shuffled_singular_values(Z.astype(np.float64), 9, 3, seed=0)
    for given_Z in (
        Z,
        np.asfortranarray(Z),
        np.repeat(Z, 2, axis=1)[:, ::2],
        np.asfortranarray(Z, dtype=float),
    ):
        given_Z.flags.writeable = False
        np.testing.assert_array_equal(shuffled_singular_values(given_Z, 9, 3, seed=0), expected)
        np.testing.assert_array_equal(given_Z, Z)


def test_one_roi_and_two_frames() -> None:
    np.testing.assert_allclose(shuffled_singular_values(noise(1, 50), 1, 2, seed=0), np.sqrt([[50], [50]]))
    spectra = shuffled_singular_values(noise(10, 2), 4, 2, seed=0)
    np.testing.assert_allclose(spectra, [[np.sqrt(8), 0]] * 2, atol=1e-12)


def test_nothing_but_zeros_has_no_strength() -> None:
    assert not shuffled_singular_values(np.zeros((5, 9)), 3, 2, seed=0).any()


@pytest.mark.parametrize(
    ("Z", "subset", "n_shuffles", "named"),
    [
        (np.ones(3), 1, 1, "2-D"),
        (np.ones((3, 3), complex), 1, 1, "real numbers"),
        (np.ones((3, 0)), 1, 1, "at least one frame"),
        (np.array([[np.nan, 1], [1, 2]]), 1, 1, "finite"),
        (np.array([[np.inf, 1], [1, 2]]), 1, 1, "finite"),
        (np.array([[1e200, 1], [1, 2]]), 1, 1, "finite"),
        (np.ones((3, 5)), 4, 1, "cannot draw 4 of 3 rows"),
        (np.ones((3, 5)), 0, 1, "cannot draw 0 of 3 rows"),
        (np.ones((0, 5)), 1, 1, "cannot draw 1 of 0 rows"),
        (np.ones((3, 5)), 1, 0, "n_shuffles must be 1 or more"),
    ],
)
def test_bad_input_is_refused_in_one_line(Z: np.ndarray, subset: int, n_shuffles: int, named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        shuffled_singular_values(Z, subset, n_shuffles, seed=0)
    assert "\n" not in str(refused.value)


def test_blocks_of_frames_start_anywhere_that_leaves_room() -> None:
    rng = np.random.default_rng(0)
    blocks = [random_block(10, 7, rng) for _ in range(200)]
    assert {block.start for block in blocks} == {0, 1, 2, 3}
    assert {block.stop - block.start for block in blocks} == {7}
    assert random_block(7, 7, rng) == slice(0, 7)
    with pytest.raises(ValueError, match="cannot draw 8 of 7 frames"):
        random_block(7, 8, rng)
