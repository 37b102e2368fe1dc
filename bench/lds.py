"""Expectation maximisation of a linear dynamical system against the textbook's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.flops import bound_note
from bench.measure import Step, compare
from bench.registry import Options, Row, benchmark
from workflow.analysis.kalman import System
from workflow.analysis.lds import fit_lds, sorted_eigenvalues
from workflow.analysis.lds_start import starting_system

NOISE = 0.5
SEED = 0


def signals(n_observed: int, n_latent: int, n_frames: int) -> np.ndarray:
    """Damped rotations of different speeds, seen through random loadings in noise."""
    rng = np.random.default_rng(0)
    moduli = np.linspace(0.8, 0.99, n_latent // 2)
    rotations = moduli * np.exp(1j * rng.uniform(0.1, 2.8, n_latent // 2))
    z = np.zeros(n_latent // 2, dtype=complex)
    latent = np.empty((n_frames, n_latent))
    for t in range(n_frames):
        kicks = rng.standard_normal((2, n_latent // 2)) * np.sqrt(1 - moduli**2)
        z = rotations * z + kicks[0] + 1j * kicks[1]
        latent[t] = np.concatenate([z.real, z.imag])
    loadings = rng.standard_normal((n_observed, n_latent)) / np.sqrt(n_latent)
    Y = latent @ loadings.T + np.sqrt(NOISE) * rng.standard_normal((n_frames, n_observed))
    return np.ascontiguousarray((Y - Y.mean(axis=0)).T)


def textbook(n_observed: int, n_latent: int, n_frames: int, iterations: int) -> Callable[[], np.ndarray]:
    """Prepare the baseline: Kalman filter, smoother and sums as the papers give them, step by step."""
    Y = np.ascontiguousarray(signals(n_observed, n_latent, n_frames).T)

    def step() -> np.ndarray:
        system = starting_system(Y, n_latent, SEED)
        log_likelihoods = []
        for _ in range(iterations):
            log_likelihood, x, P, predicted = _filter(system, Y)
            log_likelihoods.append(log_likelihood)
            system = _maximise(Y, *_smooth(system.A, x, P, predicted))
        log_likelihoods.append(_filter(system, Y)[0])
        return _output(system.A, np.array(log_likelihoods), Y.size)

    return step


def ours(n_observed: int, n_latent: int, n_frames: int, iterations: int) -> Callable[[], np.ndarray]:
    """Prepare our way."""
    Y = signals(n_observed, n_latent, n_frames)

    def step() -> np.ndarray:
        fitted = fit_lds(Y, n_latent, iterations=iterations, seed=SEED)
        return _output(fitted.system.A, fitted.log_likelihoods, Y.size)

    return step


def _output(A: np.ndarray, log_likelihoods: np.ndarray, n_values: int) -> np.ndarray:
    """Log-likelihoods per observed value, and eigenvalues: all of them of about the size of 1."""
    found = sorted_eigenvalues(A)
    return np.concatenate([log_likelihoods / n_values, found.real, found.imag])


def _filter(system: System, Y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    n, (n_frames, p) = len(system.A), Y.shape
    A, C = system.A, system.C
    means, covariances, predicted = np.empty((n_frames, n)), np.empty((n_frames, n, n)), []
    x, P = system.initial_mean, system.initial_covariance
    log_likelihood = 0.0
    for t in range(n_frames):
        predicted.append(P)
        S = C @ P @ C.T + system.R
        inverse = np.linalg.inv(S)
        e = Y[t] - C @ x
        log_likelihood -= 0.5 * (p * np.log(2 * np.pi) + np.linalg.slogdet(S)[1] + e @ inverse @ e)
        K = P @ C.T @ inverse
        means[t], covariances[t] = x + K @ e, P - K @ C @ P
        x, P = A @ means[t], A @ covariances[t] @ A.T + system.Q
    return float(log_likelihood), means, covariances, np.stack(predicted)


def _smooth(
    A: np.ndarray, x: np.ndarray, P: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smoothed means and covariances, and the covariance of each state with the one before."""
    x, P, lagged = x.copy(), P.copy(), np.zeros_like(P)
    for t in range(len(x) - 2, -1, -1):
        J = P[t] @ A.T @ np.linalg.inv(predicted[t + 1])
        lagged[t + 1] = P[t + 1] @ J.T
        x[t] += J @ (x[t + 1] - A @ x[t])
        P[t] += J @ (P[t + 1] - predicted[t + 1]) @ J.T
    return x, P, lagged


def _maximise(Y: np.ndarray, x: np.ndarray, P: np.ndarray, lagged: np.ndarray) -> System:
    n_frames = len(Y)
    moments = P + np.einsum("ti,tj->tij", x, x)
    before, after, across = moments[:-1].sum(0), moments[1:].sum(0), lagged[1:].sum(0) + x[1:].T @ x[:-1]
    C = Y.T @ x @ np.linalg.inv(moments.sum(0))
    R = (Y.T @ Y - C @ x.T @ Y) / n_frames
    A = across @ np.linalg.inv(before)
    Q = (after - A @ across.T) / (n_frames - 1)
    return System(A, C, (Q + Q.T) / 2, (R + R.T) / 2, x[0], P[0])


def flops(n_observed: int, n_latent: int, n_frames: int, iterations: int) -> float:
    """Operations that involve every time bin, with constant gains: whitening, gains, recursions, moments."""
    p, n = n_observed, n_latent
    per_frame = 3 * p**2 + 8 * p * n + 14 * n**2
    return float(iterations * n_frames * per_frame)


@benchmark("lds")
def lds(options: Options) -> list[Row]:
    """Fit 20 latent to 25 observed variables."""
    sizes = (25, 20, 5000, 30)
    result = compare(
        Step("bench.lds:ours", sizes),
        Step("bench.lds:textbook", sizes),
        repeats=options.repeats or 3,
        threads=options.threads,
    )
    return [
        Row(
            step="LDS EM",
            size="25/20, T 5000, 30 iterations",
            ours=result.ours,
            baseline=result.baseline,
            ratio=result.ratio,
            required_ratio=6.0,
            memory_ratio=result.memory_ratio,
            error=result.error,
            limit_error=1e-8,
            note=bound_note(flops(*sizes), result, options),
        )
    ]
