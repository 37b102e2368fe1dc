"""Singular values by way of a Gram matrix, and how far they can be trusted.

The Gram matrix squares the singular values, so small ones lose digits. Relative to itself, a value of r times
the largest is good to 2e-16 / r² at worst: to 1e-12 above r = 0.015, where those of recordings are, to 1e-10
at 1e-3; below about 1e-7 it is lost. (That is for matrices of a few rows. At 300 × 1000 the error is a
hundredth of it: 5e-12 at 1e-3, 1e-8 at 1e-5.) Hence two limits: values below ``CLAMP`` count as 0, without
vectors, and a value between ``CLAMP`` and ``TRUST`` sends the whole matrix to LAPACK's direct ``gesdd``. An
exact zero comes out near 1e-8, so it is clamped and needs no direct route: duplicated traces give such zeros,
and so do centred traces where N ≥ T, because they are orthogonal to a constant time course.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dsyrk

from workflow.analysis.arrays import Floats

CLAMP = 1e-7
TRUST = 1e-5


def gram(Z: Floats, *, over_rois: bool) -> Floats:
    """Give the lower triangle of Z Zᵀ or ZᵀZ: half the work of a matrix product, and no copy of Z.

    Parameters
    ----------
    Z : (N, T) float64 array in C or Fortran order
    over_rois : bool
        Z Zᵀ, of N × N; else ZᵀZ, of T × T.

    Returns
    -------
    float64 array in Fortran order
        Zeros above the diagonal.
    """
    if Z.flags.c_contiguous:
        return dsyrk(1.0, Z.T, trans=int(over_rois), lower=1)
    return dsyrk(1.0, Z, trans=int(not over_rois), lower=1)


def singular_values(eigenvalues: Floats) -> Floats:
    """Take the roots of a Gram matrix's eigenvalues, descending; what cannot be told from 0 is 0."""
    return clamped(np.sqrt(np.maximum(eigenvalues, 0.0)))  # rounding can leave an eigenvalue below 0


def clamped(s: Floats) -> Floats:
    """Set singular values below ``CLAMP`` of the first to 0."""
    return np.where(s < CLAMP * s[0], 0.0, s)


def untrustworthy(s: Floats) -> bool:
    """Say whether any of these values needs the direct route, if they came from a Gram matrix."""
    return bool(np.any((s > 0) & (s < TRUST * s[0])))
