"""Population SVD against planted decompositions, a direct SVD, and its own promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import hadamard

from workflow.analysis import svd as module
from workflow.analysis.normalization import zscore
from workflow.analysis.svd import SVD, n_components_for, population_svd

ROOT = Path(__file__).parents[2]


def planted(
    n_rois: int, n_frames: int, fractions: list[float], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Z = U S Vᵀ that is its own z-score, and its singular values.

    Every entry of U is ±1/√N, so every ROI has the same variance: Σ s² / N = T. Every row of Vᵀ has mean 0.
    """
    rank = len(fractions)
    U = hadamard(n_rois)[:, :rank] / np.sqrt(n_rois)
    noise = np.random.default_rng(seed).standard_normal((n_frames, rank))
    V, _ = np.linalg.qr(noise - noise.mean(axis=0))
    s = np.sqrt(np.array(fractions) * n_rois * n_frames)
    return (U * s) @ V.T, s


def noise(n_rois: int, n_frames: int, seed: int = 0) -> np.ndarray:
    return zscore(np.random.default_rng(seed).standard_normal((n_rois, n_frames))).Z


def assert_decomposes(Z: np.ndarray, result: SVD, atol: float = 1e-9) -> None:
    """Check U, s and Vᵀ against Z itself: no reference decomposition is needed."""
    k, m = result.k90, len(result.Vt)
    assert result.U.shape == (Z.shape[0], k)
    assert result.Vt.shape[1] == Z.shape[1]
    np.testing.assert_allclose(result.U.T @ result.U, np.eye(k), atol=atol)
    np.testing.assert_allclose(result.Vt @ result.Vt.T, np.eye(m), atol=atol)
    both = min(k, m)
    np.testing.assert_allclose(
        Z @ result.Vt[:both].T, result.U[:, :both] * result.s[:both], atol=atol * result.s[0]
    )
    np.testing.assert_allclose(
        result.U.T @ Z @ result.Vt.T, np.diag(result.s)[:k, :m], atol=atol * result.s[0]
    )
    largest = np.abs(result.Vt).argmax(axis=1)
    assert (result.Vt[np.arange(m), largest] > 0).all()


@pytest.mark.parametrize("shape", [(16, 100), (64, 300), (128, 60)])
@pytest.mark.parametrize("fractions", [[0.5, 0.3, 0.15, 0.05], [0.91, 0.09], [1.0]])
def test_planted_decomposition_survives_gain_and_offset(
    shape: tuple[int, int], fractions: list[float]
) -> None:
    Z, s = planted(*shape, fractions)
    rng = np.random.default_rng(1)
    gain, offset = rng.uniform(0.1, 50, (shape[0], 1)), rng.uniform(-100, 100, (shape[0], 1))
    normalized = zscore(gain * Z + offset).Z
    np.testing.assert_allclose(normalized, Z, atol=1e-10)
    result = population_svd(normalized)
    assert result.s.shape == (min(shape),)
    assert np.abs(result.s[: len(s)] - s).max() / s[0] <= 1e-10
    assert result.k90 == {4: 3, 2: 1, 1: 1}[len(fractions)]
    assert np.count_nonzero(result.s) == len(result.Vt) == len(fractions)
    assert result.method == "gram"
    assert_decomposes(Z, result)


def assert_digits(found: np.ndarray, s: np.ndarray) -> None:
    """Each singular value above 1e-3 of the first is right relative to itself.

    To 1e-12, but for those so small that the Gram matrix has lost digits of them: squares are rounded to
    eps of the first one's.
    """
    large = s > 1e-3 * s[0]
    allowed = np.maximum(1e-12, np.finfo(float).eps * (s[0] / s[large]) ** 2)
    assert (np.abs(found - s)[large] <= allowed * s[large]).all()


def test_singular_values_of_a_recording_keep_twelve_digits() -> None:
    """Latents of falling strength in noise: the smallest value is a fiftieth of the largest."""
    rng = np.random.default_rng(8)
    latents = rng.standard_normal((30, 900)) / np.arange(1, 31)[:, None]
    Z = zscore(rng.standard_normal((300, 30)) @ latents + rng.standard_normal((300, 900))).Z
    s = np.linalg.svd(Z, compute_uv=False)
    assert 1e-3 < s[-1] / s[0] < 0.1
    np.testing.assert_allclose(population_svd(Z).s, s, rtol=1e-12)


@pytest.mark.parametrize("shape", [(40, 200), (200, 40), (50, 50), (50, 51), (51, 50), (2, 3), (3, 2)])
def test_agrees_with_the_direct_decomposition(shape: tuple[int, int]) -> None:
    Z = noise(*shape)
    result = population_svd(Z)
    _, s, Vt = np.linalg.svd(Z, full_matrices=False)
    np.testing.assert_allclose(result.s, np.where(s < 1e-7 * s[0], 0, s), atol=1e-12 * s[0])
    assert_digits(result.s, s)
    assert np.count_nonzero(result.s) == min(shape[0], shape[1] - 1)
    assert_decomposes(Z, result)
    overlap = np.einsum("ij,ij->i", result.Vt, Vt[: len(result.Vt)])
    np.testing.assert_allclose(np.abs(overlap), 1, atol=1e-6)


def test_variance_is_conserved_and_counts_only_usable_rois() -> None:
    F = np.random.default_rng(3).standard_normal((30, 200))
    F[4], F[9, 3] = 7.0, np.nan
    normalized = zscore(F)
    assert np.sum(population_svd(normalized.Z).s ** 2) == pytest.approx(28 * 200, rel=1e-12)


def test_singular_values_of_subsets_interlace() -> None:
    Z = noise(20, 90)
    rng = np.random.default_rng(4)
    whole = population_svd(Z).s
    for size in (19, 12, 3):
        part = population_svd(Z[rng.choice(20, size, replace=False)]).s
        lost = 20 - size
        assert (part <= whole[:size] * (1 + 1e-12)).all()
        assert (part >= whole[lost:] * (1 - 1e-12)).all()


@pytest.mark.parametrize("shape", [(300, 1200), (900, 400)])
def test_edge_of_pure_noise(shape: tuple[int, int]) -> None:
    s = population_svd(noise(*shape)).s
    assert 0.96 <= s[0] / (np.sqrt(shape[0]) + np.sqrt(shape[1])) <= 1.02


def test_one_roi() -> None:
    Z = noise(1, 25)
    result = population_svd(Z)
    assert result.s == pytest.approx([5.0], rel=1e-14)
    assert (result.k90, result.U.shape) == (1, (1, 1))
    assert_decomposes(Z, result)


def test_two_frames_hold_one_component() -> None:
    Z = zscore([[0.0, 1], [5, 2], [3, 4]]).Z
    result = population_svd(Z)
    np.testing.assert_allclose(result.s, [np.sqrt(6), 0], atol=1e-12)
    assert_decomposes(Z, result)


def test_structural_zero_of_centred_traces_needs_no_fallback() -> None:
    for shape in ((120, 60), (60, 60), (61, 60)):
        result = population_svd(noise(*shape))
        assert result.method == "gram"
        assert result.s[-1] == 0
        assert (result.s[:-1] > 0).all()


def test_a_square_matrix_that_is_not_centred_keeps_its_last_value() -> None:
    Z = np.random.default_rng(5).standard_normal((40, 30)) + 3
    np.testing.assert_allclose(population_svd(Z).s, np.linalg.svd(Z, compute_uv=False), rtol=1e-10)


@pytest.mark.parametrize("shape", [(60, 100), (100, 40)])
def test_duplicated_traces_are_exact_zeros_without_vectors(shape: tuple[int, int]) -> None:
    Z = noise(*shape)
    Z[20:] = Z[np.arange(20, shape[0]) % 20]
    result = population_svd(Z)
    assert result.method == "gram"
    assert np.count_nonzero(result.s) == len(result.Vt) == 20
    assert_decomposes(Z, result)


def with_singular_values(s: np.ndarray, n_rois: int, n_frames: int) -> np.ndarray:
    rng = np.random.default_rng(6)
    U, _ = np.linalg.qr(rng.standard_normal((n_rois, len(s))))
    V, _ = np.linalg.qr(rng.standard_normal((n_frames, len(s))))
    return (U * s) @ V.T


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(6, 50), (50, 6), (30, 80)])
def test_small_singular_values_fall_back_to_the_direct_route(shape: tuple[int, int], order: str) -> None:
    s = np.array([1, 0.9, 0.8, 1e-3, 3e-6, 2e-7])
    Z = np.asarray(with_singular_values(s, *shape), order=order)
    result = population_svd(Z)
    assert result.method == "gesdd"
    np.testing.assert_allclose(result.s[:6], s, rtol=1e-8)
    assert not result.s[6:].any()
    assert len(result.Vt) == 6
    assert_decomposes(Z, result)


def test_values_too_small_to_be_known_are_clamped_by_either_route() -> None:
    for smallest, method in ((3e-6, "gesdd"), (0.1, "gram")):
        result = population_svd(with_singular_values(np.array([1, 0.5, smallest, 2e-8]), 4, 30))
        assert result.method == method
        assert result.s[3] == 0
        assert len(result.Vt) == 3


def test_values_just_above_the_fallback_are_as_accurate_as_promised() -> None:
    s = np.array([1, 2e-3, 2e-5])
    result = population_svd(with_singular_values(s, 3, 40))
    assert result.method == "gram"
    np.testing.assert_allclose(result.s[1], s[1], rtol=1e-10)
    np.testing.assert_allclose(result.s[2], s[2], rtol=3e-6)


@pytest.mark.parametrize("shape", [(40, 120), (120, 40)])
@pytest.mark.parametrize("max_components", [0, 1, 5, 1000])
def test_time_courses_are_limited_and_signs_do_not_depend_on_the_limit(
    shape: tuple[int, int], max_components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SIGN_BLOCK", 7)  # several blocks, the last one short
    Z = noise(*shape)
    full, limited = population_svd(Z), population_svd(Z, max_components=max_components)
    assert full.k90 > 20
    assert len(limited.Vt) == min(max_components, np.count_nonzero(full.s))
    np.testing.assert_allclose(limited.Vt, full.Vt[:max_components], atol=1e-10)
    np.testing.assert_allclose(limited.U, full.U, atol=1e-10)
    np.testing.assert_array_equal(limited.s, full.s)


def test_sign_follows_the_largest_magnitude_and_the_first_of_equals() -> None:
    rows = np.array([[1.0, -3, 2], [1, 3, -2], [-3, 3, 0], [3, -3, 0], [-1, -1, -1], [0, 0, 0]])
    np.testing.assert_array_equal(module._signs(rows), [-1, 1, -1, 1, -1, 1])


def test_negated_traces_leave_time_courses_alone() -> None:
    Z = noise(20, 80)
    a, b = population_svd(Z), population_svd(-Z)
    np.testing.assert_allclose(b.Vt, a.Vt, atol=1e-9)
    np.testing.assert_allclose(b.U, -a.U, atol=1e-9)


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("shape", [(30, 70), (70, 30)])
def test_layouts_agree_and_the_input_survives(shape: tuple[int, int], fallback: bool) -> None:
    s = np.linspace(1, 0.1, 30)
    s[-1] = 1e-6 if fallback else s[-1]
    Z = with_singular_values(s, *shape)
    expected = population_svd(Z)
    layouts = {
        "C": Z.copy(),
        "F": np.asfortranarray(Z),
        "strided": np.repeat(np.repeat(Z, 2, axis=0), 3, axis=1)[::2, ::3],
        "reversed": np.ascontiguousarray(Z[::-1])[::-1],
        "longdouble": Z.astype(np.longdouble),
    }
    for given in layouts.values():
        given.flags.writeable = False
        for overwrite in (False, True):
            result = population_svd(given, overwrite=overwrite)
            np.testing.assert_array_equal(given, Z)
            assert result.method == expected.method == ("gesdd" if fallback else "gram")
            np.testing.assert_allclose(result.s, expected.s, atol=1e-13)
            np.testing.assert_allclose(result.Vt, expected.Vt, atol=1e-8)
            np.testing.assert_allclose(result.U, expected.U, atol=1e-8)


def test_a_matrix_given_away_gives_the_same_result() -> None:
    for s in (np.array([1, 0.5, 1e-6]), np.array([1, 0.5, 0.1])):
        Z = with_singular_values(s, 3, 40)
        expected = population_svd(Z)
        result = population_svd(Z.copy(), overwrite=True)
        np.testing.assert_array_equal(result.Vt, expected.Vt)
        np.testing.assert_array_equal(result.U, expected.U)


def test_single_precision_is_decomposed_in_double() -> None:
    single = noise(30, 90).astype(np.float32)
    result = population_svd(single)
    exact = population_svd(single.astype(np.float64))
    assert result.s.dtype == result.U.dtype == result.Vt.dtype == np.float64
    np.testing.assert_array_equal(result.s, exact.s)


@pytest.mark.parametrize("shape", [(150, 400), (400, 150)])
def test_one_blas_thread_gives_the_same_bits_every_time(shape: tuple[int, int]) -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from workflow.analysis.normalization import zscore\n"
        "from workflow.analysis.svd import population_svd\n"
        f"F = np.random.default_rng(8).standard_normal({shape})\n"
        "for _ in range(2):\n"
        "    r = population_svd(zscore(F).Z)\n"
        "    print(hashlib.sha256(r.s.tobytes() + r.U.tobytes() + r.Vt.tobytes()).hexdigest())\n"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    ]
    assert len(set("".join(digests).split())) == 1


@pytest.mark.parametrize(
    ("s", "fraction", "k"),
    [
        (np.sqrt([0.5, 0.3, 0.15, 0.05]), 0.9, 3),
        (np.sqrt([0.5, 0.3, 0.15, 0.05]), 0.8, 2),  # reached exactly
        (np.sqrt([0.5, 0.3, 0.15, 0.05]), 0.801, 3),
        (np.sqrt([0.5, 0.4, 0.1]), 0.9, 2),
        (np.sqrt([0.63, 0.27, 0.1]), 0.9, 2),  # reached but for rounding
        (np.sqrt([0.9, 0.1]), 0.9, 1),
        (np.ones(10), 0.9, 9),
        (np.ones(10), 1.0, 10),
        ([3.0, 0, 0], 1.0, 1),
        ([2.0], 0.9, 1),
        ([1e200, 1e200], 0.9, 2),
    ],
)
def test_components_needed_for_a_fraction(s: np.ndarray, fraction: float, k: int) -> None:
    assert n_components_for(s, fraction) == k


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, np.nan])
def test_bad_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must be"):
        n_components_for([1.0], fraction)


@pytest.mark.parametrize("s", [[], [0.0], [np.nan, 1], [np.inf, 1], [[1.0]]])
def test_bad_singular_values_are_refused(s: list[float]) -> None:
    with pytest.raises(ValueError, match="singular values"):
        n_components_for(s)


@pytest.mark.parametrize(
    ("Z", "named"),
    [
        (np.zeros(3), "2-D"),
        (np.zeros((2, 2), dtype=complex), "real numbers"),
        (np.zeros((0, 5)), "at least one ROI"),
        (np.zeros((5, 0)), "at least one ROI"),
        (np.zeros((3, 4)), "0 everywhere"),
        (np.full((3, 4), 1e-170), "so small"),
        (np.array([[1.0, np.nan], [0, 1]]), "finite"),
        (np.array([[1.0, np.inf, 0], [0, 1, 2]]), "finite"),
        (np.array([[1e200, 1.0], [0, 1]]), "too large"),
    ],
)
def test_bad_matrices_are_refused_in_one_line(Z: np.ndarray, named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        population_svd(Z)
    assert "\n" not in str(refused.value)


def test_a_negative_number_of_components_is_refused() -> None:
    with pytest.raises(ValueError, match="max_components"):
        population_svd(np.eye(3), max_components=-1)
