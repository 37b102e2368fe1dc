"""Random choices of ROIs and frames that a seed makes repeatable."""

from __future__ import annotations

import numpy as np

from workflow.analysis.arrays import Indices


def random_rows(n_rows: int, size: int, rng: np.random.Generator) -> Indices:
    """Draw rows without replacement; each is as likely as any other, the first and the last included.

    Parameters
    ----------
    n_rows : int
        How many there are.
    size : int
        How many to draw.
    rng : numpy.random.Generator

    Returns
    -------
    (size,) int64 array
        Ascending.

    Raises
    ------
    ValueError
        If ``size`` is below 1 or above ``n_rows``.
    """
    _require_fits(size, n_rows, "rows")
    return np.sort(rng.choice(n_rows, size, replace=False, shuffle=False)).astype(np.int64, copy=False)


def random_block(n_frames: int, length: int, rng: np.random.Generator) -> slice:
    """Draw consecutive frames; every start that leaves room for the whole block is as likely as any other.

    Parameters
    ----------
    n_frames : int
        How many there are.
    length : int
        How many to draw.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If ``length`` is below 1 or above ``n_frames``.
    """
    _require_fits(length, n_frames, "frames")
    start = int(rng.integers(n_frames - length + 1))
    return slice(start, start + length)


def _require_fits(size: int, available: int, what: str) -> None:
    if not 1 <= size <= available:
        raise ValueError(f"cannot draw {size} of {available} {what}: between 1 and {available} can be drawn")
