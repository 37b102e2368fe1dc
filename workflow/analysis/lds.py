"""Fit a linear dynamical system by expectation maximisation.

The model is x' = A x + w, y = C x + v, with w ~ N(0, Q), v ~ N(0, R) and a Gaussian first state. Both steps
are exact: the expectations come from `workflow.analysis.kalman`, and the maximum over all parameters, that
first state included, has a closed form. So the likelihood never decreases.

See Shumway & Stoffer, J. Time Series Analysis 3:253 (1982), and Ghahramani & Hinton, Parameter estimation for
linear dynamical systems, CRG-TR-96-2, University of Toronto (1996).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lstsq

from workflow.analysis.arrays import Floats, real_matrix
from workflow.analysis.kalman import Filtered, System, kalman_filter, smooth
from workflow.analysis.lds_start import MIN_FRAMES_PER_SIGNAL, starting_system
from workflow.analysis.normalization import zscore

# A combination of standardised signals with less variance than this is none: its noise would shrink to 0.
DEPENDENT = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class FittedLDS:
    """A fitted linear dynamical system.

    Attributes
    ----------
    system : System
        The parameters after the last iteration, in the units of the signals.
    log_likelihoods : (iterations + 1,) array
        Of the start, and after each iteration; the last belongs to ``system``.
    """

    system: System
    log_likelihoods: Floats


def fit_lds(signals: ArrayLike, n_latent: int, *, iterations: int = 30, seed: int = 0) -> FittedLDS:
    """Fit a linear dynamical system to several signals.

    Parameters
    ----------
    signals : (p, T) array_like of real numbers
        One observed signal per row, one time bin per column. Means are removed.
    n_latent : int
        Dimensions of the latent state, 1 … p.
    iterations : int
        Steps of expectation maximisation.
    seed : int
        Of the random part of the start.

    Returns
    -------
    FittedLDS

    Raises
    ------
    ValueError
        If ``signals`` is not a real 2-D array; has fewer than 4 p + 1 columns; or holds a row that is
        constant or not finite, or that the others determine; or if ``n_latent`` or ``iterations`` is out of
        range.
    scipy.linalg.LinAlgError
        If a covariance stops being positive definite.
    """
    matrix = real_matrix(signals, "signals")
    p, n_frames = matrix.shape
    if not 1 <= n_latent <= p:
        raise ValueError(f"n_latent must be from 1 to the {p} signals, not {n_latent}")
    if iterations < 1:
        raise ValueError(f"iterations must be 1 or more, not {iterations}")
    if n_frames <= MIN_FRAMES_PER_SIGNAL * p:
        raise ValueError(f"too short: {n_frames} time bin(s), needs {MIN_FRAMES_PER_SIGNAL * p + 1}")
    Y = _centred(matrix)
    system = starting_system(Y, n_latent, seed)
    log_likelihoods = []
    for _ in range(iterations):
        filtered = kalman_filter(system, Y)
        log_likelihoods.append(filtered.log_likelihood)
        system = _maximised(system, filtered, Y)
    log_likelihoods.append(kalman_filter(system, Y).log_likelihood)
    return FittedLDS(system, np.array(log_likelihoods))


def sorted_eigenvalues(A: ArrayLike) -> NDArray[np.complex128]:
    """Eigenvalues by falling modulus; of equal ones the larger real part first, then the positive angle.

    Parameters
    ----------
    A : (n, n) array_like

    Returns
    -------
    (n,) complex array
    """
    found = np.linalg.eigvals(np.asarray(A, dtype=np.float64)).astype(np.complex128)
    order = np.lexsort((-found.imag, -found.real, -np.abs(found)))
    return found[order]


def time_constants(eigenvalues: ArrayLike, bin_width: float) -> Floats:
    """Seconds in which each mode decays to 1/e: −Δt / ln|λ|.

    Parameters
    ----------
    eigenvalues : (n,) array_like of complex numbers
        Of the dynamics of one time bin.
    bin_width : float
        Width Δt of a time bin (s).

    Returns
    -------
    (n,) array
        Infinite where a mode does not decay (|λ| ≥ 1), 0 where it is gone after one time bin (λ = 0).

    Raises
    ------
    ValueError
        If ``bin_width`` is not a positive number.
    """
    if not (math.isfinite(bin_width) and bin_width > 0):
        raise ValueError(f"bin_width must be a positive number of seconds, not {bin_width}")
    modulus = np.abs(np.asarray(eigenvalues))
    decaying = modulus < 1
    with np.errstate(divide="ignore"):
        rates = -np.log(np.where(decaying, modulus, 0.5))
    return np.where(decaying, bin_width / rates, np.inf)


def _centred(matrix: NDArray[Any]) -> Floats:
    """Signals without their means, one time bin per row; refuse those that no system can be fitted to."""
    normalized = zscore(matrix)
    if normalized.dropped:
        row, reason = normalized.dropped[0]
        raise ValueError(f"signal {row} cannot be used: {reason}")
    correlation = normalized.Z @ normalized.Z.T / matrix.shape[1]
    if np.linalg.eigvalsh(correlation)[0] < DEPENDENT:
        raise ValueError("the signals are linearly dependent: leave out those that others determine")
    Y = matrix.T.astype(np.float64, order="C")
    Y -= Y.mean(axis=0)
    return Y


def _maximised(system: System, filtered: Filtered, Y: Floats) -> System:
    """Parameters that maximise the expected likelihood.

    Noise covariances are sums over residuals of the means plus what the states' covariances add, which
    loses fewer digits than the difference of second moments in the papers, and is the same.
    """
    states = smooth(system, filtered)
    X, n_frames = states.means, len(Y)
    all_states = X.T @ X + states.total
    but_last = all_states - np.outer(X[-1], X[-1]) - states.last
    successive = X[1:].T @ X[:-1] + states.lagged

    C = _ratio(Y.T @ X, all_states)
    misfits = Y - X @ C.T
    R = (misfits.T @ misfits + C @ states.total @ C.T) / n_frames

    A = _ratio(successive, but_last)
    steps = X[1:] - X[:-1] @ A.T
    crossed = states.lagged @ A.T
    spread = states.total - states.first - crossed - crossed.T + A @ (states.total - states.last) @ A.T
    Q = (steps.T @ steps + spread) / (n_frames - 1)
    return System(A, C, _symmetric(Q), _symmetric(R), X[0], _symmetric(states.first))


def _ratio(products: Floats, moments: Floats) -> Floats:
    """Solve B M = P for the regression B; M is symmetric."""
    return np.ascontiguousarray(lstsq(moments, products.T)[0].T)


def _symmetric(matrix: Floats) -> Floats:
    return np.asarray((matrix + matrix.T) / 2)
