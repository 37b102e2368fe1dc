"""Variance that two halves of a population share: shared variance component analysis (SVCA).

Stringer, Pachitariu, Steinmetz, Reddy, Carandini & Harris (2019), Science 364:255. The neurons are split into
two halves, the time into training and test blocks. The singular vectors of the covariance between the halves
in the training blocks are the directions along which the halves go together; how much they go together is
then measured in the test blocks, which had no say in the choice of the directions. What is noise in one half
is not in the other, so it has no part in the covariance of a pair of projections, only in their variances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import svd

from workflow.analysis.arrays import Floats, real_matrix
from workflow.analysis.normalization import CONSTANT_TOLERANCE

#: What `checkerboard` calls the two halves and what lies between them.
FIRST, SECOND, GUARD = 1, 2, 0


@dataclass(frozen=True, slots=True, eq=False)
class SharedVariance:
    """What two halves share, component by component, in the order of their covariance in training.

    Attributes
    ----------
    shared : (m,) float64 array
        Σ s₁s₂ over the test bins. Where nothing is shared it scatters around 0.
    total : (m,) float64 array
        ½ Σ (s₁² + s₂²) over the test bins.
    variance : float
        ½ (Σ F₁² + Σ F₂²) over the test bins: the total of all directions, not only of these components.
    n_train, n_test : int
        Bins in the training and in the test blocks.
    """

    shared: Floats
    total: Floats
    variance: float
    n_train: int
    n_test: int

    @property
    def reliable(self) -> Floats:
        """Return shared / total of each component, at most 1; NaN where a component is silent in the test."""
        ratio = np.full(len(self.total), np.nan)
        np.divide(self.shared, self.total, out=ratio, where=self.total > 0)
        return ratio


def checkerboard(x: ArrayLike, y: ArrayLike, *, tile: float, guard: float, seed: int) -> NDArray[np.int8]:
    """Split ROIs into the two colours of a checkerboard, leaving out those near the edges of the squares.

    Two ROIs of different halves are then at least ``guard`` apart, so that none shares light with one of the
    other half. Depth is ignored: ROIs above one another are always in the same half.

    Parameters
    ----------
    x, y : (N,) array_like of real numbers
        Centroids in pixels.
    tile : float
        Side of a square in pixels.
    guard : float
        Width in pixels of the gap between squares; less than ``tile``.
    seed : int
        Decides where the board lies.

    Returns
    -------
    (N,) int8 array
        1 and 2 for the halves, 0 for an ROI in a gap.

    Raises
    ------
    ValueError
        If the centroids are not finite or not one pair per ROI, or ``0 <= guard < tile`` does not hold.
    """
    if not (math.isfinite(tile) and 0 <= guard < tile):
        raise ValueError(f"tile and guard must fulfil 0 <= guard < tile (pixels), not {guard} and {tile}")
    centroids = real_matrix(np.stack([np.asarray(x), np.asarray(y)]), "centroids").astype(np.float64)
    if not np.isfinite(centroids).all():
        raise ValueError("centroids must be finite: leave out the ROIs that have none")
    origin = np.random.default_rng(seed).uniform(0, 2 * tile, size=2)
    position = (centroids + origin[:, None]) / tile
    square = np.floor(position)
    from_edge = np.minimum(position - square, square + 1 - position) * tile
    halves = np.where(square.sum(axis=0) % 2 == 0, FIRST, SECOND)
    return np.where((from_edge < guard / 2).any(axis=0), GUARD, halves).astype(np.int8)


def training_bins(n_bins: int, block: int) -> NDArray[np.bool_]:
    """Mark the training bins: blocks of ``block`` bins alternate, the first for training.

    Parameters
    ----------
    n_bins : int
        T.
    block : int
        Bins per block; the last block may be shorter.

    Raises
    ------
    ValueError
        If ``block`` is below 1, or there is not one whole block of either kind.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1 bin, not {block}")
    if n_bins < 2 * block:
        raise ValueError(f"too short: {n_bins} time bin(s), needs {2 * block} (two blocks of {block})")
    return np.asarray(np.arange(n_bins) // block % 2 == 0)


def shared_variance(
    F1: ArrayLike, F2: ArrayLike, *, block: int = 60, max_components: int = 1000, zscored: bool = False
) -> SharedVariance:
    """Measure the variance that two groups of ROIs share.

    Each trace is centred twice: the training bins at their own mean, so that the directions depend on nothing
    outside the training blocks, and the test bins at theirs, so that ``shared`` and ``total`` are the
    covariance and the variance of the test bins and a drift between the blocks counts in neither.

    Parameters
    ----------
    F1, F2 : (N1, T) and (N2, T) array_like of real numbers
        Traces of the two halves; they need not be normalised.
    block : int
        Bins per block of time.
    max_components : int
        How many components to return at most. There are no more than the rank of the covariance, of which
        N1, N2 and the training bins less one are upper limits.
    zscored : bool
        Give every ROI a standard deviation of 1 in the training bins, so that all count alike; by default
        those that vary more count more. One that is constant in training counts for nothing.

    Returns
    -------
    SharedVariance

    Raises
    ------
    ValueError
        If a half has no ROI, the halves differ in length, hold NaN or infinity or numbers too large to
        multiply, ``max_components`` is below 1, or as `training_bins` raises.
    """
    if max_components < 1:
        raise ValueError(f"max_components must be at least 1, not {max_components}")
    first, second = real_matrix(F1, "F1"), real_matrix(F2, "F2")
    if not len(first) or not len(second):
        raise ValueError(f"both halves must have ROIs, not {len(first)} and {len(second)}")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"the halves must be equally long, not {first.shape[1]} and {second.shape[1]} bins")
    train = training_bins(first.shape[1], block)
    with np.errstate(invalid="ignore", over="ignore"):
        train1, train2 = _centred(first, train), _centred(second, train)
        gain1, gain2 = (_gain(first, train1), _gain(second, train2)) if zscored else (None, None)
        C = _scaled(train1, gain1) @ _scaled(train2, gain2).T
    del train1, train2  # before the test bins are copied: never are both in memory
    _require_finite(C)
    U, s, Vt = svd(C, full_matrices=False, overwrite_a=True, check_finite=False, lapack_driver="gesdd")
    # Directions below the rank are arbitrary: nothing in the data chose them.
    rank = int(np.count_nonzero(s > s[0] * max(C.shape) * np.finfo(np.float64).eps))
    m = min(rank, max_components, int(train.sum()) - 1)
    with np.errstate(invalid="ignore", over="ignore"):
        test1, test2 = _scaled(_centred(first, ~train), gain1), _scaled(_centred(second, ~train), gain2)
        variance = float(np.einsum("ij,ij->", test1, test1) + np.einsum("ij,ij->", test2, test2)) / 2
    _require_finite(variance)
    s1, s2 = U[:, :m].T @ test1, Vt[:m] @ test2
    return SharedVariance(
        shared=np.einsum("ij,ij->i", s1, s2),
        total=(np.einsum("ij,ij->i", s1, s1) + np.einsum("ij,ij->i", s2, s2)) / 2,
        variance=variance,
        n_train=int(train.sum()),
        n_test=int((~train).sum()),
    )


def _centred(F: NDArray[np.generic], bins: NDArray[np.bool_]) -> Floats:
    """Copy some bins of traces, centred at their own mean."""
    centred = F[:, bins].astype(np.float64, copy=False)
    centred -= centred.mean(axis=1)[:, None]
    return centred


def _gain(F: NDArray[np.generic], training: Floats) -> Floats:
    """Find what gives every ROI a standard deviation of 1 in training; 0 for one that is constant there."""
    sd = np.sqrt(np.einsum("ij,ij->i", training, training) / training.shape[1])
    silent = sd <= CONSTANT_TOLERANCE * np.maximum(np.abs(F.max(axis=1)), np.abs(F.min(axis=1)))
    return np.where(silent, 0.0, 1 / np.where(silent, 1.0, sd))[:, None]


def _scaled(centred: Floats, gain: Floats | None) -> Floats:
    """Multiply in place."""
    if gain is not None:
        centred *= gain
    return centred


def _require_finite(values: ArrayLike) -> None:
    if not np.isfinite(values).all():
        raise ValueError("traces must be finite: they hold NaN, infinity or numbers too large to multiply")
