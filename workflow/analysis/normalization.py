"""Normalising every trace to mean 0 and standard deviation 1, and saying which traces cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow.analysis.arrays import Floats, Indices, real_matrix

# The mean of a constant trace can be inexact, so its computed deviation need not be 0.
CONSTANT_TOLERANCE = 1e-6
# Sums of squares of numbers up to this, however many, are finite. A plain float would be cast to float32.
LARGEST = np.float64(1e140)
# Values handled at a time (8 MB): temporary copies stay small beside the traces.
BLOCK_VALUES = 1 << 20


class Reason(StrEnum):
    """Why a trace was dropped."""

    NAN = "NaN"
    INFINITE = "infinite"
    TOO_LARGE = "too large to square"
    CONSTANT = "constant"
    CONSTANT_AFTER_THRESHOLD = "constant after threshold"


@dataclass(frozen=True, slots=True, eq=False)
class Normalized:
    """Normalised traces, and what became of each ROI.

    Attributes
    ----------
    Z : (N_kept, T) float64 array, C order
        Rows of mean 0 and population standard deviation 1.
    kept : (N_kept,) int64 array
        The row of the input that each row of ``Z`` came from, ascending.
    dropped : tuple of (int, Reason)
        The other rows of the input, ascending, each with its reason.
    """

    Z: Floats
    kept: Indices
    dropped: tuple[tuple[int, Reason], ...]


def zscore(F: ArrayLike, threshold: float = 0.0, *, overwrite: bool = False) -> Normalized:
    """Normalise each trace to mean 0 and population standard deviation 1, in float64.

    A trace that holds NaN or infinity, or whose standard deviation is at most 1e-6 of its largest magnitude,
    is dropped and recorded.

    Parameters
    ----------
    F : (N, T) array_like of real numbers
        One trace per row. A single frame is constant.
    threshold : float
        Where positive, z-scores that are not above it become 0, and the trace is normalised again; one that
        never passes the threshold is then constant, and dropped.
    overwrite : bool
        Allow the result to be built inside ``F`` (if that is a writable float64 array in C order).

    Returns
    -------
    Normalized

    Raises
    ------
    ValueError
        If ``F`` is not a real 2-D array, or ``threshold`` is negative or not finite.
    """
    matrix = real_matrix(F, "F")
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold must be 0 (none) or a positive z-score, not {threshold}")
    n_rois, n_frames = matrix.shape
    reusable = matrix.dtype == np.float64 and matrix.flags.c_contiguous and matrix.flags.writeable
    Z: Floats = matrix if overwrite and reusable else np.empty((n_rois, n_frames))
    kept: list[int] = []
    dropped: list[tuple[int, Reason]] = []
    for start, block, reasons in _normalized_blocks(matrix, threshold):
        good = [row for row, reason in enumerate(reasons) if reason is None]
        # Kept rows move up behind one another: never past the rows still to be read, even inside F.
        Z[len(kept) : len(kept) + len(good)] = block if len(good) == len(block) else block[good]
        kept += [start + row for row in good]
        dropped += [(start + row, reason) for row, reason in enumerate(reasons) if reason is not None]
    return Normalized(Z[: len(kept)], np.array(kept, dtype=np.int64), tuple(dropped))


def unusable(F: ArrayLike) -> dict[int, Reason]:
    """Say which traces cannot be used as they are: what `zscore` would drop, or numbers too large to square.

    A block of rows at a time, without a normalised copy of the rest.

    Parameters
    ----------
    F : (N, T) array_like of real numbers
        One trace per row.

    Returns
    -------
    dict of int to Reason
        Rows, ascending.

    Raises
    ------
    ValueError
        If ``F`` is not a real 2-D array.
    """
    matrix = real_matrix(F, "F")
    found: dict[int, Reason] = {}
    for start, block, reasons in _normalized_blocks(matrix, 0.0):
        largest = np.abs(matrix[start : start + len(block)]).max(axis=1, initial=0)
        _mark(reasons, largest > LARGEST, Reason.TOO_LARGE)
        found |= {start + row: reason for row, reason in enumerate(reasons) if reason is not None}
    return found


def _normalized_blocks(
    matrix: NDArray[Any], threshold: float
) -> Iterator[tuple[int, Floats, list[Reason | None]]]:
    """Normalise copies of some rows at a time; give the first one's number, them, and what is wrong."""
    rows_at_a_time = max(BLOCK_VALUES // max(matrix.shape[1], 1), 1)
    for start in range(0, len(matrix), rows_at_a_time):
        block = np.array(matrix[start : start + rows_at_a_time], dtype=np.float64, order="C")
        yield start, block, _normalize(block, threshold)


def _normalize(block: Floats, threshold: float) -> list[Reason | None]:
    """Normalise the rows in place; rows with a reason hold nothing of use."""
    reasons: list[Reason | None] = [None] * len(block)
    if not block.size:
        return [Reason.CONSTANT] * len(block)
    largest = np.maximum(block.max(axis=1), -block.min(axis=1))
    for reason, found in ((Reason.NAN, np.isnan(largest)), (Reason.INFINITE, np.isinf(largest))):
        _mark(reasons, found, reason)
        block[found] = 0.0
        largest[found] = 0.0
    # In units of the largest magnitude no square overflows, and no tiny trace is taken for a constant one.
    block /= np.where(largest > 0, largest, 1.0)[:, None]
    _mark(reasons, _standardize(block), Reason.CONSTANT)
    if threshold > 0:
        block[block <= threshold] = 0.0
        _mark(reasons, _standardize(block), Reason.CONSTANT_AFTER_THRESHOLD)
    return reasons


def _standardize(block: Floats) -> NDArray[np.bool_]:
    """Centre and scale the rows in place; return which are constant (and left at 0)."""
    largest = np.maximum(block.max(axis=1), -block.min(axis=1))
    block -= block.mean(axis=1)[:, None]
    sd = np.sqrt(np.einsum("ij,ij->i", block, block) / block.shape[1])
    constant: NDArray[np.bool_] = sd <= CONSTANT_TOLERANCE * largest
    block[constant] = 0.0
    block /= np.where(constant, 1.0, sd)[:, None]
    return constant


def _mark(reasons: list[Reason | None], found: NDArray[np.bool_], reason: Reason) -> None:
    """Record the reason for the rows found, unless they have one already."""
    for row in np.flatnonzero(found):
        reasons[row] = reasons[row] or reason
