"""Kalman filter and smoother of a linear dynamical system, x' = A x + w and y = C x + v.

The covariances do not depend on the data, and converge within some tens of steps where the system can be
observed. So they are computed until they no longer change, step by step and exactly; from then on the gains
are constants, and the means of all later steps are one linear recursion. A system whose covariances do not
converge is filtered with exact covariances to the end.

With S = CᵀR⁻¹C and P = L Lᵀ the covariance of the predicted state, that of the filtered state is
Wᵀ W with W = chol(I + Lᵀ S L)⁻¹ Lᵀ: symmetric and positive by construction, and of the size of the state.

See Rauch, Tung & Striebel, AIAA Journal 3:1445 (1965), and Anderson & Moore, Optimal Filtering (1979).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtrs

from workflow.analysis.arrays import Floats

# Covariances have converged when no entry changes by more than this, relative to the standard deviations.
CONVERGED = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """A linear dynamical system of n latent and p observed variables.

    Attributes
    ----------
    A : (n, n) float64 array
        Dynamics of the latent state, per time bin.
    C : (p, n) float64 array
        Loadings of the observed variables.
    Q : (n, n) float64 array
        Covariance of the dynamics' noise.
    R : (p, p) float64 array
        Covariance of the observations' noise.
    initial_mean : (n,) float64 array
        Mean of the state at the first time bin.
    initial_covariance : (n, n) float64 array
        Its covariance.
    """

    A: Floats
    C: Floats
    Q: Floats
    R: Floats
    initial_mean: Floats
    initial_covariance: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """States given the observations up to each time bin.

    Covariances are those of the first ``m`` time bins; later ones equal the last.

    Attributes
    ----------
    means : (T, n) array
    covariances, gains : (m, n, n) array
        Covariance of the filtered state, and the smoother's gain P A' (A P A' + Q)⁻¹ that belongs to it.
    log_likelihood : float
        Of all observations.
    """

    means: Floats
    covariances: Floats
    gains: Floats
    log_likelihood: float


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """States given all observations.

    Attributes
    ----------
    means : (T, n) array
    first, last, total, lagged : (n, n) array
        Covariance of the first state, of the last, the sum over all time bins, and the sum over t of the
        covariance between the state at t + 1 and that at t.
    """

    means: Floats
    first: Floats
    last: Floats
    total: Floats
    lagged: Floats


def kalman_filter(system: System, Y: Floats, *, tolerance: float = CONVERGED) -> Filtered:
    """Filter the states and compute the likelihood of the observations.

    Parameters
    ----------
    system : System
        All its covariances must be positive definite.
    Y : (T, p) float64 array
        Observations, one time bin per row.
    tolerance : float
        When covariances count as converged; 0 computes those of every step.

    Raises
    ------
    scipy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    n_steps, n_observed = Y.shape
    noise = _cholesky(system.R, "R")
    loadings = _solve_lower(noise, system.C)
    whitened = _solve_lower(noise, Y.T).T
    information = loadings.T @ loadings
    predicted, filtered, gains, log_dets = _covariances(system, information, n_steps, tolerance)
    means = _filtered_means(system, information, filtered, whitened @ loadings)
    # The quadratic form of an innovation is this sum of two squares: nothing cancels.
    misfits = whitened - means @ loadings.T
    squares = float(np.einsum("ij,ij->", misfits, misfits))
    updates = means.copy()
    updates[0] -= system.initial_mean
    updates[1:] -= means[:-1] @ system.A.T
    m = len(filtered)
    for t in range(m):
        squares += float(np.sum(_solve_lower(predicted[t], updates[t] if t < m - 1 else updates[t:].T) ** 2))
    log_det = float(np.sum(log_dets)) + (n_steps - m) * log_dets[-1]
    log_det += 2 * n_steps * float(np.sum(np.log(np.diag(noise))))
    log_likelihood = -0.5 * (n_steps * n_observed * np.log(2 * np.pi) + log_det + squares)
    return Filtered(means, filtered, gains, float(log_likelihood))


def smooth(system: System, filtered: Filtered, *, tolerance: float = CONVERGED) -> Smoothed:
    """Carry the observations of later time bins back to the filtered states (Rauch-Tung-Striebel)."""
    A, covariances, gains = system.A, filtered.covariances, filtered.gains
    m, n_steps = len(covariances), len(filtered.means)
    means = np.empty_like(filtered.means)
    steady = filtered.means[m - 1 :]
    kept = np.eye(len(A)) - gains[-1] @ A
    means[m - 1 :] = recursion(gains[-1], steady[:-1][::-1] @ kept.T, steady[-1])[::-1]
    for t in range(m - 2, -1, -1):
        x = filtered.means[t]
        means[t] = x + gains[t] @ (means[t + 1] - A @ x)

    last = V = covariances[-1]
    total, lagged = last.copy(), np.zeros_like(last)
    t, spread = n_steps - 1, _spread(covariances[-1], gains[-1], system)
    while t > m - 1:  # gain of every step from m - 1 on is the last one
        before = spread + gains[-1] @ V @ gains[-1].T
        lagged += V @ gains[-1].T
        total += before
        t -= 1
        if _same(before, V, tolerance):
            lagged += (t - (m - 1)) * (before @ gains[-1].T)
            total += (t - (m - 1)) * before
            t = m - 1
        V = before
    for t in range(m - 2, -1, -1):
        lagged += V @ gains[t].T
        V = _spread(covariances[t], gains[t], system) + gains[t] @ V @ gains[t].T
        total += V
    return Smoothed(means, V, last, total, lagged)


def recursion(F: Floats, inputs: Floats, start: Floats) -> Floats:
    """Solve z₀ = start, z_t = F z_{t-1} + u_t for all t at once.

    After pass k every z holds the inputs of the last 2ᵏ steps: log₂ T matrix products instead of T steps.

    Parameters
    ----------
    F : (n, n) array
        With spectral radius below 1.
    inputs : (T - 1, n) array
        u₁ … u_{T-1}, one per row.
    start : (n,) array

    Returns
    -------
    (T, n) array
    """
    z = np.concatenate([start[None], inputs])
    power, reach = F, 1
    while reach < len(z) and np.any(power):
        z[reach:] += z[:-reach] @ power.T
        power = power @ power
        power[np.abs(power) < np.finfo(np.float64).tiny] = 0.0
        reach *= 2
    return z


def _covariances(
    system: System, information: Floats, n_steps: int, tolerance: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Covariances of the first m steps.

    Returns the Cholesky factors of those of the predicted states, those of the filtered states, the
    smoother's gains, and the log determinants of the innovations' covariances without that of R.
    """
    A, Q, eye = system.A, system.Q, np.eye(len(system.A))
    predicted, filtered, gains, log_dets = [], [], [], []
    P, L = system.initial_covariance, _cholesky(system.initial_covariance, "the initial covariance")
    for _ in range(n_steps):
        M = _cholesky(eye + L.T @ information @ L, "an innovation's covariance")
        W = _solve_lower(M, L.T)
        V = W.T @ W
        AV = A @ V
        following = AV @ A.T + Q
        following = (following + following.T) / 2
        next_L = _cholesky(following, "a predicted covariance")
        predicted.append(L)
        filtered.append(V)
        gains.append(dpotrs(next_L, AV, lower=1)[0].T)
        log_dets.append(2 * np.log(np.diag(M)).sum())
        if _same(following, P, tolerance):
            break
        P, L = following, next_L
    return np.stack(predicted), np.stack(filtered), np.stack(gains), np.array(log_dets)


def _filtered_means(system: System, information: Floats, covariances: Floats, pull: Floats) -> Floats:
    """Means of the filtered states; ``pull`` is CᵀR⁻¹y, one row per time bin."""
    A, m = system.A, len(covariances)
    means = np.empty_like(pull)
    x = system.initial_mean
    for t in range(m):
        x = x + covariances[t] @ (pull[t] - information @ x)
        means[t] = x
        x = A @ x
    steady = covariances[-1]
    F = A - steady @ (information @ A)
    means[m - 1 :] = recursion(F, pull[m:] @ steady, means[m - 1])
    return means


def _spread(V: Floats, J: Floats, system: System) -> Floats:
    """Covariance of a state given the next one exactly: a sum of squares, so that nothing cancels."""
    kept = np.eye(len(V)) - J @ system.A
    spread: Floats = kept @ V @ kept.T + J @ system.Q @ J.T
    return spread


def _same(a: Floats, b: Floats, tolerance: float) -> bool:
    scale = np.sqrt(np.diag(a))
    return bool(np.all(np.abs(a - b) < tolerance * np.outer(scale, scale)))


def _cholesky(matrix: Floats, name: str) -> Floats:
    factor, info = dpotrf(matrix, lower=1, clean=1)
    if info:
        raise LinAlgError(f"{name} is not positive definite")
    return np.asarray(factor)


def _solve_lower(factor: Floats, right: Floats) -> Floats:
    return np.asarray(dtrtrs(factor, right, lower=1)[0])
