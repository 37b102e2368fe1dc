"""Relative fluorescence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: suite2p's own defaults.
NEUROPIL_COEFFICIENT = 0.7
BASELINE_WINDOW = 60.0  # s
BASELINE_SIGMA = 10.0  # frames

_BLOCK = 64  # ROIs at a time, so that the float64 copies stay small
_ROUNDING = 1e-12


def baseline(
    F: NDArray[np.floating[Any]],
    frame_rate: float,
    *,
    window: float = BASELINE_WINDOW,
    sigma: float = BASELINE_SIGMA,
) -> NDArray[np.float64]:
    """Estimate the running baseline fluorescence, as suite2p's ``maximin`` does.

    F₀ = max(min(G(F))), where G smooths with a Gaussian of ``sigma`` frames and the minimum and the
    maximum run over ``window`` seconds. Edges are mirrored.

    Parameters
    ----------
    F : ndarray, shape (N, T)
        Fluorescence.
    frame_rate : float
        In Hz.
    window : float
        In seconds.
    sigma : float
        In frames.

    Returns
    -------
    ndarray, shape (N, T)

    Notes
    -----
    Pachitariu et al. 2017, bioRxiv 061507.
    """
    smooth = np.asarray(F, dtype=np.float64)
    if sigma > 0.1:  # below, the kernel is one frame, but its weight a division by almost 0
        smooth = ndimage.gaussian_filter1d(smooth, sigma, axis=1)
    # Mirrored at its edges, the trace repeats after 2 T frames: a longer window finds nothing new.
    size = min(max(1, int(window * frame_rate)), 2 * smooth.shape[1])
    lowest = ndimage.minimum_filter1d(smooth, size, axis=1)
    return np.asarray(ndimage.maximum_filter1d(lowest, size, axis=1), dtype=np.float64)


def relative_fluorescence(
    F: NDArray[Any],
    Fneu: NDArray[Any],
    frame_rate: float,
    *,
    coefficient: float = NEUROPIL_COEFFICIENT,
    window: float = BASELINE_WINDOW,
    sigma: float = BASELINE_SIGMA,
) -> NDArray[np.float32]:
    """Compute dF/F = (Fc - F₀) / F₀ with Fc = F - coefficient · Fneu and F₀ = `baseline` of Fc.

    Where F₀ is not positive in every frame, or where F or Fneu is not finite, dF/F has no meaning: the
    whole trace of that ROI becomes NaN, which every computation leaves out and records. A few frames
    divided by almost nothing would instead pass for activity.

    Parameters
    ----------
    F, Fneu : ndarray, shape (N, T)
        Fluorescence of the ROIs and of the neuropil around them.
    frame_rate : float
        In Hz.
    coefficient : float
        Share of the neuropil in an ROI.
    window, sigma : float
        See `baseline`.

    Returns
    -------
    ndarray of float32, shape (N, T)
    """
    result = np.full(F.shape, np.nan, dtype=np.float32)
    for first in range(0, len(F), _BLOCK):
        rows = slice(first, first + _BLOCK)
        with np.errstate(invalid="ignore", over="ignore"):  # the result is not finite, and left out below
            corrected = np.asarray(F[rows], np.float64) - coefficient * np.asarray(Fneu[rows], np.float64)
        usable = np.flatnonzero(np.isfinite(corrected).all(axis=1))
        low = baseline(corrected[usable], frame_rate, window=window, sigma=sigma)
        positive = (low > 0).all(axis=1)
        usable, low = usable[positive], low[positive]
        with np.errstate(invalid="ignore", over="ignore"):
            relative = (corrected[usable] - low) / low
            # Rounding errors of a constant trace; z-scored, they would pass for activity.
            relative[np.abs(relative) < _ROUNDING] = 0
            result[first + usable] = relative
    result[~np.isfinite(result).all(axis=1)] = np.nan
    return result
