"""Singular values of random subsets of the ROIs, to compare populations of different sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigvalsh, svdvals

from workflow.analysis.arrays import Floats, Indices, real_matrix
from workflow.analysis.gram import clamped, gram, singular_values, untrustworthy
from workflow.analysis.subsets import random_rows


def shuffled_singular_values(Z: ArrayLike, subset: int, n_shuffles: int, seed: int) -> Floats:
    """Decompose random subsets of the ROIs, without their vectors.

    The Gram matrix of a subset is a piece of that of all ROIs, which is therefore formed once. Where there
    are fewer frames than ROIs in a subset, the subset's own ZᵀZ is the smaller problem, and is taken instead.
    Accuracy is that of `workflow.analysis.gram`: a subset whose values the Gram matrix cannot give is
    decomposed directly by LAPACK's ``gesdd``, and values below 1e-7 of the subset's largest are 0.

    Parameters
    ----------
    Z : (N, T) array_like of real numbers
        One normalised ROI per row.
    subset : int
        ROIs in each subset.
    n_shuffles : int
        How many subsets. The first ones are the same, however many there are.
    seed : int
        Of `numpy.random.default_rng`; equal seeds give equal subsets.

    Returns
    -------
    (n_shuffles, min(subset, T)) float64 array
        Singular values of each subset, descending.

    Raises
    ------
    ValueError
        If ``Z`` is not a real 2-D array, has no frames, or holds NaN, infinity or numbers too large to
        square; if ``subset`` is below 1 or above N; or if ``n_shuffles`` is below 1.
    """
    matrix = real_matrix(Z, "Z")
    if n_shuffles < 1:
        raise ValueError(f"n_shuffles must be 1 or more, not {n_shuffles}")
    n_rois, n_frames = matrix.shape
    if n_frames == 0:
        raise ValueError("Z must hold at least one frame")
    rng = np.random.default_rng(seed)
    subsets = [random_rows(n_rois, subset, rng) for _ in range(n_shuffles)]
    own: Floats = np.ascontiguousarray(matrix, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", own, own)
    if not np.isfinite(squares).all():
        raise ValueError("Z must be finite: it holds NaN, infinity or numbers too large to square")
    result = np.empty((n_shuffles, min(subset, n_frames)))
    whole = gram(own, over_rois=True) if subset <= n_frames else None
    for s, rows in zip(result, subsets, strict=True):
        G = gram(own[rows], over_rois=False) if whole is None else _piece(whole, rows)
        s[:] = _descending(G)
        if untrustworthy(s):
            s[:] = clamped(svdvals(own[rows], overwrite_a=True, check_finite=False))
    return result


def _piece(G: Floats, rows: Indices) -> Floats:
    """Cut rows and columns out of a lower triangle; they ascend, so the piece is a lower triangle too."""
    return G.T[np.ix_(rows, rows)].T  # in Fortran order, which LAPACK wants, from Fortran order


def _descending(G: Floats) -> Floats:
    ascending = eigvalsh(G, lower=True, overwrite_a=True, check_finite=False)
    return singular_values(np.asarray(ascending[::-1], dtype=np.float64))
