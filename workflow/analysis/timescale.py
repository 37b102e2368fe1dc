"""Timescales of signals: how fast their autocorrelation decays.

Two estimates are given. The crossing is where the autocorrelation first falls below e⁻¹ (or e⁻²); white noise
on top of a signal shortens it. The decay of a fitted A (exp(−l/τ) + B) to lags of at least 1 does not depend
on white noise, which is correlated with itself at lag 0 only: Murray et al., A hierarchy of intrinsic
timescales across primate cortex, Nature Neuroscience 17:1661 (2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise

from workflow.analysis.arrays import Floats, real_matrix
from workflow.analysis.normalization import Reason, zscore

# A faster decay is over before the second lag; one slower than twice the longest lag is a straight line.
SHORTEST_FIT = 0.5
LONGEST_FIT = 2.0
# Decays tried before the best is refined: the error has one minimum between neighbours this close.
GRID = 64
MIN_LAGS_TO_FIT = 5
# Values handled at a time (1 MB): they stay in the processor's cache.
BLOCK_VALUES = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Decay:
    """Fits of A (exp(−l/τ) + B) to K autocorrelations; NaN where there is none.

    Attributes
    ----------
    tau : (K,) array
        In lags.
    amplitude, offset : (K,) array
        A and B.
    explained : (K,) array
        Fraction of the autocorrelation's variance over the fitted lags that the fit explains, R².
    """

    tau: Floats
    amplitude: Floats
    offset: Floats
    explained: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Timescales:
    """Timescales of K signals, in lags (time bins).

    Attributes
    ----------
    autocorrelation : (K, L) array
        At lags 0 … L - 1; rows of unusable signals are NaN.
    crossing : dict of float to (K,) array
        For each level, the interpolated lag where the autocorrelation first falls below it; NaN where it
        never does within L lags (censored), or the signal is unusable.
    decay : Decay
    unusable : tuple of (int, Reason)
        Signals that have no autocorrelation, and why.
    """

    autocorrelation: Floats
    crossing: dict[float, Floats]
    decay: Decay
    unusable: tuple[tuple[int, Reason], ...]


E_1 = float(np.exp(-1))
E_2 = float(np.exp(-2))


def timescales(signals: ArrayLike, n_lags: int = 50) -> Timescales:
    """Measure the timescales of several signals.

    Parameters
    ----------
    signals : (K, T) array_like of real numbers
        One signal per row, one time bin per column, T > ``n_lags``.
    n_lags : int
        Lags 0 … ``n_lags`` - 1 are looked at, at least 2.

    Raises
    ------
    ValueError
        If ``signals`` is not a real 2-D array or is too short, or there are fewer than 2 lags.
    """
    matrix = real_matrix(signals, "signals")
    if n_lags < 2:
        raise ValueError(f"n_lags must be 2 or more, not {n_lags}")
    if matrix.shape[1] <= n_lags:
        raise ValueError(f"too short: {matrix.shape[1]} time bin(s), needs {n_lags + 1}")
    found = np.full((len(matrix), n_lags), np.nan)
    unusable: list[tuple[int, Reason]] = []
    rows_at_a_time = max(BLOCK_VALUES // matrix.shape[1], 1)
    for start in range(0, len(matrix), rows_at_a_time):
        normalized = zscore(matrix[start : start + rows_at_a_time])
        found[start + normalized.kept] = autocorrelation(normalized.Z, n_lags)
        unusable += [(start + row, reason) for row, reason in normalized.dropped]
    return Timescales(
        autocorrelation=found,
        crossing={level: crossings(found, level) for level in (E_1, E_2)},
        decay=fit_decay(found),
        unusable=tuple(unusable),
    )


def autocorrelation(Z: Floats, n_lags: int) -> Floats:
    """Compute the biased autocorrelation of normalised signals, Σ z(t) z(t + l) / T.

    Only the wanted lags are computed: a signal is cut into blocks of ``n_lags`` frames, and two matrix
    products multiply every frame of a block with those of the same block and of the next. Summed along
    diagonals they give the lags. That took half the time of a Fourier transform.

    Parameters
    ----------
    Z : (K, T) float64 array
        Rows of mean 0 and standard deviation 1.
    n_lags : int
        At least 1.

    Returns
    -------
    (K, n_lags) float64 array
    """
    n_signals, n_frames = Z.shape
    n_blocks = -(-n_frames // n_lags)
    padded = np.zeros((n_blocks + 1) * n_lags)
    blocks = padded[:-n_lags].reshape(n_blocks, n_lags)
    following = padded[n_lags:].reshape(n_blocks, n_lags)
    products = np.empty((n_lags, 2 * n_lags))
    down, right = products.strides
    diagonals = as_strided(products, (n_lags, n_lags), (down + right, right), writeable=False)
    found = np.empty((n_signals, n_lags))
    for row, z in enumerate(Z):
        padded[:n_frames] = z
        products[:, :n_lags] = blocks.T @ blocks
        products[:, n_lags:] = blocks.T @ following
        diagonals.sum(axis=0, out=found[row])
    found /= n_frames
    return found


def crossings(autocorrelations: Floats, level: float) -> Floats:
    """Find the lag where each autocorrelation first falls below a level.

    Between two lags it is taken as a straight line. For an exponential decay the error is 0 where the lag is
    whole, at most 2 % from 2.5 lags on, and at most 6 % from 1.

    Parameters
    ----------
    autocorrelations : (K, L) array
        At lags 0 … L - 1, 1 at lag 0; rows may be NaN.
    level : float
        Below 1.

    Returns
    -------
    (K,) array
        NaN where there is none.
    """
    below = autocorrelations < level
    each = np.arange(len(below))
    after = np.maximum(below.argmax(axis=1), 1)
    high, low = autocorrelations[each, after - 1], autocorrelations[each, after]
    crossed = below.any(axis=1)
    fall = np.where(crossed, high - low, 1.0)
    return np.where(crossed, after - 1 + (high - level) / fall, np.nan)


def fit_decay(autocorrelations: Floats) -> Decay:
    """Fit A (exp(−l/τ) + B) to lags 1 … L - 1 by least squares, A being positive.

    For a given τ the best A and B are those of a straight-line fit, so that only τ has to be searched for.
    A row has no fit where τ would be outside 0.5 … 2 (L - 1) lags, A is not positive, or L is below 5.

    Parameters
    ----------
    autocorrelations : (K, L) array
        At lags 0 … L - 1; rows may be NaN.
    """
    n_signals, n_lags = autocorrelations.shape
    nothing = np.full(n_signals, np.nan)
    usable = np.flatnonzero(np.isfinite(autocorrelations).all(axis=1))
    if n_lags < MIN_LAGS_TO_FIT or not usable.size:
        return Decay(nothing, nothing.copy(), nothing.copy(), nothing.copy())
    values = autocorrelations[usable, 1:]
    mean = values.mean(axis=1)
    values = values - mean[:, None]
    log_tau, bracketed = _best_decay(values)
    shapes = np.exp(-np.arange(1, n_lags) / np.exp(log_tau)[:, None])
    level = shapes.mean(axis=1)
    shapes -= level[:, None]
    amplitude = np.einsum("ij,ij->i", shapes, values) / np.einsum("ij,ij->i", shapes, shapes)
    good = bracketed & (amplitude > 0)
    total = np.einsum("ij,ij->i", values, values)
    left = np.sum((values - amplitude[:, None] * shapes) ** 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = (np.exp(log_tau), amplitude, mean / amplitude - level, 1 - left / total)
    filled = [nothing.copy() for _ in columns]
    for into, column in zip(filled, columns, strict=True):
        into[usable[good]] = column[good]
    return Decay(*filled)


def _best_decay(values: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Search log τ for each row of centred values; say where the best lies inside the range."""
    lags = np.arange(1, values.shape[1] + 1)
    grid = np.linspace(np.log(SHORTEST_FIT), np.log(LONGEST_FIT * lags[-1]), GRID)
    shapes = _unit_shapes(grid, lags)
    overlaps = values @ shapes.T
    best = overlaps.argmax(axis=1)
    inside = (best > 0) & (best < GRID - 1) & (overlaps.max(axis=1) > 0)
    log_tau = grid[best]
    rows = np.flatnonzero(inside)
    if rows.size:
        middle = best[rows]
        find_minimum: Any = elementwise.find_minimum  # its type knows no further arguments
        refined = find_minimum(
            lambda x, row: -np.einsum("...i,...i->...", _unit_shapes(x, lags), values[row.astype(np.intp)]),
            (grid[middle - 1], grid[middle], grid[middle + 1]),
            args=(rows,),
        )
        log_tau[rows] = refined.x
        inside[rows] = refined.success
    return log_tau, inside


def _unit_shapes(log_tau: Floats, lags: NDArray[np.int64]) -> Floats:
    """Centred exponential decays of unit norm, one per last axis."""
    shapes = np.exp(-lags / np.exp(log_tau)[..., None])
    shapes -= shapes.mean(axis=-1, keepdims=True)
    shapes /= np.sqrt(np.einsum("...i,...i->...", shapes, shapes))[..., None]
    return np.asarray(shapes)
