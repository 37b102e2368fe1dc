"""Averaging consecutive frames into time bins."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from workflow.analysis.arrays import Floats, real_matrix

# 0.28 s × 25 Hz is 7.000000000000001 in floating point and means seven frames, not eight: a product this
# close (relatively) to a whole number is that number.
WHOLE_NUMBER_TOLERANCE = 1e-9


def frames_per_bin(time_bin: float, frame_rate: float) -> int:
    """Count the frames averaged into one bin: ``ceil(time_bin · frame_rate)``, at least 1.

    Parameters
    ----------
    time_bin : float
        Wanted bin width in seconds; 0 means no binning.
    frame_rate : float
        Frames per second (Hz).

    Raises
    ------
    ValueError
        If ``time_bin`` is negative or not finite, or ``frame_rate`` is not positive and finite.
    """
    if not (math.isfinite(time_bin) and time_bin >= 0):
        raise ValueError(f"time_bin must be 0 (no binning) or a positive number of seconds, not {time_bin}")
    if not (math.isfinite(frame_rate) and frame_rate > 0):
        raise ValueError(f"frame_rate must be a positive number of frames per second, not {frame_rate}")
    wanted = time_bin * frame_rate
    if not math.isfinite(wanted):
        raise ValueError(
            f"time_bin {time_bin} s at frame_rate {frame_rate} Hz is more frames than can be counted"
        )
    nearest = round(wanted)
    if abs(wanted - nearest) <= WHOLE_NUMBER_TOLERANCE * nearest:
        return max(nearest, 1)
    return math.ceil(wanted)


def bin_width(time_bin: float, frame_rate: float) -> float:
    """Give the true width of a bin in seconds, which is at least ``time_bin``; raises as `frames_per_bin`."""
    return frames_per_bin(time_bin, frame_rate) / frame_rate


def bin_frames(F: ArrayLike, time_bin: float, frame_rate: float) -> Floats:
    """Average consecutive frames; frames left over at the end are dropped.

    Parameters
    ----------
    F : (N, T) array_like of real numbers
        One trace per row.
    time_bin : float
        Wanted bin width in seconds; 0 means no binning.
    frame_rate : float
        Frames per second (Hz).

    Returns
    -------
    (N, T // c) float64 array
        Means of ``c = frames_per_bin(time_bin, frame_rate)`` frames. No columns are left when the recording
        is shorter than one bin. Where ``c`` is 1 and ``F`` is already float64, this is ``F`` itself.

    Raises
    ------
    ValueError
        If ``F`` is not a real 2-D array, or as `frames_per_bin` raises.
    """
    matrix = real_matrix(F, "F")
    c = frames_per_bin(time_bin, frame_rate)
    if c == 1:
        return matrix.astype(np.float64, copy=False)
    n_rois, n_frames = matrix.shape
    n_bins = n_frames // c
    blocks = matrix[:, : n_bins * c].reshape(n_rois, n_bins, c)
    # einsum is two to three times faster than mean() on such a short last axis, and equal on any layout.
    # A trace may hold NaN or ±inf: it spoils its own bins only, and normalisation drops and reports it.
    with np.errstate(invalid="ignore", over="ignore"):
        binned = np.einsum("ijk->ij", blocks, dtype=np.float64, casting="same_kind")
    binned /= c
    return np.asarray(binned)
