"""Eigenvalues of a symmetric matrix, and the eigenvectors of the largest of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import dormqr, dstevd, dsytrd, dsytrd_lwork

from workflow.analysis.arrays import Floats


def largest_eigenvectors(G: Floats, how_many: Callable[[Floats], int]) -> tuple[Floats, Floats]:
    """Compute all eigenvalues of ``G`` and the eigenvectors of the largest ones.

    These are the steps of LAPACK's divide and conquer driver (``dsyevd``), except that only the wanted
    vectors are carried back from the tridiagonal basis. Next to ``eigh(driver="evd")`` of SciPy this saves a
    fifth of the time at n = 3000 when a third of the vectors is wanted, and costs nothing when most are; a
    subset by ``driver="evr"`` took up to three times as long as either.

    Parameters
    ----------
    G : (n, n) float64 array in Fortran order
        Symmetric; only the lower triangle is read. It is used as workspace.
    how_many : callable
        Given all eigenvalues, descending, it returns how many vectors are wanted (0 … n).

    Returns
    -------
    eigenvalues : (n,) array
        All of them, descending.
    vectors : (n, k) array in Fortran order
        Column i belongs to eigenvalue i.

    Raises
    ------
    scipy.linalg.LinAlgError
        If LAPACK does not converge.
    """
    n = len(G)
    if n == 1:
        eigenvalues = G[0].copy()
        return eigenvalues, np.ones((1, how_many(eigenvalues)), order="F")
    best_size, _ = dsytrd_lwork(n, lower=1)
    reduced, diagonal, off_diagonal, tau, info = dsytrd(G, lower=1, lwork=int(best_size), overwrite_a=1)
    _check("dsytrd", info)
    ascending, W, info = dstevd(diagonal, off_diagonal, overwrite_d=1, overwrite_e=1)
    _check("dstevd", info)
    eigenvalues = ascending[::-1].copy()
    k = how_many(eigenvalues)
    vectors = np.empty((n, k), order="F")
    if k == 0:
        return eigenvalues, vectors
    wanted = W[:, : -k - 1 : -1]
    # The reflectors stand below the subdiagonal and leave the first coordinate alone. Seen from the second
    # element on, with the same leading dimension n, they are the argument that dormqr expects: no copy.
    reflectors = reduced.ravel(order="F")[1 : 1 + n * (n - 1)].reshape((n, n - 1), order="F")
    vectors[0] = wanted[0]
    rest = np.array(wanted[1:], order="F")
    del W, wanted
    _, best, _ = dormqr("L", "N", reflectors, tau, rest, -1, overwrite_c=1)
    vectors[1:], _, info = dormqr("L", "N", reflectors, tau, rest, int(best[0]), overwrite_c=1)
    _check("dormqr", info)
    return eigenvalues, vectors


def _check(routine: str, info: int) -> None:
    if info != 0:
        raise LinAlgError(f"LAPACK {routine} ended with info = {info}: the eigenvalues could not be computed")
