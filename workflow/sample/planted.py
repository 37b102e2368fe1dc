"""Activity with a known low-rank structure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Decay times of the planted latents (s).
TIMESCALES = (0.5, 1.0, 2.0, 4.0, 8.0)

#: Variance of the white noise of every ROI; the rest of its unit variance is shared.
NOISE_VARIANCE = 0.5

Floats = NDArray[np.float64]


def latents(rng: np.random.Generator, n_frames: int, frame_rate: float) -> Floats:
    """Draw smooth, uncorrelated latents.

    Each is a first-order autoregression x[t] = φ x[t-1] + √(1 - φ²) e[t] with φ = exp(-1 / (τ f)). They
    are centred and orthonormalised over the epoch, so that their variances are exactly 1 and their
    covariances exactly 0: what is planted is then known, not only expected.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_frames : int
        T; at least one more than there are latents.
    frame_rate : float
        f, in Hz.

    Returns
    -------
    ndarray, shape (d, T)
    """
    phi = np.array([math.exp(-1 / (tau * frame_rate)) for tau in TIMESCALES])
    steps = rng.standard_normal((n_frames, len(phi)))
    steps[1:] *= np.sqrt(1 - phi**2)
    for frame in range(1, n_frames):
        steps[frame] += phi * steps[frame - 1]
    rows: list[Floats] = []
    # Gram-Schmidt by plain sums: unlike BLAS they do not depend on the number of threads. The slow
    # latents come last, where the least of them is taken away.
    for column in steps.T:
        row = column - column.mean()
        for earlier in rows:
            row = row - (row * earlier).sum() / n_frames * earlier
        rows.append(row * np.sqrt(n_frames / (row * row).sum()))
    return np.array(rows)


def loadings(rng: np.random.Generator, x: Floats, y: Floats, extent: float) -> Floats:
    """Draw spatially localised loadings.

    Every latent has a centre in the field of view and fades away from it; the first, and fastest, is
    everywhere.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    x, y : ndarray, shape (N,)
        Centroids (pixels).
    extent : float
        Size of the field of view (pixels).

    Returns
    -------
    ndarray, shape (N, d)
        Rows have the squared norm ``1 - NOISE_VARIANCE``.
    """
    count = len(TIMESCALES)
    centre = rng.uniform(0.1, 0.9, size=(2, count)) * extent
    distance2 = (x[:, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2
    local = 1 / (1 + distance2 / (0.25 * extent) ** 2)
    local[:, 0] = 0.5
    weight = local * (0.5 + rng.standard_normal((len(x), count)))
    norm = np.sqrt((weight * weight).sum(axis=1, keepdims=True))
    return np.asarray(weight * np.sqrt(1 - NOISE_VARIANCE) / norm)


def traces(
    seed: Sequence[int], weights: Floats, n_frames: int, frame_rate: float, dtype: DTypeLike
) -> Iterator[NDArray[np.floating]]:
    """Make the dF/F of one epoch, ROI by ROI.

    Trace i is offset + gain · (weights[i] · latents + white noise); gain and offset differ by ROI and
    vanish under z-scoring.

    Parameters
    ----------
    seed : sequence of int
        Decides everything random.
    weights : ndarray, shape (N, d)
        Loadings.
    n_frames : int
        T. With fewer than 20 frames there is nothing to plant, and the traces are noise alone.
    frame_rate : float
        In Hz.
    dtype : dtype
        Precision of the result.

    Yields
    ------
    ndarray, shape (T,)
    """
    rng = np.random.default_rng(seed)
    shared = latents(rng, n_frames, frame_rate) if n_frames >= 20 else None
    for weight in weights:
        offset, gain = rng.uniform(0.0, 0.3), rng.uniform(0.05, 0.5)
        trace = np.sqrt(NOISE_VARIANCE) * rng.standard_normal(n_frames)
        if shared is not None:
            for share, latent in zip(weight, shared, strict=True):
                trace += share * latent
        yield (offset + gain * trace).astype(dtype)
