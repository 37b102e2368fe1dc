"""Singular value decomposition of normalised activity, Z = U S Vᵀ, by the Gram matrix of its smaller side.

Where the Gram matrix cannot be trusted (`workflow.analysis.gram`), LAPACK's ``gesdd`` takes the whole matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import svd as direct_svd

from workflow.analysis.arrays import Floats, real_matrix
from workflow.analysis.eigen import largest_eigenvectors
from workflow.analysis.gram import clamped, gram, singular_values, untrustworthy

# Below this, squares have lost digits to underflow.
SMALLEST_SQUARE = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps ** 2)
# Components whose signs are looked up at a time when their time courses are not kept.
SIGN_BLOCK = 256
# A cumulative fraction this close to the wanted one has reached it.
FRACTION_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class SVD:
    """The decomposition Z = U S Vᵀ of N ROIs × T frames.

    Attributes
    ----------
    s : (min(N, T),) float64 array
        All singular values, descending; those below 1e-7 of the first are exactly 0.
    U : (N, k90) float64 array, C order
        Row i holds the weights of ROI i in the first ``k90`` components.
    Vt : (m, T) float64 array, C order
        The first ``m`` time courses, of unit norm, the largest magnitude in each being positive;
        ``m`` is the wanted number or the number of nonzero singular values, whichever is smaller.
    k90 : int
        The smallest number of components that explain 90 % of the variance.
    method : str
        ``"gram"`` or ``"gesdd"``.
    """

    s: Floats
    U: Floats
    Vt: Floats
    k90: int
    method: str


def n_components_for(s: ArrayLike, fraction: float = 0.9) -> int:
    """Smallest number of components whose cumulative explained variance reaches ``fraction``.

    Parameters
    ----------
    s : (n,) array_like
        Singular values, descending.
    fraction : float
        In (0, 1]. Reached means reached but for rounding.

    Raises
    ------
    ValueError
        If ``fraction`` is outside (0, 1], or no singular value is positive.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, not {fraction}")
    values = np.asarray(s, dtype=np.float64)
    if values.ndim != 1 or not values.size or not 0 < values[0] < np.inf:
        raise ValueError("s must be a descending list of singular values, the first of them positive")
    explained = np.cumsum((values / values[0]) ** 2)
    return int(np.searchsorted(explained, fraction * explained[-1] * (1 - FRACTION_ROUNDING))) + 1


def population_svd(Z: ArrayLike, *, max_components: int = 1000, overwrite: bool = False) -> SVD:
    """Decompose normalised activity.

    Parameters
    ----------
    Z : (N, T) array_like of real numbers
        One ROI per row, usually as `workflow.analysis.normalization.zscore` returns it. Neither memory order
        costs a copy; anything but float64 does.
    max_components : int
        How many time courses to return at most.
    overwrite : bool
        Allow ``Z`` to be used as workspace.

    Returns
    -------
    SVD

    Raises
    ------
    ValueError
        If ``Z`` is not a real 2-D array, is empty, is 0 everywhere, or holds NaN, infinity or numbers whose
        squares overflow; or if ``max_components`` is negative.
    """
    if max_components < 0:
        raise ValueError(f"max_components must be 0 or more, not {max_components}")
    matrix = real_matrix(Z, "Z")
    if matrix.size == 0:
        raise ValueError(
            f"Z must hold at least one ROI and one frame, not {matrix.shape[0]} × {matrix.shape[1]}"
        )
    own = matrix.astype(np.float64, order="A", copy=False)
    if not (own.flags.c_contiguous or own.flags.f_contiguous):
        own = np.ascontiguousarray(own)
    rois_are_fewer = own.shape[0] <= own.shape[1]
    G = gram(own, over_rois=rois_are_fewer)
    with np.errstate(over="ignore"):
        total = float(np.trace(G))
    if not np.isfinite(total):
        raise ValueError("Z must be finite: it holds NaN, infinity or numbers too large to square")
    if total < SMALLEST_SQUARE:
        raise ValueError("Z must not be 0 everywhere, or so small that its squares are: nothing to decompose")

    def n_wanted(eigenvalues: Floats) -> int:
        s = singular_values(eigenvalues)
        if untrustworthy(s):
            return 0
        return max(n_components_for(s), min(max_components, int(np.count_nonzero(s))))

    eigenvalues, vectors = largest_eigenvectors(G, n_wanted)
    del G
    s = singular_values(eigenvalues)
    if untrustworthy(s):
        expendable = own is not matrix or (overwrite and own.flags.writeable)
        return _by_gesdd(own, max_components, overwrite=expendable)
    if rois_are_fewer:
        return _from_roi_side(own, s, vectors, max_components)
    return _from_frame_side(own, s, vectors, max_components)


def _from_roi_side(Z: Floats, s: Floats, U: Floats, max_components: int) -> SVD:
    """Complete the decomposition from the eigenvectors of Z Zᵀ."""
    k90 = n_components_for(s)
    m = min(max_components, U.shape[1])
    Vt = (U[:, :m] / s[:m]).T @ Z
    signs = np.empty(k90)
    stored = _signs(Vt)
    Vt *= stored[:, None]
    signs[:m] = stored[:k90]
    for start in range(m, k90, SIGN_BLOCK):
        block = slice(start, min(start + SIGN_BLOCK, k90))
        signs[block] = _signs(U[:, block].T @ Z)
    return SVD(s, np.multiply(U[:, :k90], signs, order="C"), Vt, k90, "gram")


def _from_frame_side(Z: Floats, s: Floats, V: Floats, max_components: int) -> SVD:
    """Complete the decomposition from the eigenvectors of ZᵀZ."""
    k90 = n_components_for(s)
    V *= _signs(V.T)
    U = np.ascontiguousarray(Z @ (V[:, :k90] / s[:k90]))
    return SVD(s, U, np.ascontiguousarray(V[:, :max_components].T), k90, "gram")


def _by_gesdd(Z: Floats, max_components: int, *, overwrite: bool) -> SVD:
    # LAPACK wants Fortran order; the transpose of a C-ordered Z is that already, with U and V exchanged.
    if Z.flags.c_contiguous:
        V, s, Ut = direct_svd(Z.T, full_matrices=False, overwrite_a=overwrite, check_finite=False)
        U, Vt = Ut.T, V.T
    else:
        U, s, Vt = direct_svd(Z, full_matrices=False, overwrite_a=overwrite, check_finite=False)
    s = clamped(s)
    k90 = n_components_for(s)
    m = min(max_components, int(np.count_nonzero(s)))
    signs = _signs(Vt[: max(m, k90)])
    U90 = np.multiply(U[:, :k90], signs[:k90], order="C")
    return SVD(s, U90, np.multiply(Vt[:m], signs[:m, None], order="C"), k90, "gesdd")


def _signs(rows: Floats) -> Floats:
    """Sign of the entry of largest magnitude in each row, the first such entry where several tie."""
    if not len(rows):
        return np.empty(0)
    high, low = rows.argmax(axis=1), rows.argmin(axis=1)
    each = np.arange(len(rows))
    top, bottom = rows[each, high], -rows[each, low]
    positive = (top > bottom) | ((top == bottom) & (high <= low))
    return np.where(positive, 1.0, -1.0)
