"""Where the fit of a linear dynamical system begins.

Expectation maximisation finds the nearest maximum only, and slowly: from a random start thirty iterations
often do not get near. So it begins close by. The states are those combinations of the past that are most
correlated with the future. Regressions on them give the dynamics and the loadings. Their residuals e of the
observations and d of the dynamics are the innovations of a Kalman filter, d = K e, whose gain belongs to the
covariance P of the filter's error by A P Cᵀ = Cov(d, e); and P tells how much of the residuals is noise.

See Larimore, Proc. IEEE Conf. Decision and Control 29:596 (1990), and Van Overschee & De Moor, Subspace
Identification for Linear Systems (1996).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, eigh, lstsq, solve_triangular, svd

from workflow.analysis.arrays import Floats
from workflow.analysis.kalman import System

# Time bins of past and of future that are compared.
LAGS = 4
# Comparing one bin with the next takes several times as many bins as signals.
MIN_FRAMES_PER_SIGNAL = 4
# Variance added to standardised signals, so that signals without noise have one.
FLOOR = 1e-6
# Directions in which the dynamics forget more than this say nothing about the filter's error.
FORGOTTEN = 0.1
# At least this part of what a regression leaves is taken for noise.
LEAST_NOISE = 0.1
# Relative size of the random changes. They leave no symmetry of the start in place, and another seed shows
# how far a result depends on it.
JITTER = 1e-3


def starting_system(Y: Floats, n_latent: int, seed: int) -> System:
    """Guess a linear dynamical system.

    Parameters
    ----------
    Y : (T, p) float64 array
        Centred observations, one time bin per row, T > 4 p. None is constant.
    n_latent : int
        Dimensions of the latent state, at most p.
    seed : int
        Of random changes of the loadings by a thousandth.
    """
    n_frames, p = Y.shape
    sd = Y.std(axis=0)
    Y = Y / sd
    lags = max(h for h in range(1, LAGS + 1) if h == 1 or n_frames - 2 * h >= MIN_FRAMES_PER_SIGNAL * h * p)
    n_windows = n_frames - 2 * lags + 1
    windows = np.concatenate([Y[i : i + n_windows] for i in range(2 * lags)], axis=1)
    past, future = windows[:, : lags * p], windows[:, lags * p :]
    states = _predictive_states(past, future, n_latent)
    C, e = _regression(states, future[:, :p])
    A, d = _regression(states[:-1], states[1:])
    innovation, step = _moments(e), _moments(d)
    P = _filter_error(A, C, innovation, d.T @ e[:-1] / len(d))
    R = _at_least(innovation - C @ P @ C.T, LEAST_NOISE * innovation)
    Q = _at_least(P - A @ P @ A.T + step, LEAST_NOISE * (P + step))
    C *= 1 + JITTER * np.random.default_rng(seed).standard_normal(C.shape)
    return System(A, C * sd[:, None], Q, R * np.outer(sd, sd), np.zeros(n_latent), _moments(states) + P)


def _predictive_states(past: Floats, future: Floats, n_latent: int) -> Floats:
    """Combinations of the past most correlated with the future, each with its correlation as variance."""
    before = cholesky(_moments(past), lower=True)
    after = cholesky(_moments(future), lower=True)
    across = solve_triangular(before, past.T @ future / len(past), lower=True)
    across = solve_triangular(after, across.T, lower=True).T
    U, correlations, _ = svd(across)
    scales = np.sqrt(correlations[:n_latent]) + FLOOR
    weights = solve_triangular(before, U[:, :n_latent] * scales, lower=True, trans="T")
    return np.asarray(past @ weights)


def _regression(inputs: Floats, outputs: Floats) -> tuple[Floats, Floats]:
    """Coefficients of outputs on inputs, and what is left of the outputs."""
    coefficients = lstsq(inputs, outputs)[0]
    return coefficients.T.copy(), outputs - inputs @ coefficients


def _filter_error(A: Floats, C: Floats, innovation: Floats, crossed: Floats) -> Floats:
    """Solve A P Cᵀ = Cov(d, e) for a covariance P by least squares, in units of the innovations."""
    units = cholesky(innovation, lower=True)
    reduced = solve_triangular(units, crossed.T, lower=True).T
    seen = lstsq(A, reduced, cond=FORGOTTEN)[0]
    P = lstsq(solve_triangular(units, C, lower=True), seen.T)[0]
    values, vectors = eigh((P + P.T) / 2)
    return np.asarray(vectors * np.maximum(values, 0.0) @ vectors.T)


def _at_least(covariance: Floats, least: Floats) -> Floats:
    """Raise a covariance where it is less than another."""
    units = cholesky(least, lower=True)
    relative = solve_triangular(units, covariance, lower=True)
    relative = solve_triangular(units, relative.T, lower=True)
    values, vectors = eigh((relative + relative.T) / 2)
    shape = units @ vectors
    return np.asarray(shape * np.maximum(values, 1.0) @ shape.T)


def _moments(values: Floats) -> Floats:
    """Second moments, with a floor that keeps them positive definite."""
    return np.asarray(values.T @ values / len(values) + FLOOR * np.eye(values.shape[1]))
