"""Binning and normalisation of traces."""

from __future__ import annotations

import numpy as np
import pytest

from workflow.analysis.binning import bin_frames, bin_width, frames_per_bin
from workflow.analysis.normalization import BLOCK_VALUES, Reason, unusable, zscore


@pytest.mark.parametrize(
    ("time_bin", "frame_rate", "frames"),
    [
        (0, 30, 1),
        (0.2, 30, 6),
        (0.28, 25, 7),  # 7.000000000000001 in floating point
        (1.1, 50, 55),  # 55.00000000000001
        (0.2, 9.37, 2),
        (1.5, 9.37, 15),
        (1, 9.37, 10),
        (0.01, 9.37, 1),
        (1, 10.001, 11),
        (1e-12, 1.0, 1),
    ],
)
def test_frames_per_bin_is_the_ceiling_without_rounding_slop(
    time_bin: float, frame_rate: float, frames: int
) -> None:
    assert frames_per_bin(time_bin, frame_rate) == frames


def test_bins_are_means_of_consecutive_frames_and_the_remainder_is_dropped() -> None:
    F = np.array([[1.0, 2, 3, 4, 5, 6, 100], [0, 0, 6, 3, 3, 3, -1]])
    binned = bin_frames(F, time_bin=0.3, frame_rate=10)
    np.testing.assert_array_equal(binned, [[2, 5], [2, 3]])
    assert bin_width(0.3, 10) == pytest.approx(0.3)


def test_true_bin_width_is_reported_not_the_wanted_one() -> None:
    width = bin_width(time_bin=1.5, frame_rate=9.37)
    assert width == pytest.approx(15 / 9.37, abs=1e-15)
    assert round(width, 4) == 1.6009


def test_no_binning_gives_the_frames_and_their_own_width() -> None:
    F = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(bin_frames(F, time_bin=0, frame_rate=4), F)
    assert bin_width(time_bin=0, frame_rate=4) == 0.25


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint64, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("time_bin", [0, 0.25])
def test_any_precision_and_layout_gives_the_same_float64(dtype: type, order: str, time_bin: float) -> None:
    F = np.array([[0, 1, 1, 0, 7, 2, 3, 1, 1], [5, 4, 3, 2, 1, 0, 1, 0, 1]]).astype(dtype, order=order)
    original = F.copy()
    binned = bin_frames(F, time_bin, frame_rate=16)
    c = 4 if time_bin else 1
    expected = np.array([[row[i : i + c].mean() for i in range(0, 9 - 9 % c, c)] for row in F.astype(float)])
    assert binned.dtype == np.float64
    np.testing.assert_array_equal(binned, expected)
    np.testing.assert_array_equal(F, original)


def test_float32_traces_are_averaged_in_double_precision() -> None:
    F = np.full((1, 1000), 16777217 / 3, dtype=np.float32)
    binned = bin_frames(F, time_bin=1000, frame_rate=1)
    assert binned[0, 0] == pytest.approx(float(F[0, 0]), rel=1e-14)


def test_a_recording_shorter_than_a_bin_has_no_bins() -> None:
    assert bin_frames(np.ones((3, 4)), time_bin=1, frame_rate=5).shape == (3, 0)
    assert bin_width(time_bin=1, frame_rate=5) == 1
    assert bin_frames(np.empty((0, 0)), 1, 5).shape == (0, 0)


def test_values_that_are_not_finite_spoil_only_their_own_bins() -> None:
    binned = bin_frames([[np.nan, 1, 2, 4], [np.inf, -np.inf, 1, 1], [np.inf, 1, 0, 2]], 1, 2)
    np.testing.assert_array_equal(binned, [[np.nan, 3], [np.nan, 1], [np.inf, 1]])


@pytest.mark.parametrize(
    ("F", "time_bin", "frame_rate", "named"),
    [
        (np.zeros((1, 4)), -0.1, 10, "time_bin"),
        (np.zeros((1, 4)), np.nan, 10, "time_bin"),
        (np.zeros((1, 4)), np.inf, 10, "time_bin"),
        (np.zeros((1, 4)), 1, 0, "frame_rate"),
        (np.zeros((1, 4)), 0, -3, "frame_rate"),
        (np.zeros((1, 4)), 1, np.nan, "frame_rate"),
        (np.zeros((1, 4)), 1, np.inf, "frame_rate"),
        (np.zeros((1, 4)), 1e300, 1e300, "time_bin"),
        (np.zeros(4), 1, 10, "2-D"),
        (np.zeros((1, 4, 1)), 1, 10, "2-D"),
        (np.zeros((1, 4), dtype=complex), 1, 10, "real"),
        (np.array([["a", "b"]]), 1, 10, "real"),
        (np.array([[None, 1.0]], dtype=object), 1, 10, "real"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    F: np.ndarray, time_bin: float, frame_rate: float, named: str
) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        bin_frames(F, time_bin, frame_rate)
    assert "\n" not in str(refused.value)


def test_zscore_has_mean_zero_and_population_deviation_one() -> None:
    F = np.random.default_rng(1).gamma(2.0, size=(5, 300)) * 40 + 7
    result = zscore(F)
    np.testing.assert_allclose(result.Z, (F - F.mean(1, keepdims=True)) / F.std(1, keepdims=True), atol=1e-12)
    np.testing.assert_array_equal(result.kept, np.arange(5))
    assert result.dropped == ()


def test_traces_that_cannot_be_normalised_are_dropped_with_their_reason() -> None:
    F = np.random.default_rng(2).standard_normal((9, 50))
    F[1] = 3.3  # constant, with an inexact mean
    F[2, 7] = np.nan
    F[4, 0] = -np.inf
    F[5] = 1e9 + 1e-3 * F[5]  # nothing but rounding left of it
    F[6, :3] = [np.inf, -np.inf, np.nan]
    F[8] = 0
    result = zscore(F)
    assert result.dropped == (
        (1, Reason.CONSTANT),
        (2, Reason.NAN),
        (4, Reason.INFINITE),
        (5, Reason.CONSTANT),
        (6, Reason.NAN),
        (8, Reason.CONSTANT),
    )
    assert unusable(F) == dict(result.dropped)
    np.testing.assert_array_equal(result.kept, [0, 3, 7])
    np.testing.assert_array_equal(result.Z, zscore(F[[0, 3, 7]]).Z)


def test_the_limit_of_constant_is_a_millionth_of_the_largest_magnitude() -> None:
    wave = np.tile([1.0, -1.0], 50)
    F = np.stack([1 + 0.9e-6 * wave, 1 + 1.1e-6 * wave])
    assert zscore(F).dropped == ((0, Reason.CONSTANT),)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_extreme_scales_neither_overflow_nor_vanish(scale: float) -> None:
    F = np.random.default_rng(3).uniform(-1, 1, (3, 40))
    np.testing.assert_allclose(zscore(F * scale).Z, zscore(F).Z, atol=1e-12)


def test_values_not_above_the_threshold_become_zero_before_the_final_normalisation() -> None:
    F = np.random.default_rng(4).standard_normal((3, 200)) * 5 + 100
    z = (F - F.mean(1, keepdims=True)) / F.std(1, keepdims=True)
    z[z <= 1.5] = 0
    expected = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
    np.testing.assert_allclose(zscore(F, threshold=1.5).Z, expected, atol=1e-12)


def test_a_value_exactly_at_the_threshold_is_not_above_it() -> None:
    # z-scores are exactly −1 and 1
    assert zscore([[0.0, 2, 0, 2]], threshold=1.0).dropped == ((0, Reason.CONSTANT_AFTER_THRESHOLD),)
    assert zscore([[0.0, 2, 0, 2]], threshold=0.999).dropped == ()


def test_a_constant_trace_keeps_its_own_reason_under_a_threshold() -> None:
    F = np.stack([np.ones(4), np.array([0.0, 1, 0, 1])])
    assert zscore(F, threshold=5).dropped == ((0, Reason.CONSTANT), (1, Reason.CONSTANT_AFTER_THRESHOLD))


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (3, 0), (3, 1)])
def test_nothing_to_normalise_is_not_an_error(shape: tuple[int, int]) -> None:
    result = zscore(np.ones(shape))
    assert result.Z.shape == (0, shape[1])
    assert result.dropped == tuple((i, Reason.CONSTANT) for i in range(shape[0]))
    assert unusable(np.ones(shape)) == dict(result.dropped)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("layout", ["C", "F", "float32", "strided", "read-only"])
def test_layouts_agree_and_the_input_survives_unless_given_away(layout: str, overwrite: bool) -> None:
    n_frames = 1000
    n_rois = 3 * BLOCK_VALUES // n_frames  # several blocks, so that kept rows move across their borders
    F = np.random.default_rng(5).standard_normal((n_rois, n_frames)).astype(np.float32).astype(np.float64)
    F[::3] = 1.0
    expected = zscore(F)
    given = {
        "C": F.copy(),
        "F": np.asfortranarray(F),
        "float32": F.astype(np.float32),
        "strided": np.repeat(F, 2, axis=1)[:, ::2],
        "read-only": F.copy(),
    }[layout]
    given.flags.writeable = layout != "read-only"
    result = zscore(given, overwrite=overwrite)
    np.testing.assert_array_equal(result.Z, expected.Z)
    np.testing.assert_array_equal(result.kept, expected.kept)
    assert result.dropped == expected.dropped
    if not overwrite:
        assert unusable(given) == dict(expected.dropped)
    reused = overwrite and layout == "C"
    assert np.shares_memory(result.Z, given) is reused
    if not reused:
        np.testing.assert_array_equal(given, F)


@pytest.mark.parametrize("threshold", [-0.5, np.nan, np.inf])
def test_bad_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be"):
        zscore(np.eye(3), threshold)


def test_zscore_refuses_what_is_not_a_real_matrix() -> None:
    with pytest.raises(ValueError, match="2-D"):
        zscore(np.zeros(4))
    with pytest.raises(ValueError, match="real numbers"):
        zscore(np.zeros((2, 2), dtype=complex))
