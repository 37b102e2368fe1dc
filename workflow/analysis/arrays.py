"""What every computation asks of its input matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def real_matrix(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return ``values`` as a 2-D array of real numbers, in the precision it came in.

    Parameters
    ----------
    values : array_like
        Anything NumPy can see as an array.
    name : str
        What to call it in an error message.

    Raises
    ------
    ValueError
        If it is not two-dimensional, or holds complex numbers, text or objects.
    """
    matrix = np.asarray(values)
    if matrix.ndim != 2:
        raise ValueError(f"{name} must be a 2-D array (ROIs × frames), not {matrix.ndim}-D")
    if matrix.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, not {matrix.dtype}")
    return matrix
