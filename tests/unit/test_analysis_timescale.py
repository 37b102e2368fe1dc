"""Timescales against processes whose timescale is known, and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from workflow.analysis import timescale as module
from workflow.analysis.binning import bin_frames, bin_width
from workflow.analysis.normalization import Reason, zscore
from workflow.analysis.timescale import E_1, E_2, autocorrelation, crossings, fit_decay, timescales

quick = settings(max_examples=40, deadline=None)


def autoregressive(tau: float, n_signals: int, n_frames: int, seed: int = 0) -> np.ndarray:
    """Stationary signals of variance 1 whose autocorrelation is exp(−lag/τ)."""
    phi = np.exp(-1 / tau)
    noise = np.random.default_rng(seed).standard_normal((n_signals, n_frames)) * np.sqrt(1 - phi**2)
    noise[:, 0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise, axis=1)


def by_definition(x: np.ndarray, n_lags: int) -> np.ndarray:
    """Whole autocorrelation, cut."""
    centred = x - x.mean()
    whole = np.correlate(centred, centred, "full")[len(x) - 1 :]
    return whole[:n_lags] / whole[0]


@pytest.mark.parametrize(
    ("n_signals", "n_frames", "n_lags"),
    [(3, 1000, 50), (1, 51, 50), (2, 100, 50), (2, 101, 50), (4, 7, 2), (1, 3, 2)],
)
def test_autocorrelation_is_the_biased_one(n_signals: int, n_frames: int, n_lags: int) -> None:
    X = 3 * np.random.default_rng(0).standard_normal((n_signals, n_frames)).cumsum(axis=1) + 7
    found = timescales(X, n_lags).autocorrelation
    np.testing.assert_allclose(found, [by_definition(x, n_lags) for x in X], atol=1e-13)


def test_all_lags_up_to_the_length_of_the_signal() -> None:
    Z = zscore(np.random.default_rng(1).standard_normal((2, 9))).Z
    np.testing.assert_allclose(autocorrelation(Z, 9), [by_definition(z, 9) for z in Z], atol=1e-13)


@pytest.mark.parametrize("tau", [1, 2, 5, 10, 20])
def test_crossing_recovers_the_timescale_of_an_autoregressive_process(tau: float) -> None:
    found = timescales(autoregressive(tau, 200, 20_000))
    assert np.mean(found.crossing[E_1]) == pytest.approx(tau, rel=0.02)
    e2 = found.crossing[E_2]
    assert np.nanmean(e2) == pytest.approx(2 * tau, rel=0.04)
    assert np.nanmedian(found.decay.tau) == pytest.approx(tau, rel=0.02)


def test_a_slow_process_is_censored_within_fifty_lags() -> None:
    found = timescales(autoregressive(100, 10, 100_000, seed=2))
    assert np.isnan(found.crossing[E_1]).all()
    assert np.isnan(found.crossing[E_2]).all()
    assert found.unusable == ()
    assert np.isfinite(found.autocorrelation).all()


def test_lags_of_binned_data_are_in_true_seconds() -> None:
    binned = bin_frames(autoregressive(75, 60, 200_000, seed=3), 1.5, 9.37)
    width = bin_width(1.5, 9.37)
    assert width == pytest.approx(1.6009, abs=5e-4)
    # Averaging smooths, which lengthens the crossing; the decay from lag 1 on stays what it was.
    assert np.median(timescales(binned).decay.tau) * width == pytest.approx(75 / 9.37, rel=0.04)


def test_white_noise_shortens_the_crossing_but_not_the_fit() -> None:
    X = autoregressive(10, 200, 20_000)
    X += np.random.default_rng(9).standard_normal(X.shape)
    found = timescales(X)
    # Signal and noise have variance 1, so from lag 1 on the autocorrelation is exp(−lag/10) / 2. It is 1/e
    # where exp(−lag/10) = 2/e, at 10 (1 − ln 2) = 3.07. (3.6 would be the crossing at an SNR of 1.1.)
    assert np.mean(found.crossing[E_1]) == pytest.approx(10 * (1 - np.log(2)), abs=0.2)
    assert np.mean(found.decay.tau) == pytest.approx(10.0, rel=0.03)
    assert np.mean(found.decay.amplitude) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(
    ("tau", "A", "B"), [(0.8, 0.9, 0.0), (3.3, 0.5, 0.1), (20.0, 0.4, -0.2), (70.0, 1, 1)]
)
def test_the_fit_is_exact_where_the_model_is(tau: float, A: float, B: float) -> None:
    lags = np.arange(50)
    curve = A * (np.exp(-lags / tau) + B)
    curve[0] = 1
    found = fit_decay(curve[None])
    assert found.tau[0] == pytest.approx(tau, rel=1e-5)
    assert found.amplitude[0] == pytest.approx(A, rel=1e-4)
    assert found.offset[0] == pytest.approx(B, abs=1e-4)
    assert found.explained[0] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    "curve",
    [
        1 - np.exp(-np.arange(50) / 5),  # rises
        1 - np.arange(50) / 100,  # a straight line
        np.exp(-np.arange(50) / 500),  # slower than the lags can tell
        np.r_[1, np.zeros(49)],  # over at once
        np.ones(50),
        np.full(50, np.nan),
    ],
)
def test_where_there_is_no_such_decay_no_fit_is_claimed(curve: np.ndarray) -> None:
    good = np.exp(-np.arange(50) / 4)
    found = fit_decay(np.stack([good, curve, good]))
    for values in (found.tau, found.amplitude, found.offset, found.explained):
        assert np.isfinite(values[[0, 2]]).all()
        assert np.isnan(values[1])


@pytest.mark.parametrize(
    ("curve", "lag"),
    [
        ([1, 0.5, 0.2], 1.5),
        ([1, 0.35, 0.34], 1.0),
        ([1, 0.34, 0.9], 65 / 66),
        ([1, 0.5, 0.35, 0.1], 2.0),  # reached is not below: the line crosses it there nevertheless
        ([1, -0.3, 0.9], 0.5),
        ([1, 0.9, 0.8], np.nan),
        ([1, 0.36, 0.35], np.nan),
        ([np.nan, np.nan, np.nan], np.nan),
    ],
)
def test_crossings_by_hand(curve: list[float], lag: float) -> None:
    np.testing.assert_allclose(crossings(np.array([curve]), 0.35), [lag], atol=1e-12)


def test_unusable_signals_are_named_and_the_others_measured() -> None:
    X = autoregressive(5, 5, 2000)
    expected = timescales(X)
    X[1], X[2, 7], X[4, 0] = 4.2, np.nan, np.inf
    found = timescales(X)
    assert found.unusable == ((1, Reason.CONSTANT), (2, Reason.NAN), (4, Reason.INFINITE))
    for row in (1, 2, 4):
        assert np.isnan(found.autocorrelation[row]).all()
        assert np.isnan([found.crossing[E_1][row], found.crossing[E_2][row], found.decay.tau[row]]).all()
    for row in (0, 3):
        np.testing.assert_array_equal(found.autocorrelation[row], expected.autocorrelation[row])
        assert found.decay.tau[row] == pytest.approx(expected.decay.tau[row], rel=1e-6)


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    X = autoregressive(5, 11, 300)
    X[6] = 0
    expected = timescales(X, 10)
    monkeypatch.setattr(module, "BLOCK_VALUES", 900)
    found = timescales(X, 10)
    np.testing.assert_array_equal(found.autocorrelation, expected.autocorrelation)
    assert found.unusable == expected.unusable == ((6, Reason.CONSTANT),)


def test_no_signal_at_all_and_single_precision() -> None:
    assert timescales(np.empty((0, 60))).autocorrelation.shape == (0, 50)
    single = autoregressive(5, 2, 500).astype(np.float32)
    found = timescales(single)
    assert found.autocorrelation.dtype == np.float64
    np.testing.assert_array_equal(found.autocorrelation, timescales(single.astype(float)).autocorrelation)


def test_few_lags_have_crossings_but_no_fit() -> None:
    found = timescales(autoregressive(1, 3, 500), 4)
    assert np.isfinite(found.crossing[E_1]).all()
    assert np.isnan(found.decay.tau).all()


@pytest.mark.parametrize(
    ("shape", "n_lags", "named"),
    [((2, 2), 50, "2 time bin"), ((2, 50), 50, "needs 51"), ((3, 9), 1, "n_lags"), ((3, 9), -4, "n_lags")],
)
def test_too_few_frames_or_lags_are_refused(shape: tuple[int, int], n_lags: int, named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        timescales(np.random.default_rng(0).standard_normal(shape), n_lags)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("X", [np.zeros(60), np.zeros((2, 60), dtype=complex)])
def test_what_is_no_matrix_of_numbers_is_refused(X: np.ndarray) -> None:
    with pytest.raises(ValueError, match="signals must"):
        timescales(X)


@quick
@given(
    seed=st.integers(0, 1000),
    gain=st.floats(1e-3, 1e3).map(lambda g: g * (-1) ** int(g * 7)),
    offset=st.floats(-1e3, 1e3),
)
def test_gain_sign_offset_and_direction_of_time_do_not_matter(seed: int, gain: float, offset: float) -> None:
    X = autoregressive(3, 4, 400, seed)
    plain = timescales(X, 20)
    for changed in (timescales(gain * X + gain * offset, 20), timescales(X[:, ::-1], 20)):
        np.testing.assert_allclose(changed.autocorrelation, plain.autocorrelation, atol=1e-9)
        np.testing.assert_allclose(changed.crossing[E_1], plain.crossing[E_1], atol=1e-6)


@quick
@given(seed=st.integers(0, 1000), n_frames=st.integers(6, 200))
def test_autocorrelation_never_exceeds_that_of_lag_zero(seed: int, n_frames: int) -> None:
    X = np.random.default_rng(seed).standard_normal((3, n_frames)).cumsum(axis=1)
    found = timescales(X, 5).autocorrelation
    np.testing.assert_allclose(found[:, 0], 1, atol=1e-12)
    assert (np.abs(found) <= 1 + 1e-12).all()
