"""The linear dynamical system against dense Gaussians, planted dynamics, and its own promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import LinAlgError, block_diag, solve_discrete_lyapunov
from scipy.optimize import linear_sum_assignment

from workflow.analysis.kalman import Smoothed, System, kalman_filter, recursion, smooth
from workflow.analysis.lds import fit_lds, sorted_eigenvalues, time_constants

ROOT = Path(__file__).parents[2]


def rotations(moduli: np.ndarray, angles: np.ndarray) -> np.ndarray:
    blocks = [
        r * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        for r, a in zip(moduli, angles, strict=True)
    ]
    return block_diag(*blocks)


def random_system(n: int, p: int, seed: int, modulus: float = 0.9) -> System:
    rng = np.random.default_rng(seed)

    def covariance(size: int) -> np.ndarray:
        half = rng.standard_normal((size, size + 2))
        return half @ half.T / size

    A = rng.standard_normal((n, n))
    A *= modulus / np.abs(np.linalg.eigvals(A)).max()
    return System(
        A=A,
        C=rng.standard_normal((p, n)),
        Q=covariance(n),
        R=covariance(p),
        initial_mean=rng.standard_normal(n),
        initial_covariance=covariance(n),
    )


def draw(system: System, n_frames: int, seed: int) -> np.ndarray:
    """Observations, one time bin per row."""
    rng = np.random.default_rng(seed)
    p, n = system.C.shape
    kicks = rng.standard_normal((n_frames, n)) @ np.linalg.cholesky(system.Q).T
    noise = rng.standard_normal((n_frames, p)) @ np.linalg.cholesky(system.R).T
    x = system.initial_mean + np.linalg.cholesky(system.initial_covariance) @ rng.standard_normal(n)
    states = np.empty((n_frames, n))
    for t in range(n_frames):
        states[t] = x
        x = system.A @ x + kicks[t]
    return states @ system.C.T + noise


def planted(n: int, p: int, noise: float, seed: int, n_frames: int = 5000) -> tuple[System, np.ndarray]:
    """Rotations with moduli from 0.8 to 0.99, stationary, each of unit variance."""
    rng = np.random.default_rng(seed)
    moduli = np.linspace(0.8, 0.99, n // 2)
    system = System(
        A=rotations(moduli, rng.uniform(0.1, 2.8, n // 2)),
        C=rng.standard_normal((p, n)) / np.sqrt(n),
        Q=np.diag(np.repeat(1 - moduli**2, 2)),
        R=noise * np.eye(p),
        initial_mean=np.zeros(n),
        initial_covariance=np.eye(n),
    )
    Y = draw(system, n_frames, seed + 1000)
    return system, Y - Y.mean(axis=0)


class Dense:
    """All states and observations as one Gaussian."""

    def __init__(self, system: System, Y: np.ndarray) -> None:
        n, n_frames = len(system.A), len(Y)
        powers = [np.linalg.matrix_power(system.A, k) for k in range(n_frames)]
        mean = np.concatenate([power @ system.initial_mean for power in powers])
        # x = G w with w the first state's deviation and all kicks.
        G = np.zeros((n_frames * n, n_frames * n))
        for t in range(n_frames):
            for s in range(t + 1):
                G[t * n : (t + 1) * n, s * n : (s + 1) * n] = powers[t - s]
        prior = G @ block_diag(system.initial_covariance, *[system.Q] * (n_frames - 1)) @ G.T
        C = np.kron(np.eye(n_frames), system.C)
        covariance = C @ prior @ C.T + np.kron(np.eye(n_frames), system.R)
        e = Y.ravel() - C @ mean
        gain = np.linalg.solve(covariance, C @ prior).T
        self.log_likelihood = -0.5 * (
            e.size * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + e @ np.linalg.solve(covariance, e)
        )
        self.means = (mean + gain @ e).reshape(n_frames, n)
        posterior = (prior - gain @ C @ prior).reshape(n_frames, n, n_frames, n).transpose(0, 2, 1, 3)
        self.covariances = np.array([posterior[t, t] for t in range(n_frames)])
        self.lagged = sum((posterior[t + 1, t] for t in range(n_frames - 1)), np.zeros((n, n)))


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest distance of eigenvalues, each assigned to another."""
    apart = np.abs(np.linalg.eigvals(found)[:, None] - np.linalg.eigvals(expected))
    return float(apart[linear_sum_assignment(apart)].max())


def assert_smoothed_alike(found: Smoothed, expected: Smoothed, rtol: float) -> None:
    for name in ("means", "first", "last", "total", "lagged"):
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize(
    ("n", "p", "n_frames"), [(1, 1, 1), (1, 1, 2), (2, 3, 1), (2, 3, 2), (3, 2, 8), (4, 6, 15), (3, 3, 40)]
)
@pytest.mark.parametrize("modulus", [0.5, 0.97, 1.1])
def test_likelihood_and_states_are_those_of_the_dense_gaussian(
    n: int, p: int, n_frames: int, modulus: float
) -> None:
    system = random_system(n, p, seed=n_frames, modulus=modulus)
    Y = draw(system, n_frames, seed=5)
    dense = Dense(system, Y)
    filtered = kalman_filter(system, Y)
    assert filtered.log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-9)
    np.testing.assert_allclose(filtered.means[-1], dense.means[-1], atol=1e-9)
    found = smooth(system, filtered)
    scale = np.abs(dense.means).max() + 1
    np.testing.assert_allclose(found.means, dense.means, atol=1e-9 * scale)
    np.testing.assert_allclose(found.first, dense.covariances[0], atol=1e-9)
    np.testing.assert_allclose(found.last, dense.covariances[-1], atol=1e-9)
    np.testing.assert_allclose(found.total, dense.covariances.sum(axis=0), atol=1e-8)
    np.testing.assert_allclose(found.lagged, dense.lagged, atol=1e-8)


@pytest.mark.parametrize(("n", "p"), [(1, 1), (3, 5), (6, 8)])
@pytest.mark.parametrize("n_frames", [30, 400, 2000])
def test_constant_gains_give_what_exact_covariances_give(n: int, p: int, n_frames: int) -> None:
    system = random_system(n, p, seed=n, modulus=0.98)
    Y = draw(system, n_frames, seed=n_frames)
    steady, exact = kalman_filter(system, Y), kalman_filter(system, Y, tolerance=0)
    assert len(exact.covariances) == n_frames
    assert len(steady.covariances) < 200
    assert steady.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(steady.means, exact.means, atol=1e-11 * np.abs(exact.means).max())
    assert_smoothed_alike(smooth(system, steady), smooth(system, exact, tolerance=0), 1e-11)


def test_covariances_that_do_not_converge_are_exact_to_the_end() -> None:
    """A state that no observation shows and that grows."""
    system = System(
        A=np.diag([0.9, 1.05]),
        C=np.array([[1.0, 0.0]]),
        Q=np.eye(2),
        R=np.eye(1),
        initial_mean=np.zeros(2),
        initial_covariance=np.eye(2),
    )
    Y = draw(system, 60, seed=1)
    filtered = kalman_filter(system, Y)
    assert len(filtered.covariances) == 60
    dense = Dense(system, Y)
    assert filtered.log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-9)
    found = smooth(system, filtered)
    np.testing.assert_allclose(found.means, dense.means, atol=1e-8 * np.abs(dense.means).max())
    np.testing.assert_allclose(found.total, dense.covariances.sum(axis=0), rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("n_steps", [0, 1, 2, 63, 64, 65])
def test_recursion_solves_all_steps(n_steps: int) -> None:
    rng = np.random.default_rng(2)
    F = random_system(3, 3, seed=4, modulus=0.95).A
    inputs, start = rng.standard_normal((n_steps, 3)), rng.standard_normal(3)
    expected = [start]
    for u in inputs:
        expected.append(F @ expected[-1] + u)
    np.testing.assert_allclose(recursion(F, inputs, start), expected, atol=1e-11)
    np.testing.assert_array_equal(recursion(np.zeros((3, 3)), inputs, start)[1:], inputs)


@pytest.mark.parametrize("field", ["R", "initial_covariance", "Q"])
def test_a_covariance_that_is_none_is_named(field: str) -> None:
    system = random_system(2, 2, seed=1)
    changed = {name: getattr(system, name) for name in System.__slots__}
    changed[field] = -10 * np.eye(2)
    with pytest.raises(LinAlgError, match="not positive definite"):
        kalman_filter(System(**changed), draw(system, 5, seed=1))


@pytest.mark.parametrize(
    ("n", "p", "noise", "seed"),
    [(4, 10, 0.5, 0), (4, 10, 0.5, 1), (8, 12, 0.5, 0), (20, 25, 0.1, 1), (20, 25, 1.0, 0)],
)
def test_planted_rotations_are_recovered(n: int, p: int, noise: float, seed: int) -> None:
    system, Y = planted(n, p, noise, seed)
    fitted = fit_lds(Y.T, n, seed=seed)
    assert distance(fitted.system.A, system.A) <= 0.03
    assert fitted.log_likelihoods.shape == (31,)
    assert (np.diff(fitted.log_likelihoods) >= 0).all()
    assert fitted.log_likelihoods[-1] >= kalman_filter(system, Y).log_likelihood
    last = kalman_filter(fitted.system, Y).log_likelihood
    assert fitted.log_likelihoods[-1] == pytest.approx(last, rel=1e-12)


@pytest.mark.parametrize(("n", "p", "n_frames", "seed"), [(1, 1, 60, 0), (2, 3, 40, 1), (3, 3, 100, 2)])
def test_likelihood_never_decreases_however_long_it_takes(n: int, p: int, n_frames: int, seed: int) -> None:
    Y = draw(random_system(n, p, seed), n_frames, seed)
    steps = np.diff(fit_lds(Y.T, n, iterations=200).log_likelihoods)
    assert (steps >= -1e-9).all()
    assert steps[0] > 0


def test_maximum_is_stationary_in_every_parameter() -> None:
    """After convergence no small change of any parameter raises the likelihood."""
    Y = draw(random_system(1, 2, seed=3), 100, seed=3)
    Y -= Y.mean(axis=0)
    fitted = fit_lds(Y.T, 1, iterations=500)
    best = {name: getattr(fitted.system, name) for name in System.__slots__}
    top = fitted.log_likelihoods[-1]
    rng = np.random.default_rng(0)
    for name in ("A", "C", "Q", "R", "initial_mean"):
        for _ in range(3):
            change = 1e-3 * rng.standard_normal(best[name].shape) * np.abs(best[name]).max()
            change = (change + change.T) / 2 if name in ("Q", "R") else change
            for sign in (-1, 1):
                moved = System(**{**best, name: best[name] + sign * change})
                assert kalman_filter(moved, Y).log_likelihood <= top + 1e-4, name


def test_white_noise_has_no_dynamics_to_speak_of() -> None:
    """One time bin says nothing of the next, and the fit gains no more than its free numbers explain."""
    noise = np.random.default_rng(4).standard_normal((6, 3000))
    fitted = fit_lds(noise, 3)
    A, C = fitted.system.A, fitted.system.C
    assert (np.abs(sorted_eigenvalues(A)) < 0.9).all()
    of_next = C @ A @ solve_discrete_lyapunov(A, fitted.system.Q) @ C.T
    assert np.abs(of_next).max() < 0.05
    log_determinant = np.linalg.slogdet(np.cov(noise, bias=True))[1]
    as_white = -3000 / 2 * (6 * np.log(2 * np.pi) + log_determinant + 6)
    assert 0 < fitted.log_likelihoods[-1] - as_white < 45


def test_signals_without_noise_are_fitted() -> None:
    t = np.arange(2000)
    signals = np.stack([np.cos(0.3 * t), np.cos(0.3 * t + 1)])
    fitted = fit_lds(signals, 2)
    assert (np.diff(fitted.log_likelihoods) >= 0).all()
    expected = [np.exp(0.3j), np.exp(-0.3j)]
    np.testing.assert_allclose(sorted_eigenvalues(fitted.system.A), expected, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 500),
    gain=st.sampled_from([1e-6, 0.01, -3.0, 1e7]),
    offset=st.floats(-10, 10),
    order=st.permutations(range(3)),
)
def test_gain_offset_and_order_of_signals_do_not_matter(
    seed: int, gain: float, offset: float, order: list[int]
) -> None:
    Y = draw(random_system(2, 3, seed), 150, seed).T
    plain = fit_lds(Y, 2, iterations=3)
    moved = fit_lds(gain * (Y + offset), 2, iterations=3)
    np.testing.assert_allclose(
        sorted_eigenvalues(moved.system.A), sorted_eigenvalues(plain.system.A), atol=1e-6
    )
    shift = Y.size * np.log(abs(gain))
    np.testing.assert_allclose(moved.log_likelihoods + shift, plain.log_likelihoods, atol=1e-5)
    # The start has random changes of a thousandth, which do not move with the signals.
    reordered = fit_lds(Y[order], 2, iterations=3)
    np.testing.assert_allclose(
        sorted_eigenvalues(reordered.system.A), sorted_eigenvalues(plain.system.A), atol=2e-3
    )
    np.testing.assert_allclose(reordered.log_likelihoods, plain.log_likelihoods, atol=0.5)
    exact = kalman_filter(plain.system, (Y - Y.mean(axis=1, keepdims=True)).T).log_likelihood
    system = plain.system
    shuffled = System(
        system.A,
        system.C[order],
        system.Q,
        system.R[np.ix_(order, order)],
        system.initial_mean,
        system.initial_covariance,
    )
    centred = (Y - Y.mean(axis=1, keepdims=True))[order]
    assert kalman_filter(shuffled, centred.T).log_likelihood == pytest.approx(exact, rel=1e-10)


def test_single_precision_is_fitted_in_double() -> None:
    _, Y = planted(2, 4, 0.5, seed=2, n_frames=400)
    single = Y.T.astype(np.float32)
    fitted = fit_lds(single, 2, iterations=2)
    np.testing.assert_array_equal(fitted.system.A, fit_lds(single.astype(float), 2, iterations=2).system.A)
    assert fitted.system.A.dtype == np.float64


def test_seeds_differ_in_the_start_only_a_little() -> None:
    _, Y = planted(4, 6, 0.5, seed=3, n_frames=2000)
    fits = [fit_lds(Y.T, 4, seed=seed) for seed in (1, 2)]
    assert fits[0].log_likelihoods[0] != fits[1].log_likelihoods[0]
    assert distance(fits[0].system.A, fits[1].system.A) < 1e-3


def test_one_blas_thread_gives_the_same_bits_every_time() -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from workflow.analysis.lds import fit_lds\n"
        "Y = np.random.default_rng(1).standard_normal((25, 2500)).cumsum(axis=1) % 7\n"
        "for _ in range(2):\n"
        "    r = fit_lds(Y, 20, iterations=3, seed=4)\n"
        "    bits = r.system.A.tobytes() + r.system.R.tobytes() + r.log_likelihoods.tobytes()\n"
        "    print(hashlib.sha256(bits).hexdigest())\n"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    digests = [
        subprocess.run(
            command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert len({digest for pair in digests for digest in pair}) == 1


@pytest.mark.parametrize(
    ("signals", "options", "named"),
    [
        (np.zeros(5), {}, "2-D"),
        (np.zeros((1, 2)), {}, "too short: 2 time bin.*needs 5"),
        (np.random.default_rng(0).standard_normal((3, 12)), {}, "needs 13"),
        (np.ones((1, 90)), {}, "signal 0 cannot be used: constant"),
        (np.r_[np.arange(60.0), np.nan][None], {}, "signal 0 cannot be used: NaN"),
        (np.r_[np.arange(60.0), np.inf][None], {}, "signal 0 cannot be used: infinite"),
        (np.tile(np.random.default_rng(0).standard_normal(90), (2, 1)), {}, "linearly dependent"),
        (np.eye(3, 90), {"n_latent": 4}, "n_latent"),
        (np.eye(3, 90), {"n_latent": 0}, "n_latent"),
        (np.eye(3, 90), {"iterations": 0}, "iterations"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(
    signals: np.ndarray, options: dict[str, int], named: str
) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        fit_lds(signals, **{"n_latent": 1, **options})
    assert "\n" not in str(refused.value)


def test_eigenvalues_are_sorted_the_same_way_in_any_basis() -> None:
    A = block_diag(rotations(np.array([0.9, 0.5]), np.array([2.0, 0.3])), np.diag([0.9, -0.7, 0.7]))
    expected = [
        0.9, 0.9 * np.exp(2j), 0.9 * np.exp(-2j), 0.7, -0.7, 0.5 * np.exp(0.3j), 0.5 * np.exp(-0.3j),
    ]  # fmt: skip
    np.testing.assert_allclose(sorted_eigenvalues(A), expected, atol=1e-12)
    order = [3, 6, 0, 5, 1, 4, 2]
    np.testing.assert_allclose(sorted_eigenvalues(A[np.ix_(order, order)]), expected, atol=1e-12)
    rng = np.random.default_rng(0)
    found = sorted_eigenvalues(rng.standard_normal((9, 9)))
    assert (np.diff(np.abs(found)) <= 1e-12).all()
    pairs = np.flatnonzero(found.imag > 0)
    np.testing.assert_array_equal(found[pairs + 1], found[pairs].conj())


def test_time_constants() -> None:
    found = time_constants(np.array([np.exp(-0.1), 1j * np.exp(-2), 0.0, 1.0, -1.2]), 0.5)
    np.testing.assert_allclose(found, [5.0, 0.25, 0.0, np.inf, np.inf], rtol=1e-12)
    for bin_width in (0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="bin_width"):
            time_constants([0.5], bin_width)
